from __future__ import annotations

import threading

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI

from langchain_ctxmgr.budget.tokens import (
    EstimateCounter,
    VocabularyCounter,
    counter_for,
    middle_cut,
    model_name,
)
from tests.unit.budget.samples import BY_SCRIPT, CHINESE, ENGLISH

O200K = VocabularyCounter("o200k_base")
COUNTERS = [
    O200K,
    VocabularyCounter("cl100k_base"),
    EstimateCounter(),
    EstimateCounter("o200k_base"),
]
ANY_TEXT = st.text(st.characters(exclude_categories=())) | st.text(
    "ab \n😀é中\ud800\u200d\u0301<|>."
)


class TestCounterFor:
    def test_an_openai_model_is_counted_exactly(self):
        counter = counter_for("gpt-4o-mini")
        assert (counter.name, counter.exact) == ("o200k_base", True)

    def test_an_older_openai_model_has_its_own_vocabulary(self):
        counter = counter_for(ChatOpenAI(model="gpt-4", api_key="x"))
        assert (counter.name, counter.exact) == ("cl100k_base", True)

    @pytest.mark.parametrize(
        "model", [None, "claude-sonnet-4-5", FakeListChatModel(responses=["a"])]
    )
    def test_the_nearest_vocabulary_does_not_pass_for_the_models_own(self, model):
        counter = counter_for(model)
        assert (counter.name, counter.exact) == ("o200k_base", False)

    def test_without_a_vocabulary_an_estimate_says_so(self, monkeypatch, tmp_path):
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
        counter = counter_for("gpt-4o-mini")
        assert (counter.name, counter.exact) == ("estimate", False)
        assert counter.messages([HumanMessage("hello")]) > 0

    def test_a_negative_cache_size_is_refused(self):
        with pytest.raises(ValueError, match="cache_size must not be negative, got -1"):
            counter_for("gpt-4o", cache_size=-1)

    def test_a_model_without_a_name_has_none(self):
        assert model_name(FakeListChatModel(responses=["a"])) is None


