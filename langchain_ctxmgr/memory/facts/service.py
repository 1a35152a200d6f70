"""A manager's facts: read from the log as it grows, folded when they are asked for.

How far a tenant's log has been read is marked in the log itself, after what it states is kept:
a process that dies leaves the mark where it was, and whichever reads next goes on from there.
Reading twice changes nothing. What a record states is removed with it, so facts follow every
erasure by themselves.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from langchain_core.messages import ChatMessage

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.analysis import terms
from langchain_ctxmgr.memory.facts.values import (
    MEMORIES,
    MEMORY_ROLE,
    STATED,
    Authority,
    Category,
    Fact,
    Source,
    Told,
    packed,
    unpacked,
)
from langchain_ctxmgr.records import MAX_ID_CHARS, Branch, Scope
from langchain_ctxmgr.storage.message_log import MessageLog, Stated, tenant_of

_MARK: Final = "facts 2"
"""Names how far the log was read; counted up when other rules would read something else."""
MOST_OWNER_CHARS: Final = MAX_ID_CHARS - 64
"""So that a memory's own id has room behind it."""
_READ: Final = 256
"""Records read in one step."""


class Facts:
    """What is stated in a log.

    Args:
        log: What is read.
    """

    def __init__(self, log: MessageLog) -> None:
        self._log = log

    def known(
        self, scope: Scope, *, as_of: datetime, branch: Branch | None = None
    ) -> Plan[list[Fact]]:
        """What holds at `as_of`, by what was recorded up to then; the newest last.

        Args:
            scope: A user, whose facts come from all their threads; else a thread; else a tenant.
            as_of: Statements and validity count up to here.
            branch: Of a thread, what is not on it is left out.
        """
        from langchain_ctxmgr.memory.facts.folding import folded

        yield from self.read(tenant_of(scope))
        told = yield from self._told(scope, branch)
        before = [each for each in told if each.source.at <= as_of]
        return [fact for fact in folded(before) if fact.holds(as_of)]

    def history(self, scope: Scope, *, branch: Branch | None = None) -> Plan[list[Fact]]:
        """`known` of all times: also what no longer holds, and until when it did."""
        from langchain_ctxmgr.memory.facts.folding import folded

        yield from self.read(tenant_of(scope))
        return folded((yield from self._told(scope, branch)))

    def read(self, tenant_id: str, *, limit: int | None = None) -> Plan[None]:
        """Keep what the tenant's new records state; the oldest `limit` of them, some more.

        The rules are compiled when first something is read: that takes a moment.
        """
        from langchain_ctxmgr.memory.facts.reading import stated_in

        marks = yield from call(self._log.marks, tenant_id, _MARK)
        seq = marks.words_seq
        while True:
            if limit is not None and limit <= 0:
                return
            pending = yield from call(self._log.pending, tenant_id, seq, _READ)
            if pending.until_seq <= seq:
                return
            limit = None if limit is None else limit - len(pending.entries)
            stated = {entry.record.seq: stated_in(entry.record) for entry in pending.entries}
            values = {of: packed(found) for of, found in stated.items() if found}
            until = pending.until_seq
            yield from call(self._log.put_stated, tenant_id, values, after_seq=seq, until_seq=until)
            yield from call(self._log.set_marks, tenant_id, _MARK, words_seq=until, dense_seq=until)
            seq = until

    def _asked(self, scope: Scope) -> Plan[list[Scope]]:
        """Where what `scope` may know is recorded."""
        tenant_id = tenant_of(scope)
        if scope.user_id is not None:
            return [Scope(tenant_id=tenant_id, user_id=scope.user_id)]
        beside = yield from memories_beside(self._log, scope)
        return [scope, *(Scope(tenant_id=tenant_id, thread_id=thread) for thread in beside)]

    def _told(self, scope: Scope, branch: Branch | None) -> Plan[list[Told]]:
        rows: list[Stated] = []
        for each in (yield from self._asked(scope)):
            rows += yield from call(self._log.stated, each)
        told: list[Told] = []
        for row in sorted(rows):
            if branch is not None and _is_off(branch, row):
                continue
            told += told_in(row)
        return told


