"""The frame of a turn: what stands ahead of its tool traffic, settled at its first step.

The history window, the summary of what lies before it, and what is recalled for the
question. A live conversation goes on from what the turn before it was shown (`view.stretch`)
until that is too much. All are worked out as for the question alone, so the frame is the same
on each step of a tool loop while the loop's own results give way. The numbers it follows from,
and the summary and the recalled text as sent, are kept with the log: a step in another
process, with other tools bound or with more learnt about the model's tokens, is given
the same bytes.

Where a round of tool calls has no place next to the frame however far its results are
cut, the frame gives way, and for the rest of the turn: a full history to the window, the
summary and what is recalled, as a first step would have them in what is left; then the
recalled text, then the summary, then the window.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from langchain_core.messages import BaseMessage

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.analysis import message_text
from langchain_ctxmgr.budget.allocation import CACHED_ROOM_TOKENS, ContextBudget
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.errors import LogError, ReadOnlyLogError, StorageError
from langchain_ctxmgr.events import Degraded, Listener, emit
from langchain_ctxmgr.memory.breaker import Breaker
from langchain_ctxmgr.memory.recall import Recall
from langchain_ctxmgr.memory.relevance import SCORE_THRESHOLD
from langchain_ctxmgr.prompt.layout import assemble
from langchain_ctxmgr.prompt.window import Selector
from langchain_ctxmgr.records import Branch, ReceiptItem, Scope
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.summaries.store import SummaryStore
from langchain_ctxmgr.view.current_turn import CurrentTurn, question_before
from langchain_ctxmgr.view.history import (
    Window,
    empty_window,
    full_history,
    recent_window,
    selected_history,
)
from langchain_ctxmgr.view.quotes import Quotes, Summarizer
from langchain_ctxmgr.view.settled import (
    GAVE_WAY,
    KIND,
    NO_QUOTE,
    NOTHING,
    Chosen,
    Quote,
    Settled,
)
from langchain_ctxmgr.view.stretch import stretch_of, stretch_window, traffic_tokens

TOOL_TRAFFIC_SHARE = 0.25
"""Of the budget, left free when tools are given: their results come next."""
LEAST_TRAFFIC_SHARE = 0.1
"""The same where earlier turns tell how much it comes to: they never took less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewParts:
    """What views are made from, and with."""

    log: MessageLog
    recall: Recall
    summarizer: Summarizer
    counter: TokenCounter
    summaries: SummaryStore | None = None
    """Summaries made beside the turns; None: the summarizer's alone."""
    selector: Selector | None = None
    """What is kept of a history that does not fit; None: the newest window."""
    score_threshold: float = SCORE_THRESHOLD
    """Nothing is recalled where the chance that it bears on the question is below."""
    log_breaker: Breaker
    """Told where a choice could not be written: what follows in the turn is spared the wait."""
    listeners: tuple[Listener, ...] = ()


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


class Part(Enum):
    """What of a frame gives way, in this order."""

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

    def without(self, part: Part, turn: CurrentTurn) -> Frame:
        """The frame once `part` gave way."""
        if part is Part.RECALLED:
            return self._replace(chosen=self.chosen.gone())
        if part is Part.SUMMARY:
            return self._replace(quote=NO_QUOTE)
        gone = tuple(_gone(item) for item in self.window.items)
        return self._replace(window=empty_window(turn)._replace(items=gone))


class Space(NamedTuple):
    """A view's tokens, and what a turn takes of them."""

    max_tokens: int
    """As counted."""
    fixed: int
    """For system text and tools."""
    asked: int
    """For these and the question."""
    least: int
    """For these and the tool traffic, at least."""
    focused: int
    """Of a frame, at most."""

    @property
    def room(self) -> int:
        """Of a frame, as far as the question goes."""
        return min(self.max_tokens - self.asked, self.focused)

    @property
    def left(self) -> int:
        """Of a frame, beside the least of the tool traffic."""
        return self.max_tokens - self.least


