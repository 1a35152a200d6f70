"""Composing a view: the parts in the order in which they may not give way.

System text and tools, the current turn, the history window, the summary of what lies
before it, and what is recalled for the question. Everything but the recalled text is a
pure function of the log. What is recalled is chosen once a user turn and kept with the
log, so every step of a tool loop, in whatever process, sees the same bytes.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple, Protocol

from langchain_core.messages import BaseMessage

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.analysis import message_text
from langchain_ctxmgr.budget.allocation import ContextBudget
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.compression.extractive import EMPTY
from langchain_ctxmgr.errors import ContextOverflowError, StorageError
from langchain_ctxmgr.events import Degraded, Listener, emit
from langchain_ctxmgr.memory.packing import Considered
from langchain_ctxmgr.memory.recall import Recall
from langchain_ctxmgr.prompt.layout import assemble, prefix_digest
from langchain_ctxmgr.prompt.turn import FittedTurn, Trim, fit_turn
from langchain_ctxmgr.prompt.validity import Folded, fold
from langchain_ctxmgr.prompt.window import Selector
from langchain_ctxmgr.records import (
    Branch,
    ItemKind,
    LogRecord,
    Receipt,
    ReceiptItem,
    Scope,
    Summary,
)
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.view.current_turn import CurrentTurn, find_turn
from langchain_ctxmgr.view.history import Window, full_history, recent_window, selected_history

SUMMARY_SOURCES = 64
"""A summary is drawn from this many of the most important messages before the window."""
TOOL_TRAFFIC_SHARE = 0.25
"""Of the budget, left free of recalled text when tools are given: their results come next."""
_QUOTES_KEPT = 256
_CHOICE = "recalled-1"
"""Kind and version of what `_Chosen.to_bytes` writes."""


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


class View(NamedTuple):
    """A folded view and its account."""

    messages: list[BaseMessage]
    tokens: int
    full_tokens: int
    """What the whole conversation would have taken."""
    prefix_digest: str
    preservation: float
    sections: Mapping[ItemKind, int]
    receipt: Receipt
    trims: tuple[Trim, ...]


class _Quote(NamedTuple):
    """A summary and the importance it carries, by message id."""

    summary: Summary
    carried: Mapping[str, float]

    @classmethod
    def of(cls, summary: Summary, sources: Sequence[LogRecord]) -> _Quote:
        """Of each source that is quoted, the share of the tokens that the summary has room for."""
        quoted = set(summary.source_ids)
        used = [record for record in sources if record.message_id in quoted]
        whole = sum(record.tokens for record in used)
        share = min(1.0, summary.tokens / whole) if whole else 0.0
        return cls(summary, {record.message_id: share * record.importance for record in used})


_NO_QUOTE = _Quote(EMPTY, {})


class _Chosen(NamedTuple):
    """What was recalled for a question, as it stands in the prompt."""

    block: str
    tokens: int
    carried: Mapping[str, float]
    """Importance of what it shows, by message id."""
    items: tuple[ReceiptItem, ...]

    def to_bytes(self) -> bytes:
        """For keeping with the log."""
        rows = [
            (item.id, item.score, item.tokens, dict(item.arms), item.included, item.reason)
            for item in self.items
        ]
        return json.dumps([self.block, self.tokens, dict(self.carried), rows]).encode("ascii")

    @classmethod
    def from_bytes(cls, stored: bytes) -> _Chosen:
        """As `to_bytes` wrote it."""
        block, tokens, carried, rows = json.loads(stored)
        fields = ("id", "score", "tokens", "arms", "included", "reason")
        considered = (Considered(**dict(zip(fields, row, strict=True))) for row in rows)
        items = tuple(_recalled_item(item) for item in considered)
        return cls(block, tokens, carried, items)


_NOTHING = _Chosen("", 0, {}, ())


class ViewBuilder:
    """Builds views from a log; safe to share between threads and tasks."""

    def __init__(
        self,
        log: MessageLog,
        recall: Recall,
        summarizer: Summarizer,
        counter: TokenCounter,
        *,
        selector: Selector | None = None,
        listeners: tuple[Listener, ...] = (),
    ) -> None:
        self._selector = selector
        self._listeners = listeners
        self._log = log
        self._recall = recall
        self._summarizer = summarizer
        self._counter = counter
        self._quotes: OrderedDict[tuple[int, ...], _Quote] = OrderedDict()

    def build(self, request: ViewRequest) -> Plan[View]:
        """The view for `request`, never over its `max_tokens`.

        Raises:
            ContextOverflowError: If system text, tools and the question alone do not fit.
        """
        counter, branch = self._counter, request.branch
        system = request.system
        if system is None:
            system = yield from self._recorded_system(branch)
        turn = yield from find_turn(self._log, branch, request.query)
        tool_tokens = counter.tools(request.tools)
        fixed = counter.messages([] if system is None else [system]) + tool_tokens
        if not turn.messages and fixed > request.max_tokens:
            raise ContextOverflowError(
                needed_tokens=fixed,
                max_tokens=request.max_tokens,
                what="what must be sent (system text, tools)",
            )
        folded = fold(turn.messages, tokens=[counter.message(m) for m in turn.messages])
        fitted = fit_turn(
            folded.groups,
            limit_tokens=request.max_tokens - fixed,
            counter=counter,
            fixed_tokens=fixed,
        )
        room = request.max_tokens - fixed - fitted.tokens
        window: Window | None = None
        if request.budget.keep_full_history and self._selector is None:
            window = yield from full_history(self._log, branch, turn, room, counter)
        quote, limit = _NO_QUOTE, 0
        if window is None:
            shares = request.budget.allocate(
                request.max_tokens, fixed, is_live=turn.is_live(request.asked_at)
            )
            window = yield from self._window(branch, turn, shares.history, room)
            room -= window.tokens
            quote = yield from self._quote(branch, window, min(shares.summary, room))
            room -= quote.summary.tokens
            reserve = int(request.max_tokens * TOOL_TRAFFIC_SHARE) if request.tools else 0
            unused = shares.history - window.tokens + shares.summary - quote.summary.tokens
            limit = min(room - reserve, shares.recalled + unused)
        chosen = yield from self._choose(request, turn, window, room, limit)
        while True:
            messages = assemble(
                system=system,
                summary=window.lead or quote.summary.text,
                history=window.messages,
                turn=fitted.messages,
                recalled=chosen.block,
            )
            tokens = counter.messages(messages) + tool_tokens
            if tokens <= request.max_tokens or not chosen.block:
                break
            # A block that meets the question may join into other tokens than it was priced at.
            limit = min(limit, chosen.tokens) - (tokens - request.max_tokens)
            chosen = yield from self._recalled(request, turn, window, limit)
        yield from self._keep(request, turn, window, chosen)
        return View(
            messages=messages,
            tokens=tokens,
            full_tokens=fixed + turn.history_tokens + sum(g.tokens for g in folded.groups),
            prefix_digest=prefix_digest(messages[: len(messages) - len(fitted.messages)]),
            preservation=_preservation(turn, window, quote, chosen),
            sections={
                ItemKind.SYSTEM: 0 if system is None else counter.message(system),
                ItemKind.TOOLS: tool_tokens,
                ItemKind.SUMMARY: quote.summary.tokens,
                ItemKind.HISTORY: window.tokens,
                ItemKind.RECALLED: chosen.tokens,
                ItemKind.CURRENT: fitted.tokens,
            },
            receipt=_receipt(
                _system_item(system, counter),
                _summary_items(quote),
                window.items,
                chosen.items,
                _turn_items(turn, folded, fitted, counter),
            ),
            trims=fitted.trims,
        )

    def forget(self) -> None:
        """Drop the summaries made so far: what they were drawn from may be erased."""
        self._quotes.clear()

    def _recorded_system(self, branch: Branch) -> Plan[BaseMessage | None]:
        """The newest recorded system message: it stands where the host gives none."""
        newest = yield from call(
            self._log.read, branch, limit=1, newest_first=True, roles=("system",)
        )
        return newest[0].message if newest else None

    def _window(self, branch: Branch, turn: CurrentTurn, allowance: int, room: int) -> Plan[Window]:
        if self._selector is None:
            return (
                yield from recent_window(
                    self._log, branch, turn, allowance=allowance, room=room, counter=self._counter
                )
            )
        return (
            yield from selected_history(
                self._log,
                branch,
                turn,
                self._selector,
                allowance=min(allowance, room),
                counter=self._counter,
            )
        )

    def _quote(self, branch: Branch, window: Window, max_tokens: int) -> Plan[_Quote]:
        """What stands for the messages before the window."""
        if max_tokens <= 0 or window.start_slot == 0:
            return _NO_QUOTE
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
            quote = self._quotes[key] = _Quote.of(summary, sources)
            if len(self._quotes) > _QUOTES_KEPT:
                self._quotes.popitem(last=False)
        return quote

    def _choose(
        self, request: ViewRequest, turn: CurrentTurn, window: Window, room: int, limit: int
    ) -> Plan[_Chosen]:
        """What is recalled for the question: as already chosen in this turn, else anew."""
        key = _choice_key(request, turn, window)
        if key is not None:
            stored = yield from call(self._log.get_derived, request.scope, _CHOICE, key)
            if stored is not None:
                kept = _Chosen.from_bytes(stored)
                return kept if kept.tokens <= room else _NOTHING
        return (yield from self._recalled(request, turn, window, limit))

    def _recalled(
        self, request: ViewRequest, turn: CurrentTurn, window: Window, limit: int
    ) -> Plan[_Chosen]:
        """What answers the question, from before the window, in at most `limit` tokens."""
        text = "" if turn.question is None else message_text(turn.question)
        if not text.strip() or window.start_slot == 0 or limit <= 0:
            return _NOTHING
        found = yield from self._recall.find(
            request.scope,
            text,
            branch=request.branch,
            before_slot=window.start_slot,
            shown=window.seqs,
            max_tokens=limit,
            asked_at=request.asked_at,
        )
        return _Chosen(
            found.block,
            found.tokens,
            found.carried,
            tuple(_recalled_item(considered) for considered in found.considered),
        )

    def _keep(
        self, request: ViewRequest, turn: CurrentTurn, window: Window, chosen: _Chosen
    ) -> Plan[None]:
        """Keep the choice for the rest of the turn, where the question can be known again.

        The boundary for a log that cannot be written: the view is answered all the same.
        """
        key = _choice_key(request, turn, window)
        if key is None or not chosen.block:
            return
        log, scope = self._log, request.scope
        try:
            if (yield from call(log.get_derived, scope, _CHOICE, key)) is None:
                yield from call(log.put_derived, scope, _CHOICE, key, chosen.to_bytes())
        except StorageError as error:
            event = Degraded(part="log", reason=str(error), fallback="a choice made anew each step")
            emit(self._listeners, event)


def _recalled_item(considered: Considered) -> ReceiptItem:
    return ReceiptItem(
        id=considered.id,
        kind=ItemKind.RECALLED,
        included=considered.included,
        reason=considered.reason,
        score=considered.score,
        tokens=considered.tokens,
        arms=considered.arms,
    )


def _choice_key(request: ViewRequest, turn: CurrentTurn, window: Window) -> str | None:
    """What tells this turn's choice from others; None where the question has no id."""
    if turn.question is None or turn.key is None or window.start_slot == 0:
        return None
    text = message_text(turn.question)
    asked = f"{turn.key} {request.asked_tokens} {window.start_slot} {text}"
    return sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()


