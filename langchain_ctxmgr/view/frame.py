"""The frame of a turn: what stands ahead of its tool traffic, settled at its first step.

The history window, the summary of what lies before it, and what is recalled for the
question. All are worked out as for the question alone, so the frame is the same on each
step of a tool loop while the loop's own results give way. The numbers it follows from,
and the summary and the recalled text as sent, are kept with the log: a step in another
process, with other tools bound or with more learnt about the model's tokens, is given
the same bytes.

Where a round of tool calls has no place next to the frame however far its results are
cut, the frame gives way, and for the rest of the turn: a full history to the window, then
the recalled text, then the summary, then the window.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from hashlib import sha256
from typing import NamedTuple, Protocol

from langchain_core.messages import BaseMessage

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.analysis import message_text
from langchain_ctxmgr.budget.allocation import ContextBudget
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.compression.extractive import EMPTY
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.events import Degraded, Listener, emit
from langchain_ctxmgr.memory.packing import Considered
from langchain_ctxmgr.memory.recall import Recall
from langchain_ctxmgr.prompt.layout import assemble, summary_message
from langchain_ctxmgr.prompt.window import Selector
from langchain_ctxmgr.records import Branch, ItemKind, LogRecord, ReceiptItem, Scope, Summary
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.view.current_turn import CurrentTurn
from langchain_ctxmgr.view.history import (
    Window,
    empty_window,
    full_history,
    recent_window,
    selected_history,
)

SUMMARY_SOURCES = 64
"""A summary is drawn from this many of the most important messages before the window."""
TOOL_TRAFFIC_SHARE = 0.25
"""Of the budget, left free when tools are given: their results come next."""
GAVE_WAY = "gave way to the tool calls of this turn"
_QUOTES_KEPT = 256
_FRAME = "frame-1"
"""Kind and version of what `Settled.to_bytes` writes."""


class Summarizer(Protocol):
    """Makes a summary of recorded messages without waiting for anything."""

    def summarize(
        self, records: Sequence[LogRecord], max_tokens: int, counter: TokenCounter
    ) -> Summary:
        """A summary of at most `max_tokens`, the cost of its message included."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewRequest:
    """What a view is asked for."""

    scope: Scope
    branch: Branch
    query: BaseMessage | None
    system: BaseMessage | None
    tools: Sequence[object]
    max_tokens: int
    """As counted here: less than was asked for where a model is known to count more."""
    asked_tokens: int
    budget: ContextBudget
    asked_at: datetime


class Quote(NamedTuple):
    """A summary and the importance it carries, by message id."""

    summary: Summary
    carried: Mapping[str, float]

    @classmethod
    def of(cls, summary: Summary, sources: Sequence[LogRecord]) -> Quote:
        """Of each source that is quoted, the share of the tokens that the summary has room for."""
        quoted = set(summary.source_ids)
        used = [record for record in sources if record.message_id in quoted]
        whole = sum(record.tokens for record in used)
        share = min(1.0, summary.tokens / whole) if whole else 0.0
        return cls(summary, {record.message_id: share * record.importance for record in used})


NO_QUOTE = Quote(EMPTY, {})


class Chosen(NamedTuple):
    """What was recalled for a question, as it stands in the prompt."""

    block: str
    tokens: int
    """What it adds to the question."""
    carried: Mapping[str, float]
    """Importance of what it shows, by message id."""
    considered: tuple[Considered, ...]

    @property
    def items(self) -> tuple[ReceiptItem, ...]:
        """What was weighed, for the receipt."""
        return tuple(
            ReceiptItem(
                id=item.id,
                kind=ItemKind.RECALLED,
                included=item.included,
                reason=item.reason,
                score=item.score,
                tokens=item.tokens,
                arms=item.arms,
            )
            for item in self.considered
        )

    def gone(self) -> Chosen:
        """The same, nothing of it shown."""
        return Chosen(
            "",
            0,
            {},
            tuple(
                replace(item, included=False, reason=GAVE_WAY) if item.included else item
                for item in self.considered
            ),
        )


NOTHING = Chosen("", 0, {}, ())


