"""The parts a manager stands on: given as objects, or opened from URLs.

Nothing is connected or loaded before first use. What was opened here is the manager's to
close; what was given stays open.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack
from typing import NamedTuple

from langchain_ctxmgr.memory.embeddings import Embedder
from langchain_ctxmgr.storage.cache import Cache, MemoryCache
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.storage.vectors import VectorStore

POSTGRES_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
QDRANT_SCHEMES = ("http", "https")


class Parts(NamedTuple):
    """A log, the index over it and a cache, and which of them are the manager's own."""

    log: MessageLog
    vectors: VectorStore | None
    cache: Cache
    own: tuple[MessageLog | VectorStore | Cache, ...]

    @property
    def owns_log(self) -> bool:
        """Whether the log is closed with the manager."""
        return any(part is self.log for part in self.own)

    def close(self) -> None:
        """Close what is the manager's own, whichever of it fails."""
        with ExitStack() as stack:
            for part in self.own:
                stack.callback(part.close)

    async def aclose(self) -> None:
        """`close` on an event loop."""
        async with AsyncExitStack() as stack:
            for part in self.own:
                stack.push_async_callback(part.aclose)


def parts_from(
    log: MessageLog | str,
    vectors: VectorStore | str | None,
    cache: Cache | str | None,
    embedder: Embedder | None,
) -> Parts:
    """The parts that these name.

    Args:
        log: A `MessageLog`, or `postgresql://user:password@host/database`.
        vectors: A `VectorStore`, `http(s)://[key@]host:port` of a Qdrant server, or None.
        cache: A `Cache`, `redis://host:port`, or None for one inside this process.
        embedder: The model that the vectors come from.

    Raises:
        ValueError: If a URL cannot be read; it is not repeated, since it may hold a password.
        ImportError: If the package for one is missing; the message names the extra.
    """
    opened_log, opened_vectors = _log_from(log), _vectors_from(vectors, embedder)
    opened_cache = cache_from(cache)
    given = (log, vectors, cache)
    opened = (opened_log, opened_vectors, opened_cache)
    own = tuple(
        part
        for spec, part in zip(given, opened, strict=True)
        if part is not None and spec is not part
    )
    return Parts(opened_log, opened_vectors, opened_cache, own)


def _log_from(spec: MessageLog | str) -> MessageLog:
    if not isinstance(spec, str):
        return spec
    scheme, _, rest = spec.partition("://")
    if scheme not in POSTGRES_SCHEMES or not rest:
        raise ValueError(
            "log must be a MessageLog or postgresql://user:password@host/database; for a folder "
            "use ContextManager.open"
        )
    try:
        from langchain_ctxmgr.storage.postgres import PostgresLog
    except ModuleNotFoundError as error:
        raise ImportError(
            "a log in PostgreSQL needs psycopg: pip install 'langchain-ctxmgr[postgres]'"
        ) from error
    return PostgresLog(f"postgresql://{rest}")


def _vectors_from(spec: VectorStore | str | None, embedder: Embedder | None) -> VectorStore | None:
    if not isinstance(spec, str):
        return spec
    if spec.partition("://")[0] not in QDRANT_SCHEMES:
        raise ValueError("vectors must be a VectorStore, http(s)://host:port of Qdrant, or None")
    from langchain_ctxmgr.storage.server import QdrantVectorStore

    return QdrantVectorStore.from_url(spec, dense=None if embedder is None else embedder.dense)


def cache_from(spec: Cache | str | None) -> Cache:
    """The cache that `spec` names; None: one inside this process.

    Args:
        spec: A `Cache`, or the URL of a Redis: `redis://`, `rediss://` (TLS), `unix://`.

    Raises:
        ValueError: If `spec` is a URL that cannot be read.
        ImportError: If the package for it is missing; the message names the extra.
    """
    if spec is None:
        return MemoryCache()
    if not isinstance(spec, str):
        return spec
    try:
        from langchain_ctxmgr.storage.redis_cache import RedisCache
    except ModuleNotFoundError as error:
        raise ImportError(
            "a cache in Redis needs redis: pip install 'langchain-ctxmgr[redis]'"
        ) from error
    return RedisCache(spec)