def _preservation(turn: CurrentTurn, window: Window, quote: _Quote, chosen: _Chosen) -> float:
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


def _system_item(system: BaseMessage | None, counter: TokenCounter) -> list[ReceiptItem]:
    if system is None:
        return []
    tokens = counter.message(system)
    return [
        ReceiptItem(
            id=system.id or "system",
            kind=ItemKind.SYSTEM,
            included=True,
            reason="system text leads",
            tokens=tokens,
        )
    ]


def _summary_items(quote: _Quote) -> list[ReceiptItem]:
    return [
        ReceiptItem(
            id=name,
            kind=ItemKind.SUMMARY,
            included=True,
            reason="a sentence of it stands in the summary",
        )
        for name in quote.summary.source_ids
    ]


def _turn_items(
    turn: CurrentTurn, folded: Folded, fitted: FittedTurn, counter: TokenCounter
) -> list[ReceiptItem]:
    dropped = dict(folded.dropped)
    trims = {trim.place: trim for trim in fitted.trims}
    items: list[ReceiptItem] = []
    for place, message in enumerate(turn.messages):
        trim = trims.get(place)
        reason, tokens = dropped.get(place, "the current turn"), counter.message(message)
        if trim is not None:
            reason = "cut in the middle to fit" if trim.to_tokens else "left out to fit"
            tokens = trim.to_tokens or trim.from_tokens
        items.append(
            ReceiptItem(
                id=message.id or ("question" if place == 0 else f"turn+{place}"),
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
