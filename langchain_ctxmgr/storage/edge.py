"""Vectors in a folder: Qdrant Edge, Qdrant's own engine inside this process.

Edge answers in well under a millisecond and holds the interpreter lock while it does, so
the async methods call it in place; a thread would gain nothing. What takes longer
(many points, erasing) goes in slices with a turn of the event loop between them, and what
waits for the disk (making, flushing and removing a shard) in a thread.

One process owns a folder. The folder holds `index.json` (what is in it) and one
`shard-*` folder that `index.json` names. Edge never gives space back and keeps deleted
points in its files and its write-ahead log, so erasing copies what stays into a new shard
and then switches `index.json` over in one atomic step.

Two habits of Edge shape the rest. A forked child hangs as soon as it queries its parent's
shard: it is told so instead, and never touches or frees the shard. And Edge writes through
memory maps, so a full disk would end the process with SIGBUS: free space is checked before
each write.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import qdrant_edge as edge

from langchain_ctxmgr.errors import DamagedIndexError, ShardInUseError, StorageError
from langchain_ctxmgr.forking import ForkableLock
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage import edge_folder, edge_shard
from langchain_ctxmgr.storage.edge_folder import FolderIndex
from langchain_ctxmgr.storage.edge_owner import Ownership
from langchain_ctxmgr.storage.edge_steps import Steps, afinish, finish
from langchain_ctxmgr.storage.vectors import (
    DenseVectors,
    Hit,
    Point,
    VectorQuery,
    checked_ask,
    conditions,
    corpus_level,
    scope_key,
    with_threads,
)

SLICE_POINTS = 16
"""Points written in one go, 1 to 2 ms: the longest that writing holds an event loop."""
FLUSH_POINTS = 5_000
"""Points between two flushes. A flush takes 30 to 100 ms whatever there is to write; the
write-ahead log covers a killed process without it, and grows 2.5 MB per 1,000 points."""
MIN_FREE_BYTES = 64 * 2**20
"""Free space below which nothing is written: two of the 32 MB files Edge maps ahead."""
_WAIT_SECONDS = 0.005


@dataclass(slots=True)
class _Corpus:
    """What IDF is counted over for a scope, and how many points had been found in it."""

    scope: str
    points: int
    params: edge.IdfParams
    added: int = 0
    """Most points stored in it since."""

    def holds(self) -> bool:
        """Whether counting anew would come to the same."""
        return corpus_level(self.points) == corpus_level(self.points + self.added)


class EdgeVectorStore:
    """A `VectorStore` in the folder `path`, opened by `setup` or first use.

    Args:
        path: Folder of its own; made when missing.
        dense: The embedding its dense vectors come from, None for keyword recall alone;
            a function that says so is called at first use. A folder is built for one
            embedding: another name or size is a `StorageError`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        dense: DenseVectors | Callable[[], DenseVectors] | None = None,
    ) -> None:
        self.path = Path(path)
        self._owner = Ownership(self.path)
        self._embedding = dense
        self._dense = None if callable(dense) else dense
        self._lock = threading.RLock()
        self._shard: edge.EdgeShard | None = None
        self._index: FolderIndex | None = None
        self._next: edge.EdgeShard | None = None
        self._apart: dict[str, edge.EdgeShard] = {}
        """Shards by name that are made or removed while others use the store."""
        self._files = ForkableLock()
        """Held while that goes on; taken after `_lock` where both are."""
        self._corpus: _Corpus | None = None
        """Of the scope asked last: a conversation asks again and again, and Edge counts in a
        thread of its own, which a busy machine takes milliseconds to wake."""
        self._pid: int | None = None
        self._closed = False
        self._unflushed = 0
        """Points written since the shard was flushed."""
        self._unflushed_next = 0
        self._erased = 0
        self._rewritten = 0
        _stores.add(self)

    @property
    def dense(self) -> DenseVectors | None:
        """The embedding it is opened for."""
        if self._dense is None and callable(self._embedding):
            self._dense = self._embedding()
        return self._dense

    @property
    def is_shared(self) -> bool:
        """False: one process owns the folder."""
        return False

    @property
    def index_id(self) -> str:
        """Identity of the folder's content; opens the store when needed."""
        with self._opened():
            return cast("FolderIndex", self._index).index_id

    def setup(self) -> None:
        """Open the folder, creating it where there is none, and finish a broken-off erasure.

        Raises:
            ShardInUseError: If another process, or another store in this one, owns it.
            StorageError: If it is damaged, was built for another embedding, or the disk
                is full.
        """
        with self._opened():
            pass

    def upsert(self, points: Sequence[Point]) -> None:
        """Store `points`, replacing those with the same id. All are checked first.

        Raises:
            ValueError: If a point is not as `Point` says; nothing is stored then.
            StorageError: If the disk is full.
        """
        finish(self._upsert(points))

    def query(
        self, scope: Scope, queries: Sequence[VectorQuery], *, before_slot: int | None = None
    ) -> list[list[Hit]]:
        """The best points for each query, best first, ties by id ascending.

        Where more than `vectors.TIE_POINTS` share the score at the limit, Edge's scan
        decides which of them: the same ones for the same folder.
        """
        asks = [checked_ask(scope, query, before_slot, self.dense) for query in queries]
        with self._opened() as shard:
            if not any(asks):
                return [[] for _ in asks]
            return edge_shard.search(shard, self._idf(shard, scope), asks)

    def codes(self, scope: Scope, ids: Sequence[int]) -> dict[int, str]:
        """The codes of these points, by id, of those in `scope`: 2 ms for 500."""
        with self._opened() as shard:
            return edge_shard.codes(shard, scope, ids) if ids else {}

    def count(self, scope: Scope, *, among: Collection[int] | None = None) -> int:
        """Points in `scope`. Takes time in proportion to them: 16 ms for 50,000."""
        needed = edge_shard.edge_filter(conditions(scope, among=among))
        with self._opened() as shard:
            return shard.count(edge.CountRequest(exact=True, filter=needed))

    def scroll(self, scope: Scope, *, after_id: int = 0, limit: int = 1_000) -> list[Point]:
        """The points of `scope` after `after_id` in id order.

        Vectors are as stored: dense ones scaled to length 1 and rounded to 16 bits.
        """
        needed = edge_shard.edge_filter(conditions(scope))
        with self._opened() as shard:
            records, _ = edge_shard.page(shard, after_id + 1, limit, needed)
            return [edge_shard.stored_point(record) for record in records]

    def delete(
        self, scope: Scope, *, also: Sequence[str] = (), among: Collection[int] | None = None
    ) -> int:
        """Erase the points of `scope` from the store and its files; how many there were.

        With a thread, those of the tenant's threads named in `also` too.
        What stays is copied into a new shard, in slices that let queries and writes
        through: 0.1 ms a point, some 10 s in a store of 100,000. Broken off, the next
        `setup` finishes it.
        """
        return finish(self._delete(with_threads(scope, also), among))

    def drop(self) -> None:
        """Erase the folder's content, damaged or not; the next use starts an empty one.

        Raises:
            ShardInUseError: If another process owns it.
        """
        self._refuse()
        with self._lock, edge_shard.storage_errors(f"drop the vectors in {self.path}"):
            self._drop()
            self._release()

    def remove(self) -> None:
        """`drop`, and the folder itself: it is owned until it is gone.

        Raises:
            ShardInUseError: If another process owns it.
        """
        self._refuse()
        with self._lock, edge_shard.storage_errors(f"remove the vectors in {self.path}"):
            self._drop()
            edge_folder.remove(self.path)
            self._release()

    def flush(self) -> None:
        """Make everything durable against power loss: 30 to 100 ms."""
        with self._opened() as shard:
            shard.flush()
            self._unflushed = 0

    def close(self) -> None:
        """Flush and release the folder; again does nothing.

        A folder that was removed meanwhile is let go: there is nothing left to flush.
        """
        if self._closed:
            return
        self._closed = True
        if self._is_forked():
            return
        with self._lock, edge_shard.storage_errors(f"close the vectors in {self.path}"):
            index = self._index
            is_there = index is not None and (self.path / index.shard).is_dir()
            if self._shard is not None and self._unflushed and is_there:
                self._shard.flush()
            self._release()

    def after_fork(self) -> None:
        """Start anew in a forked child: a thread of the parent may hold the lock.

        The shards are never freed: their files are the parent's.
        """
        self._lock = threading.RLock()
        self._owner.give_up()
        for shard in (*self._shards(), *self._apart.values()):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(shard))

    async def asetup(self) -> None:
        """`setup` on an event loop: opening holds it for up to 0.3 s."""
        self.setup()

    async def aupsert(self, points: Sequence[Point]) -> None:
        """`upsert` on an event loop, which gets a turn every `SLICE_POINTS` points."""
        await afinish(self._upsert(points))

    async def aquery(
        self, scope: Scope, queries: Sequence[VectorQuery], *, before_slot: int | None = None
    ) -> list[list[Hit]]:
        """`query`, in place: Edge holds the interpreter lock, a thread would gain nothing."""
        return self.query(scope, queries, before_slot=before_slot)

    async def acodes(self, scope: Scope, ids: Sequence[int]) -> dict[int, str]:
        """`codes`, in place."""
        return self.codes(scope, ids)

    async def acount(self, scope: Scope, *, among: Collection[int] | None = None) -> int:
        """`count`, in place."""
        return self.count(scope, among=among)

    async def ascroll(self, scope: Scope, *, after_id: int = 0, limit: int = 1_000) -> list[Point]:
        """`scroll`, in place."""
        return self.scroll(scope, after_id=after_id, limit=limit)

    async def adelete(
        self, scope: Scope, *, also: Sequence[str] = (), among: Collection[int] | None = None
    ) -> int:
        """`delete` on an event loop, which gets a turn every `SLICE_POINTS` points."""
        return await afinish(self._delete(with_threads(scope, also), among))

    async def adrop(self) -> None:
        """`drop`, in place."""
        self.drop()

    async def aflush(self) -> None:
        """`flush`, in place."""
        self.flush()

    async def aclose(self) -> None:
        """`close`, in place."""
        self.close()

    def _open(self) -> None:
        """Own the folder, open what it holds or start an empty shard, and tidy up."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._owner.take()
        edge_folder.require_free(self.path, MIN_FREE_BYTES)
        index = edge_folder.read(self.path)
        if index is None:
            index, shard = self._first()
        else:
            self._check_dense(index)
            shard = self._loaded(index)
        edge_folder.tidy(self.path, index)
        self._pid, self._index, self._shard = os.getpid(), index, shard
        self._unflushed = 0
        if index.is_erasing:
            self._erased += 1
            finish(self._rewrite())

    def _first(self) -> tuple[FolderIndex, edge.EdgeShard]:
        name = edge_folder.new_shard_name()
        index = FolderIndex(uuid=uuid.uuid4().hex, shard=name, dense=self.dense)
        with edge_shard.storage_errors(f"create vectors in {self.path}"):
            shard = edge_shard.created(self.path / name, self.dense)
        edge_folder.replace(self.path, index)
        return index, shard

    def _loaded(self, index: FolderIndex) -> edge.EdgeShard:
        folder = self.path / index.shard
        try:
            with edge_shard.storage_errors(f"open the vectors in {self.path}"):
                edge_shard.require_segments(folder)
                return edge.EdgeShard.load(str(folder))
        except StorageError as error:
            raise DamagedIndexError(f"{error}; {edge_folder.REBUILD}") from error

    def _check_dense(self, index: FolderIndex) -> None:
        if index.dense != self.dense:
            raise StorageError(
                f"{self.path} holds {_described(index.dense)} and was opened for "
                f"{_described(self.dense)}; use another folder, or "
                f"rebuild this one with `ctxmgr reindex`"
            )

    def _is_forked(self) -> bool:
        return self._pid is not None and self._pid != os.getpid()

    def _refuse(self) -> None:
        if self._closed:
            raise StorageError(f"the vector store of {self.path} is closed")
        if self._is_forked():
            raise ShardInUseError(
                f"{self.path} belongs to the process this one was forked from; open a store "
                "after the fork, in one process, or use server mode (a Qdrant server)"
            )

    @contextlib.contextmanager
    def _opened(self) -> Generator[edge.EdgeShard]:
        self._refuse()
        with self._lock, edge_shard.storage_errors(f"use the vectors in {self.path}"):
            self._refuse()
            if self._shard is None:
                try:
                    self._open()
                except BaseException:
                    self._owner.give_up()
                    raise
            yield cast("edge.EdgeShard", self._shard)

    def _shards(self) -> list[edge.EdgeShard]:
        return [shard for shard in (self._shard, self._next) if shard is not None]

    def _drop(self) -> None:
        if self._shard is None and self.path.is_dir():
            self._owner.take()
        self._close_shards()
        self._rewritten = self._erased
        with self._files:
            edge_folder.erase(self.path)
        if callable(self._embedding):
            self._dense = None

    def _release(self) -> None:
        self._close_shards()
        self._owner.give_up()

    def _close_shards(self) -> None:
        with self._files:
            for shard in self._shards():
                shard.close()
        self._shard = self._next = self._index = self._corpus = self._pid = None

    def _upsert(self, points: Sequence[Point]) -> Steps[None]:
        ready: list[edge.Point] = []
        for start in range(0, len(points), SLICE_POINTS):
            ready += [
                edge_shard.edge_point(point, self.dense)
                for point in points[start : start + SLICE_POINTS]
            ]
            if len(points) > SLICE_POINTS:
                yield 0.0
        for start in range(0, len(ready), SLICE_POINTS):
            if start:
                yield 0.0
            piece = ready[start : start + SLICE_POINTS]
            with self._opened() as shard:
                edge_folder.require_free(self.path, MIN_FREE_BYTES)
                self._update(shard, edge.UpdateOperation.upsert_points(piece), adds=len(piece))
                self._unflushed += len(piece)
                self._unflushed_next += len(piece)
                if self._unflushed >= FLUSH_POINTS:
                    shard.flush()
                    self._unflushed = 0

    def _idf(self, shard: edge.EdgeShard, scope: Scope) -> edge.IdfParams:
        known = self._corpus
        if known is None or known.scope != scope_key(scope) or not known.holds():
            points = edge_shard.size(shard, scope)
            known = _Corpus(scope_key(scope), points, edge_shard.corpus(scope, points))
            self._corpus = known
        return known.params

    def _update(
        self, shard: edge.EdgeShard, operation: edge.UpdateOperation, *, adds: int | None = None
    ) -> None:
        """With `adds`, `operation` stores at most so many new points and erases none."""
        if adds is None:
            self._corpus = None
        elif self._corpus is not None:
            self._corpus.added += adds
        shard.update(operation)
        if self._next is not None:
            self._next.update(operation)

    def _delete(self, scopes: Sequence[Scope], among: Collection[int] | None) -> Steps[int]:
        erased = [edge_shard.edge_filter(conditions(scope, among=among)) for scope in scopes]
        with self._opened() as shard:
            index = cast("FolderIndex", self._index)
            found = sum(shard.count(edge.CountRequest(exact=True, filter=each)) for each in erased)
            if not found and not index.is_erasing:
                return 0
            edge_folder.require_free(self.path, MIN_FREE_BYTES)
            self._index = replace(index, is_erasing=True)
            edge_folder.replace(self.path, self._index)
            for each in erased:
                self._update(shard, edge.UpdateOperation.delete_points_by_filter(each))
            self._erased += 1
            turn = self._erased
        while self._rewritten < turn:
            if self._next is None:
                yield from self._rewrite()
            else:
                yield _WAIT_SECONDS
        return found

    def _rewrite(self) -> Steps[None]:
        """Copy what is not deleted into a new shard and switch over to it."""
        name = edge_folder.new_shard_name()
        with self._opened() as old:
            pass
        fresh = None
        try:
            yield partial(self._make, name)
            fresh = self._apart[name]
            with self._opened() as shard:
                if shard is not old or self._next is not None:
                    return
                turn, self._next = self._erased, fresh
            start: int | None = 1
            while start is not None:
                with self._opened() as shard:
                    if self._next is not fresh:
                        return
                    edge_folder.require_free(self.path, MIN_FREE_BYTES)
                    records, start = edge_shard.page(shard, start, SLICE_POINTS)
                    copies = [edge.Point(r.id, r.vector or {}, r.payload) for r in records]
                    fresh.update(edge.UpdateOperation.upsert_points(copies))
                yield 0.0
            yield partial(self._flush_next, fresh)
            with self._opened():
                if self._next is not fresh:
                    return
                index = cast("FolderIndex", self._index)
                switched = replace(index, shard=name, is_erasing=self._erased > turn)
                edge_folder.replace(self.path, switched)
                self._apart[index.shard] = old
                self._shard, self._next, self._index = fresh, None, switched
                self._unflushed = self._unflushed_next
                self._rewritten = turn
            yield partial(self._remove, index.shard)
        finally:
            if not self._is_forked():
                self._settle(name, fresh)

    def _make(self, name: str) -> None:
        with self._files, edge_shard.storage_errors(f"create vectors in {self.path}"):
            self._apart[name] = edge_shard.created(self.path / name, self.dense)

    def _flush_next(self, fresh: edge.EdgeShard) -> None:
        with self._files, edge_shard.storage_errors(f"flush the vectors in {self.path}"):
            if self._next is fresh:
                self._unflushed_next = 0
                fresh.flush()

    def _remove(self, name: str) -> None:
        with self._files, edge_shard.storage_errors(f"remove vectors in {self.path}"):
            shard = self._apart.pop(name, None)
            if shard is not None:
                shard.close()
            edge_folder.remove_shard(self.path, name)

    def _settle(self, name: str, fresh: edge.EdgeShard | None) -> None:
        """Remove the shard a rewrite made, unless it is the store's."""
        with self._lock:
            if fresh is not None and self._next is fresh:
                self._next = None
            is_used = fresh is not None and self._shard is fresh
        if is_used:
            self._apart.pop(name, None)
        else:
            self._remove(name)


_stores: weakref.WeakSet[EdgeVectorStore] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for store in list(_stores):
        store.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _described(dense: DenseVectors | None) -> str:
    return f"{dense.name} vectors of size {dense.size}" if dense else "no dense vectors"
