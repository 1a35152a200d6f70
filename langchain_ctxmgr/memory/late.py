"""Late interaction: how well each word of a question is met by some word of a turn.

One vector for a whole turn blurs what it says, so the vectors of its tokens are kept too,
small: stop words are dropped, neighbours of a long turn are averaged, and of each vector
the signs stay, one bit a dimension: 730 bytes for a short turn and 1,500 for a long one.
A question's token looks for its best match among a turn's, and rare words count more.

Source: Khattab and Zaharia 2020, "ColBERT".
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from langchain_ctxmgr.analysis import terms, words
from langchain_ctxmgr.memory.local import Tokens, Vectors

MAX_VECTORS = 32
"""Vectors kept of a turn: with 384 dimensions 1.5 KB, 2 KB as text."""
FLAT_SHARE = 0.1
"""Part of the weight that a question's tokens share alike, stop words too."""

_WORD = re.compile(r"\w+")


def codes_of(text: str, tokens: Tokens) -> str:
    """The signs of the vectors kept of a turn, as base64; empty where there are none."""
    kept = [
        row
        for row, (start, end) in enumerate(tokens.spans)
        if start == end or words(text[start:end])
    ]
    vectors = tokens.vectors[kept]
    if len(vectors) > MAX_VECTORS:
        starts = np.arange(MAX_VECTORS) * len(vectors) // MAX_VECTORS
        vectors = np.add.reduceat(vectors, starts, axis=0)
    return b64encode(np.packbits(vectors >= 0, axis=1).tobytes()).decode("ascii")


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


def similarity(
    codes: Sequence[str], vectors: Vectors, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """For each turn the weighted sum of its best matches with the question's `vectors`.

    No element of `codes` may be empty.
    """
    size = vectors.shape[1]
    width = (size + 7) // 8
    kept = [b64decode(code) for code in codes]
    packed = np.frombuffer(b"".join(kept), dtype=np.uint8).reshape(-1, width)
    bits = np.unpackbits(packed, axis=1, count=size).astype(np.float32)
    # A sign is twice a bit less one.
    matches = bits @ (2 * vectors.T) - vectors.sum(axis=1)
    lengths = np.array([len(each) // width for each in kept])
    starts = np.cumsum(lengths) - lengths
    best = np.maximum.reduceat(matches, starts, axis=0) / sqrt(size)
    return best.astype(np.float64) @ weights
