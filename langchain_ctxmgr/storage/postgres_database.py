"""One PostgreSQL database shared by threads, tasks and processes.

When the server goes away an operation is tried again until the time-out is over, so a
restart is ridden out: reads and idempotent writes just so, the others find out first
whether the last try was committed.
"""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

import asyncio
import os
import threading
import time
import warnings
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, Final, LiteralString, NamedTuple, TypeVar

import psycopg
from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper

from langchain_ctxmgr.errors import LogError
from langchain_ctxmgr.storage.arguments import positive_count, positive_time
from langchain_ctxmgr.storage.postgres_errors import OVERDUE, Attempts, OverdueError, Server
from langchain_ctxmgr.storage.postgres_pool import AsyncConnection, AsyncPool, Connection, Pool
from langchain_ctxmgr.storage.postgres_schema import MIGRATIONS, migrate, schema_version
from langchain_ctxmgr.storage.postgres_work import Row, Work

T = TypeVar("T")

_SETTINGS: Final[dict[LiteralString, LiteralString]] = {
    "default_transaction_isolation": "read committed",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_sort": "off",
    "jit": "off",
}
"""Every statement is to find its rows by an index, in order, however little the planner knows
of the tables yet: statistics lag behind, and a plan that sorts a thread reads all of it."""
_GREETING: Final = (
    "SELECT set_config('search_path', quote_ident(%s), false), "
    "set_config('statement_timeout', %s, false), "
    + "".join(f"set_config('{name}', '{value}', false), " for name, value in _SETTINGS.items())
    + "(SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user)"
)
_inherited: list[object] = []
"""Pools a forked child found: never used, never closed, which would harm the parent's."""


class Inspected(NamedTuple):
    """What a look at the database found."""

    version: str
    """The server's."""
    is_current: bool
    """Whether the tables are those of this release; otherwise first use makes them."""


