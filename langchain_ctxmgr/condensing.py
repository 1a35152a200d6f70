"""Condensing a thread on request: by a strategy that is named, as far as its risk calls for.

A strategy makes a summary of recorded messages. Whatever it is, what it says is held against the
messages; one that fails, or whose summary is too little borne out, gives way to the messages' own
sentences. Where too little of what matters is told, these fill the room that is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeAlias

from langchain_ctxmgr import analysis
from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.budget.allocation import ContextBudget, RiskLevel, Strategy
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.compression.chat_summarizer import prompt_text, source_of
from langchain_ctxmgr.compression.extractive import EMPTY, ExtractiveSummarizer
from langchain_ctxmgr.compression.statements import RunningSummary
from langchain_ctxmgr.compression.verification import Evidence
from langchain_ctxmgr.errors import LogError
from langchain_ctxmgr.events import Degraded, Listener, emit
from langchain_ctxmgr.memory.recall import Recall
from langchain_ctxmgr.prompt.layout import row, summary_message
from langchain_ctxmgr.prompt.validity import role_of
from langchain_ctxmgr.records import Branch, LogRecord, Scope, Summary
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.summaries.service import Summaries
from langchain_ctxmgr.view.quotes import SUMMARY_SOURCES, completed, told_of
from langchain_ctxmgr.view.settled import Quote

LIGHT_SHARE: Final = 0.5
"""Of the messages' tokens, for the summary of a thread that has room."""
AGGRESSIVE_SHARE: Final = 0.2
"""The same of one near or over its limit."""
_FOUND_PER_TOKEN: Final = 4
"""Tokens of messages that answer the question, for each that a model may write of them."""
_LEAST_TOKENS: Final = 100
"""A chat model is asked for no less."""

Summarize: TypeAlias = Callable[[Sequence[LogRecord], int, TokenCounter], Summary]
"""A strategy of the caller's: records and most tokens to a summary, as `Summarizer.summarize`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condensation:
    """How a thread is condensed on request.

    Raises:
        ValueError: If a setting is out of its range, or no strategy has the name.
    """

    strategy: str | Summarize = "progressive"
    """One of `STRATEGIES`, or the caller's own."""
    min_messages: int = 4
    """Fewer are left as they are."""
    max_messages: int = 1_000
    """The newest so many are condensed in one operation."""
    timeout: timedelta = timedelta(seconds=60)
    """For one call of the chat model."""
    max_parallel: int = 4
    """Calls of the chat model at once, on an event loop."""
    min_quality: float = 0.8
    """Share of the summary that its messages must bear out."""
    min_preserved: float = 0.6
    """Share of the messages' importance that should be told of, as far as there is room."""

    def __post_init__(self) -> None:
        if not callable(self.strategy) and self.strategy not in STRATEGIES:
            names = ", ".join(STRATEGIES)
            raise ValueError(f"strategy must be one of {names} or callable, got {self.strategy!r}")
        for name in ("min_messages", "max_messages", "max_parallel"):
            value: object = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
        if self.min_messages > self.max_messages:
            raise ValueError(
                f"min_messages must be at most max_messages ({self.max_messages}), "
                f"got {self.min_messages}"
            )
        for name in ("min_quality", "min_preserved"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)!r}")
        if self.timeout <= timedelta(0):
            raise ValueError(f"timeout must be positive, got {self.timeout!r}")

    @property
    def name(self) -> str:
        """The strategy's."""
        given = self.strategy
        return given if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condensed:
    """A thread's messages as a summary, and how it came about."""

    summary: Summary
    """Empty where the messages are too few, or not even one sentence fits."""
    strategy: str
    """What made it: `importance_extract` where the one asked for could not be used."""
    messages: int
    """How many it stands for."""
    quality: float
    """Share of what was written that the messages bear out, 0 to 1."""
    preserved: float
    """Share of the messages' importance that it tells of, 0 to 1."""
    risk: RiskLevel
    """How near the limit the thread is, which decides how much is left."""


