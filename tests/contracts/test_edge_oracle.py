"""Qdrant Edge answers what Qdrant's own reference in Python answers."""

from __future__ import annotations

import uuid
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage import vectors
from langchain_ctxmgr.storage.edge import EdgeVectorStore
from langchain_ctxmgr.storage.vectors import (
    BM25,
    DENSE,
    TERMS,
    DenseVectors,
    Point,
    SparseVector,
    VectorQuery,
    scope_key,
    scope_keys,
)

SIZE = 8
EMBEDDING = DenseVectors(name="oracle", size=SIZE)
TENANTS = ("a", "b")
THREADS = ("t1", "t2")
USERS = ("u1", "u2", None)

weights = st.floats(0.125, 4, width=32)
sparse_vectors = st.dictionaries(st.integers(0, 12), weights, max_size=6).map(
    lambda entries: SparseVector(tuple(entries), tuple(entries.values()))
)
dense_vectors = st.lists(st.floats(-1, 1, width=32), min_size=SIZE, max_size=SIZE).filter(
    lambda numbers: sum(number * number for number in numbers) > 0.01
)


class Turn(NamedTuple):
    tenant: str
    thread: str
    user: str | None
    slot: int
    at: float
    bm25: SparseVector
    terms: SparseVector
    dense: list[float] | None


turns = st.builds(
    Turn,
    st.sampled_from(TENANTS),
    st.sampled_from(THREADS),
    st.sampled_from(USERS),
    st.integers(0, 9),
    st.integers(0, 9).map(float),
    sparse_vectors,
    sparse_vectors,
    st.none() | dense_vectors,
)
scopes = st.builds(
    Scope,
    tenant_id=st.sampled_from(TENANTS),
    thread_id=st.sampled_from((*THREADS, None)),
    user_id=st.sampled_from(USERS),
)
queries = st.one_of(
    st.builds(
        VectorQuery,
        st.sampled_from((BM25, TERMS)),
        sparse_vectors,
        st.integers(1, 8),
        st.none() | st.integers(0, 9).map(float),
        st.none() | st.integers(0, 9).map(float),
        st.none(),
    ),
    st.builds(
        VectorQuery,
        st.just(DENSE),
        dense_vectors,
        st.integers(1, 8),
        st.none() | st.integers(0, 9).map(float),
        st.none() | st.integers(0, 9).map(float),
        st.none(),
    ),
)


@pytest.fixture(scope="module")
def edge(tmp_path_factory):
    store = EdgeVectorStore(tmp_path_factory.mktemp("oracle") / "vectors", dense=EMBEDDING)
    yield store
    store.close()


@pytest.fixture(scope="module")
def reference():
    client = QdrantClient(":memory:")
    yield client
    client.close()


