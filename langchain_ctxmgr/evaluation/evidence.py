"""Evidence recall of a manager over what it has recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from langchain_core.messages import BaseMessage, HumanMessage

from langchain_ctxmgr._plans import Plan, arun, call, run
from langchain_ctxmgr.budget.tokens import counter_for
from langchain_ctxmgr.errors import ContextOverflowError
from langchain_ctxmgr.evaluation.measure import (
    RecallFigures,
    Score,
    held,
    recall_figures,
    view_text,
)
from langchain_ctxmgr.evaluation.questions import EvidenceQuestion
from langchain_ctxmgr.intake import positive, shown
from langchain_ctxmgr.records import Scope

if TYPE_CHECKING:
    from langchain_ctxmgr.manager import ContextManager

BUDGETS: Final = (500, 1_000, 2_000, 4_000)
"""Tokens that each question is asked at."""

ViewCounter = Callable[[Sequence[BaseMessage]], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceAnswer:
    """How one question went at one budget."""

    question: EvidenceQuestion
    max_tokens: int
    tokens: int
    """Of the view; 0 where the question alone does not fit."""
    found: tuple[str, ...]
    """Its evidence that stands in the view, word for word; none of a view over its budget."""
    token_share: float
    """Mean share of the evidence's tokens that the view holds, sentence by sentence."""
    elapsed: timedelta
    """What the view took to prepare."""

    @property
    def share(self) -> float:
        """Of the evidence, what was found: 0 to 1."""
        return len(self.found) / len(self.question.evidence)

    @property
    def is_over_budget(self) -> bool:
        """Whether the view has more tokens than it may."""
        return self.tokens > self.max_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceReport:
    """How all questions went at all budgets."""

    answers: tuple[EvidenceAnswer, ...]

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budgets asked at, smallest first."""
        return tuple(sorted({answer.max_tokens for answer in self.answers}))

    @property
    def categories(self) -> tuple[str, ...]:
        """The questions' categories, in order of the alphabet; wrong premises are apart."""
        asked = (each.question for each in self.answers)
        return tuple(sorted({q.category for q in asked if q.category and not q.is_adversarial}))

    @property
    def over_budget(self) -> int:
        """How many views had more tokens than they may."""
        return sum(answer.is_over_budget for answer in self.answers)

    def figures(
        self, max_tokens: int, *, category: str | None = None, is_adversarial: bool = False
    ) -> RecallFigures | None:
        """Recall at one of the budgets; None where no question is such.

        Args:
            max_tokens: One of `budgets`.
            category: Only questions of this one.
            is_adversarial: Those with a wrong premise, rather than the others.
        """
        return recall_figures(
            [
                Score(answer.question.thread_id or "", answer.share, answer.token_share)
                for answer in self.answers
                if answer.max_tokens == max_tokens
                and answer.question.is_adversarial == is_adversarial
                and (category is None or answer.question.category == category)
            ]
        )


class Asked(NamedTuple):
    """A question, where it is asked, and the texts to look for."""

    question: EvidenceQuestion
    scope: Scope
    gold: list[str]


