from __future__ import annotations

import pytest

from langchain_ctxmgr.memory.working import standing_requests


@pytest.mark.parametrize(
    "text",
    [
        "Always answer in metric units.",
        "Please never use tables.",
        "From now on, reply in French.",
        "Whenever I ask about the boat, give the tide too.",
        "Every time we plan a trip, list the trains first.",
        "I want you to always cite a source.",
        "You should never recommend plastic pots.",
        "Make sure you always round up.",
        "Don\u2019t suggest flights from now on.",
        "Going forward, keep it short.",
    ],
)
def test_what_holds_from_then_on_is_found(text):
    assert standing_requests(text) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "I always walk to work.",
        "My sister never eats fish.",
        "Why do you always say that?",
        "Please list the trains.",
        "We met every time it rained.",
        "It never rains here, and the boats always come back.",
        "Remember to buy milk.",
        "",
        "Always " + "and again " * 60,
    ],
)
def test_what_does_not_is_none(text):
    assert standing_requests(text) == []


def test_only_the_sentences_that_ask_are_taken():
    text = "The shed is done. Always answer in metric units. I like it."
    assert standing_requests(text) == ["Always answer in metric units."]
