"""What a view is asked for, and what it is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from langchain_core.messages import BaseMessage

from langchain_ctxmgr.budget.allocation import ContextBudget
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.events import Listener
from langchain_ctxmgr.memory.breaker import Breaker
from langchain_ctxmgr.memory.recall import Recall
from langchain_ctxmgr.memory.relevance import SCORE_THRESHOLD
from langchain_ctxmgr.prompt.window import Selector
from langchain_ctxmgr.records import Branch, Scope
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.summaries.store import SummaryStore
from langchain_ctxmgr.view.beside import Beside
from langchain_ctxmgr.view.marked import UNMARKED, Marked
from langchain_ctxmgr.view.quotes import Summarizer


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewParts:
    """What views are made from, and with."""

    log: MessageLog
    recall: Recall
    summarizer: Summarizer
    counter: TokenCounter
    summaries: SummaryStore | None = None
    """Summaries made beside the turns; None: the summarizer's alone."""
    selector: Selector | None = None
    """What is kept of a history that does not fit; None: the newest window."""
    score_threshold: float = SCORE_THRESHOLD
    """Nothing is recalled where the chance that it bears on the question is below."""
    beside: Beside | None = None
    """Finds pins and facts for the question; None: neither."""
    log_breaker: Breaker
    """Told where a choice could not be written: what follows in the turn is spared the wait."""
    listeners: tuple[Listener, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewRequest:
    """What a view is asked for."""

    scope: Scope
    branch: Branch
    query: BaseMessage | None
    system: BaseMessage | None
    tools: Sequence[object]
    max_tokens: int
    """As counted here: less than was asked for where a model is known to count more."""
    asked_tokens: int
    budget: ContextBudget
    asked_at: datetime
    marks: Marked = UNMARKED
    """As read when the frame is settled."""
