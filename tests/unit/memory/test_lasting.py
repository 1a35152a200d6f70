"""Recency, importance and earlier recalls across a user's threads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.memory.lasting import HALF_LIFE, MOST_KNOWN, Accesses, recency

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MIA = Scope(tenant_id="acme", user_id="mia")


@pytest.fixture
def manager() -> Iterator[ContextManager]:
    with ContextManager.open(None, model="gpt-4o-mini", clock=lambda: NOW) as opened:
        yield opened


def tell(manager: ContextManager, thread: str, text: str, at: datetime, user: str = "mia") -> None:
    scope = Scope(tenant_id="acme", thread_id=thread, user_id=user)
    manager.record([HumanMessage(text, id=thread), AIMessage("I see.")], scope=scope, at=at)


class TestRecency:
    def test_it_halves_in_a_half_life_and_each_recall_slows_that(self) -> None:
        assert recency(timedelta()) == 1.0
        assert recency(HALF_LIFE) == pytest.approx(0.5)
        assert recency(HALF_LIFE, recalls=1) == pytest.approx(0.5**0.5)

    def test_what_lies_ahead_is_as_fresh_as_can_be(self) -> None:
        assert recency(timedelta(days=-400)) == 1.0

    @pytest.mark.parametrize(("recalls", "half_life"), [(-1, HALF_LIFE), (0, timedelta())])
    def test_what_is_no_number_of_recalls_or_half_life_is_refused(
        self, recalls: int, half_life: timedelta
    ) -> None:
        with pytest.raises(ValueError, match="must"):
            recency(timedelta(days=1), recalls, half_life)


class TestAcrossThreads:
    def test_of_two_alike_the_newer_comes_first(self, manager: ContextManager) -> None:
        tell(manager, "old", "The garage code is 4711 now.", NOW - timedelta(days=500))
        tell(manager, "new", "The garage code is 9182 now.", NOW - timedelta(days=5))
        found = manager.recall("What is the garage code?", scope=MIA)
        assert [memory.id for memory in found[:2]] == ["new", "old"]
        assert found[0].arms["recency"] > found[1].arms["recency"]

    def test_what_was_recalled_is_strengthened(self, manager: ContextManager) -> None:
        for place in range(4):
            tell(manager, f"t{place}", f"The code of door {place} is {place}{place}.", NOW)
        tell(manager, "far", "The boiler code is 31.", NOW - timedelta(days=300))
        (before,) = manager.recall("boiler code", scope=MIA, k=1)
        (after,) = manager.recall("boiler code", scope=MIA, k=1)
        assert (before.id, after.id) == ("far", "far")
        assert before.arms["access"] == 0.0 < after.arms["access"]
        assert after.score > before.score

    def test_on_an_event_loop_too(self, manager: ContextManager) -> None:
        tell(manager, "far", "The boiler code is 31.", NOW - timedelta(days=300))
        manager.recall("boiler code", scope=MIA)
        (after,) = asyncio.run(manager.arecall("boiler code", scope=MIA, k=1))
        assert after.arms["access"] > 0

    def test_a_thread_is_searched_by_relevance_alone(self, manager: ContextManager) -> None:
        tell(manager, "far", "The boiler code is 31.", NOW - timedelta(days=300))
        thread = Scope(tenant_id="acme", thread_id="far")
        manager.recall("boiler code", scope=MIA)
        found = [manager.recall("boiler code", scope=thread)[0] for _ in range(2)]
        assert found[0] == found[1]
        assert not {"recency", "access", "importance"} & found[0].arms.keys()

    def test_prepare_is_the_same_whatever_was_recalled(self, manager: ContextManager) -> None:
        tell(manager, "far", "The boiler code is 31.", NOW - timedelta(days=300))
        thread = Scope(tenant_id="acme", thread_id="far", user_id="mia")

        def prepared() -> list[str]:
            context = manager.prepare(scope=thread, query="boiler code?", max_tokens=400)
            return [message.text for message in context.messages]

        before = prepared()
        manager.recall("boiler code", scope=MIA)
        assert prepared() == before

    def test_another_tenants_recalls_do_not_count(self) -> None:
        known = Accesses()
        known.recalled("acme", [1, 2], NOW)
        known.recalled("acme", [2], NOW)
        assert {seq: each.times for seq, each in known.of("acme", [1, 2, 3]).items()} == {
            1: 1,
            2: 2,
        }
        assert known.of("other", [1, 2]) == {}

    def test_no_more_is_known_than_that(self) -> None:
        known = Accesses()
        known.recalled("acme", range(MOST_KNOWN + 2), NOW)
        assert len(known.of("acme", range(MOST_KNOWN + 2))) == MOST_KNOWN
        assert known.of("acme", [0, 1]) == {}
