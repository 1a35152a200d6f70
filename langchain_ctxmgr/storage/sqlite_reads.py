"""Reading the SQLite log: every statement finds its rows by an index.

A branch is read span by span, each a range of slots, so what a read costs depends on
what it returns, not on the length of the thread.
"""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from heapq import nsmallest
from itertools import chain
from typing import Any, Final

from langchain_ctxmgr.records import Branch, LogRecord, Scope, Span, Turn
from langchain_ctxmgr.storage.message_log import (
    Erasure,
    IndexMarks,
    LogStats,
    PendingRecords,
    tenant_of,
    thread_of,
    user_of,
)
from langchain_ctxmgr.storage.rows import Row, bytes_of, pending_of, record_of, turns_of
from langchain_ctxmgr.storage.sqlite_rows import (
    NEWEST,
    RECORD_COLUMNS,
    RECORD_TABLES,
    TENANT,
    TURN_FIELDS,
)
from langchain_ctxmgr.turns import NO_TURNS, Turns

Connection = sqlite3.Connection
_NO_LIMIT: Final = -1
_NO_SEQ: Final = 2**63 - 1
IN_SCOPE: Final = "t.tenant_id = ? AND ifnull(t.thread_id = ?, 1) AND (? OR r.user_id = ?)"
"""Holds for the records `t`, `r` that the parameters of `in_scope` let through."""
THREAD: Final = "SELECT thread FROM threads WHERE tenant_id = ? AND thread_id = ?"
_ITS_THREAD_ID: Final = "SELECT t.thread_id FROM threads t WHERE t.thread = r.thread"


_PLACE: Final = "SELECT thread, branch, slot, ? FROM {} WHERE thread = ? AND message_id = ? LIMIT 1"


def in_scope(scope: Scope) -> tuple[str, str | None, bool, str | None]:
    """The parameters of `IN_SCOPE`: a thread belongs together whoever spoke in it."""
    user_id = user_of(scope)
    return tenant_of(scope), scope.thread_id, user_id is None, user_id


def thread_key(connection: Connection, tenant_id: str, thread_id: str) -> int | None:
    """The integer that stands for a thread in every other table; None if it has no row."""
    row = connection.execute(THREAD, (tenant_id, thread_id)).fetchone()
    return None if row is None else row[0]


def standing_key(connection: Connection, line: Branch) -> int | None:
    """`thread_key` while all that `line` showed is in the log: a `seq` is never given out again."""
    if line.head is None:
        return None
    row = connection.execute(
        "SELECT t.thread FROM records r CROSS JOIN threads t ON t.thread = r.thread "
        "WHERE r.seq = ? AND t.tenant_id = ? AND t.thread_id = ? AND t.withdrawn = ?",
        (line.head.seq, line.tenant_id, line.thread_id, line.withdrawn),
    ).fetchone()
    return None if row is None else row[0]


def branch(connection: Connection, scope: Scope, head: str | None) -> Branch:
    """See `MessageLog.branch`."""
    tenant_id, thread_id = thread_of(scope)
    row = connection.execute(
        "SELECT t.thread, t.branch, b.tip_slot, t.withdrawn FROM threads t CROSS JOIN branches b "
        "ON b.thread = t.thread AND b.branch = t.branch WHERE t.tenant_id = ? AND t.thread_id = ?",
        (tenant_id, thread_id),
    ).fetchone()
    if row is not None and head is not None:
        asked = (row[3], row[0], bytes_of(head))
        row = connection.execute(_PLACE.format("records"), asked).fetchone()
        row = row or connection.execute(_PLACE.format("withdrawn"), asked).fetchone()
    if row is None:
        if head is not None:
            raise ValueError(f"head must be the id of a message in {scope}, got {head!r}")
        return Branch(tenant_id=tenant_id, thread_id=thread_id, spans=(), head=None)
    key, number, slot, withdrawn = row
    spans: list[Span] = []
    while number is not None:
        spans.append(Span(number, slot))
        number, slot = connection.execute(
            "SELECT fork_branch, fork_slot FROM branches WHERE thread = ? AND branch = ?",
            (key, number),
        ).fetchone()
    return Branch(
        tenant_id=tenant_id,
        thread_id=thread_id,
        spans=tuple(reversed(spans)),
        head=_newest(connection, key, spans),
        withdrawn=withdrawn,
    )


