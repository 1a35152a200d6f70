"""The way to a Qdrant server: clients made when needed, requests that are tried again.

qdrant-client never repeats a request that was answered 429 or 5xx, or not at all, so that is
done here: with growing, fully jittered pauses, obeying Retry-After, for a bounded number of
attempts and time. Every request of this package may be repeated: writes are by id.

A blocking client serves all threads. An async client belongs to one event loop, so each
loop gets its own, closed with the loop or with the connection. A forked child makes its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import ssl
import threading
import weakref
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.storage.arguments import positive_count, positive_time
from langchain_ctxmgr.storage.server_errors import is_transient, read_failure, storage_error

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient, QdrantClient

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_SPREAD = 0.1
"""Share of a Retry-After added at random, so that not all workers come back at once."""
_CONNECTIONS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """How to reach the server, and how long to try."""

    prefer_grpc: bool = False
    """Points go over gRPC; REST is still used where gRPC has no call."""
    grpc_port: int = 6334
    verify: bool | str | ssl.SSLContext = True
    """For https: whether to check the certificate, or a file of authorities to trust."""
    timeout: timedelta = timedelta(seconds=5)
    """Until one unanswered request counts as failed; whole seconds, rounded up."""
    attempts: int = 4
    """How often a request is tried before it fails."""
    patience: timedelta = timedelta(seconds=15)
    """How long a request may take in all: no attempt starts so late, a Retry-After included,
    that `timeout` would end after it."""

    def __post_init__(self) -> None:
        positive_count("attempts", self.attempts)
        for name in ("timeout", "patience"):
            positive_time(name, getattr(self, name))
        if self.prefer_grpc and not isinstance(self.verify, str) and self.verify is not True:
            raise ValueError("with prefer_grpc, verify must be True or a file of authorities")


class Request(NamedTuple):
    """One call of qdrant-client."""

    what: str
    """As in "cannot <what>"."""
    method: str
    """Name of the client's method; may be dotted."""
    arguments: Mapping[str, Any]


