"""A history that is condensed for the question although the window would hold it all."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from langchain_ctxmgr import ContextBudget, ContextManager, Scope
from langchain_ctxmgr.records import ItemKind
from tests.integration.test_summaries import START, made, summarizer, summary_of, talk
from tests.scripted_summarizer import ScriptedSummarizer

SCOPE = Scope(tenant_id="acme", thread_id="t")
FOCUS = 3_000
HISTORY = (ItemKind.SUMMARY, ItemKind.HISTORY, ItemKind.RECALLED)


def opened(**settings: Any) -> ContextManager:
    budget = ContextBudget(max_input_tokens=128_000, focus_above_tokens=FOCUS)
    return ContextManager.open(None, model="gpt-4o-mini", budget=budget, **settings)


def asked(manager: ContextManager, locker: int) -> Any:
    later = HumanMessage(f"Which parcel does locker {locker} hold?", id="q")
    return manager.prepare(scope=SCOPE, query=later)


class TestFocus:
    def test_a_history_below_the_threshold_is_sent_whole(self):
        with opened() as manager:
            manager.record(talk(30), scope=SCOPE, at=START)
            context = asked(manager, 5)
            assert (
                context.sections[ItemKind.HISTORY]
                == context.full_tokens - context.sections[ItemKind.CURRENT]
            )

    def test_what_is_left_free_for_tool_traffic_is_not_taken_from_it(self):
        tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
        for messages in (30, 200):
            with opened() as manager:
                manager.record(talk(messages), scope=SCOPE, at=START)
                query = HumanMessage("Which parcel does locker 5 hold?", id="q")
                plain = manager.prepare(scope=SCOPE, query=query)
                with_tools = manager.prepare(scope=SCOPE, query=query, tools=[tool])
                assert with_tools.messages == plain.messages

    @pytest.mark.parametrize("locker", [0, 50, 100, 195])
    def test_a_longer_one_leaves_what_matters_for_the_question(self, locker):
        with opened() as manager:
            manager.record(talk(200), scope=SCOPE, at=START)
            context = asked(manager, locker)
            assert context.full_tokens > 2 * FOCUS
            assert sum(context.sections[kind] for kind in HISTORY) <= FOCUS
            said = " ".join(str(message.content) for message in context.messages)
            assert f"Locker {locker} holds parcel {1000 + locker}." in said

    def test_a_chat_model_tells_what_is_left_out_and_extraction_where_there_is_none(self):
        share = {"focus_above_tokens": FOCUS, "summary_share": 0.2}
        budget = ContextBudget(max_input_tokens=128_000, **share)
        for model in (None, summarizer(ScriptedSummarizer())):
            with ContextManager.open(
                None, model="gpt-4o-mini", budget=budget, summarizer=model
            ) as manager:
                manager.record(talk(200), scope=SCOPE, at=START)
                if model is not None:
                    made(manager)
                context = asked(manager, 50)
                assert ("Facts:\n- " in summary_of(context)) == (model is not None)
                assert "parcel" in summary_of(context)
                assert sum(context.sections[kind] for kind in HISTORY) <= FOCUS

    def test_a_live_conversation_goes_on_within_it(self):
        with opened() as manager:
            for turn in range(120):
                question, answer = talk(1, first=turn)
                context = manager.prepare(scope=SCOPE, query=question)
                assert sum(context.sections[kind] for kind in HISTORY) <= FOCUS
                manager.record([question, answer], scope=SCOPE)

    def test_tool_results_of_the_turn_have_the_whole_window(self):
        with opened() as manager:
            manager.record(talk(200), scope=SCOPE, at=START)
            call = {"name": "read", "args": {}, "id": "c1"}
            turn = [
                HumanMessage("Read the list.", id="q"),
                AIMessage("", tool_calls=[call], id="a"),
                ToolMessage("crate " * 3 * FOCUS, tool_call_id="c1", id="r"),
            ]
            manager.record(turn, scope=SCOPE, at=START + timedelta(hours=1))
            context = manager.prepare(scope=SCOPE)
            assert context.sections[ItemKind.CURRENT] > 3 * FOCUS
            assert 0 < sum(context.sections[kind] for kind in HISTORY) <= FOCUS

    @pytest.mark.parametrize("wrong", [0, -1, True, "much"])
    def test_a_wrong_bound_is_refused(self, wrong):
        with pytest.raises(ValueError, match="focus_above_tokens"):
            ContextBudget(max_input_tokens=8_000, focus_above_tokens=wrong)
