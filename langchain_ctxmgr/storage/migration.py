"""Vectors from one store to another: from a folder to a Qdrant server, or back.

Points are copied tenant by tenant in the order of their ids, so the highest id in the target
says how far a broken-off move came, and the next one goes on from there. At the end of each
tenant both sides are counted, and points from all over the range compared. The source is
left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from langchain_ctxmgr._plans import Plan, arun, call, run
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.message_log import IndexMarks, MessageLog
from langchain_ctxmgr.storage.vectors import MAX_POINT_ID, Point, SparseVector, VectorStore

PAGE_POINTS = 256
"""Points in memory at once: 2 MB of 384 dimensions."""
PLACES = 8
PLACE_POINTS = 8
"""So many points are compared at so many places of each tenant's ids."""
_ROUNDING = 2e-3
"""Most that a number of a unit vector differs after being rounded to 16 bits twice."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the points that are there and all there are to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a move did."""

    tenants: int
    points: int
    """In the target, all of them the source's."""
    copied: int
    """By this move; the others were there from one before."""
    compared: int
    """Points read from both sides and found alike; places may overlap."""


def move(
    source: VectorStore,
    target: VectorStore,
    tenants: Sequence[str],
    *,
    progress: Progress | None = None,
) -> Moved:
    """Copy the points of `tenants` and check that they arrived.

    Nothing may be recorded or erased meanwhile. After a failure, call it again.

    Raises:
        ValueError: If both are the same store, or for two embeddings.
        StorageError: If a store cannot be used, or the target holds something else than the
            source for one of the tenants.
    """
    return run(_moved(source, target, tenants, progress))


def migrate(
    log: MessageLog,
    source: VectorStore,
    target: VectorStore,
    *,
    progress: Progress | None = None,
) -> Moved:
    """`move` the points of every tenant of `log`, and note that the target follows it as far.

    So nothing is embedded again: the target goes on where the source stands, and carries out
    what is erased from here on.

    Raises:
        ValueError: As `move`.
        StorageError: As `move`; nothing is noted then.
    """
    return run(_migrated(log, source, target, progress))


async def amigrate(
    log: MessageLog,
    source: VectorStore,
    target: VectorStore,
    *,
    progress: Progress | None = None,
) -> Moved:
    """`migrate` on an event loop; `progress` is called in a worker thread."""
    return await arun(_migrated(log, source, target, progress))


def _migrated(
    log: MessageLog, source: VectorStore, target: VectorStore, progress: Progress | None
) -> Plan[Moved]:
    yield from call(source.setup)
    tenants = yield from call(log.tenants)
    marks: dict[str, IndexMarks] = {}
    for tenant in tenants:
        marks[tenant] = yield from call(log.marks, tenant, source.index_id)
    moved = yield from _moved(source, target, tenants, progress)
    for tenant, mark in marks.items():
        own = yield from call(log.marks, tenant, target.index_id)
        yield from call(
            log.set_marks,
            tenant,
            target.index_id,
            words_seq=max(own.words_seq, mark.words_seq),
            dense_seq=max(own.dense_seq, mark.dense_seq),
        )
        yield from call(log.set_erased, tenant, target.index_id, mark.erasure_id)
    return moved


async def amove(
    source: VectorStore,
    target: VectorStore,
    tenants: Sequence[str],
    *,
    progress: Progress | None = None,
) -> Moved:
    """`move` on an event loop; `progress` is called in a worker thread."""
    return await arun(_moved(source, target, tenants, progress))


def _moved(
    source: VectorStore, target: VectorStore, tenants: Sequence[str], progress: Progress | None
) -> Plan[Moved]:
    if source.dense != target.dense:
        raise ValueError(
            f"vectors of one embedding cannot become another's: the source has {source.dense}, "
            f"the target {target.dense}"
        )
    yield from call(source.setup)
    yield from call(target.setup)
    if source.index_id == target.index_id:
        raise ValueError("source and target must be two stores")
    scopes = [Scope(tenant_id=tenant) for tenant in tenants]
    total = 0
    for scope in scopes:
        total += yield from call(source.count, scope)
    points = copied = compared = 0
    for scope in scopes:

        def tell(done: int, before: int = points) -> None:
            if progress is not None:
                progress(before + done, total)

        tenant = _Tenant(source, target, scope, tell)
        copied += yield from tenant.copy()
        points += yield from tenant.count()
        compared += yield from tenant.compare()
    yield from call(target.flush)
    return Moved(tenants=len(scopes), points=points, copied=copied, compared=compared)


