"""A Qdrant server keeps the vector store's contract, over REST, over gRPC and with routing by tenant."""

from __future__ import annotations

import os
import uuid

import pytest

from langchain_ctxmgr.storage.server import QdrantVectorStore
from langchain_ctxmgr.storage.server_requests import CollectionSettings
from tests.contracts.vectors import EMBEDDING, VectorStoreContract
from tests.loopback_grpc import LoopbackGrpc
from tests.loopback_qdrant import LoopbackQdrant

REAL_SERVER = os.environ.get("CTXMGR_TEST_QDRANT_URL")


@pytest.fixture(scope="module")
def loopback():
    with LoopbackQdrant() as server:
        yield server


@pytest.fixture(scope="module")
def grpc_url(loopback):
    with LoopbackGrpc(loopback) as beside:
        yield f"{loopback.url}?grpc=1&grpc_port={beside.port}"


class TestLoopbackServer(VectorStoreContract):
    @pytest.fixture
    def store(self, loopback):
        yield from opened(loopback.url, dense=EMBEDDING)

    @pytest.fixture
    def keyword_store(self, loopback):
        yield from opened(loopback.url)


class TestLoopbackServerByTenant(VectorStoreContract):
    LAYOUT = CollectionSettings(tenant_shards=True)

    @pytest.fixture
    def store(self, loopback):
        yield from opened(loopback.url, dense=EMBEDDING, layout=self.LAYOUT)

    @pytest.fixture
    def keyword_store(self, loopback):
        yield from opened(loopback.url, layout=self.LAYOUT)


class TestLoopbackServerByGrpc(VectorStoreContract):
    @pytest.fixture
    def store(self, grpc_url):
        yield from opened(grpc_url, dense=EMBEDDING)

    @pytest.fixture
    def keyword_store(self, grpc_url):
        yield from opened(grpc_url)


if REAL_SERVER is not None:

    @pytest.mark.parametrize("grpc", ["0", "1"])
    class TestRealServer(VectorStoreContract):
        @pytest.fixture
        def store(self, grpc):
            yield from opened(f"{REAL_SERVER}?grpc={grpc}", dense=EMBEDDING)

        @pytest.fixture
        def keyword_store(self, grpc):
            yield from opened(f"{REAL_SERVER}?grpc={grpc}")


def opened(url, **options):
    """A store with a collection of its own, removed at the end."""
    mark = "&" if "?" in url else "?"
    named = f"{url}{mark}collection=test-{uuid.uuid4().hex}"
    store = QdrantVectorStore.from_url(named, **options)
    yield store
    store.close()
    cleaner = QdrantVectorStore.from_url(named, **options)
    cleaner.drop()
    cleaner.close()
