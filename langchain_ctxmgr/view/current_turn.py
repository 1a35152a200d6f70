"""Which messages are the current turn, and where the history before it ends.

The current turn is the user's question and the tool traffic it has caused so far. The
host may hand the question in before or after recording it, and once more on every step
of a tool loop; a question asked again from the middle of a thread (regenerate, time
travel) is answered from what stood before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from langchain_core.messages import BaseMessage

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.prompt.validity import role_of
from langchain_ctxmgr.records import Branch, LogRecord
from langchain_ctxmgr.storage.message_log import SESSION_GAP, MessageLog

_USER_ROLES = ("human", "chat")
_PAGE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentTurn:
    """The messages of the turn and the size of the history before it."""

    messages: tuple[BaseMessage, ...]
    """The question first; empty when nobody has asked anything."""
    records: tuple[LogRecord, ...]
    """Those of `messages` that are in the log."""
    before_slot: int
    """The history is what stands before this slot."""
    history_tokens: int
    """As recorded, over the whole history."""
    history_importance: float
    last_said_at: datetime | None
    """When the last message of the history was said."""
    asked_at: datetime | None
    """When the question was recorded; None where it is not in the log."""

    @property
    def key(self) -> str | None:
        """What tells the turn from others on each of its steps; None where nothing does."""
        if self.question is not None and self.question.id is not None:
            return self.question.id
        return self.records[0].message_id if self.records else None

    def is_live(self, now: datetime) -> bool:
        """Whether the question came without a long pause after what was said before."""
        if self.last_said_at is None:
            return True
        return (self.asked_at or now) - self.last_said_at <= SESSION_GAP

    @property
    def question(self) -> BaseMessage | None:
        """What the user asked."""
        return self.messages[0] if self.messages else None


def find_turn(log: MessageLog, branch: Branch, query: BaseMessage | None) -> Plan[CurrentTurn]:
    """The turn that `query` opens, or the newest recorded one without a query."""
    last = yield from question_before(log, branch, None)
    if query is None:
        if last is None:
            return (yield from _turn(log, branch, (), (), _end(branch)))
        return (yield from _recorded_turn(log, branch, last, last.message))
    known = None if query.id is None else (yield from call(log.find, branch, query.id))
    if known is not None and role_of(known.message) == "human":
        if last is not None and known.slot == last.slot:
            return (yield from _recorded_turn(log, branch, known, query))
        return (yield from _turn(log, branch, (query,), (known,), known.slot))
    if query.id is None and last is not None and last.message.content == query.content:
        turn = yield from _recorded_turn(log, branch, last, query)
        if _is_waiting(turn):
            return turn
    return (yield from _turn(log, branch, (query,), (), _end(branch)))


def _is_waiting(turn: CurrentTurn) -> bool:
    """Whether the model has yet to answer: the turn ends with the question or a tool result."""
    return role_of(turn.messages[-1]) in {"human", "tool", "function"}


def _end(branch: Branch) -> int:
    return 0 if branch.head is None else branch.spans[-1].last_slot + 1


def question_before(log: MessageLog, branch: Branch, slot: int | None) -> Plan[LogRecord | None]:
    """The newest user message before `slot`, or of all when it is None."""
    before = slot
    while True:
        page = yield from call(
            log.read, branch, before_slot=before, limit=_PAGE, newest_first=True, roles=_USER_ROLES
        )
        for record in page:
            if role_of(record.message) == "human":
                return record
        if len(page) < _PAGE:
            return None
        before = page[-1].slot


def _recorded_turn(
    log: MessageLog, branch: Branch, opened: LogRecord, question: BaseMessage
) -> Plan[CurrentTurn]:
    records = yield from call(log.read, branch, from_slot=opened.slot)
    messages = (question, *(record.message for record in records[1:]))
    return (yield from _turn(log, branch, messages, tuple(records), opened.slot))


def _turn(
    log: MessageLog,
    branch: Branch,
    messages: tuple[BaseMessage, ...],
    records: tuple[LogRecord, ...],
    before_slot: int,
) -> Plan[CurrentTurn]:
    previous = yield from call(
        log.read, branch, before_slot=before_slot, limit=1, newest_first=True
    )
    return CurrentTurn(
        messages=messages,
        records=records,
        before_slot=before_slot,
        history_tokens=previous[0].total_tokens if previous else 0,
        history_importance=previous[0].total_importance if previous else 0.0,
        last_said_at=previous[0].at if previous else None,
        asked_at=records[0].at if records else None,
    )
