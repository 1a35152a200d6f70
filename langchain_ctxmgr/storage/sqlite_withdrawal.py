"""Erasing single messages from the SQLite log, so that its hash chain still holds."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.message_log import Erased, Withdrawal, tenant_of
from langchain_ctxmgr.storage.placement import left_of
from langchain_ctxmgr.storage.rows import at_bounds, bytes_of
from langchain_ctxmgr.storage.sqlite_audit import CHAINED_FIELDS, delete_keywords
from langchain_ctxmgr.storage.sqlite_reads import IN_SCOPE

Connection = sqlite3.Connection
_Row = Sequence[Any]


def withdraw(connection: Connection, scope: Scope, which: Withdrawal) -> Erased:
    """Leave of the records chosen, in all their revisions, no more than their places."""
    tenant_id = tenant_of(scope)
    chosen: dict[tuple[int, str], list[_Row]] = {}
    for key, thread_id, message_id in _chosen(connection, scope, which):
        rows = connection.execute(_REVISIONS, (key, message_id)).fetchall()
        connection.execute(_DELETE_WEIGHTS, (key, message_id))
        chosen.setdefault((key, thread_id), []).extend(rows)
    seqs: list[int] = []
    derived = 0
    for (key, thread_id), rows in chosen.items():
        gone = [row[0] for row in rows]
        connection.executemany(
            _WITHDRAW, [(key, *_left(tenant_id, thread_id, row)) for row in rows]
        )
        delete_keywords(connection, tenant_id, key, ((row[0], row[3]) for row in rows))
        named = [(seq,) for seq in gone]
        for table in ("contents", "records"):
            connection.executemany(f"DELETE FROM {table} WHERE seq = ?", named)
        derived += connection.executemany("DELETE FROM stated WHERE seq = ?", named).rowcount
        derived += connection.execute("DELETE FROM derived WHERE thread = ?", (key,)).rowcount
        connection.execute(
            "UPDATE threads SET withdrawn = withdrawn + ? WHERE thread = ?", (len(gone), key)
        )
        connection.execute(_NOTE, (thread_id, json.dumps(sorted(gone)), tenant_id))
        seqs += gone
    if seqs:
        connection.execute("INSERT OR IGNORE INTO uncleaned VALUES (1)")
    return Erased(
        threads=len(chosen), messages=len(seqs), derived=derived, seqs=tuple(sorted(seqs))
    )


def _chosen(connection: Connection, scope: Scope, which: Withdrawal) -> list[_Row]:
    """Thread, its id and message of what is meant."""
    owner = (tenant_of(scope), scope.thread_id, scope.user_id is None, scope.user_id)
    seqs = None if which.seqs is None else json.dumps(which.seqs)
    asked = (*owner, *at_bounds(which), seqs, seqs)
    if which.message_ids is None:
        return connection.execute(_CHOSEN, asked).fetchall()
    found = (
        connection.execute(f"{_CHOSEN} AND r.message_id = ?", (*asked, bytes_of(each))).fetchall()
        for each in dict.fromkeys(which.message_ids)
    )
    return [row for rows in found for row in rows]


def _left(tenant_id: str, thread_id: str, row: _Row) -> tuple[Any, ...]:
    """What stays of a record, in the order of `_WITHDRAW`."""
    seq, digest, chain, terms, size, *fields = row
    left = left_of(tenant_id, thread_id, fields, terms)
    return (seq, *left.place, left.message_id, *left.totals, size, digest, left.row_digest, chain)


_CHOSEN: Final = (
    "SELECT DISTINCT r.thread, t.thread_id, r.message_id FROM threads t "
    f"CROSS JOIN records r ON r.thread = t.thread WHERE {IN_SCOPE} AND r.at >= ? AND r.at < ? "
    "AND (? IS NULL OR r.seq IN (SELECT value FROM json_each(?)))"
)
_REVISIONS: Final = (
    "SELECT r.seq, c.digest, c.chain, CAST(c.terms AS BLOB), length(CAST(c.payload AS BLOB)), "
    f"{CHAINED_FIELDS} FROM records r CROSS JOIN contents c ON c.seq = r.seq "
    "WHERE r.thread = ? AND r.message_id = ?"
)
_DELETE_WEIGHTS: Final = "DELETE FROM weights WHERE thread = ? AND message_id = ?"
_WITHDRAW: Final = (
    "INSERT INTO withdrawn (thread, seq, branch, position, slot, revision, session, message_id, "
    "at, total_tokens, total_importance, bytes, digest, row_digest, chain) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_NOTE: Final = (
    "INSERT INTO erasures (tenant, thread_id, seqs) "
    "SELECT tenant, ?, ? FROM tenants WHERE tenant_id = ?"
)
