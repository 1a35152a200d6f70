"""Proving that the SQLite log is as written, and removing from it for good."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.chain_check import Problems, ThreadCheck, ThreadRow, WithdrawnRow
from langchain_ctxmgr.storage.message_log import Erased, Verification, tenant_of
from langchain_ctxmgr.storage.rows import unpack_terms
from langchain_ctxmgr.storage.sqlite_append import body_of, tenant_token, thread_token

Connection = sqlite3.Connection


def verify(connection: Connection, scope: Scope | None) -> Verification:
    """See `MessageLog.verify`. One pass, one record in memory at a time."""
    tenant_id = None if scope is None else tenant_of(scope)
    thread_id = None if scope is None else scope.thread_id
    problems, records = Problems(), 0
    threads = connection.execute(
        "SELECT thread, tenant_id, thread_id, records, revisions, bytes, branches, chain, "
        "withdrawn FROM threads WHERE ifnull(tenant_id = ?, 1) AND ifnull(thread_id = ?, 1) "
        "ORDER BY thread",
        (tenant_id, thread_id),
    )
    for row in threads:
        check = ThreadCheck(ThreadRow(*row), problems)
        kept = connection.execute(_CHAINED, row[:1])
        left = (WithdrawnRow(*each) for each in connection.execute(_WITHDRAWN, row[:1]))
        check.go_through(kept, left)
        check.end()
        check.tips(connection.execute(_TIPS, row[:1]).fetchall())
        records += check.records
    if scope is None:
        _verify_whole(connection, problems)
    return Verification(records=records, problems=problems.all())


def _verify_whole(connection: Connection, problems: Problems) -> None:
    for what, statement in (
        ("records whose thread is missing", _LOST_RECORDS),
        ("contents whose record is missing", _LOST_CONTENTS),
        ("records that name another tenant than their thread", _STRAYED_RECORDS),
    ):
        lost = connection.execute(statement).fetchone()[0]
        if lost:
            problems.add(f"{lost} {what}")


def delete(connection: Connection, scope: Scope, also: Sequence[str]) -> Erased:
    """Remove every row of threads or a tenant, and note that the file is to be cleaned."""
    tenant_id = tenant_of(scope)
    names = None if scope.thread_id is None else json.dumps([scope.thread_id, *also])
    keys = connection.execute(_KEYS, (tenant_id, names, names)).fetchall()
    seqs: list[int] = []
    derived = 0
    for key, _ in keys:
        derived += connection.execute("DELETE FROM stated WHERE thread = ?", (key,)).rowcount
        rows = connection.execute(_TERMS, (key,)).fetchall()
        seqs += [seq for seq, _ in rows]
        delete_keywords(connection, tenant_id, key, rows)
        connection.executemany("DELETE FROM contents WHERE seq = ?", ((seq,) for seq, _ in rows))
        derived += connection.execute("DELETE FROM derived WHERE thread = ?", (key,)).rowcount
        for table in ("weights", "records", "withdrawn", "branches", "threads"):
            connection.execute(f"DELETE FROM {table} WHERE thread = ?", (key,))
    if keys:
        named = [None] if scope.thread_id is None else [thread_id for _, thread_id in keys]
        connection.executemany(_NOTE_ERASURE, ((thread_id, tenant_id) for thread_id in named))
        connection.execute("INSERT OR IGNORE INTO uncleaned VALUES (1)")
    return Erased(threads=len(keys), messages=len(seqs), derived=derived, seqs=tuple(seqs))


def delete_keywords(
    connection: Connection, tenant_id: str, thread: int, rows: Iterable[tuple[int, bytes]]
) -> None:
    """Take records of a thread, given with their terms, out of the keyword index."""
    scope_tokens = f"{thread_token(thread)} {tenant_token(tenant_id)}"
    connection.executemany(
        "INSERT INTO keywords (keywords, rowid, scope, body) VALUES ('delete', ?, ?, ?)",
        ((seq, scope_tokens, body_of(unpack_terms(terms))) for seq, terms in rows if terms),
    )


def clean(connection: Connection, timeout: timedelta) -> None:
    """Leave nothing of deleted rows in the file, its WAL or the keyword index.

    Rewrites the file, so it takes as long as copying it.

    Raises:
        StorageError: If readers hold the WAL for longer than `timeout`.
    """
    if connection.execute("SELECT 1 FROM uncleaned").fetchone() is None:
        return
    connection.execute("INSERT INTO keywords (keywords) VALUES ('optimize')")
    connection.execute("VACUUM")
    deadline = time.monotonic() + timeout.total_seconds()
    while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > deadline:
            raise StorageError(
                "the rows are erased, but another connection is reading the log's WAL and keeps "
                "their bytes there; let it finish and call erase again"
            )
    connection.execute("DELETE FROM uncleaned")


CHAINED_FIELDS: Final = (
    "r.user_id, r.branch, r.position, r.slot, r.revision, r.parent, r.session, r.message_id, "
    "r.role, r.speaker, r.at, r.tokens, r.encoding, r.importance, r.cues, r.total_tokens, "
    "r.total_importance"
)
"""A record's own fields in the order in which they are chained."""
_CHAINED: Final = (
    f"SELECT r.seq, {CHAINED_FIELDS}, c.digest, c.chain, "
    "CAST(c.terms AS BLOB), CAST(c.payload AS BLOB) FROM records r "
    "LEFT JOIN contents c ON c.seq = r.seq WHERE r.thread = ? ORDER BY r.position"
)
_KEYS: Final = (
    "SELECT thread, thread_id FROM threads WHERE tenant_id = ? "
    "AND (? IS NULL OR thread_id IN (SELECT value FROM json_each(?)))"
)
_TERMS: Final = (
    "SELECT r.seq, c.terms FROM records r CROSS JOIN contents c ON c.seq = r.seq "
    "WHERE r.thread = ? ORDER BY r.position"
)
_WITHDRAWN: Final = (
    "SELECT seq, position, revision, bytes, digest, row_digest, chain FROM withdrawn "
    "WHERE thread = ? ORDER BY position"
)
_TIPS: Final = (
    "SELECT b.branch, b.tip_slot, (SELECT max(slot) FROM (SELECT max(r.slot) AS slot "
    "FROM records r WHERE r.thread = b.thread AND r.branch = b.branch UNION ALL "
    "SELECT max(w.slot) FROM withdrawn w WHERE w.thread = b.thread AND w.branch = b.branch)) "
    "AS newest FROM branches b WHERE b.thread = ?"
)
_LOST_RECORDS: Final = (
    "SELECT count(*) FROM records WHERE thread NOT IN (SELECT thread FROM threads)"
)
_STRAYED_RECORDS: Final = (
    "SELECT count(*) FROM threads t CROSS JOIN tenants n ON n.tenant_id = t.tenant_id "
    "CROSS JOIN records r ON r.thread = t.thread "
    "WHERE t.tenant <> n.tenant OR r.tenant <> n.tenant"
)
_NOTE_ERASURE: Final = (
    "INSERT INTO erasures (tenant, thread_id) SELECT tenant, ? FROM tenants WHERE tenant_id = ?"
)
_LOST_CONTENTS: Final = "SELECT count(*) FROM contents WHERE seq NOT IN (SELECT seq FROM records)"