class Settled(NamedTuple):
    """What the first step of a turn settles for all its steps."""

    max_tokens: int
    """As counted."""
    room: int
    """For the frame: what system text, tools, question and the tools' results leave of it."""
    is_full: bool
    """Whether the whole history is shown."""
    history: int
    """The window's allowance."""
    summary: int
    """The summary's."""
    quote: Quote
    chosen: Chosen

    def to_bytes(self) -> bytes:
        """For keeping with the log."""
        numbers, quote, chosen = self[:5], self.quote, self.chosen
        summary = (quote.summary.text, quote.summary.tokens, quote.summary.source_ids)
        rows = [
            (item.id, item.score, item.tokens, dict(item.arms), item.included, item.reason)
            for item in chosen.considered
        ]
        recalled = (chosen.block, chosen.tokens, dict(chosen.carried), rows)
        return json.dumps([numbers, summary, dict(quote.carried), recalled]).encode("ascii")

    @classmethod
    def from_bytes(cls, stored: bytes) -> Settled:
        """As `to_bytes` wrote it."""
        numbers, (text, tokens, source_ids), quoted, recalled = json.loads(stored)
        summary = Summary(text=text, tokens=tokens, source_ids=tuple(source_ids))
        block, cost, carried, rows = recalled
        fields = ("id", "score", "tokens", "arms", "included", "reason")
        considered = tuple(Considered(**dict(zip(fields, row, strict=True))) for row in rows)
        chosen = Chosen(block, cost, carried, considered)
        limit, room, is_full, history, budgeted = numbers
        return cls(limit, room, is_full, history, budgeted, Quote(summary, quoted), chosen)


class Part(Enum):
    """What of a frame gives way, in this order."""

    FULL_HISTORY = auto()
    """To the window."""
    RECALLED = auto()
    SUMMARY = auto()
    WINDOW = auto()


class Frame(NamedTuple):
    """What stands ahead of a turn's tool traffic."""

    settled: Settled
    window: Window
    quote: Quote
    chosen: Chosen

    @property
    def tokens(self) -> int:
        """What it costs."""
        return self.window.tokens + self.quote.summary.tokens + self.chosen.tokens


