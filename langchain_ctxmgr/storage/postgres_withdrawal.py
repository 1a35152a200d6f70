"""Erasing single messages from the PostgreSQL log, so that its hash chain still holds."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.message_log import Erased, Withdrawal, tenant_of
from langchain_ctxmgr.storage.placement import left_of
from langchain_ctxmgr.storage.postgres_append import key_of
from langchain_ctxmgr.storage.postgres_audit import (
    CHAINED_FIELDS,
    DELETE_DERIVED,
    LOCK_ERASURES,
    delete_postings,
)
from langchain_ctxmgr.storage.postgres_work import (
    BEGIN,
    COMMIT,
    Row,
    Statement,
    Steps,
    Work,
    array,
)
from langchain_ctxmgr.storage.rows import at_bounds, bytes_of


def withdraw(scope: Scope, which: Withdrawal) -> Work[Erased]:
    """Leave of the records chosen, in all their revisions, no more than their places.

    Their threads are held from before they are chosen, so that nothing is added meanwhile.
    """
    attempt, tenant_id = uuid4().hex, tenant_of(scope)
    given = which.message_ids
    keys = None if given is None else [key_of(bytes_of(each)) for each in given]
    named = (scope.thread_id, scope.thread_id, scope.user_id, scope.user_id)
    seqs = None if which.seqs is None else array(which.seqs)
    chosen = (tenant_id, *named, *at_bounds(which), keys, keys, seqs, seqs)
    done = Erased(threads=0, messages=0, derived=0, seqs=())

    def steps() -> Steps[Erased]:
        nonlocal done
        [_, before, rows] = yield [
            Statement(_LOCK, chosen),
            Statement("SELECT 1 FROM erasures WHERE attempt LIKE %s", (f"{attempt}-%",)),
            Statement(_REVISIONS, chosen),
        ]
        if before or not rows:
            return done
        threads: dict[tuple[int, str], list[Row]] = {}
        for row in rows:
            threads.setdefault((row[0], row[1]), []).append(row)
        seqs = sorted(row[2] for row in rows)
        held = array([key for key, _ in threads])
        [*_, [[derived]], [[stated]]] = yield [
            *(Statement(_WITHDRAW, _left(tenant_id, row)) for row in rows),
            Statement(_DELETE_WEIGHTS, (array(seqs),)),
            Statement("DELETE FROM records WHERE seq = ANY(%s::bigint[])", (array(seqs),)),
            Statement(DELETE_DERIVED, (held,)),
            Statement(_DELETE_STATED, (array(seqs),)),
        ]
        yield from delete_postings(tenant_id, [(row[2], row[5]) for row in rows])
        done = Erased(
            threads=len(threads),
            messages=len(seqs),
            derived=derived + stated,
            seqs=tuple(seqs),
        )
        yield [
            LOCK_ERASURES,
            *(Statement(_COUNT, (len(gone), key)) for (key, _), gone in threads.items()),
            *(
                Statement(
                    _NOTE,
                    (
                        tenant_id,
                        thread_id,
                        f"{attempt}-{key}",
                        array(sorted(row[2] for row in gone)),
                    ),
                )
                for (key, thread_id), gone in threads.items()
            ),
            COMMIT,
        ]
        return done

    return Work(tenant_id, steps, begin=BEGIN, is_long=True)


def _left(tenant_id: str, row: Sequence[Any]) -> tuple[Any, ...]:
    """What stays of a record, in the order of `_WITHDRAW`."""
    key, thread_id, seq, digest, chain, terms, size, *fields = row
    left = left_of(tenant_id, thread_id, fields, terms)
    named = (left.message_id, key_of(left.message_id))
    return (
        *(seq, tenant_id, key, *left.place, *named, *left.totals),
        *(size, digest, left.row_digest, chain),
    )


_MEANT: Final = (
    "t.tenant_id = %s AND (%s::text IS NULL OR t.thread_id = %s) "
    "AND EXISTS (SELECT 1 FROM records r WHERE r.thread = t.thread "
    "AND (%s::text IS NULL OR r.user_id = %s) AND r.at >= %s AND r.at < %s "
    "AND (%s::bytea[] IS NULL OR r.message_key = ANY(%s::bytea[])) "
    "AND (%s::bigint[] IS NULL OR r.seq = ANY(%s::bigint[])))"
)
_LOCK: Final = f"SELECT t.thread FROM threads t WHERE {_MEANT} ORDER BY t.thread FOR UPDATE"
_REVISIONS: Final = (
    f"SELECT v.thread, t.thread_id, v.seq, v.digest, v.chain, v.terms, length(v.payload), "
    f"{CHAINED_FIELDS} FROM threads t JOIN records v ON v.thread = t.thread "
    "WHERE t.tenant_id = %s AND (%s::text IS NULL OR t.thread_id = %s) "
    "AND EXISTS (SELECT 1 FROM records r WHERE r.thread = v.thread "
    "AND r.message_key = v.message_key AND (%s::text IS NULL OR r.user_id = %s) "
    "AND r.at >= %s AND r.at < %s AND (%s::bytea[] IS NULL OR r.message_key = ANY(%s::bytea[])) "
    "AND (%s::bigint[] IS NULL OR r.seq = ANY(%s::bigint[])))"
)
_WITHDRAW: Final = "INSERT INTO withdrawn VALUES (" + "%s, " * 16 + "%s)"
_DELETE_STATED: Final = (
    "WITH gone AS (DELETE FROM stated WHERE seq = ANY(%s::bigint[]) RETURNING 1) "
    "SELECT count(*) FROM gone"
)
_DELETE_WEIGHTS: Final = (
    "DELETE FROM weights w USING records r WHERE r.seq = ANY(%s::bigint[]) "
    "AND w.thread = r.thread AND w.message_key = r.message_key"
)
_COUNT: Final = "UPDATE threads SET withdrawn = withdrawn + %s WHERE thread = %s"
_NOTE: Final = (
    "INSERT INTO erasures (tenant_id, thread_id, attempt, seqs) VALUES (%s, %s, %s, %s::bigint[])"
)
