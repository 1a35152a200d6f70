"""What records of the PostgreSQL log state: kept beside them, and removed with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.message_log import Stated, tenant_of
from langchain_ctxmgr.storage.postgres_reads import IN_SCOPE, NEWEST, in_scope
from langchain_ctxmgr.storage.postgres_work import BEGIN, COMMIT, Statement, Steps, Work, array
from langchain_ctxmgr.storage.rows import stated_of


def put_stated(
    tenant_id: str, values: Mapping[int, bytes], after_seq: int, until_seq: int
) -> Work[None]:
    """See `MessageLog.put_stated`. The threads are held, so that none is erased meanwhile."""
    seqs = array(values)

    def steps() -> Steps[None]:
        yield [
            Statement(_LOCK, (tenant_id, seqs)),
            Statement(_DELETE, (tenant_id, after_seq, until_seq)),
            Statement(_INSERT, (seqs, [*values.values()], tenant_id)),
            COMMIT,
        ]

    return Work(tenant_id, steps, begin=BEGIN)


def stated(scope: Scope, after_seq: int) -> Work[list[Stated]]:
    """See `MessageLog.stated`."""

    def steps() -> Steps[list[Stated]]:
        [rows] = yield [Statement(_STATED, (tenant_of(scope), *in_scope(scope), after_seq))]
        return [stated_of(row) for row in rows]

    return Work(tenant_of(scope), steps)


def stated_count(scope: Scope) -> Work[int]:
    """See `MessageLog.stated_count`."""

    def steps() -> Steps[int]:
        [[[count]]] = yield [Statement(_COUNT, (tenant_of(scope), *in_scope(scope)))]
        return count

    return Work(tenant_of(scope), steps)


_LOCK: Final = (
    "SELECT t.thread FROM threads t WHERE t.tenant_id = %s AND t.thread IN "
    "(SELECT r.thread FROM records r WHERE r.seq = ANY(%s::bigint[])) "
    "ORDER BY t.thread FOR KEY SHARE"
)
_DELETE: Final = "DELETE FROM stated WHERE tenant_id = %s AND seq > %s AND seq <= %s"
_INSERT: Final = (
    "INSERT INTO stated (seq, tenant_id, thread, user_id, value) "
    "SELECT r.seq, r.tenant_id, r.thread, r.user_id, v.value "
    "FROM unnest(%s::bigint[], %s::bytea[]) v (seq, value) JOIN records r ON r.seq = v.seq "
    "WHERE r.tenant_id = %s ON CONFLICT (seq) DO UPDATE SET value = excluded.value"
)
_SEEN: Final = (
    "FROM stated s JOIN records r ON r.seq = s.seq JOIN threads t ON t.thread = r.thread "
    f"WHERE s.tenant_id = %s AND {IN_SCOPE} AND (t.revisions = 0 OR {NEWEST})"
)
_STATED: Final = (
    "SELECT s.seq, t.thread_id, r.branch, r.slot, r.user_id, r.message_id, r.at, s.value "
    f"{_SEEN} AND s.seq > %s ORDER BY s.seq"
)
_COUNT: Final = f"SELECT count(*) {_SEEN}"
DELETE_STATED: Final = (
    "WITH gone AS (DELETE FROM stated WHERE thread = ANY(%s::bigint[]) RETURNING 1) "
    "SELECT count(*) FROM gone"
)
