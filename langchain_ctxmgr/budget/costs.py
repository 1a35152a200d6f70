"""What a call costs, in USD. Unknown is None, never zero, and pricing never fails a turn."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages.ai import UsageMetadata

from langchain_ctxmgr.budget.models import Listed, Price, listed_model, registered_model
from langchain_ctxmgr.budget.tokens import model_name

_MILLION = Decimal(1_000_000)


class _Usage(NamedTuple):
    input: int
    output: int
    cached: int
    written: int


def cost(
    usage: UsageMetadata | int,
    model: str | BaseChatModel | None,
    *,
    cached_tokens: int = 0,
    at: datetime | None = None,
) -> Decimal | None:
    """USD for `usage`; None when the price is unknown or `usage` makes no sense.

    `usage` is a LangChain `usage_metadata`, or a number of input tokens of which
    `cached_tokens` are read from the provider's cache. `at` is when the call was made (aware;
    by default now), since prices change.
    """
    found = _read(usage, cached_tokens)
    name = model_name(model)
    if found is None or name is None:
        return None
    registered = registered_model(name)
    if registered is not None and registered.price is not None:
        return _at_price(found, registered.price)
    listed = listed_model(name)
    return None if listed is None or not listed.is_priced else _at_list(found, listed, at)


def _at_price(usage: _Usage, price: Price) -> Decimal:
    cached_rate = price.input if price.cached_input is None else price.cached_input
    fresh = usage.input - usage.cached
    spent = fresh * price.input + usage.cached * cached_rate + usage.output * price.output
    return spent / _MILLION


def _at_list(usage: _Usage, listed: Listed, at: datetime | None) -> Decimal | None:
    from genai_prices import Usage

    try:
        rates = listed.model.get_prices(at or datetime.now(tz=UTC))
        # Without a rate for cached or written input they are charged as any other input.
        cached = usage.cached if rates.cache_read_mtok is not None else 0
        written = usage.written if rates.cache_write_mtok is not None else 0
        charged = Usage(
            input_tokens=usage.input,
            output_tokens=usage.output,
            cache_read_tokens=cached or None,
            cache_write_tokens=written or None,
        )
        return rates.calc_price(charged)["total_price"]
    except (LookupError, ValueError, TypeError, ArithmeticError, AttributeError):
        return None


def _read(usage: UsageMetadata | int, cached_tokens: int) -> _Usage | None:
    if isinstance(usage, int):
        found = _Usage(int(usage), 0, cached_tokens, 0)
    else:
        given = cast("Mapping[str, Any]", usage)
        details = cast("Mapping[str, Any]", given.get("input_token_details") or {})
        try:
            found = _Usage(
                *(int(given.get(key) or 0) for key in ("input_tokens", "output_tokens")),
                *(int(details.get(key) or 0) for key in ("cache_read", "cache_creation")),
            )
        except (TypeError, ValueError, OverflowError, AttributeError):
            return None
    if min(found) < 0 or found.cached + found.written > found.input:
        return None
    return found
