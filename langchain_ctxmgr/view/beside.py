"""What stands beside the question whatever was said last: pins, and facts of the user.

Both are chosen once for a turn, as what is recalled is, and stand with it ahead of the question,
in sections of their own. What the view shows anyway is not shown twice: a pin that stands in the
window, or with an earlier question, nor a fact that was said in this thread, which recall finds
as it was said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, NamedTuple

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.analysis import message_text
from langchain_ctxmgr.budget.tokens import TokenCounter, middle_cut
from langchain_ctxmgr.memory.facts.standing import Bearing, StandingFacts
from langchain_ctxmgr.memory.facts.values import Authority
from langchain_ctxmgr.memory.packing import Considered
from langchain_ctxmgr.prompt.layout import fact_line, pinned_row
from langchain_ctxmgr.records import Branch, ItemKind, LogRecord, Scope, Weighed
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.view.current_turn import CurrentTurn
from langchain_ctxmgr.view.history import Window
from langchain_ctxmgr.view.marked import Marked

MOST_PINS: Final = 64
"""So many are read for a view, those made last."""
MOST_FACTS: Final = 8
_LEAST_CUT_TOKENS: Final = 48
"""A pin that does not fit is shown cut where this much is left for it."""
_PINNED, _FACTS = "Pinned:\n", "Known of the user:\n"
_SAID_BY: Final = {
    Authority.USER: "user",
    Authority.HOST: "the application",
    Authority.AGENT: "the assistant, unconfirmed",
    Authority.TOOL: "a tool, unconfirmed",
}


class Sections(NamedTuple):
    """What is shown, and the account of it."""

    text: str = ""
    tokens: int = 0
    considered: tuple[Considered, ...] = ()
    pinned_tokens: int = 0
    """Of these, for pins."""
    carried: Mapping[str, float] = MappingProxyType({})
    """Importance of the pinned messages, by id."""
    seqs: frozenset[int] = frozenset()
    """The pinned records shown whole."""
    abroad: tuple[int, ...] = ()
    """The records of other threads that are shown, by `seq`."""


NO_SECTIONS: Final = Sections()


@dataclass(slots=True)
class _Filling:
    """A section in the making, within its share."""

    heading: str
    kind: ItemKind
    max_tokens: int
    counter: TokenCounter
    lines: list[tuple[tuple[object, ...], str]] = field(
        default_factory=list[tuple[tuple[object, ...], str]]
    )
    """Each with what it is sorted by."""
    tokens: int = 0
    considered: list[Considered] = field(default_factory=list[Considered])

    @property
    def left(self) -> int:
        heading = 0 if self.lines else self.counter.text(self.heading)
        return self.max_tokens - self.tokens - heading

    def offer(self, item: Considered, line: str, place: tuple[object, ...]) -> bool:
        """Whether the line fits; accounted for either way, with what is to be paid for it."""
        cost = self.counter.text(line)
        if cost > self.left:
            reason = f"{item.reason}, but does not fit its share: {cost} tokens, {self.left} left"
            self._account(item, tokens=cost, reason=reason, included=False)
            return False
        if not self.lines:
            cost += self.counter.text(self.heading)
        self.lines.append((place, line))
        self.tokens += cost
        self._account(item, tokens=cost, reason=item.reason, included=True)
        return True

    def _account(self, item: Considered, *, tokens: int, reason: str, included: bool) -> None:
        self.considered.append(
            Considered(
                id=item.id,
                score=item.score,
                tokens=tokens,
                arms=item.arms,
                included=included,
                reason=reason,
                seq=item.seq,
                is_excerpt=item.is_excerpt,
                kind=self.kind,
            )
        )

    @property
    def text(self) -> str:
        said = [line for _, line in sorted(self.lines)]
        return "".join((self.heading, *said)) if said else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Most tokens of each section."""

    pinned: int
    facts: int
    both: int


