"""What `summaries.py` has summed up, and the one chat model that sums it up for every method."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parent.parent))

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field

from langchain_ctxmgr.budget.costs import cost
from langchain_ctxmgr.budget.tokens import counter_for

MODEL = "gpt-4o-mini"
WINDOW = 8_000
FACTS = 50
SUMMARY_TOKENS = 600
FACT = re.compile(r"[Tt]he code of (gate \d+) is (\d+)")
NAMED = re.compile(r"^\[([sm]\d+)\] .*$", re.MULTILINE)
COUNTER = counter_for(MODEL)


def count(messages: Iterable[Any]) -> int:
    """Tokens of messages, by the model's own tokenizer."""
    return COUNTER.messages(list(messages))


class NoteTaker(BaseChatModel):
    """Keeps every fact that it is shown; notes what each call took."""

    as_statements: bool = False
    """Whether it is asked for statements with their sources, rather than for text."""
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dropped: int = 0
    """Calls that were not shown what the one before them answered."""
    last: list[str] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "note-taker"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - LangChain's
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> ChatResult:
        question = "\n".join(str(message.text) for message in messages)
        told = list(dict.fromkeys(f"the code of {a} is {b}" for a, b in FACT.findall(question)))
        if any(fact not in told for fact in self.last):
            self.dropped += 1
        kept: list[str] = []
        for fact in told:
            if COUNTER.text("; ".join([*kept, fact])) > SUMMARY_TOKENS:
                break
            kept.append(fact)
        self.last = kept
        text = self._statements(question, kept) if self.as_statements else "; ".join(kept) or "-"
        self.calls += 1
        self.input_tokens += count(messages)
        self.output_tokens += COUNTER.text(text)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])

    @staticmethod
    def _statements(question: str, kept: Sequence[str]) -> str:
        lines = {found.group(1): found.group() for found in NAMED.finditer(question)}
        rows: list[dict[str, Any]] = []
        for fact in kept:
            names = [name for name, line in lines.items() if fact in line.replace("The", "the")]
            rows.append({"kind": "fact", "text": f"T{fact[1:]}.", "sources": names[:1]})
        return json.dumps(rows)


def exchange(turn: int) -> list[BaseMessage]:
    """A turn's question and answer; one of the first tells a fact."""
    said = f"Round {turn}: the boats of quay {turn % 40} came in, and the crates were counted."
    if turn < FACTS:
        said += f" The code of gate {turn} is {7_000 + 37 * turn}."
    answer = f"Noted for round {turn}. I keep the list of crates and boats as it stands, by quay."
    return [HumanMessage(said, id=f"h{turn}"), AIMessage(answer, id=f"a{turn}")]


def questions() -> list[HumanMessage]:
    """One for each fact."""
    return [HumanMessage(f"What is the code of gate {n}?", id=f"q{n}") for n in range(FACTS)]


def present(number: int, messages: Sequence[BaseMessage]) -> bool:
    """Whether the fact's exact value stands in `messages`."""
    value = str(7_000 + 37 * number)
    return any(f"gate {number} is {value}" in str(message.text) for message in messages)


def figures(model: NoteTaker) -> dict[str, Any]:
    """What its summaries took so far."""
    used = {
        "input_tokens": model.input_tokens,
        "output_tokens": model.output_tokens,
        "total_tokens": model.input_tokens + model.output_tokens,
    }
    price = cost(cast("Any", used), MODEL)
    return {
        "calls": model.calls,
        "summarized_tokens": model.input_tokens,
        "cost_usd": None if price is None else float(price.quantize(Decimal("0.00001"))),
        "previous_dropped": model.dropped,
        "facts": FACTS,
    }
