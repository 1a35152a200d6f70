"""From the log into the index: keyword and dense vectors of every recorded message.

The log comes first and the index follows it by `seq`; how far it has come is kept in the
log, under the index's own identity, so that a rebuilt or exchanged index starts again by
itself. Keyword vectors and embeddings advance apart: while the embedding model is down
turns are found by their words, and its vectors are caught up later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.analysis import message_text
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.events import CaughtUp, Listener, emit
from langchain_ctxmgr.forking import ForkableLock
from langchain_ctxmgr.memory.breaker import Breaker
from langchain_ctxmgr.memory.embeddings import Embedder, check_vectors, learn_size
from langchain_ctxmgr.records import LogRecord, Scope
from langchain_ctxmgr.storage.message_log import IndexEntry, MessageLog
from langchain_ctxmgr.storage.vectors import BM25, DENSE, TERMS, Point, SparseVector, VectorStore

BATCH = 128
"""Records taken from the log at once: enough for the encoder to sort by length."""
K1 = 1.2
B = 0.75
TIE_BREAK = 1e-3
GOLDEN_RATIO = 0.6180339887498949
"""Multiples of it spread evenly between 0 and 1 (Knuth, TAOCP 3, section 6.4)."""
AVERAGE_TERMS = 32.0
"""BM25's constants. The average length is fixed: one that moved with every record would
change every stored weight, and recall barely depends on it (16 to 64 are alike)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the index follows the log."""

    indexed: int
    """Records this run took in."""
    remaining: int
    """Records still to come, at most: erased ones count."""


class Indexer:
    """Brings the index up to the log, in bounded batches.

    Without a vector store it does nothing: recall goes through the log's own search.
    """

    def __init__(
        self,
        log: MessageLog,
        vectors: VectorStore | None,
        embedder: Embedder | None,
        *,
        listeners: tuple[Listener, ...] = (),
    ) -> None:
        self._log = log
        self._vectors = vectors
        self._embedder = embedder
        self._listeners = listeners
        self._store = Breaker("vectors", "keyword search in the log", listeners)
        self._encoder = Breaker("embeddings", "keyword vectors", listeners)
        self._busy = ForkableLock()
        self._erased: list[Scope] = []
        """What was erased during the run under way; empty between runs."""

    def catch_up(
        self, *, limit: int | None = None, progress: Callable[[int, int], None] | None = None
    ) -> Plan[Progress]:
        """Index what the log has and the index lacks, up to `limit` records.

        One run at a time: a second one returns at once, the first takes in what is new.
        The boundary for the vector store and the embedding model: their failures are
        events, and what is missing is taken in by a later run.
        """
        if self._vectors is None or not self._store.is_closed:
            return Progress(indexed=0, remaining=0)
        if not self._busy.acquire(blocking=False):
            return Progress(indexed=0, remaining=0)
        try:
            yield from learn_size(self._embedder, self._encoder)
            done = yield from self._run(self._vectors, limit, progress)
            self._store.worked()
        except Exception as error:  # noqa: BLE001 - the boundary this docstring names
            self._store.failed(error)
            done = Progress(indexed=0, remaining=0)
        finally:
            self._erased.clear()
            self._busy.release()
        if done.indexed:
            emit(self._listeners, CaughtUp(indexed=done.indexed, remaining=done.remaining))
        return done

    def rebuild(self, *, progress: Callable[[int, int], None] | None = None) -> Plan[Progress]:
        """Empty the index and take in the whole log. Never degrades.

        Raises:
            StorageError: If there is no index, another process owns it, or it is being
                written; the embedding model's own errors pass.
        """
        if self._vectors is None:
            raise StorageError("there are no vectors to rebuild: the manager was given none")
        if not self._busy.acquire(blocking=False):
            raise StorageError("the vectors are being written; try again when that is done")
        try:
            if self._embedder is not None:
                yield from self._embedder.learn()
                # A model that is down now must not cost the vectors that are there.
                yield from call(self._embedder.model.embed_query, "check")
            yield from call(self._vectors.drop)
            self._encoder.worked()
            done = yield from self._run(self._vectors, None, progress)
            self._store.worked()
        finally:
            self._erased.clear()
            self._busy.release()
        return done

    def behind(self) -> Plan[int | None]:
        """How many records the index is behind the log, at most; None without an index."""
        if self._vectors is None or not self._store.is_closed:
            return None
        try:
            index = self._vectors.index_id
        except StorageError:
            return None
        last = yield from call(self._log.last_seq)
        words = yield from call(self._log.watermark, index)
        dense = yield from call(self._log.watermark, _dense(index))
        return last - (words if self._embedder is None else min(words, dense))

    def erase(self, scope: Scope) -> Plan[int]:
        """Remove the points of `scope`, those of a batch under way included; how many.

        Call it after the log has erased `scope`. Never degrades: the store's errors pass.
        """
        if self._vectors is None:
            return 0
        if self._busy.locked():
            self._erased.append(scope)
        return (yield from call(self._vectors.delete, scope))

    def _run(
        self,
        vectors: VectorStore,
        limit: int | None,
        progress: Callable[[int, int], None] | None,
    ) -> Plan[Progress]:
        index = vectors.index_id
        last = yield from call(self._log.last_seq)
        words = yield from call(self._log.watermark, index)
        dense = yield from call(self._log.watermark, _dense(index))
        start = min(words, dense) if self._embeds else words
        indexed = 0
        while words < last and (limit is None or indexed < limit):
            is_level = self._embeds and dense >= words
            size = BATCH if limit is None else min(BATCH, limit - indexed)
            step = yield from self._batch(vectors, words, size, embed=is_level)
            if step is None:
                break
            words = step.seq
            yield from call(self._log.set_watermark, index, words)
            if step.is_embedded:
                dense = words
                yield from call(self._log.set_watermark, _dense(index), dense)
            indexed += step.records
            if progress is not None:
                progress(words - start, last - start)
        while self._embeds and dense < words and (limit is None or indexed < limit):
            size = BATCH if limit is None else min(BATCH, limit - indexed)
            step = yield from self._batch(vectors, dense, size, embed=True)
            if step is None or not step.is_embedded:
                break
            dense = step.seq
            yield from call(self._log.set_watermark, _dense(index), dense)
            indexed += step.records
            if progress is not None:
                progress(dense - start, last - start)
        behind = min(words, dense) if self._embeds else words
        return Progress(indexed=indexed, remaining=max(last - behind, 0))

    @property
    def _embeds(self) -> bool:
        return self._embedder is not None and self._encoder.is_closed

    def _batch(
        self, vectors: VectorStore, after_seq: int, size: int, *, embed: bool
    ) -> Plan[_Step | None]:
        """Index the next records after `after_seq`; None when there are none."""
        erased = len(self._erased)
        entries = yield from call(self._log.pending, after_seq, size)
        if not entries:
            return None
        embeddings: list[list[float]] | None = None
        if embed:
            embeddings = yield from self._embed([document_text(e.record) for e in entries], vectors)
        points = [
            _point(entry, None if embeddings is None else embeddings[i])
            for i, entry in enumerate(entries)
        ]
        yield from call(vectors.upsert, points)
        for scope in self._erased[erased:]:
            yield from call(vectors.delete, scope)
        return _Step(
            seq=entries[-1].record.seq,
            records=len(entries),
            is_embedded=embeddings is not None,
        )

    def _embed(self, texts: list[str], store: VectorStore) -> Plan[list[list[float]] | None]:
        if self._embedder is None:
            return None
        try:
            vectors = yield from call(self._embedder.model.embed_documents, texts)
            check_vectors(vectors, count=len(texts), dense=store.dense)
        except Exception as error:  # noqa: BLE001 - any model may be behind it; see catch_up
            self._encoder.failed(error)
            return None
        self._encoder.worked()
        return vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    seq: int
    records: int
    is_embedded: bool


def _dense(index_id: str) -> str:
    """Under which name the log keeps how far the embeddings have come."""
    return f"{index_id}/dense"


def document_text(record: LogRecord) -> str:
    """The text an embedding is made of: speaker and words, since both are asked for."""
    said = message_text(record.message)
    return f"{record.speaker or _SIDES.get(record.role, record.role)}: {said}"


_SIDES = {"human": "User", "ai": "Assistant"}


def keyword_vectors(terms: Sequence[int], seq: int) -> dict[str, SparseVector]:
    """The BM25 and presence vectors of a text with these `terms`.

    Weights differ by up to a thousandth from record to record. Presence alone would make
    thousands of exact ties, and which of them an index returns would be its own choice,
    another one in each folder.

    Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework".
    """
    counts = Counter(terms)
    length = K1 * (1 - B + B * len(terms) / AVERAGE_TERMS)
    own = 1.0 + TIE_BREAK * (seq * GOLDEN_RATIO % 1.0)
    weights = [own * count * (K1 + 1) / (count + length) for count in counts.values()]
    return {
        BM25: SparseVector(list(counts), weights),
        TERMS: SparseVector(list(counts), [own] * len(counts)),
    }


def _point(entry: IndexEntry, embedding: Sequence[float] | None) -> Point:
    record = entry.record
    return Point(
        id=record.seq,
        payload={
            "tenant_id": record.tenant_id,
            "thread_id": record.thread_id,
            "user_id": record.user_id,
            "kind": "episodic",
            "role": record.role,
            "slot": record.slot,
            "branch": record.branch,
            "at": record.at,
        },
        sparse=keyword_vectors(entry.terms, record.seq),
        dense={} if embedding is None else {DENSE: embedding},
    )
