"""The vector store port: what a store takes, answers and promises, whatever runs it.

A store holds one point for each recorded message. The point's id is the message's `seq`
in the log, so a hit leads straight back to the text; the store itself holds no text,
only term ids, vectors and the few payload fields in `PAYLOAD_TYPES`. Everything in it can
be rebuilt from the log.

Isolation is decided here and nowhere else: `conditions` turns a scope into the filter
that every query, count, scroll and delete carries, and refuses a scope without a tenant.
Each point names the scopes it is part of (`scope_keys`), so that filter is one exact match:
testing tenant and thread one by one costs 16 ms more on a dense scan of 100,000 points.

IDF comes from the scope too, so that one tenant's vocabulary neither shows nor weighs in
another's scores. Counting every turn of a long thread on each query would cost in
proportion to its length, so a scope has nested samples: all of it at level 0, half at
level 1, a quarter at level 2 and so on. A query takes the lowest level with no more than
`CORPUS_SIZE` points: exact up to there, an even sample of half as many or more beyond.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from operator import gt, neg
from typing import NamedTuple, Protocol, TypeAlias, cast

from langchain_ctxmgr.records import MAX_ID_CHARS, Scope

BM25 = "bm25"
"""Sparse vector of term ids with BM25's term-frequency weights."""
TERMS = "terms"
"""Sparse vector of term ids, about 1.0 for each term present."""
DENSE = "dense"
"""The embedding, where embeddings are configured."""

PAIRS = "pairs"
"""Sparse vector of the ids of adjacent terms, about 1.0 for each pair present."""

SPARSE_NAMES = (BM25, TERMS, PAIRS)

CODES = "codes"
"""Payload field with what late interaction compares; text that says nothing to a store."""

EPISODE = "episode"
"""The payload's kind of an episode: on a shelf of its own, not among what its user said."""
HAPPENING = "happening"
"""That of a memory of something that happened: on the shelf and among the rest."""

SCOPES_FIELD = "scopes"
"""Payload field the store adds: keys of the scopes, and samples of them, with the point."""
CORPUS_SIZE = 8_192
"""Most points that IDF is counted over, which takes up to 0.2 ms. On 17,000 passages of chat
the ten best by an even sample of this size share 95 % with the ten best by all passages;
1,024 share 85 %, and the newest 4,096 63 %."""
TIE_POINTS = 64
"""Points fetched beyond a query's limit, so that ties at the limit are broken by id."""
_MAX_LEVEL = 40
_GOLDEN_64 = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: multiples of it spread evenly (Knuth, TAOCP 3, section 6.4)."""

_ID_FIELDS = ("tenant_id", "thread_id", "user_id")
MAX_SPARSE_INDEX = 2**32 - 1
MAX_POINT_ID = 2**63 - 1
MAX_WEIGHT = 1e18
"""Largest number in a vector: the squares of some thousand add up in a 32-bit float."""

PayloadValue: TypeAlias = str | int | float | datetime | None

PAYLOAD_TYPES: Mapping[str, tuple[type, ...]] = {
    "tenant_id": (str,),
    "thread_id": (str,),
    "user_id": (str,),
    "kind": (str,),
    "role": (str,),
    "slot": (int,),
    "branch": (int,),
    "at": (int, float, datetime),
    CODES: (str,),
}
"""What a payload may hold; `tenant_id` is required. `at` is epoch seconds or an aware
datetime and is stored as seconds."""


class SparseVector(NamedTuple):
    """Weights by dimension; the order of `indices` does not matter."""

    indices: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseVectors:
    """The embedding a store is built for; another one needs another store."""

    name: str
    """The embedding model, as part of the index's identity."""
    size: int
    """Dimensions."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name must not be empty")
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One recorded message as the store keeps it."""

    id: int
    """The record's `seq`, from 1. A point with a known id replaces the one before."""
    payload: Mapping[str, PayloadValue]
    """Fields of `PAYLOAD_TYPES`; None is the same as absent."""
    sparse: Mapping[str, SparseVector] = field(default_factory=dict[str, SparseVector])
    """By name: `bm25`, `terms`, `pairs`. An empty vector is the same as none."""
    dense: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]])
    """By name: `dense`. May be missing where the embedding failed."""


