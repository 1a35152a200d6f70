"""Bringing summaries up to the log, thread by thread, as an index is brought up to it.

How far a tenant's log has been looked at is marked in the log itself, after the work is done:
a process that dies leaves the mark where it was, and whichever looks next goes on from there.
One at a time works for a thread, by a claim that ends by itself when its holder dies, and what
is finished is found again by its key: so no section is paid for twice. A thread whose messages
the model gives no usable answer for holds up no other: it waits until a section more was said.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from hashlib import sha256
from typing import Final, NamedTuple, TypeVar

from langchain_core.messages import AIMessage

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.budget.costs import cost
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.compression.chat_summarizer import ChatSummarizer, Update
from langchain_ctxmgr.compression.statements import RunningSummary
from langchain_ctxmgr.errors import NoAnswerError, StorageError, SummaryError
from langchain_ctxmgr.events import Degraded, Listener, Summarized, emit
from langchain_ctxmgr.memory.breaker import Breaker
from langchain_ctxmgr.memory.claims import given_back, moment
from langchain_ctxmgr.prompt.validity import role_of
from langchain_ctxmgr.records import Branch, LogRecord, Scope
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.summaries.store import Section, SummaryStore

T = TypeVar("T")

_TASK: Final = "summaries"
"""Names the mark of how far the log was looked at, and the claims ahead of a thread's digest."""
_NOT_TAKEN: Final = (400, 413, 422)
"""How a provider refuses a request for what it says; other failures are the provider's own."""
_SLACK: Final = timedelta(seconds=5)
"""What a claim lasts beyond the time-out of the model's call it is for."""
_READ: Final = 512
"""Records looked at in one step."""
_TOLD: Final = 8
"""Unsupported statements an event names."""


@dataclass(slots=True, kw_only=True)
class Spent:
    """What the summarizer's model has taken in this process."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    """Of the calls whose price is known."""
    unpriced_calls: int = 0
    by_day: dict[tuple[str, date], Decimal] = field(default_factory=dict[tuple[str, date], Decimal])
    """USD by tenant and day (UTC)."""


class _Claim(NamedTuple):
    """The right to make a thread's summary."""

    tenant_id: str
    task: str
    holder: str

    @classmethod
    def of(cls, branch: Branch) -> _Claim:
        """One for a holder of its own: each run is another's rival, in one process too."""
        thread = sha256(branch.thread_id.encode("utf-8", "surrogatepass")).hexdigest()
        return cls(branch.tenant_id, f"{_TASK} {thread[:32]}", uuid.uuid4().hex)


class _Made(NamedTuple):
    """A finished summary; 0 and None where there is none."""

    number: int
    """Of the section that it reaches to the end of."""
    summary: RunningSummary | None


def _is_of_the_messages(error: Exception) -> bool:
    """Whether what failed is this summary, rather than the model or the log."""
    if isinstance(error, SummaryError):
        return not isinstance(error, NoAnswerError)
    return getattr(error, "status_code", None) in _NOT_TAKEN


