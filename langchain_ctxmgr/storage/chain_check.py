"""Checking a log's hash chain and totals, thread by thread, whatever it is kept in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import merge
from typing import Any, NamedTuple

from langchain_ctxmgr.storage.codec import GENESIS, digest, link, row_digest
from langchain_ctxmgr.storage.message_log import MAX_PROBLEMS


class Problems:
    """What was found; only so many are told apart."""

    def __init__(self) -> None:
        self._told: list[str] = []
        self._count = 0

    def add(self, problem: str) -> None:
        """Count a problem, and keep it if there is room."""
        self._count += 1
        if self._count <= MAX_PROBLEMS:
            self._told.append(problem)

    def extend(self, others: Problems) -> None:
        """Add what others found."""
        for problem in others._told:
            self.add(problem)
        self._count += others._count - len(others._told)

    def all(self) -> tuple[str, ...]:
        """Those kept, and how many more there are."""
        more = self._count - len(self._told)
        return (*self._told, f"and {more} more") if more else tuple(self._told)


class ThreadRow(NamedTuple):
    """What a thread's row says of it."""

    key: int
    tenant_id: str
    thread_id: str
    records: int
    revisions: int
    bytes: int
    branches: int
    chain: bytes
    withdrawn: int


class WithdrawnRow(NamedTuple):
    """What is left of a record that was erased by itself."""

    seq: int
    position: int
    revision: int
    bytes: int
    digest: bytes
    row_digest: bytes
    chain: bytes


class ThreadCheck:
    """One thread while its records are gone through."""

    def __init__(self, thread: ThreadRow, problems: Problems) -> None:
        self._thread, self._problems = thread, problems
        self._where = f"tenant {thread.tenant_id!r}, thread {thread.thread_id!r}"
        self._chain: bytes | None = GENESIS
        self._seq = self._position = self._revisions = self._bytes = self._withdrawn = 0
        self.records = 0

    def go_through(
        self, kept: Iterable[tuple[Any, ...]], withdrawn: Iterable[WithdrawnRow]
    ) -> None:
        """Check records, each its `seq`, own fields and content, and what is left of others."""
        for record in merge(kept, withdrawn, key=_position):
            if isinstance(record, WithdrawnRow):
                self.withdrawn(record)
            else:
                self.record(record[0], record[1:18], record[18:])

    def record(self, seq: int, fields: tuple[Any, ...], content: tuple[Any, ...]) -> None:
        """Check a record against the one before it; a gap is told once."""
        here = self._here(seq, fields[2])
        if content[3] is None:
            self._problems.add(f"{here}: its content is missing")
        else:
            self._content(here, fields, content)
        self._follow(seq, fields[2], content[1], is_revision=fields[4] > 0)

    def withdrawn(self, row: WithdrawnRow) -> None:
        """Check what is left of a record that was erased by itself: its place in the chain."""
        here = self._here(row.seq, row.position)
        self._bytes += row.bytes
        self._withdrawn += 1
        if self._chain is not None and link(self._chain, row.digest, row.row_digest) != row.chain:
            self._problems.add(f"{here}: what is left of it was changed, or is not in its place")
        self._follow(row.seq, row.position, row.chain, is_revision=row.revision > 0)

    def _here(self, seq: int, position: int) -> str:
        here = f"{self._where}, position {position}"
        if position > self._position:
            self._problems.add(self._missing(position))
            self._chain = None
        if seq <= self._seq:
            self._problems.add(f"{here}: recorded out of order")
        return here

    def _follow(self, seq: int, position: int, chain: bytes, *, is_revision: bool) -> None:
        self._chain = chain
        self._seq, self._position = seq, position + 1
        self._revisions += is_revision
        self.records += 1

    def _content(self, here: str, fields: tuple[Any, ...], content: tuple[Any, ...]) -> None:
        stored_digest, stored_chain, terms, payload = content
        self._bytes += len(payload)
        if digest(payload) != stored_digest:
            self._problems.add(f"{here}: its content was changed")
        if self._chain is not None:
            row = (self._thread.tenant_id, self._thread.thread_id, *fields)
            if link(self._chain, stored_digest, row_digest(row, terms)) != stored_chain:
                self._problems.add(f"{here}: its fields were changed, or it is not in its place")

    def end(self) -> None:
        """Check that the thread's own row says the same."""
        thread = self._thread
        counts = (self._revisions, self._bytes, self._withdrawn)
        if self._position < thread.records:
            self._problems.add(f"{self._missing(thread.records)}: the end is cut off")
        elif (self._position, self._chain) != (thread.records, thread.chain):
            self._problems.add(f"{self._where}: does not end where it was left")
        elif self.records == self._position and counts != (
            thread.revisions,
            thread.bytes,
            thread.withdrawn,
        ):
            self._problems.add(f"{self._where}: its counts were changed")

    def tips(self, tips: Sequence[tuple[int, int, int | None]]) -> None:
        """Check that every branch has its row, and where it ends."""
        if len(tips) != self._thread.branches:
            self._problems.add(f"{self._where}: {self._thread.branches - len(tips)} branches lost")
        for branch, slot, newest in tips:
            if slot != newest:
                self._problems.add(f"{self._where}, branch {branch}: ends at {newest}, not {slot}")

    def _missing(self, end: int) -> str:
        last = f" to {end - 1}" if end - 1 > self._position else ""
        return f"{self._where}, position {self._position}{last}: missing"


def _position(record: tuple[Any, ...]) -> int:
    return record.position if isinstance(record, WithdrawnRow) else record[3]
