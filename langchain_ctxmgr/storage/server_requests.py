"""Points, filters, queries and the collection in Qdrant's own terms; no waiting here.

Tenants share one collection. Points of a tenant are stored together (`is_tenant`), and a
vector graph is built only inside the scopes that are large enough to need one: a graph over
all tenants would be of no use to a query, which always asks for one scope.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.storage.vectors import (
    CODES,
    DENSE,
    SCOPES_FIELD,
    SPARSE_NAMES,
    TIE_POINTS,
    Among,
    Ask,
    Condition,
    DenseVectors,
    Match,
    Point,
    SparseVector,
    checked_point_id,
    checked_vectors,
    stored_payload,
)

if TYPE_CHECKING:
    from qdrant_client import models

SCHEMA = 2
"""Version of what a point holds; another one is rebuilt from the log."""
OLDEST_SERVER = (1, 19)
"""The first that counts IDF over one scope; older ones would weigh with every tenant's words."""
SHARED_SHARD = "shared"
"""Shard key of all tenants without a shard of their own."""

REST_POINTS = 64
"""Points sent at once: 0.5 MB of 384 dimensions, so a pause between two is never long."""
GRPC_POINTS = 16
"""The same over gRPC, where the client converts them on the event loop, 1 ms."""
_TURN_POINTS = 8
_TURN_SECONDS = 1e-6
"""Every so many points the interpreter lock is let go for a moment, which an event loop beside
would else wait 5 ms for: with 2,000 points of 384 dimensions on their way, 95 % of its turns come
within 1.8 ms instead of 5.7 ms."""
_MAX_BYTES = 4 * 2**20
_NUMBER_BYTES = 20
"""Most characters of a number in JSON."""

SUFFIX = "keywords|[0-9a-f]{12}"
"""What may follow the name a collection starts with: see `collection_name`."""

