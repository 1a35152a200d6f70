"""What matters later, by rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_ctxmgr.memory.importance import importance


class TestImportance:
    @pytest.mark.parametrize(
        ("more", "less"),
        [
            ("I'm allergic to penicillin.", "The weather seems fine over there."),
            ("Actually, the meeting is on 8 May.", "The meeting is in a room."),
            ("Remember to always answer in French.", "An answer in French was given."),
            ("We decided to go with the blue one.", "The blue one is next to it."),
        ],
    )
    def test_what_people_come_back_to_weighs_more(self, more: str, less: str):
        assert importance(HumanMessage(more)).score > importance(HumanMessage(less)).score

    def test_greetings_weigh_next_to_nothing(self):
        assert importance(HumanMessage("Thanks so much!")).score < 0.05
        assert importance(AIMessage("")).score == 0

    def test_a_person_outweighs_a_machine_that_says_the_same(self):
        said = "I decided to move on 8 May 2023, by the way."
        human, ai = importance(HumanMessage(said)).score, importance(AIMessage(said)).score
        tool = importance(ToolMessage(said, tool_call_id="1")).score
        assert human > ai > tool
        assert importance(AIMessage(said, name="Ada")).score > ai
        assert importance(AIMessageChunk(said)).score == ai

    def test_every_point_has_a_reason(self):
        found = importance(HumanMessage("I prefer the 9 o'clock train."))
        assert found.reasons == ("human message", "states a preference", "holds a number")

    @given(st.text(max_size=200))
    def test_the_score_is_a_fraction(self, text: str):
        for message in (SystemMessage(text), HumanMessage(text)):
            assert 0 <= importance(message).score <= 1
