"""Values that cross the layers: frozen, keyword-only, units in the names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.messages import BaseMessage

if TYPE_CHECKING:
    from langchain_ctxmgr.budget.allocation import ContextBudget, RiskLevel, Strategy

MAX_ID_CHARS = 512
"""Longest tenant, thread or user id: they are index keys in every store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose conversation: a tenant, a thread in it, and the user when known.

    Raises:
        ValueError: If an id is empty, not text, over 512 characters, or cannot be
            stored (NUL, lone surrogate).
    """

    tenant_id: str | None = None
    thread_id: str | None = None
    user_id: str | None = None

    def __post_init__(self) -> None:
        for name in ("tenant_id", "thread_id", "user_id"):
            _check_id(name, getattr(self, name))


def _check_id(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        msg = f"{name} must be a string or None, got {value!r}"
        raise ValueError(msg)
    if not value or len(value) > MAX_ID_CHARS:
        msg = f"{name} must have 1 to {MAX_ID_CHARS} characters, got {len(value)}"
        raise ValueError(msg)
    if "\0" in value or (not value.isprintable() and any("\ud800" <= c <= "\udfff" for c in value)):
        msg = f"{name} must be valid UTF-8 without NUL, got {value!r}"
        raise ValueError(msg)


class Draft(NamedTuple):
    """A message on its way into the log, with what was worked out about it."""

    message: BaseMessage
    at: datetime
    """When it was said: aware."""
    tokens: int
    """As the provider counts it, per-message overhead included."""
    encoding: str
    """The token counter that gave `tokens`, such as `o200k_base`."""
    importance: float
    """How much it will matter later, 0 to 1."""
    terms: tuple[int, ...]
    """Term ids in reading order with repeats (see `analysis.terms`); the log's keyword index."""
    cues: int
    """Bit set of `analysis.Cue`: what recall wants to know without reading the text."""


class Turn(NamedTuple):
    """What recall needs to weigh a recorded message without reading it.

    Thousands are made for one question, hence a tuple.
    """

    seq: int
    """Place in the whole log, from 1: also the id of its point in the vector store."""
    thread_id: str
    slot: int
    """Place in the thread's order, from 0: a revision keeps the slot of what it revises."""
    branch: int
    session: int
    """Runs of messages without a long pause, numbered from 0 in each thread."""
    role: str
    """LangChain's message type: human, ai, tool, system, function, chat."""
    speaker: str | None
    """The message's `name`."""
    at: datetime
    tokens: int
    importance: float
    cues: int


class LogRecord(NamedTuple):
    """One row of the message log, as appended; rows are never changed.

    The fields up to `cues` are those of its `Turn`. A tuple, like that: a frozen dataclass of
    so many fields takes 2.5 µs to make, a tuple 0.2 µs.
    """

    seq: int
    thread_id: str
    slot: int
    branch: int
    session: int
    role: str
    speaker: str | None
    at: datetime
    tokens: int
    importance: float
    cues: int
    tenant_id: str
    user_id: str | None
    position: int
    """Append order in the thread, from 0, without gaps."""
    revision: int
    """0, or how many earlier contents the same message id had."""
    parent: int | None
    """Position of the message before it on its branch."""
    message_id: str
    """The message's own id, or one given by the log where it had none."""
    message: BaseMessage
    encoding: str
    total_tokens: int
    """Tokens of its branch from the start to here, in `encoding`s as recorded."""
    total_importance: float
    """Sum of importance of its branch from the start to here."""
    digest: bytes
    """SHA-256 of the stored content."""
    chain: bytes
    """SHA-256 over the previous record's chain, this digest and the row's fields."""


class Weighed(NamedTuple):
    """A recorded message, or a memory, that a user pinned, boosted or muted."""

    seq: int
    """Of its newest revision."""
    thread_id: str
    branch: int
    slot: int
    user_id: str | None
    message_id: str
    """A memory's is its id."""
    is_pinned: bool
    """Always in the view."""
    weight: float
    """1 as it was, above it is boosted, below held back; 0: muted, never recalled."""
    at: datetime
    """When that was last said."""


