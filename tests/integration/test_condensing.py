"""Condensing a thread on request: by name, within bounds, and never what was not said."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.outputs import ChatResult

from langchain_ctxmgr import ContextBudget, ContextManager, Scope
from langchain_ctxmgr.budget.allocation import RiskLevel
from langchain_ctxmgr.condensing import STRATEGIES, Condensation
from langchain_ctxmgr.events import Degraded
from langchain_ctxmgr.prompt.layout import summary_message
from langchain_ctxmgr.records import Summary
from tests.integration.test_summaries import BUDGET, SCOPE, START, only, opened, talk
from tests.scripted_summarizer import ScriptedSummarizer, honest, notes_in

IDLE = {"trigger_tokens": 10**9}
"""Nothing is made beside the turns."""


def plain(**settings: Any) -> ContextManager:
    given = {"model": "gpt-4o-mini", "budget": BUDGET, **settings}
    return ContextManager.open(None, **given)


def telling(records: Any, max_tokens: int, counter: Any) -> Summary:
    """A strategy of the caller's: the first message as it stands."""
    text = f"What was said:\n{records[0].message.text}"
    return Summary(text=text, tokens=0, source_ids=(records[0].message_id,))


class TestStrategies:
    @pytest.mark.parametrize("strategy", [*STRATEGIES, telling])
    @pytest.mark.parametrize("by_model", [True, False])
    async def test_each_tells_what_was_said_within_its_bound(self, tmp_path, strategy, by_model):
        model = ScriptedSummarizer()
        with opened(tmp_path, model, **IDLE) if by_model else plain() as manager:
            manager.record(talk(60), scope=SCOPE, at=START)
            asked = {"scope": SCOPE, "strategy": strategy, "query": "Which parcel is in locker 5?"}
            condensed = manager.condense(**asked, max_tokens=300)
            assert condensed.strategy == getattr(strategy, "__name__", strategy)
            assert condensed.messages == 120
            assert "parcel" in condensed.summary.text
            cost = manager._counter.message(summary_message(condensed.summary.text))
            assert condensed.summary.tokens == cost <= 300
            assert condensed.quality >= 0.8
            assert 0 < condensed.preserved <= 1
            said = {message.id for message in manager.history(scope=SCOPE)}
            assert set(condensed.summary.source_ids) <= said
            assert await manager.acondense(**asked, max_tokens=300) == condensed

    def test_the_one_for_a_question_tells_what_answers_it(self, tmp_path):
        for by_model in (True, False):
            made = opened(tmp_path / str(by_model), ScriptedSummarizer(), **IDLE)
            with made if by_model else plain() as manager:
                manager.record(talk(60), scope=SCOPE, at=START)
                for locker in (5, 40):
                    condensed = manager.condense(
                        scope=SCOPE,
                        strategy="query_focused",
                        query=f"Which parcel does locker {locker} hold?",
                        max_tokens=150,
                    )
                    assert (
                        f"Locker {locker} holds parcel {1000 + locker}." in condensed.summary.text
                    )
                with pytest.raises(ValueError, match="query must be given"):
                    manager.condense(scope=SCOPE, strategy="query_focused")

    def test_key_points_are_asked_for_in_their_own_words(self, tmp_path):
        told: list[str] = []

        class Noting(ScriptedSummarizer):
            def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
                told.append(str(messages[0].content))
                return super()._generate(messages, *args, **kwargs)

        with opened(tmp_path, Noting(), **IDLE) as manager:
            manager.record(talk(20), scope=SCOPE, at=START)
            manager.condense(scope=SCOPE, strategy="key_points")
            manager.condense(scope=SCOPE, strategy="conversation_summary")
        assert ["key points" in text for text in told] == [True, False]

    def test_the_progressive_one_pays_for_no_section_twice(self, tmp_path):
        model = ScriptedSummarizer()
        with opened(tmp_path, model, **IDLE) as manager:
            manager.record(talk(40), scope=SCOPE, at=START)
            manager.summarize(scope=SCOPE)
            asked = len(model.questions)
            manager.record(talk(2, first=45), scope=SCOPE, at=START)
            condensed = manager.condense(scope=SCOPE, max_tokens=1_000)
            assert len(model.questions) == asked
            assert "parcel 1000." in condensed.summary.text
            assert "parcel 1045." in condensed.summary.text

    def test_the_same_is_found_again(self, tmp_path):
        model = ScriptedSummarizer()
        with opened(tmp_path, model, **IDLE) as manager:
            manager.record(talk(20), scope=SCOPE, at=START)
            first = manager.condense(scope=SCOPE, strategy="key_points")
            assert manager.condense(scope=SCOPE, strategy="key_points") == first
            assert len(model.questions) == 1
            manager.forget(scope=SCOPE)
            assert manager.condense(scope=SCOPE, strategy="key_points").messages == 0

    def test_others_conversations_and_system_text_stay_out(self, tmp_path):
        other = Scope(tenant_id="globex", thread_id="t")
        with plain() as manager:
            manager.record([SystemMessage("Rule 12: canary"), *talk(20)], scope=SCOPE, at=START)
            manager.record(
                [HumanMessage(f"Locker {n} holds canary {n}.") for n in range(20)], scope=other
            )
            for strategy in STRATEGIES:
                condensed = manager.condense(scope=SCOPE, strategy=strategy, query="Which locker?")
                assert "canary" not in condensed.summary.text


