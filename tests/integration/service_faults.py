"""Take turns while PostgreSQL, Redis and Qdrant are killed, paused and restarted.

Every turn is answered, nothing acknowledged is lost, out of order or there twice, every
vector is there in the end, no call waits longer than the time-outs add up to, and memory is
back to where it was, all in one process. The long run:
`python -m tests.integration.service_faults --turns 2000`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from langchain_core.messages import AIMessage, HumanMessage

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.events import Degraded, Event
from langchain_ctxmgr.memory import breaker
from langchain_ctxmgr.memory.embeddings import Embedder
from langchain_ctxmgr.storage.postgres import PostgresLog
from langchain_ctxmgr.storage.redis_cache import TIMEOUT as CACHE_TIMEOUT
from langchain_ctxmgr.storage.server import QdrantVectorStore
from langchain_ctxmgr.storage.server_connection import ConnectionSettings
from langchain_ctxmgr.storage.vectors import DenseVectors
from tests.hashed_words import SIZE, HashedWords
from tests.postgres import own_database
from tests.postgres_server import OwnServer, own_server
from tests.services import OwnQdrant, OwnRedis, OwnService

TASKS = 20
TENANTS = 4
MAX_TOKENS = 800
LOG_TIMEOUT = timedelta(seconds=10)
"""What `PostgresLog` has by default."""
WORK_SECONDS = 5
"""For a turn's own work, twenty at a time on a machine that is busy."""
LONGEST_TURN = {
    "nothing": LOG_TIMEOUT.total_seconds(),
    "postgres": LOG_TIMEOUT.total_seconds() + WORK_SECONDS,
    "qdrant": ConnectionSettings().patience.total_seconds() + WORK_SECONDS,
    "redis": 4 * CACHE_TIMEOUT.total_seconds() + WORK_SECONDS,
}
"""Seconds, by what is the matter: the time-out of that service, once. The cache is asked for a
connection and an answer, each of them twice."""
MEMORY_MIB = 96
"""How much larger the process may be: caches of token counts are full only after a while."""
CAUGHT_UP_SECONDS = 180


class Fault(NamedTuple):
    service: str
    kind: str
    seconds: float
    """How long the service is away."""


FAULTS = (
    Fault("qdrant", "kill", 4),
    Fault("redis", "kill", 4),
    Fault("postgres", "kill", 4),
    Fault("qdrant", "pause", 20),
    Fault("redis", "pause", 6),
    Fault("postgres", "pause", 25),
    Fault("qdrant", "restart", 1),
    Fault("redis", "restart", 1),
    Fault("postgres", "restart", 1),
)
"""A pause outlasts the time-outs of what is paused."""


class Services(NamedTuple):
    postgres: OwnServer
    redis: OwnService
    qdrant: OwnService

    def cause(self, fault: Fault) -> None:
        """The fault, and its end; called on a thread of its own."""
        service = getattr(self, fault.service)
        match fault.kind:
            case "kill":
                service.kill()
            case "pause":
                service.pause()
            case "restart":
                service.stop()
        time.sleep(fault.seconds)
        service.resume() if fault.kind == "pause" else service.start()


@dataclass
class Talk:
    """One task's thread, and what of it was acknowledged."""

    scope: Scope
    number: int
    acknowledged: list[str] = field(default_factory=list)
    spooled: int = 0


@dataclass
class Figures:
    """What the run came to."""

    turns: int = 0
    alone: int = 0
    """Turns that were answered without the thread's history."""
    spooled: int = 0
    longest_turn: dict[str, float] = field(default_factory=dict)
    """By what was the matter when it ended, seconds."""
    degraded: Counter[str] = field(default_factory=Counter)
    caught_up: float = 0.0
    records: int = 0
    seconds: float = 0.0
    memory_mib: tuple[float, float] = (0.0, 0.0)
    files: tuple[int, int] = (0, 0)

    def told(self, event: Event) -> None:
        """Count what is told of parts that fail."""
        if isinstance(event, Degraded):
            self.degraded[f"{event.part} ({event.fallback})"] += 1

    def __str__(self) -> str:
        longest = ", ".join(
            f"{name} {seconds:.1f} (at most {_most(name):.0f})"
            for name, seconds in self.longest_turn.items()
        )
        degraded = ", ".join(f"{n} x {name}" for name, n in sorted(self.degraded.items()))
        before, after = self.memory_mib
        return "\n".join(
            (
                (
                    f"{self.turns} turns by {TASKS} tasks in {self.seconds:.0f} s, all answered, "
                    f"{self.alone} of them without history"
                ),
                (
                    f"{self.records} records, all acknowledged ones once and in order; "
                    f"{self.spooled} waited in the spool"
                ),
                f"all vectors there {self.caught_up:.1f} s after the last turn",
                f"longest turn, s: {longest}",
                f"degraded: {degraded}",
                (
                    f"memory {before:.0f} MiB after warm-up, {after:.0f} at the end; "
                    f"open files {self.files[0]}, {self.files[1]}"
                ),
            )
        )


