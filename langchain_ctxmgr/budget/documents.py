"""Many documents within one budget: all of them shortened, or the best of them whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from langchain_core.documents import Document

from langchain_ctxmgr.budget.tokens import TokenCounter, middle_cut


class FittedDocuments(NamedTuple):
    """Documents that fit, in their given order."""

    documents: list[Document]
    tokens: int
    """Of their texts together."""
    cut: tuple[int, ...]
    """Places, in what was given, of documents that were shortened."""
    dropped: tuple[int, ...]
    """Places, in what was given, of documents that were left out."""


def fit_documents(
    documents: Sequence[Document],
    *,
    max_tokens: int,
    counter: TokenCounter,
    by: Literal["truncation", "priority"] = "truncation",
    priority: Callable[[Document], float] | None = None,
) -> FittedDocuments:
    """Fit the texts of `documents` into `max_tokens`; what is given is not changed.

    By truncation every document keeps as much as the others leave it: short ones whole, long
    ones cut in their middle with a visible marker. By priority the documents of highest
    `priority` are kept whole, first ones first among equals (so without `priority`, a
    retriever's order); what no longer fits is left out.

    Raises:
        ValueError: If `max_tokens` is negative, or `by` is something else.
    """
    if max_tokens < 0:
        raise ValueError(f"max_tokens must not be negative, got {max_tokens}")
    sizes = [counter.text(document.page_content) for document in documents]
    if by == "priority":
        return _by_priority(documents, sizes, max_tokens, priority)
    if by == "truncation":
        return _by_truncation(documents, sizes, max_tokens, counter)
    raise ValueError(f"by must be 'truncation' or 'priority', got {by!r}")


def _by_priority(
    documents: Sequence[Document],
    sizes: Sequence[int],
    max_tokens: int,
    priority: Callable[[Document], float] | None,
) -> FittedDocuments:
    weights = [0.0 if priority is None else priority(document) for document in documents]
    kept: set[int] = set()
    used = 0
    for place in sorted(range(len(documents)), key=lambda place: (-weights[place], place)):
        if used + sizes[place] <= max_tokens:
            kept.add(place)
            used += sizes[place]
    return FittedDocuments(
        documents=[document for place, document in enumerate(documents) if place in kept],
        tokens=used,
        cut=(),
        dropped=tuple(place for place in range(len(documents)) if place not in kept),
    )


def _by_truncation(
    documents: Sequence[Document], sizes: Sequence[int], max_tokens: int, counter: TokenCounter
) -> FittedDocuments:
    rooms = _level(sizes, max_tokens)
    fitted: list[Document] = []
    cut: list[int] = []
    dropped: list[int] = []
    used = 0
    for place, (document, size, room) in enumerate(zip(documents, sizes, rooms, strict=True)):
        if size <= room:
            fitted.append(document)
            used += size
            continue
        text = middle_cut(counter, document.page_content, room)
        if not text:
            dropped.append(place)
            continue
        fitted.append(document.model_copy(update={"page_content": text}))
        cut.append(place)
        used += counter.text(text)
    return FittedDocuments(fitted, used, tuple(cut), tuple(dropped))


def _level(sizes: Sequence[int], max_tokens: int) -> list[int]:
    """A room for each size: as filling jars from one jug, evenly until each is full."""
    rooms = [0] * len(sizes)
    left = max_tokens
    for filled, place in enumerate(sorted(range(len(sizes)), key=lambda place: sizes[place])):
        rooms[place] = min(sizes[place], left // (len(sizes) - filled))
        left -= rooms[place]
    return rooms
