"""Recall by kind of memory: what happened, and what is known."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Final, cast, get_args

from langchain_ctxmgr._plans import Plan
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.intake import shown
from langchain_ctxmgr.memory.facts.values import Fact
from langchain_ctxmgr.memory.lasting import Accesses
from langchain_ctxmgr.memory.recall import Recall
from langchain_ctxmgr.records import Memories, Memory, Scope
from langchain_ctxmgr.remembering import Memorizer, MemoryKind

_FACT: Final = "memory"


def kinds_of(kinds: object) -> frozenset[str]:
    """The kinds of memory asked for.

    Raises:
        ValueError: If it is no sequence of such, or empty.
    """
    known = get_args(MemoryKind)
    is_some = isinstance(kinds, Collection) and not isinstance(kinds, str)
    given = frozenset(cast("Collection[object]", kinds)) if is_some else frozenset[object]()
    if not given or not given.issubset(known):
        raise ValueError(f"kinds must name some of {known}, got {shown(cast('object', kinds))}")
    return frozenset(map(str, given))


def recalled_by_kind(
    recall: Recall,
    memorizer: Memorizer,
    scope: Scope,
    query: str,
    *,
    kinds: frozenset[str],
    asked_at: datetime,
    k: int,
    max_tokens: int | None,
    explain: bool,
    score_threshold: float,
) -> Plan[list[Memory]]:
    """The `k` best memories of these kinds; of two kinds, the best of each in turn."""
    happened: Sequence[Memory] = ()
    if "episodic" in kinds:
        found = yield from recall.find(
            scope,
            query,
            asked_at=asked_at,
            k=k,
            max_tokens=max_tokens,
            explain=explain,
            score_threshold=score_threshold,
            accesses=Accesses(),
            happenings=True,
        )
        happened = found.memories
    known: Sequence[Memory] = ()
    if "semantic" in kinds:
        facts = yield from memorizer.known(scope, query=query, as_of=asked_at, k=k)
        known = [_memory(fact, rank, memorizer.counter) for rank, fact in enumerate(facts, 1)]
    both = (each for pair in zip_longest(happened, known) for each in pair if each is not None)
    chosen, room = Memories(), max_tokens
    for memory in both:
        if len(chosen) < k and (room is None or memory.tokens <= room):
            chosen.append(memory)
            room = None if room is None else room - memory.tokens
    return chosen


def _memory(fact: Fact, rank: int, counter: TokenCounter) -> Memory:
    """A fact as recall gives it; facts are ranked, and their score is only that."""
    source = fact.sources[-1]
    return Memory(
        id=source.message_id,
        thread_id=source.thread_id,
        kind="semantic",
        text=fact.text,
        role=_FACT,
        speaker=None,
        at=source.at,
        score=1 / rank,
        tokens=counter.text(fact.text),
        slot=0,
        session=0,
        source_ids=tuple(each.message_id for each in fact.sources),
    )
