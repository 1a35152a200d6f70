"""`EdgeClient`: the calls of a `QdrantClient` that a LangGraph store makes, inside this process.

Each collection is one Qdrant Edge shard in a folder of its own, which `collection.json` names.
What Edge takes has the names of qdrant-client's models, so requests are passed on part by part.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, cast
from uuid import uuid4

import qdrant_edge as edge
from qdrant_client.http import models

from langchain_ctxmgr.closable import Closable
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.storage.edge_owner import Ownership
from langchain_ctxmgr.storage.edge_requests import (
    client_id,
    dense_params,
    edge_id,
    filter_of,
    index_params,
    payload_of,
    query_request,
    record_of,
    sparse_params,
    vectors_of,
)
from langchain_ctxmgr.storage.edge_shard import require_segments, storage_errors

_SETTINGS: Final = "collection.json"
_SHARD: Final = "shard-"
_COPIED_AT_ONCE: Final = 64
_VERSION: Final = "1.19.0"
"""Of the server whose answers Edge's are like."""


class _Settings(NamedTuple):
    """What a collection was made with."""

    shard: str
    """The folder of its points."""
    params: models.CollectionParams
    metadata: Mapping[str, Any]


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
        params = models.CollectionParams(
            vectors=dict(vectors_config), sparse_vectors=dict(sparse_vectors_config or {})
        )
        with self._owned(f"make the collection {collection_name!r}"):
            if self.collection_exists(collection_name):
                raise StorageError(f"there is a collection {collection_name!r} in {self._path}")
            name, shard = self._created(collection_name, params)
            self._save(collection_name, _Settings(name, params, dict(metadata or {})))
            self._shards[collection_name] = shard
        return True

    def get_collection(self, collection_name: str) -> models.CollectionInfo:
        """How the collection was made, and how many points it holds."""
        with self._shard(collection_name) as shard:
            kept = self._settings(collection_name)
            points = shard.info().points_count
        return models.CollectionInfo.model_validate(
            {
                "status": "green",
                "optimizer_status": "ok",
                "segments_count": 1,
                "points_count": points,
                "payload_schema": {},
                "config": {
                    "params": kept.params,
                    "metadata": kept.metadata,
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
        with self._shard(collection_name):
            kept = self._settings(collection_name)
            self._save(collection_name, kept._replace(metadata=dict(metadata)))
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
        made = partial(
            edge.UpdateOperation.create_field_index, field_name, index_params(field_schema)
        )
        self._update(collection_name, f"index {field_name!r}", made)

    def upsert(
        self, collection_name: str, points: Sequence[models.PointStruct], *, wait: bool = True
    ) -> None:
        """Store points, replacing those with the same id."""
        del wait
        given = [
            edge.Point(edge_id(point.id), vectors_of(point.vector), payload_of(point.payload))
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
            deleted = partial(make.delete_points, list(map(edge_id, points_selector.points)))
        else:
            deleted = partial(make.delete_points_by_filter, filter_of(points_selector.filter))
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
                edge.UpdateOperation.set_payload_by_filter, filter_of(where), dict(change)
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
            found = shard.retrieve(list(map(edge_id, ids)), with_payload, with_vectors)
        return list(map(record_of, found))

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
            offset=None if offset is None else edge_id(offset),
            limit=limit,
            filter=filter_of(scroll_filter),
            with_payload=with_payload,
            with_vector=with_vectors,
        )
        with self._shard(collection_name) as shard:
            found, following = shard.scroll(asked)
        return list(map(record_of, found)), None if following is None else client_id(following)

    def count(
        self,
        collection_name: str,
        *,
        count_filter: models.Filter | None = None,
        exact: bool = True,
    ) -> models.CountResult:
        """How many points there are."""
        with self._shard(collection_name) as shard:
            asked = edge.CountRequest(exact=exact, filter=filter_of(count_filter))
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
        asked = edge.FacetRequest(key, limit=limit, exact=exact, filter=filter_of(facet_filter))
        with self._shard(collection_name) as shard:
            hits = shard.facet(asked).hits
        counted = [models.FacetValueHit(value=hit.value, count=hit.count) for hit in hits]
        return models.FacetResponse(hits=counted)

    def query_batch_points(
        self, collection_name: str, requests: Sequence[models.QueryRequest]
    ) -> list[models.QueryResponse]:
        """The best points for each request."""
        with self._shard(collection_name) as shard:
            found = shard.query_batch(
                edge.QueryBatchRequest([query_request(each) for each in requests])
            )
        return [
            models.QueryResponse(
                points=[
                    models.ScoredPoint(
                        id=client_id(hit.id), version=0, score=hit.score, payload=hit.payload
                    )
                    for hit in hits
                ]
            )
            for hits in found
        ]

    def rewrite(self, collection_name: str) -> None:
        """Copy the points into new files: what was deleted is on the disk no more.

        Edge keeps deleted points in its files until then. Takes 0.1 ms a point; broken off,
        the files stay as they were.
        """
        with self._shard(collection_name) as old:
            kept = self._settings(collection_name)
            name, fresh = self._created(collection_name, kept.params)
            for field, made in old.info().payload_schema.items():
                indexed = cast("Any", made.params)
                fresh.update(edge.UpdateOperation.create_field_index(field, indexed))
            start: Any = None
            while True:
                records, start = old.scroll(
                    edge.ScrollRequest(
                        offset=start, limit=_COPIED_AT_ONCE, with_payload=True, with_vector=True
                    )
                )
                copies = [edge.Point(r.id, r.vector or {}, r.payload) for r in records]
                fresh.update(edge.UpdateOperation.upsert_points(copies))
                if start is None:
                    break
            fresh.flush()
            self._save(collection_name, kept._replace(shard=name))
            self._shards[collection_name] = fresh
            old.close()
            shutil.rmtree(self._folder(collection_name) / kept.shard)

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
                name = self._settings(collection_name).shard
                require_segments(folder / name)
                self._shards[collection_name] = edge.EdgeShard.load(str(folder / name))
                for left in folder.glob(f"{_SHARD}*"):  # by a `rewrite` that was broken off
                    if left.name != name:
                        shutil.rmtree(left)
            yield self._shards[collection_name]

    def _created(
        self, collection_name: str, params: models.CollectionParams
    ) -> tuple[str, edge.EdgeShard]:
        """An empty shard with a name of its own."""
        config = edge.EdgeConfig(
            vectors={name: dense_params(each) for name, each in _named_vectors(params)},
            sparse_vectors={
                name: sparse_params(each) for name, each in (params.sparse_vectors or {}).items()
            },
        )
        name = f"{_SHARD}{uuid4().hex}"
        folder = self._folder(collection_name) / name
        folder.mkdir(parents=True)
        return name, edge.EdgeShard.create(str(folder), config)

    def _update(self, collection_name: str, what: str, make: Any) -> None:
        with self._shard(collection_name) as shard, storage_errors(what):
            shard.update(make())

    def _settings(self, collection_name: str) -> _Settings:
        kept = json.loads((self._folder(collection_name) / _SETTINGS).read_text("utf-8"))
        params = models.CollectionParams.model_validate(kept["params"])
        return _Settings(kept["shard"], params, kept["metadata"])

    def _save(self, collection_name: str, settings: _Settings) -> None:
        params = settings.params.model_dump(mode="json", exclude_none=True)
        place = self._folder(collection_name) / _SETTINGS
        new = place.with_suffix(".new")
        new.write_text(json.dumps({**settings._asdict(), "params": params}), "utf-8")
        new.replace(place)


def _named_vectors(params: models.CollectionParams) -> list[tuple[str, models.VectorParams]]:
    return list(cast("dict[str, models.VectorParams]", params.vectors).items())
