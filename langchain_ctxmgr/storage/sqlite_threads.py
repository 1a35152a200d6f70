"""Which threads of the SQLite log there are, and who spoke in them."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

import sqlite3
from typing import Final

from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.message_log import ThreadUse, tenant_of
from langchain_ctxmgr.storage.rows import after_prefix, thread_use_of

Connection = sqlite3.Connection
_NEWEST_AT: Final = "SELECT max(b.at) FROM branches b WHERE b.thread = t.thread"


def threads(connection: Connection, scope: Scope, prefix: str) -> list[ThreadUse]:
    """See `MessageLog.threads`. Goes through a user's tenant: it is asked for rarely."""
    tenant_id, end = tenant_of(scope), after_prefix(prefix)
    if scope.user_id is None:
        rows = connection.execute(
            f"SELECT t.thread_id, 0, ({_NEWEST_AT}) FROM threads t WHERE t.tenant_id = ? "
            "AND t.thread_id >= ? AND t.thread_id < ? AND ifnull(t.thread_id = ?, 1) "
            "AND t.records > 0",
            (tenant_id, prefix, end, scope.thread_id),
        )
        return sorted(map(thread_use_of, rows))
    rows = connection.execute(
        "SELECT t.thread_id, EXISTS (SELECT 1 FROM records o WHERE o.thread = t.thread "
        f"AND o.user_id IS NOT ?2), ({_NEWEST_AT}) FROM threads t WHERE t.tenant_id = ?1 "
        "AND t.thread_id >= ?3 AND t.thread_id < ?4 AND ifnull(t.thread_id = ?5, 1) "
        "AND EXISTS (SELECT 1 FROM records r WHERE r.thread = t.thread AND r.user_id = ?2)",
        (tenant_id, scope.user_id, prefix, end, scope.thread_id),
    )
    return sorted(map(thread_use_of, rows))
