"""What a `ContextManager` can be told, for `open` to hand on with its types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypedDict

from langchain_core.language_models import BaseChatModel

from langchain_ctxmgr.budget.allocation import ContextBudget
from langchain_ctxmgr.events import Listener
from langchain_ctxmgr.prompt.layout import Order
from langchain_ctxmgr.prompt.window import Selector
from langchain_ctxmgr.view.builder import Summarizer


class Settings(TypedDict, total=False):
    """What `ContextManager.open` takes beside the folder; see `ContextManager`."""

    model: str | BaseChatModel | None
    summarizer: Summarizer | None
    selection: Selector | None
    order: Order
    budget: ContextBudget | None
    tenant_id: str | None
    token_cache_size: int
    listeners: Sequence[Listener]
    clock: Callable[[], datetime]
