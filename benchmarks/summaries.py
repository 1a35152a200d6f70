"""What do summaries of a long conversation take, and what do they keep?

A thousand turns, fifty facts told in the first fifty and asked for at the end, a window of
8,000 tokens. Every method has the same chat model for its summaries: it keeps each fact that it
is shown, as far as 600 tokens go, so what is lost is lost by the method. Counted are the calls,
the tokens they were given and their price; the previous summaries that a call was not shown; and
for how many of the facts the exact value stands in what the model would be sent.

    python benchmarks/summaries.py [--turns 1000]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import report
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, RemoveMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field

from langchain_ctxmgr import ChatSummarizer, ContextBudget, ContextManager, Scope
from langchain_ctxmgr.budget.costs import cost
from langchain_ctxmgr.budget.tokens import counter_for

MODEL = "gpt-4o-mini"
WINDOW = 8_000
FACTS = 50
SUMMARY_TOKENS = 600
KEPT = 20
"""Messages that LangChain's middleware keeps, its default."""
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


def ours(turns: int) -> dict[str, Any]:
    """Each turn recorded, summaries beside the turns; then each question prepared."""
    model = NoteTaker(as_statements=True)
    scope = Scope(tenant_id="bench", thread_id="t")
    with ContextManager.open(
        None,
        model=MODEL,
        budget=ContextBudget(max_input_tokens=WINDOW, reserve_tokens=500),
        summarizer=ChatSummarizer(model=model, max_tokens=SUMMARY_TOKENS),
    ) as manager:
        for turn in range(turns):
            manager.record(exchange(turn), scope=scope)
        manager.summarize(scope=scope)
        taken = figures(model)
        found = in_summary = 0
        for number, question in enumerate(questions()):
            context = manager.prepare(scope=scope, query=question)
            found += present(number, context.messages)
            notes = [m for m in context.messages if str(m.id).startswith("summary-")]
            in_summary += present(number, notes)
        return {**taken, "facts_in_view": found, "facts_in_summary": in_summary}


def langchain(turns: int) -> dict[str, Any]:
    """`SummarizationMiddleware`, asked before each turn of the model."""
    from langchain.agents.middleware import SummarizationMiddleware

    model = NoteTaker()
    middleware = SummarizationMiddleware(
        model=model,
        trigger=("tokens", WINDOW - 500),
        keep=("messages", KEPT),
        token_counter=count,
    )
    held: list[BaseMessage] = []
    runtime: Any = None

    def before(state: list[BaseMessage]) -> list[BaseMessage]:
        update = middleware.before_model(cast("Any", {"messages": state}), runtime)
        if not update:
            return state
        return [each for each in update["messages"] if not isinstance(each, RemoveMessage)]

    for turn in range(turns):
        question, answer = exchange(turn)
        held = [*before([*held, question]), answer]
    taken = figures(model)
    found = sum(present(n, before([*held, asked])) for n, asked in enumerate(questions()))
    return {**taken, "facts_in_view": found}


def langmem(turns: int) -> dict[str, Any]:
    """`summarize_messages`, as langmem's node calls it."""
    summarize_messages: Any = import_module("langmem.short_term").summarize_messages

    model = NoteTaker()
    held: list[BaseMessage] = []
    running: Any = None

    def before(messages: list[BaseMessage]) -> list[BaseMessage]:
        nonlocal running
        result = summarize_messages(
            cast("Any", messages),
            running_summary=running,
            model=model,
            max_tokens=WINDOW - 500,
            max_summary_tokens=SUMMARY_TOKENS,
            token_counter=count,
        )
        running = result.running_summary or running
        return list(result.messages)

    for turn in range(turns):
        question, answer = exchange(turn)
        before([*held, question])
        held += [question, answer]
    taken = figures(model)
    found = sum(present(n, before([*held, asked])) for n, asked in enumerate(questions()))
    return {**taken, "facts_in_view": found}


METHODS: dict[str, Callable[[int], dict[str, Any]]] = {
    "langchain-ctxmgr": ours,
    "LangChain SummarizationMiddleware": langchain,
    "langmem summarize_messages": langmem,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=1_000)
    turns: int = parser.parse_args().turns
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for name, method in METHODS.items():
        try:
            row = {"method": name, **method(turns)}
        except Exception as error:  # noqa: BLE001 - a peer that fails is a row that says so
            row = {"method": name, "failed": f"{type(error).__name__}: {error}"[:200]}
        print(row, flush=True)
        rows.append(row)
    path = report.write("summaries", {"turns": turns, "window_tokens": WINDOW, "rows": rows})
    print(f"written to {path}")


if __name__ == "__main__":
    main()
