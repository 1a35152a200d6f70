"""Embedding models by name."""

from __future__ import annotations

import subprocess
import sys

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

from langchain_ctxmgr._plans import run
from langchain_ctxmgr.memory.embeddings import (
    Embedder,
    LocalEmbeddings,
    UnknownSizeError,
    embeddings_from,
)
from langchain_ctxmgr.storage.vectors import DenseVectors


class Settled(Embeddings):
    """A model of the host's own, told apart by where it is."""

    def __init__(self, at, api_key=None):
        self.at = at
        self.api_key = api_key

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text):
        return [1.0, float(len(text))]


def name_of(model):
    embedder = embeddings_from(model)
    assert embedder is not None
    return embedder.name


class TestEmbeddingsFrom:
    def test_no_model_means_keywords_only(self):
        assert embeddings_from(None) is None

    def test_a_langchain_model_is_taken_as_it_is(self):
        model = DeterministicFakeEmbedding(size=8)
        embedder = embeddings_from(model)
        assert embedder is not None
        assert embedder.model is model
        assert "DeterministicFakeEmbedding:" in embedder.name
        with pytest.raises(UnknownSizeError, match="not answered"):
            embedder.dense()
        run(embedder.learn())
        assert embedder.dense() == DenseVectors(name=embedder.name, size=8)

    def test_two_models_have_two_names(self):
        one, other = embeddings_from(LocalEmbeddings("a")), embeddings_from(LocalEmbeddings("b"))
        assert one is not None
        assert other is not None
        assert one.name != other.name

    def test_what_runs_a_model_is_part_of_its_name(self):
        named = {name_of(LocalEmbeddings("a")), name_of(LocalEmbeddings("a", backend="onnx"))}
        specs = {"sentence-transformers:a", "sentence-transformers-onnx:a"}
        assert len(named) == 2
        assert {name_of(spec) for spec in specs} == specs

    def test_models_of_one_class_go_by_their_plain_settings(self):
        named = [name_of(Settled(at)) for at in ("a", "a", "b")]
        assert named[0] == named[1] != named[2]
        assert name_of(DeterministicFakeEmbedding(size=8)) != name_of(
            DeterministicFakeEmbedding(size=9)
        )

    def test_a_secret_is_no_part_of_the_name(self):
        assert name_of(Settled("a", api_key="one")) == name_of(Settled("a", api_key="other"))

    def test_what_nothing_tells_apart_must_be_named(self):
        class Opaque(Settled):
            def __init__(self):
                self._weights = object()

        with pytest.raises(ValueError, match=r"Embedder\(embeddings, name="):
            embeddings_from(Opaque())
        assert name_of(Embedder(Opaque(), name="mine")) == "mine"

    @pytest.mark.parametrize(("model", "name"), [(5, "x"), (LocalEmbeddings("a"), " ")])
    def test_a_wrong_embedder_is_refused(self, model, name):
        with pytest.raises(ValueError, match="must be"):
            Embedder(model, name)

    @pytest.mark.parametrize("spec", ["minilm", "unknown:x", "openai:", 3])
    def test_a_wrong_spec_is_named(self, spec):
        with pytest.raises(ValueError, match="embeddings must be"):
            embeddings_from(spec)

    def test_an_openai_model_without_credentials_says_what_to_set(self, monkeypatch):
        for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(ValueError, match="'openai:x' needs credentials: set OPENAI_API_KEY"):
            embeddings_from("openai:x")

    def test_nothing_is_loaded_before_it_is_used(self):
        code = (
            "import sys; from langchain_ctxmgr.memory.embeddings import embeddings_from;"
            "embeddings_from('sentence-transformers:x'); assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
