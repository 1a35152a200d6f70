"""Messages that wait on this machine's disk until the log can be written again.

A SQLite file of its own. A call's messages are one entry, kept in the order they came in,
and stay until the log has them: they may reach the log twice, so every message has an id, by
which the log knows it again. What waits is handed over a thread at a time, for the order
between threads is told by nothing but the messages' own times.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

from langchain_ctxmgr.errors import LogError
from langchain_ctxmgr.forking import ForkableLock
from langchain_ctxmgr.records import Draft, Scope
from langchain_ctxmgr.storage.codec import decode, encode
from langchain_ctxmgr.storage.rows import pack_terms, unpack_terms

_TIMEOUT_SECONDS: Final = 10.0
_ENTRIES: Final = 64
"""At most so many are handed over at once."""


class Waiting(NamedTuple):
    """What calls recorded for one thread while the log was down, in their order."""

    entries: list[int]
    """Ids, one a call."""
    scope: Scope
    drafts: list[Draft]


class Spool:
    """Entries in the file at `path`, made on first use with its folder.

    Threads, tasks, forked children and other processes may use one file: each operation
    has a connection of its own, since a spool is for minutes that are rare.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._lock = ForkableLock()
        self._is_empty: bool | None = None

    @property
    def is_empty(self) -> bool:
        """Whether this process knows of nothing that waits; reads the file once."""
        if self._is_empty is None:
            self._is_empty = not self.path.exists() or self.first() is None
        return self._is_empty

    def put(self, scope: Scope, drafts: Sequence[Draft]) -> list[Draft]:
        """Keep `drafts` durably; as they will be recorded, each with an id (`named`).

        Raises:
            LogError: If the file cannot be written.
        """
        kept = named(drafts)
        with self._lock, self._connected() as connection:
            entry = connection.execute(
                "INSERT INTO entries (tenant_id, thread_id, user_id) VALUES (?, ?, ?)",
                (scope.tenant_id, scope.thread_id, scope.user_id),
            ).lastrowid
            connection.executemany(
                "INSERT INTO drafts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(entry, *_row(draft)) for draft in kept],
            )
            connection.commit()
        self._is_empty = False
        return kept

    def first(self) -> Waiting | None:
        """The oldest entries of the thread that has waited longest."""
        with self._lock, self._connected() as connection:
            entries = connection.execute(
                "SELECT later.id, later.tenant_id, later.thread_id, later.user_id "
                "FROM (SELECT * FROM entries ORDER BY id LIMIT 1) oldest JOIN entries later "
                "ON later.tenant_id = oldest.tenant_id AND later.thread_id IS oldest.thread_id "
                "ORDER BY later.id LIMIT ?",
                (_ENTRIES,),
            ).fetchall()
            if not entries:
                self._is_empty = True
                return None
            _, tenant_id, thread_id, user_id = entries[0]
            ids = [entry[0] for entry in takewhile(lambda entry: entry[3] == user_id, entries)]
            rows = connection.execute(
                "SELECT at, tokens, encoding, importance, terms, cues, payload FROM drafts "
                "WHERE entry IN (SELECT value FROM json_each(?)) ORDER BY entry, rowid",
                (json.dumps(ids),),
            )
            scope = Scope(tenant_id=tenant_id, thread_id=thread_id, user_id=user_id)
            return Waiting(ids, scope, [_draft(row) for row in rows])

    def remove(self, entries: Sequence[int]) -> None:
        """Forget entries that the log has; nothing of their text stays in the file."""
        ids = [(entry,) for entry in entries]
        with self._lock, self._connected() as connection:
            connection.executemany("DELETE FROM drafts WHERE entry = ?", ids)
            connection.executemany("DELETE FROM entries WHERE id = ?", ids)
            connection.commit()

    def erase(self, scope: Scope) -> int:
        """Remove what waits for a thread, a user or a whole tenant; how many messages."""
        if not self.path.exists():
            return 0
        with self._lock, self._connected() as connection:
            waiting = connection.execute(
                "SELECT id FROM entries WHERE tenant_id = ?1 AND ifnull(thread_id = ?2, 1) "
                "AND (?3 IS NULL OR user_id = ?3)",
                (scope.tenant_id, scope.thread_id, scope.user_id),
            ).fetchall()
            removed = sum(
                connection.execute("DELETE FROM drafts WHERE entry = ?", entry).rowcount
                for entry in waiting
            )
            connection.executemany("DELETE FROM entries WHERE id = ?", waiting)
            connection.commit()
        return removed

    @contextmanager
    def _connected(self) -> Generator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_TIMEOUT_SECONDS)) as connection:
                connection.execute("PRAGMA secure_delete = ON")
                connection.execute("PRAGMA synchronous = FULL")
                connection.executescript(_TABLES)
                yield connection
        except (OSError, sqlite3.Error) as error:
            raise LogError(f"the spool {self.path} cannot be used: {error}") from error

    async def aput(self, scope: Scope, drafts: Sequence[Draft]) -> list[Draft]:
        """`put` without blocking the event loop."""
        return await asyncio.to_thread(self.put, scope, drafts)

    async def afirst(self) -> Waiting | None:
        """`first` without blocking the event loop."""
        return await asyncio.to_thread(self.first)

    async def aremove(self, entries: Sequence[int]) -> None:
        """`remove` without blocking the event loop."""
        await asyncio.to_thread(self.remove, entries)

    async def aerase(self, scope: Scope) -> int:
        """`erase` without blocking the event loop."""
        return await asyncio.to_thread(self.erase, scope)


def named(drafts: Sequence[Draft]) -> list[Draft]:
    """`drafts`, each with an id by which the log knows it again."""
    return [
        draft
        if draft.message.id
        else draft._replace(message=draft.message.model_copy(update={"id": str(uuid4())}))
        for draft in drafts
    ]


def _row(draft: Draft) -> tuple[object, ...]:
    return (
        draft.at.astimezone(UTC).isoformat(),
        draft.tokens,
        draft.encoding,
        draft.importance,
        pack_terms(draft.terms),
        draft.cues,
        encode(draft.message),
    )


def _draft(row: Sequence[Any]) -> Draft:
    at, tokens, encoding, importance, terms, cues, payload = row
    return Draft(
        message=decode(payload),
        at=datetime.fromisoformat(at),
        tokens=tokens,
        encoding=encoding,
        importance=importance,
        terms=unpack_terms(terms),
        cues=cues,
    )


_TABLES: Final = """
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tenant_id TEXT NOT NULL, thread_id TEXT NOT NULL,
    user_id TEXT
);
CREATE TABLE IF NOT EXISTS drafts (
    entry INTEGER NOT NULL, at TEXT NOT NULL, tokens INTEGER NOT NULL, encoding TEXT NOT NULL,
    importance REAL NOT NULL, terms BLOB NOT NULL, cues INTEGER NOT NULL, payload BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS drafts_by_entry ON drafts (entry);
CREATE INDEX IF NOT EXISTS entries_by_thread ON entries (tenant_id, thread_id);
"""