class Hit(NamedTuple):
    """A point that answers a query."""

    id: int
    score: float
    """Dense: cosine, -1 to 1. Sparse: sum of query weight times IDF times stored weight."""


class VectorQuery(NamedTuple):
    """One arm of a recall: the `limit` best points for one vector."""

    using: str
    """`bm25`, `terms`, `pairs` or `dense`."""
    vector: SparseVector | Sequence[float]
    limit: int
    at_from: datetime | float | None = None
    """Only points with `at` from here on: epoch seconds or an aware datetime."""
    at_until: datetime | float | None = None
    """Only points with `at` before here."""
    among: Collection[int] | None = None
    """Only points with these ids: a scan of a few hundred, however many there are."""


class Match(NamedTuple):
    """The payload field holds this value."""

    field: str
    value: str


class Within(NamedTuple):
    """The payload field is at least `start` and below `until`."""

    field: str
    start: float | None
    until: float | None


class Among(NamedTuple):
    """The point has one of these ids."""

    ids: frozenset[int]


Condition: TypeAlias = Match | Within | Among


def with_threads(scope: Scope, also: Sequence[str]) -> list[Scope]:
    """`scope`, and the tenant's threads named in `also`."""
    return [scope, *(Scope(tenant_id=scope.tenant_id, thread_id=thread) for thread in also)]


def conditions(
    scope: Scope,
    *,
    before_slot: int | None = None,
    at_from: datetime | float | None = None,
    at_until: datetime | float | None = None,
    among: Collection[int] | None = None,
) -> tuple[Condition, ...]:
    """What a point must fulfil to be seen from `scope`: the one tenant filter there is.

    A thread belongs together whoever spoke in it, so with a `thread_id` the user does not
    narrow further. Without one, a `user_id` narrows to that user's turns in all threads.

    Raises:
        ValueError: If the scope has no tenant, or `before_slot` is given without a thread
            (slots count within one thread).
    """
    if before_slot is not None and scope.thread_id is None:
        raise ValueError(f"before_slot needs a thread_id, got before_slot={before_slot}")
    needed: list[Condition] = [Match(SCOPES_FIELD, scope_key(scope))]
    if before_slot is not None:
        needed.append(Within("slot", None, before_slot))
    if at_from is not None or at_until is not None:
        needed.append(Within("at", _seconds(at_from), _seconds(at_until)))
    if among is not None:
        needed.append(Among(frozenset(among)))
    return tuple(needed)


def scope_key(scope: Scope, level: int = 0) -> str:
    """The one name of `scope`, or of its sample at `level`; no two scopes share one.

    Raises:
        ValueError: If the scope has no tenant.
    """
    if scope.tenant_id is None:
        raise ValueError(f"tenant_id is required to read or change vectors, got {scope}")
    tenant = f"{level}/{len(scope.tenant_id)}/{scope.tenant_id}"
    if scope.thread_id is not None:
        return f"{tenant}/thread/{scope.thread_id}"
    return tenant if scope.user_id is None else f"{tenant}/user/{scope.user_id}"


def shelf(*, user_id: str | None = None, thread_id: str | None = None) -> str:
    """The name under which the episodes of a user, or of a thread, are found; no thread's own."""
    return f"{thread_id}/memories/" if user_id is None else f"memories/{user_id}/"


