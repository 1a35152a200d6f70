"""Reading the PostgreSQL log: every statement finds its rows by an index.

A branch is read span by span, each a range of slots, so what a read costs depends on what
it returns, not on the length of the thread or the log. Row-level security narrows every
table to the tenant; the statements name it all the same.
"""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

from collections.abc import Collection, Sequence
from heapq import nsmallest
from typing import Final

from langchain_ctxmgr.records import Branch, LogRecord, Scope, Span, Turn
from langchain_ctxmgr.storage.message_log import (
    LogStats,
    ThreadUse,
    tenant_of,
    thread_of,
    user_of,
)
from langchain_ctxmgr.storage.postgres_append import key_of
from langchain_ctxmgr.storage.postgres_work import (
    COMMIT,
    SNAPSHOT,
    Row,
    Statement,
    Steps,
    Work,
    array,
)
from langchain_ctxmgr.storage.rows import after_prefix, bytes_of, record_of, thread_use_of, turns_of
from langchain_ctxmgr.turns import Turns

TURN_COLUMNS: Final = (
    "r.seq, t.thread_id, r.slot, r.branch, r.session, r.role, r.speaker, r.at, r.tokens, "
    "r.importance, r.cues"
)
RECORD_COLUMNS: Final = (
    f"{TURN_COLUMNS}, t.tenant_id, r.user_id, r.position, r.revision, r.parent, r.message_id, "
    "r.encoding, r.total_tokens, r.total_importance, r.digest, r.chain, r.payload"
)
NEWEST: Final = (
    "NOT EXISTS (SELECT 1 FROM records n WHERE n.thread = r.thread AND n.slot = r.slot "
    "AND n.revision > r.revision AND n.revision > 0)"
)
"""Holds for a record that no later revision supersedes."""
_OF_THREAD: Final = "t.tenant_id = %s AND t.thread_id = %s"
_EACH: Final = (
    "FROM threads t CROSS JOIN LATERAL (SELECT * FROM records r WHERE r.thread = t.thread"
)
"""Followed by what picks records of the thread: in a subquery of its own, so that its order and
limit are the index's. Joined, the planner would sort, not knowing that there is one thread."""
IN_SCOPE: Final = (
    "t.tenant_id = %s AND (%s::text IS NULL OR t.thread_id = %s) "
    "AND (%s::text IS NULL OR r.user_id = %s)"
)
"""Holds for the records `t`, `r` that the values of `in_scope` let through."""
ITS_THREAD: Final = (
    "CROSS JOIN LATERAL (SELECT * FROM threads t WHERE t.thread = r.thread LIMIT 1) t"
)
ASKED: Final = (
    "unnest(%s::bigint[]) WITH ORDINALITY j (seq, place) "
    "CROSS JOIN LATERAL (SELECT * FROM records r WHERE r.seq = j.seq LIMIT 1) r"
)
"""Each record asked for, looked up on its own. Joined, a planner that takes the tables for empty
may go through all of a tenant's, and keeps that plan until they are next analyzed."""
_MAX_SLOT: Final = 2**62


def in_scope(scope: Scope) -> tuple[str, str | None, str | None, str | None, str | None]:
    """The values of `IN_SCOPE`: a thread belongs together whoever spoke in it."""
    user_id, thread_id = user_of(scope), scope.thread_id
    return tenant_of(scope), thread_id, thread_id, user_id, user_id


def branch(scope: Scope, head: str | None) -> Work[Branch]:
    """See `MessageLog.branch`."""
    tenant_id, thread_id = thread_of(scope)
    if head is None:
        end = Statement(_NEWEST_LINE, (tenant_id, thread_id))
    else:
        end = Statement(_LINE_TO, (key_of(bytes_of(head)), tenant_id, thread_id))

    def steps() -> Steps[Branch]:
        [rows] = yield [end]
        if not rows and head is not None:
            [rows] = yield [Statement(_LINE_TO_WITHDRAWN, end.values)]
        if not rows:
            if head is not None:
                raise ValueError(f"head must be the id of a message in {scope}, got {head!r}")
            return Branch(tenant_id=tenant_id, thread_id=thread_id, spans=(), head=None)
        # The head comes with every span: a row a branch, the newest first.
        spans = [Span(row[-3], row[-2]) for row in rows]
        return Branch(
            tenant_id=tenant_id,
            thread_id=thread_id,
            spans=tuple(reversed(spans)),
            head=None if rows[0][0] is None else record_of(rows[0]),
            withdrawn=rows[0][-4],
        )

    return Work(tenant_id, steps)


