"""Qdrant Edge keeps the vector store's contract, and its folder survives what may happen."""

from __future__ import annotations

import pytest

from langchain_ctxmgr.storage.edge import EdgeVectorStore
from tests.contracts.vectors import EMBEDDING, VectorStoreContract


class TestEdgeVectors(VectorStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        store = EdgeVectorStore(tmp_path / "vectors", dense=EMBEDDING)
        yield store
        store.close()

    @pytest.fixture
    def keyword_store(self, tmp_path):
        store = EdgeVectorStore(tmp_path / "keywords")
        yield store
        store.close()