class Run:
    """Turns of all tasks, and the faults that come one after the other meanwhile."""

    def __init__(
        self, manager: ContextManager, services: Services, turns: int, figures: Figures
    ) -> None:
        self._manager = manager
        self._services = services
        self._turns = turns
        self.figures = figures
        self._rng = random.Random(1)
        self._matter = "nothing"
        self._is_over = False
        self.talks = [
            Talk(Scope(tenant_id=f"tenant-{n % TENANTS}", thread_id=f"thread-{n}"), n)
            for n in range(TASKS)
        ]

    async def turns(self, faults: tuple[Fault, ...]) -> None:
        """All turns: a tenth of them undisturbed, the others under the faults."""
        warm = self._turns // 10
        await self._together(warm)
        gc.collect()
        memory, files = _memory_mib(), _open_files()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._cause(faults))
            group.create_task(self._together(self._turns))
        self.figures.spooled = sum(talk.spooled for talk in self.talks)
        await self._catch_up()
        gc.collect()
        self.figures.memory_mib = (memory, _memory_mib())
        self.figures.files = (files, _open_files())

    async def _together(self, until: int) -> None:
        self._is_over = until < self._turns
        async with asyncio.TaskGroup() as group:
            for talk in self.talks:
                group.create_task(self._talk(talk, until))

    async def _talk(self, talk: Talk, until: int) -> None:
        while self.figures.turns < until or not self._is_over:
            self.figures.turns += 1
            await self._turn(talk)

    async def _cause(self, faults: tuple[Fault, ...]) -> None:
        """One after the other, each on a service that is in use again since its last one."""
        first = self.figures.turns
        rested = dict[str, float]()
        for place, fault in enumerate(faults):
            due = first + (self._turns - first) * place // len(faults)
            while self.figures.turns < due:  # noqa: ASYNC110 - the count moves all the time
                await asyncio.sleep(0.05)
            await asyncio.sleep(max(rested.get(fault.service, 0.0) - time.monotonic(), 0.0))
            self._matter = f"{fault.service} {fault.kind}"
            await asyncio.to_thread(self._services.cause, fault)
            rested[fault.service] = time.monotonic() + breaker.REST_SECONDS
        self._is_over = True

    async def _turn(self, talk: Talk) -> None:
        """Record the question, prepare, record the answer: as a host does."""
        started = time.monotonic()
        number = len(talk.acknowledged)
        asked_of = self._rng.randrange(max(number, 1))
        canary = _canary(talk.number, number)
        text = f"Parcel {canary} is in the harbour. Where is {_canary(talk.number, asked_of)}?"
        # Every other message comes without an id of its own.
        question = HumanMessage(text, id=canary if number % 4 else None)
        await self._record(talk, question)
        context = await self._manager.aprepare(
            scope=talk.scope, query=question, max_tokens=MAX_TOKENS
        )
        assert text in str(context.messages[-1].content)
        assert context.tokens <= MAX_TOKENS
        self.figures.alone += number > 0 and len(context.messages) == 1
        answer = f"Locker {_canary(talk.number, number + 1)}, I believe."
        await self._record(talk, AIMessage(answer))
        took = time.monotonic() - started
        longest = self.figures.longest_turn
        longest[self._matter] = max(took, longest.get(self._matter, 0.0))

    async def _record(self, talk: Talk, message: HumanMessage | AIMessage) -> None:
        records = await self._manager.arecord(message, scope=talk.scope)
        talk.acknowledged.append(str(message.content))
        talk.spooled += not records

    async def _catch_up(self) -> None:
        """Ask on, as a host does, until nothing waits in the spool or for the index."""
        started = time.monotonic()
        for tenant in range(TENANTS):
            scope = Scope(tenant_id=f"tenant-{tenant}")
            while not await self._is_level(scope):
                assert time.monotonic() - started < CAUGHT_UP_SECONDS, "the index stays behind"
                await asyncio.sleep(0.5)
        self.figures.caught_up = time.monotonic() - started

    async def _is_level(self, scope: Scope) -> bool:
        for talk in self.talks:
            if talk.scope.tenant_id == scope.tenant_id:
                await self._manager.aprepare(scope=talk.scope, query="?", max_tokens=MAX_TOKENS)
        stats = await self._manager.astats(scope=scope)
        expected = sum(
            len(talk.acknowledged) for talk in self.talks if talk.scope.tenant_id == scope.tenant_id
        )
        return stats["log"]["records"] >= expected and stats["index"]["behind"] == 0

    async def check(self, vectors: QdrantVectorStore) -> None:
        """That the log has what was acknowledged, the index all of it, and recall finds it."""
        for talk in self.talks:
            history = await self._manager.ahistory(scope=talk.scope)
            assert [message.content for message in history] == talk.acknowledged, talk.scope
            number = self._rng.randrange(0, len(talk.acknowledged), 2)
            canary = _canary(talk.number, number)
            found = await self._manager.arecall(f"parcel {canary}", scope=talk.scope, k=8)
            assert any(f"Parcel {canary}" in memory.text for memory in found), canary
            self.figures.records += len(history)
        for tenant in range(TENANTS):
            scope = Scope(tenant_id=f"tenant-{tenant}")
            stats = await self._manager.astats(scope=scope)
            assert await vectors.acount(scope) == stats["log"]["records"]
            verified = await self._manager.averify(scope=scope)
            assert verified.ok, verified.problems
        for matter, seconds in self.figures.longest_turn.items():
            assert seconds < _most(matter), self.figures.longest_turn
        before, after = self.figures.memory_mib
        assert after - before < MEMORY_MIB, self.figures.memory_mib


