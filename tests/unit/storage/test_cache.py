"""The cache inside the process stays within its bounds."""

from __future__ import annotations

from datetime import timedelta

import pytest

from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.cache import ENTRY_BYTES, MAX_TTL, MemoryCache

SCOPE = Scope(tenant_id="acme")


class TestMemoryCache:
    def test_what_was_used_last_stays(self):
        cache = MemoryCache(max_entries=3)
        for key in "abc":
            cache.put(SCOPE, key, b"v")
        cache.get(SCOPE, "a")
        cache.put(SCOPE, "d", b"v")
        assert [key for key in "abcd" if cache.get(SCOPE, key)] == ["a", "c", "d"]

    def test_bytes_are_bounded_whatever_is_put_replaced_and_erased(self):
        cache = MemoryCache(max_bytes=4 * (ENTRY_BYTES + 101))
        for turn in range(5):
            for key in "abcdef":
                cache.put(SCOPE, key, bytes(100))
            assert [key for key in "abcdef" if cache.get(SCOPE, key)] == [*"cdef"]
            cache.put(SCOPE, "f", bytes(50 + turn))
            assert cache.forget(SCOPE) == 4
        assert cache._bytes == 0

    def test_nothing_is_kept_longer_than_the_longest_time(self):
        now = [0.0]
        cache = MemoryCache(clock=lambda: now[0])
        cache.put(SCOPE, "k", b"v", ttl=timedelta(days=3_650))
        now[0] = MAX_TTL.total_seconds()
        assert cache.get(SCOPE, "k") is None

    @pytest.mark.parametrize("bound", ["max_bytes", "max_entries"])
    @pytest.mark.parametrize("value", [0, "x", None, 1.5, True])
    def test_a_bound_of_nothing_is_an_error(self, bound, value):
        with pytest.raises(
            ValueError, match=f"{bound} must be at least 1 and an int, got {value!r}"
        ):
            MemoryCache(**{bound: value})
