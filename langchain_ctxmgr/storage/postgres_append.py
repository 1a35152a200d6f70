"""Appending to a thread of the PostgreSQL log: two round trips.

The first locks the thread's row, so that appends to one thread follow each other, and
reads what the next message must know; the second stores the rows and commits. `seq`s are
drawn in the first, so that after a connection was lost at the commit the next try can look
whether the rows are there.

An index that goes on from a `seq` must not miss a record with a lower one that is
committed later. So each append holds a shared advisory lock whose key tells a `seq` that
all of its own are above: taken before they are drawn, and given back when its rows can be
seen. What is read after `HORIZON`, then `FLOORS`, has all records up to the lower of both.
"""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

from langchain_ctxmgr.records import LogRecord, Scope
from langchain_ctxmgr.storage.codec import GENESIS
from langchain_ctxmgr.storage.message_log import thread_of
from langchain_ctxmgr.storage.placement import (
    Addition,
    Entry,
    Known,
    Place,
    Placement,
    ThreadState,
)
from langchain_ctxmgr.storage.postgres_work import (
    BEGIN,
    COMMIT,
    Batch,
    Row,
    Statement,
    Steps,
    Work,
    array,
)
from langchain_ctxmgr.storage.rows import bytes_of

_FLOOR_BITS: Final = 40
"""Of an advisory lock's key: room for 10**12 records."""
_TENANT_BITS: Final = 16
"""Tenants that share these hold back each other's horizon, for as long as an append takes."""
_FLOOR_CLASS: Final = 0x43
_UNMOVED: Final = (None, None)
"""Stands where a branch that is there already keeps what it forked off."""


def append(scope: Scope, entries: Sequence[Entry], schema: str) -> Work[list[LogRecord]]:
    """See `MessageLog.append`."""
    tenant_id, thread_id = thread_of(scope)
    each_try = _Append(tenant_id, thread_id, scope.user_id, entries, schema)
    return Work(tenant_id, each_try.steps, begin=BEGIN)


class _Append:
    """An append, and what its last try was about to commit."""

    def __init__(
        self,
        tenant_id: str,
        thread_id: str,
        user_id: str | None,
        entries: Sequence[Entry],
        schema: str,
    ) -> None:
        self._owner = (tenant_id, thread_id)
        self._user_id = user_id
        self._entries = entries
        given = {bytes_of(e.message_id) for e in entries if e.draft.message.id}
        asked = ([key_of(each) for each in given], *self._owner)
        self._first: Batch = (
            Statement(_LOCK_THREAD, self._owner),
            Statement(_DRAW, (floor_prefix(schema, tenant_id) << _FLOOR_BITS, len(entries))),
            Statement(_STORED, (*asked, *asked, *self._owner)),
        )
        self._tried: list[LogRecord] = []

    def steps(self) -> Steps[list[LogRecord]]:
        """One try."""
        rows = yield self._first
        if not rows[0]:
            yield new_thread(*self._owner)
            rows = yield self._first
        if self._tried and (yield from self._was_committed()):
            return self._tried
        key, *state = rows[0][0]
        tips, known = yield from self._stored(key, rows[2])
        thread = Placement(
            *self._owner,
            self._user_id,
            ThreadState(*state),
            known=known.get,
            tip=tips.__getitem__,
        )
        added = [new for entry in self._entries if (new := thread.add(entry)) is not None]
        if not added:
            return []
        seqs = [seq for (seq,) in rows[1]]
        self._tried = [new.record(seq, *self._owner) for seq, new in zip(seqs, added, strict=False)]
        yield [*self._saved(key, thread, seqs, added), COMMIT]
        return self._tried

    def _was_committed(self) -> Steps[bool]:
        """Whether the last try was, though its connection was lost before it was told."""
        [found] = yield [Statement(_HAS, (self._tried[0].seq,))]
        return bool(found)

    def _stored(
        self, key: int, stored: list[Row]
    ) -> Steps[tuple[dict[int, Place], dict[str, Known]]]:
        """The tips of the branches that are written to, and the messages that are known."""
        tips = {row[1]: Place(*row[1:8]) for row in stored if row[0] is None}
        messages: dict[bytes, Known] = {row[0]: Known(*row[1:]) for row in stored if row[0]}
        others = {message.branch for message in messages.values()} - tips.keys()
        if others:
            [rows] = yield [Statement(_TIPS, (key, array(others)))]
            tips |= {row[0]: Place(*row) for row in rows}
        found: dict[str, Known] = {}
        for entry in self._entries:
            message = messages.get(bytes_of(entry.message_id))
            if message is not None:
                found[entry.message_id] = message
        return tips, found

    def _saved(
        self, key: int, thread: Placement, seqs: Sequence[int], added: Sequence[Addition]
    ) -> list[Statement]:
        tenant_id = self._owner[0]
        forks = {fork.branch: fork[1:] for fork in thread.forks}
        postings = [
            (term, seq, often)
            for seq, addition in zip(seqs, added, strict=False)
            for term, often in Counter(addition.entry.draft.terms).items()
        ]
        terms, holders, often = map(array, zip(*postings, strict=True) if postings else ((),) * 3)
        return [
            *(
                Statement(_INSERT_RECORD, (seq, tenant_id, key, *_columns(addition)))
                for seq, addition in zip(seqs, added, strict=False)
            ),
            *(
                Statement(
                    _SAVE_TIP, (tenant_id, key, branch, *forks.get(branch, _UNMOVED), *place[1:])
                )
                for branch, place in thread.moved.items()
            ),
            Statement(_SAVE, (tenant_id, key, terms, holders, often, *thread.state, key)),
        ]