def _most(matter: str) -> float:
    """The longest turn there may be meanwhile, in seconds."""
    return LONGEST_TURN[matter.split(maxsplit=1)[0]]


def _canary(thread: int, number: int) -> str:
    return f"zq{thread}x{number}x"


def _memory_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@contextmanager
def services() -> Iterator[Services]:
    """Servers of this run's own, ended with it."""
    with tempfile.TemporaryDirectory() as folder, own_server() as postgres:
        redis = OwnRedis(Path(folder))
        try:
            qdrant = OwnQdrant(Path(folder, "qdrant"))
            try:
                yield Services(postgres, redis, qdrant)
            finally:
                qdrant.kill()
        finally:
            redis.kill()


def run(turns: int, faults: tuple[Fault, ...] = FAULTS) -> Figures:
    """The figures of a run; what must hold was checked."""
    with (
        services() as servers,
        own_database(servers.postgres.url) as database,
        tempfile.TemporaryDirectory() as folder,
    ):
        with PostgresLog(database.url()):
            database.grant()
        return asyncio.run(_run(turns, faults, servers, database.url(database.app), folder))


async def _run(
    turns: int, faults: tuple[Fault, ...], servers: Services, log: str, folder: str
) -> Figures:
    figures = Figures()
    async with ContextManager(
        log=log,
        vectors=servers.qdrant.url,
        cache=servers.redis.url,
        spool=Path(folder, "spool.sqlite3"),
        model="gpt-4o-mini",
        embeddings=Embedder(HashedWords(), "hashed-words"),
        listeners=[figures.told],
    ) as manager:
        started = time.monotonic()
        running = Run(manager, servers, turns, figures)
        try:
            await running.turns(faults)
        finally:
            figures.seconds = time.monotonic() - started
        dense = DenseVectors(name="hashed-words", size=SIZE)
        vectors = QdrantVectorStore(servers.qdrant.url, dense=dense)
        try:
            await running.check(vectors)
        finally:
            await vectors.aclose()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=2000)
    given = parser.parse_args()
    print(run(given.turns))


if __name__ == "__main__":
    main()
