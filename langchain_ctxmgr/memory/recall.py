"""Recall: which recorded messages answer a question, inside a token budget.

Candidates come from the index, a bounded number from each arm, so the cost does not grow
with the thread; up to that number of turns the candidates are all there are. Scores are
worked out over all candidates together, then messages are taken best value first. Every
recorded turn can be found at once: what the index does not hold yet, or all of it while
the index is down, is searched by its words in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from functools import partial
from math import inf
from types import MappingProxyType
from typing import Any

import numpy as np
from langchain_core.messages import BaseMessage
from numpy.typing import NDArray

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.memory.breaker import Breakers
from langchain_ctxmgr.memory.cached import Cached
from langchain_ctxmgr.memory.candidates import NEIGHBOURS
from langchain_ctxmgr.memory.embeddings import (
    Embedder,
    QuestionVectors,
    UnknownSizeError,
    answers,
    learn_size,
)
from langchain_ctxmgr.memory.episodic import is_episode_thread, is_happening, shelf_of
from langchain_ctxmgr.memory.index_runs import index_of
from langchain_ctxmgr.memory.lasting import Accesses, lasting
from langchain_ctxmgr.memory.late import met, parts_of, token_weights
from langchain_ctxmgr.memory.local import Tokens
from langchain_ctxmgr.memory.packing import Considered, Packing
from langchain_ctxmgr.memory.query import Question, read_question
from langchain_ctxmgr.memory.relevance import (
    LEAST_BY_WORDS,
    NOTHING_RELEVANT,
    SCORE_THRESHOLD,
    relevance,
)
from langchain_ctxmgr.memory.scoring import FIRST, LATE, Arms, Scored, score
from langchain_ctxmgr.prompt.layout import Order
from langchain_ctxmgr.records import Branch, Memory, Scope
from langchain_ctxmgr.storage.cache import MemoryCache
from langchain_ctxmgr.storage.message_log import MessageLog, TermHit, tenant_of
from langchain_ctxmgr.storage.vectors import (
    BM25,
    DENSE,
    PAIRS,
    TERMS,
    Hit,
    SparseVector,
    VectorQuery,
    VectorStore,
)
from langchain_ctxmgr.turns import NO_TURNS, Turns

ARM_LIMIT = 160
"""Candidates from each arm: in a thread of 400 to 700 short turns recall is the same over all of
them."""
NEAR_BEST = 96
"""So many of each arm's best hits bring their neighbours along: an answer often shares no
word with the question, while the turn before it does."""
NEAR_TURNS = 512
"""So many turns are read along with the best hits: the fewer hits, the farther around each."""
TAIL_LIMIT = 256
"""Candidates from what the index does not hold yet."""
LATE_LIMIT = 320
"""Candidates that late interaction weighs, those first in any arm: 4 ms of work. A thread of no
more turns is weighed whole: .004 of recall on 200 to 300 turns with an assistant."""
LATE_ACROSS = 128
"""The same across a user's threads, where no more than so many found any further fact."""
MAX_WEIGHED = 32
"""Words of a question whose rarity is looked up."""
DATED_LIMIT = 128
"""Further candidates from each period that the question names."""
PAGE = 32
"""Messages read at once while packing."""

