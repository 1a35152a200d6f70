"""What the first step of a turn settles, and how it is kept with the log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.compression.extractive import EMPTY
from langchain_ctxmgr.compression.statements import Statement, summary_of
from langchain_ctxmgr.memory.packing import Considered
from langchain_ctxmgr.prompt.layout import without_sections
from langchain_ctxmgr.records import ItemKind, LogRecord, ReceiptItem, Summary

GAVE_WAY = "gave way to system text, tools or tool calls of this turn"
KIND = "frame-4"
"""Kind and version of what `Settled.to_bytes` writes."""


BESIDE = (ItemKind.FACTS, ItemKind.STANDING, ItemKind.PINNED)
"""What stands beside what is recalled, in sections of its own."""


class Quote(NamedTuple):
    """A summary and the importance it carries, by message id."""

    summary: Summary
    carried: Mapping[str, float]

    @classmethod
    def of(cls, summary: Summary, sources: Sequence[LogRecord]) -> Quote:
        """Of each source that is quoted, the share of the tokens that the summary has room for."""
        quoted = set(summary.source_ids)
        used = [record for record in sources if record.message_id in quoted]
        whole = sum(record.tokens for record in used)
        share = min(1.0, summary.tokens / whole) if whole else 0.0
        return cls(summary, {record.message_id: share * record.importance for record in used})

    @classmethod
    def of_statements(
        cls,
        statements: Sequence[Statement],
        counter: TokenCounter,
        *,
        noted: Sequence[Statement] = (),
    ) -> Quote:
        """The same of a running summary's overview, and of what was `noted` beside it."""
        told = [*statements, *noted]
        sources = dict.fromkeys(source for each in told for source in each.sources)
        summary = summary_of(statements, counter, noted=noted)
        whole = sum(source.tokens for source in sources)
        share = min(1.0, summary.tokens / whole) if whole else 0.0
        return cls(summary, {source.message_id: share * source.importance for source in sources})


NO_QUOTE = Quote(EMPTY, {})


class Chosen(NamedTuple):
    """What was recalled for a question, as it stands in the prompt."""

    block: str
    tokens: int
    """What it adds to the question."""
    carried: Mapping[str, float]
    """Importance of what it shows, by message id."""
    considered: tuple[Considered, ...]
    sections: str = ""
    """What of `block` is pinned and known of the user."""
    abroad: tuple[int, ...] = ()
    """The records of other threads that are shown, by `seq`."""

    @property
    def items(self) -> tuple[ReceiptItem, ...]:
        """What was weighed, for the receipt."""
        return tuple(
            ReceiptItem(
                id=item.id,
                kind=ItemKind(item.kind),
                included=item.included,
                reason=item.reason,
                score=item.score,
                tokens=item.tokens,
                arms=item.arms,
            )
            for item in self.considered
        )

    def tokens_of(self, kind: ItemKind) -> int:
        """What of `tokens` its lines of that kind take."""
        return sum(each.tokens for each in self.considered if each.included and each.kind == kind)

    def gone(self) -> Chosen:
        """The same, nothing of it shown."""
        return Chosen(
            "",
            0,
            {},
            tuple(
                replace(item, included=False, reason=GAVE_WAY) if item.included else item
                for item in self.considered
            ),
        )


NOTHING = Chosen("", 0, {}, ())


class Earlier(NamedTuple):
    """An earlier question of a stretch, as it was sent and stays."""

    id: str
    """Of the message."""
    turn_tokens: int
    """What question and tool traffic were fitted into."""
    block: str
    """What was recalled for it."""
    tokens: int
    """What the block adds to the question."""
    sections: str
    """As of `Chosen`."""
    rows: tuple[tuple[str, int, int, float, str], ...]
    """What the block shows: id, `seq` (0 of an excerpt), tokens, the importance carried, kind."""

    @property
    def seqs(self) -> frozenset[int]:
        """The records it shows whole."""
        return frozenset(seq for _, seq, *_ in self.rows if seq)


class Stretch(NamedTuple):
    """The part of the history that is shown as it was sent, since the last compaction."""

    start: int
    """Slot from which on everything is shown."""
    led_by: int | None = None
    """Slot of the question that leads where `start` is in the middle of its turn."""
    earlier: tuple[Earlier, ...] = ()
    """Oldest first; a question that no view was made for is not among them."""


