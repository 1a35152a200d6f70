"""Connections to PostgreSQL: for threads, and for the tasks of each event loop.

A connection whose operation did not end cleanly (an error, a cancellation, a server that
does not answer) is closed, never given back.

The pools are our own, because psycopg_pool's fill and mend themselves with worker threads or
tasks. A forked child has the pool without its workers and waits for connections nobody makes;
an event loop that ends without closing its pool leaves tasks that warn, and connections open.
These make a connection where it is used, so there is nothing to start, and a child or a loop
begins with an empty pool.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Generic, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

from langchain_ctxmgr.errors import LogError
from langchain_ctxmgr.storage.postgres_errors import OVERDUE, OverdueError
from langchain_ctxmgr.storage.postgres_work import Batch, Row

RV = TypeVar("RV")


class Connection(psycopg.Connection[Row]):
    """A connection that waits no longer than until a moment of the monotonic clock."""

    until: float = float("inf")

    def wait(self, gen: PQGen[RV], *args: Any, **given: Any) -> RV:
        """See `psycopg.Connection.wait`."""
        return super().wait(_bounded(gen, self.until), *args, **given)

    def answers(self, batch: Batch) -> list[list[Row]]:
        """The rows of each statement, in one round trip."""
        with _overdue_told(self), self.pipeline():
            cursors = [self.execute(text, values, binary=True) for text, values in batch]
        return [cursor.fetchall() if _has_rows(cursor) else [] for cursor in cursors]


class AsyncConnection(psycopg.AsyncConnection[Row]):
    """The same for an event loop."""

    until: float = float("inf")

    async def wait(self, gen: PQGen[RV], *args: Any, **given: Any) -> RV:
        """See `psycopg.AsyncConnection.wait`."""
        return await super().wait(_bounded(gen, self.until), *args, **given)

    async def answers(self, batch: Batch) -> list[list[Row]]:
        """The rows of each statement, in one round trip."""
        with _overdue_told(self):
            async with self.pipeline():
                cursors = [await self.execute(text, values, binary=True) for text, values in batch]
        return [await cursor.fetchall() if _has_rows(cursor) else [] for cursor in cursors]


def _has_rows(cursor: psycopg.Cursor[Row] | psycopg.AsyncCursor[Row]) -> bool:
    """Whether there is a result to fetch, told without describing its columns."""
    return cursor.pgresult is not None and cursor.pgresult.nfields > 0


@contextmanager
def _overdue_told(connection: Connection | AsyncConnection) -> Generator[None, None, None]:
    """Say that the server is late, not what psycopg could not tidy up for that reason."""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate is None and time.monotonic() > connection.until:
            raise OverdueError(OVERDUE) from None
        raise


def _bounded(waits: PQGen[RV], until: float) -> PQGen[RV]:
    """`waits`, given up once it is `until`: psycopg wakes it every 0.1 s."""
    try:
        wait = next(waits)
        while True:
            ready = yield wait
            if not ready and time.monotonic() > until:
                raise OverdueError(OVERDUE)
            wait = waits.send(ready)
    except StopIteration as stop:
        return stop.value


C = TypeVar("C", Connection, AsyncConnection)


class _Idle(Generic[C]):
    """Connections nobody is using."""

    def __init__(self) -> None:
        self._connections: deque[C] = deque()
        self._is_closed = False

    def take(self) -> C | None:
        """The one used last."""
        try:
            return self._connections.pop()
        except IndexError:
            return None

    @contextmanager
    def using(self, connection: C) -> Generator[None, None, None]:
        """Keep a connection that was used without an error; close any other.

        After an error psycopg may take statements for prepared that the server skipped.
        """
        is_clean = False
        try:
            yield
            is_clean = connection.pgconn.transaction_status == TransactionStatus.IDLE
        finally:
            if is_clean and not self._is_closed:
                self._connections.append(connection)
            else:
                connection.pgconn.finish()

    def purge(self) -> None:
        """Close those that are idle: where one was found broken, all may be."""
        while (connection := self.take()) is not None:
            connection.pgconn.finish()

    def close(self) -> None:
        """Close them, and each one in use once it is given back."""
        self._is_closed = True
        self.purge()


class Pool(_Idle[Connection]):
    """Connections for threads, up to `size` at once."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._room = threading.BoundedSemaphore(size)

    @contextmanager
    def room(self, seconds: float) -> Generator[None, None, None]:
        """Leave to use one of the connections, waited for up to `seconds`."""
        if not self._room.acquire(timeout=seconds):
            raise _crowded(seconds)
        try:
            yield
        finally:
            self._room.release()


class AsyncPool(_Idle[AsyncConnection]):
    """Connections for the tasks of one event loop, up to `size` at once; closed with it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(size)
        self._end = self._until_the_loop_ends()

    async def start(self) -> None:
        """Have the loop close this when it shuts down its generators, as `asyncio.run` does."""
        await anext(self._end)

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.close()

    @asynccontextmanager
    async def room(self, seconds: float) -> AsyncGenerator[None, None]:
        """Leave to use one of the connections, waited for up to `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._room.acquire()
        except TimeoutError:
            raise _crowded(seconds) from None
        try:
            yield
        finally:
            self._room.release()


def _crowded(seconds: float) -> LogError:
    return LogError(
        f"every connection to PostgreSQL was in use for {seconds:.1f} s; raise max_connections"
    )
