from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage

from langchain_ctxmgr.budget.allocation import (
    FOCUS_TOKENS,
    ContextBudget,
    RiskLevel,
    Share,
    Strategy,
    Thresholds,
    analyze,
    utilisation,
)
from langchain_ctxmgr.budget.tokens import VocabularyCounter

COUNTER = VocabularyCounter("o200k_base")
BUDGET = ContextBudget(max_input_tokens=128_000, focus_above_tokens=None)
TOKENS = st.integers(0, 200_000)
FRACTION = st.floats(0, 1 / 3)
SHARES = (
    st.none()
    | FRACTION
    | st.builds(
        lambda fraction, low, more: Share(fraction=fraction, min_tokens=low, max_tokens=low + more),
        FRACTION,
        st.integers(0, 5_000),
        st.integers(0, 5_000),
    )
)


class TestRisk:
    @pytest.mark.parametrize(
        ("tokens", "risk", "strategy"),
        [
            (0, RiskLevel.SAFE, Strategy.MONITOR_ONLY),
            (699, RiskLevel.SAFE, Strategy.MONITOR_ONLY),
            (700, RiskLevel.CAUTION, Strategy.MONITOR_ONLY),
            (800, RiskLevel.WARNING, Strategy.CONDENSE_LIGHT),
            (900, RiskLevel.CRITICAL, Strategy.CONDENSE_AGGRESSIVE),
            (1_000, RiskLevel.CRITICAL, Strategy.CONDENSE_AGGRESSIVE),
            (1_001, RiskLevel.OVERFLOW, Strategy.EMERGENCY_TRUNCATION),
        ],
    )
    def test_levels_begin_where_they_should(self, tokens, risk, strategy):
        assert Thresholds().risk(tokens, 1_000) is risk
        assert Strategy.for_risk(risk) is strategy

    def test_thresholds_are_settable(self):
        assert Thresholds(caution=0.1, warning=0.2, critical=0.3).risk(25, 100) is RiskLevel.WARNING

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"caution": 0}, r"caution must be in \(0, 1\], got 0"),
            ({"critical": 1.5}, "critical must be in"),
            ({"warning": True}, "warning must be in"),
            ({"caution": float("nan")}, "caution must be in"),
            ({"caution": 0.95}, "must not fall, got 0.95"),
        ],
    )
    def test_thresholds_that_cannot_be_are_refused(self, settings, message):
        with pytest.raises(ValueError, match=message):
            Thresholds(**settings)

    def test_nothing_fits_a_window_of_nothing(self):
        assert utilisation(0, 0) == 0.0
        assert utilisation(1, 0) == float("inf")


class TestContextBudget:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"max_input_tokens": 0}, "max_input_tokens must be an int of at least 1, got 0"),
            ({"max_input_tokens": 1.5}, "max_input_tokens must be an int"),
            ({"max_input_tokens": 10, "reserve_tokens": 10}, "reserve_tokens must be less than"),
            ({"max_input_tokens": 10, "reserve_tokens": -1}, "reserve_tokens must be an int"),
            ({"max_input_tokens": 9_000, "history_share": 1.7}, "history_share must be"),
            ({"max_input_tokens": 9_000, "summary_share": "half"}, "summary_share must be"),
            (
                {"max_input_tokens": 9_000, "history_share": 0.7, "recalled_share": 0.4},
                "shares must not add up to more than 1, got 1.1",
            ),
        ],
    )
    def test_what_cannot_be_is_refused(self, settings, message):
        with pytest.raises(ValueError, match=message):
            ContextBudget(**settings)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"fraction": -0.1}, "fraction must be in"),
            ({"fraction": 0.1, "min_tokens": -1}, "min_tokens must be"),
            ({"fraction": 0.1, "min_tokens": 9, "max_tokens": 8}, "max_tokens must be at least"),
        ],
    )
    def test_a_share_that_cannot_be_is_refused(self, settings, message):
        with pytest.raises(ValueError, match=message):
            Share(**settings)

    def test_follows_the_models_window(self):
        budget = ContextBudget.for_model("gpt-4", history_share=0.5)
        assert (budget.max_input_tokens, budget.reserve_tokens) == (8_192, 1_024)
        assert budget.prompt_tokens == 7_168
        assert budget.history_share == 0.5

    def test_allocates_the_window_without_the_reserve(self):
        assert BUDGET.allocate().max_tokens == 128_000 - 1_024

    def test_a_long_history_is_given_no_more_than_a_question_needs_unless_told(self):
        share = ContextBudget(max_input_tokens=128_000).allocate(fixed_tokens=5_000)
        assert (share.room, share.max_tokens) == (FOCUS_TOKENS, FOCUS_TOKENS + 5_000)
        assert BUDGET.allocate(fixed_tokens=5_000).room == 128_000 - 1_024 - 5_000


