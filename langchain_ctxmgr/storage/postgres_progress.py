"""What the PostgreSQL log holds ready for its indexes, and notes of them."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

from datetime import timedelta
from typing import Final

from langchain_ctxmgr.records import Branch, Scope
from langchain_ctxmgr.storage.message_log import (
    Erasure,
    IndexMarks,
    PendingRecords,
)
from langchain_ctxmgr.storage.postgres_append import FLOORS, HORIZON, floor_prefix
from langchain_ctxmgr.storage.postgres_reads import ITS_THREAD, RECORD_COLUMNS
from langchain_ctxmgr.storage.postgres_work import (
    BEGIN,
    COMMIT,
    Row,
    Statement,
    Steps,
    Work,
)
from langchain_ctxmgr.storage.rows import pending_of

_NO_SEQ: Final = 2**63 - 1


def tenants() -> Work[list[str]]:
    """See `MessageLog.tenants`."""

    def steps() -> Steps[list[str]]:
        [rows] = yield [Statement("SELECT tenant_id FROM tenants ORDER BY tenant")]
        return [tenant_id for (tenant_id,) in rows]

    return Work(None, steps)


def pending(tenant_id: str, after_seq: int, limit: int, schema: str) -> Work[PendingRecords]:
    """See `MessageLog.pending`."""

    def steps() -> Steps[PendingRecords]:
        [drawn, floors, rows] = yield [
            *_horizon(tenant_id, schema),
            Statement(_PENDING, (tenant_id, after_seq, limit)),
        ]
        until = _until(drawn, floors)
        return pending_of([row for row in rows if row[0] <= until], after_seq)

    return Work(tenant_id, steps)


def last_seq(tenant_id: str, until_seq: int | None, schema: str) -> Work[int]:
    """See `MessageLog.last_seq`. As far as `pending` goes: what comes later is not missed."""
    given = _NO_SEQ if until_seq is None else until_seq

    def steps() -> Steps[int]:
        [drawn, floors, [[newest]]] = yield [
            *_horizon(tenant_id, schema),
            Statement(_LAST, (tenant_id, given)),
        ]
        until = _until(drawn, floors)
        if newest > until:
            [[[newest]]] = yield [Statement(_LAST, (tenant_id, until))]
        return newest

    return Work(tenant_id, steps)


def _horizon(tenant_id: str, schema: str) -> tuple[Statement, Statement]:
    """Statements to come before one that reads records: each has a snapshot of its own."""
    return Statement(HORIZON), Statement(FLOORS, (floor_prefix(schema, tenant_id),))


def _until(drawn: list[Row], floors: list[Row]) -> int:
    """The `seq` up to which no record can come any more."""
    return min(seq for [(seq,)] in (drawn, floors) if seq is not None)


def marks(tenant_id: str, index_id: str) -> Work[IndexMarks]:
    """See `MessageLog.marks`."""

    def steps() -> Steps[IndexMarks]:
        [rows] = yield [Statement(_MARKS, (tenant_id, index_id))]
        return IndexMarks(*rows[0]) if rows else IndexMarks()

    return Work(tenant_id, steps)


def set_marks(tenant_id: str, index_id: str, words_seq: int, dense_seq: int) -> Work[None]:
    """See `MessageLog.set_marks`."""
    values = (tenant_id, index_id, words_seq, dense_seq)
    return _doing(tenant_id, Statement(_SET_MARKS, values))


def erasures(tenant_id: str, after_id: int) -> Work[list[Erasure]]:
    """See `MessageLog.erasures`."""

    def steps() -> Steps[list[Erasure]]:
        [rows] = yield [Statement(_ERASURES, (tenant_id, after_id))]
        return [
            Erasure(
                number,
                Scope(tenant_id=tenant_id, thread_id=thread_id),
                None if seqs is None else tuple(seqs),
            )
            for number, thread_id, seqs in rows
        ]

    return Work(tenant_id, steps)


def set_erased(tenant_id: str, index_id: str, erasure_id: int) -> Work[None]:
    """See `MessageLog.set_erased`."""
    return _doing(tenant_id, Statement(_SET_ERASED, (tenant_id, index_id, erasure_id)))


def unfollowed(index_id: str, limit: int) -> Work[list[str]]:
    """See `MessageLog.unfollowed`."""

    def steps() -> Steps[list[str]]:
        [rows] = yield [Statement(_UNFOLLOWED, (index_id, limit))]
        return [tenant_id for (tenant_id,) in rows]

    return Work(None, steps)


def claim(tenant_id: str, task: str, holder: str, duration: timedelta) -> Work[bool]:
    """See `MessageLog.claim`. The clock is the server's."""
    values = (tenant_id, task, holder, duration)

    def steps() -> Steps[bool]:
        [rows] = yield [Statement(_CLAIM, values)]
        return bool(rows)

    return Work(tenant_id, steps)


