"""What happened, as values. A listener is a callable; it never fails a turn."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias

_logger = logging.getLogger("langchain_ctxmgr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Messages were appended to the log."""

    tenant_id: str
    thread_id: str
    appended: int
    """New rows: messages already in the log are not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A context was prepared."""

    tenant_id: str
    thread_id: str
    tokens: int
    max_tokens: int
    full_tokens: int
    elapsed_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trimmed:
    """Part of the active turn was cut to fit, with a visible marker."""

    tenant_id: str
    thread_id: str
    message_id: str
    from_tokens: int
    to_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Degraded:
    """A part failed and the turn went on without it."""

    part: str
    """`vectors`, `embeddings`, `cache`, `log`, `facts` or `summarizer`."""
    reason: str
    fallback: str
    """What was used in its place."""
    may_quote: bool = False
    """Whether `reason` has words of a provider's, which may quote what was said."""

    def __str__(self) -> str:
        """For logs: without words that may quote what was said."""
        reason = self.reason.partition(":")[0] if self.may_quote else self.reason
        return f"{self.part}: {reason}; in its place: {self.fallback}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaughtUp:
    """The index took in records it had been missing."""

    indexed: int
    remaining: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summarized:
    """A thread's summary was brought up to date."""

    tenant_id: str
    thread_id: str
    messages: int
    """New ones that it covers."""
    statements: int
    """What it now consists of."""
    supported: float
    """Share of what the model wrote that the messages bear out, 0 to 1."""
    unsupported: tuple[str, ...] = field(repr=False)
    """What was replaced by the sentences it was about, and why; in no log."""
    is_extracted: bool
    """Whether the new notes are the messages' own sentences: the model gave no usable ones."""
    cost_usd: Decimal | None
    """What it took; None where the price is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resummarized:
    """A thread's summary was made anew from its first message on."""

    tenant_id: str
    thread_id: str
    statements: int
    """What it now consists of."""
    drift: float
    """Share of the notes before that those made anew do not bear out, 0 to 1."""


Event: TypeAlias = Recorded | Prepared | Trimmed | Degraded | CaughtUp | Summarized | Resummarized
Listener: TypeAlias = Callable[[Event], None]


def emit(listeners: tuple[Listener, ...], event: Event) -> None:
    """Hand `event` to each listener and the log.

    The boundary for listeners: one that raises is logged and the turn goes on.
    """
    level = logging.WARNING if isinstance(event, Degraded) else logging.DEBUG
    _logger.log(level, "%s", event)
    for listener in listeners:
        try:
            listener(event)
        except Exception:
            _logger.exception("a listener failed on %s", type(event).__name__)
