"""Filling a token budget with recalled messages, best value first.

The ranking already counts what a message costs, so packing is greedy: take what fits,
pass over what does not, and go on. A message longer than the whole budget is shown as an
excerpt around what the question asks for, since nothing of it would be seen otherwise;
one such message at most, for excerpts push whole messages out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from langchain_ctxmgr.analysis import message_text, sentences, terms
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.memory.episodic import sources_of
from langchain_ctxmgr.prompt.layout import Order, RecalledBlock
from langchain_ctxmgr.records import Explanation, LogRecord, Memory

MIN_ROW_TOKENS = 10
"""With less room than this nothing worth showing fits."""
EXCERPT_SHARE = 0.25
"""Most of the budget that the excerpt of a message may take."""
READ_CHARS = 32_768
"""An excerpt is looked for in so much of a message: 10 ms of work."""
MAX_MISSES = 24
"""Messages in a row that did not fit: then the budget is as full as it gets."""
LEAST_READ = 8
"""Messages read at once, however few are wanted: some say what was said already."""
MAX_REFUSED = 16
"""So many of those left out are accounted for, the best ones."""
CUT_MARK = "[\u2026]"
_SLACK_TOKENS = 8
"""How much cheaper a row may be than the message it shows: its overhead and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """A message that was weighed for the view, and why it is in or out."""

    id: str
    score: float
    tokens: int
    arms: Mapping[str, float]
    included: bool
    reason: str
    seq: int
    is_excerpt: bool = False
    kind: str = "recalled"
    """The `ItemKind` of the section it would stand in."""


class Packing:
    """Takes ranked messages one by one until the budget or the number wanted is reached.

    With a reason in `refused_for` none is taken, and the best are accounted for with it.
    """

    def __init__(
        self,
        counter: TokenCounter,
        question_terms: Sequence[int],
        *,
        max_tokens: int | None,
        k: int | None,
        order: Order = Order.CACHE_STABLE,
        refused_for: str = "",
    ) -> None:
        self._counter = counter
        self._refused_for = refused_for
        self._wanted = frozenset(question_terms)
        self._max_tokens = max_tokens
        self._k = k
        self._may_cut = True
        self._shown: dict[tuple[str | None, str, date, str], str] = {}
        self.block = RecalledBlock(counter, order)
        self.memories: list[Memory] = []
        self.considered: list[Considered] = []
        self.carried: dict[str, float] = {}
        """Importance of what was taken, by message id; of an excerpt, in proportion."""
        self._misses = 0
        self._refused = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more is wanted or fits."""
        if self._k is not None and len(self.memories) >= self._k:
            return True
        if self._refused_for and self._refused >= MAX_REFUSED:
            return True
        return self._left < MIN_ROW_TOKENS or self._misses >= MAX_MISSES

    @property
    def _left(self) -> float:
        return float("inf") if self._max_tokens is None else self._max_tokens - self.block.tokens

    def reads(self, at_most: int) -> int:
        """How many messages to read at once: hardly more than are wanted."""
        if self._k is None:
            return at_most
        return min(at_most, max(self._k - len(self.memories), LEAST_READ))

    def may_fit(self, tokens: int) -> bool:
        """Whether reading a message of so many is worth it: it may fit, or must be cut anyway."""
        at_least = tokens - _SLACK_TOKENS
        return at_least <= self._left or self._must_be_cut(at_least)

    def offer(
        self,
        record: LogRecord,
        score: float,
        arms: Mapping[str, float],
        explanation: Explanation | None = None,
    ) -> None:
        """Take the message of `record` if it fits."""
        text = message_text(record.message)
        if not text.strip():
            return
        memory = Memory(
            id=record.message_id,
            thread_id=record.thread_id,
            kind="episodic",
            text=text,
            role=record.role,
            speaker=record.speaker,
            at=record.at,
            score=score,
            tokens=0,
            slot=record.slot,
            session=record.session,
            arms=arms,
            explanation=explanation,
            source_ids=sources_of(record.message),
        )
        said = (memory.speaker, memory.role, memory.at.date(), text)
        twin = self._shown.get(said)
        if twin is not None:
            self._consider(record, memory, 0, f"says the same as {twin} on that day")
            return
        if self._refused_for:
            self._consider(record, memory, record.tokens, self._refused_for)
            return
        share = 1.0
        if self._must_be_cut(record.tokens - _SLACK_TOKENS):
            memory = self._cut(memory)
            share = len(memory.text) / len(text)
        cost = self.block.cost(memory) if memory.text else record.tokens
        included = bool(memory.text) and cost <= self._left
        if not included:
            self._misses += 1
            self._consider(
                record, memory, cost, f"does not fit: {cost} tokens, {self._left:.0f} left"
            )
            return
        self.block.add(memory)
        self.memories.append(replace(memory, tokens=cost))
        self.carried[memory.id] = record.importance * share
        self._misses = 0
        self._shown[said] = memory.id
        reason = "recalled: an excerpt" if memory.is_excerpt else "recalled"
        self._consider(record, memory, cost, reason, included=True)

    def _consider(
        self,
        record: LogRecord,
        memory: Memory,
        tokens: int,
        reason: str,
        *,
        included: bool = False,
    ) -> None:
        if not included:
            self._refused += 1
            if self._refused > MAX_REFUSED:
                return
        self.considered.append(
            Considered(
                id=memory.id,
                score=memory.score,
                tokens=tokens,
                arms=memory.arms,
                included=included,
                reason=reason,
                seq=record.seq,
                is_excerpt=memory.is_excerpt,
            )
        )

    def _must_be_cut(self, tokens: int) -> bool:
        """Whether a message could not be shown whole even in an empty view."""
        return self._max_tokens is not None and self._may_cut and tokens > self._max_tokens

    def _cut(self, memory: Memory) -> Memory:
        """The best part of a message, or nothing of it; tried once, for the best such message."""
        self._may_cut = False
        room = min(self._left, (self._max_tokens or 0) * EXCERPT_SHARE)
        frame = self.block.cost(replace(memory, text=f"{CUT_MARK}\n{CUT_MARK}"))
        text = excerpt(memory.text, self._wanted, self._counter, int(room) - frame)
        return replace(memory, text=text, is_excerpt=True)


def excerpt(text: str, wanted: frozenset[int], counter: TokenCounter, max_tokens: int) -> str:
    """The sentences of `text` around the one that holds most of the `wanted` terms.

    Verbatim, with a mark where something was cut off; empty if no sentence fits.
    """
    pieces = sentences(text[:READ_CHARS])
    if not pieces:
        return ""
    found = [len(wanted.intersection(terms(piece))) for piece in pieces]
    first = last = max(range(len(pieces)), key=lambda i: (found[i], -i))
    left = max_tokens - counter.text(pieces[first])
    if left < 0:
        return ""
    while True:
        ahead = last + 1 < len(pieces) and counter.text(pieces[last + 1]) <= left
        behind = first > 0 and counter.text(pieces[first - 1]) <= left
        if ahead and not (behind and found[first - 1] > found[last + 1]):
            last += 1
            left -= counter.text(pieces[last])
        elif behind:
            first -= 1
            left -= counter.text(pieces[first])
        else:
            break
    shown = "".join(pieces[first : last + 1]).strip()
    head = f"{CUT_MARK} " if first > 0 else ""
    tail = f" {CUT_MARK}" if last + 1 < len(pieces) or len(text) > READ_CHARS else ""
    return f"{head}{shown}{tail}"
