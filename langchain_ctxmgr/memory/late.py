"""Late interaction: how well each word of a question is met by some word of a turn.

One vector for a whole turn blurs what it says, so the vectors of its tokens are kept too,
small: stop words are dropped, the most similar are added up, and of each sum the signs
stay, one bit a dimension: 600 bytes for a short turn and 1,500 for a long one. All
vectors as they are give .003 more recall between people at 4,000 tokens, and .006 less with an
assistant.
A question's token looks for its best match among a turn's, and rare words count more.

Source: Khattab and Zaharia 2020, "ColBERT".
"""

from __future__ import annotations

import re
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from langchain_ctxmgr.analysis import terms, words
from langchain_ctxmgr.memory.local import Tokens, Vectors

MAX_VECTORS = 32
"""Vectors kept of a turn: with 384 dimensions 1.5 KB, 2 KB as text."""
KEPT_SHARE = 0.75
"""Vectors kept of a short turn's words. All of them give .001 more recall and take a third
more room; half lose .003."""
FLAT_SHARE = 0.1
"""Part of the weight that a question's tokens share alike, stop words too."""
LENGTH_SHARE = 0.5
"""Part of what matches gain from a turn's size that is taken off: .003 to .004 of recall on
either kind of conversation. All of it gives .001 less on short turns."""

BLOCK_ROWS = 16
"""Rows multiplied at once: small enough for BLAS to stay in one thread."""

_NEVER = -2.0
"""Less than any cosine."""
_WORD = re.compile(r"\w+")


def codes_of(text: str, tokens: Tokens) -> str:
    """The signs of the vectors kept of a turn, as base64; empty where there are none."""
    kept = [
        row
        for row, (start, end) in enumerate(tokens.spans)
        if start == end or words(text[start:end])
    ]
    limit = min(ceil(KEPT_SHARE * len(kept)), MAX_VECTORS)
    vectors = _merged(tokens.vectors[kept], limit)
    return b64encode(np.packbits(vectors >= 0, axis=1).tobytes()).decode("ascii")


def _merged(vectors: Vectors, limit: int) -> Vectors:
    """At most `limit` sums of `vectors`: the two most similar are added up, again and again.

    Words that mean the same say little twice, wherever they stand.
    """
    if len(vectors) <= limit:
        return vectors
    sums = vectors.copy()
    units = _of_length_1(sums)
    alike = units @ units.T
    np.fill_diagonal(alike, _NEVER)
    is_left = np.ones(len(sums), dtype=bool)
    for _ in range(len(sums) - limit):
        one, other = divmod(int(alike.argmax()), len(sums))
        sums[one] += sums[other]
        units[one] = _of_length_1(sums[one])
        is_left[other] = False
        near = units @ units[one]
        near[~is_left] = near[one] = _NEVER
        alike[one] = alike[:, one] = near
        alike[other] = alike[:, other] = _NEVER
    return sums[is_left]


def _of_length_1(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


def token_weights(
    question: str, spans: Sequence[tuple[int, int]], rarity: Mapping[int, float]
) -> NDArray[np.float64]:
    """What each token of `question` counts; they add up to 1 + `FLAT_SHARE`, or to less.

    A word's weight is the `rarity` of its term. A term without one was never said: it
    counts like the rarest, since what means the same may have been. The pieces of a word
    share its weight by square root.
    """
    unsaid = max(rarity.values(), default=1.0)
    weights = np.zeros(len(spans))
    for word in _WORD.finditer(question):
        found = terms(word.group())
        rows = [
            row
            for row, (start, end) in enumerate(spans)
            if word.start() <= start < end <= word.end()
        ]
        if found and rows:
            weights[rows] = max(rarity.get(term, unsaid) for term in found) / sqrt(len(rows))
    total = weights.sum()
    flat = FLAT_SHARE / max(len(spans), 1)
    return (weights / total if total > 0 else weights) + flat


def parts_of(
    weights: NDArray[np.float64],
    spans: Sequence[tuple[int, int]],
    parts: Sequence[tuple[int, int]],
) -> list[NDArray[np.float64]]:
    """`weights` for each of the `parts` of a question alone, as characters from and to."""
    alone = [
        np.array([first <= start and end <= last for start, end in spans]) * weights
        for first, last in parts
    ]
    return [part for part in alone if part.any()]


class Met(NamedTuple):
    """How the words of a question are met by those of each turn, in the order of the turns."""

    similar: NDArray[np.float64]
    """The weighted sum of the best matches; of a compound question, those of its best part."""
    first: NDArray[np.float64]
    """What of them is better than in any turn before: 0 for one that only says again."""


def met(
    codes: Sequence[str],
    vectors: Vectors,
    weights: NDArray[np.float64],
    parts: Sequence[NDArray[np.float64]] = (),
) -> Met:
    """How the `codes` of turns, in the order they were said, meet the question's `vectors`.

    None of `codes` may be empty. The more words a turn has, the better some of them match
    whatever is asked: half of what the matches of these turns grow with the logarithm of
    their size is taken off.

    Where a question has `parts` (`parts_of`), a turn is as similar as it is to the part that it
    stands out most for: .001 of recall on chats with an assistant, where half the questions are
    compound, and nothing lost or won on talk between people.
    """
    size = vectors.shape[1]
    width = (size + 7) // 8
    kept = list(map(a2b_base64, codes))
    packed = np.frombuffer(b"".join(kept), dtype=np.uint8).reshape(-1, width)
    bits = np.unpackbits(packed, axis=1, count=size).astype(np.float32)
    # A sign is twice a bit less one.
    matches = _product(bits, 2 * vectors.T) - vectors.sum(axis=1)
    lengths = np.array([len(each) // width for each in kept])
    starts = np.cumsum(lengths) - lengths
    best = np.maximum.reduceat(matches, starts, axis=0).astype(np.float64) / sqrt(size)
    before = np.maximum.accumulate(np.vstack([np.zeros(len(vectors)), best]), axis=0)[:-1]
    first = np.maximum(best - before, 0.0) @ weights
    logs = np.log(lengths)
    similar = _without_length(best @ weights, logs)
    alone = [_standard(_without_length(best @ part, logs)) for part in parts]
    if len(alone) > 1:
        similar = similar.mean() + similar.std() * np.max(alone, axis=0)
    return Met(similar, first)


def _standard(values: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = values.std()
    return (values - values.mean()) / (spread if spread > 0 else 1.0)


def _product(rows: Vectors, columns: Vectors) -> Vectors:
    """`rows @ columns`, a block of rows at a time in this thread.

    In one piece NumPy's BLAS hands it to a thread a core and waits for them: on a machine
    that is busy that takes 10 ms for what is 1 ms of work.
    """
    blocks = len(rows) // BLOCK_ROWS
    whole = blocks * BLOCK_ROWS
    stacked = rows[:whole].reshape(blocks, BLOCK_ROWS, rows.shape[1])
    products = stacked @ np.ascontiguousarray(columns)
    return np.vstack([products.reshape(whole, columns.shape[1]), rows[whole:] @ columns])


def _without_length(
    similar: NDArray[np.float64], lengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    grown = lengths - lengths.mean()
    spread = float(grown @ grown)
    slope = float(grown @ similar) / spread if spread > 0 else 0.0
    return similar - LENGTH_SHARE * slope * grown