class Database:
    """Connections to one database, and how work is run on them."""

    def __init__(self, url: str, *, schema: str, max_connections: int, timeout: timedelta) -> None:
        self.server = Server(url)
        self._timeout = positive_time("timeout", timeout)
        self._size = positive_count("max_connections", max_connections)
        if not isinstance(schema, str) or not schema or "\0" in schema:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"schema must be a name, got {schema!r}")
        self._schema = schema
        self._seconds = timeout.total_seconds()
        self._closed = self._ready = self._warned = False
        self._start_process()

    def _start_process(self) -> None:
        self._pid = os.getpid()
        self._pool = Pool(self._size)
        self._pools: dict[int, AsyncPool] = {}
        self._opening = threading.Lock()

    def setup(self) -> None:
        """Bring the tables up to date."""
        self._check_process()
        attempts = Attempts(self.server, self._timeout)
        if not self._opening.acquire(timeout=attempts.seconds_left):
            raise LogError(f"{self.server.name}: {OVERDUE}")
        try:
            while not self._ready:
                try:
                    with self.apart() as connection:
                        migrate(connection, self._schema, self.server.name)
                    self._ready = True
                except psycopg.Error as error:
                    time.sleep(attempts.pause_after(error))
        finally:
            self._opening.release()

    def inspect(self) -> Inspected:
        """What is there, without making anything."""
        self._check_process()
        try:
            with self.apart() as connection:
                applied = schema_version(connection, self._schema, self.server.name)
                version = str(connection.info.parameter_status("server_version"))
        except psycopg.Error as error:
            raise self.server.explain(error) from error
        return Inspected(version, applied == len(MIGRATIONS))

    def close(self) -> None:
        """Close every connection. May be called again."""
        self._closed = True
        if os.getpid() == self._pid:
            self._pool.close()
            for pool in [*self._pools.values()]:
                pool.close()

    def run(self, work: Work[T]) -> T:
        """The result of `work`."""
        self._check_process()
        if not self._ready:
            self.setup()
        attempts = Attempts(self.server, self._timeout)
        while True:
            try:
                with self._connection(attempts) as connection:
                    return self._drive(connection, work, attempts)
            except psycopg.Error as error:
                pause = attempts.pause_after(error)
            self._pool.purge()
            time.sleep(pause)
            self._check_process()

    async def arun(self, work: Work[T]) -> T:
        """`run` without blocking the event loop."""
        self._check_process()
        if not self._ready:
            await asyncio.to_thread(self.setup)
        attempts = Attempts(self.server, self._timeout)
        pool = await self._loop_pool()
        while True:
            try:
                async with self._async_connection(pool, attempts) as connection:
                    return await self._adrive(connection, work, attempts)
            except psycopg.Error as error:
                pause = attempts.pause_after(error)
            pool.purge()
            await asyncio.sleep(pause)
            self._check_process()

    @contextmanager
    def apart(self) -> Generator[psycopg.Connection[Row], None, None]:
        """A connection of its own, for what takes its time."""
        self._check_process()
        attempts = Attempts(self.server, self._timeout)
        with Connection.connect(self.server.url, **_parameters(attempts)) as connection:
            connection.until = attempts.until
            self._meet(connection, connection.execute(_GREETING, (self._schema, "0")).fetchone())
            connection.until = float("inf")
            yield connection

    def _drive(self, connection: Connection, work: Work[T], attempts: Attempts) -> T:
        steps = work.framed()
        try:
            batch = next(steps)
            connection.until = float("inf") if work.is_long else attempts.until
            while True:
                answers = connection.answers(batch)
                connection.until = self._until(work)
                batch = steps.send(answers)
        except StopIteration as stop:
            return stop.value
        finally:
            steps.close()

    async def _adrive(self, connection: AsyncConnection, work: Work[T], attempts: Attempts) -> T:
        steps = work.framed()
        try:
            batch = next(steps)
            connection.until = float("inf") if work.is_long else attempts.until
            while True:
                answers = await connection.answers(batch)
                connection.until = self._until(work)
                batch = steps.send(answers)
        except StopIteration as stop:
            return stop.value
        finally:
            steps.close()

    def _until(self, work: Work[Any]) -> float:
        """When a server that has answered once is overdue with the next answer."""
        return float("inf") if work.is_long else time.monotonic() + self._seconds

    @contextmanager
    def _connection(self, attempts: Attempts) -> Generator[Connection, None, None]:
        pool = self._pool
        with pool.room(attempts.seconds_left):
            connection = pool.take()
            is_new = connection is None
            if connection is None:
                connection = Connection.connect(self.server.url, **_parameters(attempts))
            with pool.using(connection):
                if is_new:
                    connection.until = attempts.until
                    greeting = connection.execute(_GREETING, self._greeting())
                    self._meet(connection, greeting.fetchone())
                yield connection

    @asynccontextmanager
    async def _async_connection(
        self, pool: AsyncPool, attempts: Attempts
    ) -> AsyncGenerator[AsyncConnection, None]:
        async with pool.room(attempts.seconds_left):
            connection = pool.take()
            is_new = connection is None
            if connection is None:
                connection = await self._aconnected(attempts)
            with pool.using(connection):
                if is_new:
                    connection.until = attempts.until
                    greeting = await connection.execute(_GREETING, self._greeting())
                    self._meet(connection, await greeting.fetchone())
                yield connection

    async def _aconnected(self, attempts: Attempts) -> AsyncConnection:
        try:
            async with asyncio.timeout(attempts.seconds_left):
                return await AsyncConnection.connect(self.server.url, **_parameters(attempts))
        except TimeoutError:  # libpq's own time-out is 2 s at least
            raise OverdueError(OVERDUE) from None

    async def _loop_pool(self) -> AsyncPool:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(id(loop))
        if pool is None or pool.loop is not loop:
            for key, other in [*self._pools.items()]:
                if other.loop.is_closed():
                    other.close()
                    self._pools.pop(key, None)
            pool = self._pools[id(loop)] = AsyncPool(self._size)
            await pool.start()
        return pool

    def _greeting(self) -> tuple[str, str]:
        return self._schema, f"{round(self._seconds * 1000)}ms"

    def _meet(self, connection: Connection | AsyncConnection, row: Row | None) -> None:
        """Take note of a new connection's role, and send integers as the tables have them."""
        for dumper in (Int8Dumper, Int8BinaryDumper):
            connection.adapters.register_dumper(int, dumper)
        connection.prepare_threshold = 0
        if row is not None and row[-1] and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.server.name}: row-level security does not hold for this role, a superuser "
                "or one with BYPASSRLS; connect as a plain role to keep tenants apart",
                stacklevel=2,
            )

    def _check_process(self) -> None:
        if self._closed:
            raise LogError(f"the message log {self.server.name} is closed; open it again to use it")
        if os.getpid() != self._pid:
            _inherited.append((self._pool, self._pools, self._opening))
            self._start_process()


def _parameters(attempts: Attempts) -> dict[str, Any]:
    # libpq takes whole seconds and rounds 1 up to 2.
    return {"autocommit": True, "connect_timeout": max(2, round(attempts.seconds_left))}
