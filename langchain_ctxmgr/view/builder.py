"""Composing a view: the parts in the order in which they may not give way.

System text, tools and the question always stand. The frame of the turn (`view.frame`) is
settled for these alone; its tool traffic is fitted into what they leave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from langchain_core.messages import BaseMessage

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.errors import ContextOverflowError
from langchain_ctxmgr.prompt.layout import assemble, prefix_digest
from langchain_ctxmgr.prompt.turn import FittedTurn, Trim, fit_turn, least_tokens
from langchain_ctxmgr.prompt.validity import Folded, fold
from langchain_ctxmgr.records import ItemKind, Receipt, ReceiptItem
from langchain_ctxmgr.view.current_turn import CurrentTurn, find_turn
from langchain_ctxmgr.view.frame import (
    Frame,
    Frames,
    Part,
    Space,
)
from langchain_ctxmgr.view.history import SYSTEM_LEADS, Window
from langchain_ctxmgr.view.request import ViewParts, ViewRequest
from langchain_ctxmgr.view.settled import BESIDE, Chosen, Quote
from langchain_ctxmgr.view.unrecorded import NOTHING_RECALLED, held

_EARLIER = {
    ItemKind.RECALLED: "recalled for an earlier question",
    ItemKind.FACTS: "known of the user, shown with an earlier question",
    ItemKind.STANDING: "asked for from then on, shown with an earlier question",
    ItemKind.PINNED: "pinned, shown with an earlier question",
}


class View(NamedTuple):
    """A folded view and its account."""

    messages: list[BaseMessage]
    tokens: int
    full_tokens: int
    """What the whole conversation would have taken."""
    prefix_digest: str
    preservation: float
    sections: Mapping[ItemKind, int]
    """Adds up to `tokens`; what opens the reply counts with the current turn."""
    receipt: Receipt
    trims: tuple[Trim, ...]


class ViewBuilder:
    """Builds views from a log; safe to share between threads and tasks."""

    def __init__(self, parts: ViewParts) -> None:
        self._parts = parts
        self._log = parts.log
        self._counter = parts.counter
        self._frames = Frames(parts)

    def build(self, request: ViewRequest) -> Plan[View]:
        """The view for `request`, never over its `max_tokens`.

        Raises:
            ContextOverflowError: If system text, tools and the question alone do not fit.
            ValueError: If the question has the id of a recorded message that is no user's.
        """
        counter = self._counter
        lead = yield from self._lead(request)
        turn = yield from find_turn(self._log, request.branch, request.query)
        tool_tokens = counter.tools(request.tools)
        fixed = counter.messages(lead.messages) + tool_tokens
        folded = fold(turn.messages, tokens=[counter.message(m) for m in turn.messages])
        frame, max_tokens = yield from self._frame(request, turn, folded, fixed)
        fitted = fit_turn(
            folded.groups,
            limit_tokens=max_tokens - fixed - frame.tokens,
            counter=counter,
            fixed_tokens=fixed,
        )
        window, quote, chosen = frame.window, frame.quote, frame.chosen
        beside = {kind: chosen.tokens_of(kind) for kind in BESIDE}
        messages = assemble(
            system=lead.message,
            summary=window.lead or quote.summary.text,
            history=window.messages,
            turn=fitted.messages,
            recalled=chosen.block,
        )
        return View(
            messages=messages,
            tokens=counter.messages(messages) + tool_tokens,
            full_tokens=fixed + turn.history_tokens + sum(g.tokens for g in folded.groups),
            prefix_digest=prefix_digest(messages[: len(messages) - len(fitted.messages)]),
            preservation=_preservation(turn, window, quote, chosen),
            sections={
                ItemKind.SYSTEM: sum(map(counter.message, lead.messages)),
                ItemKind.TOOLS: tool_tokens,
                ItemKind.SUMMARY: quote.summary.tokens,
                ItemKind.HISTORY: window.tokens - window.recalled_tokens,
                ItemKind.RECALLED: window.recalled_tokens + chosen.tokens - sum(beside.values()),
                **beside,
                ItemKind.CURRENT: fitted.tokens + counter.messages([]),
            },
            receipt=_receipt(
                lead.items(counter),
                _summary_items(quote),
                [item for item in window.items if item.id != lead.id],
                [*_earlier_items(window), *chosen.items],
                _turn_items(turn, folded, fitted, lead, counter),
            ),
            trims=fitted.trims,
        )

    def unrecorded(self, request: ViewRequest, messages: Sequence[BaseMessage] = ()) -> Plan[View]:
        """The view of `messages` and what `request` holds, for while the log cannot be read."""
        log, asked = held(request, messages, self._counter)
        parts = replace(self._parts, log=log, recall=NOTHING_RECALLED, summaries=None, beside=None)
        return (yield from ViewBuilder(parts).build(asked))

    def forget(self, tenant_id: str) -> None:
        """Drop what is at hand for a tenant's views: what it was drawn from may be erased."""
        self._frames.forget(tenant_id)

    def _lead(self, request: ViewRequest) -> Plan[_Lead]:
        """The system text: the host's, or where it gives none the newest recorded one."""
        if request.system is not None:
            return _Lead(request.system, request.system.id)
        newest = yield from call(
            self._log.read, request.branch, limit=1, newest_first=True, roles=("system",)
        )
        return _Lead(newest[0].message, newest[0].message_id) if newest else _Lead(None, None)

    def _frame(
        self, request: ViewRequest, turn: CurrentTurn, folded: Folded, fixed: int
    ) -> Plan[tuple[Frame, int]]:
        """The turn's frame, as far as its tool calls leave it a place, and the limit for all."""
        groups, frames = folded.groups, self._frames
        asked = fixed + (groups[0].tokens if groups else 0)
        known = yield from frames.known(request, turn)
        if known is not None and known.max_tokens < asked:
            known = None
        max_tokens = request.max_tokens if known is None else known.max_tokens
        if asked > max_tokens:
            what = "the current message with system text and tools"
            raise ContextOverflowError(
                needed_tokens=asked,
                max_tokens=max_tokens,
                what=what if groups else "what must be sent (system text, tools)",
            )
        least = least_tokens(groups, most_tokens=max_tokens - fixed, counter=self._counter)
        focused = request.budget.focused(max_tokens)
        space = Space(max_tokens, fixed, asked, fixed + least, focused)
        if known is None:
            frame = yield from frames.settle(request, turn, space)
        else:
            frame = yield from frames.again(known, request, turn, space)
        for part in Part:
            if frame.tokens <= space.left:
                break
            frame = frame.without(part, turn)
        return frame, max_tokens


