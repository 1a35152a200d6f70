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
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.errors import (
    DamagedIndexError,
    LogError,
    ReadOnlyLogError,
    StorageError,
)
from langchain_ctxmgr.events import CaughtUp, Degraded, Listener, emit
from langchain_ctxmgr.memory.breaker import Breakers
from langchain_ctxmgr.memory.embeddings import Embedder, UnknownSizeError, learn_size
from langchain_ctxmgr.memory.index_run import Progress, TenantRun
from langchain_ctxmgr.memory.index_runs import PATIENCE, ClaimLostError, IndexRuns, index_of
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.storage.vectors import VectorStore

OTHERS_FOLLOWED: Final = 8
"""Other tenants whose erasures a run carries out, where their own turns may never come."""
_NOTHING: Final = Progress(indexed=0, remaining=0)
_ALL_TENANTS: Final = "\0"
"""No tenant's name: a rebuild goes on while no other does."""


class Part(NamedTuple):
    """What was erased of a tenant."""

    scope: Scope
    seqs: Collection[int] | None = None
    """Of these records alone; None: all of the scope."""


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
        what is new. The boundary for the vector store and the embedding model: their
        failures are events, and what is missing is taken in by a later run.
        """
        vectors, runs = self._vectors, self._runs
        log, store, encoder = self._breakers
        if vectors is None or runs is None or not (log.is_closed and store.is_closed):
            return _NOTHING
        try:
            yield from learn_size(self._embedder, encoder)
            with log.asking(), store.asking() as asked:
                done = yield from runs.alone(
                    tenant_id, lambda: self._caught_up(vectors, runs, tenant_id, limit, progress)
                )
                yield from self._follow_others(vectors, runs, tenant_id)
        except ReadOnlyLogError as error:
            event = Degraded(part="log", reason=str(error), fallback="the index as it is")
            emit(self._listeners, event)
            return _NOTHING
        except (UnknownSizeError, ClaimLostError):
            return _NOTHING  # told of already by the model
        except Exception as error:  # noqa: BLE001 - the boundary this docstring names
            (log if isinstance(error, LogError) else store).failed(error)
            return _NOTHING
        if done is None:
            return _NOTHING
        if done.indexed:
            store.worked(asked)
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
            index = yield from index_of(self._vectors)
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

    def erase(self, tenant_id: str, gone: Sequence[Part]) -> Plan[int]:
        """Follow what the log has noted as erased; how many points of `gone` there were.

        Waits for a run under way, which follows erasures itself before each of its batches.

        Raises:
            StorageError: If the vectors cannot be written, or another process owns them: the
                erasure stays noted, for any later run.
        """
        vectors, runs = self._vectors, self._runs
        if vectors is None or runs is None:
            return 0
        try:
            yield from index_of(vectors)
            run = self._run(vectors, runs, tenant_id)
        except UnknownSizeError:
            return 0
        except DamagedIndexError:
            yield from call(vectors.drop)
            return 0
        followed_to = (yield from run.marks()).erasure_id
        noted = yield from call(self._log.erasures, tenant_id, followed_to)
        newest = max((each.id for each in noted), default=followed_to)
        count = 0
        for part in gone:
            count += yield from call(vectors.count, part.scope, among=part.seqs)
        give_up_at = time.monotonic() + PATIENCE.total_seconds()
        while (yield from run.marks()).erasure_id < newest:
            followed = yield from runs.alone(tenant_id, lambda: _follow(run))
            if followed is None:
                yield from runs.pause(give_up_at)
        return count

    def _caught_up(
        self,
        vectors: VectorStore,
        runs: IndexRuns,
        tenant_id: str,
        limit: int | None,
        progress: Callable[[int], None] | None,
    ) -> Plan[Progress]:
        run = self._run(vectors, runs, tenant_id)
        is_checked = (run.index_id, tenant_id) in self._checked
        marks = yield from (run.marks() if is_checked else run.checked_marks())
        self._checked.add((run.index_id, tenant_id))
        return (yield from run.take_in(marks, limit=limit, progress=progress))

    def _follow_others(self, vectors: VectorStore, runs: IndexRuns, tenant_id: str) -> Plan[None]:
        """Carry out other tenants' erasures, as far as nobody is at work for them."""
        index = yield from index_of(vectors)
        for name in (yield from call(self._log.unfollowed, index, OTHERS_FOLLOWED)):
            if name != tenant_id:
                run = self._run(vectors, runs, name)
                yield from runs.alone(name, lambda run=run: _follow(run))

    def _rebuild_tenant(
        self,
        vectors: VectorStore,
        runs: IndexRuns,
        tenant_id: str,
        progress: Callable[[int], None] | None,
    ) -> Plan[Progress]:
        run = self._run(vectors, runs, tenant_id, is_strict=True)

        def work() -> Plan[Progress]:
            marks = yield from run.marks()
            return (yield from run.take_in(marks, progress=progress))

        give_up_at = time.monotonic() + PATIENCE.total_seconds()
        while (done := (yield from runs.alone(tenant_id, work))) is None:
            yield from runs.pause(give_up_at)
        return done

    def _run(
        self, vectors: VectorStore, runs: IndexRuns, tenant_id: str, *, is_strict: bool = False
    ) -> TenantRun:
        return TenantRun(
            log=self._log,
            vectors=vectors,
            index_id=vectors.index_id,
            embedder=self._embedder,
            breakers=self._breakers,
            listeners=self._listeners,
            runs=runs,
            tenant_id=tenant_id,
            is_strict=is_strict,
        )


def _follow(run: TenantRun) -> Plan[bool]:
    """Carry out the erasures of the tenant that `run` alone writes for."""
    marks = yield from run.marks()
    yield from run.follow(marks)
    return True


def _telling(
    progress: Callable[[int, int], None], before: int, total: int
) -> Callable[[int], None]:
    return lambda done: progress(before + done, total)
