"""What a search costs a Qdrant server: one request, but for what has to be asked now and then."""

from __future__ import annotations

import pytest

from langchain_ctxmgr.storage import server as server_module
from langchain_ctxmgr.storage.server import QdrantVectorStore
from tests.contracts.vectors import ALICE, EMBEDDING, OTHER, by_term, ids, point
from tests.loopback_qdrant import LoopbackQdrant


@pytest.fixture
def server():
    with LoopbackQdrant() as server:
        yield server


@pytest.fixture
def store(server):
    store = QdrantVectorStore(server.url, dense=EMBEDDING)
    store.upsert([point(1)])
    yield store
    store.close()


def asked(server):
    """The requests since it was last called: their last part."""
    paths = [request.rpartition("/")[2] for request in server.requests]
    server.requests.clear()
    return paths


class TestSizeOfAScope:
    def test_it_is_counted_for_the_first_search_alone(self, server, store):
        asked(server)
        store.query(ALICE, [by_term()])
        assert asked(server) == ["count", "batch"]
        store.query(ALICE, [by_term()])
        assert asked(server) == ["batch"]

    async def test_it_is_counted_for_each_scope(self, server, store):
        await store.aquery(ALICE, [by_term()])
        asked(server)
        await store.aquery(OTHER, [by_term()])
        assert asked(server) == ["count", "batch"]
        await store.aclose()

    def test_it_is_counted_again_once_it_is_old(self, server, store, monkeypatch):
        monkeypatch.setattr(server_module, "SIZE_SECONDS", 0.0)
        store.query(ALICE, [by_term()])
        asked(server)
        store.query(ALICE, [by_term()])
        assert asked(server) == ["count", "batch"]

    def test_it_is_counted_again_after_an_erasure(self, server, store):
        store.query(ALICE, [by_term()])
        store.delete(ALICE)
        store.upsert([point(2)])
        asked(server)
        (answer,) = store.query(ALICE, [by_term()])
        assert ids(answer) == [2]
        assert asked(server) == ["count", "batch"]

    def test_it_is_counted_again_in_a_collection_made_anew(self, server, store):
        store.query(ALICE, [by_term()])
        store.drop()
        store.upsert([point(3)])
        asked(server)
        store.query(ALICE, [by_term()])
        assert asked(server) == ["count", "batch"]

    def test_no_more_sizes_are_kept_than_a_bound(self, server, store, monkeypatch):
        monkeypatch.setattr(server_module, "_MOST_SIZES", 1)
        for scope in (ALICE, OTHER, ALICE):
            store.query(scope, [by_term()])
        assert len(store._sizes) == 1
