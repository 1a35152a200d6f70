"""Indexing and recall over a real log and a real index."""

from __future__ import annotations

import asyncio
import hashlib
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_ctxmgr._plans import arun, run
from langchain_ctxmgr.analysis import cues, message_text, terms, words
from langchain_ctxmgr.budget.tokens import counter_for
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.events import CaughtUp, Degraded, Event
from langchain_ctxmgr.folder import open_folder
from langchain_ctxmgr.memory.breaker import Breakers
from langchain_ctxmgr.memory.embeddings import Embedder
from langchain_ctxmgr.memory.index_run import BATCH
from langchain_ctxmgr.memory.indexer import Indexer, Part
from langchain_ctxmgr.memory.local import Encoded, Tokens
from langchain_ctxmgr.memory.points import TIE_BREAK, keyword_vectors
from langchain_ctxmgr.memory.recall import ARM_LIMIT, LATE_LIMIT, NEAR_TURNS, Recall, Recalled
from langchain_ctxmgr.memory.retriever import MemoryRetriever
from langchain_ctxmgr.records import Contribution, Draft, Explanation, Memory, Scope
from langchain_ctxmgr.storage.edge import EdgeVectorStore
from langchain_ctxmgr.storage.message_log import IndexMarks
from langchain_ctxmgr.storage.sqlite import SqliteLog
from langchain_ctxmgr.storage.vectors import DENSE, DenseVectors, VectorStore

COUNTER = counter_for("gpt-4o-mini")
START = datetime(2025, 5, 1, 9, tzinfo=UTC)
TENANT = "acme"
SCOPE = Scope(tenant_id=TENANT, thread_id="t")