def read(
    connection: Connection,
    line: Branch,
    *,
    from_slot: int,
    before_slot: int | None,
    limit: int | None,
    newest_first: bool,
    roles: Collection[str] | None,
) -> list[LogRecord]:
    """See `MessageLog.read`."""
    key = thread_key(connection, line.tenant_id, line.thread_id)
    if key is None:
        return []
    order = "DESC" if newest_first else "ASC"
    statement = (
        f"SELECT {RECORD_COLUMNS} FROM {RECORD_TABLES} WHERE r.thread = ? AND r.branch = ? "
        f"AND r.slot BETWEEN ? AND ? AND {NEWEST}{'' if roles is None else ' AND r.role = ?'} "
        f"ORDER BY r.slot {order} LIMIT ?"
    )
    records: list[LogRecord] = []
    for span in reversed(line.spans) if newest_first else line.spans:
        last = span.last_slot if before_slot is None else min(span.last_slot, before_slot - 1)
        room = _NO_LIMIT if limit is None else limit - len(records)
        if room == 0:
            break
        if from_slot > last:
            continue
        where = (key, span.branch, from_slot, last)
        # One query a role: each walks its index from the end asked for and stops at the limit.
        asked = [(*where, room)] if roles is None else [(*where, role, room) for role in roles]
        rows = [row for each in asked for row in connection.execute(statement, each)]
        if len(asked) > 1:
            rows.sort(key=_slot, reverse=newest_first)
        records += map(record_of, rows if limit is None else rows[:room])
    return records


def _slot(row: Row) -> int:
    return row[2]


def locate(connection: Connection, line: Branch, total_tokens: int) -> int | None:
    """See `MessageLog.locate`.

    Totals only rise along a line, so the spans are searched from the newest until one has
    no such message.
    """
    key = thread_key(connection, line.tenant_id, line.thread_id)
    found = None
    for span in reversed(line.spans):
        row = connection.execute(
            "SELECT slot FROM records INDEXED BY records_by_tokens "
            "WHERE thread = ? AND branch = ? AND revision = 0 "
            "AND total_tokens - tokens >= ? AND slot <= ? "
            "ORDER BY total_tokens - tokens, slot LIMIT 1",
            (key, span.branch, total_tokens, span.last_slot),
        ).fetchone()
        if row is None:
            break
        found = row[0]
    return found


def find(connection: Connection, line: Branch, message_id: str) -> LogRecord | None:
    """See `MessageLog.find`."""
    key = thread_key(connection, line.tenant_id, line.thread_id)
    row = connection.execute(
        f"SELECT {RECORD_COLUMNS} FROM {RECORD_TABLES} WHERE r.thread = ? AND r.message_id = ? "
        "ORDER BY r.revision DESC LIMIT 1",
        (key, bytes_of(message_id)),
    ).fetchone()
    return record_of(row) if row is not None and line.holds(row[3], row[2]) else None


def revised(connection: Connection, line: Branch, before_slot: int) -> int | None:
    """See `MessageLog.revised`. `+slot` leaves the walk to the index of the revisions."""
    key = thread_key(connection, line.tenant_id, line.thread_id)
    found: list[int] = []
    for span in line.spans:
        found += chain.from_iterable(
            connection.execute(
                "SELECT position FROM records WHERE thread = ? AND branch = ? AND revision > 0 "
                "AND +slot <= ? ORDER BY position DESC LIMIT 1",
                (key, span.branch, min(span.last_slot, before_slot - 1)),
            )
        )
    return max(found, default=None)


def fetch(connection: Connection, scope: Scope, seqs: Sequence[int]) -> list[LogRecord]:
    """See `MessageLog.fetch`."""
    rows = connection.execute(
        f"SELECT {RECORD_COLUMNS} FROM json_each(?) j CROSS JOIN {RECORD_TABLES} "
        f"WHERE r.seq = j.value AND {IN_SCOPE}",
        (json.dumps([*seqs]), *in_scope(scope)),
    )
    return [record_of(row) for row in rows]


def turns(
    connection: Connection, scope: Scope, seqs: Sequence[int], around: int, known: Turns
) -> Turns:
    """See `MessageLog.turns`."""
    if around:
        return _turns_around(connection, scope, seqs, around, known)
    seen = set(known.seq.tolist())
    asked = json.dumps([seq for seq in seqs if seq not in seen])
    tenant_id, thread_id, *user = in_scope(scope)
    if thread_id is None:
        rows = connection.execute(
            f"SELECT r.seq, ({_ITS_THREAD_ID}), {TURN_FIELDS} FROM json_each(?) j "
            f"CROSS JOIN records r WHERE r.seq = j.value AND r.tenant = ({TENANT}) "
            f"AND (? OR r.user_id = ?) AND {NEWEST}",
            (asked, tenant_id, *user),
        )
    else:
        rows = connection.execute(
            f"SELECT r.seq, ?, {TURN_FIELDS} FROM json_each(?) j CROSS JOIN records r "
            f"WHERE r.seq = j.value AND r.thread = ({THREAD}) AND {NEWEST}",
            (thread_id, asked, tenant_id, thread_id),
        )
    return turns_of(rows)


