"""A filtered hybrid query on each vector store, beside the bare engine and qdrant-client local.

The query has three of the arms that recall asks (BM25, terms, embedding) in one batch, the 256
best of each, of one thread that holds half of the points. The bare side builds and sends the
same batch with the same filter, IDF corpus and vectors and turns the answer into pairs of id
and score; it checks nothing, breaks no ties and knows the corpus beforehand. qdrant-client
local and langchain-qdrant work in memory on the same points and filter; langchain-qdrant's
hybrid has two arms. Embeddings are random, of 384 numbers.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import qdrant_edge as edge
import report
from hot_path import sentence
from langchain_core.embeddings import Embeddings
from qdrant_client import QdrantClient, models

from langchain_ctxmgr import Scope
from langchain_ctxmgr.analysis import terms
from langchain_ctxmgr.memory.points import keyword_vectors
from langchain_ctxmgr.memory.recall import ARM_LIMIT
from langchain_ctxmgr.storage.edge import EdgeVectorStore
from langchain_ctxmgr.storage.server import QdrantVectorStore
from langchain_ctxmgr.storage.server_requests import collection_name
from langchain_ctxmgr.storage.vectors import (
    BM25,
    DENSE,
    SCOPES_FIELD,
    SPARSE_NAMES,
    TERMS,
    DenseVectors,
    Point,
    SparseVector,
    VectorQuery,
    corpus_level,
    scope_key,
    stored_payload,
)

DENSE_VECTORS: Final = DenseVectors(name="random", size=384)
SCOPE: Final = Scope(tenant_id="bench", thread_id="t")
KEY: Final = scope_key(SCOPE)
ROOT: Final = Path(__file__).parent.parent
BATCH: Final = 1_000
QUESTIONS: Final = 50
TEXTS: Final = 10_000
"""Different texts: making more would take longer than storing them."""
_SERVER: Final = """
import sys
from tests.loopback_qdrant import LoopbackQdrant
with LoopbackQdrant() as server:
    print(server.url, server.folder, flush=True)
    sys.stdin.read()
