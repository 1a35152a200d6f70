"""Appending to the message logs and reading their ends, beside the plain drivers.

The plain side works on a copy of our database: same tables, indexes and settings, so the same
durability. An append there is one transaction that inserts the rows an append of ours made
(record, content, keywords), byte for byte, and moves the two rows that say where the thread
ends. It reads nothing, hashes nothing and encodes nothing. A tail read there is one statement
for the same columns of the newest rows of the thread, whose messages are then made by `json`
and LangChain's constructors, as ours are from the same bytes; `tail_read_bytes` is compared
with the statement alone.
"""

# ruff: noqa: S608 - statements are put together from constants

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, LiteralString

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import psycopg
import report
from hot_path import sentence
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_ctxmgr import Scope
from langchain_ctxmgr.analysis import terms
from langchain_ctxmgr.records import Draft
from langchain_ctxmgr.storage import postgres_reads, sqlite_rows
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.storage.postgres import PostgresLog
from langchain_ctxmgr.storage.rows import unpack_terms
from langchain_ctxmgr.storage.sqlite import SqliteLog
from langchain_ctxmgr.storage.sqlite_append import body_of, tenant_token, thread_token
from tests.postgres import own_database

SCOPE: Final = Scope(tenant_id="bench", thread_id="t")
START: Final = datetime(2026, 1, 5, 9, tzinfo=UTC)
TAIL: Final = 20
BATCH: Final = 500

Change = tuple[LiteralString, Sequence[Any]]
"""A statement and its values."""


def draft(number: int) -> Draft:
    """Message `number` of the thread, with what the manager works out about it."""
    rng = random.Random(number)  # noqa: S311 - the same text on every run
    text = sentence(rng, number)
    kind = AIMessage if number % 2 else HumanMessage
    message = kind(text, id=f"m{number}")
    at = START + timedelta(minutes=2 * number)
    return Draft(message, at, 75, "o200k_base", rng.random(), tuple(terms(text)), 0)


def fill(log: MessageLog, start: int, until: int) -> None:
    """Append messages `start` to `until` to the one thread."""
    for first in range(start, until, BATCH):
        log.append(SCOPE, [draft(number) for number in range(first, min(first + BATCH, until))])


def compared(log: MessageLog, plain: PlainSqlite | PlainPostgres, first: int) -> dict[str, Any]:
    """Appends of messages from `first` on, and tail reads, beside those of `plain`."""
    drafts = [draft(first + number) for number in range(len(plain.work))]
    rounds = len(plain.work) // 2

    def tail(_: int) -> object:
        return log.read(log.branch(SCOPE), limit=TAIL, newest_first=True)

    return {
        "append": report.paired(
            lambda number: log.append(SCOPE, [drafts[number]]), plain.append, rounds
        ),
        "tail_read": report.paired(
            tail, lambda _: [message_of(row[-1]) for row in plain.tail()], rounds
        ),
        "tail_read_bytes": report.paired(tail, lambda _: plain.tail(), rounds),
    }


def message_of(payload: bytes) -> BaseMessage:
    """A stored message, made as a program without our codec would."""
    stored = json.loads(payload)
    return _CLASSES[stored["class"]](**stored["fields"])


def sqlite(size: int, rounds: int) -> dict[str, Any]:
    """The SQLite log with `size` messages."""
    with tempfile.TemporaryDirectory() as folder:
        path, copy = Path(folder) / "ours.db", Path(folder) / "plain.db"
        with SqliteLog(path) as log:
            fill(log, 0, size)
        disk = path.stat().st_size
        shutil.copy(path, copy)
        before = report.memory_mib()
        with SqliteLog(path) as log:
            fill(log, size, size + 2 * rounds)
            plain = PlainSqlite(copy, path, size)
            figures = compared(log, plain, size + 2 * rounds)
            plain.close()
        return {
            **figures,
            "disk_bytes_per_record": disk / size,
            "memory_mib": report.memory_mib() - before,
        }


