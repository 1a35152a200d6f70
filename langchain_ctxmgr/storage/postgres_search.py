"""Keyword search in the PostgreSQL log.

What is newer than an index, or a thread of its own, is few records: their terms are read
and scored. Otherwise the postings find the records. They are plain rows behind a B-tree:
an index over an array of terms would not be used, since row-level security lets only
leakproof operators run before the policy, and those on arrays are not.

Where more records match than are scored, those with the most weight in rare terms are.
"""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from math import log1p
from typing import Any, Final

from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.bm25 import (
    MAX_SCORED,
    best_hits,
    bm25,
    matching,
    wanted_terms,
)
from langchain_ctxmgr.storage.message_log import TermHit, tenant_of, user_of
from langchain_ctxmgr.storage.postgres_reads import ASKED
from langchain_ctxmgr.storage.postgres_work import (
    COMMIT,
    SNAPSHOT,
    Row,
    Statement,
    Steps,
    Work,
    array,
)

_READ_WHOLE: Final = 4_096
"""Up to so many records are scored without the postings: about 15 ms."""
_MAX_POSTINGS: Final = 50_000
"""Postings weighed to choose what is scored; the rarest terms' come first."""


def search(scope: Scope, terms: Sequence[int], limit: int, after_seq: int) -> Work[list[TermHit]]:
    """See `MessageLog.search`."""
    wanted = wanted_terms(terms)
    each_try = _Search(scope, wanted, limit, after_seq)
    return Work(tenant_of(scope), each_try.steps, begin=SNAPSHOT)


class _Search:
    def __init__(self, scope: Scope, wanted: list[int], limit: int, after_seq: int) -> None:
        self._tenant_id, self._thread_id = tenant_of(scope), scope.thread_id
        self._user_id = user_of(scope)
        self._wanted, self._limit, self._after_seq = wanted, limit, after_seq

    def steps(self) -> Steps[list[TermHit]]:
        if not self._wanted or self._limit < 1:
            return []
        probe = (self._tenant_id, self._after_seq, _READ_WHOLE + 1)
        [[[tail]], threads] = yield [
            Statement(_TAIL, probe),
            Statement(_SIZES, (self._tenant_id, self._thread_id, self._thread_id)),
        ]
        [[size, thread]] = threads
        if self._thread_id is None:
            thread = None
        elif thread is None:
            return []
        if tail <= _READ_WHOLE:
            values: tuple[Any, ...] = (self._tenant_id, self._after_seq, thread, thread)
            return (yield from self._read(Statement(_NEWER, (*values, *self._user))))
        if thread is not None and size <= _READ_WHOLE:
            values = (self._tenant_id, thread, self._after_seq)
            return (yield from self._read(Statement(_OF_THREAD, values)))
        return (yield from self._find(thread, size))

    @property
    def _user(self) -> tuple[str | None, str | None]:
        return self._user_id, self._user_id

    def _read(self, statement: Statement) -> Steps[list[TermHit]]:
        """Score all that there are."""
        [rows, _] = yield [statement, COMMIT]
        matched = [*compress(rows, matching([row[1] for row in rows], self._wanted))]
        return self._scored(matched, len(rows), None)

    def _find(self, thread: int | None, size: int) -> Steps[list[TermHit]]:
        """Score what the postings find."""
        owned = "" if self._user_id is None else _OWNED
        where: tuple[Any, ...] = (self._tenant_id, self._after_seq, thread, thread)
        user = () if self._user_id is None else (self._user_id,)
        asked = [Statement(_COUNT.format(owned), (array(self._wanted), *user, *where))]
        if user or self._after_seq:
            asked.append(
                Statement(_SIZE, (self._tenant_id, self._after_seq, thread, thread, *self._user))
            )
        [counted, *sizes] = yield asked
        if sizes:
            [[[size]]] = sizes
        holders = dict(counted)
        weights = {term: log1p((size - n + 0.5) / (n + 0.5)) for term, n in holders.items()}
        chosen: list[int] = []
        postings = 0
        for term in sorted(holders, key=lambda term: (holders[term], term)):
            postings += holders[term]
            if chosen and postings > _MAX_POSTINGS:
                break
            chosen.append(term)
        best = (
            array(chosen),
            [weights[term] for term in chosen],
            *user,
            *where,
            _MAX_POSTINGS,
            MAX_SCORED + 1,
        )
        [found] = yield [Statement(_BEST.format(owned), best)]
        seqs = [seq for (seq,) in found[:MAX_SCORED]]
        [rows, _] = yield [Statement(_TERMS, (array(seqs), self._tenant_id)), COMMIT]
        is_all = len(found) <= MAX_SCORED and len(chosen) == len(holders)
        counts = None if is_all else [holders.get(term, 0) for term in self._wanted]
        return self._scored(rows, size, counts)

    def _scored(
        self, rows: Sequence[Row], size: int, counts: Sequence[int] | None
    ) -> list[TermHit]:
        if not rows:
            return []
        scores = bm25([row[1] for row in rows], self._wanted, size, counts)
        return best_hits([row[0] for row in rows], scores, self._limit)


_TAIL: Final = (
    "SELECT count(*) FROM (SELECT FROM records WHERE tenant_id = %s AND seq > %s LIMIT %s) newer"
)
_SIZES: Final = (
    "SELECT coalesce(sum(records), 0)::bigint, max(thread) FROM threads WHERE tenant_id = %s "
    "AND (%s::text IS NULL OR thread_id = %s)"
)
_NEWER: Final = (
    "SELECT seq, terms FROM records WHERE tenant_id = %s AND seq > %s AND has_terms "
    "AND (%s::bigint IS NULL OR thread = %s) AND (%s::text IS NULL OR user_id = %s) ORDER BY seq"
)
_OF_THREAD: Final = (
    "SELECT seq, terms FROM records WHERE tenant_id = %s AND thread = %s AND seq > %s "
    "AND has_terms ORDER BY position"
)
_OWNED: Final = "JOIN records r ON r.seq = p.seq AND r.user_id = %s"
_FOUND: Final = (
    "FROM postings p {} WHERE p.tenant_id = %s AND p.seq > %s "
    "AND (%s::bigint IS NULL OR p.thread = %s)"
)
_COUNT: Final = (
    "SELECT w.term, f.holders FROM unnest(%s::bigint[]) w (term) "
    f"CROSS JOIN LATERAL (SELECT count(*) AS holders {_FOUND} AND p.term = w.term) f "
    "WHERE f.holders > 0"
)
_SIZE: Final = (
    "SELECT count(*) FROM records WHERE tenant_id = %s AND seq > %s AND has_terms "
    "AND (%s::bigint IS NULL OR thread = %s) AND (%s::text IS NULL OR user_id = %s)"
)
_BEST: Final = (
    "SELECT f.seq FROM unnest(%s::bigint[], %s::float8[]) w (term, weight) "
    f"CROSS JOIN LATERAL (SELECT p.seq, p.often {_FOUND} AND p.term = w.term "
    "ORDER BY p.seq DESC LIMIT %s) f GROUP BY f.seq "
    "ORDER BY sum(w.weight * f.often * 2.2 / (f.often + 1.2)) DESC, f.seq DESC LIMIT %s"
)
"""By BM25 with K1 = 1.2, lengths left out."""
_TERMS: Final = f"SELECT r.seq, r.terms FROM {ASKED} WHERE r.tenant_id = %s ORDER BY r.seq"