def told_in(row: Stated) -> list[Told]:
    """What one record states, with where it was said."""
    source = Source(thread_id=row.thread_id, message_id=row.message_id, at=row.at)
    return [Told(each, source, row.user_id, row.seq) for each in unpacked(row.value)]


def memory_prefix(scope: Scope) -> str:
    """What the threads that a user's memories are recorded in begin with, or else a thread's.

    Raises:
        ValueError: If `scope` names neither a user nor a thread.
    """
    if scope.user_id is not None:
        whose, prefix = scope.user_id, f"memories/{scope.user_id}/"
    elif scope.thread_id is not None:
        whose, prefix = scope.thread_id, f"{scope.thread_id}{MEMORIES}"
    else:
        raise ValueError(f"scope must name whose memory it is, a user or a thread, got {scope}")
    if len(whose) > MOST_OWNER_CHARS:
        raise ValueError(
            f"whose memory it is must have at most {MOST_OWNER_CHARS} characters, got {len(whose)}"
        )
    return prefix


def memory_scope(scope: Scope, memory_id: str) -> Scope:
    """The thread that one memory is recorded in: it can be forgotten by itself.

    Raises:
        ValueError: As `memory_prefix`.
    """
    name = f"{memory_prefix(scope)}{memory_id}"
    return Scope(tenant_id=tenant_of(scope), thread_id=name, user_id=scope.user_id)


def memory_id_of(thread_id: str) -> str | None:
    """The id of the memory that a thread was made for; None for a conversation."""
    whose, apart, memory_id = f"/{thread_id}".rpartition("/")
    is_memory = whose.endswith(MEMORIES.rstrip("/")) or f"{whose}/".startswith(MEMORIES)
    return memory_id if apart and is_memory else None


def memories_beside(log: MessageLog, scope: Scope) -> Plan[list[str]]:
    """The threads that memories of a thread, where no user is named, are recorded in."""
    if scope.thread_id is None or len(scope.thread_id) > MOST_OWNER_CHARS:
        return []
    thread = Scope(tenant_id=tenant_of(scope), thread_id=scope.thread_id)
    tenant = Scope(tenant_id=thread.tenant_id)
    found = yield from call(log.threads, tenant, prefix=memory_prefix(thread))
    return [each.thread_id for each in found]


def memory_message(
    text: str,
    *,
    authority: Authority,
    category: Category | None = None,
    stated: tuple[str, str, str] | None = None,
    is_single: bool = False,
    is_fact: bool = True,
) -> ChatMessage:
    """A memory as it is recorded: its words, and what it states where that is given."""
    given: dict[str, Any] = {"authority": authority.value, "is_fact": is_fact}
    if category is not None:
        given["category"] = category.value
    if stated is not None:
        given |= dict(zip(("subject", "relation", "object"), stated, strict=True))
        given["is_single"] = is_single
    return ChatMessage(content=text, role=MEMORY_ROLE, additional_kwargs={STATED: given})


def matching(facts: Sequence[Fact], query: str, k: int) -> list[Fact]:
    """The `k` facts that share most with `query`, rare words counting more; the best first."""
    asked = set(terms(query))
    said = [set(terms(f"{f.subject} {f.relation} {f.object} {f.text}")) for f in facts]
    often = Counter(term for each in said for term in each & asked)
    scored = [
        (sum(math.log(1 + len(facts) / often[term]) for term in each & asked), place)
        for place, each in enumerate(said)
    ]
    best = sorted((score, place) for score, place in scored if score > 0)
    return [facts[place] for _, place in best[: -k - 1 : -1]]


def _is_off(branch: Branch, row: Stated) -> bool:
    return row.thread_id == branch.thread_id and not branch.holds(row.branch, row.slot)