class TestAllocate:
    def test_a_tiny_room_has_no_summary(self):
        share = BUDGET.allocate(1_000)
        assert (share.history, share.summary, share.recalled) == (100, 0, 900)

    def test_a_small_room_is_last_turns_and_what_is_recalled(self):
        share = BUDGET.allocate(4_000, fixed_tokens=1_000)
        assert (share.history, share.summary, share.recalled) == (300, 0, 2_700)

    def test_a_middle_room_adapts(self):
        share = BUDGET.allocate(20_000)
        assert (share.history, share.summary, share.recalled) == (7_000, 1_000, 12_000)

    def test_a_large_room_is_mostly_history(self):
        share = BUDGET.allocate(40_000)
        assert (share.history, share.summary, share.recalled) == (24_000, 2_000, 8_000)
        assert share.room - share.history - share.summary - share.recalled == 6_000

    def test_a_live_conversation_keeps_more_of_its_last_turns(self):
        share = BUDGET.allocate(4_000, is_live=True)
        assert (share.history, share.summary, share.recalled) == (1_600, 0, 2_400)
        assert BUDGET.allocate(40_000, is_live=True).history == BUDGET.allocate(40_000).history

    def test_what_is_drawn_from_all_of_it_leaves_few_last_turns(self):
        share = BUDGET.allocate(12_000, is_drawn=True)
        assert share.history == 600 < BUDGET.allocate(12_000).history
        live = BUDGET.allocate(12_000, is_live=True)
        assert BUDGET.allocate(12_000, is_live=True, is_drawn=True) == live
        assert BUDGET.allocate(40_000, is_drawn=True) == BUDGET.allocate(40_000)
        own = ContextBudget(max_input_tokens=128_000, history_share=0.3)
        assert own.allocate(12_000, is_drawn=True).history == 3_600

    @pytest.mark.parametrize(
        ("limit", "recalled"), [(1_000, 600), (4_000, 256), (20_000, 1_000), (90_000, 2_048)]
    )
    def test_a_prompt_that_goes_on_leaves_room_for_the_ones_after_it(self, limit, recalled):
        assert BUDGET.allocate(limit, is_live=True, goes_on=True).recalled == recalled

    def test_a_share_of_one_s_own_holds_in_a_live_conversation_too(self):
        own = ContextBudget(max_input_tokens=200_000, recalled_share=0.5)
        assert own.allocate(4_000, is_live=True, goes_on=True).recalled == 2_000

    @pytest.mark.parametrize("is_live", [False, True])
    def test_history_never_shrinks_as_the_window_grows(self, is_live):
        rooms = range(0, 60_000, 250)
        found = [BUDGET.allocate(tokens, is_live=is_live).history for tokens in rooms]
        assert found == sorted(found)

    def test_what_the_user_sets_goes_first(self):
        budget = ContextBudget(
            max_input_tokens=8_000,
            history_share=Share(fraction=0.5, max_tokens=700),
            summary_share=0.0,
            recalled_share=0.25,
        )
        share = budget.allocate(4_000)
        assert (share.history, share.summary, share.recalled) == (700, 0, 1_000)

    def test_negative_numbers_are_refused(self):
        with pytest.raises(ValueError, match="max_tokens must be an int of at least 0, got -1"):
            BUDGET.allocate(-1)
        with pytest.raises(ValueError, match="fixed_tokens must be an int of at least 0, got -1"):
            BUDGET.allocate(10, -1)

    @given(
        TOKENS,
        TOKENS,
        st.tuples(SHARES, SHARES, SHARES),
        st.booleans(),
        st.none() | st.integers(1, 200_000),
    )
    def test_never_gives_out_more_than_the_room(self, limit, fixed, shares, is_live, focus):
        history, summary, recalled = shares
        budget = ContextBudget(
            max_input_tokens=200_000,
            history_share=history,
            summary_share=summary,
            recalled_share=recalled,
            focus_above_tokens=focus,
        )
        share = budget.allocate(limit, fixed, is_live=is_live)
        assert share.room == min(max(limit - fixed, 0), focus or limit)
        assert min(share.history, share.summary, share.recalled) >= 0
        assert share.history + share.summary + share.recalled <= share.room


class TestAnalyze:
    def test_says_how_full_the_window_is(self):
        messages = [HumanMessage("one two three four")] * 10
        used = COUNTER.messages(messages)
        found = analyze(messages, counter=COUNTER, limit_tokens=100)
        assert (found.current_tokens, found.limit_tokens, found.message_count) == (used, 100, 10)
        assert found.utilisation == used / 100
        assert found.available_tokens == max(100 - used, 0)
        assert found.risk is Thresholds().risk(used, 100)
        assert found.strategy is Strategy.for_risk(found.risk)
        assert found.elapsed > timedelta(0)

    def test_tools_count(self):
        tool = {"type": "web_search_preview"}
        bare = analyze([], counter=COUNTER, limit_tokens=10)
        assert analyze([], counter=COUNTER, limit_tokens=10, tools=[tool]).current_tokens > (
            bare.current_tokens
        )

    def test_changes_nothing(self):
        messages = [HumanMessage("as it was")]
        before = messages[0].model_copy(deep=True)
        analyze(messages, counter=COUNTER, limit_tokens=1)
        assert messages == [before]

    def test_a_limit_of_nothing_is_refused(self):
        with pytest.raises(ValueError, match="limit_tokens must be an int of at least 1, got 0"):
            analyze([], counter=COUNTER, limit_tokens=0)
