"""The chance that a question is about anything that was said."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_ctxmgr import ContextManager, MemoryRetriever, Scope
from langchain_ctxmgr.memory.query import read_question
from langchain_ctxmgr.records import ItemKind

SCOPE = Scope(tenant_id="acme", thread_id="t")
START = datetime(2026, 3, 2, 9, tzinfo=UTC)
FAR = "Which orchestra premiered the symphony about glaciers, and does my boat matter?"
NEAR = "Where is my boat moored in winter?"


@pytest.fixture(scope="module")
def manager():
    with ContextManager.open(None, model="gpt-4o-mini") as manager:
        said = [HumanMessage("My boat is moored in Bergen in winter.", id="boat")]
        for n in range(400):
            said.append(HumanMessage(f"Row {n}: the crates went to quay {n % 30}.", id=f"h{n}"))
            said.append(AIMessage(f"Noted, quay {n % 30} it is, and on we go.", id=f"a{n}"))
        manager.record(said, scope=SCOPE, at=START)
        yield manager


class TestAbstention:
    def test_what_was_spoken_of_is_recalled(self, manager):
        assert manager.recall(NEAR, scope=SCOPE, score_threshold=0.5)[0].id == "boat"

    def test_nothing_is_recalled_for_what_was_never_spoken_of(self, manager):
        assert manager.recall(FAR, scope=SCOPE, score_threshold=0.5) == []
        assert manager.recall(FAR, scope=SCOPE, score_threshold=0.0)

    async def test_async_and_the_retriever_follow(self, manager):
        assert await manager.arecall(FAR, scope=SCOPE, score_threshold=0.5) == []
        retriever = MemoryRetriever(manager=manager, scope=SCOPE, score_threshold=0.5)
        assert retriever.invoke(FAR) == []
        assert [each.id for each in retriever.invoke(NEAR)][:1] == ["boat"]

    def test_a_question_about_a_time_is_answered(self, manager):
        assert manager.recall("Was my boat seen in March 2026?", scope=SCOPE, score_threshold=1.0)

    def test_a_question_without_a_topic_is_told_apart(self):
        for text, has_topic in (("What did we talk about?", False), (NEAR, True)):
            read = read_question(text, participants=(), asked_at=START)
            assert read.has_topic is has_topic

    def test_a_view_says_why_nothing_was_recalled(self):
        with ContextManager.open(None, model="gpt-4o-mini", score_threshold=0.5) as manager:
            for n in range(200):
                manager.record(
                    [HumanMessage(f"Row {n} goes to quay {n % 30}."), AIMessage("My boat too.")],
                    scope=SCOPE,
                    at=START,
                )
            context = manager.prepare(scope=SCOPE, query=FAR, max_tokens=1_000)
            recalled = [item for item in context.receipt if item.kind is ItemKind.RECALLED]
            assert recalled
            assert not any(item.included for item in recalled)
            assert all(item.reason.startswith("nothing relevant") for item in recalled)

    @pytest.mark.parametrize("threshold", [-0.1, 1.1, "0.5", True, None])
    def test_a_threshold_is_a_share(self, threshold):
        with pytest.raises(ValueError, match="score_threshold"):
            ContextManager.open(None, model="gpt-4o-mini", score_threshold=threshold)
