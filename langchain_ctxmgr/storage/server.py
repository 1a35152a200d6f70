"""Vectors on a Qdrant server, shared by any number of processes.

The same points, filters and scores as in Qdrant Edge, which is the same engine. Tenants
share one collection, made at first use by whichever process comes first; it carries an
identity of its own, so that every process notices when another one made it anew.

Each operation is one plan, driven blocking over REST or gRPC, or on any event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from langchain_ctxmgr._plans import Plan, arun, run
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage import server_requests as requests
from langchain_ctxmgr.storage.server_collection import SharedCollection
from langchain_ctxmgr.storage.server_connection import ConnectionSettings, QdrantConnection
from langchain_ctxmgr.storage.server_requests import CollectionSettings
from langchain_ctxmgr.storage.vectors import (
    CODES,
    SCOPES_FIELD,
    Among,
    DenseVectors,
    Hit,
    Match,
    Point,
    VectorQuery,
    best_first,
    checked_ask,
    conditions,
    corpus_level,
    scope_key,
    with_threads,
)

if TYPE_CHECKING:
    from qdrant_client import models

_DEFAULT_CONNECTION = ConnectionSettings()
_DEFAULT_COLLECTION = CollectionSettings()

SIZE_SECONDS: Final = 60.0
"""How long a scope's size is taken for what it was when counted: asking costs a round trip, and
the answer matters only once a scope beyond `CORPUS_SIZE` has doubled. Until then IDF is counted
over a sample larger than needed, or, where another process erased the scope, over a smaller one."""
_MOST_SIZES: Final = 4_096
"""Scopes whose size is known at once: memory is bounded, whatever number of threads is asked."""


class QdrantVectorStore:
    """A `VectorStore` on the Qdrant server at `url`, opened by `setup` or first use.

    Args:
        url: `http(s)://host:port`; `from_url` takes one with key and options in it.
        api_key: The server's, if it asks for one.
        collection: What the names of its collections start with; each embedding has its own.
        dense: The embedding its dense vectors come from, None for keyword recall alone;
            a function that says so is called at first use.
        connection: gRPC, TLS, time-outs and retries.
        layout: Shards and replicas of a collection that has to be made.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        collection: str = "ctxmgr",
        dense: DenseVectors | Callable[[], DenseVectors] | None = None,
        connection: ConnectionSettings = _DEFAULT_CONNECTION,
        layout: CollectionSettings = _DEFAULT_COLLECTION,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("url must be http(s)://host:port")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("url must hold no key and no options; QdrantVectorStore.from_url may")
        if not collection:
            raise ValueError("collection must not be empty")
        self.url = url
        self.collection = collection
        self._connection = QdrantConnection(url, api_key=api_key, settings=connection)
        self._shared = SharedCollection(self._connection, collection, dense, layout)
        self._sizes: dict[tuple[str, str], tuple[int, float]] = {}

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        api_key: str | None = None,
        dense: DenseVectors | Callable[[], DenseVectors] | None = None,
        layout: CollectionSettings = _DEFAULT_COLLECTION,
    ) -> QdrantVectorStore:
        """The store that `url` names: `http(s)://[key@]host:port[?collection=…&grpc=1]`.

        Args:
            url: The key may hold %-escapes; `grpc=1` sends points over gRPC, to port 6334 or
                the one that `grpc_port` says; `ca` names a file of authorities to trust.
            api_key: Instead of the one in `url`.
            dense: As for the class.
            layout: As for the class.

        Raises:
            ValueError: If `url` cannot be understood; it is not repeated in the message.
        """
        parts = urlsplit(url)
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        unknown = options.keys() - {"collection", "grpc", "grpc_port", "ca"}
        if unknown:
            raise ValueError(
                "a Qdrant URL takes collection, grpc, grpc_port and ca, "
                f"got {', '.join(sorted(unknown))}"
            )
        grpc, grpc_port = options.get("grpc", "0"), options.get("grpc_port", "6334")
        if grpc not in ("0", "1") or not grpc_port.isdecimal():
            raise ValueError(f"grpc must be 0 or 1 and grpc_port a number, got {grpc}, {grpc_port}")
        in_url = parts.password or parts.username
        host = parts.netloc.rpartition("@")[2]
        return cls(
            urlunsplit((parts.scheme, host, parts.path, "", "")),
            api_key=api_key or (unquote(in_url) if in_url else None),
            collection=options.get("collection", "ctxmgr"),
            dense=dense,
            connection=ConnectionSettings(
                prefer_grpc=grpc == "1",
                grpc_port=int(grpc_port),
                verify=options.get("ca", True),
            ),
            layout=layout,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, collection={self.collection!r})"

    @property
    def dense(self) -> DenseVectors | None:
        """The embedding it is opened for."""
        return self._shared.dense

    @property
    def is_shared(self) -> bool:
        """True: any number of processes may write it."""
        return True

    @property
    def index_id(self) -> str:
        """Identity of the collection's content; opens the store when needed.

        Up to `server_collection.IDENTITY_SECONDS` old.
        """
        return run(self._shared.index_id())

    def setup(self) -> None:
        """Make the collection where there is none, and check that it is ours and still there.

        Raises:
            StorageError: If the server cannot be used, is too old, or the collection was
                made for another embedding.
        """
        run(self._shared.index_id())

    def check_server(self) -> str:
        """The server's version; nothing is made there.

        Raises:
            StorageError: If the server cannot be used, or is too old.
        """
        return run(self._shared.check_server())

    def upsert(self, points: Sequence[Point]) -> None:
        """Store `points`, replacing those with the same id. All are checked first.

        Raises:
            ValueError: If a point is not as `Point` says; nothing is stored then.
            StorageError: If the server cannot be used; a part may be stored then.
        """
        run(self._upsert(points))

    def query(
        self, scope: Scope, queries: Sequence[VectorQuery], *, before_slot: int | None = None
    ) -> list[list[Hit]]:
        """The best points for each query, best first, ties by id ascending.

        Where more than `vectors.TIE_POINTS` share the score at the limit, the server decides
        which of them.
        """
        return run(self._query(scope, queries, before_slot))

    def codes(self, scope: Scope, ids: Sequence[int]) -> dict[int, str]:
        """The codes of these points, by id: of those in `scope` that have any."""
        return run(self._codes(scope, ids))

    def count(self, scope: Scope, *, among: Collection[int] | None = None) -> int:
        """Points in `scope`. Takes time in proportion to them."""
        return run(self._count(scope, among))

    def scroll(self, scope: Scope, *, after_id: int = 0, limit: int = 1_000) -> list[Point]:
        """The points of `scope` after `after_id` in id order.

        Vectors are as stored: dense ones scaled to length 1 and rounded to 16 bits.
        """
        return run(self._scroll(scope, after_id, limit))

    def delete(
        self, scope: Scope, *, also: Sequence[str] = (), among: Collection[int] | None = None
    ) -> int:
        """Erase the points of `scope` from the store; how many there were.

        With a thread, those of the tenant's threads named in `also` too.
        Also from collections of the same name for other embeddings, which are not counted.
        When this returns no request finds them any more. The server frees their place in its
        files when it next optimizes the segment they were in.
        """
        return run(self._deleted(with_threads(scope, also), among))

    def drop(self) -> None:
        """Remove the collection, ours or not; the next use makes an empty one."""
        run(self._shared.drop())

    def flush(self) -> None:
        """Return at once: what the server acknowledged is in its write-ahead log."""
        self._shared.refuse_closed()

    def close(self) -> None:
        """Close the connections; again does nothing."""
        if self._shared.mark_closed():
            self._connection.close()

    async def asetup(self) -> None:
        """`setup` on an event loop."""
        await arun(self._shared.index_id())

    async def aupsert(self, points: Sequence[Point]) -> None:
        """`upsert` on an event loop."""
        await arun(self._upsert(points))

    async def aquery(
        self, scope: Scope, queries: Sequence[VectorQuery], *, before_slot: int | None = None
    ) -> list[list[Hit]]:
        """`query` on an event loop."""
        return await arun(self._query(scope, queries, before_slot))

    async def acodes(self, scope: Scope, ids: Sequence[int]) -> dict[int, str]:
        """`codes` on an event loop."""
        return await arun(self._codes(scope, ids))

    async def acount(self, scope: Scope, *, among: Collection[int] | None = None) -> int:
        """`count` on an event loop."""
        return await arun(self._count(scope, among))

    async def ascroll(self, scope: Scope, *, after_id: int = 0, limit: int = 1_000) -> list[Point]:
        """`scroll` on an event loop."""
        return await arun(self._scroll(scope, after_id, limit))

    async def adelete(
        self, scope: Scope, *, also: Sequence[str] = (), among: Collection[int] | None = None
    ) -> int:
        """`delete` on an event loop."""
        return await arun(self._deleted(with_threads(scope, also), among))

    async def adrop(self) -> None:
        """`drop` on an event loop."""
        await arun(self._shared.drop())

    async def aflush(self) -> None:
        """`flush`, which has nothing to wait for."""
        self.flush()

    async def aclose(self) -> None:
        """`close` on an event loop."""
        if self._shared.mark_closed():
            await self._connection.aclose()

    def _upsert(self, points: Sequence[Point]) -> Plan[None]:
        by_tenant: dict[str | None, dict[int, models.PointStruct]] = {}
        for point in requests.server_points(points, self.dense):
            tenant = (point.payload or {})["tenant_id"] if self._shared.is_by_tenant else None
            # A later point with the same id is the one that counts.
            by_tenant.setdefault(tenant, {})[int(point.id)] = point
        for tenant, ready in by_tenant.items():
            shard = self._shared.shard(tenant)
            if self._connection.settings.prefer_grpc:
                for batch in requests.batches(list(ready.values()), requests.GRPC_POINTS):
                    yield from self._shared.send(
                        "store points", "upsert", points=batch, shard_key_selector=shard, wait=True
                    )
                continue
            for batch in requests.batches(list(ready.values()), requests.REST_POINTS):
                # As text already, so that it is not made on the event loop: 2 to 5 ms.
                yield from self._shared.send(
                    "store points",
                    "http.points_api.upsert_points",
                    point_insert_operations=requests.upsert_body(batch, shard),
                    wait=True,
                )

    def _query(
        self, scope: Scope, queries: Sequence[VectorQuery], before_slot: int | None
    ) -> Plan[list[list[Hit]]]:
        asks = [checked_ask(scope, query, before_slot, self.dense) for query in queries]
        self._shared.refuse_closed()
        if not any(asks):
            return [[] for _ in asks]
        shard = self._shared.shard(scope.tenant_id)
        corpus: models.Filter | None = None
        if any(ask is not None and not ask.is_dense for ask in asks):
            corpus = yield from self._corpus(scope)
        answers = yield from self._shared.send(
            "search",
            "query_batch_points",
            requests=[requests.server_query(ask, corpus, shard) for ask in asks if ask],
        )
        found = iter(answers)
        return [_hits(next(found).points, ask.limit) if ask else [] for ask in asks]

    def _corpus(self, scope: Scope) -> Plan[models.Filter]:
        """The points whose words say how rare a term is: the scope, or an even sample."""
        size = yield from self._size(scope)
        level = corpus_level(size)
        return requests.server_filter((Match(SCOPES_FIELD, scope_key(scope, level)),))

    def _size(self, scope: Scope) -> Plan[int]:
        """About how many points `scope` had, at most `SIZE_SECONDS` ago."""
        identity = yield from self._shared.opened()
        place = (identity.uuid, scope_key(scope))
        size, until = self._sizes.get(place, (0, 0.0))
        if time.monotonic() >= until:
            whole = requests.server_filter((Match(SCOPES_FIELD, scope_key(scope)),))
            # An estimate will do: it only decides which sample is small enough.
            size = yield from self._counted(scope, whole, exact=False)
            if len(self._sizes) >= _MOST_SIZES:
                self._sizes = {}
            self._sizes[place] = (size, time.monotonic() + SIZE_SECONDS)
        return size

    def _counted(self, scope: Scope, needed: models.Filter, *, exact: bool) -> Plan[int]:
        answer = yield from self._shared.send(
            "count points",
            "count",
            count_filter=needed,
            exact=exact,
            shard_key_selector=self._shared.shard(scope.tenant_id),
        )
        return int(answer.count)

    def _count(self, scope: Scope, among: Collection[int] | None) -> Plan[int]:
        needed = requests.server_filter(conditions(scope, among=among))
        return (yield from self._counted(scope, needed, exact=True))

    def _codes(self, scope: Scope, ids: Sequence[int]) -> Plan[dict[int, str]]:
        wanted = frozenset(ids)
        if not wanted:
            return {}
        records, _ = yield from self._shared.send(
            "read points",
            "scroll",
            scroll_filter=requests.server_filter((Among(wanted), *conditions(scope))),
            offset=min(wanted),
            limit=len(wanted),
            with_payload=[CODES],
            with_vectors=False,
            shard_key_selector=self._shared.shard(scope.tenant_id),
        )
        return requests.codes(records)

    def _scroll(self, scope: Scope, after_id: int, limit: int) -> Plan[list[Point]]:
        needed = requests.server_filter(conditions(scope))
        records, _ = yield from self._shared.send(
            "read points",
            "scroll",
            scroll_filter=needed,
            offset=after_id + 1,
            limit=limit,
            with_payload=True,
            with_vectors=True,
            shard_key_selector=self._shared.shard(scope.tenant_id),
        )
        return [requests.stored_point(record) for record in records]

    def _deleted(self, scopes: Sequence[Scope], among: Collection[int] | None) -> Plan[int]:
        found = 0
        for scope in scopes:
            found += yield from self._delete(scope, among)
        return found

    def _delete(self, scope: Scope, among: Collection[int] | None) -> Plan[int]:
        from qdrant_client import models

        needed = requests.server_filter(conditions(scope, among=among))
        erasing = {
            "points_selector": models.FilterSelector(filter=needed),
            "shard_key_selector": self._shared.shard(scope.tenant_id),
            "wait": True,
        }
        found = yield from self._counted(scope, needed, exact=True)
        if found:
            yield from self._shared.send("erase points", "delete", **erasing)
            self._sizes = {}
        yield from self._shared.send_to_others("erase points", "delete", **erasing)
        return found


def _hits(points: Sequence[models.ScoredPoint], limit: int) -> list[Hit]:
    ids = [int(point.id) for point in points]
    return best_first([point.score for point in points], ids, limit)