def release(tenant_id: str, task: str, holder: str) -> Work[None]:
    """See `MessageLog.release`."""
    return _doing(tenant_id, Statement(_RELEASE, (tenant_id, task, holder)))


def put_derived(branch: Branch, kind: str, key: str, value: bytes, keep: int) -> Work[None]:
    """See `MessageLog.put_derived`."""
    owner = (branch.tenant_id, branch.thread_id)
    seq = 0 if branch.head is None else branch.head.seq
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")

    def steps() -> Steps[None]:
        [rows] = yield [Statement(_LOCK_STANDING, (*owner, branch.withdrawn, seq))]
        if not rows:
            return
        [[thread]] = rows
        yield [
            Statement(_PUT, (owner[0], thread, kind, key, value)),
            Statement(_FORGET_OLD, (thread, kind, thread, kind, keep)),
            COMMIT,
        ]

    return Work(owner[0], steps, begin=BEGIN)


def _doing(tenant_id: str | None, statement: Statement) -> Work[None]:
    def steps() -> Steps[None]:
        yield [statement]

    return Work(tenant_id, steps)


_PENDING: Final = (
    f"SELECT {RECORD_COLUMNS}, r.terms FROM (SELECT * FROM records r WHERE r.tenant_id = %s "
    f"AND r.seq > %s ORDER BY r.seq LIMIT %s) r {ITS_THREAD} ORDER BY r.seq"
)
_LAST: Final = (
    "SELECT coalesce((SELECT seq FROM records WHERE tenant_id = %s AND seq <= %s "
    "ORDER BY seq DESC LIMIT 1), 0)"
)
_MARKS: Final = (
    "SELECT words_seq, dense_seq, erasure_id FROM marks WHERE tenant_id = %s AND index_id = %s"
)
_SET_MARKS: Final = (
    "INSERT INTO marks VALUES (%s, %s, %s, %s) ON CONFLICT (tenant_id, index_id) DO UPDATE "
    "SET words_seq = excluded.words_seq, dense_seq = excluded.dense_seq"
)
_ERASURES: Final = (
    "SELECT id, thread_id, seqs FROM erasures WHERE tenant_id = %s AND id > %s ORDER BY id"
)
_SET_ERASED: Final = (
    "INSERT INTO marks AS m (tenant_id, index_id, erasure_id) VALUES (%s, %s, %s) "
    "ON CONFLICT (tenant_id, index_id) DO UPDATE "
    "SET erasure_id = greatest(m.erasure_id, excluded.erasure_id)"
)
_UNFOLLOWED: Final = (
    "SELECT e.tenant_id FROM (SELECT tenant_id, max(id) AS newest FROM erasures "
    "GROUP BY tenant_id) e LEFT JOIN marks m ON m.tenant_id = e.tenant_id AND m.index_id = %s "
    "WHERE e.newest > coalesce(m.erasure_id, 0) ORDER BY e.tenant_id LIMIT %s"
)
_CLAIM: Final = (
    "INSERT INTO claims AS c VALUES (%s, %s, %s, clock_timestamp() + %s::interval) "
    "ON CONFLICT (tenant_id, task) DO UPDATE SET holder = excluded.holder, until = excluded.until "
    "WHERE c.holder = excluded.holder OR c.until <= clock_timestamp() RETURNING 1"
)
_RELEASE: Final = "DELETE FROM claims WHERE tenant_id = %s AND task = %s AND holder = %s"
_LOCK_STANDING: Final = (
    "SELECT t.thread FROM threads t WHERE t.tenant_id = %s AND t.thread_id = %s "
    "AND t.withdrawn = %s "
    "AND EXISTS (SELECT 1 FROM records r WHERE r.seq = %s AND r.thread = t.thread) "
    "FOR UPDATE OF t"
)
"""The thread, while that record of it is in the log: a `seq` is never given out again."""
_PUT: Final = (
    "INSERT INTO derived (tenant_id, thread, kind, key, value) VALUES (%s, %s, %s, %s, %s) "
    "ON CONFLICT (thread, kind, key) DO UPDATE SET id = excluded.id, value = excluded.value"
)
_FORGET_OLD: Final = (
    "DELETE FROM derived WHERE thread = %s AND kind = %s AND id < (SELECT min(id) FROM "
    "(SELECT id FROM derived WHERE thread = %s AND kind = %s ORDER BY id DESC LIMIT %s) kept)"
)
