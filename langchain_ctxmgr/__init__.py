"""Memory and context for LangChain and LangGraph when conversations outgrow the window.

The public names load on first use, so importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_ctxmgr.budget.allocation import ContextBudget, RiskLevel, Strategy
    from langchain_ctxmgr.budget.models import register_model
    from langchain_ctxmgr.compression.chat_summarizer import ChatSummarizer
    from langchain_ctxmgr.condensing import Condensation
    from langchain_ctxmgr.errors import ContextOverflowError
    from langchain_ctxmgr.manager import ContextManager
    from langchain_ctxmgr.memory.facts.values import Fact
    from langchain_ctxmgr.memory.retriever import MemoryRetriever
    from langchain_ctxmgr.records import PreparedContext, Scope

__all__ = [
    "ChatSummarizer",
    "Condensation",
    "ContextBudget",
    "ContextManager",
    "ContextOverflowError",
    "Fact",
    "MemoryRetriever",
    "PreparedContext",
    "RiskLevel",
    "Scope",
    "Strategy",
    "register_model",
]

_HOMES = {
    "ChatSummarizer": "compression.chat_summarizer",
    "Condensation": "condensing",
    "ContextBudget": "budget.allocation",
    "ContextManager": "manager",
    "ContextOverflowError": "errors",
    "Fact": "memory.facts.values",
    "MemoryRetriever": "memory.retriever",
    "PreparedContext": "records",
    "RiskLevel": "budget.allocation",
    "Scope": "records",
    "Strategy": "budget.allocation",
    "register_model": "budget.models",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
