"""What is remembered, and what matters now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_ctxmgr.memory.retriever import MemoryRetriever

__all__ = ["MemoryRetriever"]


def __getattr__(name: str) -> Any:
    if name != "MemoryRetriever":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from langchain_ctxmgr.memory.retriever import MemoryRetriever

    return MemoryRetriever
