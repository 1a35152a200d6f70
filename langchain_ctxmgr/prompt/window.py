"""Which part of the history goes in.

The default window moves rarely: its start is a multiple of half the allowance, so
between two moves each prompt extends the one before it and the provider's prompt cache
holds. The start is computed from the size of the history alone, nothing is remembered
between calls. Selections are small classes with one signature; each takes groups, oldest
first, and a budget, and says for every group whether it is in and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple, Protocol

from langchain_ctxmgr.prompt.validity import Group


def window_start(total_tokens: int, allowance_tokens: int, *, overlap: float = 0.5) -> int:
    """The coordinate, in tokens from the start of the history, where the window begins.

    0 while the history fits. Then the start moves in steps of `1 - overlap` of the
    allowance, so that the window always holds between `overlap` of the allowance and all
    of it, and stands still in between.

    Raises:
        ValueError: If `overlap` is not in [0, 1).
    """
    if not 0 <= overlap < 1:
        msg = f"overlap must be in [0, 1), got {overlap}"
        raise ValueError(msg)
    if total_tokens <= allowance_tokens:
        return 0
    if allowance_tokens <= 0:
        return total_tokens
    step = max(1, round(allowance_tokens * (1 - overlap)))
    return -(-(total_tokens - allowance_tokens) // step) * step


class Opening(NamedTuple):
    """Where a window may start."""

    first: int
    """Index of the first group in it; the number of groups when none is."""
    needs_question: bool
    """Whether that group is not a user message: the question it answers has to lead."""


def opening(groups: Sequence[Group], slack_tokens: int) -> Opening:
    """The first safe start in `groups`: a user message, if one comes soon.

    Up to `slack_tokens` are passed over to reach a user message. A single turn with much
    tool traffic has none that near: then the window starts at its first group, and the
    question that began the turn has to be put ahead of it. What is appended later does
    not move the start, as long as the groups already go past the slack.
    """
    passed = 0
    for index, group in enumerate(groups):
        if group.opens:
            return Opening(index, needs_question=False)
        passed += group.tokens
        if passed > slack_tokens:
            return Opening(0, needs_question=True)
    return Opening(len(groups), needs_question=False)


def exchanges(groups: Sequence[Group]) -> list[Sequence[Group]]:
    """The groups in runs that begin with a user message: in any order they stay valid.

    What stands before the first user message is in none of them.
    """
    starts = [index for index, group in enumerate(groups) if group.opens]
    return [groups[start:stop] for start, stop in pairwise([*starts, len(groups)])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The groups that go in, in order, and why each of those considered is in or out."""

    groups: tuple[Group, ...]
    reasons: tuple[str, ...]
    """One for each group that was considered, in their order."""


class Selector(Protocol):
    """A way to choose from the history; never over the budget, never an invalid choice."""

    def __call__(self, groups: Sequence[Group], budget_tokens: int) -> Selection:
        """The groups of the history (without the current turn) that go in."""
        ...


def _select(groups: Sequence[Group], chosen: Iterable[Group], kept: str, left: str) -> Selection:
    inside = {group.indexes[0] for group in chosen}
    return Selection(
        groups=tuple(group for group in groups if group.indexes[0] in inside),
        reasons=tuple(kept if group.indexes[0] in inside else left for group in groups),
    )


def _cost(groups: Iterable[Group]) -> int:
    return sum(group.tokens for group in groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingWindow:
    """The newest part of the history; it moves in steps, and windows in a row overlap."""

    overlap: float = 0.5
    """Share of the budget that the window still holds right after a move, in [0, 1)."""

    def __call__(self, groups: Sequence[Group], budget_tokens: int) -> Selection:
        """What stands after the window's start, from a user message on."""
        before = [0, *accumulate(group.tokens for group in groups)]
        start = window_start(before[-1], budget_tokens, overlap=self.overlap)
        first = next((index for index, total in enumerate(before) if total >= start))
        while first < len(groups) and not groups[first].opens:
            first += 1
        return _select(groups, groups[first:], "in the window", "before the window")


@dataclass(frozen=True, slots=True, kw_only=True)
class Full:
    """Everything, as long as it fits; otherwise the sliding window."""

    def __call__(self, groups: Sequence[Group], budget_tokens: int) -> Selection:
        """All groups from the first user message on."""
        if _cost(groups) > budget_tokens:
            return SlidingWindow()(groups, budget_tokens)
        first = next((index for index, group in enumerate(groups) if group.opens), len(groups))
        return _select(groups, groups[first:], "the full history", "before the first user message")


@dataclass(frozen=True, slots=True, kw_only=True)
class LastTurns:
    """The last `k` exchanges, fewer where they do not fit."""

    k: int

    def __post_init__(self) -> None:
        if self.k < 0:
            msg = f"k must not be negative, got {self.k}"
            raise ValueError(msg)

    def __call__(self, groups: Sequence[Group], budget_tokens: int) -> Selection:
        """The newest exchanges in one piece."""
        chosen: list[Group] = []
        room = budget_tokens
        for exchange in reversed(exchanges(groups)[-self.k :] if self.k else []):
            room -= _cost(exchange)
            if room < 0:
                break
            chosen += exchange
        return _select(groups, chosen, f"of the last {self.k} turns", "before the last turns")


@dataclass(frozen=True, slots=True, kw_only=True)
class MostImportant:
    """The exchanges that matter most, newer first among equals, shown in order."""

    def __call__(self, groups: Sequence[Group], budget_tokens: int) -> Selection:
        """Exchanges by the importance of their most important message."""
        runs = exchanges(groups)
        ranked = sorted(
            range(len(runs)),
            key=lambda index: (max(group.importance for group in runs[index]), index),
            reverse=True,
        )
        chosen: list[Group] = []
        room = budget_tokens
        for index in ranked:
            cost = _cost(runs[index])
            if cost <= room:
                room -= cost
                chosen += runs[index]
        return _select(groups, chosen, "important", "less important")


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryImportantRecent:
    """Recent exchanges, the most important older ones, and the rest left to the summary."""

    important: float = 0.25
    """Share of the budget kept for older exchanges, 0 to 1."""
    overlap: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.important <= 1:
            msg = f"important must be in [0, 1], got {self.important}"
            raise ValueError(msg)

    def __call__(self, groups: Sequence[Group], budget_tokens: int) -> Selection:
        """The sliding window over its share, then what matters most before it."""
        if _cost(groups) <= budget_tokens:
            return Full()(groups, budget_tokens)
        important_tokens = int(budget_tokens * self.important)
        recent = SlidingWindow(overlap=self.overlap)(groups, budget_tokens - important_tokens)
        older = groups[: len(groups) - len(recent.groups)]
        picked = MostImportant()(older, important_tokens)
        inside = {group.indexes[0] for group in picked.groups}
        reasons = [
            "important" if group.indexes[0] in inside else "left to the summary" for group in older
        ]
        return Selection(
            groups=(*picked.groups, *recent.groups),
            reasons=(*reasons, *recent.reasons[len(older) :]),
        )
