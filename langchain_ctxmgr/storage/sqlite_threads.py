"""Which threads of the SQLite log there are, and who spoke in them."""

from __future__ import annotations

import sqlite3

from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.message_log import ThreadUse, tenant_of
from langchain_ctxmgr.storage.rows import after_prefix

Connection = sqlite3.Connection


def threads(connection: Connection, scope: Scope, prefix: str) -> list[ThreadUse]:
    """See `MessageLog.threads`. Goes through a user's tenant: it is asked for rarely."""
    tenant_id, end = tenant_of(scope), after_prefix(prefix)
    if scope.user_id is None:
        rows = connection.execute(
            "SELECT thread_id FROM threads WHERE tenant_id = ? AND thread_id >= ? "
            "AND thread_id < ? AND ifnull(thread_id = ?, 1) AND records > 0",
            (tenant_id, prefix, end, scope.thread_id),
        )
        return sorted(ThreadUse(thread_id, is_shared=False) for (thread_id,) in rows)
    rows = connection.execute(
        "SELECT t.thread_id, EXISTS (SELECT 1 FROM records o WHERE o.thread = t.thread "
        "AND o.user_id IS NOT ?2) FROM threads t WHERE t.tenant_id = ?1 "
        "AND t.thread_id >= ?3 AND t.thread_id < ?4 AND ifnull(t.thread_id = ?5, 1) "
        "AND EXISTS (SELECT 1 FROM records r WHERE r.thread = t.thread AND r.user_id = ?2)",
        (tenant_id, scope.user_id, prefix, end, scope.thread_id),
    )
    return sorted(ThreadUse(thread_id, bool(is_shared)) for thread_id, is_shared in rows)
