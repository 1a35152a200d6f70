from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

from langchain_ctxmgr.prompt.validity import Group, fold
from langchain_ctxmgr.prompt.window import (
    Full,
    LastTurns,
    MostImportant,
    SlidingWindow,
    SummaryImportantRecent,
    exchanges,
    opening,
    window_start,
)
from tests.histories import assert_valid, histories

SELECTORS = [
    Full(),
    LastTurns(k=3),
    SlidingWindow(),
    SlidingWindow(overlap=0.2),
    MostImportant(),
    SummaryImportantRecent(),
    SummaryImportantRecent(important=0.6),
]


def turns(count: int, *, tokens: int = 10) -> tuple[Group, ...]:
    messages = [
        HumanMessage(f"q{i // 2}") if i % 2 == 0 else AIMessage(f"a{i // 2}")
        for i in range(2 * count)
    ]
    importance = [((i // 2) * 7 % 10) / 10 for i in range(2 * count)]
    return fold(messages, tokens=[tokens] * len(messages), importance=importance).groups


class TestWindowStart:
    def test_all_is_in_while_it_fits(self):
        assert window_start(1_000, 1_000) == 0

    def test_it_moves_in_steps_of_half_the_allowance(self):
        starts = {window_start(total, 1_000) for total in range(1_001, 3_001)}
        assert starts == {500, 1_000, 1_500, 2_000}

    @given(st.integers(0, 10**7), st.integers(1, 10**6), st.sampled_from([0.0, 0.25, 0.5, 0.9]))
    def test_what_is_left_fits_and_is_never_much_less_than_the_overlap(
        self, total, allowance, overlap
    ):
        start = window_start(total, allowance, overlap=overlap)
        left = total - start
        assert left <= allowance
        if total > allowance:
            assert left > allowance - max(1, round(allowance * (1 - overlap))) - 1

    @given(st.integers(0, 10**6), st.integers(1, 10**5), st.integers(0, 10**4))
    def test_it_never_moves_back(self, total, allowance, more):
        assert window_start(total + more, allowance) >= window_start(total, allowance)

    def test_without_allowance_nothing_is_in(self):
        assert window_start(70, 0) == 70

    def test_an_overlap_that_never_moves_is_refused(self):
        with pytest.raises(ValueError, match="overlap must be"):
            window_start(10, 5, overlap=1)


class TestOpening:
    def groups(self, *kinds: str) -> tuple[Group, ...]:
        messages = [HumanMessage("q") if kind == "h" else AIMessage("a") for kind in kinds]
        return fold(messages, tokens=[10] * len(messages)).groups

    def test_a_window_starts_at_a_user_message(self):
        assert opening(self.groups("a", "h", "a"), 10) == (1, False)

    def test_a_long_turn_keeps_its_question_in_the_lead(self):
        assert opening(self.groups("a", "a", "a", "h"), 10) == (0, True)

    def test_too_little_to_tell_gives_an_empty_window(self):
        assert opening(self.groups("a"), 10) == (1, False)
        assert opening((), 10) == (0, False)

    @given(st.lists(st.sampled_from("ah"), min_size=6, max_size=30), st.integers(0, 50))
    def test_what_is_appended_later_does_not_move_it(self, kinds, slack):
        groups = self.groups(*kinds)
        found = [opening(groups[:size], slack) for size in range(6, len(groups) + 1)]
        assert len(set(found)) == 1


class TestSelections:
    def test_the_full_history_goes_in_while_it_fits(self):
        groups = turns(5)
        assert Full()(groups, 100).groups == groups

    def test_a_history_that_no_longer_fits_slides(self):
        groups = turns(50)
        assert Full()(groups, 100) == SlidingWindow()(groups, 100)

    def test_the_last_turns_are_whole_turns(self):
        chosen = LastTurns(k=2)(turns(5), 1_000).groups
        assert [group.messages[0].content for group in chosen] == ["q3", "a3", "q4", "a4"]

    def test_fewer_turns_go_in_when_they_do_not_fit(self):
        assert len(LastTurns(k=5)(turns(5), 45).groups) == 4

    def test_no_turns_is_a_choice_and_less_is_not(self):
        assert LastTurns(k=0)(turns(3), 1_000).groups == ()
        with pytest.raises(ValueError, match="k must not be negative, got -1"):
            LastTurns(k=-1)

    def test_windows_in_a_row_overlap(self):
        sizes = [len(SlidingWindow(overlap=0.5)(turns(n), 200).groups) for n in range(11, 40)]
        assert min(sizes) >= 9
        assert max(sizes) <= 20

    def test_between_moves_the_window_only_grows_at_its_end(self):
        moves = 0
        before: list[int] = []
        for count in range(1, 60):
            chosen = SlidingWindow()(turns(count), 200).groups
            places = [group.indexes[0] for group in chosen]
            moves += places[: len(before)] != before
            before = places
        assert moves <= 11

    def test_the_most_important_turns_are_shown_in_order(self):
        chosen = MostImportant()(turns(10), 40)
        assert [group.messages[0].content for group in chosen.groups] == ["q4", "a4", "q7", "a7"]

    def test_the_default_keeps_recent_and_important_and_leaves_the_rest_to_the_summary(self):
        groups = turns(40)
        chosen = SummaryImportantRecent()(groups, 240)
        assert chosen.groups[-1] is groups[-1]
        assert {"important", "left to the summary", "in the window"} == set(chosen.reasons)

    def test_a_share_outside_zero_to_one_is_refused(self):
        with pytest.raises(ValueError, match="important must be in"):
            SummaryImportantRecent(important=1.5)

    @pytest.mark.parametrize("selector", SELECTORS, ids=repr)
    @settings(max_examples=60, deadline=None)
    @given(histories(), st.integers(0, 300))
    def test_every_choice_is_valid_within_budget_and_in_order(self, selector, messages, budget):
        messages = [*messages, HumanMessage("?")]
        folded = fold(
            messages,
            tokens=[1 + len(str(m.content)) % 40 for m in messages],
            importance=[len(str(m.content)) % 10 / 10 for m in messages],
        )
        groups, turn = folded.groups[: folded.turn], folded.groups[folded.turn :]
        chosen = selector(groups, budget)
        assert sum(group.tokens for group in chosen.groups) <= budget
        places = [group.indexes[0] for group in chosen.groups]
        assert places == sorted(places)
        assert len(chosen.reasons) == len(groups)
        assert_valid([m for group in (*chosen.groups, *turn) for m in group.messages])


class TestExchanges:
    def test_what_comes_before_the_first_question_is_in_none(self):
        groups = fold(
            [AIMessage("hi"), HumanMessage("a"), AIMessage("b"), HumanMessage("c")]
        ).groups
        assert [len(run) for run in exchanges(groups)] == [2, 1]
