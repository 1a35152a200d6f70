"""What stands around each candidate: its neighbours, its session, who wrote it, and when.

A table of the candidates' columns, in order of thread and slot, that turns one column of
scores into others. All of it is arithmetic over columns: a thousand candidates take about a
millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import exp
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from langchain_ctxmgr.analysis import Cue
from langchain_ctxmgr.memory.dates import Period
from langchain_ctxmgr.memory.query import GENERIC_NAMES
from langchain_ctxmgr.turns import EPOCH, Turns

Column: TypeAlias = NDArray[np.float64]

NEIGHBOURS = 2
"""How many slots before and after a turn its context reaches."""
FADING = 6
"""Slots over which a match counts by e less for those near it. 3 and 12 are alike."""
SESSION_BEST = 3
"""A session is as good as the mean of its best turns, this many."""
ON_DATE, SAME_MONTH, MONTH_AFTER = 2.0, 1.0, 0.3
"""Within `ABOUT_DAYS` of the date asked for, in its month, in the month after: people tell
what happened some time later."""
ABOUT_DAYS = 3
LONG_PERIOD_DAYS = 20
"""From here on being within a period says no more than being in its months."""
_LOG_RANGE = 20.0
"""Natural logarithms of what is weighed lie between this and its negative."""


class Candidates:
    """Columns of the candidates, in order of thread and slot."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._slot = turns.slot
        sessions = turns.thread_rank * (1 + turns.session.max()) + turns.session
        self._session = np.unique(sessions, return_inverse=True)[1]
        self._cues = turns.cues
        self.tokens = turns.tokens.astype(np.float64)

    def sum_around(self, values: Column) -> Column:
        """Sum over each turn and its neighbours in the same session."""
        total = values.copy()
        for step in range(1, NEIGHBOURS + 1):
            near = self._followed_by(step, within=NEIGHBOURS)
            total[near] += values[near + step]
            total[near + step] += values[near]
        return total

    def mean_around(self, values: Column) -> Column:
        """Mean over each turn and its neighbours in the same session."""
        return self.sum_around(values) / self.sum_around(np.ones_like(values))

    def session_best(self, values: Column) -> Column:
        """Mean of the best turns of each turn's session."""
        order = np.lexsort((-values, self._session))
        session = self._session[order]
        starts = np.flatnonzero(np.r_[True, session[1:] != session[:-1]])
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
        best = rank < SESSION_BEST
        sums = np.bincount(session[best], values[order][best])
        return (sums / np.bincount(session[best]))[self._session]

    def after_question(self, values: Column) -> Column:
        """What the turn right before scores, at least 0, where it asks something."""
        asked = (self._cues & Cue.QUESTION.value) != 0
        follows = self._followed_by(1, within=1)
        follows = follows[asked[follows]]
        gained = np.zeros_like(values)
        gained[follows + 1] = np.maximum(values[follows], 0.0)
        return gained

    def following(self, values: Column) -> Column:
        """What the turn right after scores."""
        followed = self._followed_by(1, within=1)
        gained = np.zeros_like(values)
        gained[followed] = values[followed + 1]
        return gained

    def better_near(self, values: Column) -> Column:
        """By how much the best turn of the session, fading with distance, is above each turn."""
        order = np.lexsort((self._slot, self._session))
        place = self._slot[order] / FADING
        # Farther from another session than any value's logarithm reaches.
        place += self._session[order] * (np.ptp(place) + 2 * _LOG_RANGE)
        own = np.maximum(values[order], exp(-_LOG_RANGE))
        logs = np.log(own)
        before = np.maximum.accumulate(logs + place) - place
        after = np.maximum.accumulate((logs - place)[::-1])[::-1] + place
        gained = np.empty_like(values)
        gained[order] = np.round(np.exp(np.maximum(before, after)) - own, 9)
        return gained

    def spoken_by(self, speaker: str) -> Column:
        """1 for the turns of `speaker`."""
        return (self._turns.speaker == speaker).astype(np.float64)

    def having(self, cue: Cue) -> Column:
        """1 for the turns with `cue`."""
        return ((self._cues & cue.value) != 0).astype(np.float64)

    def dated(self, periods: Sequence[Period]) -> Column:
        """How near each turn is to a period: `ON_DATE`, `SAME_MONTH`, `MONTH_AFTER` or 0."""
        said = self._turns.at.astype("datetime64[us]")
        days = said.astype("datetime64[D]").astype(np.int64) + EPOCH.toordinal()
        months = said.astype("datetime64[M]").astype(np.int64) + EPOCH.year * 12 + EPOCH.month
        best = np.zeros(len(days))
        for first, last in periods:
            start, end = first.year * 12 + first.month, last.year * 12 + last.month
            near = np.where((months >= start) & (months <= end), SAME_MONTH, 0.0)
            near[months == end + 1] = MONTH_AFTER
            if (last - first).days < LONG_PERIOD_DAYS:
                about = (days >= first.toordinal() - ABOUT_DAYS) & (
                    days <= last.toordinal() + ABOUT_DAYS
                )
                near[about] = ON_DATE
            best = np.maximum(best, near)
        return best

    @cached_property
    def machine(self) -> Column:
        """1 for what an assistant or a tool wrote.

        A named AI message is a person's where the human messages carry names too: a
        logged chat between people.
        """
        writers = list(zip(self._turns.role.tolist(), self._turns.speaker.tolist(), strict=True))
        people = any(role == "human" and _is_named(speaker) for role, speaker in set(writers))
        machine = {
            (role, speaker): float(role != "human" and not (people and _is_named(speaker)))
            for role, speaker in set(writers)
        }
        return np.array([machine[writer] for writer in writers])

    def _followed_by(self, step: int, *, within: int) -> NDArray[np.intp]:
        """Rows whose `step`-th next row is at most `within` slots on, in the same session."""
        slots, sessions = self._slot, self._session
        is_near = slots[step:] - slots[:-step] <= within
        return np.flatnonzero(is_near & (sessions[step:] == sessions[:-step]))


def _is_named(speaker: str | None) -> bool:
    return speaker is not None and speaker.casefold() not in GENERIC_NAMES