class Settled(NamedTuple):
    """What the first step of a turn settles for all its steps."""

    changed: int
    """The turn's `changed` at that step: what changed later makes it another turn."""
    max_tokens: int
    """As counted."""
    is_full: bool
    """Whether the whole history is shown; the rest is then empty."""
    room: int = 0
    """For the frame: what system text, tools, question and the tools' results leave of it."""
    history: int = 0
    """The window's allowance."""
    is_extended: bool = False
    """Whether the window is `stretch`, rather than one worked out from the allowance."""
    turn_tokens: int = 0
    """What question and tool traffic are fitted into."""
    is_stripped: bool = False
    """Whether what other threads say is left out: the next turn may go on from it, this one has
    to choose anew."""
    quote: Quote = NO_QUOTE
    chosen: Chosen = NOTHING
    stretch: Stretch | None = None
    """What the next turn may extend; None where it has to start anew."""
    abroad: tuple[int, ...] = ()
    """The records of other threads that are shown, also by the stretch, by `seq`."""

    def stripped(self) -> Settled:
        """The same without what other threads say: that is not to be kept with this one."""
        if not self.abroad:
            return self
        chosen, stretch = self.chosen, self.stretch
        if stretch is not None:
            earlier = tuple(
                each._replace(block=without_sections(each.block, each.sections), sections="")
                for each in stretch.earlier
            )
            stretch = stretch._replace(earlier=earlier)
        chosen = chosen._replace(
            block=without_sections(chosen.block, chosen.sections),
            sections="",
            considered=tuple(each for each in chosen.considered if each.kind not in BESIDE),
            abroad=(),
        )
        return self._replace(chosen=chosen, stretch=stretch, is_stripped=True, abroad=())

    def extended(self, question_id: str) -> Stretch | None:
        """The stretch with this turn, whose question has that id."""
        if self.stretch is None:
            return None
        carried, chosen = self.chosen.carried, self.chosen
        rows = tuple(
            (
                item.id,
                0 if item.is_excerpt else item.seq,
                item.tokens,
                carried.get(item.id, 0.0),
                item.kind,
            )
            for item in chosen.considered
            if item.included
        )
        own = Earlier(
            question_id, self.turn_tokens, chosen.block, chosen.tokens, chosen.sections, rows
        )
        return self.stretch._replace(earlier=(*self.stretch.earlier, own))

    def to_bytes(self) -> bytes:
        """For keeping with the log."""
        quote, chosen = self.quote, self.chosen
        summary = (quote.summary.text, quote.summary.tokens, quote.summary.source_ids)
        rows = [
            [dict(value) if name == "arms" else value for name, value in _fields(item)]
            for item in chosen.considered
        ]
        recalled = (chosen.block, chosen.tokens, dict(chosen.carried), rows, chosen.sections)
        stored = [self[:_NUMBERS], summary, dict(quote.carried), recalled, self.stretch]
        return json.dumps(stored).encode("ascii")

    @classmethod
    def from_bytes(cls, stored: bytes) -> Settled:
        """As `to_bytes` wrote it."""
        numbers, (text, tokens, source_ids), quoted, recalled, shown = json.loads(stored)
        summary = Summary(text=text, tokens=tokens, source_ids=tuple(source_ids))
        block, cost, carried, rows, sections = recalled
        considered = tuple(Considered(**dict(zip(_CONSIDERED, row, strict=True))) for row in rows)
        stretch = None
        if shown is not None:
            start, led_by, sent = shown
            earlier = (
                Earlier(name, limit, text, added, beside, tuple(tuple(row) for row in shows))
                for name, limit, text, added, beside, shows in sent
            )
            stretch = Stretch(start, led_by, tuple(earlier))
        return cls(
            *numbers,
            quote=Quote(summary, quoted),
            chosen=Chosen(block, cost, carried, considered, sections),
            stretch=stretch,
        )


_NUMBERS = Settled._fields.index("quote")
_CONSIDERED = tuple(field.name for field in fields(Considered))


def _fields(item: Considered) -> Iterator[tuple[str, Any]]:
    return ((name, getattr(item, name)) for name in _CONSIDERED)
