"""What a model can take and what it costs, from whoever knows.

Asked in this order: what the user registered, the chat model's own `profile`, and
`genai-prices`, whose price list ships with it and is read without a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from langchain_core.language_models import BaseChatModel

from langchain_ctxmgr.budget.tokens import model_name
from langchain_ctxmgr.budget.vocabulary import encoding_for, register_encoding
from langchain_ctxmgr.errors import UnknownModelError
from langchain_ctxmgr.forking import ForkableLock

if TYPE_CHECKING:
    from genai_prices import types as prices


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """USD for a million tokens, at the rate of a short prompt.

    Raises:
        ValueError: If a rate is negative or not a `Decimal`.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    """None where cached input costs as much as other input, or the rate is unknown."""

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached_input"):
            value: object = getattr(self, name)
            if name == "cached_input" and value is None:
                continue
            if not isinstance(value, Decimal) or not value.is_finite() or value < 0:
                raise ValueError(f"{name} must be a Decimal of at least 0, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What is known of a model.

    Raises:
        ValueError: If the name is empty or a number of tokens is not positive.
    """

    name: str
    max_input_tokens: int
    """The most a prompt may hold."""
    max_output_tokens: int | None = None
    encoding: str
    """The vocabulary to count with: its own, or the nearest."""
    is_own_encoding: bool
    """Whether `encoding` is the model's own."""
    price: Price | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name must not be empty")
        for field in ("max_input_tokens", "max_output_tokens"):
            value: object = getattr(self, field)
            if value is None and field == "max_output_tokens":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{field} must be a positive int, got {value!r}")


_registered: dict[str, ModelInfo] = {}
_registered_lock = ForkableLock()


def register_model(
    name: str,
    *,
    max_input_tokens: int,
    max_output_tokens: int | None = None,
    encoding: str | None = None,
    price: Price | None = None,
) -> ModelInfo:
    """Tell what `name` can take; it goes before every other source, in this process.

    `encoding` is a vocabulary of tiktoken (`o200k_base`, `cl100k_base`), stated when it is the
    model's own; by default it follows from the name. Registering a name again replaces it.

    Raises:
        ValueError: If a value cannot be.
    """
    known = encoding_for(name)
    if encoding is not None and encoding not in {"o200k_base", "cl100k_base"}:
        raise ValueError(f"encoding must be o200k_base or cl100k_base, got {encoding!r}")
    info = ModelInfo(
        name=name,
        max_input_tokens=max_input_tokens,
        max_output_tokens=max_output_tokens,
        encoding=encoding or known.name,
        is_own_encoding=known.is_own if encoding is None else True,
        price=price,
    )
    with _registered_lock:
        _registered[name.lower()] = info
    if encoding is not None:
        register_encoding(name, encoding)
    return info


def registered_model(name: str | None) -> ModelInfo | None:
    """What `register_model` was told of `name`."""
    if name is None:
        return None
    with _registered_lock:
        return _registered.get(name.lower())


def model_info(model: str | BaseChatModel) -> ModelInfo:
    """Window, output limit, vocabulary and price of `model`.

    `price` is None where no source knows it.

    Raises:
        UnknownModelError: If no source knows its window; the message says how to register it.
    """
    name = model_name(model)
    found = registered_model(name)
    if found is not None:
        return found
    profile = _profile(model)
    listed = listed_model(name) if name else None
    window = _positive(profile.get("max_input_tokens"))
    if window is None and listed is not None:
        window = _positive(listed.model.context_window)
    if name is None or window is None:
        raise _unknown(model, name)
    encoding = encoding_for(name)
    return ModelInfo(
        name=name,
        max_input_tokens=window,
        max_output_tokens=_positive(profile.get("max_output_tokens")),
        encoding=encoding.name,
        is_own_encoding=encoding.is_own,
        price=_listed_price(listed),
    )


class Listed(NamedTuple):
    """A model's entry in the price list of `genai-prices`."""

    provider: prices.Provider
    model: prices.ModelInfo
    is_priced: bool
    """Whether its rates hold: not for a fine-tuned model or one from an unlisted provider."""


@lru_cache(maxsize=1_024)
def listed_model(name: str) -> Listed | None:
    """The entry for `name`, with or without its provider in front; None if there is none."""
    try:
        from genai_prices import data_snapshot
    except ImportError:
        return None
    snapshot = data_snapshot.get_snapshot()
    for provider, reference, is_priced in _references(name):
        try:
            found = snapshot.find_provider_model(reference, None, provider, None)
        except LookupError:
            continue
        return Listed(*found, is_priced)
    return None


class _Reference(NamedTuple):
    provider: str | None
    name: str
    is_priced: bool


def _references(name: str) -> list[_Reference]:
    """`name` as given, then without its provider, or the model that was tuned."""
    bare = name.strip().lower()
    if bare.startswith("ft:"):
        return [_Reference(None, bare.split(":")[1], is_priced=False)]
    found = [_Reference(None, bare, is_priced=True)]
    for separator in (":", "/"):
        provider, _, rest = bare.partition(separator)
        if rest and provider:
            listed_as = _PROVIDERS.get(provider, provider)
            found.append(_Reference(listed_as, rest, is_priced=True))
            found.append(_Reference(None, rest, is_priced=False))
    return found


_PROVIDERS = {
    "azure_openai": "azure",
    "google_genai": "google",
    "google_vertexai": "google",
    "models": "google",
    "mistralai": "mistral",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "xai": "x-ai",
}
"""LangChain's names of providers, where the price list has others."""


def _listed_price(listed: Listed | None) -> Price | None:
    if listed is None or not listed.is_priced:
        return None
    from datetime import UTC, datetime

    rates = listed.model.get_prices(datetime.now(tz=UTC))
    inputs, outputs = _rate(rates.input_mtok), _rate(rates.output_mtok)
    if inputs is None or outputs is None:
        return None
    return Price(input=inputs, output=outputs, cached_input=_rate(rates.cache_read_mtok))


def _rate(value: Decimal | prices.TieredPrices | None) -> Decimal | None:
    if value is None or isinstance(value, Decimal):
        return value
    return value.base


def _profile(model: str | BaseChatModel) -> Mapping[str, Any]:
    if isinstance(model, str):
        return {}
    found: object = getattr(model, "profile", None)
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _unknown(model: str | BaseChatModel, name: str | None) -> UnknownModelError:
    if name is None:
        return UnknownModelError(
            f"{type(model).__name__} has no model name: pass a ContextBudget with max_input_tokens"
        )
    return UnknownModelError(
        f"nothing is known of the window of {name!r}: call "
        f"register_model({name!r}, max_input_tokens=...), or pass a ContextBudget"
    )
