"""What is costly is made once, and a cache that is down costs an event."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings

from langchain_ctxmgr._plans import Plan, arun, run
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.events import Degraded, Event
from langchain_ctxmgr.memory.cached import Cached
from langchain_ctxmgr.memory.embeddings import Embedder, QuestionVectors
from langchain_ctxmgr.memory.local import Encoded, Tokens
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.cache import MemoryCache
from langchain_ctxmgr.storage.vectors import DenseVectors

SCOPE = Scope(tenant_id="acme", thread_id="t1")
OTHER = Scope(tenant_id="globex", thread_id="t1")
HOUR = timedelta(hours=1)


class Down:
    """A cache that cannot be reached."""

    asked = 0

    def __getattr__(self, name: str):
        self.asked += 1
        raise StorageError("the cache is down")


class Model(Embeddings):
    def __init__(self, *numbers: float) -> None:
        self.asked: list[str] = []
        self.numbers = list(numbers) or [0.1, 0.2]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError

    def embed_query(self, text: str) -> list[float]:
        self.asked.append(text)
        return self.numbers


def giving(value: bytes) -> Plan[bytes]:
    return value
    yield


class TestCached:
    def test_a_value_is_made_once(self):
        cached = Cached(MemoryCache())
        for made in (b"one", b"two"):
            assert run(cached.value(SCOPE, "k", lambda m=made: giving(m), ttl=HOUR)) == b"one"
        assert (cached.stats.hits, cached.stats.misses, cached.stats.hit_ratio) == (1, 1, 0.5)

    def test_nothing_asked_is_no_ratio_of_hits(self):
        assert Cached(MemoryCache()).stats.hit_ratio == 0.0

    def test_what_could_not_be_made_is_not_kept(self):
        def failing() -> Plan[bytes]:
            raise ConnectionError("model is down")
            yield

        cached = Cached(MemoryCache())
        with pytest.raises(ConnectionError):
            run(cached.value(SCOPE, "k", failing, ttl=HOUR))
        assert run(cached.value(SCOPE, "k", lambda: giving(b"v"), ttl=HOUR)) == b"v"

    async def test_a_cache_that_is_down_is_a_miss_told_once_and_left_alone(self):
        told: list[Event] = []
        down = Down()
        cached = Cached(down, listeners=(told.append,))
        for _ in range(3):
            value = cached.value(SCOPE, "k", lambda: giving(b"v"), ttl=HOUR)
            assert await arun(value) == b"v"
        assert run(cached.value(SCOPE, "k", lambda: giving(b"v"), ttl=HOUR)) == b"v"
        assert [event.part for event in told if isinstance(event, Degraded)] == ["cache"]
        assert down.asked == 1
        assert cached.stats.misses == 4

    def test_erasing_never_degrades(self):
        with pytest.raises(StorageError, match="down"):
            run(Cached(Down()).erase(SCOPE))

    def test_what_is_erased_while_it_is_made_is_not_kept(self):
        cache = MemoryCache()
        cached = Cached(cache)

        def made() -> Plan[bytes]:
            yield from cached.erase(Scope(tenant_id="acme"))
            return b"v"

        assert run(cached.value(SCOPE, "k", made, ttl=HOUR)) == b"v"
        assert cache.get(SCOPE, "k") is None


class TestQuestionVectors:
    def test_a_question_is_asked_of_the_model_once_for_each_scope(self):
        model = Model(0.1, 0.2)
        questions = QuestionVectors(Embedder(model, "m"), Cached(MemoryCache()))
        vectors = [run(questions.encoded(SCOPE, "who?", None)).vector for _ in range(3)]
        assert model.asked == ["who?"]
        assert vectors == [[float(np.float32(0.1)), float(np.float32(0.2))]] * 3
        run(questions.encoded(OTHER, "who?", None))
        run(questions.encoded(SCOPE, "what?", None))
        assert model.asked == ["who?", "who?", "what?"]

    def test_token_vectors_are_kept_along(self):
        class Telling(Model):
            def embed_turns(self, turns):
                raise NotImplementedError

            def embed_question(self, question):
                self.asked.append(question)
                vectors = np.array([[0.6, 0.8], [1.0, 0.0]], dtype=np.float32)
                return Encoded([0.5, 0.5], Tokens([(0, 3), (3, 4)], vectors))

            async def aembed_turns(self, turns):
                return self.embed_turns(turns)

            async def aembed_question(self, question):
                return self.embed_question(question)

        model = Telling()
        questions = QuestionVectors(Embedder(model, "m"), Cached(MemoryCache()))
        made, kept = (run(questions.encoded(SCOPE, "who?", None)) for _ in range(2))
        assert model.asked == ["who?"]
        assert made.vector == kept.vector == [0.5, 0.5]
        assert made.tokens.spans == kept.tokens.spans == [(0, 3), (3, 4)]
        assert np.array_equal(made.tokens.vectors, kept.tokens.vectors)

    def test_two_models_and_two_sizes_do_not_share_vectors(self):
        cached, model = Cached(MemoryCache()), Model(0.1, 0.2)
        for name, size in (("m", 2), ("n", 2)):
            dense = DenseVectors(name=name, size=size)
            run(QuestionVectors(Embedder(model, name), cached).encoded(SCOPE, "q", dense))
        assert model.asked == ["q", "q"]
        with pytest.raises(ValueError, match="the index has 3"):
            run(
                QuestionVectors(Embedder(model, "m"), cached).encoded(
                    SCOPE, "q", DenseVectors(name="m", size=3)
                )
            )

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e300])
    def test_a_vector_that_cannot_be_searched_is_not_kept(self, number):
        cache = MemoryCache()
        model = Model(number, 0.0)
        questions = QuestionVectors(Embedder(model, "m"), Cached(cache))
        for _ in range(2):
            with pytest.raises(ValueError, match="not finite"):
                run(questions.encoded(SCOPE, "q", DenseVectors(name="m", size=2)))
        assert model.asked == ["q", "q"]
        assert cache.forget(SCOPE) == 0

    def test_the_words_of_a_question_do_not_stand_in_its_key(self):
        keys: list[str] = []

        class Told(MemoryCache):
            def put(self, scope, key, value, *, ttl=None):
                keys.append(key)
                super().put(scope, key, value, ttl=ttl)

        questions = QuestionVectors(Embedder(Model(), "m"), Cached(Told()))
        run(questions.encoded(SCOPE, "canary", None))
        assert len(keys) == 1
        assert "canary" not in keys[0]