class PlainSqlite:
    """`sqlite3` on a copy of our file, to append what ours has from `first` on."""

    def __init__(self, copy: Path, ours: Path, first: int) -> None:
        self._plain = sqlite3.connect(copy, isolation_level=None, cached_statements=256)
        for pragma in ("synchronous = NORMAL", "cache_size = -8192", "secure_delete = FAST"):
            self._plain.execute(f"PRAGMA {pragma}")
        source = sqlite3.connect(ours)
        source.row_factory = sqlite3.Row
        records = source.execute("SELECT * FROM records WHERE position >= ?", (first,)).fetchall()
        self.work = [self._changes(source, record) for record in records]
        source.close()

    def close(self) -> None:
        """Close the copy."""
        self._plain.close()

    def append(self, number: int) -> None:
        """One message: a transaction of five statements."""
        execute = self._plain.execute
        execute("BEGIN IMMEDIATE")
        for statement, values in self.work[number]:
            execute(statement, values)
        execute("COMMIT")

    def tail(self) -> list[Any]:
        """The newest rows."""
        return self._plain.execute(_SQLITE_TAIL, (*_OWNER, TAIL)).fetchall()

    def _changes(self, source: sqlite3.Connection, record: Any) -> list[Change]:
        seq, thread = record["seq"], record["thread"]
        content = source.execute("SELECT * FROM contents WHERE seq = ?", (seq,)).fetchone()
        tokens = f"{thread_token(thread)} {tenant_token('bench')}"
        tip = (record["slot"], record["position"], record["session"], record["at"])
        totals = (record["total_tokens"], record["total_importance"])
        state = (record["position"] + 1, seq * 300, content["chain"], thread)
        return [
            ("INSERT INTO records VALUES (" + "?, " * 20 + "?)", tuple(record)),
            ("INSERT INTO contents VALUES (?, ?, ?, ?, ?)", tuple(content)),
            (
                "INSERT INTO keywords (rowid, scope, body) VALUES (?, ?, ?)",
                (seq, tokens, body_of(unpack_terms(content["terms"]))),
            ),
            (
                (
                    "UPDATE branches SET tip_slot = ?, tip_position = ?, session = ?, at = ?, "
                    "total_tokens = ?, total_importance = ? WHERE thread = ? AND branch = 0"
                ),
                (*tip, *totals, thread),
            ),
            ("UPDATE threads SET records = ?, bytes = ?, chain = ? WHERE thread = ?", state),
        ]


def postgres(size: int, rounds: int, url: str) -> dict[str, Any]:
    """The PostgreSQL log with `size` messages, as a role that row-level security holds for."""
    with own_database(url) as database:
        before = report.memory_mib()
        with PostgresLog(database.url()) as log:
            fill(log, 0, size)
            with PostgresLog(database.url(), schema="plain"):
                pass
            with psycopg.connect(database.superuser_url(), autocommit=True) as connection:
                disk = copied(connection)
            fill(log, size, size + 2 * rounds)
            with psycopg.connect(database.superuser_url(), autocommit=True) as connection:
                plain = PlainPostgres(database.url(), connection, size)
            figures = compared(log, plain, size + 2 * rounds)
            plain.close()
            return {
                **figures,
                "disk_bytes_per_record": disk / size,
                "memory_mib": report.memory_mib() - before,
            }


def copied(connection: psycopg.Connection[Any]) -> int:
    """Copy our tables into the plain ones; the bytes that ours take on disk."""
    for table in _TABLES:
        connection.execute(
            f"INSERT INTO plain.{table} OVERRIDING SYSTEM VALUE SELECT * FROM ctxmgr.{table}"
        )
        connection.execute(f"VACUUM ANALYZE plain.{table}")
        connection.execute(f"VACUUM ANALYZE ctxmgr.{table}")
    row = connection.execute(
        "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'ctxmgr' AND c.relkind = 'r'"
    ).fetchone()
    return row[0] if row else 0


