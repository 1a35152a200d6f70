"""Proving that the PostgreSQL log is as written, and removing from it.

What erasing can promise here is less than in a file of our own; `PostgresLog.erase` says
what is left, and for how long.
"""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import uuid4

from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.chain_check import Problems, ThreadCheck, ThreadRow, WithdrawnRow
from langchain_ctxmgr.storage.message_log import Erased, tenant_of
from langchain_ctxmgr.storage.postgres_stated import DELETE_STATED
from langchain_ctxmgr.storage.postgres_work import (
    BEGIN,
    COMMIT,
    SNAPSHOT,
    Row,
    Statement,
    Steps,
    Work,
    array,
)
from langchain_ctxmgr.storage.rows import unpack_terms

_PAGE: Final = 512
LOCK_ERASURES: Final = Statement("SELECT pg_advisory_xact_lock(%s)", (0x45 << 56,))
"""Held while an erasure is noted, so that their ids are committed in order."""
VACUUM: Final = "VACUUM records, postings, branches, threads, derived, stated, withdrawn, weights"
"""Of the tables that an erasure takes rows from; those of another owner are left out."""


def verify(tenant_id: str, thread_id: str | None, problems: Problems) -> Work[int]:
    """Check a tenant's threads, or one of them, and add to `problems`; how many were checked.

    One snapshot, one page of records in memory at a time.
    """

    def steps() -> Steps[int]:
        found, records = Problems(), 0
        [threads] = yield [Statement(_THREADS, (tenant_id, thread_id, thread_id))]
        for row in threads:
            thread = ThreadRow(*row)
            check = ThreadCheck(thread, found)
            yield from _check_records(check, thread)
            [tips] = yield [Statement(_TIPS, (row[0],))]
            check.end()
            check.tips([(branch, slot, newest) for branch, slot, newest in tips])
            records += check.records
        if thread_id is None:
            [[[lost]]] = yield [Statement(_LOST_RECORDS, (tenant_id,))]
            if lost:
                found.add(f"tenant {tenant_id!r}: {lost} records whose thread is missing")
        yield [COMMIT]
        problems.extend(found)
        return records

    return Work(tenant_id, steps, begin=SNAPSHOT, is_long=True)


def _check_records(check: ThreadCheck, thread: ThreadRow) -> Steps[None]:
    for first in range(-1, thread.records, _PAGE):
        places = (thread.key, first, first + _PAGE)
        [kept, left] = yield [Statement(_CHAINED, places), Statement(_WITHDRAWN, places)]
        check.go_through(kept, map(WithdrawnRow._make, left))


def erase(scope: Scope, also: Sequence[str]) -> Work[Erased]:
    """Delete the rows of threads or a tenant and note it for the indexes, in one transaction."""
    attempt, tenant_id = uuid4().hex, tenant_of(scope)
    done = Erased(threads=0, messages=0, derived=0, seqs=())

    def steps() -> Steps[Erased]:
        nonlocal done
        names = None if scope.thread_id is None else [scope.thread_id, *also]
        named = (tenant_id, names, names)
        [threads, before] = yield [
            Statement(_LOCK_THREADS, named),
            Statement("SELECT 1 FROM erasures WHERE attempt = %s", (attempt,)),
        ]
        if before or not threads:
            return done
        keys = [key for key, _ in threads]
        noted = [None] if names is None else [thread_id for _, thread_id in threads]
        [gone, [[derived]], [[stated]], *_] = yield [
            Statement(_DELETE_RECORDS, (array(keys),)),
            Statement(DELETE_DERIVED, (array(keys),)),
            Statement(DELETE_STATED, (array(keys),)),
            Statement(_DELETE_WITHDRAWN, (array(keys),)),
            Statement(_DELETE_WEIGHTS, (array(keys),)),
            Statement(_DELETE_BRANCHES, (array(keys),)),
            Statement(_DELETE_THREADS, (array(keys),)),
        ]
        gone.sort()
        if scope.thread_id is None:
            yield [Statement("DELETE FROM postings WHERE tenant_id = %s", (tenant_id,))]
        else:
            yield from delete_postings(tenant_id, gone)
        seqs = tuple(seq for seq, _ in gone)
        done = Erased(threads=len(keys), messages=len(seqs), derived=derived + stated, seqs=seqs)
        yield [
            LOCK_ERASURES,
            Statement(_NOTE, (tenant_id, attempt, noted)),
            COMMIT,
        ]
        return done

    return Work(tenant_id, steps, begin=BEGIN, is_long=True)