def scope_keys(point_id: int, scope: Scope, kind: str | None = None) -> list[str]:
    """The scopes and samples of them that a point of `scope` is part of.

    Of each scope it is in level 0, and in level n if it is one of the 1 in 2^n. What happened
    (`kind`) is on the shelves of its user and of the thread that its own thread stands beside;
    an episode is not among its user's points besides.
    """
    spread = (point_id * _GOLDEN_64) % 2**64
    top_level = min(64 - spread.bit_length(), _MAX_LEVEL)
    scopes = [Scope(tenant_id=scope.tenant_id)]
    if scope.thread_id is not None:
        scopes.append(Scope(tenant_id=scope.tenant_id, thread_id=scope.thread_id))
    if kind in {EPISODE, HAPPENING}:
        about = (scope.thread_id or "").rpartition("/memories/")[0]
        shelves = [shelf(thread_id=about)] * bool(about)
        shelves += [shelf(user_id=scope.user_id)] * bool(scope.user_id)
        scopes += [
            Scope(tenant_id=scope.tenant_id, thread_id=name)
            for name in shelves
            if len(name) <= MAX_ID_CHARS
        ]
    if scope.user_id is not None and kind != EPISODE:
        scopes.append(Scope(tenant_id=scope.tenant_id, user_id=scope.user_id))
    return [scope_key(each, level) for each in scopes for level in range(top_level + 1)]


