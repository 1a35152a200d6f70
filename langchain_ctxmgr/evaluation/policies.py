"""What to keep of a conversation: policies side by side, over one's own log.

Each policy makes a view of a thread for a question and a budget, as a program would that kept
nothing else. What the views cost, how much of the evidence they hold and how much of the
conversation's importance tells which to take. No language model is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from langchain_ctxmgr._plans import Plan, arun, call, run
from langchain_ctxmgr.budget.costs import cost
from langchain_ctxmgr.budget.tokens import TokenCounter, counter_for
from langchain_ctxmgr.errors import ContextOverflowError
from langchain_ctxmgr.evaluation.evidence import BUDGETS, Asked, budgets_of, with_gold
from langchain_ctxmgr.evaluation.measure import (
    RecallFigures,
    Score,
    folded,
    held,
    recall_figures,
    view_text,
)
from langchain_ctxmgr.evaluation.questions import EvidenceQuestion
from langchain_ctxmgr.intake import shown, text_of
from langchain_ctxmgr.memory.importance import importance
from langchain_ctxmgr.prompt.validity import Group, fold
from langchain_ctxmgr.prompt.window import LastTurns, MostImportant, Selector
from langchain_ctxmgr.records import Scope

if TYPE_CHECKING:
    from langchain_ctxmgr.manager import ContextManager


@dataclass(frozen=True, kw_only=True)
class Thread:
    """A recorded thread, as policies see it."""

    manager: ContextManager
    scope: Scope
    messages: Sequence[BaseMessage]
    counter: TokenCounter

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Messages that stand or fall together, oldest first."""
        return fold(
            self.messages,
            tokens=[self.counter.message(message) for message in self.messages],
            importance=[score for _, score in self.weights],
            has_turn=False,
        ).groups

    @cached_property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """What each message says, white space folded, and its importance, 0 to 1."""
        return tuple((folded(each.text), importance(each).score) for each in self.messages)

    def preserved(self, view: str) -> float:
        """Share of the messages' importance that stands in `view` word for word, 0 to 1."""
        total = sum(score for _, score in self.weights)
        kept = sum(score for text, score in self.weights if text and text in view)
        return kept / total if total else 1.0


