"""Filling a budget with recalled messages."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage

from langchain_ctxmgr.analysis import terms
from langchain_ctxmgr.budget.tokens import counter_for
from langchain_ctxmgr.memory.packing import (
    CUT_MARK,
    MAX_MISSES,
    MAX_REFUSED,
    Packing,
    excerpt,
)
from langchain_ctxmgr.records import LogRecord

COUNTER = counter_for("gpt-4o-mini")
AT = datetime(2025, 5, 1, 9, tzinfo=UTC)


def record(slot: int, text: str, *, at: datetime = AT) -> LogRecord:
    message = HumanMessage(text)
    return LogRecord(
        seq=slot + 1,
        tenant_id="a",
        thread_id="t",
        user_id=None,
        position=slot,
        slot=slot,
        branch=0,
        session=0,
        role="human",
        speaker=None,
        at=at,
        tokens=COUNTER.message(message),
        importance=0.5,
        cues=0,
        revision=0,
        parent=None,
        message_id=f"m{slot}",
        message=message,
        encoding=COUNTER.name,
        total_tokens=0,
        total_importance=0,
        digest=b"",
        chain=b"",
    )


def packing(max_tokens: int | None, k: int | None = None, question: str = "") -> Packing:
    return Packing(COUNTER, terms(question), max_tokens=max_tokens, k=k)


class TestPacking:
    @settings(max_examples=150)
    @given(st.lists(st.text(max_size=300), max_size=12), st.integers(0, 300))
    def test_the_block_is_never_over_its_budget(self, texts: list[str], max_tokens: int):
        pack = packing(max_tokens, question="harbour")
        for slot, text in enumerate(texts):
            pack.offer(record(slot, text), 1.0, {})
        assert pack.block.tokens <= max_tokens
        assert COUNTER.text(pack.block.render()) <= max_tokens

    def test_what_does_not_fit_is_passed_over(self):
        pack = packing(60)
        for slot, text in enumerate(["short one", "long " * 50, "short two"]):
            pack.offer(record(slot, text), -slot, {})
        assert [memory.id for memory in pack.memories] == ["m0", "m2"]
        assert [item.included for item in pack.considered] == [True, False, True]
        assert "does not fit" in pack.considered[1].reason

    def test_a_run_of_misses_ends_it_and_only_the_best_are_accounted_for(self):
        pack = packing(60)
        long = [f"{i} " + "long " * 44 for i in range(MAX_MISSES)]
        pack.offer(record(0, "short one, said first of all"), 1.0, {})
        for slot, text in enumerate(long[1:], 1):
            pack.offer(record(slot, text), -slot, {})
        assert not pack.is_full
        pack.offer(record(90, "short"), -90, {})
        for slot, text in enumerate(long, 100):
            assert not pack.is_full
            pack.offer(record(slot, text), -slot, {})
        assert pack.is_full
        refused = [item.id for item in pack.considered if not item.included]
        assert refused == [f"m{slot}" for slot in range(1, MAX_REFUSED + 1)]
        assert [item.id for item in pack.considered if item.included] == ["m0", "m90"]

    def test_the_number_wanted_ends_it(self):
        pack = packing(None, k=1)
        pack.offer(record(0, "one"), 1.0, {})
        assert pack.is_full

    def test_a_message_longer_than_the_budget_is_quoted_around_the_match(self):
        filler = "Nothing of note was said here. " * 60
        text = f"{filler}The harbour opens at nine. {filler}"
        pack = packing(120, question="When does the harbour open?")
        pack.offer(record(0, text), 1.0, {})
        (memory,) = pack.memories
        assert memory.is_excerpt
        assert "The harbour opens at nine." in memory.text
        assert memory.text.startswith(CUT_MARK)
        assert memory.text.endswith(CUT_MARK)
        shown = len(memory.text) / len(text)
        assert pack.carried == {"m0": pytest.approx(0.5 * shown)}

    def test_the_same_words_on_the_same_day_are_shown_once(self):
        pack = packing(200)
        pack.offer(record(0, "I ran five miles"), 1.0, {})
        pack.offer(record(1, "I ran five miles"), 1.0, {})
        pack.offer(record(2, "I ran five miles", at=AT.replace(day=2)), 1.0, {})
        assert [memory.id for memory in pack.memories] == ["m0", "m2"]
        assert pack.considered[1].reason == "says the same as m0 on that day"

    def test_a_message_without_words_is_not_recalled(self):
        pack = packing(200)
        pack.offer(record(0, " \n"), 1.0, {})
        assert pack.memories == []

    def test_a_hopeless_message_is_not_even_read(self):
        pack = packing(50)
        pack.offer(record(0, "harbour " * 400), 1.0, {})
        assert not pack.may_fit(record(1, "harbour " * 400).tokens)


class TestExcerpt:
    @given(st.text(max_size=2_000), st.integers(1, 80))
    def test_it_is_verbatim_and_within_bounds(self, text: str, max_tokens: int):
        cut = excerpt(text, frozenset(), COUNTER, max_tokens)
        assert cut.removeprefix(CUT_MARK).removesuffix(CUT_MARK).strip() in text

    @pytest.mark.parametrize("max_tokens", [0, 3])
    def test_nothing_is_better_than_half_a_sentence(self, max_tokens: int):
        assert excerpt("one two three four five six.", frozenset(), COUNTER, max_tokens) == ""