def evidence_recall(
    manager: ContextManager,
    questions: Iterable[EvidenceQuestion],
    *,
    scope: Scope,
    max_tokens: Sequence[int] = BUDGETS,
    token_counter: ViewCounter | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EvidenceReport:
    """Ask `questions` through `prepare` and look for their evidence in the views.

    Nothing is recorded. The log is asked for all evidence before the first question.

    Args:
        manager: Where the conversations are recorded.
        questions: Each about the thread it names, or that of `scope`.
        scope: Tenant, and thread where questions name none.
        max_tokens: The budgets, tokens of a view.
        token_counter: Counts a view's tokens, apart from the manager's own count, which
            stands without one. A view over its budget holds nothing.
        progress: Told `(done, total)` views as it goes.

    Raises:
        ValueError: If an argument is not what it must be, or evidence is no message with a
            text in its thread.
    """
    plan = _measured(
        manager,
        questions,
        scope=scope,
        max_tokens=max_tokens,
        token_counter=token_counter,
        progress=progress,
    )
    return run(plan)


async def aevidence_recall(
    manager: ContextManager,
    questions: Iterable[EvidenceQuestion],
    *,
    scope: Scope,
    max_tokens: Sequence[int] = BUDGETS,
    token_counter: ViewCounter | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EvidenceReport:
    """`evidence_recall` on an event loop."""
    plan = _measured(
        manager,
        questions,
        scope=scope,
        max_tokens=max_tokens,
        token_counter=token_counter,
        progress=progress,
    )
    return await arun(plan)


def _measured(
    manager: ContextManager,
    questions: Iterable[EvidenceQuestion],
    *,
    scope: Scope,
    max_tokens: Sequence[int],
    token_counter: ViewCounter | None,
    progress: Callable[[int, int], None] | None,
) -> Plan[EvidenceReport]:
    budgets = budgets_of(max_tokens)
    asked = yield from with_gold(manager, questions, scope)
    size = counter_for(None).text
    answers: list[EvidenceAnswer] = []
    for each in asked:
        for budget in budgets:
            query = HumanMessage(each.question.question)
            try:
                context = yield from call(
                    manager.prepare, scope=each.scope, query=query, max_tokens=budget
                )
            except ContextOverflowError:
                tokens, view, elapsed = 0, "", timedelta()
            else:
                count = token_counter
                tokens = context.tokens if count is None else count(context.messages)
                view = view_text(context.messages) if tokens <= budget else ""
                elapsed = context.elapsed
            kept = held(each.gold, view, size)
            pairs = zip(each.question.evidence, kept.found, strict=True)
            answers.append(
                EvidenceAnswer(
                    question=each.question,
                    max_tokens=budget,
                    tokens=tokens,
                    found=tuple(name for name, is_found in pairs if is_found),
                    token_share=kept.token_share,
                    elapsed=elapsed,
                )
            )
            if progress is not None:
                progress(len(answers), len(asked) * len(budgets))
    return EvidenceReport(answers=tuple(answers))


def with_gold(
    manager: ContextManager, questions: Iterable[EvidenceQuestion], scope: Scope
) -> Plan[list[Asked]]:
    """The questions, each with the texts to look for.

    Raises:
        ValueError: If an argument is not what it must be, or evidence is no message with a
            text in its thread.
    """
    if not isinstance(scope, Scope):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"scope must be a Scope, got {shown(scope)}")
    if not isinstance(questions, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"questions must be EvidenceQuestions, got {shown(questions)}")
    asked: list[Asked] = []
    texts: dict[tuple[str | None, str], str] = {}
    for question in list(questions):
        if not isinstance(question, EvidenceQuestion):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"questions must be EvidenceQuestions, got {shown(question)}")
        thread_id = question.thread_id or scope.thread_id
        where = replace(scope, thread_id=thread_id)
        for name in question.evidence:
            if (thread_id, name) not in texts:
                message = yield from call(manager.message, name, scope=where)
                texts[thread_id, name] = _text(message, name, thread_id)
        gold = [texts[thread_id, name] for name in question.evidence]
        asked.append(Asked(replace(question, thread_id=thread_id), where, gold))
    if not asked:
        raise ValueError("questions must hold at least one")
    return asked


def _text(message: BaseMessage | None, name: str, thread_id: str | None) -> str:
    if message is None:
        raise ValueError(f"evidence {name!r} is no message of thread {thread_id!r}")
    if not message.text.strip():
        raise ValueError(f"evidence {name!r} of thread {thread_id!r} has no text to look for")
    return message.text


def budgets_of(max_tokens: object) -> list[int]:
    """The budgets, each once, smallest first.

    Raises:
        ValueError: If `max_tokens` is no sequence of such.
    """
    if isinstance(max_tokens, str | bytes) or not isinstance(max_tokens, Sequence):
        raise ValueError(f"max_tokens must be a sequence of budgets, got {shown(max_tokens)}")
    budgets = cast("Sequence[object]", max_tokens)
    if not budgets:
        raise ValueError("max_tokens must hold at least one budget")
    return sorted({positive("max_tokens", budget) for budget in budgets})