class SummaryMaker:
    """Makes the summaries that are due.

    Args:
        log: What is summed up.
        store: Where summaries are kept.
        summarizer: What makes them.
        counter: What sizes are counted with.
        trigger_tokens: A thread is summed up once it has so many.
        listeners: Told of each summary, and of failures once for each run of them.
        now: The present instant, aware.
    """

    def __init__(
        self,
        log: MessageLog,
        store: SummaryStore,
        summarizer: ChatSummarizer,
        counter: TokenCounter,
        *,
        trigger_tokens: int,
        listeners: tuple[Listener, ...],
        now: Callable[[], datetime],
    ) -> None:
        self._log = log
        self._store = store
        self._summarizer = summarizer
        self._counter = counter
        self._trigger_tokens = trigger_tokens
        self._listeners = listeners
        self._now = now
        self._refused: dict[tuple[str, str], int] = {}
        self._is_capped: set[tuple[str, date]] = set()
        self.breaker = Breaker("summarizer", "sentences extracted from the log", listeners)
        self.spent = Spent()

    def follow(
        self, tenant_id: str, *, is_ending: Callable[[], bool] = lambda: False
    ) -> Plan[bool]:
        """Make what is due of a tenant's threads; whether nothing is left to do.

        The boundary for the summarizer: its failures are events, and what is missing is made
        by a later run.
        """
        if self.is_resting:
            return False
        try:
            with self.breaker.asking() as asked:
                is_done = yield from self._followed(tenant_id, is_ending)
            self.breaker.worked(asked)
        except Exception as error:  # noqa: BLE001 - the boundary this docstring names
            self.breaker.failed(error)
            return False
        return is_done

    @property
    def is_resting(self) -> bool:
        """Whether the model failed a moment ago: nothing is made then."""
        return not self.breaker.is_closed

    def failed(self, error: Exception) -> None:
        """Rest, and tell of `error`."""
        self.breaker.failed(error)

    def update(self, scope: Scope) -> Plan[RunningSummary | None]:
        """The summary of a thread's newest branch, made as far as its sections are complete.

        Whatever its size; None where no section is complete yet.

        Raises:
            SummaryError: If the model's answer cannot be used. What it raises itself passes.
        """
        return (yield from self._asked_for(scope, anew=False))

    def remake(self, scope: Scope) -> Plan[RunningSummary | None]:
        """`update` from the first message on, whatever is kept."""
        return (yield from self._asked_for(scope, anew=True))

    def _asked_for(self, scope: Scope, *, anew: bool) -> Plan[RunningSummary | None]:
        branch = yield from call(self._log.branch, scope)
        if not anew:
            made = yield from self._newest(branch)
            if made.number >= self._store.complete(branch):
                return made.summary
        claim = _Claim.of(branch)
        while not (yield from self._claimed(claim)):
            yield from call(moment.sleep)
        return (yield from self._alone(claim, self._up_to_date(branch, claim, anew=anew)))

    def _followed(self, tenant_id: str, is_ending: Callable[[], bool]) -> Plan[bool]:
        marks = yield from call(self._log.marks, tenant_id, _TASK)
        seq = marks.words_seq
        while not is_ending():
            pending = yield from call(self._log.pending, tenant_id, seq, _READ)
            if pending.until_seq <= seq:
                return True
            for thread_id in dict.fromkeys(entry.record.thread_id for entry in pending.entries):
                if is_ending() or not (yield from self._thread(tenant_id, thread_id)):
                    return is_ending()
            seq = pending.until_seq
            yield from call(self._log.set_marks, tenant_id, _TASK, words_seq=seq, dense_seq=seq)
        return False

    def _thread(self, tenant_id: str, thread_id: str) -> Plan[bool]:
        """Whether a thread has what is due of it: not while its tenant's means are used up."""
        branch = yield from call(self._log.branch, Scope(tenant_id=tenant_id, thread_id=thread_id))
        if branch.head is None or branch.head.total_tokens < self._trigger_tokens:
            return True
        complete, own = self._store.complete(branch), (tenant_id, thread_id)
        if self._refused.get(own) == complete:
            return True
        if (yield from self._newest(branch)).number >= complete:
            return True
        if self._is_over_cap(tenant_id):
            return False
        claim = _Claim.of(branch)
        if not (yield from self._claimed(claim)):
            return False
        try:
            yield from self._alone(claim, self._up_to_date(branch, claim, anew=False))
        except Exception as error:
            if not _is_of_the_messages(error):
                raise
            self._refused[own] = complete
            self.breaker.refused(error)
        else:
            self._refused.pop(own, None)
        return True

    def _newest(self, branch: Branch) -> Plan[_Made]:
        """The newest summary of `branch` there is."""
        made = yield from self._store.made(branch)
        for number in range(min(made, self._store.complete(branch)), 0, -1):
            section = yield from self._store.section(branch, number)
            if section is not None:
                summary = yield from self._store.get(branch, section)
                if summary is not None:
                    return _Made(number, summary)
        return _Made(0, None)

    def _up_to_date(
        self, branch: Branch, claim: _Claim, *, anew: bool
    ) -> Plan[RunningSummary | None]:
        # Looked up with the claim in hand: who had it before may have made what was due.
        number, summary = _Made(0, None) if anew else (yield from self._newest(branch))
        for due in range(number + 1, self._store.complete(branch) + 1):
            section = yield from self._store.section(branch, due)
            if section is None or self._is_over_cap(branch.tenant_id):
                break
            summary = yield from self._made(branch, section, summary, claim)
        return summary

    def _made(
        self, branch: Branch, section: Section, previous: RunningSummary | None, claim: _Claim
    ) -> Plan[RunningSummary]:
        erasures = self._store.erasures
        records = yield from call(
            self._log.read, branch, from_slot=section.start_slot, before_slot=section.end_slot
        )
        # System text leads each prompt as it is: told again as notes it would be no more than data.
        records = [record for record in records if role_of(record.message) != "system"]
        statements = () if previous is None else previous.statements
        cited: dict[str, LogRecord] = {}
        for source in dict.fromkeys(s for each in statements for s in each.sources):
            found = yield from call(self._log.find, branch, source.message_id)
            if found is not None:
                cited[source.message_id] = found
        before = (self.spent.cost_usd, self.spent.unpriced_calls)
        update = Update(list(statements), 0, [])
        for part in self._summarizer.parts(records, self._counter):
            if not (yield from self._claimed(claim)):
                raise SummaryError("another process makes this summary by now")
            after = yield from self._summarizer.update(
                update.statements,
                part,
                cited,
                self._counter,
                lambda reply: self._paid(branch.tenant_id, reply),
            )
            cited |= {piece.record.message_id: piece.record for piece in part}
            update = update.then(after)
        is_priced = self.spent.unpriced_calls == before[1]
        taken = self.spent.cost_usd - before[0] if is_priced else None
        summary = RunningSummary(
            before_slot=section.end_slot,
            statements=tuple(update.statements),
            supported=update.supported,
            cost_usd=None if taken is None else str(taken),
        )
        yield from self._store.put(branch, section, summary, erasures=erasures)
        self._tell(branch, len(records), update, taken)
        return summary

    def _claimed(self, claim: _Claim) -> Plan[bool]:
        """Whether its holder alone makes the thread's summary during the next call."""
        duration = self._summarizer.timeout + _SLACK
        return (yield from call(self._log.claim, *claim, duration))

    def _alone(self, claim: _Claim, work: Plan[T]) -> Plan[T]:
        """What `work` gives; the claim is given back whatever becomes of it."""
        release_now = partial(self._release_now, claim)
        return given_back(work, lambda: call(self._log.release, *claim), release_now)

    def _release_now(self, claim: _Claim) -> None:
        with suppress(StorageError):  # it ends by itself
            self._log.release(*claim)

    def _tell(self, branch: Branch, messages: int, update: Update, taken: Decimal | None) -> None:
        emit(
            self._listeners,
            Summarized(
                tenant_id=branch.tenant_id,
                thread_id=branch.thread_id,
                messages=messages,
                statements=len(update.statements),
                supported=update.supported,
                unsupported=tuple(update.unsupported[:_TOLD]),
                cost_usd=taken,
            ),
        )
        if update.supported < self._summarizer.min_supported:
            reason = (
                f"{len(update.unsupported)} of {update.written} statements are not borne out, "
                f"such as {update.unsupported[0]}"
            )
            fallback = "the sentences they were about"
            emit(self._listeners, Degraded(part="summarizer", reason=reason, fallback=fallback))

    def _paid(self, tenant_id: str, reply: AIMessage) -> None:
        """Note what a call took."""
        spent, used = self.spent, reply.usage_metadata
        spent.calls += 1
        price = None if used is None else cost(used, self._summarizer.model, at=self._now())
        if used is not None:
            spent.input_tokens += used["input_tokens"]
            spent.output_tokens += used["output_tokens"]
        today = (tenant_id, self._now().date())
        if price is None:
            spent.unpriced_calls += 1
            if self._summarizer.max_cost_per_day is not None:
                why = "cannot be held to what they may take: the price of a call is unknown"
                self._tell_once(today, why, "calls whose cost is not counted")
            return
        spent.cost_usd += price
        for tenant_day in list(spent.by_day):
            if tenant_day[1] < today[1]:
                spent.by_day.pop(tenant_day, None)
        spent.by_day[today] = spent.by_day.get(today, Decimal(0)) + price

    def _is_over_cap(self, tenant_id: str) -> bool:
        """Whether the tenant's means for today are used up; told once a day."""
        cap, today = self._summarizer.max_cost_per_day, (tenant_id, self._now().date())
        if cap is None or self.spent.by_day.get(today, Decimal(0)) < cap:
            return False
        why = f"took {cap} USD today, as much as they may"
        self._tell_once(today, why, "sentences extracted from the log")
        return True

    def _tell_once(self, today: tuple[str, date], why: str, fallback: str) -> None:
        """Tell once a day of a tenant's cap that is reached, or that cannot be held."""
        if today in self._is_capped:
            return
        self._is_capped = {each for each in self._is_capped if each[1] >= today[1]} | {today}
        reason = f"summaries of {today[0]!r} {why}"
        emit(self._listeners, Degraded(part="summarizer", reason=reason, fallback=fallback))
