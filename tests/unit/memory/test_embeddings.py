"""Embedding models by name."""

from __future__ import annotations

import subprocess
import sys

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from langchain_ctxmgr.memory.embeddings import LocalEmbeddings, embeddings_from
from langchain_ctxmgr.storage.vectors import DenseVectors


class TestEmbeddingsFrom:
    def test_no_model_means_keywords_only(self):
        assert embeddings_from(None) is None

    def test_a_langchain_model_is_taken_as_it_is(self):
        model = DeterministicFakeEmbedding(size=8)
        embedder = embeddings_from(model)
        assert embedder is not None
        assert embedder.model is model
        assert embedder.name == "DeterministicFakeEmbedding"
        assert embedder.dense() == DenseVectors(name="DeterministicFakeEmbedding", size=8)

    def test_two_models_have_two_names(self):
        one, other = embeddings_from(LocalEmbeddings("a")), embeddings_from(LocalEmbeddings("b"))
        assert one is not None
        assert other is not None
        assert one.name != other.name

    @pytest.mark.parametrize("spec", ["minilm", "unknown:x", "openai:", 3])
    def test_a_wrong_spec_is_named(self, spec):
        with pytest.raises(ValueError, match="embeddings must be"):
            embeddings_from(spec)

    def test_nothing_is_loaded_before_it_is_used(self):
        code = (
            "import sys; from langchain_ctxmgr.memory.embeddings import embeddings_from;"
            "embeddings_from('sentence-transformers:x'); assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
