"""`EdgeClient`: the calls of a `QdrantClient` that a LangGraph store makes, inside this process.

Each collection is one Qdrant Edge shard in a folder of its own. What Edge takes has the names
of qdrant-client's models, so requests are passed on part by part.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID

import qdrant_edge as edge
from qdrant_client.http import models

from langchain_ctxmgr.closable import Closable
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.storage.edge_owner import Ownership
from langchain_ctxmgr.storage.edge_shard import require_segments, storage_errors

_SETTINGS: Final = "collection.json"
_VERSION: Final = "1.19.0"
"""Of the server whose answers Edge's are like."""
_TRUTHS: Final = "_truths"
"""Where a payload's booleans are kept as text: Edge's Python binding takes True for 1."""
_SIMPLE_KEY: Final = re.compile(r"[A-Za-z0-9_\-]+")
_DISTANCES: Final = {
    models.Distance.COSINE: edge.Distance.Cosine,
    models.Distance.DOT: edge.Distance.Dot,
    models.Distance.EUCLID: edge.Distance.Euclid,
    models.Distance.MANHATTAN: edge.Distance.Manhattan,
}


class EdgeClient(Closable):
    """Collections in the folder `path`, made when missing; one process owns it.

    Takes the place of a `QdrantClient` where a `TenantStore` is made. Opened at first use.

    Raises:
        ShardInUseError: On first use, if another process owns the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._owner = Ownership(self._path)
        self._shards: dict[str, edge.EdgeShard] = {}
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._is_closed = False

    def info(self) -> models.VersionInfo:
        """The version of the server that this stands for."""
        return models.VersionInfo(title="qdrant-edge", version=_VERSION)

    def collection_exists(self, collection_name: str) -> bool:
        """Whether there is such a collection."""
        return (self._folder(collection_name) / _SETTINGS).is_file()

    def create_collection(
        self,
        collection_name: str,
        *,
        vectors_config: Mapping[str, models.VectorParams],
        sparse_vectors_config: Mapping[str, models.SparseVectorParams] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        """Make a collection.

        Raises:
            StorageError: If it cannot be made, or is there already.
        """
        folder = self._folder(collection_name)
        sparse = sparse_vectors_config or {}
        config = edge.EdgeConfig(
            vectors={name: _dense(params) for name, params in vectors_config.items()},
            sparse_vectors={name: _sparse(params) for name, params in sparse.items()},
        )
        with self._owned(f"make the collection {collection_name!r}"):
            (folder / "shard").mkdir(parents=True)
            self._shards[collection_name] = edge.EdgeShard.create(str(folder / "shard"), config)
            params = models.CollectionParams(
                vectors=dict(vectors_config), sparse_vectors=dict(sparse)
            )
            self._save(collection_name, params, metadata)
        return True

    def get_collection(self, collection_name: str) -> models.CollectionInfo:
        """How the collection was made, and how many points it holds."""
        with self._shard(collection_name) as shard:
            kept = json.loads((self._folder(collection_name) / _SETTINGS).read_text("utf-8"))
            points = shard.info().points_count
        return models.CollectionInfo.model_validate(
            {
                "status": "green",
                "optimizer_status": "ok",
                "segments_count": 1,
                "points_count": points,
                "payload_schema": {},
                "config": {
                    "params": kept["params"],
                    "metadata": kept["metadata"],
                    "hnsw_config": {"m": 0, "ef_construct": 100, "full_scan_threshold": 10_000},
                    "optimizer_config": {
                        "deleted_threshold": 0.2,
                        "vacuum_min_vector_number": 1_000,
                        "default_segment_number": 1,
                        "flush_interval_sec": 5,
                    },
                },
            }
        )

    def update_collection(self, collection_name: str, *, metadata: Mapping[str, Any]) -> bool:
        """Give the collection other metadata."""
        params = self.get_collection(collection_name).config.params
        self._save(collection_name, params, metadata)
        return True

    def create_payload_index(
        self,
        collection_name: str,
        field_name: str,
        field_schema: models.PayloadSchemaParams,
        *,
        wait: bool = True,
    ) -> None:
        """Index a field of the payload; again does nothing."""
        del wait
        made = partial(edge.UpdateOperation.create_field_index, field_name, _index(field_schema))
        self._update(collection_name, f"index {field_name!r}", made)

    def upsert(
        self, collection_name: str, points: Sequence[models.PointStruct], *, wait: bool = True
    ) -> None:
        """Store points, replacing those with the same id."""
        del wait
        given = [
            edge.Point(_id(point.id), _vectors(point.vector), _payload(point.payload))
            for point in points
        ]
        self._update(
            collection_name, "store points", partial(edge.UpdateOperation.upsert_points, given)
        )

    def delete(
        self,
        collection_name: str,
        *,
        points_selector: models.FilterSelector | models.PointIdsList,
        wait: bool = True,
    ) -> None:
        """Delete points by id or filter."""
        del wait
        make = edge.UpdateOperation
        if isinstance(points_selector, models.PointIdsList):
            deleted = partial(make.delete_points, list(map(_id, points_selector.points)))
        else:
            deleted = partial(make.delete_points_by_filter, _filter(points_selector.filter))
        self._update(collection_name, "delete points", deleted)

    def batch_update_points(
        self,
        collection_name: str,
        update_operations: Sequence[models.SetPayloadOperation],
        *,
        wait: bool = True,
    ) -> None:
        """Set parts of points' payloads."""
        del wait
        for each in update_operations:
            change, where = each.set_payload.payload, each.set_payload.filter
            if where is None:
                raise ValueError(f"a payload is set by filter, got {each.set_payload!r}")
            changed = partial(
                edge.UpdateOperation.set_payload_by_filter, _filter(where), dict(change)
            )
            self._update(collection_name, "set payloads", changed)

    def retrieve(
        self,
        collection_name: str,
        ids: Sequence[Any],
        *,
        with_payload: bool | list[str] = True,
        with_vectors: bool = False,
    ) -> list[models.Record]:
        """The points with these ids, those that there are."""
        with self._shard(collection_name) as shard:
            found = shard.retrieve(list(map(_id, ids)), with_payload, with_vectors)
        return list(map(_record, found))

    def scroll(
        self,
        collection_name: str,
        *,
        scroll_filter: models.Filter | None = None,
        limit: int = 10,
        offset: Any = None,
        with_payload: bool | list[str] = True,
        with_vectors: bool = False,
    ) -> tuple[list[models.Record], Any]:
        """A page of points in id order, and the id to go on from."""
        asked = edge.ScrollRequest(
            offset=None if offset is None else _id(offset),
            limit=limit,
            filter=_filter(scroll_filter),
            with_payload=with_payload,
            with_vector=with_vectors,
        )
        with self._shard(collection_name) as shard:
            found, following = shard.scroll(asked)
        return list(map(_record, found)), None if following is None else _named(following)

    def count(
        self,
        collection_name: str,
        *,
        count_filter: models.Filter | None = None,
        exact: bool = True,
    ) -> models.CountResult:
        """How many points there are."""
        with self._shard(collection_name) as shard:
            asked = edge.CountRequest(exact=exact, filter=_filter(count_filter))
            return models.CountResult(count=shard.count(asked))

    def facet(
        self,
        collection_name: str,
        *,
        key: str,
        facet_filter: models.Filter | None = None,
        limit: int = 10,
        exact: bool = False,
    ) -> models.FacetResponse:
        """The values of a field, and how many points have each."""
        asked = edge.FacetRequest(key, limit=limit, exact=exact, filter=_filter(facet_filter))
        with self._shard(collection_name) as shard:
            hits = shard.facet(asked).hits
        counted = [models.FacetValueHit(value=hit.value, count=hit.count) for hit in hits]
        return models.FacetResponse(hits=counted)

    def query_batch_points(
        self, collection_name: str, requests: Sequence[models.QueryRequest]
    ) -> list[models.QueryResponse]:
        """The best points for each request."""
        with self._shard(collection_name) as shard:
            found = shard.query_batch(edge.QueryBatchRequest([_query(each) for each in requests]))
        return [
            models.QueryResponse(
                points=[
                    models.ScoredPoint(
                        id=_named(hit.id), version=0, score=hit.score, payload=hit.payload
                    )
                    for hit in hits
                ]
            )
            for hits in found
        ]

    def close(self) -> None:
        """Close every collection; again does nothing, any other call raises `StorageError`."""
        with self._lock:
            self._is_closed = True
            shards, self._shards = self._shards, {}
            if self._pid == os.getpid():
                for shard in shards.values():
                    shard.close()
                self._owner.give_up()

    def _folder(self, collection_name: str) -> Path:
        if not collection_name or Path(collection_name).name != collection_name:
            raise ValueError(f"collection_name must be a plain name, got {collection_name!r}")
        return self._path / collection_name

    @contextmanager
    def _owned(self, what: str) -> Generator[None]:
        if self._pid != os.getpid():
            raise StorageError(
                "a Qdrant Edge folder was opened before this process was forked: open another "
                "store here, or share a Qdrant server"
            )
        with self._lock, storage_errors(what):
            if self._is_closed:
                raise StorageError(f"the store in {self._path} is closed")
            self._path.mkdir(parents=True, exist_ok=True)
            self._owner.take()
            yield

    @contextmanager
    def _shard(self, collection_name: str) -> Generator[edge.EdgeShard]:
        folder = self._folder(collection_name)
        with self._owned(f"use the collection {collection_name!r} in {self._path}"):
            if collection_name not in self._shards:
                if not (folder / _SETTINGS).is_file():
                    raise StorageError(f"there is no collection {collection_name!r}: call setup()")
                require_segments(folder / "shard")
                self._shards[collection_name] = edge.EdgeShard.load(str(folder / "shard"))
            yield self._shards[collection_name]

    def _update(self, collection_name: str, what: str, make: Any) -> None:
        with self._shard(collection_name) as shard, storage_errors(what):
            shard.update(make())

    def _save(
        self,
        collection_name: str,
        params: models.CollectionParams,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        kept = {
            "params": params.model_dump(mode="json", exclude_none=True),
            "metadata": dict(metadata or {}),
        }
        place = self._folder(collection_name) / _SETTINGS
        new = place.with_suffix(".new")
        new.write_text(json.dumps(kept), "utf-8")
        new.replace(place)


def _dense(params: models.VectorParams) -> edge.EdgeVectorParams:
    multi = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
    return edge.EdgeVectorParams(
        size=params.size,
        distance=_DISTANCES[params.distance],
        multivector_config=multi if params.multivector_config else None,
    )


def _sparse(params: models.SparseVectorParams) -> edge.EdgeSparseVectorParams:
    return edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if params.modifier else None)


