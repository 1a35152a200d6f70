"""From the log into the index: keyword and dense vectors of every recorded message.

The log comes first and the index follows it, tenant by tenant: how far it has come is
kept in the log under the index's own identity, so that a rebuilt or exchanged index
starts again by itself. Keyword vectors and embeddings advance apart: while the embedding
model is down turns are found by their words, and its vectors are caught up later.

Erasures are followed too, before any record that came after them, so what was erased
goes from every index whichever process erased it and whatever became of that process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.errors import DamagedIndexError, LogError, ReadOnlyLogError, StorageError
from langchain_ctxmgr.events import CaughtUp, Degraded, Listener, emit
from langchain_ctxmgr.memory.breaker import Breakers
from langchain_ctxmgr.memory.embeddings import (
    Embedder,
    UnknownSizeError,
    check_vectors,
    learn_size,
)
from langchain_ctxmgr.memory.index_runs import PATIENCE, IndexRuns
from langchain_ctxmgr.memory.late import codes_of
from langchain_ctxmgr.memory.local import Encoded, TurnEmbeddings
from langchain_ctxmgr.memory.points import Embedding, document_text, point_of
from langchain_ctxmgr.memory.said_before import said_before
from langchain_ctxmgr.records import LogRecord, Scope
from langchain_ctxmgr.storage.message_log import Erasure, IndexMarks, MessageLog, tenant_of
from langchain_ctxmgr.storage.vectors import DENSE, VectorStore

BATCH = 128
"""Records taken from the log at once: enough for the encoder to sort by length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the index follows the log."""

    indexed: int
    """Records this run took in."""
    remaining: int
    """Records still to come, at most: erased ones count."""


_NOTHING = Progress(indexed=0, remaining=0)


class Indexer:
    """Brings the index up to the log, in bounded batches.

    Without a vector store it does nothing: recall goes through the log's own search.
    """

    def __init__(
        self,
        log: MessageLog,
        vectors: VectorStore | None,
        embedder: Embedder | None,
        *,
        breakers: Breakers,
        listeners: tuple[Listener, ...] = (),
    ) -> None:
        self._log = log
        self._vectors = vectors
        self._embedder = embedder
        self._listeners = listeners
        self._breakers = breakers
        self._runs = None if vectors is None else IndexRuns(log, vectors)
        self._checked: set[tuple[str, str]] = set()
        """Index and tenant whose marks were held against the points there are."""

    def catch_up(
        self,
        tenant_id: str,
        *,
        limit: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Plan[Progress]:
        """Index what the log has of a tenant and the index lacks, up to `limit` records.

        One run at a time for each tenant: a second one returns at once, the first takes in
        what is new. The boundary for the vector store, the embedding model and a log that
        cannot be written: their failures are events, and what is missing is taken in by a
        later run.
        """
        if self._vectors is None or self._runs is None or not self._breakers.vectors.is_closed:
            return _NOTHING
        done = _NOTHING
        with self._runs.entered(tenant_id) as is_only:
            if not is_only:
                return _NOTHING
            try:
                yield from learn_size(self._embedder, self._breakers.embeddings)
                if (yield from self._runs.claim(tenant_id)):
                    done = yield from self._run(self._vectors, tenant_id, limit, progress)
                    yield from self._runs.release(tenant_id)
                self._breakers.vectors.worked()
            except ReadOnlyLogError as error:
                event = Degraded(part="log", reason=str(error), fallback="the index as it is")
                emit(self._listeners, event)
                return _NOTHING
            except (UnknownSizeError, LogError):
                return _NOTHING  # told of already by the model, or by whoever needs the log
            except Exception as error:  # noqa: BLE001 - the boundary this docstring names
                self._breakers.vectors.failed(error)
                return _NOTHING
        if done.indexed:
            emit(self._listeners, CaughtUp(indexed=done.indexed, remaining=done.remaining))
        return done

    def rebuild(self, *, progress: Callable[[int, int], None] | None = None) -> Plan[Progress]:
        """Empty the index and take in the whole log, of every tenant. Never degrades.

        Args:
            progress: Told `(done, total)` records as it goes.

        Raises:
            StorageError: If there is no index, another process owns it, or it is being
                written; the embedding model's own errors pass.
        """
        vectors, runs = self._vectors, self._runs
        if vectors is None or runs is None:
            raise StorageError("there are no vectors to rebuild: the manager was given none")
        with runs.entered(_ALL_TENANTS) as is_only:
            if not is_only:
                raise StorageError("the vectors are being rebuilt; try again when that is done")
            if self._embedder is not None:
                # A model that is down now must not cost the vectors that are there.
                yield from self._embedder.learn(anew=True)
            yield from call(vectors.drop)
            self._breakers.embeddings.worked()
            tenants = yield from call(self._log.tenants)
            sizes: list[int] = []
            for name in tenants:
                stats = yield from call(self._log.tenant_stats, Scope(tenant_id=name))
                sizes.append(stats.records)
            done = remaining = 0
            for name in tenants:
                told = None if progress is None else _telling(progress, done, sum(sizes))
                step = yield from self._rebuild_tenant(vectors, runs, name, told)
                done, remaining = done + step.indexed, remaining + step.remaining
            self._breakers.vectors.worked()
        return Progress(indexed=done, remaining=remaining)

    def behind(self, tenant_id: str | None = None) -> Plan[int | None]:
        """How many records the index is behind the log, at most; None without an index."""
        if self._vectors is None or not self._breakers.vectors.is_closed:
            return None
        try:
            index = self._vectors.index_id
        except StorageError:
            return None
        tenants = [tenant_id] if tenant_id else (yield from call(self._log.tenants))
        behind = 0
        for name in tenants:
            last = yield from call(self._log.last_seq, name)
            marks = yield from call(self._log.marks, name, index)
            done = marks.words_seq
            behind += max(last - (min(done, marks.dense_seq) if self._embedder else done), 0)
        return behind

    def erase(self, scope: Scope) -> Plan[int]:
        """Follow an erasure of the log; how many points of `scope` that removed.

        Call it after the log has erased `scope`. Waits for a run under way. Never degrades:
        what is not done now stays noted in the log, for any later run.

        Raises:
            StorageError: If the vectors cannot be written, or another process owns them.
        """
        vectors, runs = self._vectors, self._runs
        if vectors is None or runs is None:
            return 0
        tenant_id = tenant_of(scope)
        try:
            index = vectors.index_id
        except UnknownSizeError:
            return 0
        except DamagedIndexError:
            yield from call(vectors.drop)
            return 0
        noted = yield from call(self._log.erasures, 0)
        newest = max((each.id for each in noted if each.scope == scope), default=0)
        found = yield from call(vectors.count, scope)
        give_up_at = time.monotonic() + PATIENCE.total_seconds()
        while True:
            with runs.entered(tenant_id) as is_only:
                if is_only and (yield from runs.claim(tenant_id)):
                    marks = yield from call(self._log.marks, tenant_id, index)
                    followed = yield from self._follow(vectors, index, marks.erasure_id, tenant_id)
                    yield from runs.release(tenant_id)
                    return followed.removed.get(scope, 0)
            # The run under way follows erasures too, before each of its batches.
            marks = yield from call(self._log.marks, tenant_id, index)
            if marks.erasure_id >= newest:
                return found
            yield from runs.pause(give_up_at)

    def _rebuild_tenant(
        self,
        vectors: VectorStore,
        runs: IndexRuns,
        tenant_id: str,
        progress: Callable[[int], None] | None,
    ) -> Plan[Progress]:
        give_up_at = time.monotonic() + PATIENCE.total_seconds()
        while True:
            with runs.entered(tenant_id) as is_only:
                if is_only and (yield from runs.claim(tenant_id)):
                    done = yield from self._run(vectors, tenant_id, None, progress, strict=True)
                    yield from runs.release(tenant_id)
                    return done
            yield from runs.pause(give_up_at)

    def _run(
        self,
        vectors: VectorStore,
        tenant_id: str,
        limit: int | None,
        progress: Callable[[int], None] | None,
        *,
        strict: bool = False,
    ) -> Plan[Progress]:
        run = _Run(vectors, vectors.index_id, tenant_id, strict)
        marks = yield from self._marks(run)
        marks = yield from self._followed(run, marks)
        last = yield from call(self._log.last_seq, tenant_id)
        indexed = 0
        while marks.words_seq < last and (limit is None or indexed < limit):
            size = BATCH if limit is None else min(BATCH, limit - indexed)
            is_level = self._embeds and marks.dense_seq >= marks.words_seq
            step = yield from self._batch(run, marks, marks.words_seq, size, embed=is_level)
            marks, indexed = step.marks, indexed + step.records
            if step.is_last:
                break
            if progress is not None:
                progress(indexed)
        while (
            self._embeds
            and marks.dense_seq < marks.words_seq
            and (limit is None or indexed < limit)
        ):
            size = BATCH if limit is None else min(BATCH, limit - indexed)
            step = yield from self._batch(run, marks, marks.dense_seq, size, embed=True)
            is_stuck = step.marks.dense_seq == marks.dense_seq
            marks, indexed = step.marks, indexed + step.records
            if step.is_last or is_stuck:
                break
            if progress is not None:
                progress(indexed)
        done = marks.words_seq if self._embedder is None else min(marks.words_seq, marks.dense_seq)
        return Progress(indexed=indexed, remaining=max(last - done, 0))

    @property
    def _embeds(self) -> bool:
        return self._embedder is not None and self._breakers.embeddings.is_closed

    def _marks(self, run: _Run) -> Plan[IndexMarks]:
        """How far the index is, held once against the points it has.

        An index put back from an older copy, or one that lost its newest points with the
        power, has fewer than the log noted, and may have what was erased since.
        """
        marks = yield from call(self._log.marks, run.tenant_id, run.index_id)
        if (run.index_id, run.tenant_id) in self._checked:
            return marks
        newest = yield from call(self._log.last_seq, run.tenant_id, until_seq=marks.words_seq)
        if newest and not (yield from self._holds(run, newest)):
            marks = yield from self._rewound(run, marks)
            reason = f"the index lacks records that it had, after {marks.words_seq}"
            event = Degraded(part="vectors", reason=reason, fallback="they are indexed again")
            emit(self._listeners, event)
        self._checked.add((run.index_id, run.tenant_id))
        return marks

    def _holds(self, run: _Run, seq: int) -> Plan[bool]:
        scope = Scope(tenant_id=run.tenant_id)
        found = yield from call(run.vectors.scroll, scope, after_id=seq - 1, limit=1)
        return bool(found) and found[0].id == seq

    def _rewound(self, run: _Run, marks: IndexMarks) -> Plan[IndexMarks]:
        """The marks as the points have it, after every erasure was carried out once more."""
        for erasure in (yield from call(self._log.erasures, 0)):
            if (yield from call(run.vectors.delete, erasure.scope)):
                # It may have taken points of what the thread has held since.
                other = tenant_of(erasure.scope)
                yield from call(self._log.set_marks, other, run.index_id, words_seq=0, dense_seq=0)
        now = yield from call(self._log.marks, run.tenant_id, run.index_id)
        low, high, is_embedded = 0, min(now.words_seq, marks.words_seq), False
        scope = Scope(tenant_id=run.tenant_id)
        while low < high:
            middle = (low + high) // 2
            found = yield from call(run.vectors.scroll, scope, after_id=middle, limit=1)
            if found and found[0].id <= high:
                low, is_embedded = found[0].id, DENSE in found[0].dense
            else:
                high = middle
        dense = min(now.dense_seq, low) if is_embedded else 0
        return (yield from self._noted(run, now, words_seq=low, dense_seq=dense))

    def _noted(
        self, run: _Run, marks: IndexMarks, *, words_seq: int, dense_seq: int
    ) -> Plan[IndexMarks]:
        yield from call(
            self._log.set_marks,
            run.tenant_id,
            run.index_id,
            words_seq=words_seq,
            dense_seq=dense_seq,
        )
        return marks._replace(words_seq=words_seq, dense_seq=dense_seq)

    def _followed(self, run: _Run, marks: IndexMarks) -> Plan[IndexMarks]:
        followed = yield from self._follow(
            run.vectors, run.index_id, marks.erasure_id, run.tenant_id
        )
        return marks._replace(erasure_id=followed.erasure_id)

    def _follow(
        self, vectors: VectorStore, index_id: str, after_id: int, tenant_id: str
    ) -> Plan[_Followed]:
        """Carry out the erasures after `after_id`, in order, holding the claim of `tenant_id`.

        Those of another tenant need that tenant's claim: while it cannot be had, that one
        and all after it are left to a later run.
        """
        done, removed = after_id, dict[Scope, int]()
        for erasure in (yield from call(self._log.erasures, after_id)):
            name = tenant_of(erasure.scope)
            if name == tenant_id:
                count = yield from call(vectors.delete, erasure.scope)
                yield from call(self._log.set_erased, index_id, erasure.id)
                removed[erasure.scope] = removed.get(erasure.scope, 0) + count
            elif not (yield from self._follow_other(vectors, index_id, erasure)):
                break
            done = erasure.id
        return _Followed(done, removed)

    def _follow_other(self, vectors: VectorStore, index_id: str, erasure: Erasure) -> Plan[bool]:
        name = tenant_of(erasure.scope)
        runs = cast("IndexRuns", self._runs)
        with runs.entered(name) as is_only:
            if not is_only or not (yield from runs.claim(name)):
                return False
            # Its own run may have carried it out meanwhile, and gone on with newer records.
            marks = yield from call(self._log.marks, name, index_id)
            if marks.erasure_id < erasure.id:
                yield from call(vectors.delete, erasure.scope)
                yield from call(self._log.set_erased, index_id, erasure.id)
            yield from runs.release(name)
        return True

    def _batch(
        self, run: _Run, marks: IndexMarks, after_seq: int, size: int, *, embed: bool
    ) -> Plan[_Step]:
        """Index the next records after `after_seq`.

        What is erased while they are on their way is carried out before they are stored if
        it shows by then, in which case they are read again, and after it otherwise.
        """
        found = yield from call(self._log.pending, run.tenant_id, after_seq, size)
        if found.damaged:
            reason = f"records {list(found.damaged)} of {run.tenant_id!r} are damaged: verify says"
            emit(self._listeners, Degraded(part="log", reason=reason, fallback="the other records"))
        embeddings: list[Embedding] | None = None
        if embed and found.entries:
            embeddings = yield from self._embed([entry.record for entry in found.entries], run)
        now = yield from self._followed(run, marks)
        if now.erasure_id != marks.erasure_id:
            return _Step(marks=now, records=0, is_last=False)
        points = [
            point_of(entry, None if embeddings is None else embeddings[i])
            for i, entry in enumerate(found.entries)
        ]
        if points:
            yield from call(run.vectors.upsert, points)
            now = yield from self._followed(run, now)
        is_embedded = embed and (embeddings is not None or not found.entries)
        now = yield from self._noted(
            run,
            now,
            words_seq=max(marks.words_seq, found.until_seq),
            dense_seq=found.until_seq if is_embedded else marks.dense_seq,
        )
        return _Step(marks=now, records=len(points), is_last=found.until_seq == after_seq)

    def _embed(self, records: Sequence[LogRecord], run: _Run) -> Plan[list[Embedding] | None]:
        """What the model makes of them; None when it is down, unless the run is strict."""
        if self._embedder is None:
            return None
        model, texts = self._embedder.model, [document_text(record) for record in records]
        in_context = isinstance(model, TurnEmbeddings)
        before = (yield from said_before(self._log, run.tenant_id, records)) if in_context else []
        try:
            if isinstance(model, TurnEmbeddings):
                turns = list(zip(before, texts, strict=True))
                encoded = yield from call(model.embed_turns, turns)
            else:
                vectors = yield from call(model.embed_documents, texts)
                encoded = [Encoded(vector, None) for vector in vectors]
            vectors = [each.vector for each in encoded]
            check_vectors(vectors, count=len(texts), dense=run.vectors.dense)
        except Exception as error:
            if run.strict:
                raise
            self._breakers.embeddings.failed(error)
            return None
        self._breakers.embeddings.worked()
        return [
            Embedding(each.vector, codes_of(text, each.tokens) if each.tokens else "")
            for text, each in zip(texts, encoded, strict=True)
        ]


_ALL_TENANTS = "\0"
"""No tenant's name: a rebuild goes on while no other does."""


class _Run(NamedTuple):
    vectors: VectorStore
    index_id: str
    tenant_id: str
    strict: bool
    """Whether a failing model ends the run."""


class _Step(NamedTuple):
    marks: IndexMarks
    records: int
    is_last: bool
    """Whether nothing was left to read."""


class _Followed(NamedTuple):
    erasure_id: int
    """The newest one carried out."""
    removed: Mapping[Scope, int]
    """Points removed, of the tenant's own erasures."""


def _telling(
    progress: Callable[[int, int], None], before: int, total: int
) -> Callable[[int], None]:
    return lambda done: progress(before + done, total)
