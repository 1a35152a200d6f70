"""Policies side by side over a recorded conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.evaluation import (
    POLICIES,
    EvidenceQuestion,
    Policy,
    PolicyFigures,
    acompare_policies,
    compare_policies,
)
from langchain_ctxmgr.evaluation.policies import Condensed, Hybrid, Selected
from langchain_ctxmgr.prompt.window import LastTurns, MostImportant

SCOPE = Scope(tenant_id="acme", thread_id="t")
START = datetime(2026, 3, 1, 9, tzinfo=UTC)
EARLY = "I decided on 3 May: the boat is called Heron, and I always moor it in Bergen."
ASKED = [EvidenceQuestion(question="What is the boat called?", evidence=("early",))]


@pytest.fixture(scope="module")
def manager() -> Iterator[ContextManager]:
    said: list[BaseMessage] = [HumanMessage(EARLY, id="early"), AIMessage("Noted.", id="a")]
    for place in range(40):
        said.append(HumanMessage(f"Tell me something about tree number {place}.", id=f"h{place}"))
        said.append(AIMessage(f"Tree {place} is green and rather tall.", id=f"x{place}"))
    with ContextManager.open(None, model="gpt-4o-mini") as opened:
        at = [START + timedelta(minutes=place) for place in range(len(said))]
        opened.record(said, scope=SCOPE, at=at)
        yield opened


def compared(
    manager: ContextManager, policies: dict[str, Policy] | None = None
) -> dict[str, PolicyFigures]:
    found = compare_policies(
        manager, ASKED, scope=SCOPE, policies=policies, max_tokens=[300], model="gpt-4o-mini"
    )
    return {each.policy: each for each in found}


class TestComparing:
    def test_each_is_told_by_tokens_cost_evidence_and_importance(
        self, manager: ContextManager
    ) -> None:
        found = compared(manager)
        assert list(found) == list(POLICIES)
        recall = {name: each.recall.recall for name, each in found.items()}
        assert recall["last 10 turns"] == 0.0
        assert recall["most important"] == recall["hybrid"] == recall["prepare"] == 1.0
        kept = {name: each.importance_kept for name, each in found.items()}
        assert kept["last 10 turns"] < kept["most important"] <= 1.0
        for each in found.values():
            assert 0 < each.tokens <= each.max_tokens
            assert each.cost is not None
            assert each.cost > 0
            assert each.over_budget == 0

    def test_on_an_event_loop_it_is_the_same(self, manager: ContextManager) -> None:
        policies: dict[str, Policy] = {"hybrid": POLICIES["hybrid"]}
        waiting = acompare_policies(
            manager, ASKED, scope=SCOPE, policies=policies, max_tokens=[300], model="gpt-4o-mini"
        )
        assert asyncio.run(waiting) == [compared(manager, policies)["hybrid"]]

    def test_nothing_is_recorded(self, manager: ContextManager) -> None:
        before = manager.history(scope=SCOPE)
        compared(manager)
        assert manager.history(scope=SCOPE) == before

    def test_what_is_over_its_budget_holds_nothing(self, manager: ContextManager) -> None:
        class Everything:
            def view(self, thread, question, max_tokens):
                return list(thread.messages)
                yield

        found = compared(manager, {"everything": Everything()})["everything"]
        assert (found.over_budget, found.recall.recall, found.importance_kept) == (1, 0.0, 0.0)

    def test_a_hybrid_gives_what_is_left_over_to_the_next(self, manager: ContextManager) -> None:
        parts = (
            (Selected(selector=LastTurns(k=1)), 0.9),
            (Selected(selector=MostImportant()), 0.1),
        )
        found = compared(manager, {"hybrid": Hybrid(parts=parts)})["hybrid"]
        assert found.recall.recall == 1.0

    @pytest.mark.parametrize("shares", [(), (0.0,), (0.7, 0.7), (1.1,)])
    def test_shares_that_are_none_are_refused(self, shares: tuple[float, ...]) -> None:
        with pytest.raises(ValueError, match="parts must have shares"):
            Hybrid(parts=tuple((Condensed(), share) for share in shares))

    @pytest.mark.parametrize("policies", [{}, {"": Condensed()}, {"mine": "last turns"}])
    def test_policies_that_are_none_are_refused(
        self, manager: ContextManager, policies: dict[str, Policy]
    ) -> None:
        with pytest.raises(ValueError, match="policies"):
            compared(manager, policies)
