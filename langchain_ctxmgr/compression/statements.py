"""What a rolling summary is made of: short statements that name the messages they come from.

Every statement was held against its sources before it came here (`verification`), and keeps
their ids: what is shown of it can be looked up, and what is folded further is checked again
against what was really said.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, NamedTuple

from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.prompt.layout import note, summary_message
from langchain_ctxmgr.records import Summary

_FORMAT: Final = 2
"""Version of what `RunningSummary.to_bytes` writes."""


class Kind(StrEnum):
    """What a statement is about, in the order in which a summary shows them."""

    GOAL = "goal"
    DECISION = "decision"
    FACT = "fact"
    PREFERENCE = "preference"
    QUESTION = "question"
    FILE = "file"
    OUTCOME = "outcome"


_HEADINGS: Final = {
    Kind.GOAL: "Goals",
    Kind.DECISION: "Decisions",
    Kind.FACT: "Facts",
    Kind.PREFERENCE: "Preferences",
    Kind.QUESTION: "Open questions",
    Kind.FILE: "Files and ids",
    Kind.OUTCOME: "Outcomes",
}
NOTED: Final = "Notes on earlier parts:\n"
"""Stands above notes beside an overview."""
_WEIGHTS: Final = {
    Kind.GOAL: 1.5,
    Kind.DECISION: 1.5,
    Kind.PREFERENCE: 1.25,
    Kind.FACT: 1.0,
    Kind.QUESTION: 0.75,
    Kind.FILE: 0.75,
    Kind.OUTCOME: 0.5,
}
"""What goes first where not all fit: what the conversation is for, then what is so."""


class Cited(NamedTuple):
    """A message that a statement comes from."""

    message_id: str
    slot: int
    """Its place in the thread, as a view shows it."""
    importance: float
    """0 to 1, as recorded."""
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One thing a summary says."""

    kind: Kind
    text: str
    sources: tuple[Cited, ...]
    """Never empty."""

    @property
    def weight(self) -> float:
        """How much it matters beside others."""
        return _WEIGHTS[self.kind] * (0.25 + max(source.importance for source in self.sources))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningSummary:
    """What stands for the beginning of a branch."""

    before_slot: int
    """It covers the messages before this slot."""
    statements: tuple[Statement, ...]
    """The overview, which is always shown."""
    sections: tuple[tuple[Statement, ...], ...]
    """The notes of each section, the oldest first: `levels` says which are shown."""
    supported: float
    """Share of what the model wrote last that its sources bear out, 0 to 1."""
    cost_usd: Decimal | None = None
    """What making it took; None where the price is unknown."""

    def to_bytes(self) -> bytes:
        """For keeping."""
        levels = [_rows(self.statements), [_rows(section) for section in self.sections]]
        cost = None if self.cost_usd is None else str(self.cost_usd)
        fields = (_FORMAT, self.before_slot, *levels, self.supported, cost)
        return json.dumps(fields).encode("ascii")

    @classmethod
    def from_bytes(cls, kept: bytes) -> RunningSummary | None:
        """As `to_bytes` wrote it; None for what another release or hand wrote."""
        try:
            version, *fields = json.loads(kept)
            if version != _FORMAT:
                return None
            before_slot, rows, sections, supported, cost_usd = fields
            return cls(
                before_slot=int(before_slot),
                statements=_statements(rows),
                sections=tuple(map(_statements, sections)),
                supported=float(supported),
                cost_usd=None if cost_usd is None else Decimal(cost_usd),
            )
        except (ValueError, TypeError, ArithmeticError):
            return None


def _rows(statements: Iterable[Statement]) -> list[Any]:
    return [(each.kind.value, each.text, each.sources) for each in statements]


def _statements(rows: Iterable[Sequence[Any]]) -> tuple[Statement, ...]:
    return tuple(_statement(*row) for row in rows)


def _statement(kind: str, text: str, sources: Sequence[Any]) -> Statement:
    cited = tuple(Cited(str(a), int(b), float(c), int(d)) for a, b, c, d in sources)
    if not cited or not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError("a statement needs text and sources")
    return Statement(kind=Kind(kind), text=text, sources=cited)


def sendable(text: str) -> str:
    """`text` with a question mark for each lone surrogate: no provider takes one."""
    return text.encode(errors="replace").decode()


def fitting(
    statements: Sequence[Statement], max_tokens: int, counter: TokenCounter
) -> list[Statement]:
    """The statements that matter most within `max_tokens`, fence included; in their order.

    Newer ones win where two matter the same.
    """
    room = max_tokens - counter.message(summary_message(""))
    order = sorted(range(len(statements)), key=lambda place: (-statements[place].weight, -place))
    kept: set[int] = set()
    headed: set[Kind] = set()
    for place in order:
        statement = statements[place]
        cost = counter.text(line(statement))
        if statement.kind not in headed:
            cost += counter.text(_heading(statement.kind))
        if cost <= room:
            room -= cost
            kept.add(place)
            headed.add(statement.kind)
    return [statement for place, statement in enumerate(statements) if place in kept]


def noted_tokens(noted: Sequence[Statement], counter: TokenCounter) -> int:
    """What `noted` adds to a summary beside its overview; 0 for nothing."""
    return sum(map(counter.text, _noted_lines(noted)))


def _noted_lines(noted: Sequence[Statement]) -> list[str]:
    return [NOTED, *map(line, noted)] if noted else []


def render(statements: Sequence[Statement], noted: Sequence[Statement] = ()) -> str:
    """The text that a summary message fences, each line with its messages' numbers.

    The overview by kind, then what was `noted` beside it, in its order.
    """
    parts: list[str] = []
    for kind in Kind:
        lines = [line(each) for each in statements if each.kind is kind]
        if lines:
            parts += [_heading(kind), *lines]
    return "".join([*parts, *_noted_lines(noted)])


def summary_of(
    statements: Sequence[Statement], counter: TokenCounter, *, noted: Sequence[Statement] = ()
) -> Summary:
    """An overview, and what was `noted` beside it, as a view shows them; empty for none."""
    text = render(statements, noted)
    told = [*statements, *noted]
    ids = dict.fromkeys(source.message_id for each in told for source in each.sources)
    tokens = counter.message(summary_message(text)) if text else 0
    return Summary(text=text, tokens=tokens, source_ids=tuple(ids))


def _heading(kind: Kind) -> str:
    return f"{_HEADINGS[kind]}:\n"


def line(statement: Statement) -> str:
    """What a summary shows of `statement`, newline included."""
    return note(text=statement.text, slots=[source.slot for source in statement.sources])
