"""What a user marks in the SQLite log: kept beside the records, and removed with them."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

import sqlite3
from typing import Final

from langchain_ctxmgr.records import Scope, Weighed
from langchain_ctxmgr.storage.message_log import Weighing, thread_of
from langchain_ctxmgr.storage.rows import after_prefix, bytes_of, weighed_of
from langchain_ctxmgr.storage.sqlite_reads import THREAD, in_scope
from langchain_ctxmgr.storage.sqlite_rows import NEWEST, TENANT
from langchain_ctxmgr.turns import micros_of

Connection = sqlite3.Connection


def weigh(connection: Connection, scope: Scope, message_id: str, given: Weighing) -> bool:
    """See `MessageLog.weigh`."""
    named = (*thread_of(scope), bytes_of(message_id))
    values = (given.is_pinned, given.weight, micros_of(given.at))
    return connection.execute(_WEIGH, (*values, *named)).rowcount > 0


def weighed(connection: Connection, scope: Scope, beside: str | None) -> list[Weighed]:
    """See `MessageLog.weighed`."""
    tenant_id, thread_id, is_anyone, user_id = in_scope(scope)
    if thread_id is not None:
        where, values = f"w.thread = ({THREAD})", (tenant_id, thread_id)
    elif is_anyone:
        where, values = f"w.tenant = ({TENANT})", (tenant_id,)
    else:
        where, values = f"w.tenant = ({TENANT}) AND w.user_id = ?", (tenant_id, user_id)
    rows = connection.execute(f"{_WEIGHED} AND {where}", values).fetchall()
    if beside is not None:
        named = (tenant_id, beside, after_prefix(beside))
        rows += connection.execute(f"{_WEIGHED} AND w.thread IN ({_BESIDE})", named)
    return [weighed_of(row[1:]) for row in sorted({*rows})]


_WEIGH: Final = (
    "INSERT INTO weights (tenant, thread, user_id, message_id, is_pinned, weight, at) "
    "SELECT r.tenant, r.thread, r.user_id, r.message_id, "
    "coalesce(?, (SELECT w.is_pinned FROM weights w WHERE w.thread = r.thread "
    "AND w.message_id = r.message_id ORDER BY w.id DESC LIMIT 1), 0), "
    "coalesce(?, (SELECT w.weight FROM weights w WHERE w.thread = r.thread "
    "AND w.message_id = r.message_id ORDER BY w.id DESC LIMIT 1), 1), ? "
    f"FROM records r WHERE r.thread = ({THREAD}) AND r.message_id = ? "
    "ORDER BY r.revision DESC LIMIT 1"
)
_BESIDE: Final = (
    "SELECT thread FROM threads WHERE tenant_id = ? AND thread_id >= ? AND thread_id < ?"
)
_WEIGHED: Final = (
    "SELECT w.id, r.seq, t.thread_id, r.branch, r.slot, r.user_id, r.message_id, w.is_pinned, "
    "w.weight, w.at FROM weights w CROSS JOIN records r ON r.thread = w.thread "
    "AND r.message_id = w.message_id CROSS JOIN threads t ON t.thread = w.thread "
    "WHERE w.id = (SELECT max(n.id) FROM weights n WHERE n.thread = w.thread "
    f"AND n.message_id = w.message_id) AND (w.is_pinned OR w.weight <> 1) AND {NEWEST}"
)