class BagOfWords(Embeddings):
    """A model whose similarity is the share of common words; fails on demand."""

    down = False

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.down:
            raise ConnectionError("model is down")
        return [self._vector(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    def _vector(self, text: str) -> list[float]:
        vector = np.full(64, 1e-3)
        for word in words(text):
            vector[hashlib.sha256(word.encode()).digest()[0] % 64] += 1
        return (vector / np.linalg.norm(vector)).tolist()


class InContext(BagOfWords):
    """The same model reading turns in their context, with a vector for each word."""

    def __init__(self) -> None:
        self.before: dict[str, str] = {}

    def embed_turns(self, turns: Sequence[tuple[str, str]]) -> list[Encoded]:
        self.before.update((turn, before) for before, turn in turns)
        return [self._encoded(f"{before} {turn}", turn) for before, turn in turns]

    def embed_question(self, question: str) -> Encoded:
        return self._encoded(question, question)

    async def aembed_turns(self, turns: Sequence[tuple[str, str]]) -> list[Encoded]:
        return self.embed_turns(turns)

    async def aembed_question(self, question: str) -> Encoded:
        return self.embed_question(question)

    def _encoded(self, read: str, text: str) -> Encoded:
        if self.down:
            raise ConnectionError("model is down")
        spans = [match.span() for match in re.finditer(r"\w+", text)]
        seeds = [list(text[start:end].casefold().encode()) for start, end in spans]
        rows = [np.random.default_rng(seed).normal(size=64) for seed in seeds]
        return Encoded(self._vector(read), Tokens(spans, np.array(rows, dtype=np.float32)))


class Broken:
    """A vector store that is down."""

    calls = 0

    def __getattr__(self, name: str):
        self.calls += 1
        raise StorageError("the vectors are down")


class Bench:
    """A log, an index and what happened."""

    def __init__(self, log: SqliteLog, vectors: VectorStore | None, model: Embeddings | None):
        self.events: list[Event] = []
        self.log, self.vectors, self.model = log, vectors, model
        embedder = None if model is None else Embedder(model, "words")
        listeners = (self.events.append,)
        breakers = Breakers.of(listeners)
        self.indexer = Indexer(log, vectors, embedder, breakers=breakers, listeners=listeners)
        self.recall = Recall(log, vectors, embedder, COUNTER, breakers=breakers)

    def say(self, *texts: str, scope: Scope = SCOPE, speakers: Sequence[str] = ("Ada", "Ben")):
        kinds = (HumanMessage, AIMessage)
        first = self.log.tenant_stats(scope).records
        messages = [
            kinds[(first + i) % 2](text, name=speakers[(first + i) % 2])
            for i, text in enumerate(texts)
        ]
        return self.append(messages, scope=scope, first=first)

    def append(self, messages: Sequence[BaseMessage], *, scope: Scope = SCOPE, first: int = 0):
        drafts = [
            Draft(
                message=message,
                at=START + timedelta(minutes=first + i),
                tokens=COUNTER.message(message),
                encoding=COUNTER.name,
                importance=0.5,
                terms=terms(message_text(message)),
                cues=int(cues(message_text(message))),
            )
            for i, message in enumerate(messages)
        ]
        return self.log.append(scope, drafts)

    def find(self, question: str, *, scope: Scope = SCOPE, **settings) -> Recalled:
        asked_at = START + timedelta(days=1)
        return run(self.recall.find(scope, question, asked_at=asked_at, **settings))

    def texts(self, question: str, **settings) -> list[str]:
        return [memory.text for memory in self.find(question, **settings).memories]

    @property
    def degraded(self) -> list[str]:
        return [event.part for event in self.events if isinstance(event, Degraded)]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(tmp_path / "log.sqlite3")
    yield log
    log.close()


@pytest.fixture
def words_only(log: SqliteLog, tmp_path: Path) -> Iterator[Bench]:
    vectors = EdgeVectorStore(tmp_path / "vectors")
    yield Bench(log, vectors, None)
    vectors.close()


@pytest.fixture
def bench(log: SqliteLog, tmp_path: Path) -> Iterator[Bench]:
    vectors = EdgeVectorStore(tmp_path / "vectors", dense=DenseVectors(name="words", size=64))
    yield Bench(log, vectors, BagOfWords())
    vectors.close()


CHAT = (
    "The weather was fine.",
    "My boat is called Petrel.",
    "We painted the fence.",
    "I bought a green kettle.",
    "The bus was late.",
    "I keep bees behind the house.",
)


class TestRecall:
    @pytest.mark.parametrize("fixture", ["words_only", "bench"])
    def test_the_turn_that_answers_comes_first(self, fixture: str, request):
        bench: Bench = request.getfixturevalue(fixture)
        bench.say(*CHAT)
        run(bench.indexer.catch_up(TENANT))
        assert bench.texts("What is Ben's boat called?", k=1) == [CHAT[1]]

    def test_what_was_just_said_is_found_before_it_is_indexed(self, words_only: Bench):
        words_only.say(*CHAT, "I saw a kayak.")
        run(words_only.indexer.catch_up(TENANT))
        words_only.say("The colour of my kayak is orange.")
        found = words_only.texts("What colour is the kayak?", k=2)
        assert set(found) == {"The colour of my kayak is orange.", "I saw a kayak."}

    def test_an_answer_without_the_words_is_found_beside_its_question(self, words_only: Bench):
        words_only.say(*CHAT, "Where do you moor the boat?", "Down by the mill.", *CHAT)
        run(words_only.indexer.catch_up(TENANT))
        assert "Down by the mill." in words_only.texts("Where does he moor it?", k=2)

    def test_the_block_stays_within_its_budget(self, bench: Bench):
        bench.say(*CHAT * 5)
        run(bench.indexer.catch_up(TENANT))
        for max_tokens in (0, 20, 40, 80, 160):
            found = bench.find("boat fence kettle bees", max_tokens=max_tokens)
            assert COUNTER.text(found.block) <= found.tokens <= max_tokens

    def test_the_view_is_not_recalled_a_second_time(self, bench: Bench):
        bench.say(*CHAT)
        run(bench.indexer.catch_up(TENANT))
        assert CHAT[5] not in bench.texts("Where are the bees?", before_slot=5)

    def test_what_the_view_shows_is_not_recalled_and_the_rest_says_what_it_carries(
        self, bench: Bench
    ):
        bench.say(*CHAT)
        run(bench.indexer.catch_up(TENANT))
        (boat,) = bench.find("What is the boat called?", k=1).carried
        found = bench.find("What is the boat called?", shown={2})
        assert boat not in found.carried
        assert found.carried == {memory.id: 0.5 for memory in found.memories}

    def test_a_turn_indexed_during_the_question_is_found(self, words_only: Bench, monkeypatch):
        words_only.say(*CHAT)
        run(words_only.indexer.catch_up(TENANT))
        words_only.say("My kayak is orange.")
        ask = words_only.vectors.query

        def overtaken(*args, **settings):
            answer = ask(*args, **settings)
            run(words_only.indexer.catch_up(TENANT))
            return answer

        monkeypatch.setattr(words_only.vectors, "query", overtaken)
        assert words_only.texts("kayak?", k=1) == ["My kayak is orange."]

    async def test_the_model_is_never_loaded_on_the_event_loop(self, log: SqliteLog, tmp_path):
        threads: list[threading.Thread] = []

        class Slow(BagOfWords):
            def embed_query(self, text: str) -> list[float]:
                threads.append(threading.current_thread())
                return super().embed_query(text)

        embedder = Embedder(Slow(), "words")
        vectors = EdgeVectorStore(tmp_path / "vectors", dense=embedder.dense)
        recall = Recall(log, vectors, embedder, COUNTER)
        await arun(recall.find(SCOPE, "boat?", asked_at=START))
        vectors.close()
        assert threads
        assert threading.main_thread() not in threads

    def test_another_branch_is_not_recalled(self, bench: Bench):
        bench.append([HumanMessage(text, id=f"m{i}") for i, text in enumerate(CHAT)])
        fork = [HumanMessage(CHAT[0], id="m0"), HumanMessage("My boat is Heron.", id="f")]
        bench.append(fork)
        run(bench.indexer.catch_up(TENANT))
        branch = bench.log.branch(SCOPE)
        assert bench.texts("boat?", branch=branch) == ["My boat is Heron.", CHAT[0]]

    def test_a_revised_message_is_recalled_as_it_is_now(self, bench: Bench):
        bench.append([HumanMessage("The code is 1111.", id="m0")])
        bench.append([HumanMessage("The code is 2222.", id="m0")])
        run(bench.indexer.catch_up(TENANT))
        assert bench.texts("What is the code?") == ["The code is 2222."]

    def test_tenants_and_threads_stay_apart(self, bench: Bench):
        others = [Scope(tenant_id="other", thread_id="t"), Scope(tenant_id="acme", thread_id="u")]
        for other in others:
            bench.say("My boat is secret.", scope=other)
        bench.say(*CHAT)
        run(bench.indexer.catch_up(TENANT))
        bench.say("boats", scope=others[0])
        assert not any("secret" in text for text in bench.texts("boat", k=20))
        found = bench.texts("boat", scope=Scope(tenant_id="acme"), k=20)
        assert "My boat is secret." in found
        assert "boats" not in found

    def test_no_tenant_is_an_error_and_not_a_degradation(self, bench: Bench):
        with pytest.raises(ValueError, match="tenant_id"):
            bench.find("boat", scope=Scope(thread_id="t"))
        assert bench.degraded == []

    def test_each_memory_says_how_it_was_found(self, bench: Bench):
        bench.say(*CHAT)
        run(bench.indexer.catch_up(TENANT))
        (memory,) = bench.find("What is the boat called?", k=1).memories
        assert {"terms", "dense", "session"} <= memory.arms.keys()
        assert sum(memory.arms.values()) == pytest.approx(memory.score, abs=0.01)
        assert (memory.slot, memory.speaker, memory.role) == (1, "Ben", "ai")

    def test_each_memory_explains_its_score_when_asked_to(self, bench: Bench):
        bench.say(*CHAT)
        run(bench.indexer.catch_up(TENANT))
        (plain,) = bench.find("What is the boat called?", k=1).memories
        (memory,) = bench.find("What is the boat called?", k=1, explain=True).memories
        assert plain.explanation is None
        assert memory == replace(plain, explanation=memory.explanation)
        why = memory.explanation
        assert (why.score, why.rank, why.candidates) == (memory.score, 1, len(CHAT))
        assert {each.arm: each.value for each in why.contributions} == {
            arm: value for arm, value in memory.arms.items() if value
        }
        sizes = [abs(each.value) for each in why.contributions]
        assert sizes == sorted(sizes, reverse=True)
        own = {each.arm: each.raw for each in why.contributions}
        assert own["terms"] > 0
        assert 0 < own["dense"] <= 1
        assert own["session"] is None
        assert all(each.description for each in why.contributions)

    def test_words_that_nobody_said_recall_nothing(self, words_only: Bench):
        words_only.say(*CHAT)
        run(words_only.indexer.catch_up(TENANT))
        assert words_only.find("Zeppelin?").memories == ()
        assert words_only.find("").block == ""

    async def test_blocking_and_async_find_the_same(self, bench: Bench):
        bench.say(*CHAT)
        assert (await arun(bench.indexer.catch_up(TENANT))).indexed == len(CHAT)
        asked_at = START + timedelta(days=1)
        found = await arun(bench.recall.find(SCOPE, "bees?", asked_at=asked_at, max_tokens=60))
        assert found == bench.find("bees?", max_tokens=60)

    @pytest.mark.parametrize("asker", ["human", "ai", "tool"])
    def test_who_alone_said_the_searched_word_comes_first(self, bench: Bench, asker: str):
        said = {"human": HumanMessage, "ai": AIMessage, "tool": HumanMessage}[asker]
        found = said("The crate is 4471-B, in row 3.")
        if asker == "tool":
            found = ToolMessage("crate 4471-B row 3", tool_call_id="c")
        talk = [HumanMessage(f"And where is crate number {i}?") for i in range(6)]
        bench.append([*talk[:3], found, *talk[3:]])
        run(bench.indexer.catch_up(TENANT))
        assert "4471-B" in bench.texts("4471-B", k=2)[0]


class TestNeighbours:
    def test_a_single_hit_is_looked_around_farther(self, bench: Bench):
        bench.say(*(f"chatter {n}" for n in range(300)), "My boat is called Petrel.")
        bench.say(*(f"small talk {n}" for n in range(300)))
        run(bench.indexer.catch_up(TENANT))
        keywords = Recall(bench.log, bench.vectors, None, COUNTER)
        found = run(keywords.find(SCOPE, "Petrel?", asked_at=START, k=1_000))
        assert found.memories[0].text == "My boat is called Petrel."
        assert len(found.memories) == NEAR_TURNS + 1

    def test_what_only_the_name_in_a_question_found_is_still_a_neighbour(self, words_only: Bench):
        filler = [f"chatter {n}" for n in range(9)]
        words_only.say(*filler, "The kettle is green.", "Ben, is it?", *filler, "Ben!")
        run(words_only.indexer.catch_up(TENANT))
        found = words_only.texts("Which kettle has Ben?", k=100)
        without = words_only.texts("Which kettle?", k=100)
        assert "Ben, is it?" in found
        assert sorted(found) == sorted(without)


class TestInContext:
    @pytest.fixture
    def in_context(self, log: SqliteLog, tmp_path: Path) -> Iterator[Bench]:
        dense = DenseVectors(name="words in context", size=64)
        vectors = EdgeVectorStore(tmp_path / "vectors", dense=dense)
        yield Bench(log, vectors, InContext())
        vectors.close()

    def test_a_turn_is_read_after_the_two_before_it(self, in_context: Bench):
        in_context.say("one", "two", "three", "four")
        run(in_context.indexer.catch_up(TENANT))
        assert in_context.model.before == {
            "Ada: one": "",
            "Ben: two": "Ada: one\n",
            "Ada: three": "Ada: one\nBen: two\n",
            "Ben: four": "Ben: two\nAda: three\n",
        }

    def test_it_is_the_same_however_the_turns_arrive(self, in_context: Bench):
        in_context.say("one", "two", "three")
        run(in_context.indexer.catch_up(TENANT, limit=1))
        run(in_context.indexer.catch_up(TENANT))
        in_context.say("four")
        run(in_context.indexer.catch_up(TENANT))
        assert in_context.model.before["Ada: three"] == "Ada: one\nBen: two\n"
        assert in_context.model.before["Ben: four"] == "Ben: two\nAda: three\n"

    def test_another_thread_and_an_earlier_session_are_no_context(self, in_context: Bench):
        in_context.say("one")
        in_context.say("apart", scope=Scope(tenant_id=TENANT, thread_id="other"))
        late = timedelta(days=2) // timedelta(minutes=1)
        in_context.append([HumanMessage("next day", name="Ada")], first=late)
        run(in_context.indexer.catch_up(TENANT))
        assert set(in_context.model.before.values()) == {""}

    def test_words_are_compared_one_by_one(self, in_context: Bench):
        in_context.say("the boat is red", "the lamp is lit", "the rope is long", "wind")
        run(in_context.indexer.catch_up(TENANT))
        found = in_context.find("lamp lit?", k=1)
        assert found.memories[0].text == "the lamp is lit"
        assert found.memories[0].arms["late"] > 0

    def test_who_says_a_thing_first_gains_by_it(self, in_context: Bench):
        in_context.say("the lamp is lit", "the wind is cold", "the lamp is dark")
        run(in_context.indexer.catch_up(TENANT))
        found = in_context.find("lamp?", k=3)
        first = {memory.text: memory.arms["first"] for memory in found.memories}
        assert first["the lamp is lit"] > first["the lamp is dark"] >= 0

    def test_rarity_is_of_all_that_was_said_not_of_the_hits(self, in_context: Bench):
        in_context.say(*(f"the boat is number {n}" for n in range(40)), "a boat with a lamp")
        run(in_context.indexer.catch_up(TENANT))
        found = in_context.find("boat lamp?", k=1)
        assert found.memories[0].text == "a boat with a lamp"

    @pytest.mark.parametrize(
        ("turns", "weighed"), [(LATE_LIMIT, LATE_LIMIT), (LATE_LIMIT + 1, ARM_LIMIT)]
    )
    def test_a_short_thread_is_weighed_whole(self, in_context: Bench, turns: int, weighed: int):
        in_context.say(*(f"the boat is number {n}" for n in range(turns)))
        run(in_context.indexer.catch_up(TENANT))
        branch = in_context.log.branch(SCOPE)
        found = in_context.find("wind?", branch=branch, k=turns, explain=True, score_threshold=0)
        told = [memory.explanation for memory in found.memories if memory.explanation]
        raw = [{part.arm: part.raw for part in each.contributions} for each in told]
        assert sum(parts.get("late") is not None for parts in raw) == weighed

    def test_what_the_view_leaves_out_of_a_thread_is_weighed_whole(self, in_context: Bench):
        in_context.say(*(f"the boat is number {n}" for n in range(2 * LATE_LIMIT)))
        run(in_context.indexer.catch_up(TENANT))
        found = in_context.find("wind?", before_slot=LATE_LIMIT, k=LATE_LIMIT, score_threshold=0)
        assert len(found.memories) == LATE_LIMIT

    def test_without_the_codes_the_other_arms_answer(self, in_context: Bench, monkeypatch):
        in_context.say("the boat is red", "the lamp is lit", "wind")
        run(in_context.indexer.catch_up(TENANT))

        def broken(scope: Scope, ids: Sequence[int]) -> dict[int, str]:
            raise StorageError("the codes are gone")

        monkeypatch.setattr(in_context.vectors, "codes", broken)
        found = in_context.find("lamp lit?", k=1)
        assert found.memories[0].text == "the lamp is lit"
        assert "late" not in found.memories[0].arms
        assert in_context.degraded == ["vectors"]


class TestDegraded:
    def test_without_the_index_the_log_is_searched_and_it_is_told_once(self, log: SqliteLog):
        store = Broken()
        bench = Bench(log, store, None)  # type: ignore[arg-type]
        bench.say(*CHAT)
        for _ in range(3):
            assert bench.texts("What is the boat called?", k=1) == [CHAT[1]]
        assert bench.degraded == ["vectors"]
        assert store.calls == 1

    def test_without_the_model_keywords_recall(self, bench: Bench):
        bench.say(*CHAT)
        run(bench.indexer.catch_up(TENANT))
        bench.model.down = True
        assert bench.texts("What is the boat called?", k=1) == [CHAT[1]]
        assert bench.degraded == ["embeddings"]

    @pytest.mark.parametrize("vector", [[0.1] * 63, [float("nan")] * 64, []])
    def test_a_bad_vector_of_the_question_leaves_keywords(self, bench: Bench, vector, monkeypatch):
        bench.say(*CHAT)
        run(bench.indexer.catch_up(TENANT))
        monkeypatch.setattr(bench.model, "embed_query", lambda text: vector)
        assert bench.texts("What is the boat called?", k=1) == [CHAT[1]]
        assert bench.degraded == ["embeddings"]


class TestIndexer:
    @pytest.mark.parametrize(
        "vectors", [[[0.1] * 64] * 2, [[0.1] * 63] * len(CHAT), [[float("inf")] * 64] * len(CHAT)]
    )
    def test_bad_vectors_leave_the_keywords_indexed(self, bench: Bench, vectors, monkeypatch):
        bench.say(*CHAT)
        monkeypatch.setattr(bench.model, "embed_documents", lambda texts: vectors)
        assert run(bench.indexer.catch_up(TENANT)).indexed == len(CHAT)
        marks = bench.log.marks(TENANT, bench.vectors.index_id)
        assert marks == IndexMarks(words_seq=bench.log.last_seq(TENANT))
        assert bench.vectors.count(SCOPE) == len(CHAT)
        assert bench.degraded == ["embeddings"]

    def test_equal_texts_have_weights_of_their_own(self):
        weights = [keyword_vectors([7, 7, 9], seq) for seq in range(1, 2_000)]
        for arm in weights[0]:
            firsts = [vectors[arm].values[0] for vectors in weights]
            assert len(set(firsts)) == len(firsts)
            assert max(firsts) / min(firsts) < 1 + TIE_BREAK

    def test_it_takes_in_what_is_new_and_nothing_twice(self, bench: Bench):
        bench.say(*CHAT)
        assert run(bench.indexer.catch_up(TENANT)).indexed == len(CHAT)
        assert run(bench.indexer.catch_up(TENANT)).indexed == 0
        assert bench.vectors.count(SCOPE) == len(CHAT)
        assert bench.events == [CaughtUp(indexed=len(CHAT), remaining=0)]

    def test_a_long_backlog_is_taken_in_steps(self, bench: Bench):
        bench.say(*(f"Line {i}." for i in range(BATCH + 20)))
        seen: list[int] = []
        first = run(bench.indexer.catch_up(TENANT, limit=10))
        assert (first.indexed, first.remaining) == (10, BATCH + 10)
        rest = run(bench.indexer.catch_up(TENANT, progress=seen.append))
        assert (rest.indexed, rest.remaining) == (BATCH + 10, 0)
        assert seen == [BATCH, BATCH + 10]

    def test_embeddings_that_were_missing_are_caught_up(self, bench: Bench, monkeypatch):
        bench.model.down = True
        bench.say(*CHAT)
        assert run(bench.indexer.catch_up(TENANT)).indexed == len(CHAT)
        assert not any(DENSE in point.dense for point in bench.vectors.scroll(SCOPE))
        assert bench.degraded == ["embeddings"]
        bench.model.down = False
        monkeypatch.setattr("langchain_ctxmgr.memory.breaker.REST_SECONDS", 0.0)
        bench.indexer._breakers.embeddings.failed(ConnectionError())
        assert run(bench.indexer.catch_up(TENANT)).remaining == 0
        assert all(DENSE in point.dense for point in bench.vectors.scroll(SCOPE))

    def test_a_new_index_is_filled_from_the_start(self, bench: Bench):
        bench.say(*CHAT)
        run(bench.indexer.catch_up(TENANT))
        bench.vectors.drop()
        assert run(bench.indexer.catch_up(TENANT)).indexed == len(CHAT)

    def test_a_store_that_is_down_leaves_the_marks(self, log: SqliteLog):
        bench = Bench(log, Broken(), None)  # type: ignore[arg-type]
        bench.say(*CHAT)
        assert run(bench.indexer.catch_up(TENANT)).indexed == 0
        assert bench.degraded == ["vectors"]

    def test_what_is_erased_while_it_is_indexed_is_gone(self, bench: Bench):
        bench.say(*CHAT)

        class Erasing(BagOfWords):
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                bench.log.erase(SCOPE)
                return super().embed_documents(texts)

        bench.indexer._embedder.model = Erasing()
        run(bench.indexer.catch_up(TENANT))
        assert bench.vectors.count(SCOPE) == 0

    def test_an_erasure_does_not_wait_for_the_end_of_a_long_run(self, bench: Bench):
        bench.say(*(f"Line {i}." for i in range(3 * BATCH)))
        removed: list[int] = []

        class Erasing(BagOfWords):
            """The second batch is erased from, by another thread, while it is embedded."""

            batches = 0

            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                self.batches += 1
                if self.batches == 2:
                    bench.log.erase(SCOPE)
                    eraser.start()
                return super().embed_documents(texts)

        eraser = threading.Thread(
            target=lambda: removed.append(run(bench.indexer.erase("acme", [Part(SCOPE)])))
        )
        bench.indexer._embedder.model = Erasing()
        run(bench.indexer.catch_up(TENANT))
        eraser.join(10)
        assert removed in ([BATCH], [0])
        assert bench.vectors.count(SCOPE) == 0

    def test_erasures_are_followed_before_what_came_after_them(self, bench: Bench):
        bench.say(*CHAT)
        run(bench.indexer.catch_up(TENANT))
        bench.log.erase(SCOPE)
        again = bench.say("All new.")
        run(bench.indexer.catch_up(TENANT))
        assert [point.id for point in bench.vectors.scroll(SCOPE)] == [r.seq for r in again]
        run(bench.indexer.erase("acme", [Part(SCOPE)]))
        assert bench.vectors.count(SCOPE) == 1

    def test_an_erasure_is_followed_at_any_tenants_turn(self, bench: Bench):
        other = Scope(tenant_id="globex", thread_id="t")
        bench.say(*CHAT, scope=other)
        run(bench.indexer.catch_up("globex"))
        bench.log.erase(other)
        run(bench.indexer.catch_up(TENANT))
        assert bench.vectors.count(other) == 0

    def test_points_lost_with_the_power_are_indexed_again(self, bench: Bench):
        bench.say(*CHAT)
        run(bench.indexer.catch_up(TENANT))
        index, last = bench.vectors.index_id, bench.log.last_seq(TENANT)
        more = bench.say("Lost one.", "Lost two.")
        bench.log.set_marks(TENANT, index, words_seq=more[-1].seq, dense_seq=more[-1].seq)
        later = Bench(bench.log, bench.vectors, bench.model)
        assert run(later.indexer.catch_up(TENANT)).indexed == 2
        assert later.degraded == ["vectors"]
        ids = [point.id for point in bench.vectors.scroll(SCOPE)]
        assert ids == [*range(1, last + 1), *(record.seq for record in more)]
        assert all(DENSE in point.dense for point in bench.vectors.scroll(SCOPE))

    def test_an_index_put_back_from_a_copy_forgets_again(self, bench: Bench):
        kept = Scope(tenant_id=TENANT, thread_id="kept")
        bench.say(*CHAT)
        run(bench.indexer.catch_up(TENANT))
        copy = bench.vectors.scroll(SCOPE)
        bench.log.erase(SCOPE)
        bench.say("Stays.", "Stays too.", scope=kept)
        run(bench.indexer.catch_up(TENANT))
        index = bench.vectors.index_id
        marks = bench.log.marks(TENANT, index)
        bench.vectors.delete(kept)
        bench.vectors.upsert(copy)
        later = Bench(bench.log, bench.vectors, bench.model)
        run(later.indexer.catch_up(TENANT))
        assert bench.vectors.count(SCOPE) == 0
        assert bench.vectors.count(kept) == 2
        assert bench.log.marks(TENANT, index) == marks

    def test_a_damaged_record_leaves_the_others_indexed(self, bench: Bench, tmp_path):
        records = bench.say(*CHAT)
        with sqlite3.connect(bench.log._database.path) as connection:
            connection.execute(
                "UPDATE contents SET payload = x'00' WHERE seq = ?", (records[1].seq,)
            )
        connection.close()
        assert run(bench.indexer.catch_up(TENANT)).indexed == len(CHAT) - 1
        assert bench.degraded == ["log"]
        assert run(bench.indexer.catch_up(TENANT)).indexed == 0
        assert bench.log.marks(TENANT, bench.vectors.index_id).words_seq == records[-1].seq

    def test_a_model_that_never_answered_is_all_that_is_told(self, log: SqliteLog, tmp_path):
        folder = open_folder(tmp_path / "new", Embedder(model := BagOfWords(), "words"))
        model.down = True
        bench = Bench(folder.log, folder.vectors, model)
        bench.say(*CHAT)
        run(bench.indexer.catch_up(TENANT))
        assert run(bench.recall.find(SCOPE, "boat", asked_at=START)).memories
        assert bench.degraded == ["embeddings"]
        folder.close()

    def test_other_tenants_erasures_hold_nobody_up(self, bench: Bench):
        other = Scope(tenant_id="globex", thread_id="t")
        for scope in (SCOPE, other):
            bench.say(*CHAT, scope=scope)
            run(bench.indexer.catch_up(scope.tenant_id))
        bench.log.erase(other)
        bench.log.erase(SCOPE)
        with bench.indexer._runs.entered("globex"):
            assert run(bench.indexer.erase("acme", [Part(SCOPE)])) == len(CHAT)
            (again,) = bench.say("All new.")
            run(bench.indexer.catch_up(TENANT))
        assert [point.id for point in bench.vectors.scroll(SCOPE)] == [again.seq]
        run(bench.indexer.catch_up(TENANT))
        assert bench.vectors.count(other) == 0
        assert [point.id for point in bench.vectors.scroll(SCOPE)] == [again.seq]

    def test_a_new_index_takes_in_what_came_after_old_erasures(self, bench: Bench):
        bench.say(*CHAT)
        bench.log.erase(SCOPE)
        bench.say("All new.", "And newer.")
        bench.vectors.drop()
        for _ in range(2):
            run(bench.indexer.catch_up(TENANT))
            assert bench.vectors.count(SCOPE) == 2

    def test_a_text_the_model_refuses_keeps_no_other_out(self, bench: Bench):
        class Picky(BagOfWords):
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                if any("boat" in text for text in texts):
                    raise ValueError("no boats")
                return super().embed_documents(texts)

        bench.indexer._embedder.model = Picky()
        bench.say("A boat.", "A \ud800 house.", "A car.")
        assert run(bench.indexer.catch_up(TENANT)).remaining == 0
        assert [DENSE in point.dense for point in bench.vectors.scroll(SCOPE)] == [
            False,
            True,
            True,
        ]
        assert bench.degraded == ["embeddings"]
        bench.say("One more.")
        assert run(bench.indexer.catch_up(TENANT)).remaining == 0
        assert run(bench.indexer.rebuild()).remaining == 0

    def test_a_question_the_model_refuses_is_nobody_elses_trouble(self, bench: Bench):
        class Picky(BagOfWords):
            def embed_query(self, text: str) -> list[float]:
                if "boat" in text:
                    raise ValueError("no boats")
                return super().embed_query(text)

        bench.say(*CHAT)
        run(bench.indexer.catch_up(TENANT))
        bench.recall._embedder.model = Picky()
        for question in ("Which boat?", "Which \ud800 boat?", "Which \ud800?"):
            run(bench.recall.find(SCOPE, question, asked_at=START))
        assert bench.indexer._breakers.embeddings.is_closed
        assert bench.degraded == ["embeddings", "embeddings"]


class TestSharedIndex:
    """An index that other processes write too."""

    @pytest.fixture(autouse=True)
    def shared(self, monkeypatch) -> None:
        monkeypatch.setattr(EdgeVectorStore, "is_shared", True)

    def claimed_by_another(self, bench: Bench) -> bool:
        task = f"index {bench.vectors.index_id}"
        return bench.log.claim(TENANT, task, "another worker", timedelta(minutes=1))

    def test_a_worker_waits_for_its_claim(self, bench: Bench):
        bench.say(*CHAT)
        assert self.claimed_by_another(bench)
        assert run(bench.indexer.catch_up(TENANT)).indexed == 0
        bench.log.release(TENANT, f"index {bench.vectors.index_id}", "another worker")
        assert run(bench.indexer.catch_up(TENANT)).indexed == len(CHAT)
        assert self.claimed_by_another(bench)

    def test_a_run_that_fails_gives_its_claim_back(self, bench: Bench, monkeypatch):
        def fail(*_: object) -> None:
            raise StorageError("no room")

        bench.say(*CHAT)
        monkeypatch.setattr(bench.vectors, "upsert", fail)
        run(bench.indexer.catch_up(TENANT))
        assert bench.degraded == ["vectors"]
        assert self.claimed_by_another(bench)

    async def test_a_run_that_is_cancelled_gives_its_claim_back(self, bench: Bench):
        class Slow(BagOfWords):
            async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
                started.set()
                await asyncio.sleep(60)
                raise AssertionError

        started = asyncio.Event()
        bench.say(*CHAT)
        bench.indexer._embedder.model = Slow()
        task = asyncio.create_task(arun(bench.indexer.catch_up(TENANT)))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(200):
            if self.claimed_by_another(bench):
                return
            await asyncio.sleep(0.02)
        pytest.fail("the claim was not given back")

    def test_a_long_run_prolongs_its_claim_and_stops_when_it_is_lost(
        self, bench: Bench, monkeypatch
    ):
        monkeypatch.setattr("langchain_ctxmgr.memory.index_runs.CLAIM", timedelta(0))
        bench.say(*(f"Line {i}." for i in range(3 * BATCH)))
        claims: list[str] = []
        claim = bench.log.claim

        def counted(tenant_id: str, task: str, holder: str, duration: timedelta) -> bool:
            claims.append(holder)
            if len(claims) == 4:
                claim(tenant_id, task, "another worker", timedelta(minutes=1))
            return claim(tenant_id, task, holder, duration)

        monkeypatch.setattr(bench.log, "claim", counted)
        assert run(bench.indexer.catch_up(TENANT)).indexed == 0
        assert len(claims) == 4
        assert bench.vectors.count(SCOPE) == BATCH
        assert bench.degraded == []


class FakeManager:
    def recall(
        self,
        query: str,
        *,
        scope: Scope,
        k: int,
        max_tokens: int | None,
        explain: bool,
        score_threshold: float | None,
    ) -> list[Memory]:
        assert score_threshold is None
        cosine = Contribution(arm="dense", value=1.5, raw=0.8, description="similarity")
        why = Explanation(score=1.5, rank=1, candidates=9, contributions=(cosine,))
        return [
            Memory(
                id="m1",
                thread_id=scope.thread_id or "",
                kind="episodic",
                text=f"{query} {k} {max_tokens}",
                role="human",
                speaker="Ada",
                at=START,
                score=1.5,
                tokens=3,
                slot=4,
                session=0,
                explanation=why if explain else None,
            )
        ]

    async def arecall(self, query: str, **settings) -> list[Memory]:
        return self.recall(query, **settings)


class TestMemoryRetriever:
    async def test_memories_become_documents(self):
        retriever = MemoryRetriever(manager=FakeManager(), scope=SCOPE, k=3)
        (document,) = retriever.invoke("boat?")
        assert document.page_content == "boat? 3 None"
        assert document.id == "m1"
        assert document.metadata == {
            "id": "m1",
            "thread_id": "t",
            "at": START,
            "role": "human",
            "speaker": "Ada",
            "score": 1.5,
            "slot": 4,
            "is_excerpt": False,
        }
        assert await retriever.ainvoke("boat?") == [document]

    async def test_documents_say_what_their_score_is_made_of(self):
        retriever = MemoryRetriever(manager=FakeManager(), scope=SCOPE, explain=True)
        (document,) = retriever.invoke("boat?")
        cosine = {"arm": "dense", "value": 1.5, "raw": 0.8, "description": "similarity"}
        assert document.metadata["explanation"] == {
            "score": 1.5,
            "rank": 1,
            "candidates": 9,
            "contributions": (cosine,),
        }
        assert await retriever.ainvoke("boat?") == [document]

    def test_its_package_names_it_and_loads_nothing_before_that(self):
        code = (
            "import sys, langchain_ctxmgr.memory as memory;"
            "assert 'langchain_ctxmgr.memory.retriever' not in sys.modules;"
            "from langchain_ctxmgr.memory import MemoryRetriever;"
            "assert MemoryRetriever is memory.retriever.MemoryRetriever"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_its_scope_cannot_be_exchanged(self):
        retriever = MemoryRetriever(manager=FakeManager(), scope=SCOPE)
        with pytest.raises(ValueError, match="frozen"):
            retriever.scope = Scope(tenant_id="other")