def reference_answer(client, collection, *, scope, query, before_slot):
    """All that match, best first: filters by field, IDF over the scope."""
    whose = [models.FieldCondition(key="tenant_id", match=models.MatchValue(value=scope.tenant_id))]
    name, value = ("thread_id", scope.thread_id) if scope.thread_id else ("user_id", scope.user_id)
    if value:
        whose.append(models.FieldCondition(key=name, match=models.MatchValue(value=value)))
    ranges = []
    if before_slot is not None:
        ranges.append(models.FieldCondition(key="slot", range=models.Range(lt=before_slot)))
    if query.at_from is not None or query.at_until is not None:
        bounds = models.Range(gte=query.at_from, lt=query.at_until)
        ranges.append(models.FieldCondition(key="at", range=bounds))
    vector = query.vector
    params = None
    if isinstance(vector, SparseVector):
        if not vector.indices:
            return []
        vector = models.SparseVector(indices=list(vector.indices), values=list(vector.values))
        corpus = models.IdfCorpusParams(corpus=models.Filter(must=whose))
        params = models.SearchParams(idf=corpus)
    found = client.query_points(
        collection,
        query=vector,
        using=query.using,
        limit=1_000,
        query_filter=models.Filter(must=[*whose, *ranges]),
        search_params=params,
    )
    return [(each.id, each.score) for each in found.points]


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    history=st.lists(turns, min_size=1, max_size=40),
    scope=scopes,
    asked=st.lists(queries, min_size=1, max_size=4),
    before_slot=st.none() | st.integers(0, 10),
)
def test_edge_and_the_reference_agree(edge, reference, *, history, scope, asked, before_slot):
    run = uuid.uuid4().hex
    collection = f"c{run}"
    reference.create_collection(
        collection,
        vectors_config={DENSE: models.VectorParams(size=SIZE, distance=models.Distance.COSINE)},
        sparse_vectors_config={
            name: models.SparseVectorParams(modifier=models.Modifier.IDF) for name in (BM25, TERMS)
        },
    )
    scope = Scope(
        tenant_id=f"{scope.tenant_id}{run}", thread_id=scope.thread_id, user_id=scope.user_id
    )
    if scope.thread_id is None:
        before_slot = None
    first = 1 + uuid.uuid4().int % 2**62
    points = [
        Point(
            id=first + number,
            payload={
                "tenant_id": f"{turn.tenant}{run}",
                "thread_id": turn.thread,
                "user_id": turn.user,
                "slot": turn.slot,
                "at": turn.at,
            },
            sparse={BM25: turn.bm25, TERMS: turn.terms},
            dense={} if turn.dense is None else {DENSE: turn.dense},
        )
        for number, turn in enumerate(history)
    ]
    edge.upsert(points)
    reference.upsert(collection, [reference_point(point) for point in points])

    answers = edge.query(scope, asked, before_slot=before_slot)

    for query, answer in zip(asked, answers, strict=True):
        expected = reference_answer(
            reference, collection, scope=scope, query=query, before_slot=before_slot
        )
        scores = dict(expected)
        assert len(answer) == min(query.limit, len(expected))
        assert list(answer) == sorted(answer, key=lambda hit: (-hit.score, hit.id))
        for hit in answer:
            assert hit.score == pytest.approx(scores[hit.id], abs=2e-3, rel=1e-3)
        if answer:
            left_out = [score for seq, score in expected if seq not in {h.id for h in answer}]
            assert max(left_out, default=-10.0) <= answer[-1].score + 4e-3
    reference.delete_collection(collection)


def reference_point(point):
    vectors = {
        name: models.SparseVector(indices=list(v.indices), values=list(v.values))
        for name, v in point.sparse.items()
        if v.indices
    }
    payload = {name: value for name, value in point.payload.items() if value is not None}
    return models.PointStruct(id=point.id, vector={**vectors, **point.dense}, payload=payload)


ids = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6)
optional_scopes = st.builds(
    Scope, tenant_id=ids, thread_id=st.none() | ids, user_id=st.none() | ids
)


class TestScopeKeys:
    @given(one=optional_scopes, other=optional_scopes, level=st.integers(0, 3))
    def test_no_two_scopes_share_a_key(self, one, other, level):
        def seen(scope):
            user_id = None if scope.thread_id else scope.user_id
            return scope.tenant_id, scope.thread_id, user_id

        same = scope_key(one, level) == scope_key(other)
        assert same == (level == 0 and seen(one) == seen(other))

    def test_each_level_holds_half_of_the_one_below(self):
        scope = Scope(tenant_id="a", thread_id="t")
        points = 20_000
        for stride in (1, 2, 7, 64):
            held = [0] * 6
            for number in range(points):
                keys = set(scope_keys(1 + number * stride, scope))
                for level in range(6):
                    held[level] += scope_key(scope, level) in keys
            assert held[0] == points
            for level in range(6):
                assert held[level] == pytest.approx(points / 2**level, rel=0.1)

    def test_a_long_thread_weighs_terms_by_an_even_sample(self, edge, monkeypatch):
        monkeypatch.setattr(vectors, "CORPUS_SIZE", 1_024)
        scope = Scope(tenant_id="long", thread_id="t")
        total = 3_000
        points = [
            Point(
                id=10**9 + number,
                payload={"tenant_id": "long", "thread_id": "t", "slot": number},
                sparse={BM25: SparseVector((1, 100 + number % 10), (1.0, 1.0))},
            )
            for number in range(total)
        ]
        edge.upsert(points)
        rare, common = edge.query(
            scope,
            [VectorQuery(BM25, SparseVector((term,), (1.0,)), 1) for term in (100, 1)],
        )
        assert rare[0].score == pytest.approx(2.3, abs=0.25)  # ln(1 / 0.1)
        assert common[0].score == pytest.approx(0.0, abs=0.01)
