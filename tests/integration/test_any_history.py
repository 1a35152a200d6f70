"""Whatever was recorded and whatever the budget: valid, under budget, nothing lost.

The long run: `pytest --hypothesis-profile=long tests/integration/test_any_history.py`.
"""

from __future__ import annotations

import itertools
import json

import pytest
import tiktoken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import BaseMessage

from langchain_ctxmgr import ContextManager, ContextOverflowError, Scope
from langchain_ctxmgr.storage.codec import encode
from tests.histories import asked_in, assert_valid, histories, humans

NUMBERS = itertools.count()
BUDGETS = st.one_of(st.integers(1, 400), st.integers(1, 4_000), st.integers(1, 100_000))


@pytest.fixture(scope="module")
def manager():
    with ContextManager.open(None, model="gpt-4o-mini", tenant_id="acme") as opened:
        yield opened


def independent_count(messages: list[BaseMessage]) -> int:
    """Tokens of all text with tiktoken itself, and three for each message."""
    encoding = tiktoken.get_encoding("o200k_base")
    total = 0
    for message in messages:
        content = message.content
        parts = [content] if isinstance(content, str) else [_text(block) for block in content]
        calls = getattr(message, "tool_calls", [])
        parts += [call["name"] + json.dumps(call["args"]) for call in calls]
        clean = [p.encode("utf-8", "replace").decode("utf-8") for p in parts]
        total += 3 + sum(len(encoding.encode_ordinary(p)) for p in clean)
    return total


def _text(block: str | dict) -> str:
    return block if isinstance(block, str) else str(block.get("text", ""))


class TestAnyHistory:
    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(history=histories(recordable=True), question=humans(), max_tokens=BUDGETS)
    def test_a_view_is_valid_and_under_budget_and_nothing_is_lost(
        self, manager, history, question, max_tokens
    ):
        scope, question = Scope(thread_id=f"t{next(NUMBERS)}"), asked_in(history, question)
        before = [encode(message) for message in history]
        manager.record(history, scope=scope)
        assert [encode(message) for message in history] == before
        kept = {encode(message) for message in manager.history(scope=scope)}
        assert kept.issuperset(before)
        self.check(manager, scope, question, max_tokens)
        self.check(manager, scope, None, max_tokens)

    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(history=histories(recordable=True), question=humans(), max_tokens=BUDGETS)
    async def test_the_async_view_is_the_blocking_one(self, manager, history, question, max_tokens):
        scope, question = Scope(thread_id=f"t{next(NUMBERS)}"), asked_in(history, question)
        await manager.arecord(history, scope=scope)
        try:
            blocking = manager.prepare(scope=scope, query=question, max_tokens=max_tokens)
        except ContextOverflowError:
            with pytest.raises(ContextOverflowError):
                await manager.aprepare(scope=scope, query=question, max_tokens=max_tokens)
            return
        view = await manager.aprepare(scope=scope, query=question, max_tokens=max_tokens)
        assert [encode(m) for m in view.messages] == [encode(m) for m in blocking.messages]

    def check(self, manager, scope, question, max_tokens):
        try:
            context = manager.prepare(scope=scope, query=question, max_tokens=max_tokens)
        except ContextOverflowError as error:
            assert error.max_tokens == max_tokens < error.needed_tokens  # noqa: PT017 - may fit
            context = manager.prepare(scope=scope, query=question, max_tokens=error.needed_tokens)
            max_tokens = error.needed_tokens
        assert context.tokens <= max_tokens
        assert independent_count(context.messages) <= max_tokens
        assert 0.0 <= context.preservation <= 1.0
        if question is not None or any(m.type != "system" for m in context.messages):
            assert_valid(context.messages, question=question)
            assert context.messages[-1].type not in {"ai", "AIMessageChunk"}
