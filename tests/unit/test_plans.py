from __future__ import annotations

import asyncio
import inspect
import threading

import pytest

from langchain_ctxmgr._plans import Plan, arun, brief, call, gather, run


class Store:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def get(self, key: str) -> str:
        self.calls.append(f"get {key}")
        return key.upper()

    async def aget(self, key: str) -> str:
        await asyncio.sleep(0)
        self.calls.append(f"aget {key}")
        return key.upper()

    def size(self) -> int:
        return len(self.calls)

    def fail(self) -> None:
        raise KeyError("gone")

    async def afail(self) -> None:
        raise KeyError("gone")


def both(store: Store) -> Plan[tuple[str, int]]:
    value = yield from call(store.get, "a")
    return value, (yield from call(store.size))


class TestPlans:
    def test_a_blocking_run_uses_the_blocking_method(self):
        store = Store()
        assert run(both(store)) == ("A", 1)
        assert store.calls == ["get a"]

    async def test_an_async_run_uses_the_async_twin(self):
        store = Store()
        assert await arun(both(store)) == ("A", 1)
        assert store.calls == ["aget a"]

    async def test_brief_calls_are_made_in_the_thread_that_the_plan_is_in(self):
        threads: list[tuple[str, int]] = []

        class Shelf:
            @brief
            def get(self, key: str) -> str:
                threads.append((key, threading.get_ident()))
                if key == "gone":
                    raise KeyError(key)
                return key.upper()

            async def aget(self, key: str) -> str:
                raise AssertionError(key)

        shelf, store = Shelf(), Store()

        def plan() -> Plan[list[str]]:
            found = [(yield from call(shelf.get, "a")), (yield from call(store.get, "b"))]
            try:
                yield from call(shelf.get, "gone")
            except KeyError:
                found.append((yield from call(shelf.get, "c")))
            return found

        assert await arun(plan()) == ["A", "B", "C"]
        assert store.calls == ["aget b"]
        assert [key for key, _ in threads] == ["a", "gone", "c"]
        assert threading.get_ident() not in {thread for _, thread in threads}
        threads.clear()
        assert run(plan()) == ["A", "B", "C"]
        assert {thread for _, thread in threads} == {threading.get_ident()}

    async def test_gathered_plans_keep_their_order(self):
        store = Store()

        def one(key: str) -> Plan[str]:
            return (yield from call(store.get, key))

        def many() -> Plan[list[str]]:
            return (yield from gather(*(one(key) for key in "abc")))

        assert run(many()) == ["A", "B", "C"]
        assert await arun(many()) == ["A", "B", "C"]

    async def test_a_plan_can_catch_what_its_call_raised(self):
        store = Store()

        def careful() -> Plan[str]:
            try:
                yield from call(store.fail)
            except KeyError:
                return "kept going"
            return "not reached"

        assert run(careful()) == "kept going"
        assert await arun(careful()) == "kept going"

    async def test_an_error_the_plan_does_not_catch_reaches_the_caller(self):
        store = Store()
        with pytest.raises(KeyError, match="gone"):
            run(call(store.fail))
        with pytest.raises(KeyError, match="gone"):
            await arun(call(store.fail))

    async def test_cancelling_runs_the_plans_cleanup(self):
        cleaned: list[str] = []

        class Slow:
            async def aforever(self) -> None:
                await asyncio.sleep(3600)

            def forever(self) -> None: ...

        def plan() -> Plan[None]:
            try:
                yield from call(Slow().forever)
            finally:
                cleaned.append("closed")

        task = asyncio.create_task(arun(plan()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cleaned == ["closed"]

    def test_a_plan_is_a_generator(self):
        assert inspect.isgenerator(both(Store()))