def _columns(addition: Addition) -> tuple[Any, ...]:
    entry, fields = addition.entry, addition.fields
    return (
        *fields,
        key_of(fields[7]),
        fields[15] - entry.draft.tokens,
        bool(entry.terms),
        entry.digest,
        addition.chain,
        entry.terms,
        entry.payload,
    )


def key_of(message_id: bytes) -> bytes:
    """What stands for a message's id in the index, which holds no long values."""
    return sha256(message_id).digest()[:16]


def new_thread(tenant_id: str, thread_id: str) -> Batch:
    """Statements that give a thread a row if it has none."""
    return (
        Statement(_INSERT_TENANT, (tenant_id,)),
        Statement(_INSERT_THREAD, (tenant_id, thread_id, GENESIS)),
    )


def floor_prefix(schema: str, tenant_id: str) -> int:
    """What the keys of a tenant's appends begin with."""
    of_tenant = int.from_bytes(sha256(f"{schema}\0{tenant_id}".encode()).digest()[:2])
    return _FLOOR_CLASS << _TENANT_BITS | of_tenant


HORIZON: Final = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM seqs"
"""The newest `seq` drawn: read first, since a floor that comes later is not below it."""
FLOORS: Final = (
    "SELECT min((classid::bigint & 255) << 32 | objid::bigint) FROM pg_locks "
    "WHERE locktype = 'advisory' AND objsubid = 1 AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND classid::bigint >> 8 = %s"
)
"""The lowest floor of the appends under way for a tenant; null for none."""
_LOCK_THREAD: Final = (
    "SELECT thread, records, revisions, bytes, branches, branch, chain FROM threads "
    "WHERE tenant_id = %s AND thread_id = %s FOR UPDATE"
)
_DRAW: Final = (
    "WITH floor AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared("
    "%s | CASE WHEN is_called THEN last_value ELSE 0 END)::text AS held FROM seqs) "
    "SELECT nextval('seqs') FROM floor CROSS JOIN generate_series(1, %s) "
    "WHERE floor.held IS NOT NULL"
)
"""Draws `seq`s above the floor: the lock on it is held before the first is drawn."""
_TIP_COLUMNS: Final = (
    "b.branch, b.tip_slot, b.tip_position, b.session, b.at, b.total_tokens, b.total_importance"
)
_TIPS: Final = (
    f"SELECT {_TIP_COLUMNS} FROM branches b WHERE b.thread = %s AND b.branch = ANY(%s::bigint[])"
)
_STORED: Final = (
    "SELECT r.message_id, r.branch, r.slot, r.position, r.session, r.at, r.total_tokens, "
    "r.total_importance, r.tokens, r.importance, r.revision, r.parent, r.digest FROM threads t "
    "CROSS JOIN unnest(%s::bytea[]) key CROSS JOIN LATERAL (SELECT * FROM records r "
    "WHERE r.thread = t.thread AND r.message_key = key ORDER BY r.revision DESC LIMIT 1) r "
    "WHERE t.tenant_id = %s AND t.thread_id = %s UNION ALL "
    "SELECT w.message_id, w.branch, w.slot, w.position, w.session, w.at, w.total_tokens, "
    "w.total_importance, 0, 0, w.revision, NULL, NULL FROM threads t "
    "CROSS JOIN unnest(%s::bytea[]) key CROSS JOIN LATERAL (SELECT * FROM withdrawn w "
    "WHERE w.thread = t.thread AND w.message_key = key ORDER BY w.revision DESC LIMIT 1) w "
    "WHERE t.withdrawn > 0 AND t.tenant_id = %s AND t.thread_id = %s "
    f"UNION ALL SELECT NULL, {_TIP_COLUMNS}, 0, 0, 0, NULL, NULL FROM threads t "
    "JOIN branches b ON b.thread = t.thread AND b.branch = t.branch "
    "WHERE t.tenant_id = %s AND t.thread_id = %s"
)
"""Messages with these ids, in their newest revisions, those that were withdrawn too, and the tip
of the newest branch."""
_HAS: Final = "SELECT 1 FROM records WHERE seq = %s"
_INSERT_TENANT: Final = "INSERT INTO tenants (tenant_id) VALUES (%s) ON CONFLICT DO NOTHING"
_INSERT_THREAD: Final = (
    "INSERT INTO threads (tenant_id, thread_id, chain) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
)
_INSERT_RECORD: Final = "INSERT INTO records VALUES (" + "%s, " * 26 + "%s)"
_SAVE_TIP: Final = (
    "INSERT INTO branches VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) "
    "ON CONFLICT (thread, branch) DO UPDATE SET tip_slot = excluded.tip_slot, "
    "tip_position = excluded.tip_position, session = excluded.session, at = excluded.at, "
    "total_tokens = excluded.total_tokens, total_importance = excluded.total_importance"
)
_SAVE: Final = (
    "WITH posted AS (INSERT INTO postings (tenant_id, thread, term, seq, often) "
    "SELECT %s, %s, * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[])) "
    "UPDATE threads SET records = %s, revisions = %s, bytes = %s, branches = %s, branch = %s, "
    "chain = %s WHERE thread = %s"
)