def _index(schema: models.PayloadSchemaParams) -> Any:
    match schema:
        case models.KeywordIndexParams():
            return edge.KeywordIndexParams(is_tenant=schema.is_tenant)
        case models.IntegerIndexParams():
            return edge.IntegerIndexParams(lookup=schema.lookup, range=schema.range)
        case models.DatetimeIndexParams():
            return edge.DatetimeIndexParams()
        case _:
            raise ValueError(f"no such index here: {schema!r}")


def _query(asked: models.QueryRequest) -> edge.QueryRequest:
    idf = cast("Any", asked.params.idf if asked.params else None)
    params = None if idf is None else edge.SearchParams(idf=edge.IdfParams(_filter(idf.corpus)))
    match asked.query:
        case models.OrderByQuery(order_by=models.OrderBy(key=key)):
            query: Any = edge.OrderBy(key, edge.Direction.Desc)
        case models.SparseVector(indices=indices, values=values):
            query = edge.Query.Nearest(edge.SparseVector(indices, values), using=asked.using)
        case vectors:
            query = edge.Query.Nearest(cast("Any", vectors), using=asked.using)
    return edge.QueryRequest(
        limit=cast("int", asked.limit),
        query=query,
        filter=_filter(asked.filter),
        params=params,
        with_payload=cast("Any", asked.with_payload),
        with_vector=False,
    )


