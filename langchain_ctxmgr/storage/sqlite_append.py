"""Appending to a thread of the SQLite log.

The thread's row carries the next position and the end of the hash chain, each branch's
row what its next message must know, so an append reads nothing else unless a message is
known already.
"""

# ruff: noqa: S608 - statements are put together from constants

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

from langchain_ctxmgr.records import LogRecord
from langchain_ctxmgr.storage.codec import GENESIS
from langchain_ctxmgr.storage.placement import (
    Addition,
    Entry,
    Known,
    Place,
    Placement,
    ThreadState,
)
from langchain_ctxmgr.storage.rows import bytes_of
from langchain_ctxmgr.storage.sqlite_rows import TENANT


@lru_cache(maxsize=1_024)
def tenant_token(tenant_id: str) -> str:
    """The keyword index's token for a tenant."""
    return "n" + sha256(tenant_id.encode()).hexdigest()[:16]


def thread_token(thread: int) -> str:
    """The keyword index's token for a thread's key."""
    return f"t{thread:x}"


def body_of(terms: Sequence[int]) -> str:
    """Terms as the keyword index holds them."""
    return ("%x " * len(terms)) % tuple(terms)


def append(
    connection: sqlite3.Connection,
    tenant_id: str,
    thread_id: str,
    user_id: str | None,
    entries: Sequence[Entry],
) -> list[LogRecord]:
    """Add `entries` to a thread within a transaction; the records that are new."""
    thread = _Thread(connection, tenant_id, thread_id, user_id)
    records = [record for entry in entries if (record := thread.add(entry)) is not None]
    if records:
        thread.save()
    return records


class _Thread:
    """A thread's rows while messages are added to it."""

    def __init__(
        self, connection: sqlite3.Connection, tenant_id: str, thread_id: str, user_id: str | None
    ) -> None:
        self._execute = connection.execute
        self._owner = (tenant_id, thread_id)
        row = self._execute(_THREAD, self._owner).fetchone()
        if row is None:
            new_thread(connection, tenant_id, thread_id)
            row = self._execute(_THREAD, self._owner).fetchone()
        self._key: int = row[0]
        self._tenant: int = row[1]
        self._newest = row[6], row[9:]
        self._withdrawn: int = row[8]
        self._scope_tokens = f"{thread_token(self._key)} {tenant_token(tenant_id)}"
        self._placement = Placement(
            tenant_id, thread_id, user_id, ThreadState(*row[2:8]), known=self._known, tip=self._tip
        )

    def add(self, entry: Entry) -> LogRecord | None:
        """The record of a message that is new; None for one that is known as it is."""
        new = self._placement.add(entry)
        return None if new is None else new.record(self._insert(entry, new), *self._owner)

    def save(self) -> None:
        """Write back what the next append must know."""
        forks = {fork.branch: fork for fork in self._placement.forks}
        for branch, place in self._placement.moved.items():
            if branch in forks:
                self._execute(_INSERT_BRANCH, (self._key, *forks[branch], *place[1:]))
            else:
                self._execute(_MOVE_TIP, (*place[1:], self._key, branch))
        self._execute(_SAVE_THREAD, (*self._placement.state, self._key))

    def _insert(self, entry: Entry, new: Addition) -> int:
        has_terms = bool(entry.terms)
        stored = (self._tenant, self._key, *new.fields, has_terms)
        seq: Any = self._execute(_INSERT_RECORD, stored).lastrowid
        self._execute(_INSERT_CONTENT, (seq, entry.digest, new.chain, entry.terms, entry.payload))
        if has_terms:
            body = body_of(entry.draft.terms)
            self._execute(_INSERT_KEYWORDS, (seq, self._scope_tokens, body))
        return seq

    def _known(self, message_id: str) -> Known | None:
        asked = (self._key, bytes_of(message_id))
        row = self._execute(_KNOWN, asked).fetchone() or (
            self._withdrawn and self._execute(_WITHDRAWN, asked).fetchone()
        )
        return Known(*row) if row else None

    def _tip(self, branch: int) -> Place:
        newest, tip = self._newest
        if branch != newest:
            tip = self._execute(_TIP, (self._key, branch)).fetchone()
        return Place(branch, *tip)


def new_thread(connection: sqlite3.Connection, tenant_id: str, thread_id: str) -> int:
    """The key of a thread that has no row yet, after giving it one."""
    tenant = tenant_key(connection, tenant_id)
    key: Any = connection.execute(_INSERT_THREAD, (tenant, tenant_id, thread_id, GENESIS)).lastrowid
    return key


def tenant_key(connection: sqlite3.Connection, tenant_id: str) -> int:
    """The integer that stands for a tenant, given out when it is first asked for."""
    connection.execute("INSERT OR IGNORE INTO tenants (tenant_id) VALUES (?)", (tenant_id,))
    return connection.execute(TENANT, (tenant_id,)).fetchone()[0]


_PLACE: Final = "b.tip_slot, b.tip_position, b.session, b.at, b.total_tokens, b.total_importance"
_THREAD: Final = (
    "SELECT t.thread, t.tenant, t.records, t.revisions, t.bytes, t.branches, t.branch, t.chain, "
    f"t.withdrawn, {_PLACE} FROM threads t "
    "LEFT JOIN branches b ON b.thread = t.thread AND b.branch = t.branch "
    "WHERE t.tenant_id = ? AND t.thread_id = ?"
)
"""A thread's row, and the last message of the branch written to last."""
_INSERT_THREAD: Final = (
    "INSERT INTO threads (tenant, tenant_id, thread_id, records, revisions, bytes, branches, "
    "branch, chain) VALUES (?, ?, ?, 0, 0, 0, 0, 0, ?)"
)
_SAVE_THREAD: Final = (
    "UPDATE threads SET records = ?, revisions = ?, bytes = ?, branches = ?, branch = ?, "
    "chain = ? WHERE thread = ?"
)
_TIP: Final = f"SELECT {_PLACE} FROM branches b WHERE b.thread = ? AND b.branch = ?"
_INSERT_BRANCH: Final = "INSERT INTO branches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_MOVE_TIP: Final = (
    "UPDATE branches SET tip_slot = ?, tip_position = ?, session = ?, at = ?, total_tokens = ?, "
    "total_importance = ? WHERE thread = ? AND branch = ?"
)
_KNOWN: Final = (
    "SELECT r.branch, r.slot, r.position, r.session, r.at, r.total_tokens, r.total_importance, "
    "r.tokens, r.importance, r.revision, r.parent, c.digest FROM records r "
    "CROSS JOIN contents c ON c.seq = r.seq WHERE r.thread = ? AND r.message_id = ? "
    "ORDER BY r.revision DESC LIMIT 1"
)
_WITHDRAWN: Final = (
    "SELECT branch, slot, position, session, at, total_tokens, total_importance, 0, 0, revision, "
    "NULL, NULL FROM withdrawn WHERE thread = ? AND message_id = ? ORDER BY revision DESC LIMIT 1"
)
_INSERT_RECORD: Final = (
    "INSERT INTO records (tenant, thread, user_id, branch, position, slot, revision, parent, "
    "session, message_id, role, speaker, at, tokens, encoding, importance, cues, total_tokens, "
    "total_importance, has_terms) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_CONTENT: Final = (
    "INSERT INTO contents (seq, digest, chain, terms, payload) VALUES (?, ?, ?, ?, ?)"
)
_INSERT_KEYWORDS: Final = "INSERT INTO keywords (rowid, scope, body) VALUES (?, ?, ?)"
