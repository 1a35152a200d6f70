"""Whether a statement says what its sources say."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from langchain_ctxmgr.compression.verification import Evidence, Source, extracted

SAID = (
    "We moved the launch from Friday to 14 March 2026. The budget is $12,500 and I do not eat "
    'meat. Maria Lopez said "ship it when it is green". Ticket KX-412 stays open. '
    "Three people will come."
)
EVIDENCE = Evidence([Source(text=SAID, speaker="Ann", at=datetime(2026, 3, 2, 9, tzinfo=UTC))])


class TestWhatHolds:
    @pytest.mark.parametrize(
        "statement",
        [
            "The launch was moved to 14 March 2026.",
            "The budget is $12500.",
            "Ann does not eat meat.",
            'Maria Lopez said "ship it when it is green".',
            "Ticket KX-412 is still open.",
            "3 people will come.",
            "The user moved the launch from Friday.",
            "On 2 March Ann said the budget is $12,500.",
        ],
    )
    def test_what_the_sources_say_in_other_words(self, statement):
        assert EVIDENCE.problem(statement) is None


class TestWhatDoesNot:
    @pytest.mark.parametrize(
        ("statement", "why"),
        [
            ("The budget is $13,500.", "13500"),
            ("The launch was moved to 15 March 2026.", "'15'"),
            ("The launch was moved to Monday 14 March.", None),
            ("Zoltan does not eat meat.", "Zoltan"),
            ("The launch is led by Peter.", "Peter"),
            ("Ann eats meat.", "negated"),
            ("The budget is not $12,500.", "negated"),
            ('Maria Lopez said "ship it on Friday".', "quotation"),
            ("Ticket KX-413 stays open.", "kx-413"),
            ("Everybody enjoys sailing across quiet lakes.", "something else"),
            ("", "something else"),
        ],
    )
    def test_wrong_numbers_names_negations_and_quotations(self, statement, why):
        problem = EVIDENCE.problem(statement)
        if why is None:
            assert problem is None or "Monday" in problem  # the day it was said on
        else:
            assert problem is not None
            assert why in problem

    def test_the_sentence_it_was_about_stands_in(self):
        found = extracted("The budget is $13,500.", EVIDENCE)
        assert found is not None
        assert found.text == "The budget is $12,500 and I do not eat meat."

    def test_nothing_stands_in_for_what_is_about_nothing(self):
        assert extracted("Sailing across lakes.", EVIDENCE) is None
        assert extracted("x", Evidence([])) is None


class TestOtherScripts:
    @pytest.mark.parametrize(
        ("said", "right", "wrong"),
        [
            ("Ich esse kein Fleisch.", "Ich esse kein Fleisch.", "Ich esse Fleisch."),
            ("我不吃肉。", "我不吃肉。", "我吃肉。"),
            ("Das Treffen ist um 14:30 Uhr.", "Treffen um 14:30 Uhr.", "Treffen um 15:30 Uhr."),
        ],
    )
    def test_negations_and_numbers(self, said, right, wrong):
        at = datetime(2026, 1, 1, tzinfo=UTC)
        evidence = Evidence([Source(text=said, speaker="user", at=at)])
        assert evidence.problem(right) is None
        assert evidence.problem(wrong) is not None