@dataclass(frozen=True, slots=True)
class _Tenant:
    """The points of one tenant on their way."""

    source: VectorStore
    target: VectorStore
    scope: Scope
    tell: Callable[[int], None]

    def copy(self) -> Plan[int]:
        """Copy what is missing; how many points."""
        there = yield from call(self.target.count, self.scope)
        self.tell(there)
        highest = (yield from self._highest()) if there else 0
        copied = yield from self._pages(highest, there)
        there = yield from call(self.target.count, self.scope)
        if highest and there < (yield from call(self.source.count, self.scope)):
            # What was there is not the beginning of the source: something else wrote to it.
            copied += yield from self._pages(0, 0)
        return copied

    def _pages(self, after_id: int, there: int) -> Plan[int]:
        copied = 0
        while page := (
            yield from call(self.source.scroll, self.scope, after_id=after_id, limit=PAGE_POINTS)
        ):
            yield from call(self.target.upsert, page)
            after_id = page[-1].id
            copied += len(page)
            self.tell(there + copied)
        return copied

    def _highest(self) -> Plan[int]:
        """The highest id in the target, by bisection: a store only tells what follows an id."""
        first = yield from call(self.target.scroll, self.scope, limit=PAGE_POINTS)
        if len(first) < PAGE_POINTS:
            return first[-1].id if first else 0
        low, high = first[-1].id, MAX_POINT_ID
        while low < high:
            middle = (low + high) // 2
            after = yield from call(self.target.scroll, self.scope, after_id=middle, limit=1)
            low, high = (after[0].id, high) if after else (low, middle)
        return low

    def count(self) -> Plan[int]:
        """How many points both sides have.

        Raises:
            StorageError: If one has more than the other.
        """
        here = yield from call(self.source.count, self.scope)
        there = yield from call(self.target.count, self.scope)
        if here != there:
            raise StorageError(
                f"of tenant {self.scope.tenant_id!r} the source has {here} points and the target "
                f"{there}; move them to an empty collection, while nothing is recorded or erased"
            )
        return there

    def compare(self) -> Plan[int]:
        """How many points, at places spread over the ids, were found alike.

        Raises:
            StorageError: If one differs.
        """
        compared = 0
        highest = yield from self._highest()
        for after_id in sorted({highest * place // PLACES for place in range(PLACES)}):
            spot = {"after_id": after_id, "limit": PLACE_POINTS}
            here = yield from call(self.source.scroll, self.scope, **spot)
            there = yield from call(self.target.scroll, self.scope, **spot)
            if not _alike(here, there):
                raise StorageError(
                    f"the points of tenant {self.scope.tenant_id!r} after id {after_id} differ "
                    "between source and target; move them to an empty collection"
                )
            compared += len(here)
            if not here or here[-1].id == highest:
                break
        return compared


def _alike(here: Sequence[Point], there: Sequence[Point]) -> bool:
    return len(here) == len(there) and all(
        one.id == other.id
        and dict(one.payload) == dict(other.payload)
        and one.sparse.keys() == other.sparse.keys()
        and all(_is_same(one.sparse[name], other.sparse[name]) for name in one.sparse)
        and one.dense.keys() == other.dense.keys()
        and all(
            np.allclose(one.dense[name], other.dense[name], rtol=0, atol=_ROUNDING)
            for name in one.dense
        )
        for one, other in zip(here, there, strict=True)
    )


def _is_same(one: SparseVector, other: SparseVector) -> bool:
    ours, theirs = (dict(zip(*vector, strict=True)) for vector in (one, other))
    return ours.keys() == theirs.keys() and np.allclose(
        [ours[index] for index in ours], [theirs[index] for index in ours]
    )
