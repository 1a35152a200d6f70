"""A Redis of the test's own: stopped, paused, out of memory, written to by others."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from datetime import timedelta

import pytest
import redis
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import HumanMessage

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.events import Degraded, Event
from langchain_ctxmgr.memory import breaker
from langchain_ctxmgr.storage.cache import MAX_TTL, MemoryCache
from langchain_ctxmgr.storage.redis_cache import RedisCache
from tests.services import OwnRedis, free_port

ACME = Scope(tenant_id="acme-canary")
THREAD = Scope(tenant_id="acme-canary", thread_id="thread-canary", user_id="user-canary")
HOUR = timedelta(hours=1)


@pytest.fixture
def server(tmp_path):
    server = OwnRedis(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def cache(server):
    with_server = RedisCache(server.url, timeout=timedelta(milliseconds=300))
    yield with_server
    with_server.close()


@pytest.fixture
def raw(server):
    with redis.Redis.from_url(server.url) as client:
        yield client


def names(raw) -> list[bytes]:
    return sorted(raw.scan_iter())


class TestFailures:
    def test_a_paused_server_is_an_error_while_it_is_paused_and_then_answers(self, server, cache):
        cache.put(THREAD, "k", b"v")
        server.pause()
        for use in (lambda: cache.get(THREAD, "k"), lambda: cache.forget(ACME)):
            with pytest.raises(StorageError, match="does not answer"):
                use()
        server.resume()
        assert cache.get(THREAD, "k") == b"v"

    async def test_a_paused_server_holds_up_no_task(self, server, cache):
        await cache.aput(THREAD, "k", b"v")
        server.pause()
        calls = [cache.aget(THREAD, "k") for _ in range(40)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(answer, StorageError) for answer in answers)
        server.resume()
        assert await cache.aget(THREAD, "k") == b"v"

    async def test_a_killed_server_is_an_error_and_a_restarted_one_serves(self, server, cache):
        cache.put(THREAD, "k", b"v")
        await cache.aput(THREAD, "k", b"v")
        server.kill()
        with pytest.raises(StorageError, match="does not answer"):
            cache.get(THREAD, "k")
        with pytest.raises(StorageError, match="does not answer"):
            await cache.aforget(ACME)
        server.start()
        assert cache.get(THREAD, "k") is None
        cache.put(THREAD, "k", b"again")
        assert await cache.aget(THREAD, "k") == b"again"

    def test_a_restart_between_two_calls_is_not_noticed(self, server, cache):
        cache.put(THREAD, "k", b"v")
        server.kill()
        server.start()
        assert cache.get(THREAD, "k") is None
        cache.put(THREAD, "k", b"v")
        assert cache.get(THREAD, "k") == b"v"

    def test_a_password_never_shows(self, tmp_path):
        server = OwnRedis(tmp_path, "--requirepass", "right")
        try:
            cache = RedisCache(f"redis://:hunter2@127.0.0.1:{server.port}/0")
            with pytest.raises(StorageError) as refused:
                cache.get(THREAD, "k")
            shown = f"{cache!r} {refused.value} {refused.value.__cause__!r}"
            assert "hunter2" not in shown
            assert str(server.port) in shown
            cache.close()
            with RedisCache(f"redis://:right@127.0.0.1:{server.port}/0")._blocking() as client:
                assert client.ping()
        finally:
            server.kill()


class TestConstruction:
    def test_the_constructor_touches_no_network(self):
        assert repr(RedisCache("rediss://u:secret@nowhere.invalid:1/3")) == (
            "RedisCache('rediss://nowhere.invalid:1/3', prefix='ctxmgr')"
        )

    @pytest.mark.parametrize(
        "url",
        [
            "http://h:secret@x",
            "secret",
            b"secret",
            "redis://u:se/secret@h:1",
            "redis://h:port-secret",
        ],
    )
    def test_a_url_that_cannot_be_read_is_an_error_that_does_not_show_it(self, url):
        with pytest.raises(ValueError, match="the cache's URL") as wrong:
            RedisCache(url)
        assert "secret" not in str(wrong.value)
        assert wrong.value.__suppress_context__ or wrong.value.__context__ is None

    def test_redis_is_imported_by_who_asks_for_it(self):
        code = (
            "import sys; import langchain_ctxmgr.manager;"
            "from langchain_ctxmgr.parts import cache_from; cache_from(None);"
            "assert 'redis' not in sys.modules; cache_from('unix:///x'); assert 'redis' in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("timeout", 0),
            ("timeout", timedelta()),
            ("timeout", None),
            ("max_entries", "x"),
            ("max_entries", 0),
            ("prefix", 7),
        ],
    )
    def test_a_wrong_setting_is_named(self, name, value):
        with pytest.raises(ValueError, match=f"^{name} must be .*, got {re.escape(repr(value))}"):
            RedisCache("redis://h", **{name: value})

    @pytest.mark.parametrize("prefix", ["", "a*b", "{a}", "x" * 65, None])
    def test_a_prefix_that_could_match_other_names_is_an_error(self, prefix):
        with pytest.raises(ValueError, match="prefix must be"):
            RedisCache("redis://h", prefix=prefix)


class TestWhatIsStored:
    def test_no_text_stands_in_a_name_and_everything_ends(self, cache, raw):
        cache.put(THREAD, "key-canary", b"v")
        cache.put(ACME, "other", b"v", ttl=HOUR)
        longest = MAX_TTL // timedelta(milliseconds=1)
        assert len(names(raw)) == 6
        for name in names(raw):
            assert b"canary" not in name
            assert 0 < raw.pttl(name) <= longest

    def test_a_damaged_foreign_or_moved_value_is_a_miss_and_is_removed(self, cache, raw):
        cache.put(THREAD, "k", b"value")
        (name,) = (name for name in names(raw) if b":e:" in name)
        whole = raw.get(name)
        cache.put(ACME, "k", b"of another scope")
        (moved,) = (raw.get(n) for n in names(raw) if b":e:-" in n)
        damaged = whole[:-1] + bytes([whole[-1] ^ 1])
        for wrong in (damaged, whole[:8], b"", b"\x80\x04pickle", b"ctxc\x02" + whole[5:], moved):
            raw.set(name, wrong)
            assert cache.get(THREAD, "k") is None
            assert not raw.exists(name)
        raw.rpush(name, "a list")
        assert asyncio.run(cache.aget(THREAD, "k")) is None
        assert not raw.exists(name)

    def test_nothing_of_a_tenant_is_left(self, cache, raw):
        raw.set("another program's", "v")
        for number in range(30):
            cache.put(Scope(tenant_id="acme-canary", thread_id=f"t{number % 7}"), "k", b"v")
            cache.put(Scope(tenant_id="acme-canary", user_id=f"u{number}"), "k", b"v")
        assert cache.forget(ACME) == 37
        assert names(raw) == [b"another program's"]

    def test_erasing_does_not_scan_the_database(self, cache, raw):
        cache.put(THREAD, "k", b"v")
        raw.config_resetstat()
        assert cache.forget(THREAD) == 1
        used = set(raw.info("commandstats"))
        assert not used & {"cmdstat_scan", "cmdstat_keys"}

    def test_what_lost_its_index_to_eviction_is_erased_too(self, cache, raw):
        raw.config_set("maxmemory", 100_000_000)
        raw.config_set("maxmemory-policy", "allkeys-lru")
        for thread in ("one", "two"):
            cache.put(Scope(tenant_id="acme-canary", thread_id=thread), "k", b"v")
        for name in names(raw):
            if b":i:" in name:
                raw.delete(name)
        assert cache.forget(Scope(tenant_id="acme-canary", thread_id="one")) == 1
        assert len(names(raw)) == 1
        assert asyncio.run(cache.aforget(ACME)) == 1
        assert names(raw) == []

    def test_indexes_forget_what_has_ended(self, cache, raw):
        for number in range(5):
            cache.put(ACME, str(number), b"v", ttl=timedelta(milliseconds=20))
        time.sleep(0.05)
        cache.put(ACME, "last", b"v")
        (index,) = (name for name in names(raw) if b":i:" in name)
        assert raw.zcard(index) == 1

    def test_a_tenant_keeps_so_many_entries_and_no_more(self, server, raw):
        cache = RedisCache(server.url, max_entries=3)
        for number in range(6):
            cache.put(ACME, str(number), b"v", ttl=timedelta(hours=1 + number))
        cache.put(Scope(tenant_id="globex"), "k", b"v")
        kept = [number for number in range(6) if cache.get(ACME, str(number)) is not None]
        assert kept == [3, 4, 5]
        assert cache.get(Scope(tenant_id="globex"), "k") == b"v"
        cache.close()

    def test_a_cluster_takes_it(self, tmp_path):
        server = OwnRedis(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
        try:
            with redis.Redis.from_url(server.url) as raw:
                raw.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                deadline = time.monotonic() + 30
                while raw.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                cache = RedisCache(server.url)
                cache.put(THREAD, "k", b"v")
                assert cache.get(THREAD, "k") == b"v"
                assert cache.forget(ACME) == 1
                cache.close()
        finally:
            server.kill()


class TestManager:
    def manager(self, cache, events: list[Event]) -> ContextManager:
        model = DeterministicFakeEmbedding(size=8)
        return ContextManager.open(
            None, embeddings=model, cache=cache, listeners=[events.append], model="gpt-4o-mini"
        )

    def test_a_question_is_kept_and_erased_with_its_thread(self, server, raw):
        with self.manager(server.url, []) as manager:
            manager.record(HumanMessage("The key is under the mat."), scope=THREAD)
            for _ in range(3):
                manager.recall("Where is the key?", scope=THREAD)
            figures = manager.stats()["cache"]
            assert figures == {"hits": 2, "misses": 1, "hit_ratio": 2 / 3}
            assert names(raw)
            manager.forget(scope=Scope(tenant_id="acme-canary", thread_id="thread-canary"))
            assert names(raw) == []

    async def test_turns_go_on_while_redis_is_down_and_erasing_fails(self, server, monkeypatch):
        events: list[Event] = []
        async with self.manager(server.url, events) as manager:
            await manager.arecord(HumanMessage("The key is under the mat."), scope=THREAD)
            server.kill()
            for _ in range(2):
                assert await manager.arecall("Where is the key?", scope=THREAD)
            told = [event.part for event in events if isinstance(event, Degraded)]
            assert told == ["cache"]
            with pytest.raises(StorageError, match="does not answer"):
                await manager.aforget(scope=ACME)
            server.start()
            assert (await manager.aforget(scope=ACME)).messages == 0
            await manager.arecord(HumanMessage("The key is under the mat."), scope=THREAD)
            monkeypatch.setattr(breaker, "REST_SECONDS", 0.0)
            manager._cached._breaker.failed(StorageError("made to rest for no time"))
            for _ in range(2):
                assert await manager.arecall("Where is the key?", scope=THREAD)
            assert manager.stats()["cache"]["hits"] == 1

    def test_a_cache_that_was_given_is_left_open(self):
        given = MemoryCache()
        with self.manager(given, []):
            pass
        given.put(ACME, "k", b"v")
        assert given.get(ACME, "k") == b"v"
