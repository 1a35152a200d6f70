"""What the SQLite log notes for its indexes: how far each has come, and who is at work."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

import sqlite3
import time
from datetime import timedelta

from langchain_ctxmgr.storage.sqlite_append import tenant_key
from langchain_ctxmgr.storage.sqlite_rows import TENANT

Connection = sqlite3.Connection


def set_marks(
    connection: Connection, tenant_id: str, index_id: str, words_seq: int, dense_seq: int
) -> None:
    """See `MessageLog.set_marks`."""
    connection.execute(
        "INSERT INTO marks (tenant, index_id, words_seq, dense_seq) VALUES (?1, ?2, ?3, ?4) "
        "ON CONFLICT (tenant, index_id) DO UPDATE SET words_seq = ?3, dense_seq = ?4",
        (tenant_key(connection, tenant_id), index_id, words_seq, dense_seq),
    )


def set_erased(connection: Connection, tenant_id: str, index_id: str, erasure_id: int) -> None:
    """See `MessageLog.set_erased`."""
    connection.execute(
        "INSERT INTO marks (tenant, index_id, erasure_id) VALUES (?1, ?2, ?3) "
        "ON CONFLICT (tenant, index_id) DO UPDATE SET erasure_id = max(erasure_id, ?3)",
        (tenant_key(connection, tenant_id), index_id, erasure_id),
    )


def claim(
    connection: Connection, tenant_id: str, task: str, holder: str, duration: timedelta
) -> bool:
    """See `MessageLog.claim`. The clock is the machine's: the file is on one machine."""
    now = time.time()
    changed = connection.execute(
        "INSERT INTO claims VALUES (?1, ?2, ?3, ?4) ON CONFLICT (tenant, task) DO UPDATE "
        "SET holder = ?3, until = ?4 WHERE holder = ?3 OR until <= ?5",
        (
            tenant_key(connection, tenant_id),
            task,
            holder,
            now + duration.total_seconds(),
            now,
        ),
    )
    return changed.rowcount > 0


def release(connection: Connection, tenant_id: str, task: str, holder: str) -> None:
    """See `MessageLog.release`."""
    connection.execute(
        f"DELETE FROM claims WHERE tenant = ({TENANT}) AND task = ? AND holder = ?",
        (tenant_id, task, holder),
    )