class Beside:
    """Finds what stands beside a question; safe to share.

    Args:
        log: Where what is pinned was said.
        facts: What is known of users.
        counter: What sizes are counted with.
    """

    def __init__(self, log: MessageLog, facts: StandingFacts, counter: TokenCounter) -> None:
        self._log = log
        self._facts = facts
        self._counter = counter

    def sections(
        self,
        scope: Scope,
        branch: Branch,
        turn: CurrentTurn,
        window: Window,
        *,
        marks: Marked,
        question: str,
        at: datetime,
        shares: Shares,
    ) -> Plan[Sections]:
        """The sections for `question`, each within its share; facts where a user is named."""
        shown_seqs = window.seqs
        ahead = [
            pin for pin in marks.pins if pin.seq not in shown_seqs and _is_ahead(pin, branch, turn)
        ]
        pins, shown = yield from self._pins(scope, branch, ahead, shares.pinned)
        room = min(shares.facts, shares.both - pins.tokens)
        facts = _Filling(_FACTS, ItemKind.FACTS, room, self._counter)
        if scope.user_id is not None and question.strip() and room > 0:
            bearing = yield from self._facts.bearing_on(
                question,
                scope,
                at=at,
                beside_thread=branch.thread_id,
                k=MOST_FACTS,
            )
            _take_facts(facts, bearing, window, {record.message_id for record in shown})
        considered = (*pins.considered, *facts.considered)
        own = {pin.seq for pin in ahead if pin.thread_id == branch.thread_id}
        if not considered:
            return NO_SECTIONS
        return Sections(
            text=facts.text + pins.text,
            tokens=facts.tokens + pins.tokens,
            pinned_tokens=pins.tokens,
            considered=considered,
            carried={record.message_id: record.importance for record in shown},
            seqs=frozenset(record.seq for record in shown),
            abroad=tuple(each.seq for each in considered if each.included and each.seq not in own),
        )

    def forget(self) -> None:
        """Drop what is at hand: what it was read from may be erased."""
        self._facts.forget()

    def _pins(
        self, scope: Scope, branch: Branch, pins: Sequence[Weighed], max_tokens: int
    ) -> Plan[tuple[_Filling, list[LogRecord]]]:
        """What of `pins` has a place, the first in line first; and which are shown whole."""
        filling = _Filling(_PINNED, ItemKind.PINNED, max_tokens, self._counter)
        if not pins:
            return filling, []
        tenant = Scope(tenant_id=scope.tenant_id)
        seqs = [pin.seq for pin in pins[:MOST_PINS]]
        records = yield from call(self._log.fetch, tenant, seqs)
        by_seq = {record.seq: record for record in records}
        ordered = [by_seq[seq] for seq in seqs if seq in by_seq]
        return filling, [each for each in ordered if self._take_pin(filling, each, branch)]

    def _take_pin(self, filling: _Filling, record: LogRecord, branch: Branch) -> bool:
        """Whether a pin is shown whole; where it is too long it is shown cut."""
        text = message_text(record.message)
        place = (record.at, record.thread_id, record.slot)
        room = filling.left
        line = _pin_line(record, text, branch)
        if self._counter.text(line) > room >= _LEAST_CUT_TOKENS:
            frame = self._counter.text(_pin_line(record, "", branch))
            cut = middle_cut(self._counter, text, room - frame)
            line = _pin_line(record, cut, branch)
            item = _pinned(record, "pinned: cut in the middle to fit", is_excerpt=True)
            filling.offer(item, line, place)
            return False
        return filling.offer(_pinned(record, "pinned"), line, place)


def _is_ahead(pin: Weighed, branch: Branch, turn: CurrentTurn) -> bool:
    """Whether it is a memory, or stands on the branch before the turn."""
    if pin.thread_id != branch.thread_id:
        return True
    return pin.slot < turn.before_slot and branch.holds(pin.branch, pin.slot)


def _pinned(record: LogRecord, reason: str, *, is_excerpt: bool = False) -> Considered:
    return Considered(
        id=record.message_id,
        score=1.0,
        tokens=0,
        arms={},
        included=True,
        reason=reason,
        seq=record.seq,
        is_excerpt=is_excerpt,
    )


def _pin_line(record: LogRecord, text: str, branch: Branch) -> str:
    return pinned_row(
        at=record.at,
        slot=record.slot if record.thread_id == branch.thread_id else None,
        speaker=record.speaker,
        role=record.role,
        text=text,
        source=record.message_id,
    )


def _take_facts(
    filling: _Filling, bearing: Sequence[Bearing], window: Window, pinned: Iterable[str]
) -> None:
    """The facts that are not pinned, nor stand with an earlier question of the window."""
    earlier = (row for each in window.earlier for row in each.rows)
    stand = {name for name, *_, kind in earlier if kind == ItemKind.FACTS}.union(pinned)
    for fact, score, seq in bearing:
        source = fact.sources[-1]
        if source.message_id in stand:
            continue
        stand.add(source.message_id)
        by = _SAID_BY[fact.authority]
        line = fact_line(at=source.at, by=by, text=fact.text, source=source.message_id)
        item = Considered(
            id=source.message_id,
            score=score,
            tokens=0,
            arms={},
            included=True,
            reason=f"known of the user: {by}",
            seq=seq,
            is_excerpt=True,
        )
        filling.offer(item, line, (-score, source.at, source.message_id))
