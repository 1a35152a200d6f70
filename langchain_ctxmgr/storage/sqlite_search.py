"""Keyword search in the SQLite log.

The full-text index finds the records, filtered by tenant or thread inside the index and by
user in the same statement, so that what others say crowds out nothing of a user's. BM25 is
worked out here from their stored terms: SQLite's own `bm25()` weighs words by how common
they are in the whole file, other tenants included, and reads every posting to learn it.
Only when very many records match does it choose which of them are scored.
"""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.bm25 import MAX_SCORED, best_hits, bm25, wanted_terms
from langchain_ctxmgr.storage.message_log import TermHit, tenant_of, user_of
from langchain_ctxmgr.storage.sqlite_append import tenant_token, thread_token
from langchain_ctxmgr.storage.sqlite_reads import IN_SCOPE, in_scope, last_seq, stats, thread_key


class _Document(NamedTuple):
    seq: int
    terms: bytes


def search(
    connection: sqlite3.Connection, scope: Scope, terms: Sequence[int], limit: int, after_seq: int
) -> list[TermHit]:
    """See `MessageLog.search`."""
    tenant_id = tenant_of(scope)
    wanted = wanted_terms(terms)
    token = tenant_token(tenant_id)
    if scope.thread_id is not None:
        key = thread_key(connection, tenant_id, scope.thread_id)
        token = "" if key is None else thread_token(key)
    newer = last_seq(connection, tenant_id) - after_seq
    if not wanted or not token or limit < 1 or newer < 1:
        return []
    index = _Index(connection, token, after_seq, user_of(scope))
    seqs = index.newest(wanted, MAX_SCORED + 1)
    counts = None
    if len(seqs) > MAX_SCORED:
        seqs = index.best(wanted, MAX_SCORED)
        counts = [index.count(term) for term in wanted]
    rows = connection.execute(
        "SELECT c.seq, c.terms FROM json_each(?) j CROSS JOIN contents c "
        "CROSS JOIN records r ON r.seq = c.seq CROSS JOIN threads t ON t.thread = r.thread "
        f"WHERE c.seq = j.value AND {IN_SCOPE}",
        (json.dumps(seqs), *in_scope(scope)),
    )
    documents = [_Document(*row) for row in rows]
    size = stats(connection, scope).records if user_of(scope) is None else index.size()
    scores = bm25([document.terms for document in documents], wanted, min(size, newer), counts)
    return best_hits([document.seq for document in documents], scores, limit)


class _Index:
    """The full-text index as one tenant, thread or user may see it, after a record."""

    def __init__(
        self, connection: sqlite3.Connection, token: str, after_seq: int, user_id: str | None
    ) -> None:
        self._execute, self._token, self._after_seq = connection.execute, token, after_seq
        self._owner = () if user_id is None else (user_id,)
        owned = " CROSS JOIN records r ON r.seq = keywords.rowid AND r.user_id = ?"
        self._found = (
            f"FROM keywords{owned if self._owner else ''} "
            "WHERE keywords MATCH ? AND keywords.rowid > ?"
        )

    def newest(self, terms: Sequence[int], limit: int) -> list[int]:
        """Records with any of `terms`, newest first."""
        return self._seqs("ORDER BY keywords.rowid DESC", terms, limit)

    def best(self, terms: Sequence[int], limit: int) -> list[int]:
        """Records with any of `terms`, the best by SQLite's own BM25."""
        return self._seqs("ORDER BY bm25(keywords, 0.0, 1.0)", terms, limit)

    def count(self, term: int) -> int:
        """How many records have `term`."""
        return self._count(self._match([term]))

    def size(self) -> int:
        """How many records have terms; for a user, takes time in proportion to the tenant's."""
        return self._count(f"scope : {self._token}")

    def _count(self, match: str) -> int:
        return self._execute(
            f"SELECT count(*) {self._found}", (*self._owner, match, self._after_seq)
        ).fetchone()[0]

    def _seqs(self, order: str, terms: Sequence[int], limit: int) -> list[int]:
        rows = self._execute(
            f"SELECT keywords.rowid {self._found} {order} LIMIT ?",
            (*self._owner, self._match(terms), self._after_seq, limit),
        )
        return [seq for (seq,) in rows]

    def _match(self, terms: Sequence[int]) -> str:
        either = " OR ".join(f'"{term:x}"' for term in terms)
        return f"scope : {self._token} AND body : ({either})"
