from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import FakeListChatModel

from langchain_ctxmgr.budget import models
from langchain_ctxmgr.budget.costs import cost
from langchain_ctxmgr.budget.models import Price, register_model


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch):
    monkeypatch.setattr(models, "_registered", {})


def usage(given, made=0, **details):
    return {
        "input_tokens": given,
        "output_tokens": made,
        "total_tokens": given + made,
        "input_token_details": details,
    }


class TestCost:
    def test_input_and_output_have_their_own_price(self):
        at = datetime(2025, 6, 1, tzinfo=UTC)
        assert cost(1_000_000, "gpt-4o-mini", at=at) == Decimal("0.15")
        assert cost(usage(1_000_000, 1_000_000), "gpt-4o-mini", at=at) == Decimal("0.75")

    def test_cached_input_is_cheaper(self):
        at = datetime(2025, 6, 1, tzinfo=UTC)
        half = cost(usage(1_000_000, cache_read=1_000_000), "gpt-4o-mini", at=at)
        assert half == cost(1_000_000, "gpt-4o-mini", cached_tokens=1_000_000, at=at)
        assert half == Decimal("0.075")

    def test_cached_input_without_a_rate_costs_the_full_price(self):
        assert cost(1_000, "gpt-4", cached_tokens=500) == cost(1_000, "gpt-4")

    def test_a_registered_price_goes_first(self):
        price = Price(input=Decimal(10), output=Decimal(20), cached_input=Decimal(1))
        register_model("gpt-4o-mini", max_input_tokens=9, price=price)
        assert cost(usage(1_000, 100, cache_read=500), "gpt-4o-mini") == Decimal("0.0075")
        flat = Price(input=Decimal(10), output=Decimal(20))
        register_model("gpt-4o-mini", max_input_tokens=9, price=flat)
        assert cost(1_000, "gpt-4o-mini", cached_tokens=500) == Decimal("0.01")

    @pytest.mark.parametrize(
        "model", [None, "in-house-7b", "ft:gpt-4o:x::y", FakeListChatModel(responses=["a"])]
    )
    def test_an_unknown_price_is_none_and_not_zero(self, model):
        assert cost(1_000, model) is None

    @pytest.mark.parametrize(
        "senseless",
        [-1, usage(-1), usage(10, -1), usage(10, cache_read=11), {"input_tokens": "many"}],
    )
    def test_senseless_usage_has_no_price(self, senseless):
        assert cost(senseless, "gpt-4o-mini") is None

    @given(
        st.integers(0, 10**9) | st.dictionaries(st.text(max_size=3), st.integers()),
        st.sampled_from(["gpt-4o", "gpt-4", "claude-sonnet-4-5", "gemini-2.5-pro", "o3"]),
        st.integers(0, 10**9),
    )
    def test_never_raises_and_is_never_negative(self, given, model, cached):
        found = cost(given, model, cached_tokens=cached)
        assert found is None or found >= 0
