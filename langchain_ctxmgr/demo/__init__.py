"""A long conversation to try things on, and questions whose answers lie far back in it.

Two months of a bike shop's owner and her assistant: bookings, bugs, budgets, a party that
moves, a knee that heals. Written for this package; people, firms and figures are made up.
Each question names the messages that hold its answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import as_file, files
from itertools import chain
from typing import TYPE_CHECKING

from langchain_core.messages import BaseMessage, HumanMessage

from langchain_ctxmgr.evaluation.measure import folded, view_text
from langchain_ctxmgr.importers import Conversation, read_conversation
from langchain_ctxmgr.records import PreparedContext, Scope

if TYPE_CHECKING:
    from langchain_ctxmgr.manager import ContextManager

SCOPE = Scope(tenant_id="demo", thread_id="bike-shop")
"""Where the demo records its conversation."""

BUDGETS = (500, 1_000, 2_000)
"""Tokens that the demo asks each question at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoQuestion:
    """A question to the demo conversation."""

    question: str
    answer: str
    evidence: tuple[tuple[str, ...], ...]
    """Ids of the messages that hold the answer: one is needed of each group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoAnswer:
    """What was prepared for a question at one budget."""

    question: DemoQuestion
    context: PreparedContext
    found: tuple[str, ...]
    """Evidence whose text stands in the view, word for word."""
    saved: Decimal | None
    """USD not spent on the rest of the history; None when the price is unknown."""

    @property
    def is_complete(self) -> bool:
        """Whether the view holds everything the answer needs."""
        return self.pieces == len(self.question.evidence)

    @property
    def pieces(self) -> int:
        """How many of the groups of evidence have a message in the view."""
        return sum(not set(self.found).isdisjoint(group) for group in self.question.evidence)


def demo_conversation() -> Conversation:
    """The conversation, every message with its id and time."""
    with as_file(files(__name__) / "conversation.jsonl") as path:
        return read_conversation(path)


def demo_questions() -> list[DemoQuestion]:
    """The questions, in the order in which they are asked."""
    text = (files(__name__) / "questions.json").read_text(encoding="utf-8")
    return [
        DemoQuestion(
            question=entry["question"],
            answer=entry["answer"],
            evidence=tuple(tuple(group) for group in entry["evidence"]),
        )
        for entry in json.loads(text)
    ]


def answers(
    manager: ContextManager, *, model: str, max_tokens: Sequence[int] = BUDGETS
) -> Iterator[DemoAnswer]:
    """Each question at each of `max_tokens`, asked of a manager that recorded the conversation."""
    from langchain_ctxmgr.budget.costs import cost

    said = {message.id: message for message in demo_conversation().messages if message.id}
    for question in demo_questions():
        for limit in max_tokens:
            context = manager.prepare(
                scope=SCOPE, query=HumanMessage(question.question), max_tokens=limit
            )
            everything = cost(context.full_tokens, model)
            yield DemoAnswer(
                question=question,
                context=context,
                found=_standing(chain(*question.evidence), said, context.messages),
                saved=None
                if everything is None or context.cost is None
                else everything - context.cost,
            )


def _standing(
    ids: Iterable[str], said: Mapping[str, BaseMessage], view: Iterable[BaseMessage]
) -> tuple[str, ...]:
    """Those of `ids` whose text stands in the view, white space aside."""
    shown = view_text(view)
    return tuple(name for name in ids if folded(said[name].text) in shown)
