"""Questions to one's own logs, with the messages that hold the answers.

A file of JSON Lines, one question each; further keys are for whoever keeps the file:

    {"question": "When do we move?", "evidence": ["m12", "m57"], "category": "dates"}

`evidence` lists message ids. `thread_id` names the conversation where a file asks several.
`adversarial: true` marks a question with a wrong premise, which is reported apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from langchain_ctxmgr.importers.documents import is_object, parse
from langchain_ctxmgr.intake import shown, text_of


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceQuestion:
    """A question and the ids of the messages that hold its answer.

    Raises:
        ValueError: If a field is not what it must be.
    """

    question: str
    evidence: tuple[str, ...]
    thread_id: str | None = None
    """The conversation it is about; None: that of the scope it is asked in."""
    category: str | None = None
    is_adversarial: bool = False
    """Whether its premise is wrong; such questions are reported apart."""

    def __post_init__(self) -> None:
        text_of("question", self.question)
        evidence: object = self.evidence
        if not isinstance(evidence, tuple) or not evidence:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"evidence must be a tuple of message ids, got {shown(evidence)}")
        for name in cast("tuple[object, ...]", evidence):
            text_of("evidence", name)
        for name in ("thread_id", "category"):
            value: object = getattr(self, name)
            if value is not None:
                text_of(name, value)
        if not isinstance(self.is_adversarial, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"is_adversarial must be a bool, got {shown(self.is_adversarial)}")


def read_questions(path: str | Path) -> list[EvidenceQuestion]:
    """The questions in a file, in order.

    Raises:
        ValueError: If a line is no question; the message names file and line.
        OSError: If the file cannot be opened.
    """
    source = Path(path)
    found = [_question(item.value, item.where) for item in parse(source)]
    if not found:
        raise ValueError(f"{source}: the file holds no questions")
    return found


def _question(value: Any, where: str) -> EvidenceQuestion:
    if not is_object(value):
        raise ValueError(f"{where}: a question must be an object, got {shown(value)}")
    evidence = value.get("evidence")
    if not isinstance(evidence, list):
        raise ValueError(f"{where}: evidence must be a list of message ids, got {shown(evidence)}")
    try:
        return EvidenceQuestion(
            question=value.get("question", ""),
            evidence=tuple(cast("list[str]", evidence)),
            thread_id=value.get("thread_id"),
            category=value.get("category"),
            is_adversarial=value.get("adversarial", False),
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
