from __future__ import annotations

import sys
from decimal import Decimal

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_openai import ChatOpenAI

from langchain_ctxmgr.budget import models
from langchain_ctxmgr.budget.models import Price, listed_model, model_info, register_model
from langchain_ctxmgr.budget.tokens import counter_for
from langchain_ctxmgr.errors import UnknownModelError


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch):
    monkeypatch.setattr(models, "_registered", {})


class TestModelInfo:
    def test_a_chat_models_profile_goes_before_the_price_list(self):
        model = ChatOpenAI(model="gpt-4o-mini", api_key="x", profile={"max_input_tokens": 77})
        info = model_info(model)
        assert (info.name, info.max_input_tokens, info.encoding) == (
            "gpt-4o-mini",
            77,
            "o200k_base",
        )
        assert info.price is not None

    def test_a_name_is_looked_up_in_the_price_list(self):
        info = model_info("gpt-4o-mini")
        assert info.max_input_tokens == 128_000
        assert info.price.cached_input < info.price.input < info.price.output

    @pytest.mark.parametrize("name", ["openai:gpt-4o", "openai/gpt-4o", "azure/gpt-4o", "GPT-4o"])
    def test_a_provider_in_front_is_understood(self, name):
        info = model_info(name)
        assert (info.max_input_tokens, info.is_own_encoding) == (128_000, True)
        assert info.price is not None

    @pytest.mark.parametrize("name", ["ft:gpt-4o:org::id", "someproxy/gpt-4o"])
    def test_a_window_is_known_where_the_price_is_not(self, name):
        info = model_info(name)
        assert (info.max_input_tokens, info.price) == (128_000, None)

    def test_another_providers_model_is_not_counted_exactly(self):
        info = model_info("anthropic:claude-sonnet-4-5")
        assert (info.max_input_tokens, info.is_own_encoding) == (200_000, False)

    def test_an_unknown_model_says_how_to_register_it(self):
        with pytest.raises(
            UnknownModelError, match=r"register_model\('in-house-7b', max_input_tok"
        ):
            model_info("in-house-7b")

    def test_a_model_without_a_name_asks_for_a_budget(self):
        with pytest.raises(UnknownModelError, match="FakeListChatModel has no model name"):
            model_info(FakeListChatModel(responses=["a"]))

    def test_a_nameless_price_list_entry_is_survived(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "genai_prices", None)
        listed_model.cache_clear()
        with pytest.raises(UnknownModelError):
            model_info("gpt-4o-mini")
        listed_model.cache_clear()


class TestRegisterModel:
    def test_goes_before_every_other_source(self):
        register_model("gpt-4o-mini", max_input_tokens=5_000)
        assert model_info("gpt-4o-mini").max_input_tokens == 5_000
        assert model_info(ChatOpenAI(model="gpt-4o-mini", api_key="x")).max_input_tokens == 5_000

    def test_makes_an_unknown_model_known(self):
        price = Price(input=Decimal(1), output=Decimal(2))
        register_model("In-House-7b", max_input_tokens=4_096, encoding="cl100k_base", price=price)
        info = model_info("in-house-7b")
        assert (info.encoding, info.is_own_encoding, info.price) == ("cl100k_base", True, price)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"name": "", "max_input_tokens": 1}, "name must not be empty"),
            (
                {"name": "m", "max_input_tokens": 0},
                "max_input_tokens must be a positive int, got 0",
            ),
            ({"name": "m", "max_input_tokens": 1, "max_output_tokens": -1}, "max_output_tokens"),
            ({"name": "m", "max_input_tokens": 1, "encoding": "x"}, "encoding must be o200k_base"),
        ],
    )
    def test_what_cannot_be_is_refused(self, settings, message):
        with pytest.raises(ValueError, match=message):
            register_model(**settings)

    @pytest.mark.parametrize("rate", [Decimal(-1), 0.5, Decimal("nan"), None])
    def test_a_price_that_cannot_be_is_refused(self, rate):
        with pytest.raises(ValueError, match="input must be a Decimal of at least 0"):
            Price(input=rate, output=Decimal(1))


def test_a_registered_vocabulary_is_the_one_that_counts():
    register_model("house-model", max_input_tokens=9_000, encoding="cl100k_base")
    counter = counter_for("house-model")
    assert (counter.name, counter.exact) == ("cl100k_base", True)