class Frames:
    """Settles frames, and finds them again; safe to share between threads and tasks."""

    def __init__(
        self,
        log: MessageLog,
        recall: Recall,
        summarizer: Summarizer,
        counter: TokenCounter,
        *,
        selector: Selector | None,
        listeners: tuple[Listener, ...],
    ) -> None:
        self._log = log
        self._recall = recall
        self._summarizer = summarizer
        self._counter = counter
        self._selector = selector
        self._listeners = listeners
        self._quotes: OrderedDict[tuple[int, ...], Quote] = OrderedDict()

    def known(self, request: ViewRequest, turn: CurrentTurn) -> Plan[Settled | None]:
        """What an earlier step of the turn settled; None at its first."""
        key = _key(request, turn)
        if key is None:
            return None
        stored = yield from call(self._log.get_derived, request.scope, _FRAME, key)
        return None if stored is None else Settled.from_bytes(stored)

    def settle(
        self, request: ViewRequest, turn: CurrentTurn, *, fixed_tokens: int, room: int
    ) -> Plan[Frame]:
        """A frame in `room` tokens; what it follows from is kept for the rest of the turn.

        The boundary for a log that cannot be written: the view is answered all the same.
        """
        frame = yield from self._settle(request, turn, fixed_tokens, room)
        key = _key(request, turn)
        if key is not None:
            stored, put = frame.settled.to_bytes(), self._log.put_derived
            try:
                yield from call(put, request.scope, _FRAME, key, stored)
            except StorageError as error:
                event = Degraded(
                    part="log", reason=str(error), fallback="a choice made anew each step"
                )
                emit(self._listeners, event)
        return frame

    def again(
        self, settled: Settled, request: ViewRequest, turn: CurrentTurn, *, room: int
    ) -> Plan[Frame]:
        """The frame that was settled; with a window where the full history outgrew `room`."""
        if settled.is_full:
            window = yield from full_history(self._log, request.branch, turn, room, self._counter)
            if window is None:
                return (yield from self._windowed(settled, request, turn))
        else:
            window = yield from self._window(settled, request, turn)
        return Frame(settled, window, settled.quote, settled.chosen)

    def without(
        self, part: Part, frame: Frame, request: ViewRequest, turn: CurrentTurn
    ) -> Plan[Frame]:
        """The frame once `part` gave way."""
        if part is Part.FULL_HISTORY and frame.settled.is_full:
            return (yield from self._windowed(frame.settled, request, turn))
        if part is Part.RECALLED:
            return frame._replace(chosen=frame.chosen.gone())
        if part is Part.SUMMARY:
            return frame._replace(quote=NO_QUOTE)
        if part is Part.WINDOW:
            gone = [_gone(item) for item in frame.window.items]
            return frame._replace(window=empty_window(turn)._replace(items=tuple(gone)))
        return frame

    def forget(self) -> None:
        """Drop the summaries made so far: what they were drawn from may be erased."""
        self._quotes.clear()

    def _settle(
        self, request: ViewRequest, turn: CurrentTurn, fixed_tokens: int, room: int
    ) -> Plan[Frame]:
        limit, budget = request.max_tokens, request.budget
        if request.tools:
            room -= int(limit * TOOL_TRAFFIC_SHARE)
        shares = budget.allocate(limit, fixed_tokens, is_live=turn.is_live(request.asked_at))
        numbers = (limit, room, budget.keep_full_history and self._selector is None)
        settled = Settled(*numbers, shares.history, shares.summary, NO_QUOTE, NOTHING)
        if settled.is_full:
            window = yield from full_history(self._log, request.branch, turn, room, self._counter)
            if window is not None:
                return Frame(settled, window, NO_QUOTE, NOTHING)
        frame = yield from self._windowed(settled._replace(is_full=False), request, turn)
        shown = frame.tokens
        spared = shares.history + shares.summary - shown
        chosen = yield from self._choose(
            request, turn, frame.window, min(room - shown, shares.recalled + spared)
        )
        settled = frame.settled._replace(quote=frame.quote, chosen=chosen)
        return frame._replace(settled=settled, chosen=chosen)

    def _windowed(self, settled: Settled, request: ViewRequest, turn: CurrentTurn) -> Plan[Frame]:
        """The window and the summary of what lies before it, nothing recalled."""
        window = yield from self._window(settled, request, turn)
        room = min(settled.summary, settled.room - window.tokens)
        quote = yield from self._quote(request.branch, window, room)
        return Frame(settled, window, quote, NOTHING)

    def _window(self, settled: Settled, request: ViewRequest, turn: CurrentTurn) -> Plan[Window]:
        log, branch, counter = self._log, request.branch, self._counter
        allowance, room = settled.history, max(0, settled.room)
        if self._selector is None:
            return (
                yield from recent_window(
                    log, branch, turn, allowance=allowance, room=room, counter=counter
                )
            )
        return (
            yield from selected_history(
                log, branch, turn, self._selector, allowance=min(allowance, room), counter=counter
            )
        )

    def _quote(self, branch: Branch, window: Window, max_tokens: int) -> Plan[Quote]:
        """What stands for the messages before the window."""
        if max_tokens <= 0 or window.start_slot == 0:
            return NO_QUOTE
        best = yield from call(
            self._log.top, branch, before_slot=window.start_slot, limit=SUMMARY_SOURCES
        )
        shown = window.seqs
        seqs = sorted(turn.seq for turn in best if turn.seq not in shown)
        key = (max_tokens, *seqs)
        quote = self._quotes.get(key)
        if quote is None:
            scope = Scope(tenant_id=branch.tenant_id, thread_id=branch.thread_id)
            records = yield from call(self._log.fetch, scope, seqs)
            sources = sorted(records, key=lambda record: record.slot)
            summary = self._summarizer.summarize(sources, max_tokens, self._counter)
            quote = self._quotes[key] = Quote.of(self._priced(summary, max_tokens), sources)
            if len(self._quotes) > _QUOTES_KEPT:
                self._quotes.popitem(last=False)
        return quote

    def _priced(self, summary: Summary, max_tokens: int) -> Summary:
        """The summary at what its message costs; none where it is over its bound."""
        cost = self._counter.message(summary_message(summary.text)) if summary.text else 0
        return replace(summary, tokens=cost) if 0 < cost <= max_tokens else EMPTY

    def _choose(
        self, request: ViewRequest, turn: CurrentTurn, window: Window, limit: int
    ) -> Plan[Chosen]:
        """What is recalled for the question, from before the window, in at most `limit`."""
        question = turn.question
        text = "" if question is None else message_text(question)
        if question is None or not text.strip() or window.start_slot == 0:
            return NOTHING
        while limit > 0:
            found = yield from self._recall.find(
                request.scope,
                text,
                branch=request.branch,
                before_slot=window.start_slot,
                shown=window.seqs,
                max_tokens=limit,
                asked_at=request.asked_at,
            )
            cost = self._added(question, found.block)
            if cost <= limit:
                return Chosen(found.block, cost, found.carried, found.considered)
            # A block that meets the question may join into other tokens than it was priced at.
            limit = min(limit, found.tokens) - (cost - limit)
        return NOTHING

    def _added(self, question: BaseMessage, block: str) -> int:
        """What `block` adds to the question it stands ahead of."""
        count = self._counter.messages
        return count(assemble(turn=[question], recalled=block)) - count([question])


def _gone(item: ReceiptItem) -> ReceiptItem:
    return replace(item, included=False, reason=GAVE_WAY) if item.included else item


def _key(request: ViewRequest, turn: CurrentTurn) -> str | None:
    """What tells this turn's frame from others.

    None where the question cannot be known again, or nothing stands before it.
    """
    if turn.question is None or turn.key is None or turn.before_slot == 0:
        return None
    asked = f"{turn.key} {request.asked_tokens} {turn.before_slot} {message_text(turn.question)}"
    return sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()