class TestRisk:
    @pytest.mark.parametrize(
        ("used", "risk", "share"),
        [
            (0.1, RiskLevel.SAFE, 0.5),
            (0.85, RiskLevel.WARNING, 0.5),
            (0.95, RiskLevel.CRITICAL, 0.2),
            (1.5, RiskLevel.OVERFLOW, 0.2),
        ],
    )
    def test_it_decides_how_much_is_left(self, tmp_path, used, risk, share):
        with ContextManager.open(tmp_path, model="gpt-4o-mini") as manager:
            records = manager.record(talk(100), scope=SCOPE, at=START)
        tokens = sum(record.tokens for record in records)
        budget = ContextBudget(max_input_tokens=int(tokens / used), reserve_tokens=0)
        with ContextManager.open(tmp_path, model="gpt-4o-mini", budget=budget) as manager:
            condensed = manager.condense(scope=SCOPE, strategy="importance_extract")
            assert condensed.risk is risk
            assert 0.5 * share * tokens < condensed.summary.tokens <= share * tokens


class TestBounds:
    def test_too_few_messages_are_left_as_they_are(self):
        with plain() as manager:
            manager.record(talk(1), scope=SCOPE, at=START)
            condensed = manager.condense(scope=SCOPE)
            assert (condensed.messages, condensed.summary.text) == (0, "")

    def test_only_the_newest_are_condensed_in_one_operation(self):
        with plain() as manager:
            manager.record(talk(60), scope=SCOPE, at=START)
            how = Condensation(strategy="importance_extract", max_messages=20)
            condensed = manager.condense(scope=SCOPE, strategy=how)
            assert condensed.messages == 20
            assert {int(name[1:]) for name in condensed.summary.source_ids} <= set(range(50, 60))

    async def test_no_more_calls_are_made_at_once_than_may_be(self, tmp_path):
        running, most = 0, 0

        class Counting(ScriptedSummarizer):
            async def _agenerate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
                nonlocal running, most
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.02)
                running -= 1
                return super()._generate(messages)

        with opened(tmp_path, Counting(), max_chunk_tokens=300, **IDLE) as manager:
            manager.record(talk(60), scope=SCOPE, at=START)
            how = Condensation(strategy="conversation_summary", max_parallel=3)
            assert (await manager.acondense(scope=SCOPE, strategy=how)).summary.text
        assert most == 3

    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            ({"strategy": "magic"}, "strategy must be one of conversation_summary"),
            ({"min_messages": 0}, "min_messages"),
            ({"min_messages": 9, "max_messages": 8}, "min_messages must be at most"),
            ({"max_parallel": True}, "max_parallel"),
            ({"min_quality": 1.1}, "min_quality"),
            ({"min_preserved": -0.1}, "min_preserved"),
            ({"timeout": timedelta(0)}, "timeout"),
        ],
    )
    def test_wrong_settings_are_refused(self, settings, match):
        with pytest.raises(ValueError, match=match):
            Condensation(**settings)