class _Lead(NamedTuple):
    """The system text that leads the view."""

    message: BaseMessage | None
    id: str | None
    """As recorded, where it is."""

    @property
    def messages(self) -> list[BaseMessage]:
        return [] if self.message is None else [self.message]

    def items(self, counter: TokenCounter) -> list[ReceiptItem]:
        return [
            ReceiptItem(
                id=self.id or "system",
                kind=ItemKind.SYSTEM,
                included=True,
                reason="system text leads",
                tokens=counter.message(message),
            )
            for message in self.messages
        ]


def _preservation(turn: CurrentTurn, window: Window, quote: Quote, chosen: Chosen) -> float:
    """Importance the view carries, of all that was recorded before the current turn.

    A message that stands in several parts counts where most of it stands.
    """
    total = turn.history_importance
    if window.start_slot == 0 or total <= 0:
        return 1.0
    carried: dict[str, float] = {}
    for part in (window.carried, quote.carried, chosen.carried):
        for message_id, importance in part.items():
            carried[message_id] = max(importance, carried.get(message_id, 0.0))
    return min(1.0, sum(carried.values()) / total)


def _summary_items(quote: Quote) -> list[ReceiptItem]:
    return [
        ReceiptItem(
            id=name,
            kind=ItemKind.SUMMARY,
            included=True,
            reason="a sentence of it stands in the summary",
        )
        for name in quote.summary.source_ids
    ]


def _earlier_items(window: Window) -> list[ReceiptItem]:
    return [
        ReceiptItem(
            id=name,
            kind=ItemKind(kind),
            included=True,
            reason=_EARLIER[ItemKind(kind)],
            tokens=tokens,
        )
        for each in window.earlier
        for name, _, tokens, _, kind in each.rows
    ]


def _turn_items(
    turn: CurrentTurn, folded: Folded, fitted: FittedTurn, lead: _Lead, counter: TokenCounter
) -> list[ReceiptItem]:
    dropped = {**dict(folded.dropped), **dict.fromkeys(folded.system, SYSTEM_LEADS)}
    trims = {trim.place: trim for trim in fitted.trims}
    items: list[ReceiptItem] = []
    recorded = [record.message_id for record in turn.records]
    for place, message in enumerate(turn.messages):
        name = recorded[place] if recorded else message.id or "question"
        if place in folded.system and name == lead.id:
            continue
        trim = trims.get(place)
        reason, tokens = dropped.get(place, "the current turn"), counter.message(message)
        if trim is not None:
            reason = "cut in the middle to fit" if trim.to_tokens else "left out to fit"
            tokens = trim.to_tokens or trim.from_tokens
        items.append(
            ReceiptItem(
                id=name,
                kind=ItemKind.CURRENT,
                included=place not in dropped and (trim is None or trim.to_tokens > 0),
                reason=reason,
                tokens=tokens,
            )
        )
    return items


def _receipt(*sections: Sequence[ReceiptItem]) -> Receipt:
    """Everything considered: what is in, in the order of the view, then what is out."""
    items = [item for section in sections for item in section]
    return Receipt(sorted(items, key=lambda item: not item.included))
