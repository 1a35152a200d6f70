"""Recorded messages as columns: what recall weighs, a thousand at once.

A thousand messages as values of their own take three times as long to make, and again to be
turned into the columns that scores are worked out over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from langchain_ctxmgr.records import Turn

Integers: TypeAlias = NDArray[np.int64]
Objects: TypeAlias = NDArray[np.object_]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
_ROW: Final = np.dtype(
    [
        ("seq", np.int64),
        ("thread_id", np.object_),
        ("slot", np.int64),
        ("branch", np.int64),
        ("session", np.int64),
        ("role", np.object_),
        ("speaker", np.object_),
        ("at", np.int64),
        ("tokens", np.int64),
        ("importance", np.float64),
        ("cues", np.int64),
    ]
)
"""The fields of `Turn`; `at` in microseconds since 1970 in UTC."""


def micros_of(at: datetime) -> int:
    """An instant as a column holds it."""
    return (at - EPOCH) // MICROSECOND


class Turns(Sequence[Turn]):
    """Columns over recorded messages, each as long as there are messages.

    As a sequence, the same messages as values.
    """

    __slots__ = ("rows",)

    def __init__(self, rows: NDArray[np.void]) -> None:
        self.rows = rows

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[Any]]) -> Turns:
        """Of rows with the fields of `Turn` in their order, `at` in microseconds."""
        return cls(np.fromiter(rows, _ROW))

    @classmethod
    def of(cls, turns: Iterable[Turn]) -> Turns:
        """Of values."""
        return cls.from_rows((*turn[:7], micros_of(turn.at), *turn[8:]) for turn in turns)

    @classmethod
    def joined(cls, parts: Iterable[Turns]) -> Turns:
        """Those of each part, in turn."""
        return cls(np.concatenate([part.rows for part in (NO_TURNS, *parts)]))

    @property
    def seq(self) -> Integers:
        """Places in the whole log, from 1."""
        return self.rows["seq"]

    @property
    def thread_id(self) -> Objects:
        """The threads they were said in."""
        return self.rows["thread_id"]

    @property
    def thread_rank(self) -> Integers:
        """The places of their threads among all of them, in order of ids."""
        threads = self.thread_id.tolist()
        places = {thread_id: place for place, thread_id in enumerate(sorted(set(threads)))}
        return np.array([places[thread_id] for thread_id in threads], np.int64)

    @property
    def slot(self) -> Integers:
        """Places in their thread's order, from 0."""
        return self.rows["slot"]

    @property
    def branch(self) -> Integers:
        """The branches of their thread that they stand on."""
        return self.rows["branch"]

    @property
    def session(self) -> Integers:
        """Runs of messages without a long pause, numbered from 0 in each thread."""
        return self.rows["session"]

    @property
    def role(self) -> Objects:
        """LangChain's message types."""
        return self.rows["role"]

    @property
    def speaker(self) -> Objects:
        """The messages' names, None where they have none."""
        return self.rows["speaker"]

    @property
    def at(self) -> Integers:
        """When they were said, in microseconds since 1970 in UTC."""
        return self.rows["at"]

    @property
    def tokens(self) -> Integers:
        """What they cost."""
        return self.rows["tokens"]

    @property
    def importance(self) -> NDArray[np.float64]:
        """How much they matter, 0 to 1."""
        return self.rows["importance"]

    @property
    def cues(self) -> Integers:
        """Bit sets of `analysis.Cue`."""
        return self.rows["cues"]

    def where(self, rows: NDArray[Any]) -> Turns:
        """Those at these places, in that order, or for which it is true."""
        return Turns(self.rows[rows])

    def places(self) -> list[tuple[str, int, int]]:
        """Thread, branch and slot of each."""
        columns = self.thread_id, self.branch, self.slot
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Turn: ...
    @overload
    def __getitem__(self, index: slice) -> Turns: ...
    def __getitem__(self, index: int | slice) -> Turn | Turns:
        if isinstance(index, slice):
            return Turns(self.rows[index])
        row: Any = self.rows[index].item()
        return Turn._make((*row[:7], EPOCH + timedelta(0, 0, row[7]), *row[8:]))


NO_TURNS: Final = Turns(np.empty(0, _ROW))
