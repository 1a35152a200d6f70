"""What is known of a user, kept at hand for the view: which facts bear on a question.

The folding of each user's statements is kept in this process and goes on with what was stated
since, so a question costs what is new. It is checked against the log each time: where a statement
was erased or superseded, also by another process, it is folded anew. Reading statements from
messages takes longer: that is done as they are recorded, and never while a view is made.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.analysis import terms
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.events import Degraded, Listener, emit
from langchain_ctxmgr.forking import ForkableLock
from langchain_ctxmgr.memory.facts.service import Facts, told_in
from langchain_ctxmgr.memory.facts.values import Fact, Told
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.message_log import MessageLog

if TYPE_CHECKING:
    from langchain_ctxmgr.memory.facts.folding import Folding, Known

_KEPT: Final = 256
"""Users whose facts are kept at hand."""
_LEAST_OF_BEST: Final = 0.5
"""A fact that shares less with the question than half of what the best one does is left out."""


class Bearing(NamedTuple):
    """A fact that bears on a question."""

    fact: Fact
    score: float
    """How much it shares with the question, rare words counting more."""
    seq: int
    """Of the record that says so last."""


@dataclass(slots=True)
class _Held:
    """One user's statements, folded."""

    folding: Folding
    count: int = 0
    """Records that state something."""
    last_seq: int = 0
    told: list[Told] = field(default_factory=list[Told])


class StandingFacts:
    """Facts of users, for views; safe to share between threads and tasks.

    Args:
        log: Where statements are kept.
        facts: Reads them from messages.
        listeners: Told where that fails.
    """

    def __init__(
        self, log: MessageLog, facts: Facts, *, listeners: tuple[Listener, ...] = ()
    ) -> None:
        self._log = log
        self._facts = facts
        self._listeners = listeners
        self._held: OrderedDict[tuple[str | None, str | None], _Held] = OrderedDict()
        self._guard = ForkableLock()
        self._erasures = 0

    def catch_up(self, tenant_id: str, *, limit: int) -> Plan[None]:
        """Read what some of the tenant's new records state.

        The boundary for a log that cannot be written just now: what is left is read later.
        """
        try:
            yield from self._facts.read(tenant_id, limit=limit)
        except StorageError as error:
            event = Degraded(part="facts", reason=str(error), fallback="facts read before")
            emit(self._listeners, event)

    def bearing_on(
        self, question: str, scope: Scope, *, at: datetime, beside_thread: str, k: int
    ) -> Plan[list[Bearing]]:
        """The `k` facts that hold `at` and share most with `question`, the best first.

        Args:
            question: In words.
            scope: The user.
            at: When they have to hold.
            beside_thread: What was said in this thread is left out.
            k: Most facts.
        """
        asked = set(terms(question))
        if not asked:
            return []
        held = yield from self._at_hand(Scope(tenant_id=scope.tenant_id, user_id=scope.user_id))
        found = [
            (known, shared)
            for known in held
            if (shared := known.words & asked) and _may_be_shown(known, at, beside_thread)
        ]
        often = Counter(term for _, shared in found for term in shared)
        scored = [
            (sum(math.log(1 + len(held) / often[term]) for term in sorted(shared)), place)
            for place, (_, shared) in enumerate(found)
        ]
        best = max((score for score, _ in scored), default=0.0)
        near = sorted((each for each in scored if each[0] >= _LEAST_OF_BEST * best), reverse=True)
        chosen = ((found[place][0], score) for score, place in near[:k])
        return [Bearing(known.fact(), score, known.seq) for known, score in chosen]

    def forget(self, tenant_id: str) -> None:
        """Drop what is at hand of a tenant: what it was read from may be erased."""
        with self._guard:
            self._erasures += 1
            for key in [key for key in self._held if key[0] == tenant_id]:
                del self._held[key]

    def _at_hand(self, user: Scope) -> Plan[Sequence[Known]]:
        """All that is known of a user, as the log has it now."""
        key, erasures = (user.tenant_id, user.user_id), self._erasures
        count = yield from call(self._log.stated_count, user)
        if not count:
            return ()
        with self._guard:
            held = self._held.pop(key, None)
        since = 0 if held is None else held.last_seq
        rows = yield from call(self._log.stated, user, after_seq=since)
        if held is not None and held.count + len(rows) != count:
            held, rows = None, (yield from call(self._log.stated, user))
        told = [each for row in rows for each in told_in(row)]
        held = _folded(held, told)
        held.count, held.last_seq = count, max([held.last_seq, *(row.seq for row in rows)])
        known = [*held.folding.all]
        with self._guard:
            if self._erasures == erasures:
                self._held[key] = held
                while len(self._held) > _KEPT:
                    self._held.popitem(last=False)
        return known


def _folded(held: _Held | None, told: Sequence[Told]) -> _Held:
    """`held` with what was told since; all anew where some of that was said before it."""
    from langchain_ctxmgr.memory.facts.folding import Folding, order_of

    if held is None:
        held = _Held(Folding())
    elif held.told and told and order_of(min(told, key=order_of)) < order_of(held.told[-1]):
        told, held = [*held.told, *told], _Held(Folding(), held.count, held.last_seq)
    told = sorted(told, key=order_of)
    held.folding.hear_all(told)
    held.told += told
    return held


def _may_be_shown(known: Known, at: datetime, beside_thread: str) -> bool:
    if known.said.is_flagged or (known.until is not None and known.until <= at):
        return False
    if known.since is not None and known.since > at:
        return False
    return all(source.thread_id != beside_thread for source in known.sources)
