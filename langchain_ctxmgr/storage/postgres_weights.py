"""What a user marks in the PostgreSQL log: kept beside the records, and removed with them."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

from typing import Final

from langchain_ctxmgr.records import Scope, Weighed
from langchain_ctxmgr.storage.message_log import Weighing, tenant_of, thread_of
from langchain_ctxmgr.storage.postgres_append import key_of
from langchain_ctxmgr.storage.postgres_reads import NEWEST, in_scope
from langchain_ctxmgr.storage.postgres_work import BEGIN, COMMIT, Statement, Steps, Work
from langchain_ctxmgr.storage.rows import after_prefix, bytes_of, weighed_of
from langchain_ctxmgr.turns import micros_of


def weigh(scope: Scope, message_id: str, given: Weighing) -> Work[bool]:
    """See `MessageLog.weigh`. The thread is held, so that two of a message are in order."""
    owner = thread_of(scope)
    key = key_of(bytes_of(message_id))
    values = (given.is_pinned, given.weight, micros_of(given.at))

    def steps() -> Steps[bool]:
        [_, rows, _] = yield [
            Statement(_LOCK, owner),
            Statement(_WEIGH, (*values, *owner, key)),
            COMMIT,
        ]
        return bool(rows)

    return Work(owner[0], steps, begin=BEGIN)


def weighed(scope: Scope, beside: str | None) -> Work[list[Weighed]]:
    """See `MessageLog.weighed`."""
    seen = in_scope(scope)
    named = (beside, beside, None if beside is None else after_prefix(beside))

    def steps() -> Steps[list[Weighed]]:
        [rows] = yield [Statement(_WEIGHED, (tenant_of(scope), *seen[1:], *named))]
        return [weighed_of(row) for row in rows]

    return Work(tenant_of(scope), steps)


_LOCK: Final = "SELECT 1 FROM threads WHERE tenant_id = %s AND thread_id = %s FOR NO KEY UPDATE"
_BEFORE: Final = (
    "FROM weights w WHERE w.thread = r.thread AND w.message_key = r.message_key "
    "ORDER BY w.id DESC LIMIT 1"
)
_WEIGH: Final = (
    "INSERT INTO weights (tenant_id, thread, user_id, message_key, is_pinned, weight, at) "
    "SELECT r.tenant_id, r.thread, r.user_id, r.message_key, "
    f"coalesce(%s::boolean, (SELECT w.is_pinned {_BEFORE}), false), "
    f"coalesce(%s::double precision, (SELECT w.weight {_BEFORE}), 1), %s::bigint "
    "FROM threads t JOIN records r ON r.thread = t.thread WHERE t.tenant_id = %s "
    "AND t.thread_id = %s AND r.message_key = %s ORDER BY r.revision DESC LIMIT 1 RETURNING 1"
)
_WEIGHED: Final = (
    "SELECT r.seq, t.thread_id, r.branch, r.slot, r.user_id, r.message_id, w.is_pinned, "
    "w.weight, w.at FROM weights w JOIN threads t ON t.thread = w.thread "
    "JOIN records r ON r.thread = w.thread AND r.message_key = w.message_key "
    "WHERE w.tenant_id = %s AND w.id = (SELECT max(n.id) FROM weights n "
    "WHERE n.thread = w.thread AND n.message_key = w.message_key) "
    "AND (w.is_pinned OR w.weight <> 1) AND ((%s::text IS NULL OR t.thread_id = %s) "
    "AND (%s::text IS NULL OR r.user_id = %s) OR (%s::text IS NOT NULL "
    f"AND t.thread_id >= %s AND t.thread_id < %s)) AND {NEWEST} ORDER BY w.id"
)
