"""What the index holds of a recorded message: its keyword vectors, embedding and place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from langchain_ctxmgr.analysis import BM25_B, BM25_K1, message_text, pair_ids
from langchain_ctxmgr.memory.episodic import is_episode_thread, is_happening
from langchain_ctxmgr.records import LogRecord
from langchain_ctxmgr.storage.message_log import IndexEntry
from langchain_ctxmgr.storage.vectors import (
    BM25,
    CODES,
    DENSE,
    EPISODE,
    HAPPENING,
    PAIRS,
    TERMS,
    Point,
    SparseVector,
)

TIE_BREAK: Final = 1e-3
GOLDEN_RATIO: Final = 0.6180339887498949
"""Multiples of it spread evenly between 0 and 1 (Knuth, TAOCP 3, section 6.4)."""
AVERAGE_TERMS: Final = 32.0
"""BM25's average length. It is fixed: one that moved with every record would change every
stored weight, and recall barely depends on it (16 to 64 are alike)."""
_SIDES: Final = {"human": "User", "ai": "Assistant"}


class Embedding(NamedTuple):
    """What an embedding model made of a record."""

    vector: Sequence[float]
    codes: str = ""
    """Of its tokens' vectors (`late`); empty where the model does not tell."""


def document_text(record: LogRecord) -> str:
    """The text an embedding is made of: speaker and words, since both are asked for.

    A surrogate that UTF-8 cannot hold is a question mark: no model takes it.
    """
    said = f"{record.speaker or _SIDES.get(record.role, record.role)}: "
    return (said + message_text(record.message)).encode(errors="replace").decode()


def keyword_vectors(terms: Sequence[int], seq: int) -> dict[str, SparseVector]:
    """The vectors of a text with these `terms`: BM25, which there are, which stand together.

    Weights differ by up to a thousandth from record to record. Presence alone would make
    thousands of exact ties, and which of them an index returns would be its own choice,
    another one in each folder.

    Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework".
    """
    counts = Counter(terms)
    length = BM25_K1 * (1 - BM25_B + BM25_B * len(terms) / AVERAGE_TERMS)
    own = 1.0 + TIE_BREAK * (seq * GOLDEN_RATIO % 1.0)
    pairs = pair_ids(terms)
    weights = [own * count * (BM25_K1 + 1) / (count + length) for count in counts.values()]
    return {
        BM25: SparseVector(list(counts), weights),
        TERMS: SparseVector(list(counts), [own] * len(counts)),
        PAIRS: SparseVector(pairs, [own] * len(pairs)),
    }


def _kind(record: LogRecord) -> str:
    if is_episode_thread(record.thread_id):
        return EPISODE
    return HAPPENING if is_happening(record.message) else "episodic"


def point_of(entry: IndexEntry, embedding: Embedding | None) -> Point:
    """The point of a record; without an embedding it is found by its words alone."""
    record = entry.record
    return Point(
        id=record.seq,
        payload={
            "tenant_id": record.tenant_id,
            "thread_id": record.thread_id,
            "user_id": record.user_id,
            "kind": _kind(record),
            "role": record.role,
            "slot": record.slot,
            "branch": record.branch,
            "at": record.at,
            CODES: (embedding and embedding.codes) or None,
        },
        sparse=keyword_vectors(entry.terms, record.seq),
        dense={} if embedding is None else {DENSE: embedding.vector},
    )
