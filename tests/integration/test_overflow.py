"""The number an overflow names is one that the very next call succeeds with."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from langchain_ctxmgr import ContextBudget, ContextManager, ContextOverflowError, Scope
from tests.histories import histories

NUMBERS = itertools.count()
TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}},
}
CLOCK = datetime(2026, 3, 2, 9, tzinfo=UTC)
TAUGHT = [
    ("gpt-4o-mini", None),
    ("gpt-4o-mini", 1.23),
    ("claude-3-5-sonnet-latest", None),
    ("claude-3-5-sonnet-latest", 1.23),
    ("mistral-large-latest", None),
    ("gemini-2.5-pro", 1.0),
    ("gemini-2.5-pro", 3.7),
]
ASKED = st.fixed_dictionaries(
    {
        "query": st.builds(
            HumanMessage,
            content=st.integers(1, 700).map(lambda words: "word " * words),
            id=st.sampled_from((None, "question")),
        ),
        "system": st.sampled_from((None, "Be brief. " * 9)),
        "tools": st.sampled_from(((), (TOOL,))),
    }
)


@pytest.fixture(scope="module", params=TAUGHT)
def manager(request):
    """Of a model that has reported so many tokens for each one counted, or nothing yet."""
    model, ratio = request.param
    budget = ContextBudget(max_input_tokens=20_000)
    with ContextManager.open(None, model=model, budget=budget, tenant_id="acme") as opened:
        if ratio is not None:
            teach(opened, ratio)
        yield opened


def teach(manager: ContextManager, ratio: float) -> None:
    scope = Scope(tenant_id="acme", thread_id=f"taught-{next(NUMBERS)}")
    for _ in range(40):
        counted = manager.prepare(scope=scope, query="word " * 400, max_tokens=9_000).tokens
        reported = round(counted * ratio)
        usage = {"input_tokens": reported, "output_tokens": 1, "total_tokens": reported + 1}
        manager.record(AIMessage("ok", usage_metadata=usage), scope=scope)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(history=histories(recordable=True, max_size=4), asked=ASKED)
def test_the_number_named_is_the_least_that_fits(manager, history, asked):
    scope = Scope(tenant_id="acme", thread_id=f"t{next(NUMBERS)}")
    manager.record(history, scope=scope)
    with pytest.raises(ContextOverflowError) as raised:
        manager.prepare(scope=scope, **asked, max_tokens=1)
    needed = raised.value.needed_tokens
    context = manager.prepare(scope=scope, **asked, max_tokens=needed)
    assert context.tokens <= needed
    assert context.messages[-1].content == asked["query"].content
    with pytest.raises(ContextOverflowError) as again:
        manager.prepare(scope=scope, **asked, max_tokens=needed - 1)
    assert again.value.needed_tokens == needed


def test_what_was_learnt_since_the_turn_began_is_in_the_number():
    """The room of a turn stands while it lasts; the next call has another `max_tokens`."""
    usage = {"input_tokens": 9_000, "output_tokens": 1, "total_tokens": 9_001}
    scope = Scope(tenant_id="acme", thread_id="t")
    with ContextManager.open(
        None, model="claude-3-5-sonnet-latest", clock=lambda: CLOCK + timedelta(days=1)
    ) as manager:
        question = HumanMessage("word " * 1_500, id="q")
        manager.record(question, scope=scope)
        asked = {"scope": scope, "query": question, "max_tokens": 2_100}
        first = manager.prepare(**asked)
        call = {"name": "look", "args": {}, "id": "c"}
        manager.record(
            [
                AIMessage("", tool_calls=[call], usage_metadata=usage),
                ToolMessage("found", tool_call_id="c"),
            ],
            scope=scope,
        )
        assert manager.prepare(**asked).messages[0] == first.messages[0]
        with pytest.raises(ContextOverflowError) as raised:
            manager.prepare(**asked, system="Be kind. " * 200)
        needed = raised.value.needed_tokens
        context = manager.prepare(
            scope=scope, query=question, max_tokens=needed, system="Be kind. " * 200
        )
        assert context.tokens <= needed


def test_a_turn_without_a_query_uses_what_was_learnt_in_the_turn_before():
    scope = Scope(tenant_id="acme", thread_id="t")
    question = HumanMessage("word " * 1_500)
    with ContextManager.open(None, model="claude-3-5-sonnet-latest") as manager:
        manager.record(question, scope=scope)
        counted = manager.prepare(scope=scope, max_tokens=2_100).tokens
        reported = counted * 4
        usage = {"input_tokens": reported, "output_tokens": 1, "total_tokens": reported + 1}
        manager.record([AIMessage("ok", usage_metadata=usage), question], scope=scope)
        with pytest.raises(ContextOverflowError):
            manager.prepare(scope=scope, max_tokens=2_100)