def inventing(records: Any, max_tokens: int, counter: Any) -> Summary:
    return Summary(text="Zacharias took 4711 pears.", tokens=0, source_ids=(records[0].message_id,))


def rambling(records: Any, max_tokens: int, counter: Any) -> Summary:
    return Summary(text="Locker 0 holds parcel 1000. " * max_tokens, tokens=0, source_ids=())


def failing(records: Any, max_tokens: int, counter: Any) -> Summary:
    raise RuntimeError("out of order")


class TestFailures:
    @pytest.mark.parametrize(
        ("strategy", "why"),
        [
            (inventing, "is borne out"),
            (rambling, "tokens, over"),
            (failing, "out of order"),
            (lambda *_: "text", "must give a Summary"),
        ],
    )
    def test_a_strategy_of_the_callers_that_fails_gives_way(self, strategy, why):
        events: list[object] = []
        with plain(listeners=[events.append]) as manager:
            manager.record(talk(20), scope=SCOPE, at=START)
            condensed = manager.condense(scope=SCOPE, strategy=strategy, max_tokens=200)
            assert condensed.strategy == "importance_extract"
            assert "parcel" in condensed.summary.text
            assert "4711" not in condensed.summary.text
            (told,) = [event for event in events if isinstance(event, Degraded)]
            assert why in told.reason

    @pytest.mark.parametrize("strategy", ["conversation_summary", "key_points", "query_focused"])
    @pytest.mark.parametrize("answer", ["", "I cannot.", '{"a": 1}', RuntimeError("overloaded")])
    def test_a_model_that_fails_gives_way(self, tmp_path, strategy, answer):
        def script(_: str) -> str:
            if isinstance(answer, Exception):
                raise answer
            return answer

        with opened(tmp_path, ScriptedSummarizer(script=script), **IDLE) as manager:
            manager.record(talk(20), scope=SCOPE, at=START)
            condensed = manager.condense(scope=SCOPE, strategy=strategy, query="Which locker?")
            assert condensed.strategy == "importance_extract"
            assert "parcel" in condensed.summary.text
            assert only(Degraded, manager)

    def test_notes_that_are_not_borne_out_give_way(self, tmp_path):
        def script(question: str) -> str:
            names = [note.name for note in notes_in(question)]
            lies = [
                {"kind": "fact", "text": f"Zacharias took {n} pears.", "sources": names[:1]}
                for n in range(4_711, 4_715)
            ]
            return json.dumps([*json.loads(honest(question))[:2], *lies])

        with opened(tmp_path, ScriptedSummarizer(script=script), **IDLE) as manager:
            manager.record(talk(20), scope=SCOPE, at=START)
            condensed = manager.condense(scope=SCOPE, strategy="conversation_summary")
            assert condensed.strategy == "importance_extract"
            assert "Zacharias" not in condensed.summary.text

    def test_what_is_hardly_told_is_filled_with_what_was_said(self, tmp_path):
        def script(_: str) -> str:
            return json.dumps(
                [{"kind": "fact", "text": "Locker 0 holds parcel 1000.", "sources": ["m1"]}]
            )

        with opened(tmp_path, ScriptedSummarizer(script=script), **IDLE) as manager:
            manager.record(talk(20), scope=SCOPE, at=START)
            filled = manager.condense(scope=SCOPE, strategy="conversation_summary")
            assert "parcel 1010." in filled.summary.text
            least = Condensation(strategy="conversation_summary", min_preserved=0)
            short = manager.condense(scope=SCOPE, strategy=least)
            assert short.summary.text.splitlines() == [
                "Facts:",
                "- Locker 0 holds parcel 1000. [0]",
            ]
            assert short.preserved < filled.preserved