class PlainPostgres:
    """psycopg on a copy of our tables: prepared statements, a pipeline, one round trip."""

    def __init__(self, url: str, source: psycopg.Connection[Any], first: int) -> None:
        found = source.execute("SELECT * FROM ctxmgr.records WHERE position >= %s", (first,))
        names = [column.name for column in found.description or ()]
        rows = sorted((dict(zip(names, row, strict=True)) for row in found), key=_seq)
        self.work = [self._changes(row) for row in rows]
        self._plain = psycopg.connect(url, autocommit=True, prepare_threshold=0)
        self._plain.execute("SET search_path = plain")
        for setting in ("seqscan", "bitmapscan", "sort"):
            self._plain.execute(f"SET enable_{setting} = off")

    def close(self) -> None:
        """Close the connection."""
        self._plain.close()

    def append(self, number: int) -> None:
        """One message: a transaction of six statements."""
        with self._plain.pipeline():
            self._plain.execute("BEGIN")
            self._plain.execute(_BIND, (_OWNER[0],))
            for statement, values in self.work[number]:
                self._plain.execute(statement, values, binary=True)
            self._plain.execute("COMMIT")

    def tail(self) -> list[Any]:
        """The newest rows."""
        with self._plain.pipeline():
            self._plain.execute(_BIND, (_OWNER[0],))
            return self._plain.execute(_POSTGRES_TAIL, (TAIL, *_OWNER), binary=True).fetchall()

    def _changes(self, row: dict[str, Any]) -> list[Change]:
        tip = (row["slot"], row["position"], row["session"], row["at"])
        totals = (row["total_tokens"], row["total_importance"])
        posted = Counter(unpack_terms(row["terms"]))
        owner, thread, seq = row["tenant_id"], row["thread"], row["seq"]
        return [
            ("INSERT INTO records VALUES (" + "%s, " * 26 + "%s)", tuple(row.values())),
            (
                (
                    "INSERT INTO postings (tenant_id, thread, term, seq, often) "
                    "SELECT %s, %s, term, %s, often FROM unnest(%s::bigint[], %s::bigint[]) "
                    "p (term, often)"
                ),
                (owner, thread, seq, _array(posted), _array(posted.values())),
            ),
            (
                (
                    "UPDATE branches SET tip_slot = %s, tip_position = %s, session = %s, at = %s, "
                    "total_tokens = %s, total_importance = %s WHERE thread = %s AND branch = 0"
                ),
                (*tip, *totals, thread),
            ),
            (
                "UPDATE threads SET records = %s, bytes = %s, chain = %s WHERE thread = %s",
                (row["position"] + 1, seq * 300, row["chain"], thread),
            ),
        ]


_CLASSES: Final[dict[str, type[BaseMessage]]] = {
    "AIMessage": AIMessage,
    "HumanMessage": HumanMessage,
}


def _array(numbers: Any) -> str:
    return json.dumps([*numbers]).replace("[", "{").replace("]", "}")


def _seq(row: dict[str, Any]) -> int:
    return row["seq"]


_OWNER: Final = ("bench", "t")
_TABLES: Final[tuple[LiteralString, ...]] = (
    "tenants",
    "threads",
    "branches",
    "records",
    "postings",
)
_BIND: Final = "SELECT set_config('ctxmgr.tenant_id', %s, true)"
_SQLITE_TAIL: Final = (
    f"SELECT {sqlite_rows.RECORD_COLUMNS} FROM threads t CROSS JOIN records r "
    "ON r.thread = t.thread AND r.branch = t.branch CROSS JOIN contents c ON c.seq = r.seq "
    "WHERE t.tenant_id = ? AND t.thread_id = ? ORDER BY r.slot DESC LIMIT ?"
)
_POSTGRES_TAIL: Final[LiteralString] = (
    f"SELECT {postgres_reads.RECORD_COLUMNS} FROM threads t CROSS JOIN LATERAL "
    "(SELECT * FROM records r WHERE r.thread = t.thread AND r.branch = t.branch "
    "ORDER BY r.slot DESC LIMIT %s) r WHERE t.tenant_id = %s AND t.thread_id = %s"
)
