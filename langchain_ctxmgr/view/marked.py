"""What users marked, as far as it bears on one thread's view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.compression.statements import RunningSummary, Statement
from langchain_ctxmgr.memory.facts.service import memory_id_of, memory_prefix
from langchain_ctxmgr.records import Branch, LogRecord, Scope, Weighed
from langchain_ctxmgr.storage.message_log import MessageLog

_MOST_BOOSTED = 16
"""So many boosted messages are read for a summary that would not have come into it, the last
marked."""


class Marked(NamedTuple):
    """The marks on a thread, and on the memories that go with it."""

    marks: tuple[Weighed, ...] = ()
    """Last marked last."""
    weights: Mapping[int, float] = MappingProxyType({})
    """Of what is boosted, held back or muted, by `seq`; the user's in other threads too."""

    @property
    def pins(self) -> list[Weighed]:
        """What is pinned, last marked first."""
        return [mark for mark in reversed(self.marks) if mark.is_pinned]

    @property
    def muted(self) -> frozenset[int]:
        """The `seq`s of what is muted."""
        return frozenset(seq for seq, weight in self.weights.items() if weight == 0)

    def boosted(self, branch: Branch, *, before_slot: int) -> list[Weighed]:
        """What is boosted on `branch` before `before_slot`; the last marked."""
        found = [
            mark
            for mark in self.marks
            if mark.weight > 1
            and mark.thread_id == branch.thread_id
            and mark.slot < before_slot
            and branch.holds(mark.branch, mark.slot)
        ]
        return found[-_MOST_BOOSTED:]

    def weigh(self, records: Sequence[LogRecord]) -> list[LogRecord]:
        """The records with the importance that users gave them; 1 at most."""
        if not self.weights:
            return list(records)
        return [
            record._replace(
                importance=min(1.0, record.importance * self.weights.get(record.seq, 1.0))
            )
            for record in records
        ]

    def heard(self, running: RunningSummary) -> RunningSummary:
        """A summary without what muted messages alone bear out."""
        muted = {mark.message_id for mark in self.marks if mark.weight == 0}
        if not muted:
            return running

        def left(statements: Sequence[Statement]) -> tuple[Statement, ...]:
            return tuple(
                each
                for each in statements
                if not all(source.message_id in muted for source in each.sources)
            )

        sections = tuple(map(left, running.sections))
        return replace(running, statements=left(running.statements), sections=sections)


UNMARKED = Marked()


def marked(log: MessageLog, scope: Scope) -> Plan[Marked]:
    """The marks on the thread of `scope`, on memories beside it, and on its user's memories."""
    thread = replace(scope, user_id=None)
    found = yield from call(log.weighed, thread, beside=_beside(thread))
    own: list[Weighed] = []
    if scope.user_id is not None:
        own = yield from call(log.weighed, replace(scope, thread_id=None))
        found = [mark for mark in own if memory_id_of(mark.thread_id) is not None] + found
    marks = tuple({mark.seq: mark for mark in sorted(found, key=lambda m: (m.at, m.seq))}.values())
    weights = {mark.seq: mark.weight for mark in (*own, *marks) if mark.weight != 1}
    return Marked(marks, weights)


def _beside(thread: Scope) -> str | None:
    try:
        return memory_prefix(thread)
    except ValueError:
        return None  # a name too long to have memories beside it
