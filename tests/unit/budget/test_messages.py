from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    ToolMessage,
)

from langchain_ctxmgr.budget.tokens import EstimateCounter, VocabularyCounter

COUNTER = VocabularyCounter("o200k_base")
AROUND = COUNTER.message(HumanMessage(""))
CALL = {"name": "find", "args": {"q": "the depot in Leeds"}, "id": "call_1"}


def cost(message):
    return COUNTER.message(message) - AROUND


class TestMessageTokens:
    def test_an_empty_message_costs_what_stands_around_it(self):
        assert AROUND == 4

    def test_a_name_costs_its_tokens_and_one(self):
        assert cost(HumanMessage("", name="maria")) == COUNTER.text("maria") + 1

    def test_parts_cost_what_their_texts_cost(self):
        parts = [
            "one two",
            {"type": "text", "text": "three"},
            {"type": "input_text", "text": "four"},
        ]
        assert cost(HumanMessage(parts)) == sum(map(COUNTER.text, ("one two", "three", "four")))

    def test_a_call_is_counted_once_however_often_it_is_spelt(self):
        plain = AIMessage("", tool_calls=[CALL])
        block = AIMessage(
            [{"type": "tool_use", "id": "call_1", "name": "find", "input": CALL["args"]}],
            tool_calls=[CALL],
            additional_kwargs={"tool_calls": [{"id": "call_1", "function": {"name": "find"}}]},
        )
        response = AIMessage(
            [{"type": "function_call", "id": "fc_9", "call_id": "call_1", "arguments": "{}"}],
            tool_calls=[CALL],
        )
        assert cost(plain) == cost(block) == cost(response) > COUNTER.text("the depot in Leeds")

    def test_an_unparsed_call_is_counted(self):
        raw = {"tool_calls": [{"id": "c", "function": {"name": "find", "arguments": "{bad"}}]}
        bad = [
            {"name": "find", "args": "{bad", "id": "c", "error": "x", "type": "invalid_tool_call"}
        ]
        assert cost(AIMessage("", additional_kwargs=raw, invalid_tool_calls=[])) > 8
        assert cost(AIMessage("", invalid_tool_calls=bad)) > 8
        old = {"function_call": {"name": "find", "arguments": '{"q": "depot"}'}}
        assert cost(AIMessage("", additional_kwargs=old)) > 8

    def test_each_parallel_call_counts(self):
        two = AIMessage("", tool_calls=[CALL, {**CALL, "id": "call_2"}])
        assert cost(two) == 2 * cost(AIMessage("", tool_calls=[CALL]))

    def test_a_tool_result_costs_its_text_and_its_tie(self):
        assert cost(ToolMessage("ok", tool_call_id="x", artifact={"big": "y" * 99})) == 4
        block = {
            "type": "tool_result",
            "tool_use_id": "x",
            "content": [{"type": "text", "text": "ok"}],
        }
        assert cost(HumanMessage([block])) == 4

    @pytest.mark.parametrize(
        "block",
        [
            {"type": "reasoning", "reasoning": "first this, then that"},
            {"type": "reasoning", "id": "rs_1", "summary": [{"text": "first this, then that"}]},
            {"type": "thinking", "thinking": "first this, then that", "signature": "abcd"},
            {"type": "reasoning_content", "reasoning_content": {"text": "first this, then that"}},
        ],
    )
    def test_reasoning_is_counted(self, block):
        assert cost(AIMessage([block])) >= COUNTER.text("first this, then that")

    def test_encrypted_reasoning_is_counted_by_length(self):
        block = {"type": "redacted_thinking", "data": "x" * 400}
        assert cost(AIMessage([block])) == 100
        assert cost(AIMessage("", additional_kwargs={"reasoning_content": "why"})) == 1

    def test_an_unknown_block_costs_its_json(self):
        block = {"type": "hologram", "payload": {"frames": [1, 2, 3]}}
        assert cost(HumanMessage([block])) >= COUNTER.text('{"frames": [1, 2, 3]}')

    def test_a_role_of_its_own_is_counted(self):
        assert cost(ChatMessage("hi", role="chief investigator of the board")) > 4
        assert cost(FunctionMessage("hi", name="f")) == 3

    def test_a_chunk_costs_what_the_message_costs(self):
        assert cost(AIMessageChunk("streamed words")) == cost(AIMessage("streamed words"))

    def test_missing_content_costs_nothing(self):
        assert cost(HumanMessage.model_construct(content=None, additional_kwargs={})) == 0

    def test_spoken_answers_are_not_counted_by_their_base64(self):
        spoken = {"audio": {"id": "a", "data": "QUJD" * 10_000, "transcript": "hello"}}
        assert cost(AIMessage("", additional_kwargs=spoken)) < 300

    json = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["type", "text", "image_url", "url", "source", "data", "content", "x"]
                ),
                inner
                | st.sampled_from(["text", "image", "image_url", "file", "audio", "reasoning"]),
                max_size=4,
            )
        ),
        max_leaves=8,
    )

    @given(
        st.lists(
            st.text(max_size=5) | st.dictionaries(st.sampled_from(["type", "text", "data"]), json)
        )
    )
    @settings(max_examples=200)
    def test_no_content_breaks_the_count(self, content):
        for counter in (COUNTER, EstimateCounter()):
            assert counter.message(HumanMessage(content)) >= AROUND
