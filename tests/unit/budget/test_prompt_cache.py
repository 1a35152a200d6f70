from __future__ import annotations

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from langchain_ctxmgr.budget.prompt_cache import PromptCache

LEAD, FIRST = SystemMessage("Be terse."), HumanMessage("Who?")


def sent(cache, *messages, thread="t", tools=()):
    cache.sent(thread, messages, tools=tools, tokens=100 * len(messages), count=lambda _: 100)


def answer(read=None, *, tokens=300, model="gpt-4o-mini-2024-07-18", **details):
    if read is not None:
        details["cache_read"] = read
    usage = {"input_tokens": tokens, "output_tokens": 1, "total_tokens": tokens + 1}
    return AIMessage(
        "Ann.",
        usage_metadata={**usage, "input_token_details": details},
        response_metadata={"model_name": model} if model else {},
    )


class TestPredicted:
    def test_is_what_the_prompt_before_began_with(self):
        cache = PromptCache("gpt-4o-mini")
        sent(cache, LEAD, FIRST)
        sent(cache, LEAD, FIRST, AIMessage("Ann."))
        cache.answered("t", [answer(256)])
        (figures,) = cache.figures.values()
        assert figures["predicted_tokens"] == 200
        assert figures["cache_read_tokens"] == 256

    def test_ends_with_the_first_message_that_changed(self):
        cache = PromptCache("gpt-4o-mini")
        sent(cache, LEAD, FIRST, AIMessage("Ann."))
        sent(cache, LEAD, HumanMessage("Where?"), AIMessage("Ann."))
        cache.answered("t", [answer()])
        assert cache.figures["gpt-4o-mini-2024-07-18"]["predicted_tokens"] == 100

    def test_is_nothing_with_other_tools_or_in_another_thread(self):
        cache = PromptCache("gpt-4o-mini")
        sent(cache, LEAD, FIRST)
        sent(cache, LEAD, FIRST, tools=[{"name": "look_up"}])
        cache.answered("t", [answer()])
        sent(cache, LEAD, FIRST, thread="other")
        cache.answered("other", [answer()])
        assert cache.figures["gpt-4o-mini-2024-07-18"]["predicted_tokens"] == 0


class TestReported:
    def test_is_counted_once_a_prompt_and_by_model(self):
        cache = PromptCache("gpt-4o-mini")
        for model in ("a", "b"):
            sent(cache, LEAD, FIRST)
            cache.answered("t", [HumanMessage("no usage"), answer(150, model=model)])
            cache.answered("t", [answer(150, model=model)])
        assert set(cache.figures) == {"a", "b"}
        assert cache.figures["a"] == {
            "answers": 1,
            "input_tokens": 300,
            "predicted_tokens": 0,
            "cache_read_tokens": 150,
            "cache_write_tokens": 0,
            "hit_ratio": 0.5,
        }

    def test_is_unknown_where_no_answer_tells(self):
        cache = PromptCache("claude-sonnet-4-5")
        sent(cache, LEAD)
        cache.answered("t", [answer(model=None, cache_creation=40)])
        figures = cache.figures["claude-sonnet-4-5"]
        assert (figures["cache_read_tokens"], figures["hit_ratio"]) == (None, None)
        assert figures["cache_write_tokens"] == 40

    def test_is_not_taken_from_an_answer_to_a_prompt_made_elsewhere(self):
        cache = PromptCache(None)
        cache.answered("t", [answer(10)])
        sent(cache, LEAD)
        cache.answered("t", [AIMessage("streamed without usage")])
        assert cache.figures == {}
