"""`TenantStore`: LangGraph's long-term memory store on Qdrant, a tenant apart from the next.

Items are kept by `langgraph-store-qdrant`; each namespace stands under a label for its tenant,
which is put on here and taken off here. A search in words is answered by keywords and, with an
embedding model, by meaning, over all items of the namespace; what matters more comes first
among items that fit alike.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, cast

from langchain_core.embeddings import Embeddings
from langchain_core.messages import HumanMessage
from langchain_core.runnables import ensure_config

from langchain_ctxmgr._plans import run
from langchain_ctxmgr.analysis import terms
from langchain_ctxmgr.events import Degraded, Listener, emit
from langchain_ctxmgr.forking import ForkableLock
from langchain_ctxmgr.intake import shown
from langchain_ctxmgr.integrations.scopes import runtime_here, scope_of_run
from langchain_ctxmgr.memory.embeddings import Embedder, embeddings_from
from langchain_ctxmgr.memory.importance import importance
from langchain_ctxmgr.memory.points import keyword_vectors
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.settings import require
from langchain_ctxmgr.storage.vectors import BM25

try:
    from langgraph.store.base import (
        BaseStore,
        GetOp,
        Item,
        ListNamespacesOp,
        MatchCondition,
        Op,
        PutOp,
        Result,
        SearchItem,
        SearchOp,
        TTLConfig,
        get_text_at_path,
        validate_op_namespace,
    )
    from langgraph.store.qdrant import QdrantStore
    from langgraph.store.qdrant._filters import search_filter
    from langgraph.store.qdrant.base import VECTOR_NAME
    from qdrant_client import models

    from langchain_ctxmgr.storage.edge_client import EdgeClient
except ImportError as error:
    raise ImportError(
        "TenantStore needs langgraph-store-qdrant: pip install 'langchain-ctxmgr[store]'"
    ) from error

CANDIDATES: Final = 256
"""Items from each arm that are weighed; deeper pages take as many more."""
KEYWORD_SHARE: Final = 0.5
"""Of a score, beside that of meaning: even shares, a choice that nothing was measured for."""
IMPORTANCE_SHARE: Final = 0.2
"""At most so much of a score is importance: it orders what fits alike."""
_KEYWORDS: Final = "keywords"
_WEIGHED: Final = ["namespace", "key", "importance"]
_ERASED_AT_ONCE: Final = 512


class TenantStore(BaseStore):
    """A LangGraph `BaseStore` whose every call sees one tenant's items alone.

    `graph.compile(store=TenantStore(client))`. The tenant is the run's, found as
    `ContextMiddleware` finds it, or the one given here; a call without one is an error. The
    collection is made at first use. Blocking and async calls do the same; async ones run in a
    worker thread.

    A search with a `query` ranks by keywords and by meaning, `score` from 0 to 1; without
    `embeddings` it finds what shares a word with the query. How much an item matters is judged
    from its text when it is put, or taken from its value's own `importance`, from 0 to 1.

    Args:
        client: A `QdrantClient`, or an `EdgeClient` for a folder of this process's own; left
            open here.
        tenant_id: Where the run names none; a run that names another is an error then.
        embeddings: A LangChain `Embeddings`, a model's name as for `ContextManager`, or None.
        fields: Paths of the values' texts that are searched; all of them by default.
        ttl: LangGraph's time-to-live settings.
        collection_name: The collection, of which nothing else makes use.
        listeners: Called with what happens (`events`).

    Raises:
        ValueError: If an argument is not what it must be.
    """

    supports_ttl = True

    def __init__(
        self,
        client: Any,
        *,
        tenant_id: str | None = None,
        embeddings: Embeddings | str | Embedder | None = None,
        fields: Sequence[str] = ("$",),
        ttl: TTLConfig | None = None,
        collection_name: str = "ctxmgr_store",
        listeners: Sequence[Listener] = (),
    ) -> None:
        super().__init__()
        require(tenant_id=tenant_id, listeners=listeners)
        if not callable(getattr(client, "query_batch_points", None)):
            raise ValueError(f"client must be a QdrantClient or EdgeClient, got {shown(client)}")
        if isinstance(fields, str) or not fields:
            raise ValueError(f"fields must be a sequence of paths, got {shown(fields)}")
        self.ttl_config = ttl
        self._client = client
        self._tenant_id = tenant_id
        self._embedder = embeddings_from(embeddings)
        self._fields = list(fields)
        self._collection = collection_name
        self._listeners = tuple(listeners)
        self._opening = ForkableLock()
        self._opened: QdrantStore | None = None

    def setup(self) -> None:
        """Make the collection with its indexes, where it is not there yet.

        Raises:
            ValueError: If the collection was made for another embedding model's size, or by
                something else.
        """
        self._store()

    async def asetup(self) -> None:
        """`setup` on an event loop."""
        await asyncio.to_thread(self.setup)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """The results of several operations, in their order; reads see none of the writes.

        Everything is checked before anything is written.

        Raises:
            ValueError: If an operation is not what it must be, or no tenant is named.
        """
        asked = list(ops)
        for op in asked:
            _check(op)
        label = self._label()
        results: list[Result] = [None] * len(asked)
        if not asked:
            return results
        store = self._store()
        ranked = {
            place: op
            for place, op in enumerate(asked)
            if isinstance(op, SearchOp) and op.query and op.limit > 0 and op.offset >= 0
        }
        for place, op in ranked.items():
            results[place] = cast("Result", self._ranked(store, label, op))
        plain = [place for place in range(len(asked)) if place not in ranked]
        texts = {
            ((label, *op.namespace), op.key): self._texts(op)
            for op in asked
            if isinstance(op, PutOp) and op.value is not None
        }
        token = _putting.set(texts)
        try:
            given = store.batch([_within(label, asked[place]) for place in plain])
        finally:
            _putting.reset(token)
        for place, result in zip(plain, given, strict=True):
            results[place] = _without(result)
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """`batch` on an event loop."""
        return await asyncio.to_thread(self.batch, list(ops))

    def forget(self, namespace_prefix: tuple[str, ...] = ()) -> int:
        """Delete every item of the tenant under a namespace, expired or not; how many.

        In a folder of Qdrant Edge what stays is copied into new files, 0.1 ms an item, so that
        their bytes are gone, and those of items deleted before.
        """
        _check(SearchOp(namespace_prefix))
        prefix = (self._label(), *namespace_prefix)
        self._store().sweep_ttl()
        store, erased = self._store(), 0
        while True:
            asked = SearchOp(prefix, limit=_ERASED_AT_ONCE, refresh_ttl=False)
            found = cast("list[Item]", store.batch([asked])[0])
            store.batch([PutOp(item.namespace, item.key, None) for item in found])
            erased += len(found)
            if len(found) < _ERASED_AT_ONCE:
                break
        if isinstance(self._client, EdgeClient):
            self._client.rewrite(self._collection)
        return erased

    async def aforget(self, namespace_prefix: tuple[str, ...] = ()) -> int:
        """`forget` on an event loop."""
        return await asyncio.to_thread(self.forget, namespace_prefix)

    def sweep_ttl(self) -> int:
        """Delete the expired items of all tenants; how many there were."""
        return self._store().sweep_ttl()

    async def asweep_ttl(self) -> int:
        """`sweep_ttl` on an event loop."""
        return await asyncio.to_thread(self.sweep_ttl)

    def _label(self) -> str:
        """What the tenant's namespaces stand under.

        Raises:
            ValueError: If no tenant is named, or another than the bound one.
        """
        default = Scope(tenant_id=self._tenant_id)
        tenant_id = scope_of_run(runtime_here(), ensure_config(), [], default=default).tenant_id
        if tenant_id is None:
            raise ValueError(
                "the run must name a tenant_id in its context or configurable, or the store be "
                "bound to one"
            )
        if self._tenant_id not in {None, tenant_id}:
            raise ValueError(
                f"tenant_id must be the store's own ({self._tenant_id!r}), got {tenant_id!r}"
            )
        return f"tenant:{tenant_id}"  # so that none is `*`, which matches any

    def _store(self) -> QdrantStore:
        with self._opening:
            if self._opened is None:
                store = QdrantStore(
                    cast("Any", _Putting(self._client)),
                    collection_name=self._collection,
                    index=self._index(),
                    ttl=self.ttl_config,
                )
                idf = models.SparseVectorParams(modifier=models.Modifier.IDF)
                store.setup(sparse_vectors_config={_KEYWORDS: idf})
                made = self._client.get_collection(self._collection).config.params
                if _KEYWORDS not in (made.sparse_vectors or {}):
                    raise ValueError(
                        f"collection_name must be of a collection of its own, got "
                        f"{self._collection!r}: it was made by something else"
                    )
                self._opened = store
            return self._opened

    def _index(self) -> Any:
        if self._embedder is None:
            return None
        run(self._embedder.learn())
        size = self._embedder.dense().size
        return {"dims": size, "embed": self._embedder.model, "fields": self._fields}

    def _texts(self, op: PutOp) -> str | None:
        """What is searched of a value by its words; None where it is not to be."""
        if op.index is False:
            return None
        paths = self._fields if op.index is None else op.index
        found = [
            text
            for path in paths
            for text in (_leaves(op.value) if path == "$" else get_text_at_path(op.value, path))
        ]
        return "\n".join(found)

    def _ranked(self, store: QdrantStore, label: str, op: SearchOp) -> list[SearchItem]:
        """A page of what answers `op`'s query, best first, ties by id."""
        end = op.offset + op.limit
        hits = self._hits(label, op, limit=-(-end // CANDIDATES) * CANDIDATES)
        if hits is None:
            newest = store.batch([_within(label, op._replace(query=None))])[0]
            return cast("list[SearchItem]", _without(newest))
        page = sorted(hits, key=lambda hit: (-hit.score, hit.id))[op.offset : end]
        found = store.batch([GetOp(hit.namespace, hit.key, op.refresh_ttl) for hit in page])
        return [
            SearchItem(**_fields(cast("Item", item)), score=hit.score)
            for hit, item in zip(page, found, strict=True)
            if item is not None
        ]

    def _hits(self, label: str, op: SearchOp, *, limit: int) -> list[_Hit] | None:
        """The candidates of both arms, weighed; None where the query says nothing."""
        query = cast("str", op.query)
        omits = bool((self.ttl_config or {}).get("omit_expired"))
        now = datetime.now(UTC)
        where = search_filter(cast("SearchOp", _within(label, op)), now=now, omit_expired=omits)
        asked: list[models.QueryRequest] = []
        words = list(dict.fromkeys(terms(query)))
        if words:
            corpus = search_filter(SearchOp((label,)), now=now, omit_expired=False)
            idf = models.IdfCorpusParams(corpus=cast("models.Filter", corpus))
            asked.append(
                models.QueryRequest(
                    query=models.SparseVector(indices=words, values=[1.0] * len(words)),
                    using=_KEYWORDS,
                    params=models.SearchParams(idf=idf),
                    filter=where,
                    limit=limit,
                    with_payload=_WEIGHED,
                )
            )
        vector = self._vector(query)
        if vector is not None:
            asked.append(
                models.QueryRequest(
                    query=[vector],
                    using=VECTOR_NAME,
                    filter=where,
                    limit=limit,
                    with_payload=_WEIGHED,
                )
            )
        if not asked:
            return None
        answers = self._client.query_batch_points(self._collection, requests=asked)
        by_words: list[Any] = answers[0].points if words else []
        by_meaning: list[Any] = answers[-1].points if vector is not None else []
        return _weighed(by_words, by_meaning, has_meaning=vector is not None)

    def _vector(self, query: str) -> list[float] | None:
        """The boundary for the embedding model: without it, keywords."""
        if self._embedder is None:
            return None
        try:
            return list(self._embedder.model.embed_query(query))
        except Exception as error:  # noqa: BLE001 - any model may be behind it
            event = Degraded(part="embeddings", reason=str(error), fallback="keywords")
            emit(self._listeners, event)
            return None


class _Hit(NamedTuple):
    """A candidate of a search."""

    id: str
    namespace: tuple[str, ...]
    key: str
    score: float


_putting: ContextVar[Mapping[tuple[tuple[str, ...], str], str | None]] = ContextVar("putting")
"""The texts of the values that a batch puts, by namespace and key."""


class _Putting:
    """A Qdrant client that stores beside each item how it is found by words, and its weight.

    In the same request, so that no item is ever without.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def upsert(self, collection_name: str, *, points: Sequence[Any], wait: bool) -> None:
        texts = _putting.get()
        for point in points:
            payload = point.payload
            text = texts[tuple(payload["namespace"]), payload["key"]]
            payload["importance"] = _importance(payload["value"], text)
            if text is not None and (found := terms(text)):
                sparse = keyword_vectors(found, 0)[BM25]
                point.vector[_KEYWORDS] = models.SparseVector(
                    indices=list(sparse.indices), values=list(sparse.values)
                )
        self._client.upsert(collection_name, points=points, wait=wait)


def _weighed(
    by_words: Sequence[Any], by_meaning: Sequence[Any], *, has_meaning: bool
) -> list[_Hit]:
    points = {str(point.id): point for point in (*by_words, *by_meaning)}
    best = max((point.score for point in by_words), default=0.0)
    words = {str(point.id): point.score / best for point in by_words if best > 0}
    meaning = {str(point.id): max(0.0, point.score) for point in by_meaning}
    share = KEYWORD_SHARE if has_meaning else 1.0
    hits: list[_Hit] = []
    for name, point in points.items():
        fits = share * words.get(name, 0.0) + (1 - share) * meaning.get(name, 0.0)
        weight = 1 - IMPORTANCE_SHARE + IMPORTANCE_SHARE * point.payload["importance"]
        hits.append(
            _Hit(name, tuple(point.payload["namespace"]), point.payload["key"], fits * weight)
        )
    return hits


def _importance(value: Mapping[str, Any], text: str | None) -> float:
    own = value.get("importance")
    if isinstance(own, int | float) and not isinstance(own, bool) and 0 <= own <= 1:
        return float(own)
    said = text or ""
    return importance(HumanMessage(said), said).score


def _leaves(value: object) -> list[str]:
    """The texts and numbers inside a value."""
    if isinstance(value, Mapping):
        return [
            leaf for each in cast("Mapping[str, Any]", value).values() for leaf in _leaves(each)
        ]
    if isinstance(value, list | tuple):
        return [leaf for each in cast("Sequence[Any]", value) for leaf in _leaves(each)]
    return [] if value is None or isinstance(value, bool) else [str(value)]


def _check(op: object) -> None:
    """Return when `op` can be done.

    Raises:
        ValueError: If it cannot.
    """
    if not isinstance(op, GetOp | PutOp | SearchOp | ListNamespacesOp):
        raise ValueError(f"ops must be operations of a LangGraph store, got {shown(op)}")
    validate_op_namespace(op)
    try:
        json.dumps(op, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise ValueError(f"an item must be valid UTF-8, got {shown(op)}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"an item must be JSON, got {shown(op)}: {error}") from error
    if isinstance(op, GetOp | PutOp) and not op.namespace:
        raise ValueError(f"namespace must have a label, got {shown(op)}")


def _within(label: str, op: Op) -> Op:
    """The operation as it is done inside the tenant's part of the store."""
    match op:
        case GetOp() | PutOp():
            return op._replace(namespace=(label, *op.namespace))
        case SearchOp():
            return op._replace(namespace_prefix=(label, *op.namespace_prefix))
        case ListNamespacesOp():
            conditions = [MatchCondition("prefix", (label,))]
            for asked in op.match_conditions or ():
                inside = asked.path
                if asked.match_type == "suffix":  # of what follows the label, never with it
                    conditions.append(asked)
                    inside = ("*",) * len(inside)
                conditions.append(MatchCondition("prefix", (label, *inside)))
            depth = None if op.max_depth is None else op.max_depth + 1
            return op._replace(match_conditions=tuple(conditions), max_depth=depth)


def _without(result: Any) -> Any:
    """A result, or a namespace in it, as it is seen from within the tenant's part of the store."""
    match result:
        case SearchItem():
            return SearchItem(**_fields(result), score=result.score)
        case Item():
            return Item(**_fields(result))
        case list():
            return [_without(each) for each in cast("list[Any]", result)]
        case tuple():
            return cast("tuple[str, ...]", result)[1:]
        case _:
            return None


def _fields(item: Item) -> dict[str, Any]:
    return {
        "namespace": item.namespace[1:],
        "key": item.key,
        "value": item.value,
        "created_at": item.created_at,
        "updated_at": item.updated_at,
    }
