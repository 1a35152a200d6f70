"""One SQLite file shared by threads, tasks and processes.

Work is a function of a connection. Reads take any free connection, and each sees the file as
it was at its first statement, whatever others commit meanwhile; writes queue on one lock in
the process and on SQLite's own between processes, as one `BEGIN IMMEDIATE` transaction each
that is rolled back on any error. On an event loop, work marked `quick`
runs in place with a connection that never waits; if the file is locked at that moment,
or the work is long, it runs in a thread. WAL with `synchronous=NORMAL`: what was
acknowledged survives the death of the process; a power cut may lose the last commits,
never the file.

A file that cannot be written is read as it is, each time on a connection of its own: the
next call finds it writable again once it is.

SQLite keeps its file locks in the process's memory, so a forked child that finds any of its
parent's connections believes in locks that it does not hold, and waits for ones that nobody
will give back. A fork therefore waits for work under way and closes idle connections first.

Source: https://sqlite.org/wal.html, https://sqlite.org/howtocorrupt.html (section 2.6: a
connection is never carried across a fork).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from langchain_ctxmgr.errors import LogError, ReadOnlyLogError
from langchain_ctxmgr.storage.arguments import file_name, positive_time

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_MIGRATIONS_PACKAGE: Final = "langchain_ctxmgr.storage"
MIGRATIONS: Final = (
    "0001_message_log.sql",
    "0002_stated.sql",
    "0003_withdrawn.sql",
    "0004_weights.sql",
)
_APPLICATION_ID: Final = 0x43545847
"""Marks the file as ours: `CTXG`."""
_CACHE_KIB: Final = 16_384
_IDLE_CONNECTIONS: Final = 8
_WRITES_IN_PLACE: Final = 128
"""After so many, one write goes to a thread, where copying the WAL back holds up no loop."""
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_UNWRITABLE: Final = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})
"""A read-only folder shows as the first, a read-only file system as the second."""
_INSTANTLY: Final = timedelta(0)
_READ: Final = "BEGIN"
_WRITE: Final = "BEGIN IMMEDIATE"
_FORK_WAIT_SECONDS: Final = 2.0
"""How long a fork waits for work under way; longer work is left behind in the child."""
_inherited: list[object] = []
"""Connections a forked child found: never used, never closed (both can harm the parent)."""


class _Uses:
    """How many connections of this process are in use; none is begun while it forks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self._is_forking = False

    def __enter__(self) -> None:
        """Hold forks off for the length of a block."""
        with self._changed:
            while self._is_forking:
                self._changed.wait()
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            if self._is_forking:
                self._changed.notify_all()

    def hold(self) -> None:
        """Let none begin, and wait for those under way."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_forking)
            self._is_forking = True
            self._changed.wait_for(lambda: not self._count, _FORK_WAIT_SECONDS)

    def release(self) -> None:
        """Let others begin."""
        with self._changed:
            self._is_forking = False
            self._changed.notify_all()


_uses = _Uses()


class Database:
    """Connections to one file, and how work is run on them."""

    def __init__(self, path: str | os.PathLike[str], *, busy_timeout: timedelta) -> None:
        self._timeout = positive_time("busy_timeout", busy_timeout)
        file = file_name("path", path)
        if file == ":memory:" or file.startswith("file:"):
            raise ValueError(f"path must be a file's, got {file!r}")
        self.path = Path(file).absolute()
        self._closed = False
        self._ready = False
        self._in_place = 0
        self._start_process()
        _databases.add(self)

    def _start_process(self) -> None:
        self._pid = os.getpid()
        self._waiting: deque[sqlite3.Connection] = deque()
        self._instant: deque[sqlite3.Connection] = deque()
        self._writing = threading.Lock()
        self._opening = threading.Lock()

    def setup(self) -> None:
        """Create the file and bring its tables up to date.

        Raises:
            StorageError: If that cannot be done; the message says why and how to mend it.
        """
        self.read(lambda _: None)

    def close(self) -> None:
        """Close every connection. May be called again."""
        self._closed = True
        if os.getpid() == self._pid:
            with _uses:
                self._close_idle()

    def before_fork(self) -> None:
        """Close idle connections: a child must find none."""
        if os.getpid() == self._pid:
            self._close_idle()

    def read(self, work: Work[T]) -> T:
        """The result of `work` on one snapshot of the file; waits for a locked file.

        A file that can be read and not written is read as it is.
        """
        try:
            return self._run(self._timeout, work, _READ)
        except ReadOnlyLogError:
            with self._as_it_is() as connection:
                if self._version(connection) < len(MIGRATIONS):
                    raise
                return _transact(connection, work, _READ)

    def inspect(self, work: Work[T]) -> T:
        """The result of `work` on the file as it is: it is neither made nor brought up to date.

        Raises:
            StorageError: If it cannot be read, or is not a log of this release.
        """
        with self._as_it_is() as connection:
            self._version(connection)
            return _transact(connection, work, _READ)

    @contextmanager
    def _as_it_is(self) -> Generator[sqlite3.Connection, None, None]:
        try:
            with _uses, closing(self._connect_to_read()) as connection:
                self._check_owner(connection)
                yield connection
        except sqlite3.Error as error:
            self._explain(error)

    def _connect_to_read(self) -> sqlite3.Connection:
        address, seconds = f"{self.path.as_uri()}?mode=ro", self._timeout.total_seconds()
        connection = sqlite3.connect(address, uri=True, timeout=seconds)
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            connection.close()
            # Immutable means: look neither for a WAL nor for locks. Only where SQLite may not
            # make a WAL, and nobody has one, is the file all there is.
            if not _is_unwritable(error) or Path(f"{self.path}-wal").exists():
                raise
            return sqlite3.connect(f"{address}&immutable=1", uri=True)
        return connection

    def write(self, work: Work[T]) -> T:
        """The result of `work` in a transaction of its own; waits its turn."""
        return self.exclusive(work, begin=_WRITE)

    def exclusive(self, work: Work[T], *, begin: str | None = None) -> T:
        """The result of `work`, outside a transaction, with this process's writers held off."""
        self._check_process()
        if not self._writing.acquire(timeout=self._timeout.total_seconds()):
            raise self._locked()
        try:
            return self._run(self._timeout, work, begin)
        finally:
            self._writing.release()

    async def aread(self, work: Work[T], *, quick: bool = True) -> T:
        """`read`, in place if `quick` and the file is free, else in a thread."""
        if quick and self._ready:
            try:
                return self._run(_INSTANTLY, work, _READ)
            except (_LockedError, ReadOnlyLogError):
                pass
        return await asyncio.to_thread(self.read, work)

    async def awrite(self, work: Work[T], *, quick: bool = True) -> T:
        """`write`, in place if `quick` and no one else is writing, else in a thread."""
        self._check_process()
        quick = quick and self._ready and self._in_place < _WRITES_IN_PLACE
        if quick and self._writing.acquire(blocking=False):
            try:
                self._in_place += 1
                return self._run(_INSTANTLY, work, _WRITE)
            except _LockedError:
                pass
            finally:
                self._writing.release()
        self._in_place = 0
        return await asyncio.to_thread(self.write, work)

    def _run(self, timeout: timedelta, work: Work[T], begin: str | None) -> T:
        """The result of `work` in a transaction that starts with `begin`, or outside any."""
        self._check_process()
        with _uses:
            idle = self._waiting if timeout else self._instant
            try:
                connection = self._take(idle, timeout)
            except sqlite3.Error as error:
                self._explain(error)
            try:
                return work(connection) if begin is None else _transact(connection, work, begin)
            except sqlite3.Error as error:
                self._explain(error)
            finally:
                if connection.in_transaction:
                    connection.rollback()
                idle.append(connection)
                if self._closed or len(idle) > _IDLE_CONNECTIONS:
                    self._close_idle(keep=0 if self._closed else _IDLE_CONNECTIONS)

    def _take(self, idle: deque[sqlite3.Connection], timeout: timedelta) -> sqlite3.Connection:
        try:
            return idle.pop()
        except IndexError:  # none is idle, or another thread took the last
            return self._open(timeout)

    def _check_process(self) -> None:
        if self._closed:
            raise LogError(f"the message log {self.path} is closed; open it again to use it")
        if os.getpid() != self._pid:
            _inherited.append((self._waiting, self._instant, self._writing, self._opening))
            self._start_process()

    def _close_idle(self, keep: int = 0) -> None:
        for idle in (self._waiting, self._instant):
            while len(idle) > keep:
                try:
                    connection = idle.popleft()
                except IndexError:  # another thread took it
                    break
                connection.close()

    def _open(self, timeout: timedelta) -> sqlite3.Connection:
        if not self._ready:
            with self._opening:
                if not self._ready:
                    self._prepare_file()
                    self._ready = True
        return self._connect(timeout)

    def _connect(self, timeout: timedelta) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=timeout.total_seconds(),
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA secure_delete = FAST")
        if not timeout:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection

    def _prepare_file(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LogError(
                f"the folder {self.path.parent} cannot be made: {error.strerror}; "
                "name another or mend its permissions"
            ) from error
        connection = self._connect(self._timeout)
        try:
            self._check_owner(connection)
            self._enter_wal(connection)
            self._migrate(connection)
        finally:
            connection.close()

    def _check_owner(self, connection: sqlite3.Connection) -> None:
        # Tables first: another process that is making the file right now sets both at once.
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        application = _pragma(connection, "application_id")
        if application != _APPLICATION_ID and (tables or application):
            raise LogError(f"{self.path} is another program's database; name another file")

    def _enter_wal(self, connection: sqlite3.Connection) -> None:
        """Switch to WAL; SQLite does not wait for others by itself here."""
        deadline = time.monotonic() + self._timeout.total_seconds()
        while True:
            try:
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                break
        if mode != "wal":
            raise LogError(
                f"{self.path} is on a file system without shared memory; use a local disk"
            )

    def _migrate(self, connection: sqlite3.Connection) -> None:
        if self._version(connection) == len(MIGRATIONS):
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            for name in MIGRATIONS[self._version(connection) :]:
                script = resources.files(_MIGRATIONS_PACKAGE).joinpath("migrations", "sqlite", name)
                for statement in _statements(script.read_text("utf-8")):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise

    def _version(self, connection: sqlite3.Connection) -> int:
        version = _pragma(connection, "user_version")
        if version > len(MIGRATIONS):
            raise LogError(
                f"{self.path} has schema version {version} and this release knows "
                f"{len(MIGRATIONS)}; upgrade langchain-ctxmgr"
            )
        return version

    def _locked(self) -> LogError:
        return _LockedError(
            f"{self.path} was locked by another writer for {self._timeout.total_seconds():g} s; "
            "try again, or raise busy_timeout"
        )

    def _explain(self, error: sqlite3.Error) -> NoReturn:
        """Raise `error` as a `StorageError` that says how to mend it, if a user can."""
        if _is_busy(error):
            raise self._locked() from error
        code = _code(error)
        if code in _REMEDIES:
            is_there = os.path.isfile(self.path)  # noqa: PTH113 - `Path.is_file` may itself raise
            is_readable = is_there and (_is_unwritable(error) or code == sqlite3.SQLITE_FULL)
            kind = ReadOnlyLogError if is_readable else LogError
            raise kind(f"{self.path}: {error}; {_REMEDIES[code]}") from error
        if self._closed:
            raise LogError(f"the message log {self.path} was closed in use") from error
        raise error


_databases: weakref.WeakSet[Database] = weakref.WeakSet()


def _before_fork() -> None:
    _uses.hold()
    for database in list(_databases):
        database.before_fork()


def _after_fork_in_parent() -> None:
    _uses.release()


def _after_fork_in_child() -> None:
    global _uses  # noqa: PLW0603 - a thread of the parent may hold the old one's lock
    _uses = _Uses()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


class _LockedError(LogError):
    """Another connection holds the file."""


_CORRUPT: Final = (
    "restore a backup, or rescue what is readable with `sqlite3 FILE .recover` into a new file"
)
_REMEDIES: Final = {
    sqlite3.SQLITE_FULL: "nothing was recorded: free disk space and try again",
    sqlite3.SQLITE_CORRUPT: _CORRUPT,
    sqlite3.SQLITE_NOTADB: _CORRUPT,
    sqlite3.SQLITE_READONLY: "nothing was changed: make the file and its folder writable",
    sqlite3.SQLITE_CANTOPEN: "make sure that its folder exists and is writable",
    sqlite3.SQLITE_IOERR: "check the disk; nothing was recorded",
    sqlite3.SQLITE_PERM: "make the file and its folder writable",
}


def _transact(connection: sqlite3.Connection, work: Work[T], begin: str) -> T:
    connection.execute(begin)
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_busy(error: sqlite3.Error) -> bool:
    return _code(error) in _BUSY


def _is_unwritable(error: sqlite3.Error) -> bool:
    return _code(error) in _UNWRITABLE


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _statements(script: str) -> Generator[str, None, None]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
