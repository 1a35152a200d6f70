"""Evidence recall: how much of what answers a question stands in a view, word for word.

The gold messages of a question are those that hold its answer. Nothing is judged by a
model: a message is there when its text stands in the view, white space folded. A view
over its budget holds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final, NamedTuple

import numpy as np
from langchain_core.messages import BaseMessage

from langchain_ctxmgr.analysis import sentences

_RESAMPLES: Final = 2_000
_SEED: Final = 5
"""The same interval on every run."""


class Held(NamedTuple):
    """What a view holds of a question's gold messages."""

    found: tuple[bool, ...]
    """Which of them stand in it, word for word."""
    token_share: float
    """Of their tokens, those in sentences that stand in it; the mean over the messages."""

    @property
    def share(self) -> float:
        """Of the messages, 0 to 1."""
        return fmean(self.found)


class Score(NamedTuple):
    """How one question went at one budget."""

    group: str
    """Its conversation: questions of one are not independent of each other."""
    share: float
    token_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallFigures:
    """Evidence recall over several questions."""

    n: int
    """Questions."""
    recall: float
    """Mean share of the gold messages that stand in the view, 0 to 1."""
    interval: tuple[float, float]
    """95 % bootstrap interval of `recall`: over conversations, or questions of a single one."""
    all_gold: float
    """Share of the questions with every gold message in the view."""
    gold_tokens: float
    """Mean share of the gold messages' tokens that the view holds, sentence by sentence."""


def folded(text: str) -> str:
    """`text` with every run of white space as one space."""
    return " ".join(text.split())


def view_text(messages: Iterable[BaseMessage]) -> str:
    """All that a view says, white space folded."""
    return folded("\n".join(message.text for message in messages))


def held(gold: Sequence[str], view: str, size: Callable[[str], int]) -> Held:
    """What of the texts `gold` stands in `view`.

    Args:
        gold: The texts to look for, one at least.
        view: The text to look in, white space folded.
        size: Tokens of a text.
    """
    texts = [folded(text) for text in gold]
    return Held(
        found=tuple(text in view for text in texts),
        token_share=fmean(_token_share(text, view, size) for text in texts),
    )


def _token_share(text: str, view: str, size: Callable[[str], int]) -> float:
    if text in view:
        return 1.0
    parts = [part.strip() for part in sentences(text)]
    sizes = [size(part) for part in parts]
    kept = sum(tokens for part, tokens in zip(parts, sizes, strict=True) if part in view)
    return kept / max(sum(sizes), 1)


def recall_figures(scores: Sequence[Score]) -> RecallFigures | None:
    """Means with an interval; None without scores."""
    if not scores:
        return None
    return RecallFigures(
        n=len(scores),
        recall=fmean(score.share for score in scores),
        interval=_interval(scores),
        all_gold=fmean(score.share == 1 for score in scores),
        gold_tokens=fmean(score.token_share for score in scores),
    )


def _interval(scores: Sequence[Score]) -> tuple[float, float]:
    """The middle 95 % of the means over resampled conversations."""
    groups: dict[str, list[float]] = {}
    for score in scores:
        groups.setdefault(score.group, []).append(score.share)
    units = list(groups.values())
    if len(units) == 1:
        units = [[share] for share in units[0]]
    totals = np.array([sum(unit) for unit in units])
    counts = np.array([len(unit) for unit in units])
    rng = np.random.default_rng(_SEED)
    drawn = rng.integers(len(units), size=(_RESAMPLES, len(units)))
    means = totals[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
