"""Vectors move between a folder and a server, broken off or not, and arrive as they were."""

from __future__ import annotations

import json
import random
import shutil
from contextlib import closing
from dataclasses import replace

import pytest
from langchain_core.messages import HumanMessage
from typer.testing import CliRunner

from langchain_ctxmgr import ContextManager
from langchain_ctxmgr.cli import app
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.folder import log_in, open_folder
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.edge import EdgeVectorStore
from langchain_ctxmgr.storage.migration import PLACE_POINTS, PLACES, amove, move
from langchain_ctxmgr.storage.server import QdrantVectorStore
from langchain_ctxmgr.storage.vectors import DenseVectors
from tests.contracts.vectors import ALICE, BOB, EMBEDDING, OTHER, by_term, ids, point
from tests.loopback_qdrant import Fault, LoopbackQdrant

TENANTS = ("acme", "globex", "nobody")
POINTS = 900


@pytest.fixture
def server():
    with LoopbackQdrant() as server:
        yield server


@pytest.fixture
def remote(server):
    store = QdrantVectorStore(server.url, dense=EMBEDDING)
    yield store
    store.close()


@pytest.fixture
def folder(tmp_path):
    chance = random.Random(5)
    store = EdgeVectorStore(tmp_path / "first", dense=EMBEDDING)
    store.upsert(
        [
            point(
                seq,
                chance.choice((ALICE, BOB, OTHER)),
                terms=sorted({chance.randint(1, 50) for _ in range(5)}),
                dense=[chance.gauss(0, 1) for _ in range(4)] if chance.random() < 0.9 else None,
            )
            for seq in sorted(chance.sample(range(1, 10**6), POINTS))
        ]
    )
    yield store
    store.close()


def everything(store):
    found = []
    for tenant in TENANTS:
        found += store.scroll(Scope(tenant_id=tenant), limit=10_000)
    return found


class TestThereAndBack:
    def test_all_points_arrive_and_come_back(self, folder, remote, tmp_path):
        told = []
        there = move(
            folder, remote, TENANTS, progress=lambda done, total: told.append((done, total))
        )
        assert (there.tenants, there.points, there.copied) == (3, POINTS, POINTS)
        assert there.compared == 2 * PLACES * PLACE_POINTS
        assert told[-1] == (POINTS, POINTS)
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        back = EdgeVectorStore(tmp_path / "second", dense=EMBEDDING)
        assert move(remote, back, TENANTS).copied == POINTS
        for one, other in zip(everything(folder), everything(back), strict=True):
            assert (one.id, one.payload, one.sparse) == (other.id, other.payload, other.sparse)
            assert one.dense.keys() == other.dense.keys()
            for name in one.dense:
                assert list(other.dense[name]) == pytest.approx(list(one.dense[name]), abs=2e-3)
        for scope in (ALICE, BOB, OTHER):
            query = [by_term(7, limit=50)]
            assert ids(back.query(scope, query)[0]) == ids(folder.query(scope, query)[0])
        back.close()

    async def test_on_an_event_loop(self, folder, remote):
        assert (await amove(folder, remote, TENANTS)).points == POINTS
        await remote.aclose()


class TestBrokenOff:
    def test_the_next_move_goes_on_where_the_last_one_stopped(self, server, folder, remote):
        remote.setup()
        server.faults = [Fault(path="PUT /collections", status=400, times=0)]
        done = []

        def stop(count, _):
            done.append(count)
            if len(done) == 2:
                server.faults[0].times = 1

        with pytest.raises(StorageError, match="cannot store points"):
            move(folder, remote, TENANTS, progress=stop)
        arrived = len(everything(remote))
        assert 0 < arrived < POINTS
        again = move(folder, remote, TENANTS)
        assert again.points == POINTS
        assert again.copied == POINTS - arrived
        assert move(folder, remote, TENANTS).copied == 0

    def test_a_hole_in_what_is_there_is_filled(self, folder, remote):
        own = folder.scroll(Scope(tenant_id="acme"), limit=10_000)
        remote.upsert([own[3], own[-1]])
        assert move(folder, remote, TENANTS).points == POINTS


