"""One tenant's records on their way from the log into an index.

Erasures go first: those that are noted when a batch has been read are carried out and the
batch is read again; those noted while it is stored are carried out right after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.events import Degraded, Listener, emit
from langchain_ctxmgr.memory.breaker import Breakers
from langchain_ctxmgr.memory.embeddings import Embedder, answers, check_vectors
from langchain_ctxmgr.memory.index_runs import IndexRuns
from langchain_ctxmgr.memory.late import codes_of
from langchain_ctxmgr.memory.local import Encoded, TurnEmbeddings
from langchain_ctxmgr.memory.points import Embedding, document_text, point_of
from langchain_ctxmgr.memory.said_before import said_before
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.message_log import Erasure, IndexEntry, IndexMarks, MessageLog
from langchain_ctxmgr.storage.vectors import DENSE, VectorStore

BATCH: Final = 128
"""Records taken from the log at once: enough for the encoder to sort by length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the index follows the log."""

    indexed: int
    """Records this run took in."""
    remaining: int
    """Records still to come, at most: erased ones count."""


class Followed(NamedTuple):
    """What following the erasures came to."""

    marks: IndexMarks
    removed: int
    """Points removed."""


class _Step(NamedTuple):
    marks: IndexMarks
    records: int
    is_last: bool
    """Whether nothing was left to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRun:
    """The run that alone writes the tenant's part of the index."""

    log: MessageLog
    vectors: VectorStore
    index_id: str
    embedder: Embedder | None
    breakers: Breakers
    listeners: tuple[Listener, ...]
    runs: IndexRuns
    tenant_id: str
    is_strict: bool
    """Whether a failing model ends the run."""

    def take_in(
        self,
        marks: IndexMarks,
        *,
        limit: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Plan[Progress]:
        """Follow the log from `marks` on, up to `limit` records; tells `progress` how many."""
        marks = (yield from self.follow(marks)).marks
        last = yield from call(self.log.last_seq, self.tenant_id)
        indexed = 0
        while marks.words_seq < last and (limit is None or indexed < limit):
            size = BATCH if limit is None else min(BATCH, limit - indexed)
            is_level = self._embeds and marks.dense_seq >= marks.words_seq
            step = yield from self._batch(marks, marks.words_seq, size, embed=is_level)
            marks, indexed = step.marks, indexed + step.records
            if step.is_last:
                break
            if progress is not None:
                progress(indexed)
        while (
            self._embeds
            and marks.dense_seq < marks.words_seq
            and (limit is None or indexed < limit)
        ):
            size = BATCH if limit is None else min(BATCH, limit - indexed)
            step = yield from self._batch(marks, marks.dense_seq, size, embed=True)
            is_stuck = step.marks == marks
            marks, indexed = step.marks, indexed + step.records
            if step.is_last or is_stuck:
                break
            if progress is not None:
                progress(indexed)
        done = marks.words_seq if self.embedder is None else min(marks.words_seq, marks.dense_seq)
        return Progress(indexed=indexed, remaining=max(last - done, 0))

    def follow(self, marks: IndexMarks) -> Plan[Followed]:
        """Carry out the tenant's erasures after `marks`."""
        erasures = yield from call(self.log.erasures, self.tenant_id, marks.erasure_id)
        if not erasures:
            return Followed(marks, 0)
        removed = yield from self._removed([each for each in erasures if each.seqs is None])
        seqs = [seq for each in erasures for seq in each.seqs or ()]
        if seqs:
            removed += yield from call(self.vectors.delete, self._scope, among=seqs)
        newest = erasures[-1].id
        yield from call(self.log.set_erased, self.tenant_id, self.index_id, newest)
        return Followed(marks._replace(erasure_id=newest), removed)

    def _removed(self, erasures: Sequence[Erasure]) -> Plan[int]:
        """Remove the points of threads or the tenant; how many there were."""
        names = [each.scope.thread_id for each in erasures]
        if None in names:
            return (yield from call(self.vectors.delete, self._scope))
        if not names:
            return 0
        # At once: a store in a folder is rewritten each time.
        first, *also = dict.fromkeys(name for name in names if name is not None)
        scope = Scope(tenant_id=self.tenant_id, thread_id=first)
        return (yield from call(self.vectors.delete, scope, also=also))

    def marks(self) -> Plan[IndexMarks]:
        """How far the index is, by the log's notes."""
        return (yield from call(self.log.marks, self.tenant_id, self.index_id))

    def checked_marks(self) -> Plan[IndexMarks]:
        """How far the index is, held against the points it has.

        An index put back from an older copy, or one that lost its newest points with the
        power, has fewer than the log noted, and may have what was erased since.
        """
        marks = yield from self.marks()
        newest = yield from call(self.log.last_seq, self.tenant_id, until_seq=marks.words_seq)
        if newest and not (yield from self._holds(newest)):
            marks = yield from self._rewound(marks)
            reason = f"the index lacks records that it had, after {marks.words_seq}"
            event = Degraded(part="vectors", reason=reason, fallback="they are indexed again")
            emit(self.listeners, event)
        return marks

    @property
    def _embeds(self) -> bool:
        return self.embedder is not None and self.breakers.embeddings.is_closed

    @property
    def _scope(self) -> Scope:
        return Scope(tenant_id=self.tenant_id)

    def _holds(self, seq: int) -> Plan[bool]:
        found = yield from call(self.vectors.scroll, self._scope, after_id=seq - 1, limit=1)
        return bool(found) and found[0].id == seq

    def _rewound(self, marks: IndexMarks) -> Plan[IndexMarks]:
        """The marks as the points have it, after every erasure was carried out once more."""
        again = yield from self.follow(marks._replace(erasure_id=0))
        # What an erasure took may have been points of what the thread has held since.
        low, high = 0, 0 if again.removed else marks.words_seq
        is_embedded = False
        while low < high:
            middle = (low + high) // 2
            found = yield from call(self.vectors.scroll, self._scope, after_id=middle, limit=1)
            if found and found[0].id <= high:
                low, is_embedded = found[0].id, DENSE in found[0].dense
            else:
                high = middle
        dense = min(marks.dense_seq, low) if is_embedded else 0
        return (yield from self._noted(again.marks, words_seq=low, dense_seq=dense))

    def _noted(self, marks: IndexMarks, *, words_seq: int, dense_seq: int) -> Plan[IndexMarks]:
        yield from call(
            self.log.set_marks,
            self.tenant_id,
            self.index_id,
            words_seq=words_seq,
            dense_seq=dense_seq,
        )
        return marks._replace(words_seq=words_seq, dense_seq=dense_seq)

    def _batch(self, marks: IndexMarks, after_seq: int, size: int, *, embed: bool) -> Plan[_Step]:
        """Index the next records after `after_seq`."""
        yield from self.runs.prolong(self.tenant_id)
        found = yield from call(self.log.pending, self.tenant_id, after_seq, size)
        if found.damaged:
            reason = f"records {list(found.damaged)} of {self.tenant_id!r} are damaged: verify says"
            emit(self.listeners, Degraded(part="log", reason=reason, fallback="the other records"))
        embeddings: list[Embedding | None] | None = None
        if embed and found.entries:
            embeddings = yield from self._embed(found.entries)
        now = (yield from self.follow(marks)).marks
        if now.erasure_id != marks.erasure_id:
            return _Step(marks=now, records=0, is_last=False)
        points = [
            point_of(entry, None if embeddings is None else embeddings[i])
            for i, entry in enumerate(found.entries)
        ]
        if points:
            yield from self.runs.prolong(self.tenant_id)
            yield from call(self.vectors.upsert, points)
            now = (yield from self.follow(now)).marks
        is_embedded = embed and (embeddings is not None or not found.entries)
        now = yield from self._noted(
            now,
            words_seq=max(marks.words_seq, found.until_seq),
            dense_seq=found.until_seq if is_embedded else marks.dense_seq,
        )
        return _Step(now, len(points), is_last=found.until_seq == after_seq)

    def _embed(self, entries: Sequence[IndexEntry]) -> Plan[list[Embedding | None] | None]:
        """What the model makes of them; None when it is down, unless the run is strict.

        A model that answers otherwise and refuses a batch is asked for its texts one by one:
        a text it never takes must not keep those after it out, and has no vector.
        """
        embedder = self.embedder
        if embedder is None:
            return None
        records = [entry.record for entry in entries]
        texts = [document_text(record) for record in records]
        before = [""] * len(texts)
        if isinstance(embedder.model, TurnEmbeddings):
            before = yield from said_before(self.log, self.tenant_id, records)
        turns = list(zip(before, texts, strict=True))
        try:
            try:
                embeddings = yield from self._embeddings(embedder, turns)
            except Exception:
                if not (yield from answers(embedder)):
                    raise
                embeddings = yield from self._one_by_one(embedder, turns)
        except Exception as error:
            if self.is_strict:
                raise
            self.breakers.embeddings.failed(error)
            return None
        self.breakers.embeddings.worked()
        return embeddings

    def _embeddings(
        self, embedder: Embedder, turns: list[tuple[str, str]]
    ) -> Plan[list[Embedding | None]]:
        model, texts = embedder.model, [text for _, text in turns]
        if isinstance(model, TurnEmbeddings):
            encoded = yield from call(model.embed_turns, turns)
        else:
            vectors = yield from call(model.embed_documents, texts)
            encoded = [Encoded(vector, None) for vector in vectors]
        vectors = [each.vector for each in encoded]
        check_vectors(vectors, count=len(texts), dense=self.vectors.dense)
        return [
            Embedding(each.vector, codes_of(text, each.tokens) if each.tokens else "")
            for text, each in zip(texts, encoded, strict=True)
        ]

    def _one_by_one(
        self, embedder: Embedder, turns: list[tuple[str, str]]
    ) -> Plan[list[Embedding | None]]:
        embeddings: list[Embedding | None] = []
        refused: Exception | None = None
        for turn in turns:
            try:
                embeddings += yield from self._embeddings(embedder, [turn])
            except Exception as error:  # noqa: BLE001 - any model may be behind it
                refused = error
                embeddings.append(None)
        if refused is not None:
            if len(turns) > 1 and not any(embeddings):
                raise refused
            self.breakers.embeddings.refused(refused)
        return embeddings
