"""What stands beside the question whatever was said last: pins, and facts of the user.

Both are chosen once for a turn, as what is recalled is, and stand with it ahead of the question,
in sections of their own. What the view shows anyway is not shown twice: a pin that stands in the
window, or with an earlier question, nor a fact that was said in this thread, which recall finds
as it was said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.analysis import Cue, message_text, sentences
from langchain_ctxmgr.budget.tokens import TokenCounter, middle_cut
from langchain_ctxmgr.errors import LogError
from langchain_ctxmgr.events import Degraded, Listener, emit
from langchain_ctxmgr.memory.facts.standing import Bearing, StandingFacts
from langchain_ctxmgr.memory.facts.values import Authority
from langchain_ctxmgr.memory.packing import Considered
from langchain_ctxmgr.memory.working import standing_requests
from langchain_ctxmgr.prompt.layout import fact_line, pinned_row
from langchain_ctxmgr.records import Branch, ItemKind, LogRecord, Scope, Weighed
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.view.current_turn import CurrentTurn
from langchain_ctxmgr.view.history import Window
from langchain_ctxmgr.view.marked import Marked

T = TypeVar("T")

MOST_PINS: Final = 64
"""So many are read for a view, those made last."""
MOST_FACTS: Final = 8
STANDING_SOURCES: Final = 128
"""Standing requests are looked for in so many of the most important messages."""
MOST_STANDING: Final = 24
"""Messages read for them, those with a cue."""
_LEAST_STANDING_TOKENS: Final = 64
"""With a smaller share they are left to recall: in a view of 500 or 1,000 tokens they cost .007 and
.014 of evidence recall between a user and an assistant, in one of 2,000 and 4,000 .002 at most."""
_LEAST_CUT_TOKENS: Final = 48
"""A pin that does not fit is shown cut where this much is left for it."""
_PINNED, _STANDING, _FACTS = "Pinned:\n", "Standing requests:\n", "Known of the user:\n"
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
            replace(item, tokens=tokens, reason=reason, included=included, kind=self.kind)
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
    standing: int
    all: int


class Beside:
    """Finds what stands beside a question; safe to share.

    Args:
        log: Where what is pinned was said.
        facts: What is known of users.
        counter: What sizes are counted with.
        listeners: Told where a part cannot be read.
    """

    def __init__(
        self,
        log: MessageLog,
        facts: StandingFacts,
        counter: TokenCounter,
        *,
        listeners: tuple[Listener, ...] = (),
    ) -> None:
        self._log = log
        self._facts = facts
        self._counter = counter
        self._listeners = listeners

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
        seen = window.seqs
        ahead = [pin for pin in marks.pins if pin.seq not in seen and _is_ahead(pin, branch, turn)]
        pins = _Filling(_PINNED, ItemKind.PINNED, shares.pinned, self._counter)
        shown = yield from self._spared("pins", self._pins(scope, branch, ahead, pins), [])
        seen = seen.union(record.seq for record in shown)
        left = shares.all - pins.tokens
        room = min(shares.standing, shares.pinned - pins.tokens, left)
        standing = _Filling(_STANDING, ItemKind.STANDING, room, self._counter)
        asked = self._standing(scope, branch, window, standing, marks.muted | seen)
        heard = yield from self._spared("standing requests", asked, [])
        room = min(shares.facts, left - standing.tokens)
        facts = _Filling(_FACTS, ItemKind.FACTS, room, self._counter)
        if scope.user_id is not None and question.strip() and room > 0:
            known = self._facts.bearing_on(
                question, scope, at=at, beside_thread=branch.thread_id, k=MOST_FACTS
            )
            bearing = yield from self._spared("facts", known, [])
            bearing = [each for each in bearing if each.seq not in marks.muted]
            _take_facts(facts, bearing, window, {record.message_id for record in shown})
        parts = (facts, standing, pins)
        if not any(part.considered for part in parts):
            return NO_SECTIONS
        own = {pin.seq for pin in ahead if pin.thread_id == branch.thread_id}
        abroad = (*pins.considered, *facts.considered)
        whole = (*shown, *heard)
        return Sections(
            text="".join(part.text for part in parts),
            tokens=sum(part.tokens for part in parts),
            pinned_tokens=pins.tokens,
            considered=tuple(each for part in parts for each in part.considered),
            carried={record.message_id: record.importance for record in whole},
            seqs=frozenset(record.seq for record in whole),
            abroad=tuple(each.seq for each in abroad if each.included and each.seq not in own),
        )

    def _spared(self, part: str, plan: Plan[T], without: T) -> Plan[T]:
        """What `plan` comes to. The boundary for what is beside the question: a view without it.

        A log that cannot be read at all is told of by what reads the history.
        """
        try:
            return (yield from plan)
        except LogError:
            raise
        except Exception as error:  # noqa: BLE001 - damaged rows fail in many ways
            event = Degraded(part=part, reason=str(error), fallback="a view without them")
            emit(self._listeners, event)
            return without

    def _standing(
        self,
        scope: Scope,
        branch: Branch,
        window: Window,
        filling: _Filling,
        left_out: frozenset[int],
    ) -> Plan[list[LogRecord]]:
        """Fill in what the user asked for from then on, before the window; what is shown whole.

        Looked for among the most important messages, the newest first. What other users of the
        thread asked for is theirs.
        """
        whole: list[LogRecord] = []
        if filling.left < _LEAST_STANDING_TOKENS:
            return whole
        best = yield from call(
            self._log.top, branch, before_slot=window.start_slot, limit=STANDING_SOURCES
        )
        told = [
            (turn.slot, turn.seq)
            for turn in best
            if turn.role == "human" and turn.cues & Cue.INSTRUCTION and turn.seq not in left_out
        ]
        seqs = [seq for _, seq in sorted(told, reverse=True)[:MOST_STANDING]]
        thread = Scope(tenant_id=branch.tenant_id, thread_id=branch.thread_id)
        records = yield from call(self._log.fetch, thread, seqs)
        if scope.user_id is not None:
            records = [each for each in records if each.user_id in {None, scope.user_id}]
        for record in sorted(records, key=lambda record: -record.slot):
            text = message_text(record.message)
            asked = standing_requests(text)
            if not asked:
                continue
            is_whole = len(asked) == len(sentences(text))
            line = _pin_line(record, " ".join(asked), branch)
            item = _line_item(record, "asked for from then on", is_excerpt=not is_whole)
            if filling.offer(item, line, (record.at, record.slot)) and is_whole:
                whole.append(record)
        return whole

    def forget(self, tenant_id: str) -> None:
        """Drop what is at hand of a tenant: what it was read from may be erased."""
        self._facts.forget(tenant_id)

    def _pins(
        self, scope: Scope, branch: Branch, pins: Sequence[Weighed], filling: _Filling
    ) -> Plan[list[LogRecord]]:
        """Fill in what of `pins` has a place, the first in line first; which are shown whole.

        Those too long to stand whole in any case come last, cut to what is left.
        """
        if not pins:
            return []
        tenant = Scope(tenant_id=scope.tenant_id)
        seqs = [pin.seq for pin in pins[:MOST_PINS]]
        records = yield from call(self._log.fetch, tenant, seqs)
        by_seq = {record.seq: record for record in records}
        ordered = [by_seq[seq] for seq in seqs if seq in by_seq]
        ordered.sort(key=lambda record: record.tokens > filling.max_tokens)
        return [each for each in ordered if self._take_pin(filling, each, branch)]

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
            item = _line_item(record, "pinned: cut in the middle to fit", is_excerpt=True)
            filling.offer(item, line, place)
            return False
        return filling.offer(_line_item(record, "pinned"), line, place)


def _is_ahead(pin: Weighed, branch: Branch, turn: CurrentTurn) -> bool:
    """Whether it is a memory, or stands on the branch before the turn."""
    if pin.thread_id != branch.thread_id:
        return True
    return pin.slot < turn.before_slot and branch.holds(pin.branch, pin.slot)


def _line_item(record: LogRecord, reason: str, *, is_excerpt: bool = False) -> Considered:
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
