"""The folder of the vectors: who owns it, what breaks it, what is left in it."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import threading
from collections import namedtuple

import pytest

from langchain_ctxmgr.errors import ShardInUseError, StorageError
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage import edge as edge_module
from langchain_ctxmgr.storage import edge_folder, edge_owner
from langchain_ctxmgr.storage.edge import EdgeVectorStore
from langchain_ctxmgr.storage.edge_owner import LOCK_FILE
from langchain_ctxmgr.storage.vectors import (
    BM25,
    DENSE,
    DenseVectors,
    Point,
    SparseVector,
    VectorQuery,
)

EMBEDDING = DenseVectors(name="small", size=4)
ACME = Scope(tenant_id="acme", thread_id="secret-thread")
GLOBEX = Scope(tenant_id="globex", thread_id="t")
BY_TERM = VectorQuery(BM25, SparseVector((1,), (1.0,)), 10)


def point(seq, scope=ACME, term=1, dense=(1.0, 0.5, 0.25, 0.125)):
    return Point(
        id=seq,
        payload={"tenant_id": scope.tenant_id, "thread_id": scope.thread_id, "slot": seq},
        sparse={BM25: SparseVector((term,), (1.0,))},
        dense={DENSE: dense},
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "vectors"


@pytest.fixture
def opened():
    stores = []

    def open_store(folder, dense=EMBEDDING):
        stores.append(EdgeVectorStore(folder, dense=dense))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def run(script, *arguments, timeout=60):
    """Run `script` in a process of its own; a hang is a failure."""
    prelude = """
        import os, sys
        from langchain_ctxmgr.errors import ShardInUseError
        from langchain_ctxmgr.storage.edge import EdgeVectorStore
        from tests.integration.test_edge_folder import ACME, BY_TERM, EMBEDDING, point
        store = EdgeVectorStore(sys.argv[1], dense=EMBEDDING)
    """
    source = textwrap.dedent(prelude) + textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, "-c", source, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def shard_folders(folder):
    return sorted(entry.name for entry in folder.glob("shard-*"))


class TestOpening:
    def test_construction_touches_nothing(self, folder, opened):
        opened(folder)
        assert not folder.exists()

    def test_a_closed_folder_opens_again_as_the_same_index(self, folder, opened):
        first = opened(folder)
        first.upsert([point(1)])
        index_id = first.index_id
        first.close()
        again = opened(folder)
        assert again.index_id == index_id
        assert [hit.id for hit in again.query(ACME, [BY_TERM])[0]] == [1]

    def test_a_missing_folder_is_made_with_its_parents(self, tmp_path, opened):
        opened(tmp_path / "a" / "b").setup()
        assert (tmp_path / "a" / "b" / "index.json").exists()

    def test_a_file_in_the_folders_place_is_a_clear_error(self, folder, opened):
        folder.write_text("not a folder")
        with pytest.raises(StorageError, match="vectors"):
            opened(folder).setup()

    @pytest.mark.parametrize(
        ("other", "says"),
        [
            (DenseVectors(name="small", size=8), "size 4.*size 8"),
            (DenseVectors(name="large", size=4), "small.*large"),
            (None, "small vectors of size 4.*no dense vectors"),
        ],
    )
    def test_another_embedding_is_told_with_both_sizes(self, folder, opened, other, says):
        first = opened(folder)
        first.upsert([point(1)])
        first.close()
        with pytest.raises(StorageError, match=says):
            opened(folder, other).count(ACME)
        assert opened(folder).count(ACME) == 1

    def test_closing_lets_go_of_a_folder_that_was_removed(self, folder, opened):
        store = opened(folder)
        store.upsert([point(1)])
        shutil.rmtree(folder)
        store.close()
        again = opened(folder)
        again.upsert([point(2)])
        assert again.count(ACME) == 1

    def test_left_overs_are_removed_and_other_files_stay(self, folder, opened):
        store = opened(folder)
        store.upsert([point(1)])
        store.close()
        (folder / "shard-left-over").mkdir()
        (folder / "index.json.0.tmp").write_text("{")
        (folder / "notes.txt").write_text("mine")
        assert opened(folder).count(ACME) == 1
        assert len(shard_folders(folder)) == 1
        assert not list(folder.glob("*.tmp"))
        assert (folder / "notes.txt").read_text() == "mine"


class TestOwnership:
    def test_a_store_that_is_refused_leaves_the_owners_files_alone(self, folder, opened):
        store = opened(folder)
        for number in range(1, 4):
            store.upsert([point(number)])
            store.flush()
            with pytest.raises(ShardInUseError, match="server mode"):
                opened(folder).setup()
        store.upsert([point(9)])
        store.close()
        assert opened(folder).count(ACME) == 4

    def test_a_second_store_is_told_who_to_ask(self, folder, opened):
        opened(folder).upsert([point(1)])
        with pytest.raises(ShardInUseError, match=r"in use.*server mode"):
            opened(folder).count(ACME)
        with pytest.raises(ShardInUseError):
            opened(folder).drop()
        assert folder.exists()

    def test_a_second_process_is_told_and_takes_over_after_close(self, folder, opened):
        store = opened(folder)
        store.upsert([point(1)])
        ask = """
            try:
                print(store.count(ACME))
            except ShardInUseError as error:
                print("in use:", error)
        """
        assert run(ask, folder).stdout.startswith("in use:")
        store.close()
        assert run(ask, folder).stdout == "1\n"

    def test_of_processes_starting_at_once_one_owns_a_new_folder(self, folder):
        script = """
            from tests.integration.test_edge_folder import *
            import time
            store = EdgeVectorStore(sys.argv[1], dense=EMBEDDING)
            try:
                store.upsert([point(1)])
                print("owner", store.count(ACME), flush=True)
                sys.stdin.read()
            except ShardInUseError:
                print("other", flush=True)
        """
        source = "import sys\n" + textwrap.dedent(script)
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", source, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        told = sorted(process.stdout.readline().strip() for process in processes)
        for process in processes:
            process.communicate("")
        assert told == ["other", "other", "other", "owner 1"]
        assert len(shard_folders(folder)) == 1

    def test_a_forked_child_is_told_and_harms_nothing(self, folder):
        done = run(
            """
            store.upsert([point(seq) for seq in range(1, 101)])
            store.query(ACME, [BY_TERM])
            for ending in ("_exit", "exit"):
                pid = os.fork()
                if pid == 0:
                    import signal
                    signal.alarm(20)
                    for use in (store.setup, store.flush, lambda: store.index_id,
                                lambda: store.query(ACME, [BY_TERM]),
                                lambda: store.upsert([point(500)]), store.drop,
                                lambda: store.delete(ACME)):
                        try:
                            use()
                        except ShardInUseError as error:
                            assert "fork" in str(error)
                        else:
                            os._exit(7)
                    store.close()
                    if ending == "exit":
                        sys.exit(0)
                    del store
                    os._exit(0)
                _, status = os.waitpid(pid, 0)
                print("child", status, flush=True)
            print("parent", store.count(ACME), len(store.query(ACME, [BY_TERM])[0]))
            store.upsert([point(101)])
            store.close()
            again = EdgeVectorStore(sys.argv[1], dense=EMBEDDING)
            print("again", again.count(ACME))
            """,
            folder,
        )
        assert done.stdout.split("\n") == [
            "child 0",
            "child 0",
            "parent 100 10",
            "again 101",
            "",
        ], done.stderr

    def test_a_store_not_yet_open_can_be_opened_in_a_forked_child(self, folder):
        done = run(
            """
            pid = os.fork()
            if pid == 0:
                store.upsert([point(1)])
                store.close()
                os._exit(0)
            os.waitpid(pid, 0)
            print(store.count(ACME))
            """,
            folder,
        )
        assert done.stdout == "1\n", done.stderr


class TestDamage:
    @pytest.fixture
    def closed(self, folder, opened):
        store = opened(folder)
        store.upsert([point(seq) for seq in range(1, 51)])
        store.close()
        return folder

    def shard(self, folder):
        return folder / json.loads((folder / "index.json").read_text())["shard"]

    def garbage(self, folder):
        (folder / "index.json").write_text("{not json")

    def empty(self, folder):
        (folder / "index.json").write_text("")

    def list_instead(self, folder):
        (folder / "index.json").write_text("[]")

    def newer(self, folder):
        fields = json.loads((folder / "index.json").read_text())
        (folder / "index.json").write_text(json.dumps({**fields, "schema": 99}))

    def no_shard(self, folder):
        shutil.rmtree(self.shard(folder))

    def no_segments(self, folder):
        shutil.rmtree(self.shard(folder) / "segments")

    def bad_segment(self, folder):
        for file in (self.shard(folder) / "segments").rglob("segment.json"):
            file.write_text("{")

    def bad_config(self, folder):
        (self.shard(folder) / "edge_config.json").write_text("{")

    def short_pages(self, folder):
        for file in (self.shard(folder) / "segments").rglob("tracker.dat"):
            file.write_bytes(b"")

    @pytest.mark.parametrize(
        "damage",
        [
            "garbage",
            "empty",
            "list_instead",
            "newer",
            "no_shard",
            "no_segments",
            "bad_segment",
            "bad_config",
            "short_pages",
        ],
    )
    def test_a_damaged_folder_says_how_to_mend_it_and_drop_does(self, closed, opened, damage):
        getattr(self, damage)(closed)
        broken = opened(closed)
        with pytest.raises(StorageError, match="ctxmgr reindex"):
            broken.count(ACME)
        broken.drop()
        broken.upsert([point(1)])
        assert broken.count(ACME) == 1

    def test_without_its_index_file_a_folder_starts_again(self, closed, opened):
        (closed / "index.json").unlink()
        store = opened(closed)
        assert store.count(ACME) == 0
        assert len(shard_folders(closed)) == 1


class TestFullDisk:
    def test_a_full_disk_is_told_before_anything_is_written(self, folder, opened, monkeypatch):
        store = opened(folder)
        store.upsert([point(1)])
        usage = namedtuple("usage", "total used free")  # noqa: PYI024 - as shutil's
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(2**40, 2**40, 2**20))
        with pytest.raises(StorageError, match=r"full: 1 MiB free"):
            store.upsert([point(2)])
        with pytest.raises(StorageError, match="full"):
            store.delete(ACME)
        assert [hit.id for hit in store.query(ACME, [BY_TERM])[0]] == [1]
        monkeypatch.undo()
        store.upsert([point(2)])
        assert store.count(ACME) == 2

    def test_a_disk_that_fills_while_erasing_finishes_later(self, folder, opened, monkeypatch):
        store = opened(folder)
        store.upsert([point(1), point(2, GLOBEX)])
        usage = namedtuple("usage", "total used free")  # noqa: PYI024 - as shutil's
        answers = iter([2**40, 2**20])
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(2**40, 0, next(answers)))
        with pytest.raises(StorageError, match="full"):
            store.delete(ACME)
        monkeypatch.undo()
        assert store.count(ACME) == 0
        assert holding(folder, b"secret-thread")
        store.close()
        again = opened(folder)
        assert again.count(GLOBEX) == 1
        assert not holding(folder, b"secret-thread")


def holding(folder, text):
    return [file for file in folder.rglob("*") if file.is_file() and text in file.read_bytes()]


class TestErasing:
    def test_no_file_holds_an_erased_thread_or_its_vectors(self, folder, opened):
        store = opened(folder)
        term = 1_234_567_891
        numbers = (0.6, 0.8, 0.0, 0.0)
        stored = struct.pack("<4e", *numbers)
        written = [struct.pack(">I", term), stored, b"secret-thread", b"acme"]
        store.upsert([point(seq, term=term, dense=numbers) for seq in range(1, 20)])
        store.upsert([point(seq, GLOBEX) for seq in range(20, 30)])
        store.flush()
        assert [each for each in written if not holding(folder, each)] == []
        assert store.delete(ACME) == 19
        assert [each for each in written if holding(folder, each)] == []
        assert store.count(GLOBEX) == 10
        assert len(shard_folders(folder)) == 1

    def test_dropping_leaves_nothing(self, folder, opened):
        store = opened(folder)
        store.upsert([point(1)])
        store.drop()
        assert [path.name for path in folder.iterdir()] == [LOCK_FILE]

    def test_a_folder_is_owned_until_it_is_gone(self, folder, opened, monkeypatch):
        store = opened(folder)
        store.upsert([point(1)])
        remove, tried = edge_folder.remove, []

        def refused(path):
            with pytest.raises(ShardInUseError):
                opened(path).setup()
            remove(path)
            tried.append(path)

        monkeypatch.setattr(edge_folder, "remove", refused)
        store.remove()
        assert tried == [folder]
        assert not folder.exists()

    def test_a_lock_on_a_removed_file_is_none(self, folder, opened, monkeypatch):
        folder.mkdir()
        lock = edge_owner._lock

        def removed_meanwhile(file):
            (folder / LOCK_FILE).unlink()
            lock(file)

        monkeypatch.setattr(edge_owner, "_lock", removed_meanwhile)
        with pytest.raises(ShardInUseError):
            opened(folder).setup()


class Held:
    """A step of a store's erasure, held in its thread before or after what it does."""

    def __init__(self, monkeypatch, store, step, place):
        self.reached, self.go_on = threading.Event(), threading.Event()
        work = getattr(store, step)

        def held(*arguments):
            if place == "after":
                work(*arguments)
            self.reached.set()
            assert self.go_on.wait(30)
            if place == "before":
                work(*arguments)

        monkeypatch.setattr(store, step, held)

    async def wait(self):
        assert await asyncio.to_thread(self.reached.wait, 30)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("step", ["_make", "_flush_next", "_remove"])
