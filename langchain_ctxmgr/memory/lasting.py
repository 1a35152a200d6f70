"""What lasts across conversations: the recent, the important, and what was recalled before.

Inside a thread relevance decides alone. Across a user's threads the same question often finds
what was so at different times, and things of no moment: there recency and importance are added
to relevance, and each recall strengthens what it found. The weights are small beside relevance,
whose parts are counted in standard deviations: they decide between what answers about as well.

How often something was recalled is known in this process alone. It is written nowhere, so a
recall costs no write; nothing but recall across threads reads it, so what `prepare` makes of a
log, a question and a clock stays the same.

Source: Park et al. 2023, "Generative Agents: Interactive Simulacra of Human Behavior", section
4.1: relevance, recency (exponential decay since the last retrieval) and importance, added up.
Zhong et al. 2023, "MemoryBank", section 3.3: each recall slows forgetting.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import numpy as np

from langchain_ctxmgr.forking import ForkableLock
from langchain_ctxmgr.memory.candidates import Column
from langchain_ctxmgr.turns import MICROSECOND, Turns, micros_of

HALF_LIFE: Final = timedelta(days=90)
"""Park et al. halve it in 138 hours of a simulated town; people come back after months."""
RECENCY: Final = 0.1
IMPORTANCE: Final = 0.1
"""What the most recent and the most important may gain over the others: a fifth of a standard
deviation of an arm. Park et al. weigh all three alike, each scaled to 0 to 1."""
MOST_KNOWN: Final = 16_384
"""So many recalled messages are known, those recalled last: some 3 MB."""


class Access(NamedTuple):
    """How a message was recalled so far."""

    times: int
    at: datetime
    """The last time."""


class Accesses:
    """What was recalled of each tenant's log, in this process."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int], Access] = OrderedDict()
        self._lock = ForkableLock()

    def recalled(self, tenant_id: str, seqs: Iterable[int], at: datetime) -> None:
        """Note that these records were recalled."""
        with self._lock:
            for seq in seqs:
                before = self._known.pop((tenant_id, seq), None)
                times = 1 if before is None else before.times + 1
                self._known[tenant_id, seq] = Access(times, at)
            while len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)

    def of(self, tenant_id: str, seqs: Iterable[int]) -> dict[int, Access]:
        """Those of these records that were recalled, by `seq`."""
        with self._lock:
            if not self._known:
                return {}
            found = ((seq, self._known.get((tenant_id, seq))) for seq in seqs)
            return {seq: access for seq, access in found if access is not None}


def recency(age: timedelta, recalls: int = 0, half_life: timedelta = HALF_LIFE) -> float:
    """How fresh a memory is: 1.0 now, 0.5 after one `half_life`, which each recall adds to.

    What is said to be later than now is as fresh as can be.

    Raises:
        ValueError: If `half_life` is not positive, or `recalls` is negative.
    """
    if half_life <= timedelta():
        raise ValueError(f"half_life must be positive, got {half_life!r}")
    if recalls < 0:
        raise ValueError(f"recalls must not be negative, got {recalls}")
    return 0.5 ** (max(age, timedelta()) / (half_life * (1 + recalls)))


def lasting(turns: Turns, accesses: Mapping[int, Access], now: datetime) -> dict[str, Column]:
    """What recency, access and importance add to the score of each turn, in their order.

    `access` is what recency gains by having been recalled.
    """
    ages = (micros_of(now) - turns.at) / (HALF_LIFE / MICROSECOND)
    recencies, gained = 0.5 ** np.maximum(ages, 0.0), np.zeros(len(turns))
    for row, seq in enumerate(turns.seq.tolist()):
        access = accesses.get(seq)
        if access is not None:
            again = recency(now - max(access.at, turns[row].at), access.times)
            gained[row] = again - recencies[row]
    return {
        "recency": RECENCY * recencies,
        "access": RECENCY * gained,
        "importance": IMPORTANCE * turns.importance,
    }
