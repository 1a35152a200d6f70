from __future__ import annotations

import pytest

from langchain_ctxmgr.budget.tokens import counter_for
from langchain_ctxmgr.evaluation import Needle, default_needles, generated_haystack


class TestTheGeneratedConversation:
    def test_it_has_the_tokens_asked_for_and_hardly_repeats(self):
        messages = generated_haystack(20_000)
        size = counter_for(None).text
        assert 20_000 <= sum(size(message.text) for message in messages) < 20_600
        texts = [message.text for message in messages]
        assert len(set(texts)) > 0.97 * len(texts)
        assert not any("{" in text and "}" in text for text in texts)

    def test_a_shorter_one_is_the_beginning_of_a_longer_one(self):
        short, long = generated_haystack(1_000), generated_haystack(3_000)
        assert long[: len(short)] == short

    def test_user_and_assistant_take_turns(self):
        kinds = [message.type for message in generated_haystack(2_000)]
        assert set(kinds[::2]) == {"human"}
        assert set(kinds[1::2]) == {"ai"}

    @pytest.mark.parametrize("tokens", [0, -1, True, "10", None])
    def test_a_wrong_size_is_named(self, tokens: object):
        with pytest.raises(ValueError, match="tokens must be an int of at least 1"):
            generated_haystack(tokens)  # pyright: ignore[reportArgumentType]


class TestTheDefaultNeedles:
    def test_there_is_one_for_each_default_depth(self):
        needles = default_needles()
        assert len({needle.text for needle in needles}) == len(needles) >= 15

    def test_the_haystack_says_none_of_them(self):
        hay = " ".join(message.text for message in generated_haystack(128_000)).casefold()
        for needle in default_needles():
            assert needle.answer.casefold() in needle.text.casefold()
            if needle.answer not in {"268", "eleven"}:
                assert needle.answer.casefold() not in hay

    @pytest.mark.parametrize("field", ["text", "question", "answer"])
    def test_one_without_text_is_refused(self, field: str):
        fields = {"text": "a", "question": "b", "answer": "c", field: " "}
        with pytest.raises(ValueError, match=f"{field} must be text"):
            Needle(**fields)
