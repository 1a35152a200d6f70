"""Bringing summaries up to the log, thread by thread, as an index is brought up to it.

How far a tenant's log has been looked at is marked in the log itself, after the work is done:
a process that dies leaves the mark where it was, and whichever looks next goes on from there.
One at a time works for a thread, by a claim that ends by itself when its holder dies, and what
is finished is found again by its key: so no section is paid for twice. Where the model gives no
usable answer for a section, the section's own sentences take its notes' place and the next goes on.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Final, NamedTuple, TypeVar

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.compression.chat_summarizer import ChatSummarizer, Update
from langchain_ctxmgr.compression.levels import folded, kept_share
from langchain_ctxmgr.compression.statements import RunningSummary, Statement
from langchain_ctxmgr.errors import NoAnswerError, StorageError, SummaryError
from langchain_ctxmgr.events import Degraded, Listener, Resummarized, Summarized, emit
from langchain_ctxmgr.memory.breaker import Breaker
from langchain_ctxmgr.memory.claims import given_back, moment
from langchain_ctxmgr.prompt.validity import role_of
from langchain_ctxmgr.records import Branch, LogRecord, Scope
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.summaries.spending import Spending, Spent
from langchain_ctxmgr.summaries.store import NOT_MADE, Section, SummaryStore

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


class _TakenOverError(SummaryError):
    """Another process makes this summary by now."""


def _is_of_the_messages(error: Exception) -> bool:
    """Whether what failed is this summary, rather than the model or the log."""
    if isinstance(error, SummaryError):
        return not isinstance(error, NoAnswerError | _TakenOverError)
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
        self.spending = Spending(
            summarizer.model, summarizer.max_cost_per_day, listeners=listeners, now=now
        )
        self.breaker = Breaker(
            "summarizer", "sentences extracted from the log", listeners, may_quote=True
        )
        self.drift: float | None = None

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

    @property
    def spent(self) -> Spent:
        """What the model has taken in this process."""
        return self.spending.spent

    def update(self, scope: Scope) -> Plan[RunningSummary | None]:
        """The summary of a thread's newest branch, made as far as its sections are complete.

        Whatever its size; None where no section is complete yet.

        Raises:
            NoAnswerError: If the model does not answer. What it raises itself passes.
        """
        branch = yield from call(self._log.branch, scope)
        made = yield from self._store.newest(branch)
        if made.number >= self._store.complete(branch):
            return made.summary
        return (yield from self._waited_for(branch, anew=False))

    def remake(self, scope: Scope) -> Plan[RunningSummary | None]:
        """`update` from the first message on, whatever is kept; how far that had drifted is told.

        `drift` is the share of its notes that those made anew do not bear out.
        """
        branch = yield from call(self._log.branch, scope)
        before = (yield from self._store.newest(branch)).summary
        after = yield from self._waited_for(branch, anew=True)
        if before is not None and after is not None:
            self.drift = 1 - kept_share(before, after)
            event = Resummarized(
                tenant_id=branch.tenant_id,
                thread_id=branch.thread_id,
                statements=len(after.statements),
                drift=self.drift,
            )
            emit(self._listeners, event)
        return after

    def _waited_for(self, branch: Branch, *, anew: bool) -> Plan[RunningSummary | None]:
        while True:
            claim = _Claim.of(branch)
            while not (yield from self._claimed(claim)):
                yield from call(moment.sleep)
            with suppress(_TakenOverError):  # what whoever took over makes is found then
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
        if (yield from self._store.newest(branch)).number >= self._store.complete(branch):
            return True
        if self.spending.is_over_cap(tenant_id):
            return False
        claim = _Claim.of(branch)
        if not (yield from self._claimed(claim)):
            return False
        try:
            yield from self._alone(claim, self._up_to_date(branch, claim, anew=False))
        except _TakenOverError:
            return False
        return True

    def _up_to_date(
        self, branch: Branch, claim: _Claim, *, anew: bool
    ) -> Plan[RunningSummary | None]:
        # Looked up with the claim in hand: who had it before may have made what was due.
        number, summary = NOT_MADE if anew else (yield from self._store.newest(branch))
        for due in range(number + 1, self._store.complete(branch) + 1):
            section = yield from self._store.section(branch, due)
            if section is None or self.spending.is_over_cap(branch.tenant_id):
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
        sections = () if previous is None else previous.sections
        before = (self.spent.cost_usd, self.spent.unpriced_calls)
        is_extracted = False
        try:
            update = yield from self._written(branch, records, statements, claim)
        except Exception as error:
            if not _is_of_the_messages(error):
                raise
            self.breaker.refused(error)
            update = self._summarizer.extracted(statements, records, self._counter)
            is_extracted = True
        is_priced = self.spent.unpriced_calls == before[1]
        taken = self.spent.cost_usd - before[0] if is_priced else None
        levels = folded(
            update.statements,
            [*sections, update.fresh],
            max_tokens=self._summarizer.max_tokens,
            max_section_tokens=self._summarizer.max_notes_tokens,
            counter=self._counter,
        )
        summary = RunningSummary(
            before_slot=section.end_slot,
            statements=levels.overview,
            sections=levels.sections,
            supported=update.supported,
            cost_usd=taken,
        )
        yield from self._store.put(branch, section, summary, erasures=erasures)
        event = Summarized(
            tenant_id=branch.tenant_id,
            thread_id=branch.thread_id,
            messages=len(records),
            statements=len(summary.statements),
            supported=update.supported,
            unsupported=tuple(update.unsupported[:_TOLD]),
            is_extracted=is_extracted,
            cost_usd=taken,
        )
        emit(self._listeners, event)
        if update.supported < self._summarizer.min_supported:
            reason = f"{len(update.unsupported)} of {update.written} statements are not borne out"
            fallback = "the sentences they were about"
            emit(self._listeners, Degraded(part="summarizer", reason=reason, fallback=fallback))
        return summary

    def _written(
        self,
        branch: Branch,
        records: Sequence[LogRecord],
        statements: Sequence[Statement],
        claim: _Claim,
    ) -> Plan[Update]:
        """What the model makes of the notes so far and a section, in as many calls as it takes.

        Raises:
            SummaryError: If an answer of it cannot be used. What it raises itself passes.
        """
        cited: dict[str, LogRecord] = {}
        for source in dict.fromkeys(s for each in statements for s in each.sources):
            found = yield from call(self._log.find, branch, source.message_id)
            if found is not None:
                cited[source.message_id] = found
        update = Update(list(statements), 0, [], [])
        for part in self._summarizer.parts(records, self._counter):
            if not (yield from self._claimed(claim)):
                raise _TakenOverError("another process makes this summary by now")
            after = yield from self._summarizer.update(
                update.statements,
                part,
                cited,
                self._counter,
                lambda reply: self.spending.paid(branch.tenant_id, reply),
            )
            cited |= {piece.record.message_id: piece.record for piece in part}
            update = update.then(after)
        return update

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
