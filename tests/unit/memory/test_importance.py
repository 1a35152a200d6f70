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

from langchain_ctxmgr.memory.importance import Importance, importance, in_context


class TestImportance:
    @pytest.mark.parametrize(
        ("more", "less"),
        [
            ("I'm allergic to penicillin.", "The weather seems fine over there."),
            ("Actually, the meeting is on 8 May.", "The meeting is in a room."),
            ("Remember to always answer in French.", "An answer in French was given."),
            ("We decided to go with the blue one.", "The blue one is next to it."),
            ("Always name the port.", "It is the port that they always name."),
            ("My dog is called Rex, remember that.", "My dog is called Rex, people say."),
            ("I have never sailed there.", "I have sailed there."),
            ("I'd rather take the ferry.", "I take the ferry."),
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
        assert found.reasons[0] == "human message"
        assert {"states a preference", "holds a number"} <= set(found.reasons)
        assert importance(AIMessage("An error occurred.")).reasons == (
            "ai message",
            "reports an error",
        )

    @given(st.text(max_size=200))
    def test_the_score_is_a_fraction(self, text: str):
        for message in (SystemMessage(text), HumanMessage(text)):
            assert 0 <= importance(message).score <= 1


class TestInContext:
    def test_what_was_said_before_weighs_less(self):
        said = "The crane in Bergen failed its safety check."
        first, again = _between(("Ann", said), ("Ann", said))
        assert first.score > again.score
        assert "says what was not said before" in first.reasons
        assert "names someone or something first" in first.reasons
        assert "names someone or something first" not in again.reasons

    def test_an_answer_weighs_more_than_the_same_words_unasked(self):
        reply = "A small one, near the river."
        _, asked = _between(("Ann", "Which house is it?"), ("Bob", reply))
        _, unasked = _between(("Ann", "The house is new."), ("Bob", reply))
        assert asked.score > unasked.score
        assert "answers a question" in asked.reasons

    def test_what_happened_and_when_weighs_more_than_praise_for_it(self):
        told, praised = _between(
            ("Ann", "I adopted a dog from the shelter last week."),
            ("Bob", "Wow, that sounds great, keep it up!"),
        )
        assert told.score > 4 * praised.score
        assert "says what happened lately" in told.reasons

    def test_a_participant_is_no_name_first_mentioned(self):
        _, addressed = _between(("Melanie", "The sea is calm."), ("Bob", "It is, Mel."))
        assert "names someone or something first" not in addressed.reasons

    def test_the_first_message_of_a_session_says_what_is_new(self):
        messages = [HumanMessage("The sea is calm.", name="Ann") for _ in range(3)]
        _, same, next_day = in_context(messages, [0, 0, 1])
        assert next_day.score > same.score
        assert "opens a session" in next_day.reasons

    def test_what_is_taken_up_again_weighs_more(self):
        crane, boat = HumanMessage("The crane needs paint."), HumanMessage("The boat needs a mast.")
        aside = AIMessage("Noted."), HumanMessage("Which paint does the crane want?")
        taken_up, left = in_context([crane, boat, *aside], [0] * 4)[:2]
        assert "is taken up again" in taken_up.reasons
        assert taken_up.score > left.score
        left, taken_up = in_context([boat, crane, *aside], [0] * 4)[:2]
        assert taken_up.score > left.score

    def test_a_machine_takes_nothing_up(self):
        said = HumanMessage("The crane needs paint.")
        echoed = in_context([said, AIMessage("Paint for the crane!")], [0, 0])[0]
        assert echoed == in_context([said, AIMessage("Noted.")], [0, 0])[0]

    def test_what_opens_a_conversation_weighs_more_than_the_same_later(self):
        said, asked = HumanMessage("I build a boat."), AIMessage("Noted.")
        first, *_, last = in_context([said, *[asked] * 40, said], [0] * 42)
        (only,) = in_context([said], [0])
        assert "stands early in the conversation" in only.reasons
        assert first.score > only.score > last.score

    def test_a_named_ai_speaker_is_a_person_only_among_people(self):
        said = "I adopted a dog from the shelter last week."
        among = in_context([HumanMessage("Hm.", name="Ann"), AIMessage(said, name="Bob")], [0, 0])
        agent = in_context([HumanMessage("Hm."), AIMessage(said, name="planner")], [0, 0])
        assert among[1].score > 4 * agent[1].score

    def test_other_languages_go_by_what_is_new_and_how_much(self):
        told, again = _between(
            ("Ann", "\u6211\u5728\u5317\u4eac\u7684\u533b\u9662\u5de5\u4f5c\u3002"),
            ("Ann", "\u6211\u5728\u5317\u4eac\u7684\u533b\u9662\u5de5\u4f5c\u3002"),
        )
        assert told.score > again.score > 0

    def test_each_message_has_a_session(self):
        with pytest.raises(ValueError, match="one for each of 1 messages, got 0"):
            in_context([HumanMessage("Hm.")], [])

    @given(st.lists(st.text(max_size=80), max_size=6))
    def test_the_score_is_a_fraction(self, texts: list[str]):
        messages = [HumanMessage(text, name="Ann") for text in texts]
        for each in in_context(messages, [0] * len(messages)):
            assert 0 <= each.score <= 1


def _between(*said: tuple[str, str]) -> list[Importance]:
    """The importance of what two people say, the first as the user."""
    user = said[0][0]
    messages = [
        HumanMessage(text, name=name) if name == user else AIMessage(text, name=name)
        for name, text in said
    ]
    return in_context(messages, [0] * len(messages))