class Frames:
    """Settles frames, and finds them again; safe to share between threads and tasks."""

    def __init__(self, parts: ViewParts) -> None:
        self._parts = parts
        self._log = parts.log
        self._counter = parts.counter
        self._quotes = Quotes(parts.log, parts.summarizer, parts.summaries, parts.counter)

    def known(self, request: ViewRequest, turn: CurrentTurn) -> Plan[Settled | None]:
        """What an earlier step of the turn settled; None at its first.

        A turn whose history was revised since, or whose question was answered, is another.
        """
        key = _key(request, turn)
        if key is None:
            return None
        stored = yield from call(self._log.get_derived, request.scope, KIND, key)
        settled = None if stored is None else Settled.from_bytes(stored)
        return settled if settled is not None and settled.changed >= turn.changed else None

    def settle(self, request: ViewRequest, turn: CurrentTurn, space: Space) -> Plan[Frame]:
        """A frame as for the question alone, kept for the rest of the turn."""
        room = space.room - (_for_traffic(space) if request.tools else 0)
        if request.budget.keep_full_history and self._parts.selector is None:
            window = yield from self._full(request, turn, room)
            if window is not None:
                settled = Settled(turn.changed, space.max_tokens, is_full=True)
                frame = Frame(settled, window, NO_QUOTE, NOTHING)
                # As `full_history` weighs it on the next step.
                if max(frame.tokens, turn.history_tokens) > space.left:
                    return (yield from self._give_way(request, turn, space))
                return (yield from self._keep(frame, request, turn))
        previous = yield from self._previous(request, turn)
        frame = yield from self._extended(request, turn, space, previous)
        if frame is None:
            # Tool traffic that is there already takes its room first: what meets it would go whole.
            room = max(0, min(room, space.left))
            frame = yield from self._windowed(
                request, turn, space.max_tokens, space.fixed, room, goes_on=previous is not None
            )
        return (yield from self._keep(frame, request, turn))

    def again(
        self, settled: Settled, request: ViewRequest, turn: CurrentTurn, space: Space
    ) -> Plan[Frame]:
        """The frame that was settled, or what a full history that outgrew it gives way to."""
        if settled.is_full:
            window = yield from self._full(request, turn, space.left)
            if window is None:
                return (yield from self._give_way(request, turn, space))
        elif settled.is_extended and settled.stretch is not None:
            log, branch = self._log, request.branch
            window = yield from stretch_window(log, branch, turn, settled.stretch, self._counter)
            window = window or empty_window(turn)
        else:
            window = yield from self._window(settled, request, turn)
        return Frame(settled, window, settled.quote, settled.chosen)

    def forget(self) -> None:
        """Drop the summaries made so far: what they were drawn from may be erased."""
        self._quotes.forget()

    def _give_way(self, request: ViewRequest, turn: CurrentTurn, space: Space) -> Plan[Frame]:
        """What a full history gives way to, kept for the rest of the turn.

        As on a first step whose room is what the tool traffic leaves.
        """
        limit = space.max_tokens
        room = max(0, min(space.left, space.room - _for_traffic(space)))
        goes_on = (yield from self._previous(request, turn)) is not None
        frame = yield from self._windowed(request, turn, limit, limit - room, room, goes_on=goes_on)
        return (yield from self._keep(frame, request, turn))

    def _keep(self, frame: Frame, request: ViewRequest, turn: CurrentTurn) -> Plan[Frame]:
        """`frame`, noted for the rest of the turn.

        The boundary for a log that cannot be written: the view is answered all the same.
        """
        key = _key(request, turn)
        if key is not None:
            stored, put = frame.settled.to_bytes(), self._log.put_derived
            try:
                yield from call(put, request.branch, KIND, key, stored)
            except StorageError as error:
                if isinstance(error, LogError) and not isinstance(error, ReadOnlyLogError):
                    self._parts.log_breaker.failed(error)
                else:
                    event = Degraded(
                        part="log", reason=str(error), fallback="a choice made anew each step"
                    )
                    emit(self._parts.listeners, event)
        return frame

    def _windowed(
        self,
        request: ViewRequest,
        turn: CurrentTurn,
        max_tokens: int,
        fixed_tokens: int,
        room: int,
        *,
        goes_on: bool,
    ) -> Plan[Frame]:
        """The window, the summary of what lies before it, and what is recalled, in `room`."""
        is_live = turn.is_live(request.asked_at)
        question = "" if turn.question is None else message_text(turn.question)
        is_asked = bool(question.strip())
        share_out = partial(
            request.budget.allocate,
            max_tokens,
            fixed_tokens,
            is_live=is_live,
            is_drawn=not is_asked and self._parts.summaries is None,
            goes_on=goes_on,
        )
        shares = share_out()
        settled = Settled(turn.changed, max_tokens, False, room, shares.history)
        window = yield from self._window(settled, request, turn)
        running = yield from self._quotes.running(request.branch, window.start_slot)
        if running is not None:
            shares = share_out(is_summarized=True)
        spare = room - window.tokens
        if is_asked:
            spare = min(shares.summary, spare)
        quote = yield from self._quotes.quote(
            request.branch, window, running, question=question, max_tokens=spare
        )
        shown = window.tokens + quote.summary.tokens
        spared = shares.history + shares.summary - shown
        grows = goes_on and max_tokens >= CACHED_ROOM_TOKENS
        limit = shares.recalled if grows else shares.recalled + spared
        chosen = yield from self._choose(request, turn, window, min(room - shown, limit))
        settled = settled._replace(quote=quote, chosen=chosen, stretch=stretch_of(window, turn))
        return _frame(settled, window, max_tokens - fixed_tokens)

    def _extended(
        self,
        request: ViewRequest,
        turn: CurrentTurn,
        space: Space,
        previous: tuple[Settled, str] | None,
    ) -> Plan[Frame | None]:
        """What the turn before showed, with what is new behind it; None where that is too much."""
        if previous is None:
            return None
        settled, question_id = previous
        stretch = settled.extended(question_id)
        if stretch is None:
            return None
        window = yield from stretch_window(self._log, request.branch, turn, stretch, self._counter)
        if window is None:
            return None
        shares = request.budget.allocate(space.max_tokens, space.fixed, is_live=True, goes_on=True)
        room = space.room
        if request.tools:
            least = int(space.max_tokens * LEAST_TRAFFIC_SHARE)
            room -= min(_for_traffic(space), max(least, traffic_tokens(window)))
        shown = window.tokens + settled.quote.summary.tokens
        said = window.tokens - window.recalled_tokens
        if shown + shares.recalled > room or (
            request.budget.history_share is not None and said > shares.history
        ):
            return None
        chosen = yield from self._choose(request, turn, window, shares.recalled)
        settled = Settled(
            turn.changed,
            space.max_tokens,
            is_full=False,
            is_extended=True,
            quote=settled.quote,
            chosen=chosen,
            stretch=stretch,
        )
        return _frame(settled, window, space.max_tokens - space.fixed)

    def _previous(
        self, request: ViewRequest, turn: CurrentTurn
    ) -> Plan[tuple[Settled, str] | None]:
        """What the turn before settled, and its question's id; None where that may not stay.

        It may while the conversation is live, unless what is kept of it is selected anew.
        """
        if self._parts.selector is not None or not turn.is_live(request.asked_at):
            return None
        log, branch = self._log, request.branch
        asked = yield from question_before(log, branch, turn.before_slot)
        if asked is None:
            return None
        ahead = yield from call(
            log.read, branch, before_slot=asked.slot, limit=1, newest_first=True
        )
        if not ahead:
            return None
        key = _digest(asked.message_id, ahead[0].message_id, request.asked_tokens, asked.message)
        stored = yield from call(log.get_derived, request.scope, KIND, key)
        settled = None if stored is None else Settled.from_bytes(stored)
        if settled is None or settled.changed < turn.revised:
            return None
        return settled, asked.message_id

    def _full(self, request: ViewRequest, turn: CurrentTurn, room: int) -> Plan[Window | None]:
        return (yield from full_history(self._log, request.branch, turn, room, self._counter))

    def _window(self, settled: Settled, request: ViewRequest, turn: CurrentTurn) -> Plan[Window]:
        log, branch, counter = self._log, request.branch, self._counter
        allowance, room = settled.history, max(0, settled.room)
        selector = self._parts.selector
        if selector is None:
            return (
                yield from recent_window(
                    log, branch, turn, allowance=allowance, room=room, counter=counter
                )
            )
        return (
            yield from selected_history(
                log, branch, turn, selector, allowance=min(allowance, room), counter=counter
            )
        )

    def _choose(
        self, request: ViewRequest, turn: CurrentTurn, window: Window, limit: int
    ) -> Plan[Chosen]:
        """What is recalled for the question, from before the window, in at most `limit`."""
        question = turn.question
        text = "" if question is None else message_text(question)
        if question is None or not text.strip() or window.start_slot == 0:
            return NOTHING
        while limit > 0:
            found = yield from self._parts.recall.find(
                request.scope,
                text,
                branch=request.branch,
                before_slot=window.start_slot,
                shown=window.seqs,
                max_tokens=limit,
                asked_at=request.asked_at,
                score_threshold=self._parts.score_threshold,
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


def _frame(settled: Settled, window: Window, beside_fixed: int) -> Frame:
    """The frame, which settles what is left for question and tool traffic."""
    frame = Frame(settled, window, settled.quote, settled.chosen)
    return frame._replace(settled=settled._replace(turn_tokens=beside_fixed - frame.tokens))


def _gone(item: ReceiptItem) -> ReceiptItem:
    return replace(item, included=False, reason=GAVE_WAY) if item.included else item


def _for_traffic(space: Space) -> int:
    return int(space.max_tokens * TOOL_TRAFFIC_SHARE)


def _key(request: ViewRequest, turn: CurrentTurn) -> str | None:
    """What tells this turn's frame from others, whether or not its question is recorded yet.

    None where the question cannot be known again, or nothing stands before it.
    """
    if turn.question is None or turn.key is None or turn.follows is None:
        return None
    return _digest(turn.key, turn.follows, request.asked_tokens, turn.question)


def _digest(name: str, follows: str, asked_tokens: int, question: BaseMessage) -> str:
    asked = [name, follows, asked_tokens, message_text(question)]
    return sha256(json.dumps(asked).encode("ascii")).hexdigest()
