"""What happens, as OpenTelemetry spans and metrics and as Prometheus metrics.

`ContextManager(…, listeners=telemetry())`: listeners for whichever of the two packages is
installed, none where neither is. Names follow OpenTelemetry's conventions for generative AI
where there is one (`gen_ai.conversation.id`, `gen_ai.usage.input_tokens`). Metrics carry no ids,
so that their number does not grow with tenants and threads; spans name tenant and thread.
Nothing said in a conversation is in either.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from langchain_ctxmgr.events import (
    CaughtUp,
    Degraded,
    Event,
    Listener,
    Prepared,
    Recorded,
    Resummarized,
    Summarized,
    Trimmed,
)
from langchain_ctxmgr.forking import ForkableLock

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider
    from prometheus_client import CollectorRegistry

_SCOPE: Final = "langchain_ctxmgr"
_TENANT: Final = "ctxmgr.tenant.id"
_NS_IN_MS: Final = 1_000_000
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Where prepared contexts are told apart by how long they took."""
_SHARES: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_TOKENS: Final = (256, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536, 131_072, 1_048_576)


def telemetry(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    registry: CollectorRegistry | None = None,
    with_text: bool = False,
) -> tuple[Listener, ...]:
    """Listeners for OpenTelemetry and Prometheus, as far as they are installed.

    Args:
        tracer_provider: By default OpenTelemetry's own.
        meter_provider: By default OpenTelemetry's own.
        registry: By default Prometheus's own.
        with_text: Whether spans tell why a part failed: other libraries' words, which may
            quote what was said.
    """
    found: list[Listener] = []
    if _has("opentelemetry.trace") and _has("opentelemetry.metrics"):
        found.append(OpenTelemetryListener(tracer_provider, meter_provider, with_text=with_text))
    if _has("prometheus_client"):
        found.append(PrometheusListener(registry))
    return tuple(found)