class QdrantConnection:
    """Sends requests to the Qdrant server at `url`.

    Args:
        url: `http(s)://host:port`, without user part.
        api_key: Sent with each request; never shown.
        settings: How to reach the server.
    """

    def __init__(self, url: str, *, api_key: str | None, settings: ConnectionSettings) -> None:
        self.url = url
        self.settings = settings
        self._api_key = api_key
        self._lock = threading.Lock()
        self._blocking: QdrantClient | None = None
        self._by_loop: dict[asyncio.AbstractEventLoop, _LoopClient] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._inherited: list[object] = []
        _connections.add(self)

    @property
    def sends_key_in_clear(self) -> bool:
        """Whether the API key goes unencrypted over a network."""
        parts = urlsplit(self.url)
        is_here = parts.hostname in ("localhost", "127.0.0.1", "::1")
        return self._api_key is not None and parts.scheme == "http" and not is_here

    def send(self, request: Request) -> Any:
        """The server's answer to `request`, tried again while that may help.

        The boundary to qdrant-client: whatever it raises becomes a `StorageError`.
        """
        try:
            client = self._client()
            method = attrgetter(request.method)(client)
            retrying = Retrying(**self._policy())
            return retrying(method, **request.arguments)
        except Exception as error:
            raise self._error(request, error) from error

    async def asend(self, request: Request) -> Any:
        """`send` on an event loop."""
        try:
            client = await self._aclient()
            method = attrgetter(request.method)(client)
            retrying = AsyncRetrying(**self._policy())
            return await retrying(method, **request.arguments)
        except Exception as error:
            raise self._error(request, error) from error

    def close(self) -> None:
        """Close the clients; those of other event loops as soon as their loop turns."""
        with self._lock:
            client, self._blocking = self._blocking, None
        if client is not None:
            client.close()
        self._close_by_loop(None)

    async def aclose(self) -> None:
        """`close` on an event loop, whose own client is closed when this returns."""
        loop = asyncio.get_running_loop()
        mine = self._by_loop.get(loop)
        if mine is not None:
            await mine.client.close()
        with self._lock:
            client, self._blocking = self._blocking, None
        if client is not None:
            client.close()
        self._close_by_loop(loop)

    def forget(self) -> None:
        """Leave the clients to the parent, as called in a forked child."""
        self._inherited += [self._blocking, self._by_loop]
        self._lock = threading.Lock()
        self._blocking, self._by_loop = None, {}

    def _error(self, request: Request, error: Exception) -> StorageError:
        if isinstance(error, StorageError):
            return error
        return storage_error(request.what, self.url, error, secret=self._api_key)

    def _policy(self) -> dict[str, Any]:
        settings = self.settings
        last_start = (settings.patience - settings.timeout).total_seconds()
        return {
            "stop": stop_after_attempt(settings.attempts) | stop_before_delay(last_start),
            "wait": _pause,
            "retry": retry_if_exception(is_transient),
            "reraise": True,
        }

    def _client(self) -> Any:
        with self._lock:
            if self._blocking is None:
                self._blocking = _imported().QdrantClient(**self._options())
            return self._blocking

    async def _aclient(self) -> AsyncQdrantClient:
        loop = asyncio.get_running_loop()
        mine = self._by_loop.get(loop)
        if mine is None:
            # The import takes most of a second, reading the authorities a tenth.
            client = await asyncio.to_thread(
                lambda: _imported().AsyncQdrantClient(**self._options())
            )
            with self._lock:
                for each in [each for each in self._by_loop if each.is_closed()]:
                    del self._by_loop[each]
                mine = self._by_loop.setdefault(loop, _LoopClient(client, _lifetime(client)))
            if mine.client is client:
                await anext(mine.lifetime)
        return mine.client

    def _options(self) -> dict[str, Any]:
        import httpx

        settings = self.settings
        verify = settings.verify if self.url.startswith("https:") else False
        options: dict[str, Any] = {
            "url": self.url,
            "timeout": math.ceil(settings.timeout.total_seconds()),
            "prefer_grpc": settings.prefer_grpc,
            "grpc_port": settings.grpc_port,
            # Without TLS there is nothing to verify and no authorities to read.
            "verify": _trusting(verify) if isinstance(verify, str) else verify,
            "check_compatibility": False,
            # qdrant-client keeps no connection to a server on this machine by itself.
            "limits": httpx.Limits(
                max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS
            ),
        }
        if self._api_key is not None:
            # As `api_key` it would warn for each client made; we do once for each store.
            options["headers"] = {"api-key": self._api_key}
        if settings.prefer_grpc and isinstance(verify, str):
            options["grpc_options"] = {"root_certificates": Path(verify).read_bytes()}
        return options

    def _close_by_loop(self, done: asyncio.AbstractEventLoop | None) -> None:
        with self._lock:
            others = [(loop, each) for loop, each in self._by_loop.items() if loop is not done]
        for loop, each in others:
            # A loop that ended meanwhile closed its client itself.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._close_soon, each.client)

    def _close_soon(self, client: AsyncQdrantClient) -> None:
        task = asyncio.ensure_future(client.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _LoopClient(NamedTuple):
    client: AsyncQdrantClient
    lifetime: AsyncGenerator[None]


async def _lifetime(client: AsyncQdrantClient) -> AsyncGenerator[None]:
    """Closes `client` when its loop ends: a loop closes its generators before itself."""
    try:
        yield
    finally:
        await client.close()


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked = read_failure(error).retry_after_seconds if isinstance(error, Exception) else None
    if asked is not None:
        return asked * (1.0 + _SPREAD * random.random())  # noqa: S311 - no secret
    return _jittered(state)


_jittered = wait_random_exponential(multiplier=_FIRST_PAUSE_SECONDS, max=_LONGEST_PAUSE_SECONDS)


def _trusting(authorities: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise StorageError(
            f"cannot read the authorities in {authorities} ({error}); give `verify`, or `ca` in "
            "the URL, a file of certificates in PEM"
        ) from error


def _imported() -> Any:
    try:
        import qdrant_client
    except ImportError as error:
        raise StorageError(
            "a Qdrant server needs qdrant-client: pip install 'langchain-ctxmgr[server]'"
        ) from error
    return qdrant_client


_connections: weakref.WeakSet[QdrantConnection] = weakref.WeakSet()


def _forget_in_child() -> None:
    for connection in list(_connections):
        connection.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