def delete_postings(tenant_id: str, gone: Sequence[Row]) -> Steps[None]:
    """Remove those of records, given with their terms.

    Found by these: no index leads from a record to its postings.
    """
    for first in range(0, len(gone), _PAGE):
        page = gone[first : first + _PAGE]
        pairs = [(term, seq) for seq, terms in page for term in {*unpack_terms(terms)}]
        if pairs:
            terms, seqs = zip(*pairs, strict=True)
            yield [Statement(_DELETE_POSTINGS, (array(terms), array(seqs), tenant_id))]


_THREADS: Final = (
    "SELECT thread, tenant_id, thread_id, records, revisions, bytes, branches, chain, withdrawn "
    "FROM threads WHERE tenant_id = %s AND (%s::text IS NULL OR thread_id = %s) ORDER BY thread"
)
CHAINED_FIELDS: Final = (
    "v.user_id, v.branch, v.position, v.slot, v.revision, v.parent, v.session, v.message_id, "
    "v.role, v.speaker, v.at, v.tokens, v.encoding, v.importance, v.cues, v.total_tokens, "
    "v.total_importance"
)
"""The own fields of a record `v` in the order in which they are chained."""
_CHAINED: Final = (
    f"SELECT v.seq, {CHAINED_FIELDS}, v.digest, v.chain, v.terms, v.payload FROM records v "
    "WHERE v.thread = %s AND v.position > %s AND v.position <= %s ORDER BY v.position"
)
_WITHDRAWN: Final = (
    "SELECT seq, position, revision, bytes, digest, row_digest, chain FROM withdrawn "
    "WHERE thread = %s AND position > %s AND position <= %s ORDER BY position"
)
_TIPS: Final = (
    "SELECT b.branch, b.tip_slot, greatest((SELECT r.slot FROM records r "
    "WHERE r.thread = b.thread AND r.branch = b.branch ORDER BY r.slot DESC LIMIT 1), "
    "(SELECT max(w.slot) FROM withdrawn w WHERE w.thread = b.thread AND w.branch = b.branch)) "
    "AS newest FROM branches b WHERE b.thread = %s"
)
_LOST_RECORDS: Final = (
    "SELECT count(*) FROM records r WHERE r.tenant_id = %s "
    "AND NOT EXISTS (SELECT 1 FROM threads t WHERE t.thread = r.thread)"
)
_LOCK_THREADS: Final = (
    "SELECT thread, thread_id FROM threads WHERE tenant_id = %s "
    "AND (%s::text[] IS NULL OR thread_id = ANY(%s::text[])) ORDER BY thread FOR UPDATE"
)
_DELETE_RECORDS: Final = "DELETE FROM records WHERE thread = ANY(%s::bigint[]) RETURNING seq, terms"
DELETE_DERIVED: Final = (
    "WITH gone AS (DELETE FROM derived WHERE thread = ANY(%s::bigint[]) RETURNING 1) "
    "SELECT count(*) FROM gone"
)
_DELETE_WITHDRAWN: Final = "DELETE FROM withdrawn WHERE thread = ANY(%s::bigint[])"
_DELETE_WEIGHTS: Final = "DELETE FROM weights WHERE thread = ANY(%s::bigint[])"
_DELETE_BRANCHES: Final = "DELETE FROM branches WHERE thread = ANY(%s::bigint[])"
_DELETE_THREADS: Final = "DELETE FROM threads WHERE thread = ANY(%s::bigint[])"
_DELETE_POSTINGS: Final = (
    "DELETE FROM postings WHERE ctid = ANY(ARRAY(SELECT f.ctid "
    "FROM unnest(%s::bigint[], %s::bigint[]) e (term, seq) CROSS JOIN LATERAL (SELECT p.ctid "
    "FROM postings p WHERE p.tenant_id = %s AND p.term = e.term AND p.seq = e.seq LIMIT 1) f))"
)
_NOTE: Final = (
    "INSERT INTO erasures (tenant_id, thread_id, attempt) SELECT %s, n.thread_id, "
    "%s || CASE n.place WHEN 1 THEN '' ELSE ' ' || n.place END "
    "FROM unnest(%s::text[]) WITH ORDINALITY n (thread_id, place)"
)
