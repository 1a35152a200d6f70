"""What records of the SQLite log state: kept beside them, and removed with them."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.message_log import Stated
from langchain_ctxmgr.storage.rows import stated_of
from langchain_ctxmgr.storage.sqlite_reads import THREAD, in_scope
from langchain_ctxmgr.storage.sqlite_rows import NEWEST, TENANT

Connection = sqlite3.Connection


def put_stated(
    connection: Connection,
    tenant_id: str,
    values: Mapping[int, bytes],
    after_seq: int,
    until_seq: int,
) -> None:
    """See `MessageLog.put_stated`."""
    connection.execute(
        f"DELETE FROM stated WHERE tenant = ({TENANT}) AND seq > ? AND seq <= ?",
        (tenant_id, after_seq, until_seq),
    )
    connection.executemany(
        "INSERT INTO stated SELECT r.seq, r.tenant, r.thread, r.user_id, ? FROM records r "
        f"WHERE r.seq = ? AND r.tenant = ({TENANT})",
        ((value, seq, tenant_id) for seq, value in values.items()),
    )


def stated(connection: Connection, scope: Scope) -> list[Stated]:
    """See `MessageLog.stated`."""
    tenant_id, thread_id, is_anyone, user_id = in_scope(scope)
    if thread_id is not None:
        where, values = f"s.thread = ({THREAD})", (tenant_id, thread_id)
    elif is_anyone:
        where, values = f"s.tenant = ({TENANT})", (tenant_id,)
    else:
        where, values = f"s.tenant = ({TENANT}) AND s.user_id = ?", (tenant_id, user_id)
    rows = connection.execute(
        "SELECT s.seq, t.thread_id, r.branch, r.slot, r.user_id, r.message_id, r.at, s.value "
        "FROM stated s CROSS JOIN records r ON r.seq = s.seq "
        f"CROSS JOIN threads t ON t.thread = s.thread WHERE {where} AND {NEWEST}",
        values,
    )
    return sorted(map(stated_of, rows))
