"""What a `ContextManager` can be told: with its types for `open`, and checked.

`embeddings` alone is checked where it is made into a model: what a name says is found there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, TypedDict, cast

from langchain_core.language_models import BaseChatModel

from langchain_ctxmgr.budget.allocation import ContextBudget
from langchain_ctxmgr.compression.chat_summarizer import ChatSummarizer
from langchain_ctxmgr.events import Listener
from langchain_ctxmgr.intake import shown
from langchain_ctxmgr.prompt.layout import Order
from langchain_ctxmgr.prompt.window import Selector
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.cache import Cache
from langchain_ctxmgr.view.quotes import Summarizer


class Settings(TypedDict, total=False):
    """What `ContextManager.open` takes beside the folder; see `ContextManager`."""

    model: str | BaseChatModel | None
    summarizer: Summarizer | ChatSummarizer | BaseChatModel | None
    selection: Selector | None
    order: Order
    budget: ContextBudget | None
    tenant_id: str | None
    score_threshold: float
    episodes: float | None
    token_cache_size: int
    cache: Cache | str | None
    spool: str | Path | None
    listeners: Sequence[Listener]
    clock: Callable[[], datetime]


class _Rule(NamedTuple):
    accepts: Callable[[Any], bool]
    what: str
    """What it must be, as the error says it."""


def require(**settings: Any) -> None:
    """Return when every setting is what it must be; nothing is opened or loaded for that.

    Raises:
        ValueError: If one is not.
        TypeError: If there is no setting of that name.
    """
    for name, value in settings.items():
        rule = _RULES.get(name)
        if rule is None:
            raise TypeError(f"there is no setting {name!r}; there are {', '.join(_RULES)}")
        if not rule.accepts(value):
            raise ValueError(f"{name} must be {rule.what}, got {shown(value)}")


def _has(*methods: str) -> Callable[[Any], bool]:
    return lambda value: all(callable(getattr(value, name, None)) for name in methods)


def _or_none(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or accepts(value)


def _or_url(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) or accepts(value)


def _is_name_or_model(value: object) -> bool:
    return isinstance(value, BaseChatModel) or (isinstance(value, str) and value.strip() != "")


def _is_summarizer(value: object) -> bool:
    return isinstance(value, BaseChatModel | ChatSummarizer) or _has("summarize")(value)


def _is_order(value: object) -> bool:
    return value in list(Order)


def _is_duration(value: object) -> bool:
    return isinstance(value, timedelta) and value > timedelta(0)


def _is_budget(value: object) -> bool:
    return isinstance(value, ContextBudget)


def _are_callables(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and all(map(callable, cast("Sequence[object]", value)))
    )


def _is_path(value: object) -> bool:
    return isinstance(value, str | Path) and bool(str(value))


def _is_tenant(value: Any) -> bool:
    """As `Scope` says it; the reason it gives is passed on."""
    Scope(tenant_id=value)
    return True


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_RULES: Final = {
    "log": _Rule(_or_url(_has("append", "branch", "history")), "a MessageLog or a URL"),
    "vectors": _Rule(
        _or_none(_or_url(_has("upsert", "query", "delete"))), "a VectorStore, a URL or None"
    ),
    "model": _Rule(_or_none(_is_name_or_model), "a model's name, a BaseChatModel or None"),
    "summarizer": _Rule(
        _or_none(_is_summarizer), "a Summarizer, a ChatSummarizer, a BaseChatModel or None"
    ),
    "selection": _Rule(_or_none(callable), "a Selector or None"),
    "order": _Rule(_is_order, f"one of {', '.join(order.value for order in Order)}"),
    "budget": _Rule(_or_none(_is_budget), "a ContextBudget or None"),
    "spool": _Rule(_or_none(_is_path), "a file's name or None"),
    "tenant_id": _Rule(_is_tenant, "a tenant's id or None"),
    "cache": _Rule(_or_none(_or_url(_has("get", "put", "forget"))), "a Cache, a URL or None"),
    "score_threshold": _Rule(_is_share, "a number in [0, 1]"),
    "episodes": _Rule(_or_none(_is_share), "a number in [0, 1] or None"),
    "token_cache_size": _Rule(_is_count, "an int of at least 0"),
    "listeners": _Rule(_are_callables, "a sequence of callables"),
    "clock": _Rule(callable, "a callable that gives an aware datetime"),
    "keep": _Rule(_is_duration, "a positive timedelta"),
    "progress": _Rule(_or_none(callable), "a callable or None"),
}
