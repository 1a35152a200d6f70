"""What a question asks for."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_ctxmgr.analysis import terms
from langchain_ctxmgr.memory.dates import Period, periods
from langchain_ctxmgr.memory.query import Question, read_question

NOW = datetime(2026, 3, 18, 10, tzinfo=UTC)
"""A Wednesday."""


def read(text: str, *participants: str) -> Question:
    return read_question(text, participants=participants, asked_at=NOW)


class TestNames:
    def test_a_participant_is_a_boost_and_not_a_search_word(self):
        question = read("What did Ingrid's brother build?", "Ingrid", "Tom")
        assert question.text == "What did brother build?"
        assert question.speakers == {"Ingrid"}
        assert question.terms == terms("brother build")

    def test_a_misspelt_name_is_still_that_person(self):
        assert read("What did Ingird build?", "Ingrid").speakers == {"Ingrid"}

    def test_a_word_like_a_name_stays_a_word(self):
        question = read("Which tombs did they visit?", "Tom")
        assert question.speakers == frozenset()
        assert "tombs" in question.text

    def test_sides_are_not_people(self):
        question = read("What does the user prefer?", "user", "Assistant")
        assert question.speakers == frozenset()

    def test_either_part_of_a_full_name_names_its_owner(self):
        assert read("Where does Okafor live?", "Ada Okafor").speakers == {"Ada Okafor"}

    def test_a_question_of_names_alone_keeps_them(self):
        assert read("Ingrid?", "Ingrid").terms == terms("Ingrid")


class TestTopic:
    def test_talk_about_the_conversation_is_not_the_topic(self):
        asked = "Can you remind me what I told you about boats in our conversations?"
        assert read(asked).terms == terms("boats")

    def test_the_order_in_which_things_were_said_is_not_the_topic(self):
        asked = "Tell me the order in which I brought up different aspects of my boat in our chats."
        assert read(asked).text == "Tell me my boat."

    @pytest.mark.parametrize(
        "how",
        [
            "Answer in one sentence.",
            "Please list only three items.",
            "Keep it short",
            "Use bullets!",
        ],
    )
    def test_how_to_answer_is_not_the_topic(self, how: str):
        assert read(f"Where is the harbour? {how}").text == "Where is the harbour?"

    def test_a_question_that_is_an_order_stays(self):
        assert read("List only lamps").terms == tuple(dict.fromkeys(terms("List only lamps")))

    def test_both_ends_of_a_long_question_are_read(self):
        asked = f"Where is the harbour? {'wave ' * 1_000_000} And where is the lighthouse?"
        assert set(read(asked).terms) == set(terms("harbour wave lighthouse"))

    def test_the_question_mark_stays_for_the_encoder(self):
        assert read("Where is the harbour?").text == "Where is the harbour?"

    @pytest.mark.parametrize(
        ("text", "is_list"),
        [
            ("Which boats has she repaired?", True),
            ("Can you summarize the repairs?", True),
            ("How many boats are there?", True),
            ("Where is the boat?", False),
            ("What is this boat's name?", False),
        ],
    )
    def test_questions_for_many_turns_are_told(self, text: str, *, is_list: bool):
        assert read(text).is_list is is_list

    @pytest.mark.parametrize(
        "text",
        ["Were the boats put in order?", "Which aspects of boats brought up a quarrel?"],
    )
    def test_words_of_the_topic_are_kept(self, text: str):
        assert read(text).terms == tuple(dict.fromkeys(terms(text)))

    def test_both_or_all_does_not_make_a_list(self):
        assert not read("What did Tom paint, and was it all blue?").is_list

    @pytest.mark.parametrize("text", ["When was it?", "How long did it take?", "What year?"])
    def test_questions_for_a_time_are_told(self, text: str):
        assert read(text).asks_when

    def test_what_the_assistant_said_is_told_from_what_i_did(self):
        assert read("Which glue did you recommend?").asks_machine
        assert read("What was your advice on glue?").asks_machine
        assert not read("Which glue did I use?").asks_machine

    @given(st.text(max_size=200), st.lists(st.text(max_size=12), max_size=3))
    def test_any_text_is_a_question(self, text: str, names: list[str]):
        question = read(text, *names)
        assert len(set(question.terms)) == len(question.terms)


class TestPeriods:
    @pytest.mark.parametrize(
        ("text", "first", "last"),
        [
            ("on 2025-06-08", date(2025, 6, 8), date(2025, 6, 8)),
            ("8 May, 2023", date(2023, 5, 8), date(2023, 5, 8)),
            ("May 8th, 2023", date(2023, 5, 8), date(2023, 5, 8)),
            ("the 8th of May", date(2025, 5, 8), date(2025, 5, 8)),
            ("February 10", date(2026, 2, 10), date(2026, 2, 10)),
            ("in May 2023", date(2023, 5, 1), date(2023, 5, 31)),
            ("in November", date(2025, 11, 1), date(2025, 11, 30)),
            ("in 2024", date(2024, 1, 1), date(2024, 12, 31)),
            ("yesterday", date(2026, 3, 17), date(2026, 3, 17)),
            ("last week", date(2026, 3, 9), date(2026, 3, 15)),
            ("last weekend", date(2026, 3, 14), date(2026, 3, 15)),
            ("last Friday", date(2026, 3, 13), date(2026, 3, 13)),
            ("last month", date(2026, 2, 1), date(2026, 2, 28)),
            ("last year", date(2025, 1, 1), date(2025, 12, 31)),
            ("this month", date(2026, 3, 1), date(2026, 3, 18)),
            ("two weeks ago", date(2026, 3, 1), date(2026, 3, 7)),
        ],
    )
    def test_a_date_in_words_is_a_period(self, text: str, first: date, last: date):
        assert periods(f"What happened {text}?", NOW) == (Period(first, last),)

    @pytest.mark.parametrize("text", ["You may go", "31 February 2025", "2025-13-01", "May I?"])
    def test_no_date_is_made_up(self, text: str):
        assert periods(text, NOW) == ()

    def test_a_month_is_the_last_one_the_conversation_reached(self):
        until = datetime(2023, 8, 1, tzinfo=UTC)
        assert periods("in June", NOW, until) == (Period(date(2023, 6, 1), date(2023, 6, 30)),)

    @given(st.text(alphabet="0123456789 -./ofmayjunelstwkdg,", max_size=40))
    def test_any_text_can_be_read(self, text: str):
        assert all(first <= last for first, last in periods(text, NOW))


class TestParts:
    @pytest.mark.parametrize(
        ("asked", "parts"),
        [
            (
                "When was the harbour dredged, and who paid the divers?",
                ["When was the harbour dredged", "who paid the divers?"],
            ),
            ("Where are the salt and pepper?", []),
            ("Where is the lamp?", []),
        ],
    )
    def test_each_part_of_a_compound_question_stands_alone(self, asked: str, parts: list[str]):
        question = read(asked)
        assert [question.text[first:last] for first, last in question.parts] == parts
