"""The part of the history that a view shows word for word.

The whole history while it fits. Otherwise a window over its newest part whose start is a
pure function of the log (`prompt.window.window_start`), so that it stands still while the
history grows by half of it. `view.stretch` shows it as it was sent, for longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

from langchain_core.messages import BaseMessage

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.analysis import message_text
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.prompt.layout import row, summary_message
from langchain_ctxmgr.prompt.turn import cut_message
from langchain_ctxmgr.prompt.validity import Folded, Group, fold
from langchain_ctxmgr.prompt.window import Selector, opening, window_start
from langchain_ctxmgr.records import Branch, ItemKind, LogRecord, ReceiptItem
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.view.current_turn import CurrentTurn, question_before
from langchain_ctxmgr.view.settled import Earlier

MIN_EXCERPT_TOKENS = 128
"""A last exchange longer than the window is shown cut, where this much is left for it."""
SYSTEM_LEADS = "a system message leads the view or none"
"""Why a recorded one is not sent."""
_EXCHANGE = 8
"""Messages read to find the last exchange."""


class Window(NamedTuple):
    """Groups of the history, oldest first, and what they were read from."""

    groups: Sequence[Group]
    records: Sequence[LogRecord]
    """Group indexes point into it."""
    start_slot: int
    """Everything before it is left to the summary and to recall; 0: nothing is."""
    items: tuple[ReceiptItem, ...]
    lead: str = ""
    """What was said before the first user message, shown as a quote; only in a full history."""
    lead_tokens: int = 0
    """What the message that quotes `lead` costs."""
    earlier: Sequence[Earlier] = ()
    """The questions of it that stand with what was recalled for them."""

    @property
    def messages(self) -> list[BaseMessage]:
        """What is sent."""
        return list(chain.from_iterable(group.messages for group in self.groups))

    @property
    def tokens(self) -> int:
        """What `messages` and the quote cost."""
        return self.lead_tokens + sum(group.tokens for group in self.groups)

    @property
    def carried(self) -> dict[str, float]:
        """Importance of what is shown, by message id; of a message that was cut, in proportion."""
        rows = chain.from_iterable(each.rows for each in self.earlier)
        carried = {name: importance for name, _, _, importance, _ in rows}
        for group in self.groups:
            whole = sum(self.records[i].tokens for i in group.indexes)
            share = min(1.0, group.tokens / whole) if whole else 1.0
            for record in (self.records[i] for i in group.indexes):
                carried[record.message_id] = share * record.importance
        return carried

    @property
    def recalled_tokens(self) -> int:
        """What of `tokens` was recalled for earlier questions."""
        return sum(each.tokens for each in self.earlier)

    @property
    def seqs(self) -> frozenset[int]:
        """The records shown whole."""
        whole = frozenset(
            self.records[i].seq
            for group in self.groups
            for i, message in zip(group.indexes, group.messages, strict=True)
            if message is self.records[i].message
        )
        return whole.union(*(each.seqs for each in self.earlier))


def full_history(
    log: MessageLog, branch: Branch, turn: CurrentTurn, room: int, counter: TokenCounter
) -> Plan[Window | None]:
    """The whole history before `turn`; None when it does not fit `room`."""
    if turn.history_tokens > room:
        return None
    records = yield from call(log.read, branch, before_slot=turn.before_slot)
    folded = folded_history(records, counter)
    first = next((i for i, group in enumerate(folded.groups) if group.opens), len(folded.groups))
    ahead, kept = folded.groups[:first], folded.groups[first:]
    lead = "".join(
        row(slot=records[i].slot, speaker=message.name, role=message.type, text=text)
        for group in ahead
        for i, message in zip(group.indexes, group.messages, strict=True)
        if (text := message_text(message)).strip()
    )
    lead_tokens = counter.message(summary_message(lead)) if lead else 0
    if lead_tokens + sum(group.tokens for group in kept) > room:
        return None
    items = (
        *_items(records, ahead, "said before the first question: shown as a quote"),
        *_items(records, kept, "the full history fits"),
        *_dropped(records, folded),
    )
    return Window(kept, records, 0, items, lead, lead_tokens)


def recent_window(
    log: MessageLog,
    branch: Branch,
    turn: CurrentTurn,
    *,
    allowance: int,
    room: int,
    counter: TokenCounter,
) -> Plan[Window]:
    """The newest part of the history in `allowance`; less where the turn needs the room."""
    for tokens in (allowance, allowance // 2):
        window = yield from _window_in(log, branch, turn, tokens, counter)
        if window.groups and window.tokens <= room:
            return window
    tokens = min(allowance, room)
    if tokens >= MIN_EXCERPT_TOKENS:
        return (yield from _last_exchange(log, branch, turn, tokens, counter))
    return empty_window(turn)


def selected_history(
    log: MessageLog,
    branch: Branch,
    turn: CurrentTurn,
    selector: Selector,
    *,
    allowance: int,
    counter: TokenCounter,
) -> Plan[Window]:
    """What `selector` takes of the history, in `allowance`; reads all of the history."""
    records = yield from call(log.read, branch, before_slot=turn.before_slot)
    folded = folded_history(records, counter)
    chosen = selector(folded.groups, allowance)
    newest = folded.groups[len(folded.groups) - len(chosen.groups) :]
    is_newest = bool(chosen.groups) and tuple(newest) == tuple(chosen.groups)
    inside = {group.indexes[0] for group in chosen.groups}
    items = [
        item
        for group, reason in zip(folded.groups, chosen.reasons, strict=True)
        for item in _items(records, [group], reason, included=group.indexes[0] in inside)
    ]
    start_slot = _slot(records, chosen.groups) if is_newest else turn.before_slot
    if len(chosen.groups) == len(folded.groups):
        start_slot = 0
    return Window(chosen.groups, records, start_slot, (*items, *_dropped(records, folded)))


def empty_window(turn: CurrentTurn) -> Window:
    """Nothing word for word: all is left to the summary and to recall."""
    return Window((), (), turn.before_slot, ())


def _window_in(
    log: MessageLog, branch: Branch, turn: CurrentTurn, allowance: int, counter: TokenCounter
) -> Plan[Window]:
    start = window_start(turn.history_tokens, allowance)
    slot = yield from call(log.locate, branch, start)
    if slot is None or slot >= turn.before_slot:
        return empty_window(turn)
    records = yield from call(log.read, branch, from_slot=slot, before_slot=turn.before_slot)
    folded = folded_history(records, counter)
    opens = opening(folded.groups, allowance // 2)
    if opens.needs_question:
        asked = yield from question_before(log, branch, slot)
        records = records if asked is None else [asked, *records]
        folded = folded_history(records, counter)
    groups = folded.groups[opens.first :]
    if not groups or not groups[0].opens:
        return empty_window(turn)
    start_slot = slot if opens.needs_question else _slot(records, groups)
    return window_of(records, folded, groups, start_slot, "recent")


def window_of(
    records: Sequence[LogRecord],
    folded: Folded,
    groups: Sequence[Group],
    start_slot: int,
    reason: str,
) -> Window:
    """The window that shows `groups`, and why it does."""
    items = (*_items(records, groups, reason), *_dropped(records, folded))
    return Window(groups, records, start_slot, items)


def _slot(records: Sequence[LogRecord], groups: Sequence[Group]) -> int:
    return records[groups[0].indexes[0]].slot


def _last_exchange(
    log: MessageLog, branch: Branch, turn: CurrentTurn, tokens: int, counter: TokenCounter
) -> Plan[Window]:
    """The last exchange cut to fit: its messages are longer than the whole window.

    Recall still covers it, so `start_slot` is the turn's.
    """
    newest = yield from call(
        log.read, branch, before_slot=turn.before_slot, limit=_EXCHANGE, newest_first=True
    )
    records = newest[::-1]
    folded = folded_history(records, counter)
    exchange = [group for group in folded.groups[folded.turn :] if len(group.messages) == 1]
    if not exchange:
        return empty_window(turn)
    each = tokens // len(exchange)
    cut = [group if group.tokens <= each else _cut(group, each, counter) for group in exchange]
    if sum(group.tokens for group in cut) > tokens:
        return empty_window(turn)
    items = tuple(_items(records, cut, "recent, cut in the middle to fit"))
    return Window(cut, records, turn.before_slot, items)


def _cut(group: Group, tokens: int, counter: TokenCounter) -> Group:
    message = cut_message(group.messages[0], tokens, counter)
    return replace(group, messages=(message,), tokens=counter.message(message))


def folded_history(records: Sequence[LogRecord], counter: TokenCounter) -> Folded:
    """The records as groups, each with what it costs and how much it matters."""
    messages = [record.message for record in records]
    return fold(
        messages,
        tokens=[counter.message(message) for message in messages],
        importance=[record.importance for record in records],
        has_turn=False,
    )


def _items(
    records: Sequence[LogRecord], groups: Iterable[Group], reason: str, *, included: bool = True
) -> list[ReceiptItem]:
    return [
        ReceiptItem(
            id=records[index].message_id,
            kind=ItemKind.HISTORY,
            included=included,
            reason=reason,
            tokens=records[index].tokens,
        )
        for group in groups
        for index in group.indexes
    ]


def _dropped(records: Sequence[LogRecord], folded: Folded) -> list[ReceiptItem]:
    elsewhere = ((place, SYSTEM_LEADS) for place in folded.system)
    return [
        ReceiptItem(
            id=records[place].message_id,
            kind=ItemKind.HISTORY,
            included=False,
            reason=reason,
            tokens=records[place].tokens,
        )
        for place, reason in (*folded.dropped, *elsewhere)
    ]
