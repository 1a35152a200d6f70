"""What is costly to make is asked of the cache first.

A cache is best effort: while it is down everything is made anew, and its failure is told
once. Erasing from it is not, and raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.events import Listener
from langchain_ctxmgr.memory.breaker import Breaker
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.cache import Cache


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """How often the cache had what was asked for."""

    hits: int
    misses: int

    @property
    def hit_ratio(self) -> float:
        """Share of hits, 0 to 1; 0 before anything was asked."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


class Cached:
    """Values from `cache`, or made where it has none.

    Args:
        cache: Where values are kept.
        listeners: Told once for each run of failures.
    """

    def __init__(self, cache: Cache, *, listeners: tuple[Listener, ...] = ()) -> None:
        self._cache = cache
        self._breaker = Breaker("cache", "making the value again", listeners)
        self._hits = 0
        self._misses = 0
        self._erasures = 0

    @property
    def stats(self) -> CacheStats:
        """Hits and misses so far; a cache that is down misses."""
        return CacheStats(hits=self._hits, misses=self._misses)

    def value(
        self, scope: Scope, key: str, make: Callable[[], Plan[bytes]], *, ttl: timedelta
    ) -> Plan[bytes]:
        """What is kept under `key`, or what `make` gives, kept for `ttl` from then on.

        What `make` raises passes through, and nothing is kept.
        """
        erasures = self._erasures
        kept = yield from self._get(scope, key)
        if kept is not None:
            self._hits += 1
            return kept
        self._misses += 1
        made = yield from make()
        yield from self._keep(scope, key, made, ttl, erasures)
        return made

    def put(self, scope: Scope, key: str, value: bytes, *, ttl: timedelta) -> Plan[None]:
        """Keep `value` under `key` for `ttl`, in place of what is kept there."""
        yield from self._keep(scope, key, value, ttl, self._erasures)

    def erase(self, scope: Scope) -> Plan[int]:
        """Erase what is kept within `scope`; how many values. Never degrades."""
        self._erasures += 1
        return (yield from call(self._cache.forget, scope))

    def _keep(
        self, scope: Scope, key: str, value: bytes, ttl: timedelta, erasures: int
    ) -> Plan[None]:
        is_kept = yield from self._put(scope, key, value, ttl)
        if is_kept and self._erasures != erasures:
            # Something was erased while this value was made of it, perhaps: it goes too.
            yield from call(self._cache.forget, scope)

    def _get(self, scope: Scope, key: str) -> Plan[bytes | None]:
        """The boundary for reading: any failure is a miss."""
        if not self._breaker.is_closed:
            return None
        try:
            kept = yield from call(self._cache.get, scope, key)
        except Exception as error:  # noqa: BLE001 - any cache may be behind it
            self._breaker.failed(error)
            return None
        self._breaker.worked()
        return kept

    def _put(self, scope: Scope, key: str, value: bytes, ttl: timedelta) -> Plan[bool]:
        """The boundary for writing: after a failure the value is made again next time."""
        if not self._breaker.is_closed:
            return False
        try:
            yield from call(self._cache.put, scope, key, value, ttl=ttl)
        except Exception as error:  # noqa: BLE001 - any cache may be behind it
            self._breaker.failed(error)
            return False
        return True