class Policy(Protocol):
    """A way to keep a part of a conversation."""

    def view(self, thread: Thread, question: str, max_tokens: int) -> Plan[list[BaseMessage]]:
        """What it shows for a question, in at most `max_tokens`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """What a `prompt.window` selector takes: `LastTurns`, `MostImportant`, `Full` or another."""

    selector: Selector

    def view(self, thread: Thread, question: str, max_tokens: int) -> Plan[list[BaseMessage]]:
        """The groups it takes, word for word."""
        del question
        chosen = self.selector(thread.groups, max(max_tokens, 0))
        return [message for group in chosen.groups for message in group.messages]
        yield  # a plan that waits for nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Condensed:
    """A summary in the conversation's own sentences, without a model."""

    def view(self, thread: Thread, question: str, max_tokens: int) -> Plan[list[BaseMessage]]:
        """One message with the summary, or none where not a sentence fits."""
        del question
        if max_tokens < 1:
            return []
        made = yield from call(
            thread.manager.condense,
            scope=thread.scope,
            strategy="importance_extract",
            max_tokens=max_tokens,
        )
        message = SystemMessage(made.summary.text)
        fits = made.summary.text and thread.counter.message(message) <= max_tokens
        return [message] if fits else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Hybrid:
    """Several policies, each in its share of the budget and what those before it left over.

    Raises:
        ValueError: If there are none, a share is not in (0, 1], or they come to more than 1.
    """

    parts: tuple[tuple[Policy, float], ...]

    def __post_init__(self) -> None:
        shares = [share for _, share in self.parts]
        if not shares or not all(0 < share <= 1 for share in shares) or sum(shares) > 1:
            raise ValueError(f"parts must have shares in (0, 1], 1 together, got {shares}")

    def view(self, thread: Thread, question: str, max_tokens: int) -> Plan[list[BaseMessage]]:
        """What each shows, each message once and in the order said, a summary first."""
        chosen: list[BaseMessage] = []
        room = 0
        for policy, share in self.parts:
            room += int(max_tokens * share)
            found = yield from policy.view(thread, question, room)
            room -= sum(map(thread.counter.message, found))
            chosen += [message for message in found if message not in chosen]
        places = {id(message): place for place, message in enumerate(thread.messages)}
        return sorted(chosen, key=lambda message: places.get(id(message), -1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What `ContextManager.prepare` shows, by the manager's own settings."""

    def view(self, thread: Thread, question: str, max_tokens: int) -> Plan[list[BaseMessage]]:
        """What stands ahead of the question, which is counted apart for all policies alike."""
        query = HumanMessage(question)
        limit = max_tokens + thread.counter.text(question)
        try:
            context = yield from call(
                thread.manager.prepare, scope=thread.scope, query=query, max_tokens=limit
            )
        except ContextOverflowError:
            return []
        *before, asked = context.messages
        ahead = asked.text.removesuffix(question).rstrip()
        return [*before, HumanMessage(ahead)] if ahead else before


POLICIES: Final[dict[str, Policy]] = {
    "last 10 turns": Selected(selector=LastTurns(k=10)),
    "summary": Condensed(),
    "most important": Selected(selector=MostImportant()),
    "hybrid": Hybrid(
        parts=(
            (Selected(selector=LastTurns(k=10)), 0.5),
            (Selected(selector=MostImportant()), 0.25),
            (Condensed(), 0.25),
        )
    ),
    "prepare": Prepared(),
}
"""Those that are compared unless others are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFigures:
    """How one policy did at one budget."""

    policy: str
    max_tokens: int
    tokens: float
    """Mean of a view, question included."""
    cost: Decimal | None
    """Mean input price of a view in USD; None where the model's is not known."""
    recall: RecallFigures
    """Of the questions' evidence; without wrong premises."""
    importance_kept: float
    """Mean share of the conversation's importance that a view holds word for word, 0 to 1."""
    over_budget: int
    """Views with more tokens than they may; they hold nothing."""


def compare_policies(
    manager: ContextManager,
    questions: Iterable[EvidenceQuestion],
    *,
    scope: Scope,
    policies: dict[str, Policy] | None = None,
    max_tokens: Sequence[int] = BUDGETS,
    model: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[PolicyFigures]:
    """Ask `questions` of views that each policy makes of the recorded threads.

    Nothing is recorded. Questions with a wrong premise are left out.

    Args:
        manager: Where the conversations are recorded.
        questions: Each about the thread it names, or that of `scope`.
        scope: Tenant, and thread where questions name none.
        policies: By name; `POLICIES` by default.
        max_tokens: The budgets, tokens of a view.
        model: Whose tokenizer counts and whose price is told.
        progress: Told `(done, total)` views as it goes.

    Returns:
        By policy and budget, in their order.

    Raises:
        ValueError: If an argument is not what it must be, or evidence is no message with a
            text in its thread.
    """
    budgets, compared = budgets_of(max_tokens), _checked(policies)
    return run(_compared(manager, questions, scope, compared, budgets, model=model, told=progress))


async def acompare_policies(
    manager: ContextManager,
    questions: Iterable[EvidenceQuestion],
    *,
    scope: Scope,
    policies: dict[str, Policy] | None = None,
    max_tokens: Sequence[int] = BUDGETS,
    model: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[PolicyFigures]:
    """`compare_policies` on an event loop."""
    budgets, compared = budgets_of(max_tokens), _checked(policies)
    return await arun(
        _compared(manager, questions, scope, compared, budgets, model=model, told=progress)
    )


def _checked(policies: dict[str, Policy] | None) -> dict[str, Policy]:
    compared = POLICIES if policies is None else policies
    if not compared:
        raise ValueError("policies must name at least one")
    for name, policy in compared.items():
        text_of("policies' name", name)
        if not callable(getattr(policy, "view", None)):
            raise ValueError(f"policies must be Policies, got {shown(policy)}")
    return compared


def _compared(
    manager: ContextManager,
    questions: Iterable[EvidenceQuestion],
    scope: Scope,
    policies: dict[str, Policy],
    budgets: Sequence[int],
    *,
    model: str | None,
    told: Callable[[int, int], None] | None,
) -> Plan[list[PolicyFigures]]:
    counter = counter_for(model)
    asked = yield from with_gold(manager, questions, scope)
    asked = [each for each in asked if not each.question.is_adversarial]
    if not asked:
        raise ValueError("questions must hold at least one without a wrong premise")
    threads: dict[str | None, Thread] = {}
    for each in asked:
        if each.scope.thread_id not in threads:
            messages = yield from call(manager.history, scope=each.scope)
            threads[each.scope.thread_id] = Thread(
                manager=manager, scope=each.scope, messages=messages, counter=counter
            )
    figures: list[PolicyFigures] = []
    for name, policy in policies.items():
        for budget in budgets:
            views: list[_View] = []
            for each in asked:
                views.append(
                    (yield from _view(policy, threads[each.scope.thread_id], each, budget))
                )
                if told is not None:
                    done = len(figures) * len(asked) + len(views)
                    told(done, len(policies) * len(budgets) * len(asked))
            figures.append(_figures(name, budget, views, model))
    return figures


class _View(NamedTuple):
    tokens: int
    importance: float
    score: Score


def _view(policy: Policy, thread: Thread, asked: Asked, budget: int) -> Plan[_View]:
    """What a policy's view for one question holds; nothing where it is over its budget."""
    question, counter = asked.question.question, thread.counter
    apart = counter.message(HumanMessage(question))
    found = yield from policy.view(thread, question, budget - apart)
    size = apart + sum(map(counter.message, found))
    view = view_text(found) if size <= budget else ""
    kept = held(asked.gold, view, counter.text)
    score = Score(asked.scope.thread_id or "", kept.share, kept.token_share)
    return _View(size, thread.preserved(view), score)


def _figures(name: str, budget: int, views: Sequence[_View], model: str | None) -> PolicyFigures:
    recall = recall_figures([view.score for view in views])
    prices = [price for view in views if (price := cost(view.tokens, model)) is not None]
    return PolicyFigures(
        policy=name,
        max_tokens=budget,
        tokens=fmean(view.tokens for view in views),
        cost=sum(prices, Decimal()) / len(prices) if prices else None,
        recall=cast("RecallFigures", recall),
        importance_kept=fmean(view.importance for view in views),
        over_budget=sum(view.tokens > budget for view in views),
    )