def _turns_around(
    connection: Connection, scope: Scope, seqs: Sequence[int], around: int, known: Turns
) -> Turns:
    """Which places are wanted comes first, so that each row is read once."""
    tenant_id, within, is_anyone, user_id = in_scope(scope)
    given = dict(zip(known.seq.tolist(), known.places(), strict=True))
    places = [given[seq] for seq in seqs if seq in given]
    asked = [seq for seq in seqs if seq not in given]
    if asked:
        places += connection.execute(
            "SELECT t.thread_id, r.branch, r.slot FROM json_each(?) j CROSS JOIN records r "
            f"CROSS JOIN threads t ON t.thread = r.thread WHERE r.seq = j.value AND {IN_SCOPE}",
            (json.dumps(asked), *in_scope(scope)),
        )
    wanted: dict[tuple[str, int], set[int]] = {}
    for thread_id, number, slot in places:
        if within in {None, thread_id}:
            slots = wanted.setdefault((thread_id, number), set())
            slots.update(range(max(slot - around, 0), slot + around + 1))
    for thread_id, number, slot in given.values():
        if (thread_id, number) in wanted:
            wanted[thread_id, number].discard(slot)
    # One statement for all threads: a question about a user's finds places in a hundred.
    runs = [(*line, *run) for line, slots in wanted.items() for run in _runs(slots)]
    rows = connection.execute(
        f"SELECT r.seq, t.thread_id, {TURN_FIELDS} FROM json_each(?) j "
        "CROSS JOIN threads t ON t.tenant_id = ? AND t.thread_id = json_extract(j.value, '$[0]') "
        "CROSS JOIN records r ON r.thread = t.thread AND r.branch = json_extract(j.value, '$[1]') "
        "AND r.slot BETWEEN json_extract(j.value, '$[2]') AND json_extract(j.value, '$[3]') "
        f"WHERE (? OR r.user_id = ?) AND {NEWEST}",
        (json.dumps(runs), tenant_id, is_anyone, user_id),
    )
    return turns_of(rows)


def _runs(slots: Collection[int]) -> list[tuple[int, int]]:
    """The first and last of each run of slots without a gap."""
    runs: list[tuple[int, int]] = []
    for slot in sorted(slots):
        if runs and slot == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], slot)
        else:
            runs.append((slot, slot))
    return runs


def top(connection: Connection, line: Branch, before_slot: int, limit: int) -> list[Turn]:
    """See `MessageLog.top`."""
    key = thread_key(connection, line.tenant_id, line.thread_id)
    if key is None:
        return []
    ranked: list[tuple[float, int, int]] = []
    for span in line.spans:
        ranked += connection.execute(
            "SELECT -r.importance, r.slot, r.seq FROM records r INDEXED BY records_by_importance "
            "WHERE r.thread = ? AND r.branch = ? AND r.has_terms = 1 "
            "AND r.role IN ('human', 'ai', 'tool') "
            f"AND r.slot <= ? AND {NEWEST} ORDER BY r.importance DESC, r.slot LIMIT ?",
            (key, span.branch, min(span.last_slot, before_slot - 1), limit),
        )
    scope = Scope(tenant_id=line.tenant_id, thread_id=line.thread_id)
    best = [seq for _, _, seq in nsmallest(limit, ranked)]
    return list(turns(connection, scope, best, 0, NO_TURNS))


def tenants(connection: Connection) -> list[str]:
    """See `MessageLog.tenants`."""
    rows = connection.execute("SELECT tenant_id FROM tenants ORDER BY tenant")
    return [tenant_id for (tenant_id,) in rows]


def pending(connection: Connection, tenant_id: str, after_seq: int, limit: int) -> PendingRecords:
    """See `MessageLog.pending`."""
    rows = connection.execute(
        f"SELECT {RECORD_COLUMNS}, c.terms FROM {RECORD_TABLES} "
        f"WHERE r.tenant = ({TENANT}) AND r.seq > ? ORDER BY r.seq LIMIT ?",
        (tenant_id, after_seq, limit),
    ).fetchall()
    return pending_of(rows, after_seq)