class Told(NamedTuple):
    """What a strategy makes of the messages."""

    quote: Quote
    quality: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a strategy is given."""

    scope: Scope
    branch: Branch
    records: Sequence[LogRecord]
    """Oldest first, without system text."""
    question: str
    """Empty for none."""
    max_tokens: int
    how: Condensation


@dataclass(frozen=True, slots=True, kw_only=True)
class Condenser:
    """Everything that strategies work with."""

    log: MessageLog
    recall: Recall
    summaries: Summaries | None
    """None: there is no chat model, and sentences are extracted."""
    counter: TokenCounter
    budget: ContextBudget | None
    listeners: tuple[Listener, ...]
    now: Callable[[], datetime]
    extractive: ExtractiveSummarizer = field(default_factory=ExtractiveSummarizer)

    def condense(
        self, scope: Scope, how: Condensation, question: str, max_tokens: int | None
    ) -> Plan[Condensed]:
        """See `ContextManager.condense`; an empty question is none.

        Raises:
            ValueError: If the strategy needs a question and there is none.
        """
        if how.strategy == "query_focused" and not question.strip():
            raise ValueError("query must be given for query_focused, got none")
        branch = yield from call(self.log.branch, scope)
        newest = yield from call(self.log.read, branch, limit=how.max_messages, newest_first=True)
        records = [each for each in newest[::-1] if role_of(each.message) != "system"]
        risk = self._risk(branch)
        if len(records) < how.min_messages:
            return Condensed(
                summary=EMPTY, strategy=how.name, messages=0, quality=1.0, preserved=1.0, risk=risk
            )
        limit = max_tokens or _room(records, risk)
        task = Task(
            scope=scope,
            branch=branch,
            records=records,
            question=question,
            max_tokens=limit,
            how=how,
        )
        name, told = yield from self._told(task)
        if _preserved(told.quote, records) < how.min_preserved:
            told = told._replace(quote=self._filled(told.quote, task))
        return Condensed(
            summary=told.quote.summary,
            strategy=name,
            messages=len(records),
            quality=told.quality,
            preserved=_preserved(told.quote, records),
            risk=risk,
        )

    def _told(self, task: Task) -> Plan[tuple[str, Told]]:
        """What the strategy makes of it, or the extraction in its place, and which.

        The boundary for chat models and for strategies of the caller's: any failure of theirs
        is an event. A log that cannot be read passes.
        """
        given = task.how.strategy
        reason, may_quote = "", False
        try:
            if callable(given):
                told = _own(given, task, self.counter)
            else:
                told = yield from STRATEGIES[given](self, task)
        except LogError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary this docstring names
            reason, may_quote = f"{type(error).__name__}: {error}", True
        else:
            if told.quality >= task.how.min_quality:
                return task.how.name, told
            reason = f"only {told.quality:.2f} of {task.how.name} is borne out"
        fallback = "sentences extracted from the log"
        emit(
            self.listeners,
            Degraded(part="summarizer", reason=reason, fallback=fallback, may_quote=may_quote),
        )
        return "importance_extract", (yield from importance_extract(self, task))

    def _filled(self, quote: Quote, task: Task) -> Quote:
        """`quote`, and in the room it leaves sentences of what it does not tell of."""
        named = set(quote.summary.source_ids)
        rest = [record for record in task.records if record.message_id not in named]
        told = quote if quote.summary.text else None
        return completed(
            told, _top(rest), task.max_tokens, summarizer=self.extractive, counter=self.counter
        )

    def _risk(self, branch: Branch) -> RiskLevel:
        if self.budget is None or branch.head is None:
            return RiskLevel.SAFE
        limit = self.budget.prompt_tokens
        return self.budget.thresholds.risk(branch.head.total_tokens, limit)


def conversation_summary(parts: Condenser, task: Task) -> Plan[Told]:
    """Notes of every kind by the chat model."""
    return (yield from _noted(parts, task, None))


def key_points(parts: Condenser, task: Task) -> Plan[Told]:
    """What the conversation is about and what follows from it, by the chat model."""
    return (yield from _noted(parts, task, prompt_text("key_points")))


def progressive(parts: Condenser, task: Task) -> Plan[Told]:
    """The running summary of the thread, and extracted sentences of what came since."""
    running = None
    if parts.summaries is not None:
        running = yield from parts.summaries.running(task.scope)
    if running is None:
        return (yield from importance_extract(parts, task))
    told = told_of(running, task.question, task.max_tokens, parts.counter)
    since = [record for record in task.records if record.slot >= running.before_slot]
    quote = completed(
        told, _top(since), task.max_tokens, summarizer=parts.extractive, counter=parts.counter
    )
    return Told(quote, running.supported)


def importance_extract(parts: Condenser, task: Task) -> Plan[Told]:
    """Sentences of the most important messages; no model is asked."""
    yield from ()
    quote = completed(
        None,
        _top(task.records),
        task.max_tokens,
        summarizer=parts.extractive,
        counter=parts.counter,
    )
    return Told(quote)


def query_focused(parts: Condenser, task: Task) -> Plan[Told]:
    """What answers the question: as it was said, or as the chat model notes it."""
    found = yield from parts.recall.find(
        task.scope,
        task.question,
        asked_at=parts.now(),
        branch=task.branch,
        max_tokens=task.max_tokens * (1 if parts.summaries is None else _FOUND_PER_TOKEN),
    )
    memories = {memory.id: memory for memory in found.memories}
    records = [record for record in task.records if record.message_id in memories]
    if parts.summaries is not None and records:
        wide = replace(task, max_tokens=task.max_tokens * _FOUND_PER_TOKEN)
        noted = yield from _notes(parts.summaries, wide, records, None)
        # All of them are candidates for the question: none is an overview that comes first.
        noted = replace(noted, sections=(noted.statements,))
        room, asked = task.max_tokens, task.question
        return Told(told_of(noted, asked, room, parts.counter, notes_share=1.0), noted.supported)
    lines = [
        row(
            slot=each.slot,
            speaker=each.speaker,
            role=each.role,
            text=memories[each.message_id].text,
        )
        for each in records
    ]
    while lines and _cost("".join(lines), parts.counter) > task.max_tokens:
        lines.pop()
    text = "".join(lines).rstrip("\n")
    names = tuple(record.message_id for record in records[: len(lines)])
    tokens = _cost(text, parts.counter) if text else 0
    return Told(Quote.of(Summary(text=text, tokens=tokens, source_ids=names), records))


STRATEGIES: Final[dict[str, Callable[[Condenser, Task], Plan[Told]]]] = {
    "conversation_summary": conversation_summary,
    "key_points": key_points,
    "progressive": progressive,
    "importance_extract": importance_extract,
    "query_focused": query_focused,
}
"""Without a chat model the first three are `importance_extract`."""


def _noted(parts: Condenser, task: Task, prompt: str | None) -> Plan[Told]:
    """The chat model's notes on the messages; extracted sentences where there is none."""
    if parts.summaries is None:
        return (yield from importance_extract(parts, task))
    noted = yield from _notes(parts.summaries, task, task.records, prompt)
    return Told(told_of(noted, "", task.max_tokens, parts.counter), noted.supported)