class TestErasingOnAnEventLoop:
    async def test_when_cancelled_it_ends_with_its_thread_and_is_finished_later(
        self, folder, opened, monkeypatch, step, place
    ):
        store = opened(folder)
        store.upsert([point(seq, term=1_234_567_891) for seq in range(1, 40)])
        store.upsert([point(seq, GLOBEX) for seq in range(40, 60)])
        with monkeypatch.context() as patch:
            held = Held(patch, store, step, place)
            erasing = asyncio.ensure_future(store.adelete(ACME))
            await held.wait()
            store.upsert([point(60, GLOBEX)])
            erasing.cancel()
            await asyncio.sleep(0)
            assert not erasing.done()
            held.go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await erasing
        assert (store.count(ACME), store.count(GLOBEX)) == (0, 21)
        assert len(shard_folders(folder)) == 1
        assert store._apart == {}
        await store.adelete(ACME)
        store.close()
        assert len(shard_folders(folder)) == 1
        assert not holding(folder, b"secret-thread")
        assert opened(folder).count(GLOBEX) == 21

    async def test_what_is_dropped_meanwhile_stays_dropped(
        self, folder, opened, monkeypatch, step, place
    ):
        store = opened(folder)
        store.upsert([point(seq) for seq in range(1, 40)])
        store.upsert([point(seq, GLOBEX) for seq in range(40, 60)])
        with monkeypatch.context() as patch:
            held = Held(patch, store, step, place)
            erasing = asyncio.ensure_future(store.adelete(ACME))
            await held.wait()
            store.drop()
            store.upsert([point(99, GLOBEX)])
            held.go_on.set()
            assert await asyncio.wait_for(erasing, 30) == 39
        assert store.count(GLOBEX) == 1
        assert len(shard_folders(folder)) == 1
        assert store._apart == {}
        assert await store.adelete(GLOBEX) == 1