class TestText:
    @pytest.mark.parametrize("script", BY_SCRIPT)
    def test_counts_as_tiktoken_does(self, script):
        text = BY_SCRIPT[script] * 3
        assert O200K.text(text) == len(tiktoken.get_encoding("o200k_base").encode_ordinary(text))

    def test_special_token_text_is_plain_text(self):
        assert O200K.text("<|endoftext|>") > 1

    def test_lone_surrogates_are_counted(self):
        assert O200K.text("a\ud800b") == O200K.text("a\ufffdb")

    @pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
    @pytest.mark.parametrize("passage", [ENGLISH, CHINESE, *list(BY_SCRIPT.values())[1:3]])
    def test_long_text_counts_as_the_whole_would(self, passage, name):
        text = passage * (150_000 // len(passage))
        whole = len(tiktoken.get_encoding(name).encode_ordinary(text))
        assert whole <= VocabularyCounter(name).text(text) <= whole + 2

    @pytest.mark.parametrize("run", ["a", " ", "=", "中", "\n", "😀", " \n", "\u0301", "aB1"])
    def test_a_huge_run_is_counted(self, run):
        text = run * (200_000 // len(run))
        whole = len(tiktoken.get_encoding("o200k_base").encode_ordinary(text))
        assert whole <= O200K.text(text) <= whole * 1.01 + 10

    def test_a_run_beyond_what_tiktoken_takes_is_counted(self):
        assert O200K.text(" " * 1_000_000) >= 7_812

    @given(ANY_TEXT)
    @settings(max_examples=150)
    def test_no_text_breaks_a_counter(self, text):
        for counter in COUNTERS:
            assert counter.text(text) >= (1 if text else 0)


class TestMessages:
    def test_counts_as_the_cookbook_does(self):
        model = ChatOpenAI(model="gpt-4o-mini", api_key="x")
        messages = [
            SystemMessage("You are terse."),
            HumanMessage("Where is the depot?", name="maria"),
            AIMessage("In Leeds."),
        ]
        assert O200K.messages(messages) == model.get_num_tokens_from_messages(messages)

    def test_never_counts_tool_traffic_below_langchain(self):
        model = ChatOpenAI(model="gpt-4o-mini", api_key="x")
        messages = [
            AIMessage("", tool_calls=[{"name": "find", "args": {"q": "depot 倉庫"}, "id": "c1"}]),
            ToolMessage("Leeds", tool_call_id="c1"),
        ]
        assert O200K.messages(messages) >= model.get_num_tokens_from_messages(messages)

    def test_a_repeat_is_answered_from_the_cache(self):
        counter = counter_for("gpt-4o")
        for _ in range(4):
            counter.message(HumanMessage("the same words"))
        assert (counter.stats.hits, counter.stats.misses, counter.stats.size) == (3, 1, 1)
        assert counter.stats.hit_ratio == 0.75

    def test_a_changed_message_is_counted_anew(self):
        counter = counter_for("gpt-4o")
        message = HumanMessage([{"type": "text", "text": "short"}])
        before = counter.message(message)
        message.content[0]["text"] = "a good deal longer than it was"
        assert counter.message(message) > before

    def test_a_changed_call_is_counted_anew(self):
        counter = counter_for("gpt-4o")
        message = AIMessage("", tool_calls=[{"name": "f", "args": {"q": "x"}, "id": "1"}])
        before = counter.message(message)
        message.tool_calls[0]["args"]["q"] = "far more words than there were"
        assert counter.message(message) > before

    def test_the_cache_stays_within_its_size(self):
        counter = counter_for("gpt-4o", cache_size=10)
        for number in range(50):
            counter.message(HumanMessage(f"message {number}"))
        assert counter.stats.size == 10

    def test_no_cache_at_all_still_counts(self):
        counter = counter_for("gpt-4o", cache_size=0)
        assert counter.message(HumanMessage("hi")) == counter.message(HumanMessage("hi"))
        assert counter.stats.hit_ratio == 0.0

    def test_content_that_cannot_be_hashed_is_counted(self):
        message = HumanMessage([{"type": "odd", "value": object()}])
        assert O200K.message(message) > 4

    def test_threads_agree(self):
        counter = counter_for("gpt-4o", cache_size=8)
        messages = [HumanMessage(f"word {number}") for number in range(30)]
        expected = [O200K.message(message) for message in messages]
        found: list[list[int]] = []

        def work() -> None:
            found.append([counter.message(message) for message in messages * 5][:30])

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [expected] * 4


class TestTools:
    def test_no_tools_cost_nothing(self):
        assert O200K.tools([]) == 0

    def test_schema_is_never_below_its_json(self):
        def lookup(city: str, days: int = 3) -> str:
            """Weather for a city.

            Args:
                city: Where.
                days: How many days ahead.
            """
            return f"{city} {days}"

        assert O200K.tools([lookup]) > O200K.text('{"name": "lookup", "description": "Weather"}')
        assert O200K.tools([lookup]) == O200K.tools([lookup])

    def test_a_providers_own_tool_is_counted_by_its_json(self):
        assert O200K.tools([{"type": "web_search_preview"}]) > 12

    def test_what_is_no_tool_is_refused(self):
        with pytest.raises(ValueError, match="tools must hold what bind_tools takes, got 3"):
            O200K.tools([3])


class TestMiddleCut:
    @given(ANY_TEXT, st.integers(0, 60), st.sampled_from(COUNTERS))
    @settings(max_examples=300, deadline=None)
    def test_never_over(self, text, max_tokens, counter):
        cut = middle_cut(counter, text, max_tokens)
        assert counter.text(cut) <= max_tokens
        assert cut == middle_cut(counter, text, max_tokens)

    @pytest.mark.parametrize("counter", COUNTERS)
    @pytest.mark.parametrize("script", BY_SCRIPT)
    @pytest.mark.parametrize("max_tokens", [0, 1, 5, 12, 40, 200])
    def test_real_text_is_never_over_and_well_filled(self, counter, script, max_tokens):
        text = BY_SCRIPT[script] * 20
        cut = middle_cut(counter, text, max_tokens)
        assert counter.text(cut) <= max_tokens
        if max_tokens == 200:
            assert counter.text(cut) >= 170

    def test_keeps_both_ends_and_shows_the_cut(self):
        text = "First words here. " + "filler text goes on. " * 500 + "The last words."
        cut = middle_cut(O200K, text, 60)
        assert cut.startswith("First words here.")
        assert cut.endswith("The last words.")
        assert "tokens cut …]" in cut

    def test_what_fits_is_untouched(self):
        assert middle_cut(O200K, "short enough", 5) == "short enough"

    def test_a_megabyte_of_one_letter_is_cut(self):
        cut = middle_cut(O200K, "a" * 1_000_000, 100)
        assert 90 <= O200K.text(cut) <= 100

    def test_a_family_emoji_is_not_torn_apart(self):
        cut = middle_cut(O200K, "👨‍👩‍👧‍👦" * 200, 60)
        head = cut.split("\n")[0]
        assert not head.endswith("\u200d")

    def test_a_negative_room_is_refused(self):
        with pytest.raises(ValueError, match="max_tokens must not be negative, got -1"):
            middle_cut(O200K, "text", -1)