class Span(NamedTuple):
    """The part of a branch that a view takes: slots up to and with `last_slot`."""

    branch: int
    last_slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One line of messages through a thread, from the first to a head.

    A thread that was never forked has one span. A view reads only what is on its branch.
    """

    tenant_id: str
    thread_id: str
    spans: tuple[Span, ...]
    """Oldest first."""
    head: LogRecord | None
    """The last record; None for a thread without records."""
    withdrawn: int = 0
    """Records of the thread that were erased by themselves when this was read."""

    def holds(self, branch: int, slot: int) -> bool:
        """Whether the record at `slot` of `branch` is on this line."""
        for own, last_slot in self.spans:
            if own == branch:
                return slot <= last_slot
        return False


class ItemKind(StrEnum):
    """What an item of the receipt is."""

    SYSTEM = "system"
    TOOLS = "tools"
    SUMMARY = "summary"
    HISTORY = "history"
    RECALLED = "recalled"
    FACTS = "facts"
    """Facts of the user from other threads."""
    STANDING = "standing"
    """What the user asked for from then on."""
    PINNED = "pinned"
    CURRENT = "current"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptItem:
    """One item that was considered for the view, and why it is in or out."""

    id: str
    """Message id, or the name of the section for system text, tools and summary."""
    kind: ItemKind
    included: bool
    reason: str
    score: float | None = None
    tokens: int = 0
    """What it costs in the view; for an item left out, what it would have cost."""
    arms: Mapping[str, float] = field(default_factory=dict[str, float])
    """What each arm and cue of recall adds to `score`, which is their sum."""


class Receipt(tuple[ReceiptItem, ...]):
    """Every item that was considered, in the order of the view, then what was left out."""

    __slots__ = ()

    @property
    def included(self) -> Receipt:
        """The items the view carries."""
        return Receipt(item for item in self if item.included)

    @property
    def excluded(self) -> Receipt:
        """The items that were considered and left out."""
        return Receipt(item for item in self if not item.included)

    def _repr_html_(self) -> str:
        from langchain_ctxmgr.notebook import receipt_html

        return receipt_html(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What one arm or cue of recall adds to a score."""

    arm: str
    """`dense`, `late`, `terms`, `session`, `speaker`, …"""
    value: float
    """Its part of the score: normalised over all candidates, and weighted."""
    raw: float | None
    """The arm's own score, such as a cosine; None where it has none, or not of this message."""
    description: str
    """What it rewards or holds against a message, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a message has its score."""

    score: float
    """The sum of the contributions' values."""
    rank: int
    """Its place by score, from 1, among the candidates."""
    candidates: int
    """How many messages were weighed."""
    contributions: tuple[Contribution, ...]
    """Those that count, the largest first, whichever way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A recalled message or fact, with where it came from."""

    id: str
    thread_id: str
    kind: str
    """`episodic` (what was said) or `semantic` (a fact)."""
    text: str
    role: str
    speaker: str | None
    at: datetime
    score: float
    """For this question alone: it cannot be held against another question's."""
    tokens: int
    slot: int
    session: int
    is_excerpt: bool = False
    """Whether `text` is cut from a longer message."""
    arms: Mapping[str, float] = field(default_factory=dict[str, float])
    """What each arm and cue adds to `score`, which is their sum."""
    explanation: Explanation | None = None
    """The same with each arm's own score and in words; None unless asked for."""
    source_ids: tuple[str, ...] = ()
    """Of an episode the ids of its turns, of a fact those of the messages that say so."""

    def _repr_html_(self) -> str:
        from langchain_ctxmgr.notebook import memories_html

        return memories_html([self])


class Memories(list[Memory]):
    """Recalled messages, best first: a list that shows itself in a notebook."""

    def _repr_html_(self) -> str:
        from langchain_ctxmgr.notebook import memories_html

        return memories_html(self)


class Stats(dict[str, Any]):
    """A manager's figures by group: a dict that shows itself in a notebook."""

    def _repr_html_(self) -> str:
        from langchain_ctxmgr.notebook import stats_html

        return stats_html(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Text standing for messages that the view leaves out."""

    text: str
    tokens: int
    source_ids: tuple[str, ...]
    """Ids of the messages its sentences come from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedContext:
    """The messages to send, and the account of how they were chosen."""

    messages: list[BaseMessage]
    tokens: int
    """Everything sent: system text, tool schemas, messages and per-message overhead."""
    max_tokens: int
    exact: bool
    """Whether `tokens` comes from the model's own tokenizer rather than an estimate."""
    budget: ContextBudget
    risk: RiskLevel
    strategy: Strategy
    cost: Decimal | None
    """Input price in USD, None when the model's price is unknown."""
    full_tokens: int
    """What the whole conversation would have taken."""
    elapsed: timedelta
    prefix_digest: str
    """SHA-256 (hex) of what stands before the current turn."""
    preservation: float
    """Share of the recorded importance the view still carries, 0 to 1."""
    sections: Mapping[ItemKind, int]
    """Tokens by section."""
    receipt: Receipt

    def _repr_html_(self) -> str:
        from langchain_ctxmgr.notebook import context_html

        return context_html(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """The threads in which nothing was said for too long."""

    threads: tuple[str, ...]
    """By name; memories are threads of their own."""
    receipt: ErasureReceipt | None
    """What was removed; None where it was only asked for, or nothing was due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureReceipt:
    """What `forget` removed, by kind."""

    scope: Scope
    at: datetime
    messages: int
    vectors: int
    derived: int
    """Stored choices and summaries made from the erased messages."""