class TestNotAlike:
    def test_points_the_source_lacks_are_told(self, folder, remote):
        remote.upsert([point(10**7)])
        with pytest.raises(StorageError, match=r"tenant 'acme'.*empty collection"):
            move(folder, remote, TENANTS)

    @pytest.mark.parametrize(
        "change",
        [
            lambda first: {"payload": {**first.payload, "role": "system"}},
            lambda first: {"sparse": {}},
            lambda first: {"sparse": point(1, terms=(60, 61)).sparse},
            lambda first: {"dense": {} if first.dense else {"dense": [1.0, 0.0, 0.0, 0.0]}},
        ],
    )
    def test_a_point_that_differs_is_told(self, folder, remote, change):
        move(folder, remote, TENANTS)
        (first,) = folder.scroll(Scope(tenant_id="globex"), limit=1)
        remote.upsert([replace(first, **change(first))])
        with pytest.raises(StorageError, match=r"'globex' after id 0 differ"):
            move(folder, remote, TENANTS)

    def test_another_embeddings_vectors_stay_where_they_are(self, folder, server):
        other = QdrantVectorStore(server.url, dense=DenseVectors(name="another", size=4))
        with pytest.raises(ValueError, match="cannot become another's"):
            move(folder, other, TENANTS)
        assert server.collections == {}
        other.close()

    def test_a_store_is_not_moved_onto_itself(self, server, remote):
        same = QdrantVectorStore(server.url, dense=EMBEDDING)
        with pytest.raises(ValueError, match="two stores"):
            move(remote, same, TENANTS)
        same.close()


class TestCommand:
    @pytest.fixture
    def data(self, tmp_path, monkeypatch):
        for name in ("DATA", "EMBEDDINGS", "QDRANT_API_KEY"):
            monkeypatch.delenv(f"CTXMGR_{name}", raising=False)
        path = tmp_path / "data"
        with ContextManager.open(path) as manager:
            for tenant in ("acme", "globex"):
                scope = Scope(tenant_id=tenant, thread_id="t")
                manager.record([HumanMessage(f"{tenant} said {n}") for n in range(40)], scope=scope)
            manager.reindex()
        return path

    def run(self, data, *arguments):
        command = ["migrate", "vectors", "--data", str(data), *arguments]
        return CliRunner().invoke(app, command)

    def test_there_and_back_without_indexing_again(self, data):
        with LoopbackQdrant(api_key="k3y") as server:
            host = server.url.removeprefix("http://")
            url = f"http://k3y@{host}"
            there = self.run(data, "--to", url, "--json")
            assert there.exit_code == 0, there.output
            assert json.loads(there.stdout)["copied"] == 80
            again = self.run(data, "--to", server.url, "--api-key", "k3y")
            assert "80 points of 2 tenants are there, 0 of them copied now" in again.stdout
            with closing(log_in(data)) as log, closing(QdrantVectorStore.from_url(url)) as remote:
                for tenant in ("acme", "globex"):
                    newest = log.last_seq(tenant)
                    assert log.marks(tenant, remote.index_id).words_seq == newest > 0
            shutil.rmtree(data / "vectors")
            back = self.run(data, "--from", url, "--to", "folder")
            assert back.exit_code == 0, back.output
            with closing(open_folder(data, None)) as folder:
                assert folder.vectors.count(Scope(tenant_id="acme")) == 40
                marks = folder.log.marks("acme", folder.vectors.index_id)
                assert marks.words_seq == folder.log.last_seq("acme")

    def test_what_is_wrong_is_one_line_without_the_key(self, data):
        for arguments, says in (
            (("--to", "folder"), "must be a Qdrant URL"),
            (("--to", "http://k3y@q", "--from", "http://k3y@r"), "must be a Qdrant URL"),
            (("--to", "redis://k3y@q"), "url must be"),
            (("--to", "http://k3y@q?collecton=x"), "collecton"),
            (("--to", "http://k3y@q"), "no vectors of keywords alone"),
        ):
            if "no vectors" in says:
                shutil.rmtree(data / "vectors")
            result = self.run(data, *arguments)
            assert result.exit_code == 1
            assert says in result.stderr
            assert "k3y" not in result.output