def read(
    line: Branch,
    *,
    from_slot: int,
    before_slot: int | None,
    limit: int | None,
    newest_first: bool,
    roles: Collection[str] | None,
) -> Work[list[LogRecord]]:
    """See `MessageLog.read`."""
    direction = "DESC" if newest_first else "ASC"
    statement = (
        f"SELECT {RECORD_COLUMNS} {_EACH} AND r.branch = %s AND r.slot BETWEEN %s AND %s AND "
        f"(t.revisions = 0 OR {NEWEST}){'' if roles is None else ' AND r.role = %s'} "
        f"ORDER BY r.slot {direction} LIMIT %s) r WHERE {_OF_THREAD}"
    )
    last_slot = _MAX_SLOT if before_slot is None else before_slot - 1
    spans = [
        (span.branch, from_slot, min(span.last_slot, last_slot))
        for span in (reversed(line.spans) if newest_first else line.spans)
        if from_slot <= min(span.last_slot, last_slot)
    ]

    # One query a role: each walks its index from the end asked for, up to the limit.
    picked = [()] if roles is None else [(role,) for role in roles]
    owner = (line.tenant_id, line.thread_id)

    def steps() -> Steps[list[LogRecord]]:
        records: list[LogRecord] = []
        for span in spans if picked else ():
            room = None if limit is None else limit - len(records)
            if room == 0:
                break
            answers = yield [Statement(statement, (*span, *role, room, *owner)) for role in picked]
            rows = [row for answer in answers for row in answer]
            rows.sort(key=_slot, reverse=newest_first)
            records += map(record_of, rows[:room])
        return records

    return Work(line.tenant_id, steps, begin=SNAPSHOT if len(spans) * len(picked) > 1 else None)


def _slot(row: Row) -> int:
    return row[2]


def locate(line: Branch, total_tokens: int) -> Work[int | None]:
    """See `MessageLog.locate`.

    Totals only rise along a line, so the oldest span with such a message has the first.
    """
    asked = [
        Statement(_LOCATE, (span.branch, total_tokens, span[1], line.tenant_id, line.thread_id))
        for span in line.spans
    ]

    def steps() -> Steps[int | None]:
        found = None
        for statement in reversed(asked):
            [rows] = yield [statement]
            if not rows:
                break
            found = rows[0][0]
        return found

    return Work(line.tenant_id, steps, begin=SNAPSHOT if len(asked) > 1 else None)


def find(line: Branch, message_id: str) -> Work[LogRecord | None]:
    """See `MessageLog.find`."""

    def steps() -> Steps[LogRecord | None]:
        key = key_of(bytes_of(message_id))
        [rows] = yield [Statement(_FIND, (key, line.tenant_id, line.thread_id))]
        row = rows[0] if rows else None
        return record_of(row) if row is not None and line.holds(row[3], row[2]) else None

    return Work(line.tenant_id, steps)


def revised(line: Branch, before_slot: int) -> Work[int | None]:
    """See `MessageLog.revised`."""
    owner = (line.tenant_id, line.thread_id)
    asked = [
        Statement(_REVISED, (number, min(last_slot, before_slot - 1), *owner))
        for number, last_slot in line.spans
    ]

    def steps() -> Steps[int | None]:
        if not asked:
            return None
        answers = yield asked
        return max((position for rows in answers for (position,) in rows), default=None)

    return Work(line.tenant_id, steps)


def fetch(scope: Scope, seqs: Sequence[int]) -> Work[list[LogRecord]]:
    """See `MessageLog.fetch`."""

    def steps() -> Steps[list[LogRecord]]:
        [rows] = yield [Statement(_FETCH, (array(seqs), *in_scope(scope)))]
        return [record_of(row) for row in rows]

    return Work(tenant_of(scope), steps)


def turns(scope: Scope, seqs: Sequence[int], around: int, known: Turns) -> Work[Turns]:
    """See `MessageLog.turns`."""
    seen = in_scope(scope)
    given = set(known.seq.tolist())

    def steps() -> Steps[Turns]:
        if around == 0:
            wanted = array(seq for seq in seqs if seq not in given)
            [rows] = yield [Statement(_TURNS, (wanted, *seen))]
            return turns_of(rows)
        [rows] = yield [Statement(_NEAR, (array(seqs), *seen[3:], around, around, *seen))]
        return turns_of({row[0]: row for row in rows if row[0] not in given}.values())

    return Work(tenant_of(scope), steps)


