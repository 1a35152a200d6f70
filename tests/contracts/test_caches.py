"""The caches keep the cache's contract."""

from __future__ import annotations

import time
import uuid

import pytest

from langchain_ctxmgr.storage.cache import MemoryCache
from langchain_ctxmgr.storage.redis_cache import RedisCache
from tests.contracts.cache import CacheContract
from tests.services import redis_url


class TestMemoryCache(CacheContract):
    @pytest.fixture
    def cache(self):
        self.now = 0.0
        return MemoryCache(clock=lambda: self.now)

    def pass_time(self, seconds):
        self.now += seconds


class TestRedisCache(CacheContract):
    @pytest.fixture
    def cache(self):
        url, prefix = redis_url(), f"ctxmgr-test-{uuid.uuid4().hex}"
        cache = RedisCache(url, prefix=prefix)
        yield cache
        cache.close()
        with RedisCache(url, prefix=prefix)._blocking() as client:
            for key in client.scan_iter(match=f"{prefix}:*", count=1_000):
                client.delete(key)

    def pass_time(self, seconds):
        time.sleep(seconds)
