"""One file, many users: what goes wrong with files, and what users are told."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
import time
from collections import deque
from contextlib import closing
from datetime import timedelta

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.storage.sqlite import SqliteLog
from langchain_ctxmgr.storage.sqlite_database import MIGRATIONS
from tests.contracts.message_log import ALICE, BOB, draft, ids, talk


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.db"


@pytest.fixture
def log(path):
    with SqliteLog(path, busy_timeout=timedelta(seconds=0.2)) as log:
        yield log


class TestOpening:
    def test_the_folder_is_made(self, tmp_path):
        with SqliteLog(tmp_path / "a" / "b" / "log.db") as log:
            log.append(ALICE, talk(1))
        assert (tmp_path / "a" / "b" / "log.db").exists()

    def test_a_folder_it_makes_is_for_its_owner_alone_and_one_it_finds_is_left(self, tmp_path):
        found = tmp_path / "found"
        found.mkdir()
        found.chmod(0o755)
        for folder, mode in ((tmp_path / "made", 0o700), (found, 0o755)):
            with SqliteLog(folder / "log.db"):
                assert stat.S_IMODE(folder.stat().st_mode) == mode

    def test_a_constructor_touches_nothing(self, path):
        SqliteLog(path)
        assert not path.exists()

    def test_a_path_that_is_no_file_is_named(self):
        for path in (":memory:", "", "file:log.db?mode=ro", "a\0b", b"log.db", None, 5):
            with pytest.raises(ValueError, match=r"path must .*got"):
                SqliteLog(path)

    @pytest.mark.parametrize("wrong", [timedelta(0), timedelta(seconds=-1), 0, 10, "10", None])
    def test_a_busy_timeout_must_be_positive(self, path, wrong):
        with pytest.raises(ValueError, match=r"busy_timeout must .*got"):
            SqliteLog(path, busy_timeout=wrong)

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(StorageError, match=r"folder .*file.* cannot be made"):
            SqliteLog(tmp_path / "file" / "log.db").setup()

    def test_a_folder_in_the_files_place_is_named(self, tmp_path):
        with pytest.raises(StorageError, match="unable to open"):
            SqliteLog(tmp_path).setup()

    def test_a_file_that_is_no_database_says_how_to_mend_it(self, path):
        path.write_bytes(b"not a database" * 400)
        with pytest.raises(StorageError, match="restore a backup"):
            SqliteLog(path).setup()

    def test_another_programs_database_is_left_alone(self, path):
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE theirs (x)")
        with pytest.raises(StorageError, match="another program"):
            SqliteLog(path).setup()

    def test_a_newer_schema_asks_for_an_upgrade(self, path):
        SqliteLog(path).setup()
        with closing(sqlite3.connect(path)) as other:
            other.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        with pytest.raises(StorageError, match="upgrade langchain-ctxmgr"):
            SqliteLog(path).setup()

    def test_many_may_open_a_new_file_at_once(self, path):
        logs = [SqliteLog(path) for _ in range(8)]
        errors = []

        def open_one(log, number):
            try:
                log.append(ALICE, [draft("x", f"m{number}")])
            except StorageError as error:
                errors.append(error)

        threads = [threading.Thread(target=open_one, args=(log, n)) for n, log in enumerate(logs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(list(logs[0].history(ALICE))) == 8
        for log in logs:
            log.close()


class TestDamage:
    def test_a_damaged_file_says_how_to_mend_it(self, path):
        with SqliteLog(path) as log:
            log.append(ALICE, talk(200))
        size = path.stat().st_size
        with path.open("r+b") as file:
            for page in range(2, size // 4096):
                file.seek(page * 4096)
                file.write(os.urandom(64))
        log = SqliteLog(path)
        with pytest.raises(StorageError, match="restore a backup"):
            list(log.history(ALICE))
        log.close()

    def test_a_damaged_message_is_named(self, log, path):
        log.append(ALICE, talk(3))
        with closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE contents SET payload = x'00' WHERE seq = 2")
            other.commit()
        with pytest.raises(StorageError, match=r"position 1 of thread 't1'"):
            list(log.history(ALICE))

    def test_a_full_disk_records_nothing_and_says_so(self, log):
        log.append(ALICE, talk(2))

        def shrink(connection):
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")

        log._database.read(shrink)
        with pytest.raises(StorageError, match="free disk space"):
            log.append(ALICE, [draft("x" * 100_000, "big")])
        log._database.read(lambda c: c.execute("PRAGMA max_page_count = 1000000"))
        assert ids(log.append(ALICE, talk(3))) == ["m2"]
        assert log.verify().ok

    def test_a_read_only_file_says_so(self, log):
        log.append(ALICE, talk(1))
        log._database.read(lambda c: c.execute("PRAGMA query_only = 1"))
        with pytest.raises(StorageError, match="writable"):
            log.append(ALICE, talk(2))
        assert ids(log.history(ALICE)) == ["m0"]


class TestWaiting:
    @pytest.fixture
    def holder(self, log, path):
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield other

    def test_a_writer_that_waits_too_long_is_told(self, log, holder):
        with pytest.raises(StorageError, match=r"locked by another writer for 0.2 s"):
            log.append(ALICE, talk(1))
        holder.execute("ROLLBACK")
        assert len(log.append(ALICE, talk(1))) == 1

    def test_readers_do_not_wait_for_a_writer(self, log, holder):
        assert log.branch(ALICE).head is None

    async def test_a_locked_file_does_not_hold_up_the_event_loop(self, path, log, holder):
        patient = SqliteLog(path, busy_timeout=timedelta(seconds=5))
        patient.setup()
        append = asyncio.create_task(patient.aappend(ALICE, talk(1)))
        ticks = 0
        while ticks < 20:
            await asyncio.sleep(0.005)
            ticks += 1
        assert not append.done()
        holder.execute("ROLLBACK")
        assert len(await append) == 1
        patient.close()

    async def test_a_busy_thread_of_this_process_does_not_hold_up_the_event_loop(self, log):
        started, release = threading.Event(), threading.Event()

        def hold(_connection):
            started.set()
            release.wait(5)

        holder = threading.Thread(target=log._database.exclusive, args=(hold,))
        holder.start()
        started.wait(5)
        append = asyncio.create_task(log.aappend(ALICE, talk(1)))
        await asyncio.sleep(0.02)
        assert not append.done()
        assert (await log.abranch(ALICE)).head is None
        release.set()
        assert len(await append) == 1
        holder.join()

    def test_a_failure_within_a_transaction_leaves_it_undone(self, log):
        def fail(connection):
            connection.execute("INSERT INTO claims VALUES (1, 'x', 'y', 9e9)")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            log._database.write(fail)
        assert log.claim("acme", "x", "z", timedelta(0))
        log.set_erased("acme", "x", 2)

    async def test_small_appends_run_in_place_and_long_ones_in_a_thread(self, log, monkeypatch):
        hops = []
        to_thread = asyncio.to_thread

        async def counted(function, *args):
            hops.append(function)
            return await to_thread(function, *args)

        monkeypatch.setattr(asyncio, "to_thread", counted)
        await log.aappend(ALICE, talk(2))
        await log.aturns(ALICE, [1, 2])
        await log.abranch(ALICE)
        assert hops == []
        await log.aappend(ALICE, talk(100))
        assert len(hops) == 1

    @pytest.mark.parametrize(
        "message",
        [
            HumanMessage("word " * 20_000),
            HumanMessage([{"type": "text", "text": "word " * 20_000}]),
            AIMessage("", tool_calls=[{"name": "f", "args": {"a": ["x" * 99_999]}, "id": "c"}]),
        ],
    )
    async def test_one_large_message_is_written_in_a_thread(self, log, monkeypatch, message):
        in_place = []
        awrite = log._database.awrite

        async def counted(work, **options):
            in_place.append(work)
            return await awrite(work, **options)

        monkeypatch.setattr(log._database, "awrite", counted)
        assert len(await log.aappend(ALICE, [draft("x", "m0")._replace(message=message)])) == 1
        assert in_place == []
        await log.aappend(ALICE, [draft("short", "m1")])
        assert len(in_place) == 1

    async def test_the_wal_is_copied_back_off_the_event_loop(self, log, path):
        for number in range(1_200):
            await log.aappend(ALICE, [draft("x" * 4_000, f"m{number}", terms=())])
        size = path.with_name("log.db-wal").stat().st_size
        assert size < 12_000_000
        assert path.stat().st_size > 2_000_000


class TestForking:
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_opens_the_file_anew(self, log):
        log.append(ALICE, talk(2))
        inherited = {id(connection) for connection in log._database._waiting}
        child = os.fork()
        if child == 0:
            try:
                log.append(ALICE, talk(3))
                fresh = {id(connection) for connection in log._database._waiting}
                os._exit(0 if fresh and not fresh & inherited else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        log.append(ALICE, talk(4))
        assert ids(log.history(ALICE)) == ["m0", "m1", "m2", "m3"]
        assert log.verify().ok

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_fork_while_a_thread_writes_does_not_hang_the_child(self, log):
        release = threading.Event()
        started = threading.Event()

        def hold(_connection):
            started.set()
            release.wait(5)

        holder = threading.Thread(target=log._database.exclusive, args=(hold,))
        holder.start()
        started.wait(5)
        child = os.fork()
        if child == 0:
            try:
                log.append(BOB, talk(1))
                os._exit(0)
            finally:
                os._exit(2)
        status = os.waitpid(child, 0)[1]
        release.set()
        holder.join()
        assert status == 0


class TestClosing:
    def test_closing_while_others_read_ends_them_cleanly(self, path):
        log = SqliteLog(path)
        log.append(ALICE, talk(50))
        unexpected = []

        def work():
            try:
                while True:
                    list(log.history(ALICE))
            except StorageError:
                pass
            except BaseException as error:  # noqa: BLE001 - reported below
                unexpected.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        log.close()
        for thread in threads:
            thread.join(5)
        assert unexpected == []
        assert not log._database._waiting

    def test_an_idle_connection_that_another_thread_takes_first_is_not_missed(self, log):
        class Raced(deque):
            def __bool__(self):
                return True

        log._database._waiting = Raced()
        assert log.branch(ALICE).head is None

    def test_idle_connections_are_bounded(self, log):
        barrier = threading.Barrier(20)
        threads = [
            threading.Thread(target=log._database.read, args=(lambda _: barrier.wait(5),))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(log._database._waiting) <= 8