def corpus_level(points: int) -> int:
    """The lowest level at which a scope of `points` points has a sample small enough."""
    return (max(points - 1, 0) // CORPUS_SIZE).bit_length()


def stored_payload(point: Point) -> dict[str, object]:
    """The payload as every backend keeps it: checked, `at` in seconds, samples added.

    Raises:
        ValueError: If a field is unknown, of another type, or no valid id.
    """
    stored: dict[str, object] = {}
    for name, value in point.payload.items():
        if value is None:
            continue
        types = PAYLOAD_TYPES.get(name)
        if types is None:
            raise ValueError(
                f"payload of point {point.id} has {name!r}; it may hold {', '.join(PAYLOAD_TYPES)}"
            )
        if not isinstance(value, types) or isinstance(value, bool):
            raise ValueError(f"{name} of point {point.id} must be {types[0].__name__}: {value!r}")
        if isinstance(value, int) and abs(value) > MAX_POINT_ID:
            raise ValueError(f"{name} of point {point.id} must fit 64 bits, got {value}")
        if isinstance(value, str):
            # A role can be any text; what UTF-8 cannot hold must not keep a turn out.
            stored[name] = value if name in _ID_FIELDS else value.encode(errors="replace").decode()
        else:
            stored[name] = _seconds(value) if name == "at" else value
    if "tenant_id" not in stored:
        raise ValueError(f"payload of point {point.id} must have a tenant_id, got {point.payload}")
    ids = {name: cast("str", stored[name]) for name in _ID_FIELDS if name in stored}
    stored[SCOPES_FIELD] = scope_keys(
        point.id, Scope(**ids), cast("str | None", stored.get("kind"))
    )
    return stored


def checked_point_id(point_id: int) -> int:
    """`point_id`, if it can be one.

    Raises:
        ValueError: If it is not a positive 63-bit integer.
    """
    if isinstance(point_id, bool) or not 1 <= point_id <= MAX_POINT_ID:
        raise ValueError(f"point id must be a positive integer, got {point_id!r}")
    return point_id


def checked_sparse(vector: SparseVector) -> SparseVector:
    """`vector` as plain lists.

    Raises:
        ValueError: If lengths differ, an index repeats or does not fit 32 bits, or a
            weight is not a finite number.
    """
    indices = [int(index) for index in vector.indices]
    values = [float(value) for value in vector.values]
    if len(indices) != len(values):
        raise ValueError(f"sparse vector has {len(indices)} indices and {len(values)} values")
    if len(set(indices)) != len(indices):
        raise ValueError("sparse vector names an index twice")
    if indices and not 0 <= min(indices) <= max(indices) <= MAX_SPARSE_INDEX:
        raise ValueError(f"sparse index must be 0 to {MAX_SPARSE_INDEX}, got {indices}")
    if not _are_finite(values):
        raise ValueError(f"sparse weights must be finite, to {MAX_WEIGHT:g}, got {values}")
    return SparseVector(indices, values)


def checked_dense(vector: Sequence[float], dense: DenseVectors | None) -> list[float]:
    """`vector` as a plain list.

    Raises:
        ValueError: If the store has no embeddings, the size is another one, or a number
            is not finite.
    """
    if dense is None:
        raise ValueError("this store was opened without embeddings: it takes no dense vector")
    numbers = list(map(float, vector))
    if len(numbers) != dense.size:
        raise ValueError(f"dense vector must have {dense.size} numbers, got {len(numbers)}")
    if not _are_finite(numbers):
        raise ValueError(f"dense vector must hold finite numbers, to {MAX_WEIGHT:g}")
    return numbers


def checked_vectors(
    point: Point, dense: DenseVectors | None
) -> dict[str, SparseVector | list[float]]:
    """The vectors of `point` by name, without empty ones.

    Raises:
        ValueError: If a name is unknown, or a vector not as `checked_sparse` and
            `checked_dense` say.
    """
    vectors: dict[str, SparseVector | list[float]] = {}
    for name, sparse in point.sparse.items():
        if name not in SPARSE_NAMES:
            raise ValueError(f"sparse vector must be one of {SPARSE_NAMES}, got {name!r}")
        vector = checked_sparse(sparse)
        if vector.indices:
            vectors[name] = vector
    for name, numbers in point.dense.items():
        if name != DENSE:
            raise ValueError(f"dense vector must be {DENSE!r}, got {name!r}")
        vectors[name] = checked_dense(numbers, dense)
    return vectors


class Ask(NamedTuple):
    """One checked query."""

    vector: SparseVector | list[float]
    using: str
    limit: int
    needed: tuple[Condition, ...]
    """What a point must fulfil, the scope first."""

    @property
    def is_dense(self) -> bool:
        """Whether the vector is an embedding."""
        return self.using == DENSE


def checked_ask(
    scope: Scope, query: VectorQuery, before_slot: int | None, dense: DenseVectors | None
) -> Ask | None:
    """`query` of `scope`, checked; None for an empty one, which nothing answers.

    Raises:
        ValueError: If scope or query are not as `VectorStore.query` says.
    """
    needed = conditions(
        scope,
        before_slot=before_slot,
        at_from=query.at_from,
        at_until=query.at_until,
        among=query.among,
    )
    if query.limit < 1:
        raise ValueError(f"limit must be at least 1, got {query.limit}")
    if query.using in SPARSE_NAMES:
        if not isinstance(query.vector, SparseVector):
            raise ValueError(f"{query.using} takes a SparseVector, got {query.vector!r}")
        sparse = checked_sparse(query.vector)
        return Ask(sparse, query.using, query.limit, needed) if sparse.indices else None
    if query.using == DENSE and not isinstance(query.vector, SparseVector):
        return Ask(checked_dense(query.vector, dense), query.using, query.limit, needed)
    raise ValueError(f"using must be one of {(*SPARSE_NAMES, DENSE)}, got {query.using!r}")


def best_first(scores: list[float], ids: list[int], limit: int) -> list[Hit]:
    """The `limit` best of the points with these scores and ids, ties by id ascending."""
    # Engines answer best first, and ties are rare: mostly there is nothing to sort.
    if not all(map(gt, scores, scores[1:])):
        ranked = sorted(zip(map(neg, scores), ids, strict=True))
        return [_hit((point_id, -score)) for score, point_id in ranked[:limit]]
    return list(map(_hit, zip(ids[:limit], scores[:limit], strict=True)))


_new = cast("Callable[[type[Hit], tuple[int, float]], Hit]", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]
_hit = partial(_new, Hit)
"""A pair as a `Hit`; a query makes hundreds, for which `Hit._make` takes half as long again."""


def _are_finite(numbers: list[float]) -> bool:
    # One that is not finite makes the sum so; no sum of numbers within bounds overflows.
    if not math.isfinite(sum(numbers)):
        return False
    return not numbers or (max(numbers) <= MAX_WEIGHT and min(numbers) >= -MAX_WEIGHT)


def _seconds(at: datetime | float | None) -> float | None:
    if at is None:
        return None
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError(f"at must be aware, got {at!r}")
        return at.timestamp()
    if not math.isfinite(at):
        raise ValueError(f"at must be finite, got {at!r}")
    return float(at)


class VectorStore(Protocol):
    """Points by scope, found by dense and sparse vectors.

    Opened by `setup` or first use; the constructor touches nothing. Every method that
    takes a scope sees only what `conditions` lets through. Safe to use from several
    threads. Methods raise `StorageError` when the store cannot do what was asked
    (`ShardInUseError` when another process owns it) and `ValueError` for a wrong argument,
    before anything is changed.
    """

    @property
    def dense(self) -> DenseVectors | None:
        """The embedding it was opened for."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether several processes may have it open at once, all of them writing."""
        ...

    @property
    def index_id(self) -> str:
        """Identity of the content; may ask the store, so not for an event loop's own thread.

        Another one after `drop`, so that the log's marks start again from nothing.
        """
        ...

    def setup(self) -> None:
        """Open the store, creating it where there is none."""
        ...

    def upsert(self, points: Sequence[Point]) -> None:
        """Store `points`, replacing those with the same id. All are checked first."""
        ...

    def query(
        self, scope: Scope, queries: Sequence[VectorQuery], *, before_slot: int | None = None
    ) -> list[list[Hit]]:
        """The best points for each query, best first, ties by id ascending.

        Where more points than a page share the score at the limit, which of them are
        returned is the backend's choice, the same for the same content.
        """
        ...

    def codes(self, scope: Scope, ids: Sequence[int]) -> dict[int, str]:
        """The codes of these points, by id: of those in `scope` that have any."""
        ...

    def count(self, scope: Scope, *, among: Collection[int] | None = None) -> int:
        """Points in `scope`, of those with the ids in `among` where these are given.

        Takes time in proportion to them.
        """
        ...

    def scroll(self, scope: Scope, *, after_id: int = 0, limit: int = 1_000) -> list[Point]:
        """The points of `scope` after `after_id` in id order.

        Vectors are as stored: dense ones scaled to length 1 and rounded.
        """
        ...

    def delete(
        self, scope: Scope, *, also: Sequence[str] = (), among: Collection[int] | None = None
    ) -> int:
        """Erase the points of `scope` from the store and its files; how many there were.

        With a thread, those of the tenant's threads named in `also` too; of all these those with
        the ids in `among` alone, where these are given.
        """
        ...

    def drop(self) -> None:
        """Erase everything; the next use starts an empty store with another `index_id`."""
        ...

    def flush(self) -> None:
        """Make everything durable against power loss."""
        ...

    def close(self) -> None:
        """Release the store; again does nothing, any other call raises `StorageError`."""
        ...

    async def asetup(self) -> None:
        """`setup` on an event loop."""
        ...

    async def aupsert(self, points: Sequence[Point]) -> None:
        """`upsert` on an event loop."""
        ...

    async def aquery(
        self, scope: Scope, queries: Sequence[VectorQuery], *, before_slot: int | None = None
    ) -> list[list[Hit]]:
        """`query` on an event loop."""
        ...

    async def acodes(self, scope: Scope, ids: Sequence[int]) -> dict[int, str]:
        """`codes` on an event loop."""
        ...

    async def acount(self, scope: Scope, *, among: Collection[int] | None = None) -> int:
        """`count` on an event loop."""
        ...

    async def ascroll(self, scope: Scope, *, after_id: int = 0, limit: int = 1_000) -> list[Point]:
        """`scroll` on an event loop."""
        ...

    async def adelete(
        self, scope: Scope, *, also: Sequence[str] = (), among: Collection[int] | None = None
    ) -> int:
        """`delete` on an event loop."""
        ...

    async def adrop(self) -> None:
        """`drop` on an event loop."""
        ...

    async def aflush(self) -> None:
        """`flush` on an event loop."""
        ...

    async def aclose(self) -> None:
        """`close` on an event loop."""
        ...
