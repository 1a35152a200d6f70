"""BM25 over packed terms.

Worked out from what a scope sees alone, so that a score tells nothing of what others say.
Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework", section 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest
from typing import Final

from langchain_ctxmgr.storage.message_log import TermHit

MAX_SCORED: Final = 2_048
"""Records scored in one search; about 10 ms."""
MAX_TERMS: Final = 256
"""Distinct terms of a query that are looked up."""
K1: Final = 1.2
B: Final = 0.75
"""BM25's usual constants."""


def wanted_terms(terms: Sequence[int]) -> list[int]:
    """The distinct terms of a query that are looked up, sorted."""
    return sorted([*dict.fromkeys(terms)][:MAX_TERMS])


def best_hits(seqs: Sequence[int], scores: Sequence[float], limit: int) -> list[TermHit]:
    """The `limit` best, ties by `seq`."""
    hits = map(TermHit, seqs, scores)
    return nsmallest(limit, hits, key=lambda hit: (-hit.score, hit.seq))


def bm25(
    documents: Sequence[bytes], wanted: Sequence[int], size: int, counts: Sequence[int] | None
) -> list[float]:
    """Each document's BM25 score for the sorted terms `wanted`.

    `size` is how many documents there are, `counts` how many of them have each term; by
    default those given are all that have any.
    """
    import numpy as np

    query = np.asarray(wanted, np.uint32)
    lengths = np.fromiter((len(terms) // 4 for terms in documents), np.int64, len(documents))
    found = np.frombuffer(b"".join(documents), "<u4")
    places = np.minimum(np.searchsorted(query, found), len(query) - 1)
    matched = query[places] == found
    cells = (np.repeat(np.arange(len(documents)), lengths) * len(query) + places)[matched]
    shape = (len(documents), len(query))
    often = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
    holders = (often > 0).sum(axis=0) if counts is None else np.asarray(counts)
    rarity = np.log1p((max(size, int(holders.max(initial=0))) - holders + 0.5) / (holders + 0.5))
    mean = lengths.mean() if len(documents) else 1.0
    damped = K1 * (1 - B + B * lengths / mean)
    scores: list[float] = ((often * (K1 + 1) / (often + damped[:, None])) @ rarity).tolist()
    return scores


def matching(documents: Sequence[bytes], wanted: Sequence[int]) -> list[bool]:
    """Which documents have any of the sorted terms `wanted`."""
    import numpy as np

    query = np.asarray(wanted, np.uint32)
    lengths = np.fromiter((len(terms) // 4 for terms in documents), np.int64, len(documents))
    found = np.frombuffer(b"".join(documents), "<u4")
    places = np.minimum(np.searchsorted(query, found), len(query) - 1)
    holders = np.repeat(np.arange(len(documents)), lengths)[query[places] == found]
    matched = np.zeros(len(documents), bool)
    matched[holders] = True
    flags: list[bool] = matched.tolist()
    return flags
