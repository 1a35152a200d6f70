"""What records of the SQLite log state: kept beside them, and removed with them."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

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


def stated(connection: Connection, scope: Scope, after_seq: int) -> list[Stated]:
    """See `MessageLog.stated`."""
    where, values = _seen(scope)
    rows = connection.execute(
        "SELECT s.seq, t.thread_id, r.branch, r.slot, r.user_id, r.message_id, r.at, s.value "
        f"FROM stated s {_RECORDS} CROSS JOIN threads t ON t.thread = s.thread "
        f"WHERE {where} AND s.seq > ? AND {NEWEST}",
        (*values, after_seq),
    )
    return sorted(map(stated_of, rows))


def stated_count(connection: Connection, scope: Scope) -> int:
    """See `MessageLog.stated_count`."""
    where, values = _seen(scope)
    statement = f"SELECT count(*) FROM stated s {_RECORDS} WHERE {where} AND {NEWEST}"
    return connection.execute(statement, values).fetchone()[0]


def _seen(scope: Scope) -> tuple[str, tuple[str | None, ...]]:
    """What holds for the rows `s` that `scope` sees, and its values."""
    tenant_id, thread_id, is_anyone, user_id = in_scope(scope)
    if thread_id is not None:
        return f"s.thread = ({THREAD})", (tenant_id, thread_id)
    if is_anyone:
        return f"s.tenant = ({TENANT})", (tenant_id,)
    return f"s.tenant = ({TENANT}) AND s.user_id = ?", (tenant_id, user_id)


_RECORDS: Final = "CROSS JOIN records r ON r.seq = s.seq"
