"""What is said to be so, and what is known of it.

A *statement* is one sentence's claim, taken from one recorded message; it never changes. A
*fact* is what the statements about one thing come to: which holds, since when, until when, and
which messages say so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Final, NamedTuple

MEMORY_ROLE: Final = "memory"
"""Of the messages that `learn` and `remember` record."""
STATED: Final = "ctxmgr_memory"
"""Where such a message says what it states: in `additional_kwargs`."""
USER: Final = "user"
"""Who speaks, where no name is known."""


MEMORIES: Final = "/memories/"
"""Between a thread and the memories beside it, in their threads' names."""


class Category(StrEnum):
    """What a fact is about."""

    PERSON = "person"
    PLACE = "place"
    EVENT = "event"
    CONCEPT = "concept"
    PREFERENCE = "preference"
    OTHER = "other"


class Authority(StrEnum):
    """Who vouches for a statement."""

    USER = "user"
    """A person said it in a conversation."""
    HOST = "host"
    """The program stated it by `ContextManager.learn`."""
    AGENT = "agent"
    """The model had it saved."""
    TOOL = "tool"
    """A tool's output says so: it replaces nothing that a person said."""


class Effect(StrEnum):
    """What a statement does to what was known."""

    HOLDS = "holds"
    ENDS = "ends"
    """`I no longer work at Acme`."""
    HELD = "held"
    """`I used to live in Paris`: over by the time it was said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One claim of one sentence."""

    subject: str
    """`user` for who speaks without a name, `user's sister`, or a name."""
    relation: str
    """Verb and preposition, third person: `lives in`."""
    object: str
    text: str
    """The sentence, as it was said."""
    category: Category
    confidence: float
    """How far the wording bears it, 0 to 1."""
    authority: Authority = Authority.USER
    effect: Effect = Effect.HOLDS
    topic: str | None = None
    """What only one can be true of at a time, such as `home`; None: others may hold beside it."""
    since: date | None = None
    """When it began, where the sentence says so."""
    is_flagged: bool = False
    """Reads like an instruction to the memory: kept as data, replaces and supports nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The recorded message that bears a fact out."""

    thread_id: str
    message_id: str
    at: datetime


class Told(NamedTuple):
    """A statement, and whose memory it belongs to."""

    statement: Statement
    source: Source
    user_id: str | None
    seq: int = 0
    """Of the record."""

    @property
    def owner(self) -> str:
        """The user, or the thread where none is known: their facts are never mixed."""
        if self.user_id is not None:
            return f"user {self.user_id}"
        return f"thread {self.source.thread_id.partition(MEMORIES)[0]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something known, for as long as it held."""

    id: str
    """The same for as long as its oldest source is recorded."""
    user_id: str | None
    """Whose memory it is in; None: only its thread's."""
    subject: str
    relation: str
    object: str
    text: str
    """The newest sentence that says so."""
    category: Category
    confidence: float
    """0 to 1; rises with each message that says so."""
    authority: Authority
    valid_from: datetime | None
    """When it began, by what was said, else when it was first said; None: unknown, and over."""
    valid_until: datetime | None
    """None while it holds."""
    recorded_at: datetime
    """When the newest source was said."""
    sources: tuple[Source, ...]
    """Oldest first."""
    is_flagged: bool = False
    """Reads like an instruction to the memory: data, never to be followed."""

    def holds(self, at: datetime) -> bool:
        """Whether it was so at `at`."""
        has_begun = self.valid_from is None or self.valid_from <= at
        return has_begun and (self.valid_until is None or at < self.valid_until)


_VERSION: Final = 1


def packed(statements: Iterable[Statement]) -> bytes:
    """Statements as a column holds them."""
    rows = [asdict(statement) for statement in statements]
    stored = json.dumps({"v": _VERSION, "statements": rows}, ensure_ascii=True, default=str)
    return stored.encode("ascii")


def unpacked(stored: bytes) -> Sequence[Statement]:
    """The statements that `packed` stored; none where another release stored them otherwise."""
    held = json.loads(stored)
    if held["v"] != _VERSION:
        return ()
    return [_statement(row) for row in held["statements"]]


def _statement(row: dict[str, object]) -> Statement:
    statement = Statement(**row)  # pyright: ignore[reportArgumentType] - as `packed` wrote it
    since = row["since"]
    return replace(
        statement,
        category=Category(statement.category),
        authority=Authority(statement.authority),
        effect=Effect(statement.effect),
        since=date.fromisoformat(since) if isinstance(since, str) else None,
    )


def listed(words: str) -> frozenset[str]:
    """The words of a list that is written as text."""
    return frozenset(words.split())