def top(line: Branch, before_slot: int, limit: int) -> Work[list[Turn]]:
    """See `MessageLog.top`."""
    scope = Scope(tenant_id=line.tenant_id, thread_id=line.thread_id)
    asked = [
        Statement(_TOP, (number, min(last_slot, before_slot - 1), limit, *thread_of(scope)))
        for number, last_slot in line.spans
    ]

    def steps() -> Steps[list[Turn]]:
        if not asked:
            return []
        answers = yield asked
        ranked = [row for answer in answers for row in answer]
        best = array(seq for _, _, seq in nsmallest(limit, ranked))
        [rows, _] = yield [Statement(_TURNS, (best, *in_scope(scope))), COMMIT]
        return list(turns_of(rows))

    return Work(line.tenant_id, steps, begin=SNAPSHOT)


def page(scope: Scope, position: int, limit: int) -> Work[list[LogRecord]]:
    """Up to `limit` records of a thread in append order, from `position` on."""

    def steps() -> Steps[list[LogRecord]]:
        [rows] = yield [Statement(_PAGE, (position, limit, *thread_of(scope)))]
        return [record_of(row) for row in rows]

    return Work(tenant_of(scope), steps)


def stats(scope: Scope) -> Work[LogStats]:
    """See `MessageLog.tenant_stats`."""

    def steps() -> Steps[LogStats]:
        values = (tenant_of(scope), scope.thread_id, scope.thread_id)
        [[[threads, records, revisions, size]]] = yield [Statement(_STATS, values)]
        return LogStats(threads=threads, records=records, revisions=revisions, bytes=size)

    return Work(tenant_of(scope), steps)


def threads(scope: Scope, prefix: str) -> Work[list[ThreadUse]]:
    """See `MessageLog.threads`. Goes through a user's tenant: it is asked for rarely."""
    user_id, thread_id = scope.user_id, scope.thread_id
    named = (tenant_of(scope), prefix, after_prefix(prefix), thread_id, thread_id)

    def steps() -> Steps[list[ThreadUse]]:
        [rows] = yield [Statement(_THREADS, (user_id, user_id, *named, user_id, user_id))]
        return sorted(map(thread_use_of, rows))

    return Work(tenant_of(scope), steps, is_long=True)


def get_derived(scope: Scope, kind: str, key: str) -> Work[bytes | None]:
    """See `MessageLog.get_derived`."""
    owner = thread_of(scope)

    def steps() -> Steps[bytes | None]:
        [rows] = yield [Statement(_DERIVED, (*owner, kind, key))]
        return rows[0][0] if rows else None

    return Work(owner[0], steps)


