"""In a live conversation each prompt goes on from the one before it, byte for byte."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import pairwise

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_ctxmgr import ContextBudget, ContextManager, Scope
from langchain_ctxmgr.prompt.window import LastTurns
from langchain_ctxmgr.records import ItemKind
from tests.integration.test_cache_prefix import LOOKUP, as_bytes, said

SCOPE = Scope(tenant_id="acme", thread_id="long")
LIMIT = 4_000


def question(turn: int) -> HumanMessage:
    return HumanMessage(said(random.Random(turn), turn, 20), id=f"q{turn}")


def answer(turn: int) -> AIMessage:
    return AIMessage(said(random.Random(turn + 0.5), turn, 40), id=f"a{turn}")


def asked(manager: ContextManager, turn: int, *, limit: int = LIMIT, **more):
    """The view of a turn; question and answer are recorded then."""
    context = manager.prepare(scope=SCOPE, query=question(turn), max_tokens=limit, **more)
    assert context.tokens <= limit
    manager.record([question(turn), answer(turn)], scope=SCOPE)
    return context


def goes_on(before: list[BaseMessage], after: list[BaseMessage]) -> bool:
    return as_bytes(after)[: len(before)] == as_bytes(before)


def talked(manager: ContextManager, turns: int) -> None:
    for turn in range(turns):
        manager.record([question(turn), answer(turn)], scope=SCOPE)


def settled(manager: ContextManager, turns: int) -> list[BaseMessage]:
    """A conversation too long to show whole, that goes on; what its last view showed."""
    talked(manager, turns - 1)
    asked(manager, turns - 1)
    return asked(manager, turns).messages


class TestStarts:
    def test_a_first_question_is_given_all_the_room_there_is(self):
        with ContextManager.open(None, model="gpt-4o-mini") as manager:
            talked(manager, 200)
            first, second = asked(manager, 200), asked(manager, 201)
        assert first.sections[ItemKind.RECALLED] > 0.4 * LIMIT
        assert 0 < second.sections[ItemKind.RECALLED] < 0.1 * LIMIT

    def test_each_question_is_where_the_history_is_selected_anew(self):
        with ContextManager.open(None, model="gpt-4o-mini", selection=LastTurns(k=2)) as manager:
            talked(manager, 200)
            views = [asked(manager, turn) for turn in (200, 201)]
        assert all(view.sections[ItemKind.RECALLED] > 0.4 * LIMIT for view in views)


class TestGoesOn:
    def test_a_prompt_begins_with_all_of_the_one_before(self):
        with ContextManager.open(None, model="gpt-4o-mini") as manager:
            talked(manager, 80)
            views = [asked(manager, turn).messages for turn in range(80, 111)][1:]
        kept = [goes_on(a, b) for a, b in pairwise(views)]
        assert sum(kept) >= 0.8 * len(kept)
        assert not all(kept)
        lengths = [len(view) for view in views]
        anew = kept.index(False) + 1
        assert lengths[anew] < 0.75 * lengths[anew - 1]

    def test_recalled_text_stays_with_its_question_and_is_not_given_twice(self):
        with ContextManager.open(None, model="gpt-4o-mini") as manager:
            settled(manager, 80)
            first, second = asked(manager, 81), asked(manager, 82)
            count = second.sections
        assert str(first.messages[-1].content).startswith("<recalled")
        assert goes_on(first.messages, second.messages)
        recalled = [
            item
            for item in second.receipt.included
            if item.kind is ItemKind.RECALLED and "excerpt" not in item.reason
        ]
        assert {item.reason for item in recalled} == {
            "recalled",
            "recalled for an earlier question",
        }
        names = [item.id for item in recalled]
        assert len(names) == len(set(names))
        assert sum(count.values()) == second.tokens
        assert count[ItemKind.RECALLED] > first.sections[ItemKind.RECALLED]

    def test_another_process_goes_on_too(self, tmp_path):
        with ContextManager.open(tmp_path, model="gpt-4o-mini") as manager:
            before = settled(manager, 80)
        with ContextManager.open(tmp_path, model="gpt-4o-mini") as manager:
            assert goes_on(before, asked(manager, 81).messages)

    def test_a_question_asked_again_is_shown_the_same(self):
        with ContextManager.open(None, model="gpt-4o-mini") as manager:
            settled(manager, 80)
            first = asked(manager, 81)
            again = manager.prepare(scope=SCOPE, query=question(81), max_tokens=LIMIT)
        history = len(first.messages) - 1
        assert as_bytes(again.messages)[:history] == as_bytes(first.messages)[:history]

    def test_tool_results_stay_as_they_were_cut(self):
        rng = random.Random(1)
        with ContextManager.open(None, model="gpt-4o-mini") as manager:
            talked(manager, 160)
            asked(manager, 160, limit=8_000)
            manager.record(question(161), scope=SCOPE)
            manager.prepare(scope=SCOPE, query=question(161), max_tokens=8_000, tools=[LOOKUP])
            call = {"name": "lookup", "args": {"n": 1}, "id": "c1"}
            result = ToolMessage(said(rng, 1, 6_000), tool_call_id="c1", id="r1")
            manager.record([AIMessage("", tool_calls=[call], id="t1"), result], scope=SCOPE)
            cut = manager.prepare(
                scope=SCOPE, query=question(161), max_tokens=8_000, tools=[LOOKUP]
            ).messages
            manager.record(answer(161), scope=SCOPE)
            after = asked(manager, 162, limit=8_000, tools=[LOOKUP]).messages
        assert 0 < len(cut[-1].content) < len(result.content)
        assert goes_on(cut, after)

    def test_small_results_of_many_turns_go_on(self):
        rng = random.Random(2)
        with ContextManager.open(None, model="gpt-4o-mini") as manager:
            talked(manager, 80)
            last: list[BaseMessage] = []
            kept = 0
            for turn in range(81, 99):
                ask = question(turn)
                manager.record(ask, scope=SCOPE)
                for step in range(2):
                    now = manager.prepare(
                        scope=SCOPE, query=ask, max_tokens=LIMIT, tools=[LOOKUP]
                    ).messages
                    kept += goes_on(last, now)
                    last = now
                    name = f"{turn}-{step}"
                    if step == 0:
                        call = {"name": "lookup", "args": {"n": turn}, "id": f"c{name}"}
                        found = ToolMessage(
                            said(rng, turn, 30), tool_call_id=f"c{name}", id=f"r{name}"
                        )
                        manager.record(
                            [AIMessage("", tool_calls=[call], id=f"t{name}"), found], scope=SCOPE
                        )
                manager.record(answer(turn), scope=SCOPE)
        assert kept >= 36 - 5

    def test_a_window_that_begins_in_the_middle_of_a_long_turn_goes_on(self):
        rng = random.Random(3)
        with ContextManager.open(None, model="gpt-4o-mini") as manager:
            talked(manager, 20)
            manager.record(question(20), scope=SCOPE)
            for step in range(80):
                call = {"name": "lookup", "args": {"n": step}, "id": f"c{step}"}
                found = ToolMessage(said(rng, step, 30), tool_call_id=f"c{step}", id=f"r{step}")
                manager.record(
                    [AIMessage("", tool_calls=[call], id=f"t{step}"), found], scope=SCOPE
                )
            manager.record(answer(20), scope=SCOPE)
            # At 4,000 tokens the third no longer fits beside what the first one recalls.
            views = [
                asked(manager, turn, limit=5_000, tools=[LOOKUP]).messages for turn in (21, 22, 23)
            ]
        assert views[0][0].id == "q20"
        assert views[0][1].id not in {"t0", None}
        assert goes_on(views[0], views[1])
        assert goes_on(views[1], views[2])


class TestStartsAnew:
    def test_after_an_earlier_message_was_corrected(self):
        with ContextManager.open(None, model="gpt-4o-mini") as manager:
            before = settled(manager, 80)
            shown = next(m for m in before if m.id and m.id.startswith("a"))
            manager.record(AIMessage("Corrected: no ledger.", id=shown.id), scope=SCOPE)
            after = asked(manager, 81).messages
        assert not goes_on(before, after)
        assert all("<recalled" not in str(message.content) for message in after[:-1]), (
            "what was recalled may quote what was corrected"
        )

    def test_with_another_budget(self):
        with ContextManager.open(None, model="gpt-4o-mini") as manager:
            before = settled(manager, 80)
            assert not goes_on(before, asked(manager, 81, limit=3_000).messages)

    def test_where_the_shares_given_say_so(self):
        budget = ContextBudget(
            max_input_tokens=8_000, reserve_tokens=0, history_share=0.2, recalled_share=0.1
        )
        with ContextManager.open(None, model="gpt-4o-mini", budget=budget) as manager:
            talked(manager, 80)
            for turn in range(80, 100):
                sections = asked(manager, turn).sections
                assert sections[ItemKind.HISTORY] <= 0.2 * LIMIT

    def test_in_another_thread(self):
        with ContextManager.open(None, model="gpt-4o-mini") as manager:
            settled(manager, 80)
            other = replace(SCOPE, thread_id="other")
            view = manager.prepare(scope=other, query=question(81), max_tokens=LIMIT)
        assert [message.content for message in view.messages] == [question(81).content]


@pytest.mark.parametrize("limit", [500, 1_000])
def test_a_small_prompt_is_filled_with_what_is_recalled(limit):
    with ContextManager.open(None, model="gpt-4o-mini") as manager:
        talked(manager, 80)
        view = asked(manager, 80, limit=limit)
    assert view.tokens > 0.85 * limit


def test_nothing_kept_of_a_stretch_is_left_after_forget(tmp_path):
    with ContextManager.open(tmp_path, model="gpt-4o-mini") as manager:
        settled(manager, 80)
        asked(manager, 81)
        assert manager.forget(scope=SCOPE).derived > 0
    left = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert json.dumps(question(3).content).strip('"').encode() not in left