class OpenTelemetryListener:
    """A span for each prepared context, events on the span around for the rest, and metrics.

    Args:
        tracer_provider: By default OpenTelemetry's own.
        meter_provider: By default OpenTelemetry's own.
        with_text: Whether spans tell why a part failed.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        with_text: bool = False,
    ) -> None:
        from opentelemetry import metrics, trace

        self._with_text = with_text
        self._current_span = trace.get_current_span
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._recorded = meter.create_counter(
            "ctxmgr.messages.recorded", "{message}", "Messages appended to the log"
        )
        self._trimmed = meter.create_counter(
            "ctxmgr.messages.trimmed", "{message}", "Messages cut to fit the budget"
        )
        self._degraded = meter.create_counter(
            "ctxmgr.degraded", "{failure}", "Times a part failed and a turn went on without it"
        )
        self._seconds = meter.create_histogram(
            "ctxmgr.prepare.duration",
            "s",
            "Time to prepare a context",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._tokens = meter.create_histogram(
            "ctxmgr.prepare.tokens",
            "{token}",
            "Tokens of a prepared context",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._saved = meter.create_counter(
            "ctxmgr.prepare.saved_tokens", "{token}", "Tokens of full histories that were not sent"
        )
        self._supported = meter.create_histogram(
            "ctxmgr.summary.supported",
            "1",
            "Share of what a summary states that its messages bear out",
        )
        self._drift = meter.create_histogram(
            "ctxmgr.summary.drift",
            "1",
            "Share of a summary's notes that it did not keep when it was made anew",
        )
        self._behind = meter.create_gauge(
            "ctxmgr.index.behind", "{record}", "Records the index does not hold yet"
        )

    def __call__(self, event: Event) -> None:
        """Tell of one event."""
        match event:
            case Prepared():
                self._seconds.record(event.elapsed_ms / 1_000)
                self._tokens.record(event.tokens)
                self._saved.add(max(0, event.full_tokens - event.tokens))
                self._span(event)
            case Recorded():
                self._recorded.add(event.appended)
                self._note("recorded", {**_ids(event), "ctxmgr.messages": event.appended})
            case Trimmed():
                self._trimmed.add(1)
                tokens = {
                    "ctxmgr.from_tokens": event.from_tokens,
                    "ctxmgr.to_tokens": event.to_tokens,
                }
                self._note("trimmed", {**_ids(event), **tokens})
            case Degraded():
                self._degraded.add(1, {"ctxmgr.part": event.part})
                why = {"ctxmgr.reason": event.reason} if self._with_text else {}
                told = {"ctxmgr.part": event.part, "ctxmgr.fallback": event.fallback, **why}
                self._note("degraded", told)
            case CaughtUp():
                self._behind.set(event.remaining)
                self._note("caught_up", {"ctxmgr.indexed": event.indexed})
            case Summarized():
                self._supported.record(event.supported)
                figures = {
                    "ctxmgr.messages": event.messages,
                    "ctxmgr.statements": event.statements,
                    "ctxmgr.supported": event.supported,
                }
                self._note("summarized", {**_ids(event), **figures})
            case Resummarized():
                self._drift.record(event.drift)
                self._note("resummarized", {**_ids(event), "ctxmgr.drift": event.drift})

    def _span(self, event: Prepared) -> None:
        ended = time.time_ns()
        span = self._tracer.start_span(
            "prepare_context",
            start_time=ended - int(event.elapsed_ms * _NS_IN_MS),
            attributes={
                **_ids(event),
                "gen_ai.operation.name": "prepare_context",
                "gen_ai.usage.input_tokens": event.tokens,
                "ctxmgr.max_tokens": event.max_tokens,
                "ctxmgr.full_tokens": event.full_tokens,
            },
        )
        span.end(end_time=ended)

    def _note(self, name: str, attributes: Mapping[str, str | int | float]) -> None:
        self._current_span().add_event(f"ctxmgr.{name}", attributes)


def _ids(event: Prepared | Recorded | Resummarized | Summarized | Trimmed) -> dict[str, str | int]:
    return {_TENANT: event.tenant_id, "gen_ai.conversation.id": event.thread_id}


class PrometheusListener:
    """Counters and histograms named `ctxmgr_…`; listeners of one registry share them.

    Args:
        registry: By default Prometheus's own.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        from prometheus_client import REGISTRY

        place = REGISTRY if registry is None else registry
        with _made_lock:
            if place not in _made:
                _made[place] = _metrics(place)
            self._metrics = _made[place]

    def __call__(self, event: Event) -> None:
        """Count one event."""
        metrics = self._metrics
        match event:
            case Prepared():
                metrics["seconds"].observe(event.elapsed_ms / 1_000)
                metrics["tokens"].observe(event.tokens)
                metrics["saved"].inc(max(0, event.full_tokens - event.tokens))
            case Recorded():
                metrics["recorded"].inc(event.appended)
            case Trimmed():
                metrics["trimmed"].inc()
            case Degraded():
                metrics["degraded"].labels(part=event.part).inc()
            case CaughtUp():
                metrics["behind"].set(event.remaining)
            case Summarized():
                metrics["supported"].observe(event.supported)
            case Resummarized():
                metrics["drift"].observe(event.drift)


_made: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
"""A registry refuses a second metric of one name."""
_made_lock = ForkableLock()


def _metrics(registry: CollectorRegistry) -> dict[str, Any]:
    from prometheus_client import Counter, Gauge, Histogram

    return {
        "recorded": Counter(
            "ctxmgr_messages_recorded", "Messages appended to the log", registry=registry
        ),
        "trimmed": Counter(
            "ctxmgr_messages_trimmed", "Messages cut to fit the budget", registry=registry
        ),
        "degraded": Counter(
            "ctxmgr_degraded",
            "Times a part failed and a turn went on without it",
            ["part"],
            registry=registry,
        ),
        "seconds": Histogram(
            "ctxmgr_prepare_seconds",
            "Time to prepare a context",
            buckets=_SECONDS,
            registry=registry,
        ),
        "tokens": Histogram(
            "ctxmgr_prepare_tokens",
            "Tokens of a prepared context",
            buckets=_TOKENS,
            registry=registry,
        ),
        "saved": Counter(
            "ctxmgr_prepare_saved_tokens",
            "Tokens of full histories that were not sent",
            registry=registry,
        ),
        "supported": Histogram(
            "ctxmgr_summary_supported",
            "Share of what a summary states that its messages bear out",
            buckets=_SHARES,
            registry=registry,
        ),
        "drift": Histogram(
            "ctxmgr_summary_drift",
            "Share of a summary's notes that it did not keep when it was made anew",
            buckets=_SHARES,
            registry=registry,
        ),
        "behind": Gauge(
            "ctxmgr_index_behind", "Records the index does not hold yet", registry=registry
        ),
    }


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # the package around it is missing, or barred
        return False