_METADATA = "langchain_ctxmgr"
_TENANT_LINKS = 16
"""Edges of a node in a scope's own graph: Qdrant's default for a whole collection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSettings:
    """How a new collection is spread over a cluster; one that exists stays as it is."""

    shard_number: int | None = None
    """Parts it is split into, by default one for each node. IDF is counted for each part, so
    scores of many small parts are less even; with `tenant_shards`, parts of each shard key."""
    replication_factor: int | None = None
    """Copies of each part."""
    write_consistency_factor: int | None = None
    """Copies that must have taken a write before it is acknowledged."""
    tenant_shards: bool = False
    """Route by tenant: a tenant whose id is made a shard key has a shard of its own, all
    others share one. Needs a cluster (Qdrant calls it tiered multitenancy)."""

    def __post_init__(self) -> None:
        for name in ("shard_number", "replication_factor", "write_consistency_factor"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


class Identity(NamedTuple):
    """What a collection says of itself."""

    uuid: str
    dense: DenseVectors | None
    indexed: frozenset[str]
    """Payload fields with an index."""

    @property
    def index_id(self) -> str:
        """Identity of the content: another one after the collection was made anew."""
        return f"qdrant-{SCHEMA}-{self.uuid}"


def collection_name(base: str, dense: DenseVectors | None) -> str:
    """Its own for each embedding, so that vectors of two models never meet."""
    if dense is None:
        return f"{base}-keywords"
    return f"{base}-{hashlib.sha256(dense.name.encode()).hexdigest()[:12]}"


def creation(dense: DenseVectors | None, settings: CollectionSettings) -> dict[str, Any]:
    """The arguments of `create_collection`, with a new identity."""
    from qdrant_client import models

    vectors: dict[str, models.VectorParams] = {}
    if dense is not None:
        vectors[DENSE] = models.VectorParams(
            size=dense.size, distance=models.Distance.COSINE, datatype=models.Datatype.FLOAT16
        )
    sparse = models.SparseVectorParams(modifier=models.Modifier.IDF)
    about = {
        "schema": SCHEMA,
        "uuid": uuid.uuid4().hex,
        "dense": {"name": dense.name, "size": dense.size} if dense else None,
    }
    return {
        "vectors_config": vectors,
        "sparse_vectors_config": dict.fromkeys(SPARSE_NAMES, sparse),
        "hnsw_config": models.HnswConfigDiff(m=0, payload_m=_TENANT_LINKS),
        "shard_number": settings.shard_number,
        "replication_factor": settings.replication_factor,
        "write_consistency_factor": settings.write_consistency_factor,
        "sharding_method": models.ShardingMethod.CUSTOM if settings.tenant_shards else None,
        "metadata": {_METADATA: about},
    }


def payload_indexes() -> dict[str, Any]:
    """The index of each payload field that is filtered by."""
    from qdrant_client import models

    def keyword(
        *, is_tenant: bool | None = None, enable_hnsw: bool | None = None
    ) -> models.KeywordIndexParams:
        return models.KeywordIndexParams(
            type=models.KeywordIndexType.KEYWORD, is_tenant=is_tenant, enable_hnsw=enable_hnsw
        )

    return {
        "tenant_id": keyword(is_tenant=True, enable_hnsw=False),
        SCOPES_FIELD: keyword(),
        "thread_id": keyword(enable_hnsw=False),
        "user_id": keyword(enable_hnsw=False),
        "kind": keyword(enable_hnsw=False),
        "slot": models.IntegerIndexParams(
            type=models.IntegerIndexType.INTEGER, lookup=False, range=True, enable_hnsw=False
        ),
        "at": models.FloatIndexParams(type=models.FloatIndexType.FLOAT, enable_hnsw=False),
    }


def identity(info: models.CollectionInfo, name: str, dense: DenseVectors | None) -> Identity:
    """What the collection `name` says of itself, if it is one for `dense`.

    Raises:
        StorageError: If another program made it, or it was made for something else.
    """
    about = cast("dict[str, Any] | None", (info.config.metadata or {}).get(_METADATA))
    if about is None:
        raise StorageError(
            f"the collection {name!r} was not made by langchain-ctxmgr; give another `collection`"
        )
    # Numbers in metadata may come back as floats over gRPC.
    schema = int(about["schema"])
    if schema != SCHEMA:
        raise StorageError(
            f"the collection {name!r} has schema {schema}, this version reads {SCHEMA}; the log "
            "holds everything: rebuild the vectors with `ctxmgr reindex`"
        )
    kept = about["dense"]
    found = DenseVectors(name=kept["name"], size=int(kept["size"])) if kept else None
    if found != dense:
        raise StorageError(
            f"the collection {name!r} holds {_described(found)} and was opened for "
            f"{_described(dense)}; give another `collection`, or rebuild this one with "
            "`ctxmgr reindex`"
        )
    return Identity(str(about["uuid"]), found, frozenset(info.payload_schema))


def _described(dense: DenseVectors | None) -> str:
    return f"{dense.name} vectors of size {dense.size}" if dense else "no dense vectors"


def server_filter(needed: Sequence[Condition]) -> models.Filter:
    """`needed` as Qdrant takes it."""
    from qdrant_client import models

    return models.Filter(must=list(map(_server_condition, needed)))


def _server_condition(needed: Condition) -> models.Condition:
    from qdrant_client import models

    if isinstance(needed, Match):
        match = models.MatchValue(value=needed.value)
        return models.FieldCondition(key=needed.field, match=match)
    if isinstance(needed, Among):
        return models.HasIdCondition(has_id=sorted(needed.ids))
    within = models.Range(gte=needed.start, lt=needed.until)
    return models.FieldCondition(key=needed.field, range=within)


def server_query(
    ask: Ask, corpus: models.Filter | None, shard: models.ShardKeyWithFallback | None
) -> models.QueryRequest:
    """The request for `ask`, which weighs terms by their rarity in `corpus`."""
    from qdrant_client import models

    vector = ask.vector
    idf = None if corpus is None else models.IdfCorpusParams(corpus=corpus)
    return models.QueryRequest(
        query=models.NearestQuery(
            nearest=_sparse(vector) if isinstance(vector, SparseVector) else vector
        ),
        using=ask.using,
        filter=server_filter(ask.needed),
        params=None if ask.is_dense else models.SearchParams(idf=idf),
        limit=ask.limit + TIE_POINTS,
        with_payload=False,
        with_vector=False,
        shard_key=shard,
    )


def server_points(points: Sequence[Point], dense: DenseVectors | None) -> list[models.PointStruct]:
    """`points` as Qdrant takes them, for a worker thread beside an event loop.

    Raises:
        ValueError: If one is not as `Point` says.
    """
    ready: list[models.PointStruct] = []
    for number, point in enumerate(points, start=1):
        ready.append(server_point(point, dense))
        if number % _TURN_POINTS == 0:
            time.sleep(_TURN_SECONDS)
    return ready


def upsert_body(
    points: Sequence[models.PointStruct], shard: models.ShardKeyWithFallback | None
) -> str:
    """The JSON that stores `points`, for a worker thread beside an event loop."""
    texts: list[str] = []
    for number, point in enumerate(points, start=1):
        texts.append(point.model_dump_json(exclude_unset=True, exclude_none=True))
        if number % _TURN_POINTS == 0:
            time.sleep(_TURN_SECONDS)
    end = "" if shard is None else f',"shard_key":{shard.model_dump_json()}'
    return f'{{"points":[{",".join(texts)}]{end}}}'


def server_point(point: Point, dense: DenseVectors | None) -> models.PointStruct:
    """`point` as Qdrant takes it.

    Raises:
        ValueError: If it is not as `Point` says.
    """
    from qdrant_client import models

    vectors: dict[str, Any] = {
        name: _sparse(vector) if isinstance(vector, SparseVector) else vector
        for name, vector in checked_vectors(point, dense).items()
    }
    return models.PointStruct(
        id=checked_point_id(point.id), vector=vectors, payload=stored_payload(point)
    )


def _sparse(vector: SparseVector) -> models.SparseVector:
    from qdrant_client import models

    return models.SparseVector(indices=list(vector.indices), values=list(vector.values))


def stored_point(record: models.Record) -> Point:
    """The point that Qdrant kept as `record`."""
    vectors = cast("dict[str, Any]", record.vector or {})
    payload = record.payload or {}
    return Point(
        id=int(record.id),
        payload={name: value for name, value in payload.items() if name != SCOPES_FIELD},
        sparse={
            name: SparseVector(vectors[name].indices, vectors[name].values)
            for name in SPARSE_NAMES
            if name in vectors
        },
        dense={DENSE: vectors[DENSE]} if DENSE in vectors else {},
    )


def codes(records: Sequence[models.Record]) -> dict[int, str]:
    """Of the records that have codes, those, by id."""
    held = ((int(record.id), record.payload or {}) for record in records)
    return {point_id: payload[CODES] for point_id, payload in held if CODES in payload}


def batches(
    points: Sequence[models.PointStruct], most: int
) -> Generator[list[models.PointStruct], None, None]:
    """`points` in pieces of at most `most` points, and of few enough bytes."""
    batch: list[models.PointStruct] = []
    size = 0
    for point in points:
        needed = _bytes(point)
        if batch and (len(batch) == most or size + needed > _MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(point)
        size += needed
    if batch:
        yield batch


def _bytes(point: models.PointStruct) -> int:
    vectors = cast("dict[str, Any]", point.vector)
    numbers = sum(
        len(cast("list[float]", vector)) if isinstance(vector, list) else 2 * len(vector.indices)
        for vector in vectors.values()
    )
    payload = point.payload or {}
    return numbers * _NUMBER_BYTES + sum(len(str(value)) for value in payload.values())
