"""A real embedding model for 100,000 made-up turns, at the cost of some thousand.

Made-up talk is a few thousand sentence patterns whose names and figures change. Each pattern is
encoded once, word by word; a turn is put together from its sentences. What matters to a
measurement (`exactly`) and questions go to the model as they are.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Collection, Sequence
from hashlib import blake2b

import numpy as np
from langchain_core.embeddings import Embeddings

from langchain_ctxmgr.memory.local import Encoded, Tokens, TurnEmbeddings, Vectors

_SENTENCE_END = re.compile(r"(?<=[.?!:])\s+")
_WORD = re.compile(r"\S+")
_FIGURE = re.compile(r"\d+(?:[.,:]\d+)*")
_BATCH = 256
_APART = 1e-3
"""Turns of one pattern differ by so much in each dimension: no two of a model's are equal."""


class PatternVectors(Embeddings):
    """`inner` for questions and turns that hold one of `exactly`; patterns for the rest.

    Args:
        inner: The model.
        name: What it is called.
        exactly: Texts that are encoded as they are, with what stands before them.
        names: Words that no other stands for.
    """

    def __init__(
        self, inner: TurnEmbeddings, name: str, exactly: Collection[str], names: Collection[str]
    ) -> None:
        self.model = f"{name} by patterns"
        self.seconds = 0.0
        """What questions took."""
        self._inner = inner
        self._exactly = frozenset(exactly)
        self._names = frozenset(names)
        self._known: dict[tuple[str, ...], Vectors] = {}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector a text."""
        return [each.vector for each in self.embed_turns([("", text) for text in texts])]

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        return self.embed_question(text).vector

    def embed_question(self, question: str) -> Encoded:
        """Of a question, by the model itself."""
        started = time.perf_counter()
        encoded = self._inner.embed_question(question)
        self.seconds += time.perf_counter() - started
        return encoded

    def embed_turns(self, turns: Sequence[tuple[str, str]]) -> list[Encoded]:
        """Of each turn, behind what stands before it where it is encoded as it is."""
        as_is = [turn for turn in turns if turn[1].partition(": ")[2] in self._exactly]
        exact = dict(zip(as_is, self._inner.embed_turns(as_is), strict=True)) if as_is else {}
        self._learn([text for _, text in turns if text.partition(": ")[2] not in self._exactly])
        return [exact[turn] if turn in exact else self._joined(turn[1]) for turn in turns]

    async def aembed_turns(self, turns: Sequence[tuple[str, str]]) -> list[Encoded]:
        """`embed_turns` in a worker thread."""
        return await asyncio.to_thread(self.embed_turns, turns)

    async def aembed_question(self, question: str) -> Encoded:
        """`embed_question` in a worker thread."""
        return await asyncio.to_thread(self.embed_question, question)

    def _learn(self, texts: Sequence[str]) -> None:
        patterns = {self._pattern(each) for text in texts for each in _SENTENCE_END.split(text)}
        new = sorted(patterns - self._known.keys())
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            encoded = self._inner.embed_turns([("", " ".join(pattern)) for pattern in batch])
            for pattern, each in zip(batch, encoded, strict=True):
                self._known[pattern] = _by_word(" ".join(pattern), each)

    def _joined(self, text: str) -> Encoded:
        words: Vectors = np.concatenate(
            [self._known[self._pattern(each)] for each in _SENTENCE_END.split(text)]
        )
        seed = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
        size = len(words[0])
        apart = _APART * np.random.default_rng(seed).standard_normal(size)
        mean = np.asarray(words.mean(axis=0) + apart, dtype=np.float32)
        mean /= max(float(np.linalg.norm(mean)), 1e-12)
        spans = [word.span() for word in _WORD.finditer(text)]
        return Encoded(mean.tolist(), Tokens(spans, words))

    def _pattern(self, sentence: str) -> tuple[str, ...]:
        words = _WORD.findall(sentence)
        return tuple(
            word if not place and word not in self._names else self._stand_in(word)
            for place, word in enumerate(words)
        ) or ("-",)

    def _stand_in(self, word: str) -> str:
        bare = re.sub(r"\W.*", "", word)
        if word[:1].isupper() and len(word) > 1 and bare not in self._names:
            word = "Ana" + word[len(bare) :]
        return _FIGURE.sub("7", word)


def _by_word(text: str, encoded: Encoded) -> Vectors:
    """The tokens' vectors as one for each word."""
    if encoded.tokens is None:
        raise ValueError("the model must give the vectors of tokens")
    spans, vectors = encoded.tokens.spans, encoded.tokens.vectors
    rows: list[Vectors] = []
    for word in _WORD.finditer(text):
        inside = [
            row
            for row, (start, end) in enumerate(spans[: len(vectors)])
            if start < word.end() and end > word.start()
        ]
        row = vectors[inside].mean(axis=0) if inside else vectors.mean(axis=0)
        rows.append(row / max(float(np.linalg.norm(row)), 1e-12))
    return np.stack(rows).astype(np.float32)