def _filter(asked: models.Filter | None) -> Any:
    if asked is None:
        return None
    parts: dict[str, Any] = {}
    for name in ("must", "should", "must_not"):
        conditions: Any = getattr(asked, name)
        if conditions is not None:
            is_one = isinstance(conditions, models.FieldCondition | models.Filter)
            parts[name] = [_condition(each) for each in ([conditions] if is_one else conditions)]
    return edge.Filter(**parts)


def _condition(asked: Any) -> Any:
    match asked:
        case models.Filter():
            made: Any = _filter(asked)
        case models.HasIdCondition(has_id=ids):
            made = edge.HasIdCondition(set(map(_id, cast("list[Any]", ids))))
        case models.IsEmptyCondition(is_empty=field):
            made = edge.IsEmptyCondition(field.key)
        case models.FieldCondition(key=key, match=models.MatchValue(value=bool() as value)):
            made = edge.FieldCondition(_TRUTHS, match=edge.MatchValue(f"{key}={value}"))
        case models.FieldCondition(key=key, match=models.MatchValue(value=value)):
            made = edge.FieldCondition(key, match=edge.MatchValue(value))
        case models.FieldCondition(key=key, match=models.MatchAny(any=values)):
            made = edge.FieldCondition(key, match=edge.MatchAny(cast("Any", values)))
        case models.FieldCondition(key=key, range=models.Range() as bounds):
            made = edge.FieldCondition(key, range=edge.RangeFloat(**_bounds(bounds)))
        case models.FieldCondition(key=key, range=models.DatetimeRange() as bounds):
            dated = {name: bound.isoformat() for name, bound in _bounds(bounds).items()}
            made = edge.FieldCondition(key, range=edge.RangeDateTime(**dated))
        case _:
            raise ValueError(f"no such condition here: {asked!r}")
    return made


def _bounds(given: models.Range | models.DatetimeRange) -> dict[str, Any]:
    bounds = ((name, getattr(given, name)) for name in ("gt", "gte", "lt", "lte"))
    return {name: bound for name, bound in bounds if bound is not None}


def _payload(given: Mapping[str, Any] | None) -> dict[str, Any]:
    payload = dict(given or {})
    truths = list(_truths(payload, ""))
    return {**payload, _TRUTHS: truths} if truths else payload


def _truths(value: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, inner in value.items():
        here = path + (key if _SIMPLE_KEY.fullmatch(key) else f'"{key}"')
        if isinstance(inner, bool):
            yield f"{here}={inner}"
        elif isinstance(inner, Mapping):
            yield from _truths(cast("Mapping[str, Any]", inner), f"{here}.")


def _record(point: edge.Record) -> models.Record:
    payload = {name: value for name, value in (point.payload or {}).items() if name != _TRUTHS}
    return models.Record(id=_named(point.id), payload=payload)


def _vectors(given: Any) -> Any:
    return {
        name: edge.SparseVector(vector.indices, vector.values)
        if isinstance(vector, models.SparseVector)
        else vector
        for name, vector in given.items()
    }


def _id(point_id: Any) -> Any:
    return UUID(point_id) if isinstance(point_id, str) else point_id


def _named(point_id: Any) -> Any:
    return str(point_id) if isinstance(point_id, UUID) else point_id
