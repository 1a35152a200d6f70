"""`TenantStore` keeps LangGraph's store contract, in a folder and on a server.

LangGraph's own in-memory store runs through the same suite, so the suite asks for what is
documented and no more.
"""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime, timedelta

import langgraph.store.qdrant.base
import pytest
from langgraph.store.memory import InMemoryStore
from qdrant_client import QdrantClient

from langchain_ctxmgr.integrations import store as tenant_store
from langchain_ctxmgr.integrations.store import TenantStore
from langchain_ctxmgr.storage.edge_client import EdgeClient
from tests.contracts.store import StoreContract, way
from tests.hashed_words import SIZE, HashedWords
from tests.loopback_store import LoopbackStore

REAL_SERVER = os.environ.get("CTXMGR_TEST_QDRANT_URL")
__all__ = ["way"]


@pytest.fixture
def later(monkeypatch):
    """Lets time go by for the store, and for the package it stands on."""
    gone = timedelta()

    def now():
        return datetime.now(UTC) + gone

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + gone

    monkeypatch.setattr(langgraph.store.qdrant.base, "_now", now)
    monkeypatch.setattr(tenant_store, "datetime", Clock)

    def pass_by(**duration):
        nonlocal gone
        gone += timedelta(**duration)

    return pass_by


class TestInMemory(StoreContract):
    has_ttl = False

    @pytest.fixture
    def store(self):
        return InMemoryStore(index={"dims": SIZE, "embed": HashedWords(), "fields": ["$"]})


class TestEdge(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        with EdgeClient(tmp_path / "store") as client:
            yield TenantStore(client, tenant_id="acme", embeddings=HashedWords(), ttl=self.TTL)


@pytest.fixture(scope="module")
def server():
    with LoopbackStore() as server:
        yield server


class TestServer(StoreContract):
    @pytest.fixture
    def store(self, server):
        name = f"test-{uuid.uuid4().hex}"
        client = QdrantClient(url=REAL_SERVER or server.url)
        yield TenantStore(
            client,
            tenant_id="acme",
            embeddings=HashedWords(),
            ttl=self.TTL,
            collection_name=name,
        )
        if REAL_SERVER:
            client.delete_collection(name)
        client.close()
