"""The server store and the Edge store answer alike: same points, same ids in the same order."""

from __future__ import annotations

import random

import pytest

from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage import vectors
from langchain_ctxmgr.storage.edge import EdgeVectorStore
from langchain_ctxmgr.storage.server import QdrantVectorStore
from langchain_ctxmgr.storage.vectors import (
    BM25,
    DENSE,
    TERMS,
    DenseVectors,
    Point,
    SparseVector,
    VectorQuery,
)
from tests.loopback_qdrant import LoopbackQdrant

EMBEDDING = DenseVectors(name="oracle", size=32)
POINTS = 1_500
USERS = ("ann", "ben", None)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    with LoopbackQdrant() as server:
        edge = EdgeVectorStore(tmp_path_factory.mktemp("edge"), dense=EMBEDDING)
        remote = QdrantVectorStore(server.url, dense=EMBEDDING)
        chance = random.Random(7)
        points = [made(seq, chance) for seq in chance.sample(range(1, 10**6), POINTS)]
        edge.upsert(points)
        remote.upsert(points)
        yield edge, remote
        edge.close()
        remote.close()


def sparse(chance, most):
    terms = sorted({int(chance.paretovariate(0.7)) for _ in range(chance.randint(1, most))})
    return SparseVector(terms, [chance.uniform(0.2, 2.2) for _ in terms])


def made(seq, chance):
    return Point(
        id=seq,
        payload={
            "tenant_id": chance.choice(("acme", "globex")),
            "thread_id": chance.choice(("t1", "t2")),
            "user_id": chance.choice(USERS),
            "slot": chance.randint(0, 300),
            "at": chance.uniform(0, 1_000),
        },
        sparse={BM25: sparse(chance, 30), TERMS: sparse(chance, 30)},
        dense={DENSE: [chance.gauss(0, 1) for _ in range(EMBEDDING.size)]},
    )


def asked(chance):
    scope = Scope(
        tenant_id=chance.choice(("acme", "globex", "nobody")),
        thread_id=chance.choice(("t1", "t2", None)),
        user_id=chance.choice(USERS),
    )
    times = {
        "at_from": chance.choice((None, chance.uniform(0, 500))),
        "at_until": chance.choice((None, chance.uniform(500, 1_000))),
    }
    dense = [chance.gauss(0, 1) for _ in range(EMBEDDING.size)]
    queries = [
        VectorQuery(BM25, sparse(chance, 8), chance.randint(1, 40), **times),
        VectorQuery(TERMS, sparse(chance, 8), chance.randint(1, 40)),
        VectorQuery(DENSE, dense, chance.randint(1, 10), **times),
    ]
    before_slot = chance.choice((None, chance.randint(0, 300))) if scope.thread_id else None
    return scope, queries, before_slot


@pytest.mark.parametrize("corpus_size", [vectors.CORPUS_SIZE, 128])
def test_edge_and_server_agree(stores, corpus_size, monkeypatch):
    monkeypatch.setattr(vectors, "CORPUS_SIZE", corpus_size)
    edge, remote = stores
    chance = random.Random(11)
    found = 0
    for _ in range(150):
        scope, queries, before_slot = asked(chance)
        here = edge.query(scope, queries, before_slot=before_slot)
        there = remote.query(scope, queries, before_slot=before_slot)
        assert [[hit.id for hit in each] for each in there] == [
            [hit.id for hit in each] for each in here
        ]
        for one, other in zip(here, there, strict=True):
            assert [hit.score for hit in other] == pytest.approx([hit.score for hit in one])
            found += len(one)
        assert remote.count(scope) == edge.count(scope)
    assert found > 3_000


def test_both_read_back_the_same_points(stores):
    edge, remote = stores
    scope = Scope(tenant_id="acme")
    here, there = edge.scroll(scope), remote.scroll(scope)
    assert [point.id for point in there] == [point.id for point in here]
    for one, other in zip(here, there, strict=True):
        assert other.payload == one.payload
        assert list(other.dense[DENSE]) == pytest.approx(list(one.dense[DENSE]), abs=1e-6)
        for name in (BM25, TERMS):
            assert dict(zip(*other.sparse[name], strict=True)) == pytest.approx(
                dict(zip(*one.sparse[name], strict=True))
            )