"""


def points(size: int) -> Generator[list[Point], None, None]:
    """`size` points in batches, every other one of the thread that is asked."""
    rng = random.Random(3)  # noqa: S311 - the same points on every run
    texts = [tuple(terms(sentence(rng, number))) for number in range(min(size, TEXTS))]
    numbers = np.random.default_rng(3)
    for start in range(1, size + 1, BATCH):
        ids = range(start, min(start + BATCH, size + 1))
        vectors = numbers.standard_normal((len(ids), DENSE_VECTORS.size)).tolist()
        yield [
            Point(
                id=seq,
                payload={
                    "tenant_id": "bench" if seq % 2 else "other",
                    "thread_id": "t",
                    "kind": "episodic",
                    "role": "human",
                    "slot": seq,
                    "branch": 0,
                    "at": float(seq),
                },
                sparse=keyword_vectors(texts[seq % len(texts)], seq),
                dense={DENSE: vector},
            )
            for seq, vector in zip(ids, vectors, strict=True)
        ]


def questions() -> list[tuple[SparseVector, list[float]]]:
    """Words and embedding of each question."""
    rng = random.Random(5)  # noqa: S311 - the same questions on every run
    numbers = np.random.default_rng(5)
    asked: list[tuple[SparseVector, list[float]]] = []
    for number in range(QUESTIONS):
        words = list(dict.fromkeys(terms(sentence(rng, number))))[:6]
        vector = numbers.standard_normal(DENSE_VECTORS.size).tolist()
        asked.append((SparseVector(words, [1.0] * len(words)), vector))
    return asked


def queries(words: SparseVector, vector: Sequence[float]) -> list[VectorQuery]:
    """A question as recall puts it to the store."""
    return [
        VectorQuery(BM25, words, ARM_LIMIT),
        VectorQuery(TERMS, words, ARM_LIMIT),
        VectorQuery(DENSE, vector, ARM_LIMIT),
    ]


def embedded(size: int, rounds: int) -> dict[str, Any]:
    """Qdrant Edge with `size` points, beside the bare engine on the same shard."""
    asked = questions()
    with tempfile.TemporaryDirectory() as folder:
        before = report.memory_mib()
        store = EdgeVectorStore(folder, dense=DENSE_VECTORS)
        for batch in points(size):
            store.upsert(batch)
        store.flush()
        bare = BareEdge(getattr(store, "_shard"), size)  # noqa: B009 - the very same shard
        figures = report.paired(
            lambda number: store.query(SCOPE, queries(*asked[number % QUESTIONS])),
            lambda number: bare.query(*asked[number % QUESTIONS]),
            rounds,
        )
        memory = report.memory_mib() - before
        store.close()
        return {
            "query": figures,
            "disk_bytes_per_record": disk_bytes(Path(folder)) / size,
            "memory_mib": memory,
        }


class BareEdge:
    """`qdrant_edge` alone."""

    def __init__(self, shard: edge.EdgeShard, size: int) -> None:
        self._shard = shard
        self._corpus = scope_key(SCOPE, corpus_level(size // 2))

    def query(self, words: SparseVector, vector: list[float]) -> list[list[tuple[Any, float]]]:
        """The same batch."""
        sparse = edge.SparseVector(list(words.indices), list(words.values))
        idf = edge.SearchParams(idf=edge.IdfParams(_edge_filter(self._corpus)))
        codes = edge.SearchParams(
            quantization=edge.QuantizationSearchParams(rescore=True, oversampling=2.0)
        )
        asked: list[tuple[str, Any, edge.SearchParams]] = [
            (BM25, sparse, idf),
            (TERMS, sparse, idf),
            (DENSE, vector, codes),
        ]
        requests = [
            edge.QueryRequest(
                limit=ARM_LIMIT,
                query=edge.Query.Nearest(what, using=using),
                filter=_edge_filter(KEY),
                params=params,
            )
            for using, what, params in asked
        ]
        answers = self._shard.query_batch(edge.QueryBatchRequest(requests))
        return [[(hit.id, hit.score) for hit in answer] for answer in answers]


def _edge_filter(key: str) -> edge.Filter:
    return edge.Filter(must=[edge.FieldCondition(key=SCOPES_FIELD, match=edge.MatchValue(key))])


def served(size: int, rounds: int) -> dict[str, Any]:
    """A loopback server with `size` points, beside bare qdrant-client on the same collection."""
    asked = questions()
    with loopback() as (url, folder, process):
        before = resident_mib(process)
        store = QdrantVectorStore(url, dense=DENSE_VECTORS)
        for batch in points(size):
            store.upsert(batch)
        client = QdrantClient(url=url, timeout=60)
        bare = BareClient(client, collection_name("ctxmgr", DENSE_VECTORS), size)
        figures = report.paired(
            lambda number: store.query(SCOPE, queries(*asked[number % QUESTIONS])),
            lambda number: bare.query(*asked[number % QUESTIONS]),
            rounds,
        )
        memory = resident_mib(process) - before
        disk = disk_bytes(folder)
        client.close()
        store.close()
        return {
            "query": figures,
            "disk_bytes_per_record": disk / size,
            "memory_mib": memory,
        }


class BareClient:
    """`qdrant_client` alone."""

    def __init__(self, client: QdrantClient, collection: str, size: int | None) -> None:
        self._client = client
        self._collection = collection
        self._corpus = None if size is None else scope_key(SCOPE, corpus_level(size // 2))

    def query(self, words: SparseVector, vector: list[float]) -> list[list[tuple[Any, float]]]:
        """The same batch."""
        sparse = models.SparseVector(indices=[*words.indices], values=[*words.values])
        rare = None
        if self._corpus is not None:
            corpus = models.IdfCorpusParams(corpus=client_filter(self._corpus))
            rare = models.SearchParams(idf=corpus)
        asked: list[tuple[str, Any, models.SearchParams | None]] = [
            (BM25, sparse, rare),
            (TERMS, sparse, rare),
            (DENSE, vector, None),
        ]
        answers = self._client.query_batch_points(
            self._collection,
            requests=[
                models.QueryRequest(
                    query=models.NearestQuery(nearest=what),
                    using=using,
                    filter=client_filter(KEY),
                    params=params,
                    limit=ARM_LIMIT,
                    with_payload=False,
                    with_vector=False,
                )
                for using, what, params in asked
            ],
        )
        return [[(hit.id, hit.score) for hit in answer.points] for answer in answers]


def client_filter(key: str) -> models.Filter:
    """The points of the scope or sample that `key` names."""
    condition = models.FieldCondition(key=SCOPES_FIELD, match=models.MatchValue(value=key))
    return models.Filter(must=[condition])


def local(size: int, rounds: int) -> dict[str, Any]:
    """qdrant-client's local mode in memory, bare beside Qdrant Edge, and by langchain-qdrant."""
    from langchain_qdrant import (
        QdrantVectorStore as LangChainStore,
    )
    from langchain_qdrant import (
        RetrievalMode,
        SparseEmbeddings,
    )
    from langchain_qdrant import (
        SparseVector as LangChainSparse,
    )

    asked = questions()
    folder = tempfile.TemporaryDirectory()
    store = EdgeVectorStore(folder.name, dense=DENSE_VECTORS)
    for batch in points(size):
        store.upsert(batch)
    before = report.memory_mib()
    client = QdrantClient(":memory:")
    client.create_collection(
        "local",
        vectors_config={DENSE: models.VectorParams(size=384, distance=models.Distance.COSINE)},
        sparse_vectors_config={
            name: models.SparseVectorParams(modifier=models.Modifier.IDF) for name in SPARSE_NAMES
        },
    )
    for batch in points(size):
        client.upsert("local", [_struct(point) for point in batch])
    bare = BareClient(client, "local", None)

    class Known(Embeddings):
        """The questions' vectors, by number."""

        def embed_documents(self, texts: list[str]) -> Any:
            return [self.embed_query(text) for text in texts]

        def embed_query(self, text: str) -> Any:
            return asked[int(text)][1]

    class KnownWords(SparseEmbeddings):
        """The questions' words, by number."""

        def embed_documents(self, texts: list[str]) -> list[Any]:
            return [self.embed_query(text) for text in texts]

        def embed_query(self, text: str) -> Any:
            words = asked[int(text)][0]
            return LangChainSparse(indices=[*words.indices], values=[*words.values])

    langchain = LangChainStore(
        client,
        "local",
        embedding=Known(),
        sparse_embedding=KnownWords(),
        retrieval_mode=RetrievalMode.HYBRID,
        vector_name=DENSE,
        sparse_vector_name=BM25,
        validate_collection_config=False,
    )
    figures = {
        "edge_query": report.paired(
            lambda number: store.query(SCOPE, queries(*asked[number % QUESTIONS])),
            lambda number: bare.query(*asked[number % QUESTIONS]),
            rounds,
        ),
        "langchain_qdrant_ms": report.timed(
            lambda number: langchain.similarity_search(
                str(number % QUESTIONS), k=ARM_LIMIT, filter=client_filter(KEY)
            ),
            rounds,
        ),
        "memory_mib": report.memory_mib() - before,
    }
    client.close()
    store.close()
    folder.cleanup()
    return figures


def _struct(point: Point) -> models.PointStruct:
    vectors: dict[str, Any] = {
        name: models.SparseVector(indices=[*vector.indices], values=[*vector.values])
        for name, vector in point.sparse.items()
    }
    vectors[DENSE] = list(point.dense[DENSE])
    return models.PointStruct(id=point.id, vector=vectors, payload=stored_payload(point))


@contextmanager
def loopback() -> Generator[tuple[str, Path, int], None, None]:
    """A loopback Qdrant in a process of its own: its URL, folder and process id."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        url, folder = line.split()
        yield url, Path(folder), process.pid
    finally:
        process.communicate()


def resident_mib(process: int) -> float:
    """Resident memory of another process in MiB."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def disk_bytes(folder: Path) -> int:
    """What the files of `folder` take on disk: those mapped ahead are mostly holes."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())