_LINE: Final = (
    "line AS (SELECT thread, branch, slot, 0 AS depth FROM head UNION ALL "
    "SELECT b.thread, b.fork_branch, b.fork_slot, l.depth + 1 FROM line l "
    "JOIN branches b ON b.thread = l.thread AND b.branch = l.branch "
    "WHERE b.fork_branch IS NOT NULL), "
    # The last record of the first span that has any: single ones may be erased.
    "newest AS MATERIALIZED (SELECT r.seq FROM line l CROSS JOIN LATERAL (SELECT r.seq "
    "FROM records r WHERE r.thread = l.thread AND r.branch = l.branch AND r.slot <= l.slot "
    "ORDER BY r.slot DESC, r.revision DESC LIMIT 1) r ORDER BY l.depth LIMIT 1) "
    f"SELECT {RECORD_COLUMNS}, t.withdrawn, line.branch, line.slot, line.depth FROM line "
    "CROSS JOIN LATERAL (SELECT * FROM threads t WHERE t.thread = line.thread LIMIT 1) t "
    "LEFT JOIN newest ON true LEFT JOIN LATERAL (SELECT * FROM records r "
    "WHERE r.seq = newest.seq LIMIT 1) r ON true ORDER BY line.depth"
)
_NEWEST_LINE: Final = (
    "WITH RECURSIVE head AS MATERIALIZED (SELECT t.thread, t.branch, b.tip_slot AS slot "
    "FROM threads t JOIN branches b ON b.thread = t.thread AND b.branch = t.branch "
    f"WHERE {_OF_THREAD}), {_LINE}"
)
_LINE_TO: Final = (
    f"WITH RECURSIVE head AS MATERIALIZED (SELECT t.thread, r.branch, r.slot {_EACH} "
    f"AND r.message_key = %s ORDER BY r.revision DESC LIMIT 1) r WHERE {_OF_THREAD}), {_LINE}"
)
_LINE_TO_WITHDRAWN: Final = (
    "WITH RECURSIVE head AS MATERIALIZED (SELECT t.thread, w.branch, w.slot FROM threads t "
    "CROSS JOIN LATERAL (SELECT * FROM withdrawn w WHERE w.thread = t.thread "
    f"AND w.message_key = %s LIMIT 1) w WHERE {_OF_THREAD}), {_LINE}"
)
_LOCATE: Final = (
    f"SELECT r.slot {_EACH} AND r.branch = %s AND r.revision = 0 AND r.tokens_before >= %s "
    f"AND r.slot <= %s ORDER BY r.tokens_before, r.slot LIMIT 1) r WHERE {_OF_THREAD}"
)
_FIND: Final = (
    f"SELECT {RECORD_COLUMNS} {_EACH} AND r.message_key = %s "
    f"ORDER BY r.revision DESC LIMIT 1) r WHERE {_OF_THREAD}"
)
_REVISED: Final = (
    f"SELECT r.position {_EACH} AND r.branch = %s AND r.revision > 0 AND r.slot <= %s "
    f"ORDER BY r.position DESC LIMIT 1) r WHERE {_OF_THREAD}"
)
_FETCH: Final = (
    f"SELECT {RECORD_COLUMNS} FROM {ASKED} {ITS_THREAD} WHERE {IN_SCOPE} ORDER BY j.place"
)
_TURNS: Final = (
    f"SELECT {TURN_COLUMNS} FROM {ASKED} {ITS_THREAD} WHERE {IN_SCOPE} "
    f"AND (t.revisions = 0 OR {NEWEST}) ORDER BY j.place"
)
_NEAR: Final = (
    f"SELECT {TURN_COLUMNS} FROM unnest(%s::bigint[]) WITH ORDINALITY j (seq, place) "
    "CROSS JOIN LATERAL (SELECT * FROM records h WHERE h.seq = j.seq "
    "AND (%s::text IS NULL OR h.user_id = %s) LIMIT 1) h "
    "CROSS JOIN LATERAL (SELECT * FROM records r WHERE r.thread = h.thread "
    "AND r.branch = h.branch AND r.slot BETWEEN h.slot - %s AND h.slot + %s "
    f"ORDER BY r.slot OFFSET 0) r {ITS_THREAD} WHERE {IN_SCOPE} "
    f"AND (t.revisions = 0 OR {NEWEST}) ORDER BY j.place, r.slot"
)
_TOP: Final = (
    f"SELECT -r.importance, r.slot, r.seq {_EACH} AND r.branch = %s AND r.has_terms "
    "AND r.role IN ('human', 'ai', 'tool') "
    f"AND r.slot <= %s AND (t.revisions = 0 OR {NEWEST}) "
    f"ORDER BY r.importance DESC, r.slot LIMIT %s) r WHERE {_OF_THREAD}"
)
_PAGE: Final = (
    f"SELECT {RECORD_COLUMNS} {_EACH} AND r.position >= %s "
    f"ORDER BY r.position LIMIT %s) r WHERE {_OF_THREAD}"
)
_STATS: Final = (
    "SELECT count(*), coalesce(sum(t.records - t.withdrawn), 0)::bigint, "
    "coalesce(sum(t.revisions), 0)::bigint, coalesce(sum(t.bytes - (SELECT "
    "coalesce(sum(w.bytes), 0) FROM withdrawn w WHERE w.thread = t.thread)), 0)::bigint "
    "FROM threads t WHERE t.tenant_id = %s AND (%s::text IS NULL OR t.thread_id = %s) "
    "AND t.records > t.withdrawn"
)
_THREADS: Final = (
    "SELECT t.thread_id, %s::text IS NOT NULL AND EXISTS (SELECT 1 FROM records o "
    "WHERE o.thread = t.thread AND o.user_id IS DISTINCT FROM %s::text), "
    "(SELECT max(b.at) FROM branches b WHERE b.thread = t.thread) FROM threads t "
    "WHERE t.tenant_id = %s AND t.thread_id >= %s AND t.thread_id < %s "
    "AND (%s::text IS NULL OR t.thread_id = %s) AND t.records > 0 AND (%s::text IS NULL OR "
    "EXISTS (SELECT 1 FROM records r WHERE r.thread = t.thread AND r.user_id = %s))"
)
_DERIVED: Final = (
    "SELECT d.value FROM threads t JOIN derived d ON d.thread = t.thread "
    f"WHERE {_OF_THREAD} AND d.kind = %s AND d.key = %s"
)
