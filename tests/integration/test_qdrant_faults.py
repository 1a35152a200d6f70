"""A Qdrant server that is overloaded, slow, gone or not ours: what the store makes of it."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import socket
import threading
import time
import warnings
from datetime import timedelta

import pytest
from langchain_core.messages import HumanMessage

from langchain_ctxmgr import ContextManager
from langchain_ctxmgr._plans import arun
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.memory.index_runs import index_of
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage import server_collection
from langchain_ctxmgr.storage.server import QdrantVectorStore
from langchain_ctxmgr.storage.server_connection import ConnectionSettings
from langchain_ctxmgr.storage.sqlite import SqliteLog
from langchain_ctxmgr.storage.vectors import DenseVectors
from tests.contracts.vectors import ALICE, EMBEDDING, OTHER, by_term, ids, point
from tests.loopback_grpc import LoopbackGrpc
from tests.loopback_qdrant import CERTIFICATE, Fault, LoopbackQdrant

QUICK = ConnectionSettings(timeout=timedelta(seconds=1), patience=timedelta(seconds=4))


@pytest.fixture
def server():
    with LoopbackQdrant() as server:
        yield server


@pytest.fixture
def store(server):
    store = QdrantVectorStore(server.url, dense=EMBEDDING, connection=QUICK)
    store.upsert([point(1)])
    yield store
    store.close()


@pytest.fixture
def pauses(monkeypatch):
    """The pauses between attempts, which are not slept."""
    taken: list[float] = []

    async def anoted(seconds):
        taken.append(seconds)

    monkeypatch.setattr("tenacity.nap.time.sleep", taken.append)
    monkeypatch.setattr("asyncio.sleep", anoted)
    return taken


TRANSIENT = [
    Fault(status=429),
    Fault(status=429, headers={"Retry-After": "1"}),
    Fault(status=429, headers={"Retry-After": "Fri, 31 Dec 2027 23:59:59 GMT"}),
    Fault(status=408),
    Fault(status=500),
    Fault(status=503, headers={"Retry-After": "1"}),
    Fault(is_reset=True),
    Fault(is_reset=True, is_done=True),
    Fault(hang_seconds=1.5),
]


def again(fault, **changes):
    return Fault(**{**vars(fault), "times": 1, **changes})


class TestTransientFaults:
    @pytest.mark.parametrize("fault", TRANSIENT, ids=repr)
    def test_a_write_takes_effect_once_all_the_same(self, server, store, fault, pauses):
        server.faults = [again(fault, path="PUT /collections", times=2)]
        store.upsert([point(seq) for seq in range(1, 4)])
        assert len(pauses) == 2
        assert store.count(ALICE) == 3

    @pytest.mark.parametrize("fault", TRANSIENT, ids=repr)
    async def test_an_async_query_is_answered_all_the_same(self, server, store, fault, pauses):
        server.faults = [again(fault, path="query/batch", times=2)]
        (answer,) = await store.aquery(ALICE, [by_term()])
        assert ids(answer) == [1]
        assert len(pauses) == 2
        await store.aclose()

    def test_the_server_is_given_the_time_it_asks_for(self, server, store, pauses):
        server.faults = [Fault(status=429, headers={"Retry-After": "2"})]
        store.count(ALICE)
        assert 2.0 <= pauses[0] <= 2.2

    def test_pauses_grow_and_differ(self, server, store, pauses):
        for _ in range(20):
            server.faults = [Fault(status=503, times=3)]
            store.count(ALICE)
        by_attempt = [pauses[start::3] for start in range(3)]
        assert all(len(set(each)) > 10 for each in by_attempt)
        assert max(by_attempt[0]) <= 0.2
        assert max(by_attempt[1]) <= 0.4
        assert max(by_attempt[2]) <= 0.8

    def test_attempts_are_bounded(self, server, store, pauses):
        server.faults = [Fault(status=503, times=100)]
        with pytest.raises(StorageError, match=r"cannot count points at http.*503.*reachable"):
            store.count(ALICE)
        assert len(pauses) == QUICK.attempts - 1

    def test_a_longer_wait_than_our_patience_fails_at_once(self, server, store, pauses):
        server.faults = [Fault(status=429, headers={"Retry-After": "3600"}, times=100)]
        with pytest.raises(StorageError, match="limits its load"):
            store.count(ALICE)
        assert pauses == []

    def test_what_is_wrong_with_the_request_is_not_repeated(self, server, store, pauses):
        server.faults = [Fault(status=400, times=100)]
        with pytest.raises(StorageError, match=r"400 Bad Request.*does not take this request"):
            store.count(ALICE)
        assert pauses == []

    def test_nothing_listens(self, pauses):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            store = QdrantVectorStore(url, connection=QUICK)
            with pytest.raises(StorageError, match=r"cannot ask for the version.*reachable"):
                store.setup()
        assert len(pauses) == QUICK.attempts - 1
        store.close()

    def test_a_server_that_comes_back_needs_no_new_store(self, server, store, pauses):
        server.faults = [Fault(is_reset=True, times=QUICK.attempts)]
        with pytest.raises(StorageError):
            store.count(ALICE)
        assert store.count(ALICE) == 1


class TestGrpc:
    @pytest.fixture
    def by_grpc(self, server):
        with LoopbackGrpc(server) as beside:
            store = QdrantVectorStore.from_url(f"{server.url}?grpc=1&grpc_port={beside.port}")
            store.upsert([point(1)])
            yield store
            store.close()

    FAULTS = (
        Fault(status=429),
        Fault(status=429, headers={"Retry-After": "1"}),
        Fault(status=500),
        Fault(status=503),
    )

    @pytest.mark.parametrize("fault", FAULTS, ids=repr)
    async def test_transient_faults_are_tried_again(self, server, by_grpc, fault, pauses):
        server.faults = [again(fault, times=2)]
        assert by_grpc.count(ALICE) == 1
        server.faults = [again(fault, times=2)]
        (answer,) = await by_grpc.aquery(ALICE, [by_term()])
        assert ids(answer) == [1]
        assert len(pauses) == 4
        assert all(pause >= 1.0 for pause in pauses) == bool(fault.headers)
        await by_grpc.aclose()

    async def test_a_wrong_key_is_said_and_not_shown(self, server, by_grpc, pauses):
        server.api_key = "open-sesame"
        with pytest.raises(StorageError, match=r"UNAUTHENTICATED.*check the API key"):
            by_grpc.count(ALICE)
        with pytest.raises(StorageError, match=r"UNAUTHENTICATED.*check the API key"):
            await by_grpc.acount(ALICE)
        assert pauses == []
        await by_grpc.aclose()

    def test_what_another_dropped_is_made_again(self, server, by_grpc):
        second = QdrantVectorStore(server.url)
        second.drop()
        by_grpc.upsert([point(2)])
        assert second.count(ALICE) == 1
        second.close()


class TestRefusals:
    @pytest.mark.parametrize("key", [None, "not-the-secret"])
    def test_a_wrong_key_is_said_and_not_shown(self, key, pauses):
        with LoopbackQdrant(api_key="open-sesame") as server:
            store = QdrantVectorStore(server.url, api_key=key)
            with pytest.raises(StorageError, match=r"401.*check the API key") as caught:
                store.setup()
            assert pauses == []
            assert "not-the-secret" not in f"{caught.value!r} {store!r} {vars(store)}"
            store.close()

    def test_the_right_key_opens_from_an_argument_or_the_url(self):
        with LoopbackQdrant(api_key="open/sesame") as server:
            host = server.url.removeprefix("http://")
            for store in (
                QdrantVectorStore(server.url, api_key="open/sesame"),
                QdrantVectorStore.from_url(f"http://open%2Fsesame@{host}"),
                QdrantVectorStore.from_url(f"http://:open%2Fsesame@{host}"),
            ):
                assert store.count(ALICE) == 0
                assert "sesame" not in f"{store!r} {store.url}"
                store.close()

    def test_an_older_server_would_mix_tenants_words(self):
        with LoopbackQdrant(version="1.18.2") as server:
            store = QdrantVectorStore(server.url)
            with pytest.raises(StorageError, match=r"1\.18\.2; upgrade it to 1\.19"):
                store.upsert([point(1)])
            assert server.collections == {}
            store.close()

    async def test_versions_far_apart_are_warned_of_once(self):
        with LoopbackQdrant(version="1.97.0") as server:
            store = QdrantVectorStore(server.url)
            with pytest.warns(UserWarning, match=r"1\.97\.0.*more than one minor"):
                await store.asetup()
            await store.adrop()
            await store.asetup()
            await store.aclose()

    def test_another_size_of_the_same_embedding_is_refused(self, server, store):
        grown = DenseVectors(name=EMBEDDING.name, size=8)
        other = QdrantVectorStore(server.url, dense=grown)
        with pytest.raises(StorageError, match=r"size 4 and was opened for .*size 8"):
            other.setup()
        other.close()

    def test_vectors_of_two_models_do_not_meet_and_are_erased_together(self, server, store):
        others = DenseVectors(name="another", size=4)
        other = QdrantVectorStore(server.url, dense=others)
        neighbour = QdrantVectorStore(server.url, dense=others, collection="ctxmgr-eu")
        for each in (other, neighbour):
            assert each.count(ALICE) == 0
            each.upsert([point(2), point(3, OTHER)])
        assert ids(store.query(ALICE, [by_term()])[0]) == [1]
        assert store.delete(ALICE) == 1
        assert other.count(ALICE) == 0
        assert other.count(OTHER) == 1
        assert neighbour.count(ALICE) == 1
        other.close()
        neighbour.close()

    def test_a_foreign_collection_is_left_alone(self, server, store):
        collection = next(iter(server.collections.values()))
        collection.asked.metadata = None
        second = QdrantVectorStore(server.url, dense=EMBEDDING)
        with pytest.raises(StorageError, match="not made by langchain-ctxmgr"):
            second.upsert([point(9)])
        second.close()
        assert store.count(ALICE) == 1

    def test_the_loopback_refuses_what_qdrant_refuses(self, server, store):
        collection = next(iter(server.collections.values()))
        del collection.indexes["scopes"]
        with pytest.raises(StorageError, match="Index required but not found"):
            store.count(ALICE)


class TestTls:
    def test_a_certificate_of_an_unknown_authority_is_refused(self, pauses):
        with LoopbackQdrant(is_tls=True) as server:
            store = QdrantVectorStore(server.url)
            with pytest.raises(StorageError, match="give its authority as `verify`"):
                store.setup()
            assert pauses == []
            store.close()

    async def test_a_known_authority_is_trusted(self):
        with LoopbackQdrant(is_tls=True, api_key="secret") as server:
            host = server.url.removeprefix("https://")
            store = QdrantVectorStore.from_url(f"https://secret@{host}?ca={CERTIFICATE}")
            await store.aupsert([point(1)])
            assert store.count(ALICE) == 1
            await store.aclose()

    def test_a_missing_file_of_authorities_is_named(self):
        store = QdrantVectorStore.from_url("https://127.0.0.1:6333?ca=/no/such.pem")
        with pytest.raises(StorageError, match=r"/no/such\.pem.*`ca` in the URL"):
            store.setup()
        store.close()


class TestSharedWithOthers:
    def test_two_that_come_first_make_one_collection(self, server):
        stores = [QdrantVectorStore(server.url, dense=EMBEDDING) for _ in range(8)]
        start = threading.Barrier(len(stores))
        failures = []

        def work(number):
            try:
                start.wait()
                stores[number].upsert([point(number + 1)])
            except Exception as error:  # noqa: BLE001 - reported below
                failures.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(len(stores))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len({store.index_id for store in stores}) == 1
        assert [store.count(ALICE) for store in stores] == [8] * 8
        for store in stores:
            store.close()

    def test_one_that_came_between_finishes_the_indexes(self, server, store):
        (collection,) = server.collections.values()
        names = set(collection.indexes)
        collection.indexes = {"tenant_id": collection.indexes["tenant_id"]}
        second = QdrantVectorStore(server.url, dense=EMBEDDING)
        assert second.count(ALICE) == 1
        assert set(collection.indexes) == names
        second.close()

    def test_what_another_dropped_is_made_again(self, server, store):
        second = QdrantVectorStore(server.url, dense=EMBEDDING)
        second.drop()
        store.upsert([point(2)])
        assert store.count(ALICE) == 1
        second.close()

    def test_what_another_made_anew_gets_another_index_id(self, server, store, monkeypatch):
        before = store.index_id
        second = QdrantVectorStore(server.url, dense=EMBEDDING)
        second.drop()
        second.setup()
        monkeypatch.setattr(server_collection, "IDENTITY_SECONDS", 0.0)
        assert store.index_id == second.index_id != before
        second.close()


class TestLoopsAndProcesses:
    def test_several_event_loops_each_get_a_client(self, server, store):
        async def asked():
            return await store.acount(ALICE)

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert [asyncio.run(asked()) for _ in range(3)] == [1, 1, 1]
            gc.collect()
        assert len(store._connection._by_loop) <= 1
        results = []
        threads = [
            threading.Thread(target=lambda: results.append(asyncio.run(asked()))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [1] * 4

    def test_closing_closes_the_clients_of_other_loops(self, server, store):
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        asyncio.run_coroutine_threadsafe(store.acount(ALICE), loop).result(10)
        ((_, held),) = store._connection._by_loop.items()
        store.close()
        deadline = time.monotonic() + 10
        while not held.client._client.closed and time.monotonic() < deadline:
            time.sleep(0.01)
        assert held.client._client.closed
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    async def test_a_cancelled_write_can_be_repeated(self, server, store):
        server.faults = [Fault(path="PUT /collections", hang_seconds=0.5)]
        task = asyncio.create_task(store.aupsert([point(2)]))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await store.aupsert([point(2)])
        assert await store.acount(ALICE) == 2
        await store.aclose()

    def test_a_forked_child_makes_its_own_connection(self, server, store):
        store.count(ALICE)
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        child = context.Process(target=lambda: answers.put(store.count(ALICE)))
        with warnings.catch_warnings():
            # The loopback server's thread makes this process one with threads.
            warnings.simplefilter("ignore", DeprecationWarning)
            child.start()
        assert answers.get(timeout=20) == 1
        child.join()
        assert store.count(ALICE) == 1


class TestRouting:
    def test_a_tenant_with_its_own_shard_is_kept_there(self, server):
        layout = server_collection.CollectionSettings(
            tenant_shards=True, shard_number=1, replication_factor=2, write_consistency_factor=1
        )
        store = QdrantVectorStore(server.url, layout=layout)
        store.setup()
        (collection,) = server.collections.values()
        assert collection.asked.replication_factor == 2
        assert collection.asked.write_consistency_factor == 1
        collection.add_shard("globex")
        store.upsert([point(1, ALICE), point(2, OTHER)])
        held = {key: shard.info().points_count for key, shard in collection.shards.items()}
        assert held == {"shared": 1, "globex": 1}
        assert [store.count(scope) for scope in (ALICE, OTHER)] == [1, 1]
        assert store.delete(Scope(tenant_id="globex")) == 1
        assert [store.count(scope) for scope in (ALICE, OTHER)] == [1, 0]
        store.close()


class TestIndexing:
    async def test_no_worker_thread_waits_while_the_server_is_asked_who_it_is(
        self, store, monkeypatch
    ):
        known = store._shared._found
        store._shared._found = known._replace(at=float("-inf"))

        monkeypatch.setattr(store._connection, "_client", None)
        assert await arun(index_of(store)) == known.identity.index_id

    def test_a_run_that_fails_keeps_no_other_process_from_the_tenant(self, server, tmp_path):
        connection = ConnectionSettings(attempts=1)
        log = SqliteLog(tmp_path / "log.sqlite3")
        store = QdrantVectorStore(server.url, connection=connection)
        scope = Scope(tenant_id="acme", thread_id="t")
        with ContextManager(log=log, vectors=store, model="gpt-4o-mini") as manager:
            server.faults.append(Fault("points", status=503))
            manager.record(HumanMessage("My parcel is in the harbour."), scope=scope)
            with ContextManager(log=log, vectors=store, model="gpt-4o-mini") as other:
                assert other.stats(scope=scope)["index"]["behind"] == 1
                other.recall("parcel", scope=scope)
                assert other.stats(scope=scope)["index"]["behind"] == 0
        store.close()
        log.close()