def _notes(
    summaries: Summaries, task: Task, records: Sequence[LogRecord], prompt: str | None
) -> Plan[RunningSummary]:
    return (
        yield from summaries.notes_on(
            records,
            task.scope,
            prompt=prompt,
            max_tokens=max(_LEAST_TOKENS, task.max_tokens),
            timeout=task.how.timeout,
            max_parallel=task.how.max_parallel,
        )
    )


def _own(strategy: Summarize, task: Task, counter: TokenCounter) -> Told:
    """What the caller's strategy makes of it, held against the messages.

    Raises:
        ValueError: If it is no summary, or longer than it may be.
    """
    summary = strategy(task.records, task.max_tokens, counter)
    if not isinstance(summary, Summary):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"the strategy must give a Summary, got {type(summary).__name__}")
    tokens = _cost(summary.text, counter)
    if tokens > task.max_tokens:
        raise ValueError(f"the strategy's summary has {tokens} tokens, over {task.max_tokens}")
    evidence = Evidence([source_of(record) for record in task.records])
    said = [part for part in map(str.strip, analysis.sentences(summary.text)) if part]
    said = [part for part in said if not part.endswith(":")]  # a heading states nothing
    borne_out = sum(evidence.problem(part) is None for part in said)
    priced = Summary(text=summary.text, tokens=tokens, source_ids=tuple(summary.source_ids))
    return Told(Quote.of(priced, task.records), borne_out / len(said) if said else 0.0)


def _room(records: Sequence[LogRecord], risk: RiskLevel) -> int:
    """Tokens of a summary of `records`: light or aggressive, as `risk` calls for."""
    light = Strategy.for_risk(risk) in {Strategy.MONITOR_ONLY, Strategy.CONDENSE_LIGHT}
    share = LIGHT_SHARE if light else AGGRESSIVE_SHARE
    return max(_LEAST_TOKENS, int(share * sum(record.tokens for record in records)))


def _top(records: Sequence[LogRecord]) -> list[LogRecord]:
    """The most important of `records`, in their order."""
    best = sorted(records, key=lambda record: (-record.importance, -record.slot))
    return sorted(best[:SUMMARY_SOURCES], key=lambda record: record.slot)


def _preserved(quote: Quote, records: Sequence[LogRecord]) -> float:
    named = set(quote.summary.source_ids)
    total = sum(record.importance for record in records)
    told = sum(record.importance for record in records if record.message_id in named)
    return told / total if total else 1.0


def _cost(text: str, counter: TokenCounter) -> int:
    return counter.message(summary_message(text))
