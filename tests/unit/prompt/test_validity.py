from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_ctxmgr.prompt.validity import Folded, fold, is_blank, role_of
from tests.histories import assert_valid, healthy_histories, histories


def call(*ids: str | None, content="") -> AIMessage:
    return AIMessage(
        content=content, tool_calls=[{"name": "look", "args": {}, "id": one} for one in ids]
    )


def result(call_id: str, content: str = "found") -> ToolMessage:
    return ToolMessage(content, tool_call_id=call_id)


def kept(folded: Folded) -> list[BaseMessage]:
    return [message for group in folded.groups for message in group.messages]


def indexes(folded: Folded) -> list[tuple[int, ...]]:
    return [group.indexes for group in folded.groups]


class TestToolResults:
    def test_a_result_stays_with_its_call(self):
        folded = fold([HumanMessage("hi"), call("a"), result("a"), AIMessage("done")])
        assert indexes(folded) == [(0,), (1, 2), (3,)]
        assert not folded.dropped

    def test_parallel_results_stay_together(self):
        folded = fold(
            [HumanMessage("hi"), call("a", "b", "c"), result("c"), result("a"), result("b")]
        )
        assert indexes(folded) == [(0,), (1, 2, 3, 4)]

    def test_a_stray_result_is_left_out(self):
        folded = fold([result("a"), HumanMessage("hi")])
        assert indexes(folded) == [(1,)]
        assert folded.dropped[0].reason == "a tool result without its call"

    def test_one_missing_parallel_result_takes_the_call_along(self):
        folded = fold([HumanMessage("hi"), call("a", "b"), result("a"), HumanMessage("well?")])
        assert indexes(folded) == [(0,), (3,)]
        assert [drop.place for drop in folded.dropped] == [1, 2]

    def test_the_first_of_two_results_counts(self):
        folded = fold([HumanMessage("hi"), call("a"), result("a", "one"), result("a", "two")])
        assert indexes(folded) == [(0,), (1, 2)]
        assert folded.dropped[0].reason == "another result for the same call"

    def test_a_late_result_is_brought_to_its_call(self):
        folded = fold([HumanMessage("go"), call("a"), HumanMessage("any news?"), result("a")])
        assert indexes(folded) == [(0,), (1, 3), (2,)]

    def test_interleaved_calls_get_their_own_results(self):
        folded = fold([HumanMessage("go"), call("a"), call("b"), result("b"), result("a")])
        assert indexes(folded) == [(0,), (1, 4), (2, 3)]

    def test_an_id_used_again_means_the_latest_call(self):
        folded = fold(
            [HumanMessage("go"), call("a"), result("a", "one"), call("a"), result("a", "two")]
        )
        assert indexes(folded) == [(0,), (1, 2), (3, 4)]

    def test_a_call_without_an_id_cannot_be_answered(self):
        folded = fold([HumanMessage("go"), call("a", None), result("a")])
        assert indexes(folded) == [(0,)]

    def test_two_calls_with_one_id_are_left_out(self):
        folded = fold([HumanMessage("go"), call("a", "a"), result("a")])
        assert indexes(folded) == [(0,)]

    def test_unparsed_calls_need_their_results_too(self):
        bad = AIMessage(
            content="",
            invalid_tool_calls=[{"name": "look", "args": "{", "id": "x", "error": "json"}],
        )
        assert indexes(fold([HumanMessage("go"), bad, result("x")])) == [(0,), (1, 2)]
        assert indexes(fold([HumanMessage("go"), bad])) == [(0,)]

    def test_a_call_known_only_from_its_content_block_counts(self):
        block = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
        assert indexes(fold([HumanMessage("go"), AIMessage(content=[block])])) == [(0,)]

    def test_a_call_listed_twice_over_is_one_call(self):
        block = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
        folded = fold([HumanMessage("go"), call("t", content=[block]), result("t")])
        assert indexes(folded) == [(0,), (1, 2)]

    def test_raw_provider_calls_count(self):
        raw = call("a")
        raw.tool_calls = []
        raw.additional_kwargs["tool_calls"] = [{"id": "a", "function": {"name": "look"}}]
        assert indexes(fold([HumanMessage("go"), raw])) == [(0,)]

    def test_legacy_functions_pair_by_name(self):
        asks = AIMessage("", additional_kwargs={"function_call": {"name": "f", "arguments": "{}"}})
        answer = FunctionMessage(name="f", content="1")
        assert indexes(fold([HumanMessage("go"), asks, answer])) == [(0,), (1, 2)]
        assert indexes(fold([HumanMessage("go"), answer])) == [(0,)]


