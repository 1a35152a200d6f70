"""Events as spans and metrics, of a manager at work."""

from __future__ import annotations

import subprocess
import sys

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.integrations.telemetry import PrometheusListener, telemetry

SCOPE = Scope(tenant_id="acme", thread_id="t")
CANARY = "canarytext"


class Watched:
    """Where everything that is told ends up."""

    def __init__(self, **settings) -> None:
        self.spans = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.registry = CollectorRegistry()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.listeners = telemetry(
            tracer_provider=self.tracers,
            meter_provider=MeterProvider([self.reader]),
            registry=self.registry,
            **settings,
        )

    def metrics(self):
        data = self.reader.get_metrics_data()
        return {
            metric.name: metric.data.data_points[0]
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def text(self):
        told = [span.to_json() for span in self.spans.get_finished_spans()]
        return "\n".join([*told, generate_latest(self.registry).decode(), repr(self.metrics())])


@pytest.fixture
def watched():
    return Watched()


class Broken(DeterministicFakeEmbedding):
    def embed_query(self, text):
        raise ConnectionError(f"cannot embed {CANARY}")

    def embed_documents(self, texts):
        raise ConnectionError(f"cannot embed {CANARY}")


def converse(watched):
    call = {"name": "read", "args": {}, "id": "c1", "type": "tool_call"}
    with ContextManager.open(
        None, model="gpt-4o-mini", embeddings=Broken(size=8), listeners=watched.listeners
    ) as manager:
        for number in range(20):
            said = [HumanMessage(f"{number} {CANARY} " * 30), AIMessage("Noted.")]
            manager.record(said, scope=SCOPE)
        question = HumanMessage(f"What is {CANARY}?", id="q")
        manager.record(
            [
                question,
                AIMessage("", tool_calls=[call]),
                ToolMessage(f"{CANARY} " * 2_000, tool_call_id="c1"),
            ],
            scope=SCOPE,
        )
        return manager.prepare(scope=SCOPE, query=question, max_tokens=800)


class TestSpans:
    def test_a_prepared_context_is_a_span_with_its_conversation(self, watched):
        with watched.tracers.get_tracer("app").start_as_current_span("turn") as turn:
            context = converse(watched)
        prepared, around = watched.spans.get_finished_spans()
        assert prepared.name == "prepare_context"
        assert prepared.parent.span_id == turn.get_span_context().span_id
        assert prepared.attributes["gen_ai.conversation.id"] == "t"
        assert prepared.attributes["ctxmgr.tenant.id"] == "acme"
        assert prepared.attributes["gen_ai.usage.input_tokens"] == context.tokens
        assert prepared.attributes["ctxmgr.full_tokens"] == context.full_tokens
        assert prepared.start_time < prepared.end_time
        names = {event.name for event in around.events}
        assert {"ctxmgr.recorded", "ctxmgr.degraded", "ctxmgr.trimmed"} <= names

    async def test_async_calls_are_under_the_span_around_them(self, watched):
        with ContextManager.open(None, model="gpt-4o-mini", listeners=watched.listeners) as manager:
            with watched.tracers.get_tracer("app").start_as_current_span("turn") as turn:
                await manager.arecord([HumanMessage("hello")], scope=SCOPE)
                await manager.aprepare(scope=SCOPE, query="hello?")
            prepared, around = watched.spans.get_finished_spans()
        assert prepared.parent.span_id == turn.get_span_context().span_id
        assert "ctxmgr.recorded" in {event.name for event in around.events}

    def test_nothing_that_was_said_is_told_unless_asked(self, watched):
        told = Watched(with_text=True)
        for each in (watched, told):
            with each.tracers.get_tracer("app").start_as_current_span("turn"):
                converse(each)
        assert CANARY not in watched.text()
        assert CANARY in told.text()


class TestMetrics:
    def test_both_count_the_same(self, watched):
        context = converse(watched)
        counted = watched.metrics()
        value = watched.registry.get_sample_value
        assert counted["ctxmgr.messages.recorded"].value == 43
        assert value("ctxmgr_messages_recorded_total") == 43
        assert counted["ctxmgr.prepare.tokens"].sum == context.tokens
        assert value("ctxmgr_prepare_tokens_sum") == context.tokens
        saved = context.full_tokens - context.tokens
        assert counted["ctxmgr.prepare.saved_tokens"].value == saved
        assert value("ctxmgr_prepare_saved_tokens_total") == saved
        assert (
            counted["ctxmgr.prepare.duration"].count == value("ctxmgr_prepare_seconds_count") == 1
        )
        assert counted["ctxmgr.messages.trimmed"].value >= 1
        assert value("ctxmgr_degraded_total", {"part": "embeddings"}) >= 1

    def test_they_carry_no_ids(self, watched):
        converse(watched)
        assert "acme" not in generate_latest(watched.registry).decode()
        assert all("acme" not in repr(point.attributes) for point in watched.metrics().values())

    def test_two_managers_share_one_registry(self):
        registry = CollectorRegistry()
        for _ in range(2):
            listener = PrometheusListener(registry)
            with ContextManager.open(None, model="gpt-4o-mini", listeners=[listener]) as manager:
                manager.record([HumanMessage("hello")], scope=SCOPE)
        assert registry.get_sample_value("ctxmgr_messages_recorded_total") == 2


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (["opentelemetry", "prometheus_client"], "[]"),
        (["opentelemetry"], "['PrometheusListener']"),
        (["prometheus_client"], "['OpenTelemetryListener']"),
    ],
)
def test_what_is_not_installed_is_not_told(missing, expected):
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\n"
        "from langchain_ctxmgr.integrations.telemetry import telemetry\n"
        "print([type(each).__name__ for each in telemetry()])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
