"""Which messages are the current turn, and where the history before it ends.

The current turn is the user's question and the tool traffic it has caused so far. The
host may hand the question in before or after recording it, and once more on every step
of a tool loop. A question asked again (regenerate, time travel) is answered from what
stood before it: an answer it already has, and the tool traffic that led there, are not
shown. What follows the last answer is the tool loop of asking again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from langchain_core.messages import BaseMessage

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.prompt.validity import asked_by, fold, is_blank, role_of
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
    """Those of `messages` that are in the log: all, or none where the question is new."""
    before_slot: int
    """The history is what stands before this slot."""
    follows: str | None
    """Id of the message before the question; None where nothing stands before it."""
    revised: int
    """Position of the newest revision of something before the question; -1 for none."""
    answered: int
    """Position of what was last said in answer to it; -1 for none."""
    history_tokens: int
    """As recorded, over the whole history."""
    history_importance: float
    last_said_at: datetime | None
    """When the last message of the history was said."""
    asked_at: datetime | None
    """When the question was recorded; None where it is not in the log."""

    @property
    def changed(self) -> int:
        """Position of the newest record that makes the question another one to answer."""
        return max(self.answered, self.revised)

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
    """The turn that `query` opens, or the newest recorded one without a query.

    Raises:
        ValueError: If `query` has the id of a recorded message that is no user's.
    """
    last = yield from question_before(log, branch, None)
    if query is None and last is None:
        return (yield from _turn(log, branch, (), _NO_LOOP, _end(branch)))
    known = yield from _known(log, branch, query, last)
    if known is None:
        messages = () if query is None else (query,)
        return (yield from _turn(log, branch, messages, _NO_LOOP, _end(branch)))
    question = known.message if query is None else _identified(query, known.message)
    if last is None or known.slot != last.slot:
        loop = _Loop((known,), -1 if last is None else last.position, is_over=True)
        return (yield from _turn(log, branch, (question,), loop, known.slot))
    since = yield from call(log.read, branch, from_slot=known.slot)
    loop = _loop(since)
    if query is not None and query.id is None and loop.is_over:
        return (yield from _turn(log, branch, (query,), _NO_LOOP, _end(branch)))
    messages = (question, *(record.message for record in loop.records[1:]))
    return (yield from _turn(log, branch, messages, loop, known.slot))


def _known(
    log: MessageLog, branch: Branch, query: BaseMessage | None, last: LogRecord | None
) -> Plan[LogRecord | None]:
    """The record that may be the question: by its id, or the newest one that says the same."""
    if query is None:
        return last
    if query.id is not None:
        found = yield from call(log.find, branch, query.id)
        if found is not None and role_of(found.message) != "human":
            raise ValueError(
                f"query must have an id of its own, got {query.id!r}: that of a recorded "
                f"{role_of(found.message)} message"
            )
        return found
    return last if last is not None and last.message.content == query.content else None


def _identified(query: BaseMessage, recorded: BaseMessage) -> BaseMessage:
    """The question as handed in, under the id and name it was recorded with."""
    if query.id is not None:
        return query
    return query.model_copy(update={"id": recorded.id, "name": query.name or recorded.name})


class _Loop(NamedTuple):
    """What of the messages since a question is still its turn."""

    records: tuple[LogRecord, ...]
    """The question first."""
    answered: int
    """Position of what was last said in answer, or asked since; -1 without any."""
    is_over: bool
    """Whether nothing is left to answer but the question itself, again."""


_NO_LOOP = _Loop((), -1, is_over=False)


def _loop(since: Sequence[LogRecord]) -> _Loop:
    """The question, which leads `since`, and the tool traffic after its last answer.

    An answer says something and calls nothing. What was said between a call and its
    result is none: the model still waits for that result. An AI message that nothing
    follows is not shown either way, for the model is to speak next.
    """
    groups = fold([record.message for record in since]).groups[1:]
    answered = reach = 0
    for group in groups:
        first, message = group.indexes[0], group.messages[0]
        if _speaks(message) and first > reach and not is_blank(message):
            answered = first
        reach = max(reach, *group.indexes)
    after = [group for group in groups if group.indexes[0] > answered]
    last = max((place for place, g in enumerate(after) if _calls(g.messages[0])), default=-1)
    ends = {group.indexes[0] for group in after[last + 1 :] if _speaks(group.messages[0])}
    places = [place for place in range(answered + 1, len(since)) if place not in ends]
    records = (since[0], *(since[place] for place in places))
    is_waiting = any(_calls(record.message) for record in records)
    position = since[answered].position if answered else -1
    return _Loop(records, position, is_over=answered > 0 and not is_waiting)


def _speaks(message: BaseMessage) -> bool:
    return role_of(message) == "ai" and not asked_by(message)


def _calls(message: BaseMessage) -> bool:
    return role_of(message) == "ai" and bool(asked_by(message))


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


def _turn(
    log: MessageLog,
    branch: Branch,
    messages: tuple[BaseMessage, ...],
    loop: _Loop,
    before_slot: int,
) -> Plan[CurrentTurn]:
    previous = yield from call(
        log.read, branch, before_slot=before_slot, limit=1, newest_first=True
    )
    revised = None
    if previous:
        revised = yield from call(log.revised, branch, before_slot=before_slot)
    return CurrentTurn(
        messages=messages,
        records=loop.records,
        before_slot=before_slot,
        follows=previous[0].message_id if previous else None,
        revised=-1 if revised is None else revised,
        answered=loop.answered,
        history_tokens=previous[0].total_tokens if previous else 0,
        history_importance=previous[0].total_importance if previous else 0.0,
        last_said_at=previous[0].at if previous else None,
        asked_at=loop.records[0].at if loop.records else None,
    )
