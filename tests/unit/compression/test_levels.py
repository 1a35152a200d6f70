"""The levels of a running summary: within their bounds, chosen by the question, measured."""

from __future__ import annotations

from dataclasses import replace

from langchain_ctxmgr.budget.tokens import counter_for
from langchain_ctxmgr.compression.levels import bearing_on, folded, kept_share
from langchain_ctxmgr.compression.statements import (
    Cited,
    Kind,
    RunningSummary,
    Statement,
    noted_tokens,
    summary_of,
)

COUNTER = counter_for("gpt-4o-mini")


def note(text: str, *slots: int, importance: float = 0.5) -> Statement:
    cited = tuple(Cited(f"m{slot}", slot, importance, 20) for slot in slots)
    return Statement(kind=Kind.FACT, text=text, sources=cited)


SECTIONS = [
    [
        note(f"The key of room {room} hangs on hook {room * 7}.", room)
        for room in range(first, first + 5)
    ]
    for first in range(0, 40, 5)
]


class TestFolding:
    def test_both_levels_stay_within_their_bounds(self):
        overview = [note(f"Ann keeps {n} bees.", 100 + n) for n in range(30)]
        levels = folded(overview, SECTIONS, max_tokens=200, max_section_tokens=300, counter=COUNTER)
        assert summary_of(levels.overview, COUNTER).tokens <= 200
        assert sum(noted_tokens(each, COUNTER) for each in levels.sections) <= 300
        assert list(levels.sections) == [tuple(each) for each in SECTIONS[-len(levels.sections) :]]

    def test_what_matters_most_of_the_oldest_goes_up(self):
        matters = note("The vault opens at 9:40.", 3, importance=1.0)
        sections = [[*SECTIONS[0], matters], *SECTIONS[1:]]
        levels = folded(
            [note("Ann keeps bees.", 99)],
            sections,
            max_tokens=60,
            max_section_tokens=300,
            counter=COUNTER,
        )
        assert matters in levels.overview

    def test_what_the_overview_tells_of_already_does_not_go_up(self):
        told = note("The keys of rooms 0 to 4 hang on hooks 0, 7, 14, 21 and 28.", 0, 1, 2, 3, 4)
        levels = folded([told], SECTIONS, max_tokens=4_000, max_section_tokens=300, counter=COUNTER)
        assert not set(SECTIONS[0]) & set(levels.overview)
        assert set(SECTIONS[1]) <= set(levels.overview)

    def test_a_newest_section_that_is_too_long_keeps_what_matters_most(self):
        matters = note("The vault opens at 9:40.", 3, importance=1.0)
        section = [*(each for some in SECTIONS for each in some), matters]
        levels = folded([], [section], max_tokens=200, max_section_tokens=150, counter=COUNTER)
        assert matters in levels.sections[0]
        assert noted_tokens(levels.sections[0], COUNTER) <= 150


class TestChoosing:
    def choose(self, question: str, *, beside=(), max_tokens: int = 100) -> tuple[Statement, ...]:
        return bearing_on(question, SECTIONS, beside=beside, max_tokens=max_tokens, counter=COUNTER)

    def test_the_note_with_the_rare_word_comes_first(self):
        assert self.choose("Where does the key of room 23 hang?", max_tokens=35) == (
            SECTIONS[4][3],
        )

    def test_they_are_shown_in_the_order_they_were_made_within_the_bound(self):
        chosen = self.choose("room keys", max_tokens=100)
        assert [each.sources[0].slot for each in chosen] == sorted(
            each.sources[0].slot for each in chosen
        )
        assert len(chosen) > 1
        assert noted_tokens(chosen, COUNTER) <= 100

    def test_what_is_shown_anyway_is_not_shown_twice(self):
        assert SECTIONS[4][3] not in self.choose("room 23", beside=[SECTIONS[4][3]])

    def test_nothing_bears_on_a_question_about_something_else(self):
        assert self.choose("Who won the regatta?") == ()
        assert self.choose("") == ()


class TestDrift:
    def summary(self, *notes: Statement) -> RunningSummary:
        return RunningSummary(before_slot=9, statements=notes, sections=((),), supported=1.0)

    def test_the_same_notes_are_all_kept(self):
        told = self.summary(*SECTIONS[0])
        assert kept_share(told, told) == 1.0
        assert kept_share(self.summary(), told) == 1.0

    def test_a_note_is_kept_in_other_words_of_the_same_messages(self):
        before = self.summary(note("The key of room 3 hangs on hook 21.", 3))
        after = self.summary(note("On hook 21 hangs the key of room 3, says Ann.", 3, 8))
        assert kept_share(before, after) == 1.0
        elsewhere = replace(after, statements=(note("On hook 21 hangs the key of room 3.", 8),))
        assert kept_share(before, elsewhere) == 0.0

    def test_a_number_that_changed_is_not_kept(self):
        before = self.summary(*SECTIONS[1])
        after = self.summary(note("The key of room 5 hangs on hook 44.", 5), *SECTIONS[1][1:])
        assert kept_share(before, after) == 0.8
