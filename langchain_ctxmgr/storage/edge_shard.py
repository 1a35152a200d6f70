"""One Qdrant Edge shard in this package's terms: making, reading and searching it.

Dense vectors are kept as 16-bit floats beside 4-bit codes (TurboQuant); a search scans the
codes and rescores twice as many points as asked from the floats. On 100,000 MiniLM vectors
that takes 2.5 ms against 9 ms for the floats alone and returns the same top 100. The shard
is never optimized (`optimize()` blocks for minutes): it stays one appendable segment,
without HNSW graph, so every answer comes from a full scan of the scope.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, cast

import qdrant_edge as edge

from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.vectors import (
    CODES,
    DENSE,
    PAIRS,
    SCOPES_FIELD,
    SPARSE_NAMES,
    TERMS,
    TIE_POINTS,
    Among,
    Ask,
    Condition,
    DenseVectors,
    Hit,
    Match,
    Point,
    SparseVector,
    best_first,
    checked_point_id,
    checked_vectors,
    corpus_level,
    scope_key,
    stored_payload,
)

_OVERSAMPLING = 2.0
"""Codes alone put 96 % of the true top 100 into the first 100, all of it into the first 150."""

_BEYOND = 1
"""Points fetched beyond a query's limit, to tell whether the score there is tied. Ties are
rare, and `TIE_POINTS` on each query would take a tenth of its time: a tied one is asked again."""
_OFTEN_TIED = frozenset({TERMS, PAIRS})
"""Which of a few words a point holds gives few different scores: asked for `TIE_POINTS` at once."""


@contextlib.contextmanager
def storage_errors(what: str) -> Generator[None]:
    """The boundary to Edge: its bare `Exception`s become `StorageError`s saying `what`."""
    try:
        yield
    except (StorageError, ValueError):
        raise
    except Exception as error:
        raise StorageError(f"cannot {what}: {error}") from error


def created(folder: Path, dense: DenseVectors | None) -> edge.EdgeShard:
    """A new shard in `folder`, which it makes, with its payload indexes."""
    vectors: dict[str, edge.EdgeVectorParams] = {}
    if dense is not None:
        vectors[DENSE] = edge.EdgeVectorParams(
            size=dense.size,
            distance=edge.Distance.Cosine,
            datatype=edge.VectorStorageDatatype.Float16,
            quantization_config=edge.TurboQuantQuantizationConfig(
                bits=edge.TurboQuantBitSize.Bits4
            ),
        )
    sparse = {
        name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf) for name in SPARSE_NAMES
    }
    folder.mkdir(parents=True)
    shard = edge.EdgeShard.create(
        str(folder), edge.EdgeConfig(vectors=vectors, sparse_vectors=sparse)
    )
    # All that a filter ever names: tenant, thread and user are in the scopes.
    indexes: dict[str, Any] = {
        SCOPES_FIELD: edge.KeywordIndexParams(),
        "slot": edge.IntegerIndexParams(lookup=False, range=True),
        "at": edge.FloatIndexParams(),
    }
    for name, params in indexes.items():
        shard.update(edge.UpdateOperation.create_field_index(name, params))
    return shard


def require_segments(folder: Path) -> None:
    """Return when the shard in `folder` has its data; Edge opens one without as empty.

    Raises:
        StorageError: If the data is gone.
    """
    segments = folder / "segments"
    if not segments.is_dir() or not any(segments.iterdir()):
        raise StorageError(f"{segments} is missing or empty")


def edge_filter(needed: Sequence[Condition]) -> edge.Filter:
    """`needed` as Edge takes it."""
    return edge.Filter(must=list(map(_edge_condition, needed)))


def _edge_condition(needed: Condition) -> Any:
    if isinstance(needed, Match):
        return edge.FieldCondition(key=needed.field, match=edge.MatchValue(needed.value))
    if isinstance(needed, Among):
        return edge.HasIdCondition(set(needed.ids))
    return edge.FieldCondition(
        key=needed.field, range=edge.RangeFloat(gte=needed.start, lt=needed.until)
    )


def edge_point(point: Point, dense: DenseVectors | None) -> edge.Point:
    """`point` as Edge takes it.

    Raises:
        ValueError: If it is not as `Point` says: Edge itself would store half a batch, or
            a NaN, without a word.
    """
    point_id = checked_point_id(point.id)
    vectors: dict[str, Any] = {
        name: edge.SparseVector(list(vector.indices), list(vector.values))
        if isinstance(vector, SparseVector)
        else vector
        for name, vector in checked_vectors(point, dense).items()
    }
    return edge.Point(point_id, vectors, stored_payload(point))


def stored_point(record: edge.Record) -> Point:
    """The point that Edge kept as `record`."""
    vectors = cast("dict[str, Any]", record.vector or {})
    payload = record.payload or {}
    return Point(
        id=cast("int", record.id),
        payload={name: value for name, value in payload.items() if name != SCOPES_FIELD},
        sparse={
            name: SparseVector(vectors[name].indices, vectors[name].values)
            for name in SPARSE_NAMES
            if name in vectors
        },
        dense={DENSE: vectors[DENSE]} if DENSE in vectors else {},
    )


def page(
    shard: edge.EdgeShard, start: int, limit: int, needed: edge.Filter | None = None
) -> tuple[list[edge.Record], int | None]:
    """The records from id `start` on, and the id to go on from."""
    records, following = shard.scroll(
        edge.ScrollRequest(
            offset=start, limit=limit, filter=needed, with_payload=True, with_vector=True
        )
    )
    return records, cast("int | None", following)


def codes(shard: edge.EdgeShard, scope: Scope, ids: Sequence[int]) -> dict[int, str]:
    """The codes of the points of `scope` among `ids` that have any.

    Points are taken by id and held against the scope here: a filter on them takes Edge as
    long again as reading them.
    """
    key = scope_key(scope)
    records = shard.retrieve(list(ids), with_payload=[CODES, SCOPES_FIELD], with_vector=False)
    found: dict[int, str] = {}
    for record in records:
        payload = record.payload or {}
        if CODES in payload and key in payload.get(SCOPES_FIELD, ()):
            found[cast("int", record.id)] = payload[CODES]
    return found


def size(shard: edge.EdgeShard, scope: Scope) -> int:
    """Points in `scope`: Edge's estimate, which is exact for one keyword."""
    whole = edge_filter((Match(SCOPES_FIELD, scope_key(scope)),))
    return shard.count(edge.CountRequest(exact=False, filter=whole))


