"""The cache in Redis, for many processes.

An entry is a string of its own, so Redis itself ends it when its time is up. Its name is
made of digests alone: no text of a tenant stands in a key. Beside the entries each scope
has an index, a sorted set of entries by the instant they end, so that erasing costs what
the scope holds and not what the database holds. An entry is listed in the index of every
scope it is within (tenant, thread, user, both), and one script writes entry and indexes
together. All names of a tenant share a hash tag, hence one slot of a cluster.

Redis may be told to evict keys when memory is short, indexes too. Erasing then also scans
the database for the tenant's names: slower, but nothing is left.

A value carries a magic number, a version and a checksum over its name and itself. What
was damaged, written by another program or copied from another key is not an answer.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import AsyncGenerator
from datetime import timedelta
from hashlib import blake2b
from typing import Any, NamedTuple

import redis
from redis import asyncio as redis_asyncio
from redis import connection as redis_connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.cache import (
    MAX_TTL,
    MAX_VALUE_BYTES,
    check_bound,
    check_scope,
    check_span,
    check_ttl,
    check_value,
)

SCHEMA = 1
"""Part of every name: another layout of names or values never meets this one."""
TIMEOUT = timedelta(milliseconds=500)
"""How long to wait for a connection or an answer: beyond that, making a value anew is no
slower."""
MAX_TENANT_ENTRIES = 100_000
MAX_CONNECTIONS = 16
"""For each event loop, and for all threads together: more wait for one to be free."""
ERASE_STEP = 1_000
"""Entries erased in one script, some milliseconds: meanwhile Redis serves nobody else."""

_POOL: Any = redis.BlockingConnectionPool
_ASYNC_POOL: Any = redis_asyncio.BlockingConnectionPool
_CONNECTION: Any = redis_connection
"""redis-py leaves parts of these untyped."""

_MAGIC = b"ctxc" + bytes([SCHEMA])
_CHECKSUM_BYTES = 8
_ANY = "-"
_PREFIX = re.compile(r"[A-Za-z0-9._:-]{1,64}")

_REMOVE = """
local base = ARGV[1]
local function indexes(member)
  local thread, user = member:match('^([^.]+)%.([^.]+)%.')
  local all = {base .. 'i:-.-'}
  if not thread then return all end
  if thread ~= '-' then all[#all + 1] = base .. 'i:' .. thread .. '.-' end
  if user ~= '-' then all[#all + 1] = base .. 'i:-.' .. user end
  if thread ~= '-' and user ~= '-' then
    all[#all + 1] = base .. 'i:' .. thread .. '.' .. user
  end
  return all
end
local function remove(member)
  for _, index in ipairs(indexes(member)) do redis.call('ZREM', index, member) end
  return redis.call('UNLINK', base .. 'e:' .. member)
end
"""
_PUT = (
    _REMOVE
    + """
local member, value = ARGV[2], ARGV[3]
local ttl, longest, most = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', base .. 'e:' .. member, value, 'PX', ttl)
for _, index in ipairs(indexes(member)) do
  redis.call('ZREMRANGEBYSCORE', index, '-inf', string.format('(%.0f', now))
  redis.call('ZADD', index, string.format('%.0f', now + ttl), member)
  redis.call('PEXPIRE', index, longest)
end
local over = redis.call('ZCARD', base .. 'i:-.-') - most
if over > 0 then
  for _, first in ipairs(redis.call('ZRANGE', base .. 'i:-.-', 0, over - 1)) do remove(first) end
end
"""
)
_FORGET = (
    _REMOVE
    + """
local members = redis.call('ZRANGE', KEYS[1], 0, ARGV[2] - 1)
local removed = 0
for _, member in ipairs(members) do
  removed = removed + remove(member)
  redis.call('ZREM', KEYS[1], member)
end
return {#members, removed}
"""
)


class _Names(NamedTuple):
    """How the entries of a scope are called."""

    base: str
    """What every name of the tenant begins with."""
    thread: str
    user: str

    @property
    def listing(self) -> str:
        """The index of the scope."""
        return f"{self.base}i:{self.thread}.{self.user}"

    @property
    def pattern(self) -> str:
        """What matches the names of all that is within the scope."""
        if self.thread == self.user == _ANY:
            return f"{self.base}*"
        thread, user = (part.replace(_ANY, "*") for part in (self.thread, self.user))
        return f"{self.base}e:{thread}.{user}.*"

    def member(self, key: str) -> str:
        """What the indexes call the entry of `key`."""
        return f"{self.thread}.{self.user}.{_digest(key)}"


class RedisCache:
    """A `Cache` in Redis, shared by processes; connected at first use.

    Each event loop has a client of its own, closed when the loop ends. Connections that
    break are made anew; a process may fork.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`, with user, password and database
            where needed. Neither shows in `repr` or errors.
        prefix: What every key begins with: letters, digits and `._:-`.
        timeout: How long to wait for a connection, and for an answer.
        max_entries: Most entries of a tenant; those that end first make room.

    Raises:
        ValueError: If an argument is not what it must be.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "ctxmgr",
        timeout: timedelta = TIMEOUT,
        max_entries: int = MAX_TENANT_ENTRIES,
    ) -> None:
        seconds = check_span("timeout", timeout).total_seconds()
        if not isinstance(prefix, str) or _PREFIX.fullmatch(prefix) is None:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"prefix must be 1 to 64 letters, digits or ._:-, got {prefix!r}")
        self._where = _address(url)
        self._url = url
        self._prefix = prefix
        self._max_entries = check_bound("max_entries", max_entries)
        self._settings: dict[str, Any] = {
            "max_connections": MAX_CONNECTIONS,
            "timeout": seconds,
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
        }
        self._closed = False
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._opening = threading.Lock()
        self._client: Any = None
        self._loops: dict[asyncio.AbstractEventLoop, _LoopClient] = {}

    def __repr__(self) -> str:
        return f"RedisCache({self._where!r}, prefix={self._prefix!r})"

    def get(self, scope: Scope, key: str) -> bytes | None:
        """What was put under `key` for this very scope; None when it is not there."""
        name = self._entry(scope, key)
        found = self._ask("GET", name)
        value = _unframed(name, found)
        if found is not None and value is None:
            self._ask("UNLINK", name)
        return value

    async def aget(self, scope: Scope, key: str) -> bytes | None:
        """`get` on an event loop."""
        name = self._entry(scope, key)
        found = await self._aask("GET", name)
        value = _unframed(name, found)
        if found is not None and value is None:
            await self._aask("UNLINK", name)
        return value

    def put(self, scope: Scope, key: str, value: bytes, *, ttl: timedelta | None = None) -> None:
        """Keep `value` for `ttl`, or for `MAX_TTL` without one; drop it where it is too large."""
        self._ask(*self._putting(scope, key, value, ttl))

    async def aput(
        self, scope: Scope, key: str, value: bytes, *, ttl: timedelta | None = None
    ) -> None:
        """`put` on an event loop."""
        await self._aask(*self._putting(scope, key, value, ttl))

    def forget(self, scope: Scope) -> int:
        """Erase what was put within `scope`; how many values there were."""
        names = self._names(scope)
        count, step = 0, ERASE_STEP
        while step:
            step, removed = self._ask(*_erasing(names))
            count += removed
        if _evicts(self._ask("INFO", "memory")):
            cursor = -1
            while cursor:
                cursor, found = self._ask("SCAN", max(cursor, 0), *_matching(names))
                count += self._ask("UNLINK", *found) if found else 0
        return count

    async def aforget(self, scope: Scope) -> int:
        """`forget` on an event loop."""
        names = self._names(scope)
        count, step = 0, ERASE_STEP
        while step:
            step, removed = await self._aask(*_erasing(names))
            count += removed
        if _evicts(await self._aask("INFO", "memory")):
            cursor = -1
            while cursor:
                cursor, found = await self._aask("SCAN", max(cursor, 0), *_matching(names))
                count += await self._aask("UNLINK", *found) if found else 0
        return count

    def close(self) -> None:
        """Release it; again does nothing, any other call raises `StorageError`.

        Connections of an event loop are closed by `aclose` there, or as the loop ends.
        """
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """`close` on an event loop."""
        self.close()
        opened = self._loops.pop(asyncio.get_running_loop(), None)
        if opened is not None and self._pid == os.getpid():
            await opened.life.aclose()

    def _ask(self, *command: Any) -> Any:
        try:
            return self._blocking().execute_command(*command)
        except (redis.RedisError, OSError) as error:
            return self._unanswered(command[0], error)

    async def _aask(self, *command: Any) -> Any:
        try:
            client = await self._on_loop()
            return await client.execute_command(*command)
        except (redis.RedisError, OSError) as error:
            return self._unanswered(command[0], error)

    def _unanswered(self, asked: str, error: Exception) -> bytes:
        """What GET answers where the key holds another program's list or set: no value of ours.

        Raises:
            StorageError: For any other `error`.
        """
        if asked == "GET" and str(error).startswith("WRONGTYPE"):
            return b""
        raise StorageError(
            f"the cache at {self._where} does not answer as asked: {type(error).__name__}: {error}"
        ) from error

    def _blocking(self) -> Any:
        self._ready()
        with self._opening:
            if self._client is None:
                pool = _POOL.from_url(
                    self._url,
                    retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),
                    **self._settings,
                )
                self._client = redis.Redis.from_pool(pool)
            return self._client

    async def _on_loop(self) -> Any:
        self._ready()
        loop = asyncio.get_running_loop()
        opened = self._loops.get(loop)
        if opened is None:
            for other in [other for other in self._loops if other.is_closed()]:
                self._loops.pop(other, None)
            pool = _ASYNC_POOL.from_url(
                self._url,
                retry=AsyncRetry(NoBackoff(), 1, (redis.ConnectionError,)),
                **self._settings,
            )
            client = redis_asyncio.Redis.from_pool(pool)
            opened = self._loops[loop] = _LoopClient(client, _life(client))
            await anext(opened.life)
        return opened.client

    def _ready(self) -> None:
        if self._closed:
            raise StorageError("the cache is closed")
        if self._pid != os.getpid():
            # Closing or freeing what the parent's loops own would take it out of their
            # selectors, which the processes share: the child leaves it be.
            _INHERITED.append((self._client, self._loops))
            self._start()

    def _names(self, scope: Scope) -> _Names:
        tenant = _digest(check_scope(scope))
        return _Names(
            base=f"{self._prefix}:{SCHEMA}:{{{tenant}}}:",
            thread=_ANY if scope.thread_id is None else _digest(scope.thread_id),
            user=_ANY if scope.user_id is None else _digest(scope.user_id),
        )

    def _entry(self, scope: Scope, key: str) -> str:
        names = self._names(scope)
        return f"{names.base}e:{names.member(key)}"

    def _putting(
        self, scope: Scope, key: str, value: bytes, ttl: timedelta | None
    ) -> tuple[str | int | bytes, ...]:
        check_value(value)
        names = self._names(scope)
        member = names.member(key)
        name = f"{names.base}e:{member}"
        kept = _milliseconds(check_ttl(ttl))
        if len(value) > MAX_VALUE_BYTES:
            return ("UNLINK", name)
        keys = ("EVAL", _PUT, 1, names.listing)
        framed = _framed(name, value)
        longest = _milliseconds(MAX_TTL)
        return (*keys, names.base, member, framed, kept, longest, self._max_entries)


class _LoopClient(NamedTuple):
    """What serves one event loop."""

    client: Any
    life: AsyncGenerator[None, None]


_INHERITED: list[object] = []


async def _life(client: Any) -> AsyncGenerator[None, None]:
    """Closes `client` when its loop ends: `asyncio.run` finishes open generators then."""
    try:
        yield
    finally:
        await client.aclose()


def _erasing(names: _Names) -> tuple[str | int, ...]:
    return ("EVAL", _FORGET, 1, names.listing, names.base, ERASE_STEP)


def _matching(names: _Names) -> tuple[str | int, ...]:
    return ("MATCH", names.pattern, "COUNT", ERASE_STEP)


def _evicts(memory: dict[str, Any]) -> bool:
    """Whether Redis may have dropped an index to make room."""
    return bool(memory["maxmemory"]) and memory["maxmemory_policy"] != "noeviction"


def _framed(name: str, value: bytes) -> bytes:
    return _MAGIC + _checksum(name, value) + value


def _unframed(name: str, framed: bytes | None) -> bytes | None:
    """The value that was put under `name`, None for anything else."""
    head = len(_MAGIC) + _CHECKSUM_BYTES
    if framed is None or framed[: len(_MAGIC)] != _MAGIC:
        return None
    value = framed[head:]
    return value if framed[len(_MAGIC) : head] == _checksum(name, value) else None


def _checksum(name: str, value: bytes) -> bytes:
    own = blake2b(name.encode(), digest_size=32).digest()
    return blake2b(value, key=own, digest_size=_CHECKSUM_BYTES).digest()


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _milliseconds(span: timedelta) -> int:
    return max(1, span // timedelta(milliseconds=1))


def _address(url: str) -> str:
    """Where `url` leads, without user and password.

    Raises:
        ValueError: If it cannot be read. The message does not show it: it may hold a password.
    """
    scheme = url.partition("://")[0] if isinstance(url, str) else ""  # pyright: ignore[reportUnnecessaryIsInstance]
    if scheme not in {"redis", "rediss", "unix"} or "://" not in url:
        raise ValueError("the cache's URL must begin with redis://, rediss:// or unix://")
    try:
        parts: dict[str, Any] = _CONNECTION.parse_url(url)
    except ValueError:
        raise ValueError(
            f"the cache's URL ({scheme}://…) cannot be read: check host, port and options, and "
            "write special characters of a password as %XX"
        ) from None
    if scheme == "unix":
        return f"unix://{parts.get('path', '')}"
    host, port = parts.get("host", "localhost"), parts.get("port", 6379)
    return f"{scheme}://{host}:{port}/{parts.get('db', 0)}"
