"""What do summaries of a long conversation take, and what do they keep?

A thousand turns, fifty facts told in the first fifty and asked for at the end, a window of
8,000 tokens. Every method has the same chat model for its summaries: it keeps each fact that it
is shown, as far as 600 tokens go, so what is lost is lost by the method. Counted are the calls,
the tokens they were given and their price; the previous summaries that a call was not shown; and
for how many of the facts the exact value stands in what the model would be sent.

Then a thread whose model changes is replayed (`summaries_tiers`). `deepagents` is not among the
extras: `pip install deepagents` measures it too.

    python benchmarks/summaries.py [--turns 1000]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import report
from langchain.agents.middleware import ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage
from summaries_model import (
    MODEL,
    SUMMARY_TOKENS,
    WINDOW,
    NoteTaker,
    count,
    exchange,
    figures,
    present,
    questions,
)
from summaries_tiers import tiers

from langchain_ctxmgr import ChatSummarizer, ContextBudget, ContextManager, Scope

KEPT = 20
"""Messages that LangChain's middleware keeps, its default."""


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


def deepagents(turns: int) -> dict[str, Any]:
    """Deepagents' middleware around each call of the model; what it evicts goes into a folder."""
    made: Any = import_module("deepagents.middleware.summarization").SummarizationMiddleware
    folder: Any = import_module("deepagents.backends").FilesystemBackend
    model = NoteTaker()
    held: list[BaseMessage] = []
    state: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        middleware = made(
            model=model,
            backend=folder(root_dir=name, virtual_mode=True),
            trigger=("tokens", WINDOW - 500),
            keep=("messages", KEPT),
            token_counter=count,
            trim_tokens_to_summarize=None,  # as `create_deep_agent` has it
        )

        def before(messages: list[BaseMessage]) -> tuple[list[BaseMessage], dict[str, Any]]:
            """What the model is sent, and the state after it."""
            sent: list[BaseMessage] = []

            def answer(request: ModelRequest[Any]) -> ModelResponse[Any]:
                sent[:] = request.messages
                return ModelResponse(result=[AIMessage("-")])

            asked: Any = {"model": model, "messages": messages, "state": state}
            update = getattr(
                middleware.wrap_model_call(ModelRequest(**asked), answer), "command", None
            )
            return sent, state if update is None else {**state, **update.update}

        for turn in range(turns):
            question, reply = exchange(turn)
            _, state = before([*held, question])
            held += [question, reply]
        taken = figures(model)
        found = sum(present(n, before([*held, asked])[0]) for n, asked in enumerate(questions()))
    return {**taken, "facts_in_view": found}


METHODS: dict[str, Callable[[int], dict[str, Any]]] = {
    "langchain-ctxmgr": ours,
    "LangChain SummarizationMiddleware": langchain,
    "langmem summarize_messages": langmem,
    "deepagents SummarizationMiddleware": deepagents,
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
    found = {"turns": turns, "window_tokens": WINDOW, "rows": rows, "tiers": tiers(2 * turns)}
    report.write("summaries", found)


if __name__ == "__main__":
    main()
