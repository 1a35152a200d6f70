"""What a view is folded from while the log cannot be read: the messages that a host holds.

They are given the shape of a log, so the same code folds the view: a window, a summary of
what lies before it, the current turn. Nothing is kept and nothing is recalled.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

from langchain_core.messages import BaseMessage

from langchain_ctxmgr._plans import Plan
from langchain_ctxmgr.analysis import message_text
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.memory.importance import importance
from langchain_ctxmgr.memory.recall import Recall, Recalled
from langchain_ctxmgr.prompt.validity import role_of
from langchain_ctxmgr.records import Branch, LogRecord, Span, Turn
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.view.request import ViewRequest

_READ = 2
"""Of the history as much is read as would fill the budget so many times."""
_WINDOW_SHARE = 0.6
"""Of the budget, for the window: nothing is recalled, so it has that room too."""


class Held(NamedTuple):
    """Held messages as a log, and what is asked of it."""

    log: MessageLog
    request: ViewRequest


def held(request: ViewRequest, messages: Sequence[BaseMessage], counter: TokenCounter) -> Held:
    """The newest of `messages`, as if recorded when `request` was made."""
    asked = next((i for i in reversed(range(len(messages))) if _asks(messages[i])), 0)
    first, tokens = asked, 0
    while first > 0 and tokens < _READ * request.max_tokens:
        first -= 1
        tokens += counter.message(messages[first])
    records: list[LogRecord] = []
    for message in messages[first:]:
        records.append(_record(message, records[-1] if records else None, request, counter))
    spans = (Span(0, len(records) - 1),) if records else ()
    branch = Branch(
        tenant_id=request.branch.tenant_id,
        thread_id=request.branch.thread_id,
        spans=spans,
        head=records[-1] if records else None,
    )
    shares = {"history_share": _WINDOW_SHARE, "summary_share": None, "recalled_share": 0.0}
    budget = replace(request.budget, **shares)
    log = cast("MessageLog", _HeldLog(records))
    return Held(log, replace(request, branch=branch, budget=budget))


def _asks(message: BaseMessage) -> bool:
    return role_of(message) == "human"


def _record(
    message: BaseMessage, before: LogRecord | None, request: ViewRequest, counter: TokenCounter
) -> LogRecord:
    slot = 0 if before is None else before.slot + 1
    tokens = counter.message(message)
    weight = importance(message, message_text(message)).score
    return LogRecord(
        seq=slot + 1,
        thread_id=request.branch.thread_id,
        slot=slot,
        branch=0,
        session=0,
        role=role_of(message),
        speaker=message.name,
        at=request.asked_at,
        tokens=tokens,
        importance=weight,
        cues=0,
        tenant_id=request.branch.tenant_id,
        user_id=request.scope.user_id,
        position=slot,
        revision=0,
        parent=None if before is None else before.position,
        message_id=message.id or f"held-{slot}",
        message=message,
        encoding=counter.name,
        total_tokens=tokens + (0 if before is None else before.total_tokens),
        total_importance=weight + (0.0 if before is None else before.total_importance),
        digest=b"",
        chain=b"",
    )


class _HeldLog:
    """What a view reads of a log."""

    def __init__(self, records: Sequence[LogRecord]) -> None:
        self._records = records

    def read(
        self,
        _: Branch,
        *,
        from_slot: int = 0,
        before_slot: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
        roles: Collection[str] | None = None,
    ) -> list[LogRecord]:
        found = [
            record
            for record in self._records[from_slot:before_slot]
            if roles is None or record.role in roles
        ]
        return (found[::-1] if newest_first else found)[:limit]

    def locate(self, _: Branch, total_tokens: int) -> int | None:
        before = (record.total_tokens - record.tokens for record in self._records)
        return next((slot for slot, total in enumerate(before) if total >= total_tokens), None)

    def find(self, _: Branch, message_id: str) -> LogRecord | None:
        return next((r for r in self._records if r.message_id == message_id), None)

    def top(self, _: Branch, *, before_slot: int, limit: int) -> list[Turn]:
        told = [r for r in self._records[:before_slot] if r.role in {"human", "ai", "tool"}]
        best = sorted(told, key=lambda record: (-record.importance, record.slot))[:limit]
        return [cast("Turn", record) for record in best]

    def fetch(self, _: object, seqs: Sequence[int]) -> list[LogRecord]:
        return [self._records[seq - 1] for seq in seqs]

    def get_derived(self, *_: object, **__: object) -> None:
        return None

    put_derived = revised = get_derived


class _NothingRecalled:
    """Recall while there is nothing to search."""

    def find(self, *_: object, **__: Any) -> Plan[Recalled]:
        yield from ()
        return Recalled(memories=(), block="", tokens=0, carried={}, considered=())


NOTHING_RECALLED = cast("Recall", _NothingRecalled())