_ROLES = frozenset({"human", "ai", "tool", "function", "chat"})
_KEYWORD_ARMS = (BM25, TERMS)
_NONE_WEIGHED: Mapping[int, float] = MappingProxyType({})
_LEADING_ARMS = (BM25, DENSE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """What was recalled for a question."""

    memories: tuple[Memory, ...]
    """Best first."""
    block: str
    """All of it as text, in the order it was said, fenced; empty without memories."""
    tokens: int
    """What `block` costs."""
    carried: Mapping[str, float]
    """Importance of what was recalled, by message id; of an excerpt, in proportion."""
    considered: tuple[Considered, ...]
    """What was read to decide, best first: in or out, and why."""


@dataclass(slots=True)
class _Hits:
    """Candidates' scores by arm and `seq`."""

    arms: dict[str, dict[int, float]] = field(default_factory=dict[str, dict[int, float]])
    unindexed: set[int] = field(default_factory=set[int])
    """Not among the index's points yet: their dense score is unknown, not low."""
    last_seq: int = 0
    """Of the tenant's newest record; 0 where no word was looked for."""

    def add(self, arm: str, hits: Iterable[tuple[int, float]]) -> None:
        scores = self.arms.get(arm)
        if not scores:
            self.arms[arm] = dict(hits)
            return
        for seq, found in hits:
            scores[seq] = max(found, scores.get(seq, found))

    def add_tail(self, tail: Sequence[TermHit]) -> None:
        """Hits that the index does not hold yet, best first.

        How rare a word is among the few newest turns says nothing, so the best of them is
        put level with the best of the index.
        """
        for arm in _KEYWORD_ARMS:
            best = max(self.arms.get(arm, {}).values(), default=0.0)
            scale = best / tail[0].score if best and tail else 1.0
            self.add(arm, [Hit(hit.seq, hit.score * scale) for hit in tail])
        self.unindexed.update(hit.seq for hit in tail)

    def seqs(self) -> list[int]:
        return sorted({seq for scores in self.arms.values() for seq in scores})

    def foremost(self, limit: int) -> list[int]:
        """The `limit` candidates that come first in any of the arms."""
        ranked = [_ranked(scores) for scores in self.arms.values()]
        seqs = np.concatenate(ranked)
        places = np.concatenate([np.arange(len(each)) for each in ranked])
        seqs = seqs[np.lexsort((seqs, places))]
        _, firsts = np.unique(seqs, return_index=True)
        return seqs[np.sort(firsts)[:limit]].tolist()

    def best(self) -> list[int]:
        """The best hits of each leading arm."""
        leading = [_ranked(self.arms.get(arm, {}))[:NEAR_BEST] for arm in _LEADING_ARMS]
        return np.unique(np.concatenate(leading)).tolist()


def _ranked(scores: Mapping[int, float]) -> NDArray[np.int64]:
    """The `seq`s with the best score first, ties by `seq`."""
    seqs = np.fromiter(scores, np.int64, len(scores))
    return seqs[np.lexsort((seqs, -np.fromiter(scores.values(), np.float64, len(scores))))]


class Recall:
    """Finds what was said about a question in a thread, or in all threads of a scope.

    Args:
        log: Where the messages are.
        vectors: The index over them; None for the log's own search alone.
        embedder: The model its dense vectors come from; None for keywords alone.
        counter: Prices what is recalled.
        cached: Where the vectors of questions are kept; None: in this process.
        order: In which order what is recalled is shown.
        breakers: Of the index and the model; those of the indexer, where there is one.
    """

    def __init__(
        self,
        log: MessageLog,
        vectors: VectorStore | None,
        embedder: Embedder | None,
        counter: TokenCounter,
        *,
        cached: Cached | None = None,
        order: Order = Order.CACHE_STABLE,
        breakers: Breakers | None = None,
    ) -> None:
        self._log = log
        self._vectors = vectors
        self._embedder = embedder
        self._questions = embedder and QuestionVectors(embedder, cached or Cached(MemoryCache()))
        self._counter = counter
        self._order = order
        _, self._store, self._encoder = breakers or Breakers.of()

    def find(
        self,
        scope: Scope,
        question: str,
        *,
        asked_at: datetime,
        branch: Branch | None = None,
        before_slot: int | None = None,
        shown: Collection[int] = (),
        max_tokens: int | None = None,
        k: int | None = None,
        explain: bool = False,
        score_threshold: float = SCORE_THRESHOLD,
        weights: Mapping[int, float] = _NONE_WEIGHED,
        accesses: Accesses | None = None,
        happenings: bool = False,
    ) -> Plan[Recalled]:
        """The messages of `scope` that answer `question`.

        Args:
            scope: A tenant, narrowed to a user or a thread where these are given.
            question: In words.
            asked_at: What "yesterday" in the question counts from.
            branch: Only messages on this line of the thread.
            before_slot: Only messages before this place in the thread.
            shown: The `seq`s of messages that the view shows already.
            max_tokens: Most that the rendered block may cost. Without it messages are
                ranked by relevance alone, with it by value for their tokens.
            k: Most messages.
            explain: Whether each memory is given with its explanation.
            score_threshold: Nothing is recalled where the chance that anything bears on the
                question (`relevance`) is below.
            weights: Of what users boosted or muted, by `seq`: what has 0 is not recalled.
            accesses: What was recalled before, across threads: recency, access and importance
                count there (`lasting`), and what stands around a message does not; None:
                relevance in a thread.
            happenings: Look for what was recorded as something that happened, episodes and such
                memories, rather than for what was said; with `accesses`.

        Raises:
            ValueError: If the scope has no tenant, or `before_slot` comes without a thread.
        """
        read_as = partial(
            read_question,
            question,
            asked_at=asked_at,
            said_until=branch.head.at if branch is not None and branch.head is not None else None,
        )
        yield from learn_size(self._embedder, self._encoder)
        read = read_as(participants=())
        shelf = shelf_of(scope) if happenings else None
        index = scope
        if shelf is not None:
            scope, index, _ = shelf
        hits = yield from self._keyword_hits(scope, index, read, before_slot)
        seen = yield from self._turns(scope, hits, NO_TURNS)
        people = set(seen.speaker) - {None, ""}
        named = read_as(participants=people) if people else read
        if named.terms != read.terms:
            hits = yield from self._keyword_hits(scope, index, named, before_slot)
        limit = ARM_LIMIT if _turns_before(branch, before_slot) > LATE_LIMIT else LATE_LIMIT
        tokens = yield from self._dense_hits(hits, index, named, before_slot, limit=limit)
        seen = yield from self._turns(scope, hits, seen)
        around = NO_TURNS
        if accesses is None:
            best = hits.best()
            reach = _reach(len(best))
            around = yield from call(self._log.turns, scope, best, around=reach, known=seen)
        hidden = {seq for seq, weight in weights.items() if weight == 0}.union(shown)
        within = _is_said if shelf is None else shelf.holds
        turns = _in_view(Turns.joined([seen, around]), branch, before_slot, hidden, within)
        rarity = None
        if tokens is not None or score_threshold > LEAST_BY_WORDS:
            rarity = yield from self._rarity(hits, index, named)
        if tokens is not None and rarity is not None:
            limit = LATE_LIMIT if accesses is None else LATE_ACROSS
            yield from self._late_hits(hits, index, named, tokens, rarity, limit=limit)
        if not turns:
            return Recalled(memories=(), block="", tokens=0, carried={}, considered=())
        arms = _arms(turns, hits)
        lasts = None
        if accesses is not None:
            recalled = accesses.of(tenant_of(scope), turns.seq.tolist())
            lasts = lasting(turns, recalled, asked_at)
        scored = score(named, turns, arms, priced=max_tokens is not None, lasting=lasts)
        chance = 1.0
        if rarity is not None and len(named.terms) <= MAX_WEIGHED:
            chance = relevance(named, rarity, arms, scored.total, records=hits.last_seq)
        if weights:
            scored = scored.weighed([weights.get(seq, 1.0) for seq in turns.seq.tolist()])
        packing = Packing(
            self._counter,
            named.terms,
            max_tokens=max_tokens,
            k=k,
            order=self._order,
            refused_for=NOTHING_RELEVANT if chance < score_threshold else "",
        )
        wanted = is_happening if happenings else None
        yield from self._pack(scope, turns, scored, packing, explain=explain, wanted=wanted)
        return Recalled(
            memories=tuple(packing.memories),
            block=packing.block.render(),
            tokens=packing.block.tokens,
            carried=packing.carried,
            considered=tuple(packing.considered),
        )

    def _keyword_hits(
        self, scope: Scope, index: Scope, read: Question, before_slot: int | None
    ) -> Plan[_Hits]:
        hits = _Hits()
        if not read.terms:
            return hits
        vector = SparseVector(read.terms, [1.0] * len(read.terms))
        queries = [VectorQuery(arm, vector, ARM_LIMIT) for arm in _KEYWORD_ARMS]
        queries += [
            VectorQuery(arm, vector, DATED_LIMIT, *bounds)
            for bounds in _bounds(read)
            for arm in _KEYWORD_ARMS
        ]
        if read.pairs:
            pairs = SparseVector(read.pairs, [1.0] * len(read.pairs))
            queries.append(VectorQuery(PAIRS, pairs, ARM_LIMIT))
        # The watermark first: what is indexed between the two is then found twice, not never.
        after_seq = yield from self._indexed_until(scope)
        found = yield from self._query(index, queries, before_slot)
        if found is None:
            after_seq = 0
        else:
            for query, answer in zip(queries, found, strict=True):
                hits.add(query.using, answer)
        hits.last_seq = yield from call(self._log.last_seq, tenant_of(scope))
        if after_seq < hits.last_seq:
            limit = ARM_LIMIT if found is None else TAIL_LIMIT
            tail = yield from call(
                self._log.search, scope, read.terms, limit=limit, after_seq=after_seq
            )
            hits.add_tail(tail)
        return hits

    def _dense_hits(
        self, hits: _Hits, scope: Scope, read: Question, before_slot: int | None, *, limit: int
    ) -> Plan[Tokens | None]:
        """Add the dense arm, `limit` hits of it; the question's tokens, where the model tells.

        The boundary for the embedding model: without it, keywords.
        """
        if self._questions is None or self._embedder is None or self._vectors is None:
            return None
        if not (self._encoder.is_closed and self._store.is_closed):
            return None
        try:
            encoded = yield from self._questions.encoded(scope, read.text, self._vectors.dense)
        except Exception as error:  # noqa: BLE001 - any model may be behind it
            if (yield from answers(self._embedder)):
                self._encoder.refused(error)
            else:
                self._encoder.failed(error)
            return None
        self._encoder.worked()
        bounds = _bounds(read)
        queries = [VectorQuery(DENSE, encoded.vector, limit)]
        queries += [VectorQuery(DENSE, encoded.vector, DATED_LIMIT, *each) for each in bounds]
        found = yield from self._query(scope, queries, before_slot)
        for answer in found or []:
            hits.add(DENSE, answer)
        return encoded.tokens if found else None

    def _late_hits(
        self,
        hits: _Hits,
        scope: Scope,
        read: Question,
        tokens: Tokens,
        rarity: Mapping[int, float],
        *,
        limit: int,
    ) -> Plan[None]:
        """Add late interaction for the candidates that other arms put first."""
        codes = yield from self._codes(scope, sorted(hits.foremost(limit)))
        if not codes:
            return
        weights = token_weights(read.text, tokens.spans, rarity)
        seqs = sorted(codes)
        parts = parts_of(weights, tokens.spans, read.parts)
        found = met([codes[seq] for seq in seqs], tokens.vectors, weights, parts)
        for arm, scores in ((LATE, found.similar), (FIRST, found.first)):
            hits.add(arm, zip(seqs, scores.tolist(), strict=True))

    def _rarity(self, hits: _Hits, scope: Scope, read: Question) -> Plan[dict[int, float] | None]:
        """How rare each of the question's words is, by term; nothing of one never said.

        A word is looked for among the hits first, where most are: of a common one in a long
        thread all messages that hold it would be scanned, for milliseconds.
        """
        rarity: dict[int, float] = {}
        for among in (frozenset(hits.arms.get(TERMS, {})), None):
            words = [term for term in read.terms[:MAX_WEIGHED] if term not in rarity]
            if not words or among == frozenset():
                continue
            queries = [
                VectorQuery(TERMS, SparseVector([term], [1.0]), 1, among=among) for term in words
            ]
            found = yield from self._query(scope, queries, None)
            if found is None:
                return None
            best = zip(words, found, strict=True)
            rarity.update({term: answer[0].score for term, answer in best if answer})
        return rarity

    def _codes(self, scope: Scope, seqs: Sequence[int]) -> Plan[dict[int, str]]:
        """What the index keeps of these turns for late interaction; nothing while it is down."""
        if self._vectors is None or not self._store.is_closed:
            return {}
        try:
            found = yield from call(self._vectors.codes, scope, seqs)
        except Exception as error:  # noqa: BLE001 - any store may be behind it
            self._store.failed(error)
            return {}
        self._store.worked()
        return found

    def _query(
        self, scope: Scope, queries: Sequence[VectorQuery], before_slot: int | None
    ) -> Plan[list[list[Hit]] | None]:
        """The index's answers, or None while it is down.

        The boundary for the index: a wrong argument still raises, any other failure is an
        event.
        """
        if self._vectors is None or not self._store.is_closed:
            return None
        with self._store.asking() as asked:
            try:
                found = yield from call(
                    self._vectors.query, scope, queries, before_slot=before_slot
                )
            except ValueError:
                raise
            except UnknownSizeError:
                return None
            except Exception as error:  # noqa: BLE001 - any store may be behind it
                self._store.failed(error)
                return None
            self._store.worked(asked)
            return found

    def _indexed_until(self, scope: Scope) -> Plan[int]:
        """The `seq` up to which the index has the tenant's words; 0 while it cannot be asked."""
        if self._vectors is None or not self._store.is_closed:
            return 0
        with self._store.asking():
            try:
                index = yield from index_of(self._vectors)
            except UnknownSizeError:
                return 0
            except StorageError as error:
                self._store.failed(error)
                return 0
        marks = yield from call(self._log.marks, tenant_of(scope), index)
        return marks.words_seq

    def _turns(self, scope: Scope, hits: _Hits, seen: Turns) -> Plan[Turns]:
        """The turns that were hit; only those not `seen` yet are read."""
        seqs = hits.seqs()
        kept = seen.where(_each(seen.seq, set(seqs).__contains__))
        known = set(kept.seq.tolist())
        new = [seq for seq in seqs if seq not in known]
        if not new:
            return kept
        return Turns.joined([kept, (yield from call(self._log.turns, scope, new))])

    def _pack(
        self,
        scope: Scope,
        turns: Turns,
        scored: Scored,
        packing: Packing,
        *,
        explain: bool,
        wanted: Callable[[BaseMessage], bool] | None = None,
    ) -> Plan[None]:
        ranking: Iterator[int] = iter(np.argsort(-scored.total, kind="stable").tolist())
        seqs, tokens = turns.seq.tolist(), turns.tokens.tolist()
        while not packing.is_full:
            page: dict[int, int] = {}
            at_once = packing.reads(PAGE)
            for row in ranking:
                if packing.may_fit(tokens[row]):
                    page[seqs[row]] = row
                    if len(page) == at_once:
                        break
            if not page:
                return
            for record in (yield from call(self._log.fetch, scope, list(page))):
                is_wanted = wanted is None or wanted(record.message)
                if is_wanted and not packing.is_full:
                    row = page[record.seq]
                    explanation = scored.explained(row) if explain else None
                    packing.offer(record, *scored.of(row), explanation)


def _in_view(
    turns: Turns,
    branch: Branch | None,
    before_slot: int | None,
    shown: Collection[int],
    is_within: Callable[[str], bool],
) -> Turns:
    """The candidates that the view may show, in order of thread and slot."""
    may = ~_each(turns.seq, frozenset(shown).__contains__)
    for role in set(turns.role) - _ROLES:
        may &= turns.role != role
    if branch is None:
        held = {thread_id: is_within(thread_id) for thread_id in set(turns.thread_id)}
        may &= _each(turns.thread_id, held.__getitem__)
    if before_slot is not None:
        may &= turns.slot < before_slot
    if branch is not None:
        last = np.full(len(turns), -1)
        for span in branch.spans:
            last[turns.branch == span.branch] = span.last_slot
        may &= turns.slot <= last
    kept = turns.where(may)
    return kept.where(np.lexsort((kept.seq, kept.slot, kept.thread_rank)))


def _turns_before(branch: Branch | None, before_slot: int | None) -> float:
    """How many turns of a thread may be candidates, at most; no bound is known of several."""
    if before_slot is not None:
        return before_slot
    return inf if branch is None or branch.head is None else branch.head.slot + 1


def _is_said(thread_id: str) -> bool:
    return not is_episode_thread(thread_id)


def _each(values: NDArray[Any], holds: Callable[[Any], bool]) -> NDArray[np.bool_]:
    """For which of the values it holds: of a thousand, faster than numpy's `isin`."""
    return np.fromiter(map(holds, values.tolist()), np.bool_, len(values))


def _arms(turns: Turns, hits: _Hits) -> Arms:
    """The hits as columns in the order of `turns`; NaN where an arm did not find one."""
    columns: dict[str, np.ndarray] = {}
    rows = np.argsort(turns.seq)
    seqs = turns.seq[rows]
    unknown = rows[_each(seqs, hits.unindexed.__contains__)]
    for arm in (BM25, TERMS, PAIRS, DENSE, LATE, FIRST):
        scores = hits.arms.get(arm, {})
        found = np.fromiter(scores, np.int64, len(scores))
        at = np.minimum(np.searchsorted(seqs, found), len(seqs) - 1)
        is_shown = seqs[at] == found
        values = np.fromiter(scores.values(), np.float64, len(scores))
        column = np.full(len(turns), np.nan)
        column[rows[at[is_shown]]] = values[is_shown]
        if arm in {DENSE, LATE}:
            if np.isnan(column).all():
                continue
            column[unknown] = np.nanmean(column)
        columns[arm] = column
    return Arms(
        columns[BM25],
        columns[TERMS],
        columns.get(DENSE),
        columns.get(LATE),
        columns[PAIRS],
        columns[FIRST],
    )


def _reach(hits: int) -> int:
    """How many slots around each of the best hits are looked at."""
    return max(NEIGHBOURS, NEAR_TURNS // (2 * max(hits, 1)))


_NEAR = timedelta(days=3)


def _bounds(read: Question) -> list[tuple[datetime, datetime]]:
    """The instants that the question's periods span, with some days around."""
    day = timedelta(days=1)
    return [
        (
            datetime.combine(period.first, time(), UTC) - _NEAR,
            datetime.combine(period.last, time(), UTC) + day + _NEAR,
        )
        for period in read.periods
    ]
