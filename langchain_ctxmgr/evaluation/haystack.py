"""Long conversations to hide facts in, and facts to hide.

A user and an assistant talk about trains, outages, invoices, knees and hens: sentences from
patterns whose names, figures and dates are drawn anew, so that nothing repeats for long and
much resembles what is looked for. Written for this package; people and firms are made up.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, TypedDict, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_ctxmgr.budget.tokens import counter_for
from langchain_ctxmgr.intake import positive, text_of

_SEED: Final = 11
"""The same conversation on every run."""
_SLOT: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Needle:
    """A fact to hide in a conversation, and the question that asks for it.

    Raises:
        ValueError: If one of the three is no text.
    """

    text: str
    """A sentence of its own, put in the middle of a message."""
    question: str
    answer: str
    """Words that a right reply to the question holds, upper and lower case alike."""

    def __post_init__(self) -> None:
        for name in ("text", "question", "answer"):
            text_of(name, getattr(self, name))


class _Topic(TypedDict):
    ask: list[str]
    answer: list[str]


class _Phrases(TypedDict):
    slots: dict[str, list[str]]
    topics: list[_Topic]
    openings: list[str]
    closings: list[str]
    needles: list[dict[str, str]]


@cache
def _phrases() -> _Phrases:
    text = (files(__package__ or "") / "haystack.json").read_text(encoding="utf-8")
    return cast("_Phrases", json.loads(text))


def default_needles() -> list[Needle]:
    """Facts that the generated conversation says nothing of, each about something else."""
    return [Needle(**entry) for entry in _phrases()["needles"]]


def generated_haystack(tokens: int) -> list[BaseMessage]:
    """A conversation of at least `tokens` tokens (o200k_base), the same one every time.

    A shorter one is the beginning of a longer one.

    Raises:
        ValueError: If `tokens` is no int of at least 1.
    """
    positive("tokens", tokens)
    size = counter_for(None).text
    messages: list[BaseMessage] = []
    said = 0
    for message in endless_conversation():
        messages.append(message)
        said += size(message.text)
        if said >= tokens:
            break
    return messages


def endless_conversation() -> Iterator[BaseMessage]:
    """The messages that a generated haystack is the beginning of."""
    rng = random.Random(_SEED)  # noqa: S311 - made-up text, not a secret
    phrases = _phrases()
    slots: dict[str, Callable[[], str]] = {
        "n": lambda: str(rng.randint(2, 60)),
        "date": lambda: str(rng.randint(1, 28)),
        "money": lambda: str(rng.randint(5, 900)),
        "big": lambda: f"{rng.randint(2, 90)},{rng.randint(100, 999)}",
        "build": lambda: str(rng.randint(1_000, 9_999)),
        "clock": lambda: f"{rng.randint(6, 22)}:{rng.randrange(0, 60, 5):02d}",
        "temp": lambda: str(rng.randrange(150, 235, 5)),
        "temp2": lambda: f"{rng.randint(375, 395) / 10}",
        "ident": lambda: rng.choice(("orders", "login", "export", "search", "mail", "cart")),
    }

    def filled(pattern: str) -> str:
        def draw(slot: re.Match[str]) -> str:
            own = slots.get(slot[1])
            return own() if own is not None else rng.choice(phrases["slots"][slot[1]])

        return _SLOT.sub(draw, pattern)

    number = 0
    while True:
        topic = rng.choice(phrases["topics"])
        for _ in range(rng.randint(1, 3)):
            asked = rng.sample(topic["ask"], rng.randint(1, 2))
            text = rng.choice(phrases["openings"]) + " ".join(asked)
            yield HumanMessage(_sentence(filled(text)), id=f"hay-{number}")
            given = rng.sample(topic["answer"], rng.randint(2, 7))
            given.append(rng.choice(phrases["closings"]))
            between = rng.choice((" ", " ", "\n", "\n\n"))
            said = between.join(_sentence(filled(each)) for each in given if each)
            yield AIMessage(said, id=f"hay-{number + 1}")
            number += 2


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