async def test_what_is_flushed_in_the_new_shard_is_not_counted_as_unflushed(
    folder, opened, monkeypatch
):
    store = opened(folder)
    store.upsert([point(seq) for seq in range(1, 40)])
    store.upsert([point(seq, GLOBEX) for seq in range(40, 60)])
    assert store._unflushed == 59
    held = Held(monkeypatch, store, "_flush_next", "after")
    erasing = asyncio.ensure_future(store.adelete(ACME))
    await held.wait()
    store.upsert([point(60, GLOBEX)])
    held.go_on.set()
    await erasing
    assert store._unflushed == 1


class TestCrash:
    def test_a_killed_process_loses_nothing_acknowledged(self, folder, opened):
        script = """
            from tests.integration.test_edge_folder import *
            store = EdgeVectorStore(sys.argv[1], dense=EMBEDDING)
            seq = store.count(ACME)
            while True:
                batch = [point(seq + n) for n in range(1, 8)]
                store.upsert(batch)
                seq += 7
                print(seq, flush=True)
        """
        source = "import sys\n" + textwrap.dedent(script)
        acknowledged = 0
        for lines in (1, 40, 7, 150, 23):
            process = subprocess.Popen(
                [sys.executable, "-c", source, str(folder)], stdout=subprocess.PIPE, text=True
            )
            for _ in range(lines):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            rest = process.communicate()[0].split()
            acknowledged = max(acknowledged, *map(int, rest)) if rest else acknowledged
            store = opened(folder)
            kept = store.count(ACME)
            assert kept >= acknowledged
            assert [each.id for each in store.scroll(ACME, limit=10**6)] == list(range(1, kept + 1))
            store.close()

    def test_an_erasure_killed_half_way_is_finished_on_opening(self, folder, opened):
        done = run(
            """
            from langchain_ctxmgr.storage import edge_shard
            from tests.integration.test_edge_folder import GLOBEX
            store.upsert([point(seq) for seq in range(1, 40)])
            store.upsert([point(seq, GLOBEX) for seq in range(40, 200)])
            pages = 0
            def dying(*arguments, page=edge_shard.page):
                global pages
                pages += 1
                if pages == 3:
                    os._exit(9)
                return page(*arguments)
            edge_shard.page = dying
            store.delete(ACME)
            """,
            folder,
        )
        assert done.returncode == 9, done.stderr
        assert holding(folder, b"secret-thread")
        store = opened(folder)
        assert store.count(GLOBEX) == 160
        assert store.count(ACME) == 0
        assert not holding(folder, b"secret-thread")

    def test_many_points_are_flushed_on_the_way(self, folder, opened, monkeypatch):
        monkeypatch.setattr(edge_module, "FLUSH_POINTS", 10)
        store = opened(folder)
        store.upsert([point(seq) for seq in range(1, 100)])
        assert store._unflushed < 10 + edge_module.SLICE_POINTS
