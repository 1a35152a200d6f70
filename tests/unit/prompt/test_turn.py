from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_ctxmgr.budget.tokens import EstimateCounter, TokenCounter, counter_for
from langchain_ctxmgr.errors import ContextOverflowError
from langchain_ctxmgr.prompt.turn import cut_message, fit_turn
from langchain_ctxmgr.prompt.validity import fold
from tests.histories import assert_valid, histories, humans


@pytest.fixture(scope="module")
def counter() -> TokenCounter:
    return counter_for("gpt-4o-mini")


def rounds(*sizes: int) -> list[BaseMessage]:
    """A question and one call a size, with a result of about so many tokens."""
    messages: list[BaseMessage] = [HumanMessage("Why is the build red?", id="q")]
    for index, size in enumerate(sizes):
        messages += one_round(index, size)
    return messages


def one_round(index: int, *sizes: int) -> list[BaseMessage]:
    ids = [f"c{index}-{place}" for place in range(len(sizes))]
    call = AIMessage(
        content=[{"type": "thinking", "thinking": "hm", "signature": "c2ln"}],
        tool_calls=[{"name": "read", "args": {"path": f"log{one}"}, "id": one} for one in ids],
    )
    results = [
        ToolMessage(" ".join(f"line{n}" for n in range(size // 2)), tool_call_id=one, id=f"r{one}")
        for one, size in zip(ids, sizes, strict=True)
    ]
    return [call, *results]


def fit(messages, limit, counter):
    return fit_turn(fold(messages).groups, limit_tokens=limit, counter=counter)


class TestFitTurn:
    def test_a_turn_that_fits_is_sent_as_it_is(self, counter):
        messages = rounds(50, 80)
        fitted = fit(messages, 10_000, counter)
        assert list(fitted.messages) == messages
        assert fitted.tokens == sum(map(counter.message, messages))
        assert not fitted.trims

    def test_one_huge_result_is_cut_in_its_middle_with_a_marker(self, counter):
        fitted = fit(rounds(20_000), 1_000, counter)
        text = str(fitted.messages[-1].content)
        assert "tokens cut" in text
        assert text.startswith("line0 ")
        assert text.endswith("line9999")
        assert fitted.tokens <= 1_000
        assert fitted.messages[-1].id == "rc0-0"

    def test_a_turn_whose_last_round_is_gone_does_not_end_with_what_the_model_said(self, counter):
        question, *one = rounds(900)
        spoken = AIMessage([{"type": "thinking", "thinking": "hm", "signature": "c2ln"}], id="s")
        fitted = fit([question, spoken, *one], counter.message(question) + 20, counter)
        assert list(fitted.messages) == [question]
        assert [trim.message for trim in fitted.trims] == [spoken, *one]

    def test_question_and_reasoning_are_never_touched(self, counter):
        messages = rounds(900, 900, 900)
        fitted = fit(messages, 1_200, counter)
        originals = [m for m in messages if not isinstance(m, ToolMessage)]
        assert all(
            any(m is o for o in originals)
            for m in fitted.messages
            if not isinstance(m, ToolMessage)
        )
        assert fitted.messages[0] is messages[0]

    def test_older_results_give_way_before_the_newest(self, counter):
        fitted = fit(rounds(900, 900, 300), 1_200, counter)
        sizes = [counter.message(m) for m in fitted.messages if isinstance(m, ToolMessage)]
        assert sizes[0] < 200
        assert sizes[-1] > 290

    def test_the_largest_of_parallel_results_is_cut_first(self, counter):
        messages = [HumanMessage("q"), *one_round(0, 100, 3_000, 120)]
        fitted = fit(messages, 1_500, counter)
        assert fitted.messages[2] is messages[2]
        assert fitted.messages[4] is messages[4]
        assert [trim.place for trim in fitted.trims] == [3]

    def test_the_oldest_rounds_go_when_cutting_is_not_enough(self, counter):
        fitted = fit(rounds(*[200] * 40), 600, counter)
        assert fitted.tokens <= 600
        assert any(trim.to_tokens == 0 for trim in fitted.trims)
        assert fitted.messages[-1].content == rounds(*[200] * 40)[-1].content
        assert_valid(fitted.messages, question=fitted.messages[0])

    def test_a_round_whose_calls_alone_do_not_fit_is_left_out(self, counter):
        huge = AIMessage("", tool_calls=[{"name": "w", "args": {"t": "x " * 5_000}, "id": "c"}])
        fitted = fit([HumanMessage("q"), huge, ToolMessage("ok", tool_call_id="c")], 500, counter)
        assert [m.type for m in fitted.messages] == ["human"]

    def test_a_long_tool_name_counts_too(self, counter):
        call = AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "c"}])
        result = ToolMessage("word " * 900, tool_call_id="c", name="very_long_name_" * 30)
        fitted = fit([HumanMessage("q"), call, result], 200, counter)
        assert fitted.tokens == sum(map(counter.message, fitted.messages)) <= 200

    def test_a_question_that_does_not_fit_raises_with_the_number_needed(self, counter):
        question = HumanMessage("word " * 500)
        groups = fold([question]).groups
        with pytest.raises(ContextOverflowError) as caught:
            fit_turn(groups, limit_tokens=100, counter=counter, fixed_tokens=40)
        assert caught.value.needed_tokens == counter.message(question) + 40
        assert caught.value.max_tokens == 140

    def test_a_turn_of_nothing_is_nothing(self, counter):
        assert fit([], 10, counter).messages == ()

    def test_what_was_sent_keeps_its_bytes_while_the_loop_grows(self, counter):
        sizes = [120, 2_500, 60, 60, 300, 60, 900, 60, 60, 60, 200, 60, 60, 80, 60, 60]
        messages: list[BaseMessage] = [HumanMessage("q")]
        before: tuple[BaseMessage, ...] = ()
        changes = 0
        for index, size in enumerate(sizes * 3):
            messages += one_round(index, size)
            fitted = fit(messages, 3_000, counter)
            changes += list(fitted.messages[: len(before)]) != list(before)
            before = fitted.messages
        assert changes <= 9

    @settings(max_examples=150, deadline=None)
    @given(question=humans(), messages=histories(max_size=8), limit=st.integers(1, 3_000))
    def test_any_turn_fits_or_says_what_it_needs(self, counter, question, messages, limit):
        traffic = [m for m in messages if m.type not in {"human", "chat"}]
        groups = fold([question, *traffic]).groups
        if counter.message(question) > limit:
            with pytest.raises(ContextOverflowError):
                fit_turn(groups, limit_tokens=limit, counter=counter)
            return
        fitted = fit_turn(groups, limit_tokens=limit, counter=counter)
        assert fitted.tokens == sum(map(counter.message, fitted.messages)) <= limit
        assert_valid(fitted.messages, question=question)


class TestCutMessage:
    def test_an_estimate_is_kept_to_as_well(self):
        counter = EstimateCounter()
        fitted = fit(rounds(3_000, 500, 60), 900, counter)
        assert fitted.tokens == sum(map(counter.message, fitted.messages)) <= 900

    def test_media_give_way_to_a_note(self, counter):
        message = ToolMessage(
            [
                {"type": "text", "text": "word " * 400},
                {"type": "image_url", "image_url": {"url": "u"}},
            ],
            tool_call_id="c",
            artifact={"kept": 1},
        )
        cut = cut_message(message, 60, counter)
        assert isinstance(cut, ToolMessage)
        assert "[image_url]" in str(cut.content)
        assert cut.artifact == {"kept": 1}
        assert counter.message(cut) <= 60
        assert isinstance(message.content, list)

    def test_without_room_the_text_is_empty(self, counter):
        assert cut_message(HumanMessage("word " * 50), 1, counter).content == ""