def last_seq(connection: Connection, tenant_id: str, until_seq: int | None = None) -> int:
    """See `MessageLog.last_seq`."""
    return connection.execute(
        f"SELECT ifnull(max(seq), 0) FROM records WHERE tenant = ({TENANT}) AND seq <= ?",
        (tenant_id, _NO_SEQ if until_seq is None else until_seq),
    ).fetchone()[0]


def marks(connection: Connection, tenant_id: str, index_id: str) -> IndexMarks:
    """See `MessageLog.marks`."""
    row = connection.execute(
        f"SELECT words_seq, dense_seq, erasure_id FROM marks WHERE tenant = ({TENANT}) "
        "AND index_id = ?",
        (tenant_id, index_id),
    ).fetchone()
    return IndexMarks() if row is None else IndexMarks(*row)


def erasures(connection: Connection, tenant_id: str, after_id: int) -> list[Erasure]:
    """See `MessageLog.erasures`."""
    rows = connection.execute(
        f"SELECT id, thread_id, seqs FROM erasures WHERE tenant = ({TENANT}) AND id > ? "
        "ORDER BY id",
        (tenant_id, after_id),
    )
    return [
        Erasure(
            number,
            Scope(tenant_id=tenant_id, thread_id=thread_id),
            None if seqs is None else tuple(json.loads(seqs)),
        )
        for number, thread_id, seqs in rows
    ]


def unfollowed(connection: Connection, index_id: str, limit: int) -> list[str]:
    """See `MessageLog.unfollowed`."""
    rows = connection.execute(
        "SELECT t.tenant_id FROM "
        "(SELECT tenant, max(id) AS newest FROM erasures GROUP BY tenant) e "
        "CROSS JOIN tenants t ON t.tenant = e.tenant "
        "LEFT JOIN marks m ON m.tenant = e.tenant AND m.index_id = ? "
        "WHERE e.newest > ifnull(m.erasure_id, 0) ORDER BY e.tenant LIMIT ?",
        (index_id, limit),
    )
    return [tenant_id for (tenant_id,) in rows]


def page(connection: Connection, key: int, position: int, limit: int) -> list[LogRecord]:
    """Up to `limit` records of a thread in append order, from `position` on."""
    rows: Iterator[Any] = connection.execute(
        f"SELECT {RECORD_COLUMNS} FROM {RECORD_TABLES} WHERE r.thread = ? AND r.position >= ? "
        "ORDER BY r.position LIMIT ?",
        (key, position, limit),
    )
    return [record_of(row) for row in rows]


def stats(connection: Connection, scope: Scope) -> LogStats:
    """See `MessageLog.tenant_stats`."""
    threads, records, revisions, size = connection.execute(
        "SELECT count(*), ifnull(sum(records - withdrawn), 0), ifnull(sum(revisions), 0), "
        "ifnull(sum(bytes - (SELECT ifnull(sum(w.bytes), 0) FROM withdrawn w "
        "WHERE w.thread = threads.thread)), 0) FROM threads "
        "WHERE tenant_id = ? AND ifnull(thread_id = ?, 1) AND records > withdrawn",
        (tenant_of(scope), scope.thread_id),
    ).fetchone()
    return LogStats(threads=threads, records=records, revisions=revisions, bytes=size)


def get_derived(connection: Connection, scope: Scope, kind: str, key: str) -> bytes | None:
    """See `MessageLog.get_derived`."""
    row = connection.execute(
        "SELECT d.value FROM threads t CROSS JOIN derived d ON d.thread = t.thread "
        "AND d.kind = ? AND d.key = ? WHERE t.tenant_id = ? AND t.thread_id = ?",
        (kind, key, *thread_of(scope)),
    ).fetchone()
    return None if row is None else row[0]


def _newest(connection: Connection, key: int, spans: Sequence[Span]) -> LogRecord | None:
    """The last record of the first of `spans` that has any: single ones may be erased."""
    for span in spans:
        row = connection.execute(
            f"SELECT {RECORD_COLUMNS} FROM {RECORD_TABLES} WHERE r.thread = ? AND r.branch = ? "
            "AND r.slot <= ? ORDER BY r.slot DESC, r.revision DESC LIMIT 1",
            (key, *span),
        ).fetchone()
        if row is not None:
            return record_of(row)
    return None