class TestOtherRules:
    def test_system_messages_are_set_apart(self):
        folded = fold(
            [
                SystemMessage("one"),
                HumanMessage("hi"),
                call("a"),
                ChatMessage(role="developer", content="two"),
                result("a"),
            ]
        )
        assert folded.system == (0, 3)
        assert indexes(folded) == [(1,), (2, 4)]

    @pytest.mark.parametrize("content", ["", " \n", [], [{"type": "text", "text": " "}], ["", " "]])
    def test_blank_messages_are_left_out_of_the_history(self, content):
        folded = fold([HumanMessage(content), AIMessage(content), HumanMessage("hi")])
        assert indexes(folded) == [(2,)]

    def test_the_current_question_stays_however_blank(self):
        assert indexes(fold([HumanMessage("hi"), HumanMessage("")])) == [(0,), (1,)]

    def test_a_history_without_a_turn_is_mended_to_its_end(self):
        thought = AIMessage([{"type": "thinking", "thinking": "hm", "signature": "s"}])
        folded = fold([HumanMessage("hi"), HumanMessage(""), thought], has_turn=False)
        assert indexes(folded) == [(0,)]

    def test_a_picture_is_not_blank(self):
        assert not is_blank(HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}]))

    def test_reasoning_alone_stays_only_in_the_current_turn(self):
        thought = AIMessage([{"type": "thinking", "thinking": "hm", "signature": "s"}])
        folded = fold([HumanMessage("a"), thought, HumanMessage("b"), thought])
        assert indexes(folded) == [(0,), (2,), (3,)]

    def test_removal_requests_are_ignored(self):
        folded = fold([HumanMessage("a", id="1"), RemoveMessage(id="1")])
        assert indexes(folded) == [(0,)]

    def test_chunks_count_as_what_they_are_chunks_of(self):
        assert role_of(AIMessageChunk(content="a")) == "ai"

    def test_only_a_user_message_opens(self):
        folded = fold(
            [AIMessage("welcome"), HumanMessage("a"), ChatMessage(role="user", content="b")]
        )
        assert [group.opens for group in folded.groups] == [False, True, True]
        assert folded.turn == 2

    def test_without_a_user_message_there_is_no_turn(self):
        assert fold([AIMessage("a")]).turn == 1
        assert fold([]).turn == 0

    def test_a_group_costs_the_sum_and_matters_as_its_most_important_part(self):
        folded = fold(
            [HumanMessage("a"), call("a"), result("a")],
            tokens=[5, 7, 11],
            importance=[0.1, 0.2, 0.9],
        )
        assert [(group.tokens, group.importance) for group in folded.groups] == [
            (5, 0.1),
            (18, 0.9),
        ]


class TestAnyHistory:
    @settings(max_examples=300, deadline=None)
    @given(histories())
    def test_groups_in_order_are_what_providers_accept(self, messages):
        folded = fold(messages)
        first = next((i for i, group in enumerate(folded.groups) if group.opens), None)
        if first is not None:
            assert_valid([m for group in folded.groups[first:] for m in group.messages])

    @settings(max_examples=200, deadline=None)
    @given(histories())
    def test_every_message_is_in_a_group_or_accounted_for_once(self, messages):
        folded = fold(messages)
        places = [index for group in folded.groups for index in group.indexes]
        places += [*folded.system, *(drop.place for drop in folded.dropped)]
        assert sorted(places) == list(range(len(messages)))
        assert all(drop.reason for drop in folded.dropped)

    @settings(max_examples=100, deadline=None)
    @given(histories())
    def test_messages_are_handed_on_as_they_are(self, messages):
        before = copy.deepcopy(messages)
        folded = fold(messages)
        assert messages == before
        for group in folded.groups:
            assert all(
                message is messages[index]
                for message, index in zip(group.messages, group.indexes, strict=True)
            )

    @settings(max_examples=100, deadline=None)
    @given(healthy_histories())
    def test_a_healthy_history_is_left_alone(self, messages):
        folded = fold(messages)
        assert kept(folded) == messages
        assert not folded.dropped

    @settings(max_examples=100, deadline=None)
    @given(histories())
    def test_mending_twice_changes_nothing(self, messages):
        once = kept(fold(messages))
        assert kept(fold(once)) == once
