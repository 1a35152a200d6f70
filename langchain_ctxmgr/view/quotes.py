"""The summary that a view shows of what lies before its window.

What was summed up beside the turns, as far as it is made: its overview, and of the sections'
notes those that bear on the question (`compression.levels`). What came since, and all of it where
nothing is made, is told by a few sentences of its most important messages.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.compression.extractive import EMPTY
from langchain_ctxmgr.compression.levels import bearing_on
from langchain_ctxmgr.compression.statements import (
    RunningSummary,
    fitting,
    noted_tokens,
)
from langchain_ctxmgr.forking import ForkableLock
from langchain_ctxmgr.memory.importance import in_context
from langchain_ctxmgr.prompt.layout import summary_message
from langchain_ctxmgr.records import Branch, LogRecord, Scope, Summary
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.summaries.store import SummaryStore
from langchain_ctxmgr.view.history import Window
from langchain_ctxmgr.view.marked import UNMARKED, Marked
from langchain_ctxmgr.view.settled import NO_QUOTE, Quote

SUMMARY_SOURCES: Final = 64
"""A summary is drawn from this many of the most important messages before the window."""
ALL_SOURCES: Final = 1_024
"""The same where no question tells what to recall: the summary has the room, and all of a
thread of that length is weighed."""
RUNNING_SHARE: Final = 0.75
"""Of a summary, for what was summed up beside the turns; the rest tells what came since."""
NOTES_SHARE: Final = 1 / 3
"""Of that, for sections' notes that bear on the question, at most; the rest is the overview's."""
_LOOKED_BACK: Final = 4
"""Sections a view looks back for a summary while newer ones are being made."""
_KEPT: Final = 256


class Summarizer(Protocol):
    """Makes a summary of recorded messages without waiting for anything."""

    def summarize(
        self, records: Sequence[LogRecord], max_tokens: int, counter: TokenCounter
    ) -> Summary:
        """A summary of at most `max_tokens`, the cost of its message included."""
        ...


class Quotes:
    """Makes the summaries of views, and finds them again; safe to share.

    Args:
        log: What is summed up.
        summarizer: Makes what no chat model did.
        summaries: What chat models made beside the turns; None: nothing.
        counter: What sizes are counted with.
    """

    def __init__(
        self,
        log: MessageLog,
        summarizer: Summarizer,
        summaries: SummaryStore | None,
        counter: TokenCounter,
    ) -> None:
        self._log = log
        self._summarizer = summarizer
        self._summaries = summaries
        self._counter = counter
        self._kept: OrderedDict[tuple[object, ...], Quote] = OrderedDict()
        self._guard = ForkableLock()
        self._erasures = 0

    def running(self, branch: Branch, before_slot: int) -> Plan[RunningSummary | None]:
        """What was summed up beside the turns before `before_slot`, as far as it is made."""
        if self._summaries is None or before_slot == 0:
            return None
        made = yield from self._summaries.newest(
            branch, before_slot=before_slot, looked_back=_LOOKED_BACK
        )
        return made.summary

    def quote(
        self,
        branch: Branch,
        window: Window,
        running: RunningSummary | None,
        *,
        question: str,
        max_tokens: int,
        marks: Marked = UNMARKED,
    ) -> Plan[Quote]:
        """What stands for the messages before `window`, in at most `max_tokens`.

        Without words in `question` nothing else does. What is muted by `marks` is left out, and
        what is boosted counts as more important.
        """
        if max_tokens <= 0 or window.start_slot == 0:
            return NO_QUOTE
        erasures = self._erasures
        since = 0 if running is None else running.before_slot
        is_alone = not question.strip()
        limit = ALL_SOURCES if is_alone else SUMMARY_SOURCES
        left_out = marks.muted.union(window.seqs)
        best = yield from call(
            self._log.top, branch, before_slot=window.start_slot, limit=limit + len(marks.muted)
        )
        boosted = marks.boosted(branch, before_slot=window.start_slot)
        ahead = {mark.seq for mark in boosted if mark.slot >= since}
        found = {turn.seq for turn in best if turn.slot >= since}
        seqs = sorted((found | ahead) - left_out)
        weights = {seq: marks.weights[seq] for seq in seqs if seq in marks.weights}
        told = None
        if running is not None:
            room = int(max_tokens * RUNNING_SHARE) if seqs else max_tokens
            told = told_of(marks.heard(running), question, room, self._counter)
        key = (max_tokens, told and told.summary.text, is_alone, *weights.items(), *seqs)
        quote = self._kept.get(key)
        if quote is None:
            scope = Scope(tenant_id=branch.tenant_id, thread_id=branch.thread_id)
            records = yield from call(self._log.fetch, scope, seqs)
            sources = sorted(records, key=lambda record: record.slot)
            sources = marks.weigh(_in_context(sources) if is_alone else sources)
            quote = completed(
                told,
                sources,
                max_tokens,
                summarizer=self._summarizer,
                counter=self._counter,
            )
            with self._guard:
                # Not where something was erased meanwhile: it may be what this was drawn from.
                if self._erasures == erasures:
                    self._kept[key] = quote
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return quote

    def forget(self) -> None:
        """Drop what was made so far: what it was drawn from may be erased."""
        with self._guard:
            self._erasures += 1
            self._kept.clear()
        if self._summaries is not None:
            self._summaries.forget()


def _in_context(records: Sequence[LogRecord]) -> list[LogRecord]:
    """The records with the importance they have among each other."""
    weighed = in_context(
        [record.message for record in records], [record.session for record in records]
    )
    return [
        record._replace(importance=each.score)
        for record, each in zip(records, weighed, strict=True)
    ]


def told_of(
    running: RunningSummary,
    question: str,
    max_tokens: int,
    counter: TokenCounter,
    *,
    notes_share: float = NOTES_SHARE,
) -> Quote:
    """What of the sections' notes bears on `question`, and the overview in the room they leave."""
    noted = bearing_on(
        question,
        running.sections,
        beside=fitting(running.statements, int(max_tokens * (1 - notes_share)), counter),
        max_tokens=int(max_tokens * notes_share),
        counter=counter,
    )
    overview = [each for each in running.statements if each not in noted]
    room = max_tokens - noted_tokens(noted, counter)
    return Quote.of_statements(fitting(overview, room, counter), counter, noted=noted)


def completed(
    told: Quote | None,
    sources: Sequence[LogRecord],
    max_tokens: int,
    *,
    summarizer: Summarizer,
    counter: TokenCounter,
) -> Quote:
    """`told`, and what `summarizer` makes of `sources`, which it does not tell of."""
    summarize = summarizer.summarize
    if told is None:
        summary = summarize(sources, max_tokens, counter)
        return Quote.of(_priced(summary, max_tokens, counter), sources)
    since = Quote.of(summarize(sources, max_tokens - told.summary.tokens, counter), sources)
    both = Summary(
        text=told.summary.text + since.summary.text,
        tokens=0,
        source_ids=tuple(dict.fromkeys(told.summary.source_ids + since.summary.source_ids)),
    )
    priced = _priced(both, max_tokens, counter)
    return told if priced is EMPTY else Quote(priced, {**since.carried, **told.carried})


def _priced(summary: Summary, max_tokens: int, counter: TokenCounter) -> Summary:
    """The summary at what its message costs; none where it is over its bound."""
    cost = counter.message(summary_message(summary.text)) if summary.text else 0
    return replace(summary, tokens=cost) if 0 < cost <= max_tokens else EMPTY
