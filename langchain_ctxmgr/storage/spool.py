"""Messages that wait on this machine's disk until the log can be written again.

A SQLite file of its own. A call's messages are one entry, kept in the order they came in,
and stay until the log has them: an entry may reach the log twice, so every message in it
has an id, by which the log knows it again.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

from langchain_ctxmgr.errors import LogError
from langchain_ctxmgr.forking import ForkableLock
from langchain_ctxmgr.records import Draft, Scope
from langchain_ctxmgr.storage.codec import decode, encode
from langchain_ctxmgr.storage.rows import pack_terms, unpack_terms

_TIMEOUT_SECONDS: Final = 10.0


class SpoolEntry(NamedTuple):
    """What one call recorded while the log was down."""

    id: int
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

    def first(self) -> SpoolEntry | None:
        """The entry that has waited longest."""
        with self._lock, self._connected() as connection:
            entry = connection.execute(
                "SELECT id, tenant_id, thread_id, user_id FROM entries ORDER BY id LIMIT 1"
            ).fetchone()
            if entry is None:
                self._is_empty = True
                return None
            rows = connection.execute(
                "SELECT at, tokens, encoding, importance, terms, cues, payload FROM drafts "
                "WHERE entry = ? ORDER BY rowid",
                (entry[0],),
            )
            scope = Scope(tenant_id=entry[1], thread_id=entry[2], user_id=entry[3])
            return SpoolEntry(entry[0], scope, [_draft(row) for row in rows])

    def remove(self, entry_id: int) -> None:
        """Forget an entry that the log has; nothing of its text stays in the file."""
        with self._lock, self._connected() as connection:
            connection.execute("DELETE FROM drafts WHERE entry = ?", (entry_id,))
            connection.execute("DELETE FROM entries WHERE id = ?", (entry_id,))
            connection.commit()

    def erase(self, scope: Scope) -> int:
        """Remove what waits for a thread or a whole tenant; how many messages."""
        if not self.path.exists():
            return 0
        with self._lock, self._connected() as connection:
            waiting = connection.execute(
                "SELECT id FROM entries WHERE tenant_id = ? AND ifnull(thread_id = ?, 1)",
                (scope.tenant_id, scope.thread_id),
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

    async def afirst(self) -> SpoolEntry | None:
        """`first` without blocking the event loop."""
        return await asyncio.to_thread(self.first)

    async def aremove(self, entry_id: int) -> None:
        """`remove` without blocking the event loop."""
        await asyncio.to_thread(self.remove, entry_id)

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
"""