def corpus(scope: Scope, points: int) -> edge.IdfParams:
    """What IDF is counted over for `scope`, of so many points: all of it, or an even sample."""
    sample = scope_key(scope, corpus_level(points))
    return edge.IdfParams(edge_filter((Match(SCOPES_FIELD, sample),)))


def search(
    shard: edge.EdgeShard, idf: edge.IdfParams, asks: Sequence[Ask | None]
) -> list[list[Hit]]:
    """The hits of each ask, in one batch; `idf` is the `corpus` of their scope."""
    requests = [
        _request(ask, idf, is_narrow=not ask.is_dense, beyond=_beyond(ask)) for ask in asks if ask
    ]
    found = iter(shard.query_batch(edge.QueryBatchRequest(requests)))
    return [_hits(shard, ask, next(found), idf) if ask else [] for ask in asks]


def _request(
    ask: Ask, idf: edge.IdfParams, *, is_narrow: bool, beyond: int = _BEYOND
) -> edge.QueryRequest:
    """The request for `ask`, and `beyond` points more; not `is_narrow` leaves its ranges out.

    A dense scan tests the filter on every point of the scope, at 16 ms per 100,000 with a
    range in it against 1 ms without. A sparse search tests it on what matches a term only.
    """
    params = edge.SearchParams(
        idf=None if ask.is_dense else idf,
        quantization=edge.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING)
        if ask.is_dense
        else None,
    )
    vector: Any = ask.vector
    if isinstance(vector, SparseVector):
        vector = edge.SparseVector(list(vector.indices), list(vector.values))
    return edge.QueryRequest(
        limit=ask.limit + beyond if is_narrow else _broad_limit(ask),
        query=edge.Query.Nearest(vector, using=ask.using),
        filter=edge_filter(ask.needed if is_narrow else ask.needed[:1]),
        params=params,
    )


def _beyond(ask: Ask) -> int:
    return TIE_POINTS if ask.using in _OFTEN_TIED else _BEYOND


def _broad_limit(ask: Ask) -> int:
    return ask.limit * (2 if ask.needed[1:] else 1) + _BEYOND


def _hits(
    shard: edge.EdgeShard, ask: Ask, points: list[edge.ScoredPoint], idf: edge.IdfParams
) -> list[Hit]:
    if ask.is_dense and ask.needed[1:] and points:
        kept = _narrowed(shard, ask, points)
        if len(kept) <= ask.limit and len(points) == _broad_limit(ask):
            kept = shard.query(_request(ask, idf, is_narrow=True))
        points = kept
    is_tied = len(points) > ask.limit and points[ask.limit].score == points[ask.limit - 1].score
    if is_tied and _beyond(ask) < TIE_POINTS:
        points = shard.query(_request(ask, idf, is_narrow=True, beyond=TIE_POINTS))
    ids = cast("list[int]", [point.id for point in points])
    return best_first([point.score for point in points], ids, ask.limit)


def _narrowed(
    shard: edge.EdgeShard, ask: Ask, points: Sequence[edge.ScoredPoint]
) -> list[edge.ScoredPoint]:
    found = frozenset(cast("int", point.id) for point in points)
    inside = edge_filter((Among(found), *ask.needed[1:]))
    records, _ = shard.scroll(
        edge.ScrollRequest(limit=len(points), filter=inside, with_payload=False, with_vector=False)
    )
    kept = {record.id for record in records}
    return [point for point in points if point.id in kept]
