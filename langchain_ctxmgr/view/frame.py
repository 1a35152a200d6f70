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
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from enum import Enum, auto
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from langchain_core.messages import BaseMessage

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.analysis import message_text
from langchain_ctxmgr.budget.allocation import CACHED_ROOM_TOKENS
from langchain_ctxmgr.errors import LogError, ReadOnlyLogError, StorageError
from langchain_ctxmgr.events import Degraded, emit
from langchain_ctxmgr.records import ReceiptItem, Scope
from langchain_ctxmgr.view.choosing import Chooser
from langchain_ctxmgr.view.current_turn import CurrentTurn, question_before
from langchain_ctxmgr.view.history import (
    Window,
    empty_window,
    full_history,
    recent_window,
    selected_history,
)
from langchain_ctxmgr.view.marked import marked
from langchain_ctxmgr.view.quotes import Quotes
from langchain_ctxmgr.view.request import ViewParts, ViewRequest
from langchain_ctxmgr.view.settled import (
    GAVE_WAY,
    KIND,
    NO_QUOTE,
    Chosen,
    Quote,
    Settled,
    Stretch,
)
from langchain_ctxmgr.view.stretch import stretch_of, stretch_window, traffic_tokens

TOOL_TRAFFIC_SHARE = 0.25
"""Of the budget, left free when tools are given: their results come next."""
_KEPT_APART = 2_048
"""Turns whose view shows what other threads say, kept at hand in this process."""
LEAST_TRAFFIC_SHARE = 0.1
"""The same where earlier turns tell how much it comes to: they never took less."""


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
        return self.room_beside(0)

    def room_beside(self, traffic: int) -> int:
        """The same, with so much left free for tool traffic."""
        return min(self.max_tokens - self.asked - traffic, self.focused)

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
        self._chooser = Chooser(
            parts.recall, parts.beside, parts.counter, score_threshold=parts.score_threshold
        )
        self._apart: OrderedDict[tuple[Scope, str], Settled] = OrderedDict()
        """Those that show what other threads say: not to be kept with a thread's own, which
        would outlive what they show."""

    def known(self, request: ViewRequest, turn: CurrentTurn) -> Plan[Settled | None]:
        """What an earlier step of the turn settled; None at its first.

        A turn whose history was revised since, or whose question was answered, is another.
        """
        key = _key(request, turn)
        if key is None:
            return None
        settled = yield from self._stored(request, key)
        if settled is None or settled.is_stripped or settled.changed < turn.changed:
            return None
        return settled

    def _stored(self, request: ViewRequest, key: str) -> Plan[Settled | None]:
        """What was settled under `key`, unless another thread's message that it shows is gone."""
        apart = self._apart.get((request.scope, key))
        if apart is not None:
            tenant, shown = Scope(tenant_id=request.scope.tenant_id), {*apart.abroad}
            standing = yield from call(self._log.turns, tenant, sorted(shown))
            if len(standing) == len(shown):
                with suppress(KeyError):  # forgotten meanwhile, or the eldest
                    self._apart.move_to_end((request.scope, key))
                return apart
        stored = yield from call(self._log.get_derived, request.scope, KIND, key)
        return None if stored is None else Settled.from_bytes(stored)

    def settle(self, request: ViewRequest, turn: CurrentTurn, space: Space) -> Plan[Frame]:
        """A frame as for the question alone, kept for the rest of the turn."""
        request = yield from self._marked(request)
        room = space.room_beside(_for_traffic(space) if request.tools else 0)
        if request.budget.keep_full_history and self._parts.selector is None:
            frame = yield from self._whole_again(request, turn, space)
            if frame is not None:
                return (yield from self._keep(frame, request, turn))
            window = yield from self._full(request, turn, room)
            if window is not None:
                frame = yield from self._whole(request, turn, space, window, room)
                # As `full_history` weighs it on the next step.
                if max(frame.tokens, turn.history_tokens + frame.chosen.tokens) > space.left:
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
            window = yield from self._full(request, turn, space.left - settled.chosen.tokens)
            if window is None:
                return (yield from self._give_way(request, turn, space))
        elif settled.is_extended and settled.stretch is not None:
            log, branch = self._log, request.branch
            window = yield from stretch_window(log, branch, turn, settled.stretch, self._counter)
            window = window or empty_window(turn)
            if _is_whole(settled.stretch) and window.tokens + settled.chosen.tokens > space.left:
                return (yield from self._give_way(request, turn, space))
        else:
            window = yield from self._window(settled, request, turn)
        return Frame(settled, window, settled.quote, settled.chosen)

    def forget(self, tenant_id: str) -> None:
        """Drop what is at hand for a tenant's views: what it was drawn from may be erased."""
        self._quotes.forget()
        for scope, key in [each for each in list(self._apart) if each[0].tenant_id == tenant_id]:
            self._apart.pop((scope, key), None)
        if self._parts.beside is not None:
            self._parts.beside.forget(tenant_id)

    def _marked(self, request: ViewRequest) -> Plan[ViewRequest]:
        """The request with what users marked, as the log has it now."""
        if self._parts.beside is None:
            return request
        return replace(request, marks=(yield from marked(self._log, request.scope)))

    def _whole_again(
        self, request: ViewRequest, turn: CurrentTurn, space: Space
    ) -> Plan[Frame | None]:
        """The full history with what stood beside its questions; None where nothing did."""
        if request.scope.user_id is None and not request.marks.pins:
            return None
        previous = yield from self._previous(request, turn)
        if previous is None or not _is_whole(previous[0].stretch):
            return None
        return (yield from self._extended(request, turn, space, previous))

    def _whole(
        self, request: ViewRequest, turn: CurrentTurn, space: Space, window: Window, room: int
    ) -> Plan[Frame]:
        """The full history, with what is pinned elsewhere and known of the user beside it."""
        shares = request.budget.allocate(space.max_tokens, space.fixed)
        left = room - window.tokens
        chosen = yield from self._chooser.choose(
            request, turn, window, shares=shares, limit=min(shares.facts, left), room=left
        )
        stretch = Stretch(0) if chosen.block and not window.lead else None
        settled = Settled(
            turn.changed,
            space.max_tokens,
            is_full=True,
            turn_tokens=space.max_tokens - space.fixed - window.tokens - chosen.tokens,
            chosen=chosen,
            stretch=stretch,
            abroad=chosen.abroad,
        )
        return Frame(settled, window, NO_QUOTE, chosen)

    def _give_way(self, request: ViewRequest, turn: CurrentTurn, space: Space) -> Plan[Frame]:
        """What a full history gives way to, kept for the rest of the turn.

        As on a first step whose room is what the tool traffic leaves.
        """
        request = yield from self._marked(request)
        limit = space.max_tokens
        room = max(0, min(space.left, space.room_beside(_for_traffic(space))))
        goes_on = (yield from self._previous(request, turn)) is not None
        frame = yield from self._windowed(request, turn, limit, limit - room, room, goes_on=goes_on)
        return (yield from self._keep(frame, request, turn))

    def _keep(self, frame: Frame, request: ViewRequest, turn: CurrentTurn) -> Plan[Frame]:
        """`frame`, noted for the rest of the turn.

        The boundary for a log that cannot be written: the view is answered all the same.
        """
        key = _key(request, turn)
        if key is not None and frame.settled.abroad:
            self._apart[request.scope, key] = frame.settled
            while len(self._apart) > _KEPT_APART:
                self._apart.popitem(last=False)
        if key is not None and turn.follows is not None:
            stored, put = frame.settled.stripped().to_bytes(), self._log.put_derived
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
        elif request.marks.pins:
            spare = max(0, spare - shares.working)
        quote = yield from self._quotes.quote(
            request.branch,
            window,
            running,
            question=question,
            max_tokens=spare,
            marks=request.marks,
        )
        shown = window.tokens + quote.summary.tokens
        spared = shares.history + shares.summary - shown
        grows = goes_on and max_tokens >= CACHED_ROOM_TOKENS
        limit = shares.recalled if grows else shares.recalled + spared
        left = room - shown
        chosen = yield from self._chooser.choose(
            request,
            turn,
            window,
            shares=shares,
            limit=min(left, limit),
            room=left,
            has_notes=running is not None,
        )
        settled = settled._replace(
            quote=quote, chosen=chosen, stretch=stretch_of(window, turn), abroad=chosen.abroad
        )
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
        traffic = 0
        if request.tools:
            least = int(space.max_tokens * LEAST_TRAFFIC_SHARE)
            traffic = min(_for_traffic(space), max(least, traffic_tokens(window)))
        room = space.room_beside(traffic)
        shown = window.tokens + settled.quote.summary.tokens
        said = window.tokens - window.recalled_tokens
        limit, is_over = shares.recalled, False
        if _is_whole(stretch) and request.budget.keep_full_history:
            limit = min(shares.facts, max(0, room - shown))
        elif request.budget.history_share is not None:
            is_over = said > shares.history
        if is_over or shown + limit > room:
            return None
        chosen = yield from self._chooser.choose(
            request, turn, window, shares=shares, limit=limit, room=room - shown
        )
        settled = Settled(
            turn.changed,
            space.max_tokens,
            is_full=False,
            is_extended=True,
            quote=settled.quote,
            chosen=chosen,
            stretch=stretch,
            abroad=(*settled.abroad, *chosen.abroad),
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
        follows = ahead[0].message_id if ahead else None
        key = _digest(asked.message_id, follows, request.asked_tokens, asked.message)
        settled = yield from self._stored(request, key)
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


def _frame(settled: Settled, window: Window, beside_fixed: int) -> Frame:
    """The frame, which settles what is left for question and tool traffic."""
    frame = Frame(settled, window, settled.quote, settled.chosen)
    return frame._replace(settled=settled._replace(turn_tokens=beside_fixed - frame.tokens))


def _gone(item: ReceiptItem) -> ReceiptItem:
    return replace(item, included=False, reason=GAVE_WAY) if item.included else item


def _is_whole(stretch: Stretch | None) -> bool:
    """Whether it shows a full history, with what stood beside earlier questions of it."""
    return stretch is not None and stretch.start == 0


def _for_traffic(space: Space) -> int:
    return int(space.max_tokens * TOOL_TRAFFIC_SHARE)


def _key(request: ViewRequest, turn: CurrentTurn) -> str | None:
    """What tells this turn's frame from others, whether or not its question is recorded yet.

    None where the question cannot be known again.
    """
    if turn.question is None or turn.key is None:
        return None
    return _digest(turn.key, turn.follows, request.asked_tokens, turn.question)


def _digest(name: str, follows: str | None, asked_tokens: int, question: BaseMessage) -> str:
    asked = [name, follows, asked_tokens, message_text(question)]
    return sha256(json.dumps(asked).encode("ascii")).hexdigest()
