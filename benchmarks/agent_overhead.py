"""How much longer does a turn of an agent take with the middleware?

An agent of `create_agent` whose state holds many messages is asked one thing after the other.
What is timed is the middleware alone: all its hooks in a turn, without the model's answer and
without LangGraph. Keyword recall, so no encoder is in the time. LangChain's
SummarizationMiddleware on the same messages, in turn with ours, with the model's own tokenizer
and with its approximate count; its trigger is out of reach, so it counts and does no more.

    python benchmarks/agent_overhead.py [--messages 10000] [--turns 60]
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast

sys.path.insert(0, str(Path(__file__).parent))

import report
from agent_cost_peers import MODEL
from conversations import vocabulary
from hot_path import MAX_TOKENS, WARM_UP_TURNS, sentence, thread
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage
from langchain_openai import ChatOpenAI

from langchain_ctxmgr import ContextManager
from langchain_ctxmgr.integrations.middleware import ContextMiddleware

OUT_OF_REACH = 10**9


class Spent(NamedTuple):
    """Seconds."""

    wall: float = 0.0
    processor: float = 0.0
    """Of this thread: without what else the machine does, and without waits for the disk."""


class Watch:
    """Seconds spent since it was last read."""

    def __init__(self) -> None:
        self._spent = Spent()

    @contextmanager
    def running(self) -> Generator[None]:
        """Count what is done inside."""
        started, worked = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            wall, processor = self._spent
            self._spent = Spent(
                wall + time.perf_counter() - started, processor + time.thread_time() - worked
            )

    def read(self) -> Spent:
        """The seconds, and start anew."""
        spent, self._spent = self._spent, Spent()
        return spent


class TimedContext(ContextMiddleware):
    """Ours, timed."""

    watch = Watch()

    def before_agent(self, state: Any, runtime: Any) -> Any:
        """Timed."""
        with self.watch.running():
            return super().before_agent(state, runtime)

    def after_model(self, state: Any, runtime: Any) -> Any:
        """Timed."""
        with self.watch.running():
            return super().after_model(state, runtime)

    def after_agent(self, state: Any, runtime: Any) -> Any:
        """Timed."""
        with self.watch.running():
            return super().after_agent(state, runtime)

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        """Timed, up to the model's answer."""
        shown: list[Any] = []
        with self.watch.running():
            super().wrap_model_call(request, lambda given: shown.append(given) or cast("Any", None))
        return handler(shown[0])


class TimedSummarization(SummarizationMiddleware[Any, Any]):
    """LangChain's, timed."""

    def __init__(self, watch: Watch, **settings: Any) -> None:
        super().__init__(cast("Any", canned_model()), trigger=("tokens", OUT_OF_REACH), **settings)
        self.watch = watch

    def before_model(self, state: Any, runtime: Any) -> Any:
        """Timed."""
        with self.watch.running():
            return super().before_model(state, runtime)


def canned_model() -> GenericFakeChatModel:
    """A model that answers at once, and never the same."""
    answers = (AIMessage(f"Noted, number {n}.") for n in range(OUT_OF_REACH))
    return GenericFakeChatModel(messages=cast("Any", answers))


def asker(middleware: Any, history: list[AnyMessage]) -> Callable[[str, str], None]:
    """What asks an agent that has `history` in its state."""
    saver = import_module("langgraph.checkpoint.memory").InMemorySaver()
    make = import_module("langchain.agents").create_agent
    agent = make(canned_model(), tools=[], middleware=[middleware], checkpointer=saver)
    config = {"configurable": {"thread_id": "one"}}
    agent.update_state(config, {"messages": history})

    def ask(text: str, message_id: str) -> None:
        message = {"role": "user", "content": text, "id": message_id}
        agent.invoke({"messages": [message]}, config, durability="exit")

    return ask


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=60)
    arguments = parser.parse_args()
    history = thread(arguments.messages)
    exact: Any = cast("Any", ChatOpenAI(model=MODEL, api_key=cast("Any", "none")))
    rng = random.Random(11)  # noqa: S311 - the same text on every run
    with ContextManager.open(None, model=MODEL) as manager:
        ours = TimedContext(manager, max_tokens=MAX_TOKENS, tenant_id="bench")
        counted = Watch()
        approximate = Watch()
        theirs = {
            "own tokenizer": TimedSummarization(
                counted, token_counter=exact.get_num_tokens_from_messages
            ),
            "approximate count": TimedSummarization(approximate),
        }
        watches = {
            "langchain-ctxmgr": ours.watch,
            "SummarizationMiddleware, own tokenizer": counted,
            "SummarizationMiddleware, approximate count": approximate,
        }
        askers = [asker(each, history) for each in (ours, *theirs.values())]
        took: dict[str, list[Spent]] = {name: [] for name in watches}
        for turn in range(arguments.turns + WARM_UP_TURNS):
            text = sentence(rng, 1_000_000 + turn)
            for ask, (name, watch) in zip(askers, watches.items(), strict=True):
                ask(text, f"q{turn}")
                spent = watch.read()
                if turn >= WARM_UP_TURNS:
                    took[name].append(spent)
    rows = {
        name: {
            "wall": report.spread_ms([each.wall for each in spent]),
            "processor": report.spread_ms([each.processor for each in spent]),
        }
        for name, spent in took.items()
    }
    for name, row in rows.items():
        for clock, figures in row.items():
            print(f"{name:<44} {clock:<9} {figures['median']:.1f} ms  p95 {figures['p95']:.1f} ms")
    report.write(
        "agent_overhead",
        {"messages": arguments.messages, "max_tokens": MAX_TOKENS, "rows": rows},
    )


if __name__ == "__main__":
    vocabulary()
    main()
