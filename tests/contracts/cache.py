"""What every cache must do, blocking and on an event loop."""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.cache import MAX_VALUE_BYTES, Cache

ALICE = Scope(tenant_id="acme", thread_id="t1", user_id="alice")
BOB = Scope(tenant_id="acme", thread_id="t2", user_id="bob")
OTHER = Scope(tenant_id="globex", thread_id="t1", user_id="alice")
HOUR = timedelta(hours=1)


class CacheContract:
    """Subclass with a `cache` fixture and `pass_time`."""

    @pytest.fixture
    def cache(self) -> Iterator[Cache]:
        raise NotImplementedError

    def pass_time(self, seconds: float) -> None:
        """Let time go by for the cache."""
        raise NotImplementedError

    # Keeping

    @pytest.mark.parametrize("value", [b"", b"x", bytes(range(256)), b"a" * 100_000])
    def test_what_is_put_is_got(self, cache, value):
        assert cache.get(ALICE, "k") is None
        cache.put(ALICE, "k", value, ttl=HOUR)
        assert cache.get(ALICE, "k") == value

    async def test_what_is_put_is_got_on_an_event_loop(self, cache):
        assert await cache.aget(ALICE, "k") is None
        await cache.aput(ALICE, "k", b"v", ttl=HOUR)
        assert await cache.aget(ALICE, "k") == b"v"
        assert await asyncio.to_thread(cache.get, ALICE, "k") == b"v"

    @pytest.mark.parametrize("key", ["", "ключ 🔑", "a:b*{c}\n", "k" * 5_000])
    def test_a_key_is_any_text(self, cache, key):
        cache.put(ALICE, key, b"v")
        assert cache.get(ALICE, key) == b"v"
        assert cache.get(ALICE, key + " ") is None

    def test_the_last_value_put_is_the_one_got(self, cache):
        cache.put(ALICE, "k", b"one", ttl=HOUR)
        cache.put(ALICE, "k", b"two", ttl=HOUR)
        assert cache.get(ALICE, "k") == b"two"

    def test_a_value_ends_with_its_time(self, cache):
        cache.put(ALICE, "short", b"v", ttl=timedelta(milliseconds=40))
        cache.put(ALICE, "long", b"v", ttl=HOUR)
        cache.put(ALICE, "without", b"v")
        self.pass_time(0.06)
        assert cache.get(ALICE, "short") is None
        assert cache.get(ALICE, "long") == b"v"
        assert cache.get(ALICE, "without") == b"v"

    def test_what_has_ended_is_not_counted_as_erased(self, cache):
        cache.put(ALICE, "short", b"v", ttl=timedelta(milliseconds=40))
        self.pass_time(0.06)
        assert cache.forget(ALICE) == 0

    def test_a_value_too_large_is_not_kept_and_drops_the_one_before(self, cache):
        cache.put(ALICE, "k", b"small")
        cache.put(ALICE, "k", bytes(MAX_VALUE_BYTES + 1))
        assert cache.get(ALICE, "k") is None
        cache.put(ALICE, "k", bytes(MAX_VALUE_BYTES))
        assert cache.get(ALICE, "k") == bytes(MAX_VALUE_BYTES)

    # Whose

    def test_a_value_is_found_under_its_very_scope_alone(self, cache):
        cache.put(ALICE, "k", b"alice")
        for scope in (
            BOB,
            OTHER,
            Scope(tenant_id="acme"),
            Scope(tenant_id="acme", thread_id="t1"),
            Scope(tenant_id="acme", user_id="alice"),
            Scope(tenant_id="acme", thread_id="alice", user_id="t1"),
        ):
            assert cache.get(scope, "k") is None

    def test_names_made_to_look_like_others_stay_apart(self, cache):
        scopes = [
            Scope(tenant_id=tenant, thread_id=thread)
            for tenant in ("a", "a:b", "a}", "*", "-")
            for thread in (None, "b", "-", "*", "a:b", "b.-")
        ]
        for number, scope in enumerate(scopes):
            cache.put(scope, "k", str(number).encode())
        for number, scope in enumerate(scopes):
            assert cache.get(scope, "k") == str(number).encode()

    def test_no_value_crosses_between_tenants_in_any_run(self, cache):
        draw = random.Random(7)
        kept: dict[tuple[Scope, str], bytes] = {}
        scopes = [ALICE, BOB, OTHER, Scope(tenant_id="acme"), Scope(tenant_id="globex")]
        for number in range(600):
            scope, key = draw.choice(scopes), f"k{draw.randrange(6)}"
            match draw.randrange(8):
                case 0:
                    gone = [place for place in kept if within(place[0], scope)]
                    assert cache.forget(scope) == len(gone)
                    for place in gone:
                        del kept[place]
                case 1 | 2 | 3:
                    kept[scope, key] = f"{scope}/{number}".encode()
                    cache.put(scope, key, kept[scope, key])
                case _:
                    assert cache.get(scope, key) == kept.get((scope, key))

    # Erasing

    def test_a_thread_is_erased_and_the_others_stay(self, cache):
        for scope in (ALICE, BOB, OTHER):
            for key in ("one", "two"):
                cache.put(scope, key, b"v", ttl=HOUR)
        cache.put(Scope(tenant_id="acme", thread_id="t1"), "one", b"v")
        assert cache.forget(Scope(tenant_id="acme", thread_id="t1")) == 3
        assert cache.get(ALICE, "one") is None
        assert cache.get(BOB, "one") == b"v"
        assert cache.get(OTHER, "two") == b"v"
        assert cache.forget(Scope(tenant_id="acme", thread_id="t1")) == 0

    def test_a_user_is_erased_in_every_thread(self, cache):
        elsewhere = Scope(tenant_id="acme", thread_id="t2", user_id="alice")
        for scope in (ALICE, BOB, elsewhere):
            cache.put(scope, "k", b"v")
        assert cache.forget(Scope(tenant_id="acme", user_id="alice")) == 2
        assert cache.get(elsewhere, "k") is None
        assert cache.get(BOB, "k") == b"v"

    def test_a_tenant_is_erased_with_all_its_threads(self, cache):
        for scope in (ALICE, BOB, OTHER, Scope(tenant_id="acme")):
            cache.put(scope, "k", b"v")
        assert cache.forget(Scope(tenant_id="acme")) == 3
        assert cache.get(OTHER, "k") == b"v"
        assert [cache.get(scope, "k") for scope in (ALICE, BOB)] == [None, None]

    def test_thousands_are_erased(self, cache):
        for number in range(2_500):
            cache.put(ALICE, str(number), b"v")
        assert cache.forget(Scope(tenant_id="acme")) == 2_500
        assert cache.forget(Scope(tenant_id="acme")) == 0

    async def test_erasing_on_an_event_loop(self, cache):
        for scope in (ALICE, BOB):
            await cache.aput(scope, "k", b"v")
        assert await cache.aforget(Scope(tenant_id="acme")) == 2
        assert await cache.aget(ALICE, "k") is None

    def test_what_was_erased_can_be_kept_again(self, cache):
        cache.put(ALICE, "k", b"old")
        cache.forget(ALICE)
        cache.put(ALICE, "k", b"new")
        assert cache.get(ALICE, "k") == b"new"
        assert cache.forget(Scope(tenant_id="acme")) == 1

    # Wrong use

    async def test_a_scope_without_a_tenant_is_an_error(self, cache):
        nobody = Scope(thread_id="t1")
        for use in (
            lambda: cache.get(nobody, "k"),
            lambda: cache.put(nobody, "k", b"v"),
            lambda: cache.forget(nobody),
        ):
            with pytest.raises(ValueError, match="tenant_id"):
                use()
        for use in (
            lambda: cache.aget(nobody, "k"),
            lambda: cache.aput(nobody, "k", b"v"),
            lambda: cache.aforget(nobody),
        ):
            with pytest.raises(ValueError, match="tenant_id"):
                await use()

    @pytest.mark.parametrize("ttl", [timedelta(), timedelta(seconds=-1), 5, "1"])
    def test_a_time_that_is_over_is_an_error(self, cache, ttl):
        with pytest.raises(ValueError, match="ttl must be positive"):
            cache.put(ALICE, "k", b"v", ttl=ttl)

    @pytest.mark.parametrize("value", ["text", None, 1, [b"v"]])
    def test_a_value_that_is_not_bytes_is_an_error(self, cache, value):
        with pytest.raises(ValueError, match="value must be bytes"):
            cache.put(ALICE, "k", value)

    async def test_use_after_close_says_so_and_closing_twice_is_fine(self, cache):
        await cache.aput(ALICE, "k", b"v")
        await cache.aclose()
        await cache.aclose()
        cache.close()
        for use in (cache.get, cache.forget):
            with pytest.raises(StorageError, match="closed"):
                use(*((ALICE, "k") if use == cache.get else (ALICE,)))
        with pytest.raises(StorageError, match="closed"):
            await cache.aput(ALICE, "k", b"v")

    # Sharing

    def test_threads_share_it(self, cache):
        wrong: list[object] = []

        def work(worker: int) -> None:
            for number in range(50):
                key, value = f"{worker}-{number % 5}", f"{worker}-{number}".encode()
                cache.put(ALICE, key, value)
                if cache.get(ALICE, key) != value:
                    wrong.append(value)

        workers = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not wrong
        assert cache.forget(ALICE) == 40

    async def test_tasks_share_it(self, cache):
        async def work(worker: int) -> None:
            for number in range(20):
                value = f"{worker}-{number}".encode()
                await cache.aput(ALICE, str(worker), value)
                assert await cache.aget(ALICE, str(worker)) == value

        await asyncio.gather(*(work(n) for n in range(20)))
        assert await cache.aforget(ALICE) == 20

    def test_event_loops_share_it(self, cache):
        async def work(number: int) -> bytes | None:
            await cache.aput(ALICE, str(number), b"v")
            return await cache.aget(ALICE, str(max(number - 1, 0)))

        for number in range(4):
            assert asyncio.run(work(number)) == b"v"
        found: list[bytes | None] = []
        loops = [
            threading.Thread(target=lambda n=n: found.append(asyncio.run(work(n))))
            for n in range(1, 5)
        ]
        for loop in loops:
            loop.start()
        for loop in loops:
            loop.join()
        assert found == [b"v"] * 4

    async def test_a_cancelled_call_leaves_the_others_their_own_answers(self, cache):
        for number in range(8):
            await cache.aput(ALICE, str(number), str(number).encode())
        for turn in range(40):
            calls = [asyncio.create_task(cache.aget(ALICE, str(n))) for n in range(8)]
            await asyncio.sleep(0.0002 * (turn % 4))
            calls[turn % 8].cancel()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            for number, answer in enumerate(answers):
                assert isinstance(answer, asyncio.CancelledError) or answer == b"%d" % number

    @pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
    def test_a_forked_child_uses_it_and_so_does_its_parent(self, cache):
        async def both() -> None:
            await cache.aput(ALICE, "k", b"parent")
            child = os.fork()
            if child == 0:
                os._exit(in_child(cache))
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert await cache.aget(ALICE, "k") == b"parent"

        cache.put(ALICE, "k", b"parent")
        asyncio.run(both())
        assert cache.get(ALICE, "k") == b"parent"

    def test_every_method_has_a_twin_with_the_same_arguments(self, cache):
        names = {name for name in vars(Cache) if not name.startswith("_")}
        assert names == {
            *("get", "put", "forget", "close"),
            *("aget", "aput", "aforget", "aclose"),
        }
        for name in ("get", "put", "forget", "close"):
            method, twin = getattr(cache, name), getattr(cache, f"a{name}")
            assert inspect.signature(method).parameters == inspect.signature(twin).parameters


def within(scope: Scope, wider: Scope) -> bool:
    return scope.tenant_id == wider.tenant_id and wider.thread_id in {None, scope.thread_id}


def in_child(cache: Cache) -> int:
    """What a forked process does with its parent's cache; 0 when all of it works."""
    try:
        cache.put(ALICE, "child", b"child")
        if cache.get(ALICE, "child") != b"child":
            return 1
        own = asyncio.new_event_loop()
        asyncio._set_running_loop(None)
        return int(own.run_until_complete(cache.aget(ALICE, "child")) != b"child")
    except BaseException:  # noqa: BLE001 - told to the parent by the exit code
        return 2
