"""The cache port, and the cache inside this process.

A cache holds bytes that were costly to make and can be made again: any of them may be
gone at the next call. What it holds belongs to the scope it was put under and is found
under that very scope alone, so neither tenants nor threads share anything. Erasing is the
one thing that is certain: `forget` takes everything within a scope, or raises.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from langchain_ctxmgr._plans import brief
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.records import Scope

MAX_TTL = timedelta(days=30)
"""Nothing is kept longer, whatever was asked: derived data must not outlive its use."""
MAX_VALUE_BYTES = 1 << 20
"""A larger value is not kept: a cache of large ones would hold few, and read them slowly."""
MAX_BYTES = 32 << 20
"""What a cache inside the process may hold: some 5,000 question vectors of 1,536 numbers."""
MAX_ENTRIES = 20_000
ENTRY_BYTES = 460
"""What an entry takes beside key and value, its scope included (measured, CPython 3.11)."""


class Cache(Protocol):
    """Bytes by scope and key, for a time.

    The constructor touches nothing. Safe to use from several threads, event loops and
    forked processes. A wrong argument raises `ValueError` before anything is changed; a
    cache that cannot be reached raises `StorageError`, within its timeout.
    """

    def get(self, scope: Scope, key: str) -> bytes | None:
        """What was put under `key` for this very scope; None when it is not there."""
        ...

    def put(self, scope: Scope, key: str, value: bytes, *, ttl: timedelta | None = None) -> None:
        """Keep `value` for `ttl`, or for `MAX_TTL` without one; drop it where it is too large."""
        ...

    def forget(self, scope: Scope) -> int:
        """Erase what was put within `scope`; how many values there were.

        Without a thread that is every thread of the tenant, without a user every user.
        """
        ...

    def close(self) -> None:
        """Release it; again does nothing, any other call raises `StorageError`."""
        ...

    async def aget(self, scope: Scope, key: str) -> bytes | None:
        """`get` on an event loop."""
        ...

    async def aput(
        self, scope: Scope, key: str, value: bytes, *, ttl: timedelta | None = None
    ) -> None:
        """`put` on an event loop."""
        ...

    async def aforget(self, scope: Scope) -> int:
        """`forget` on an event loop."""
        ...

    async def aclose(self) -> None:
        """`close` on an event loop."""
        ...


def check_scope(scope: Scope) -> str:
    """The tenant of `scope`.

    Raises:
        ValueError: If it names none.
    """
    if scope.tenant_id is None:
        raise ValueError("scope must name a tenant, got tenant_id=None")
    return scope.tenant_id


def check_ttl(ttl: timedelta | None) -> timedelta:
    """How long to keep a value for which `ttl` was asked.

    Raises:
        ValueError: If it is not positive.
    """
    return MAX_TTL if ttl is None else min(check_span("ttl", ttl), MAX_TTL)


def check_span(name: str, span: timedelta) -> timedelta:
    """`span`, if it is a time that lasts.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(span, timedelta) or span <= timedelta():  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{name} must be positive and a timedelta, got {span!r}")
    return span


def check_bound(name: str, bound: int) -> int:
    """`bound`, if it is a number that lets something in.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(bound, int) or isinstance(bound, bool) or bound < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{name} must be at least 1 and an int, got {bound!r}")
    return bound


def check_value(value: bytes) -> None:
    """Return when `value` is bytes.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(value, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"value must be bytes, got {type(value).__name__}")


class MemoryCache:
    """A `Cache` inside this process: the entries used last, up to a size.

    Each process has its own, and a forked one starts empty. What is erased in one process
    stays in the memory of others until its time is up: many processes share a Redis.

    Args:
        max_bytes: What keys and values may take together, overhead included.
        max_entries: Most entries.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        max_entries: int = MAX_ENTRIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_bytes = check_bound("max_bytes", max_bytes)
        self._max_entries = check_bound("max_entries", max_entries)
        self._clock = clock
        self._closed = False
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[Scope, str], tuple[bytes, float]] = OrderedDict()
        self._bytes = 0

    @brief
    def get(self, scope: Scope, key: str) -> bytes | None:
        """What was put under `key` for this very scope; None when it is not there."""
        check_scope(scope)
        with self._ready():
            entry = self._entries.get((scope, key))
            if entry is None:
                return None
            value, until = entry
            if self._clock() >= until:
                self._drop((scope, key))
                return None
            self._entries.move_to_end((scope, key))
            return value

    @brief
    def put(self, scope: Scope, key: str, value: bytes, *, ttl: timedelta | None = None) -> None:
        """Keep `value` for `ttl`, or for `MAX_TTL` without one; drop it where it is too large."""
        check_scope(scope)
        check_value(value)
        until = self._clock() + check_ttl(ttl).total_seconds()
        with self._ready():
            self._drop((scope, key))
            if len(value) > MAX_VALUE_BYTES or _size(key, value) > self._max_bytes:
                return
            self._entries[scope, key] = (value, until)
            self._bytes += _size(key, value)
            while self._bytes > self._max_bytes or len(self._entries) > self._max_entries:
                self._drop(next(iter(self._entries)))

    def forget(self, scope: Scope) -> int:
        """Erase what was put within `scope`; how many values there were."""
        check_scope(scope)
        with self._ready():
            now = self._clock()
            within = [place for place in self._entries if _is_within(place[0], scope)]
            alive = sum(now < self._entries[place][1] for place in within)
            for place in within:
                self._drop(place)
            return alive

    def close(self) -> None:
        """Empty it; again does nothing, any other call raises `StorageError`."""
        self._closed = True
        self._start()

    async def aget(self, scope: Scope, key: str) -> bytes | None:
        """`get` on an event loop."""
        return self.get(scope, key)

    async def aput(
        self, scope: Scope, key: str, value: bytes, *, ttl: timedelta | None = None
    ) -> None:
        """`put` on an event loop."""
        self.put(scope, key, value, ttl=ttl)

    async def aforget(self, scope: Scope) -> int:
        """`forget` on an event loop."""
        return self.forget(scope)

    async def aclose(self) -> None:
        """`close` on an event loop."""
        self.close()

    def _ready(self) -> threading.Lock:
        if self._pid != os.getpid():
            # A thread of the parent may have held the lock when this process was forked.
            self._start()
        if self._closed:
            raise StorageError("the cache is closed")
        return self._lock

    def _drop(self, place: tuple[Scope, str]) -> None:
        entry = self._entries.pop(place, None)
        if entry is not None:
            self._bytes -= _size(place[1], entry[0])


def _size(key: str, value: bytes) -> int:
    return len(key.encode()) + len(value) + ENTRY_BYTES


def _is_within(scope: Scope, wider: Scope) -> bool:
    return (
        scope.tenant_id == wider.tenant_id
        and wider.thread_id in {None, scope.thread_id}
        and wider.user_id in {None, scope.user_id}
    )
