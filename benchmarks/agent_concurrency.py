"""How long does the middleware hold the event loop, with 50 turns of agents at once?

Two agents of `create_agent`, each with a manager on a folder of its own, are asked on many
threads at once. Every stretch of the middleware's work between two awaits is timed: as long as
that takes nothing else on the loop can run. The clock on the wall also counts what the machine
and other Python threads take meanwhile; the processor time of the loop's thread does not. Each
thread has a word of its own, and each prompt is
searched for those of others. Keyword recall; the model answers at once.

    python benchmarks/agent_concurrency.py [--turns 8] [--at-once 1 10 25 50]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast

sys.path.insert(0, str(Path(__file__).parent))

import report
from agent_cost_peers import MODEL
from agent_overhead import canned_model
from conversations import vocabulary
from hot_path import sentence

from langchain_ctxmgr import ContextManager
from langchain_ctxmgr.integrations.middleware import ContextMiddleware

MAX_TOKENS = 2_500
_WORD = re.compile(r"\bcanary(\d+)x\b")


class Step(NamedTuple):
    """Seconds of one stretch."""

    wall: float
    processor: float


class Stepped:
    """An awaitable whose steps are timed: what runs between two of its awaits."""

    def __init__(self, work: Awaitable[Any], steps: list[Step]) -> None:
        self._work = work
        self._steps = steps

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._work.__await__()
        error: BaseException | None = None
        while True:
            started, worked = time.perf_counter(), time.thread_time()
            try:
                waits_for = inner.send(None) if error is None else inner.throw(error)
            except StopIteration as over:
                return over.value
            finally:
                step = Step(time.perf_counter() - started, time.thread_time() - worked)
                self._steps.append(step)
            error = None
            try:
                yield waits_for
            except BaseException as raised:  # noqa: BLE001 - handed on to the work
                error = raised


class Watched(ContextMiddleware):
    """Ours, timed step by step; every prompt is looked at for words of other threads."""

    def __init__(self, manager: ContextManager) -> None:
        super().__init__(manager, max_tokens=MAX_TOKENS, tenant_id="bench")
        self.steps: list[Step] = []
        self.mixed = 0

    async def abefore_agent(self, state: Any, runtime: Any) -> Any:
        """Timed."""
        return await Stepped(super().abefore_agent(state, runtime), self.steps)

    async def aafter_model(self, state: Any, runtime: Any) -> Any:
        """Timed."""
        return await Stepped(super().aafter_model(state, runtime), self.steps)

    async def aafter_agent(self, state: Any, runtime: Any) -> Any:
        """Timed."""
        return await Stepped(super().aafter_agent(state, runtime), self.steps)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        """Timed, up to the model's answer."""
        shown: list[Any] = []

        async def looked_at(given: Any) -> Any:
            shown.append(given)

        await Stepped(super().awrap_model_call(request, looked_at), self.steps)
        text = "\n".join(message.text for message in shown[0].messages)
        self.mixed += len(set(_WORD.findall(text))) != 1
        return await handler(shown[0])


def asker(middleware: Watched) -> Callable[[str, str, int], Awaitable[None]]:
    """What asks an agent on a thread."""
    saver = import_module("langgraph.checkpoint.memory").InMemorySaver()
    make = import_module("langchain.agents").create_agent
    agent = make(canned_model(), tools=[], middleware=[middleware], checkpointer=saver)

    async def ask(text: str, message_id: str, thread: int) -> None:
        message = {"role": "user", "content": text, "id": message_id}
        config = {"configurable": {"thread_id": f"t{thread}"}}
        await agent.ainvoke({"messages": [message]}, config, durability="exit")

    return ask


async def measured(at_once: int, turns: int) -> dict[str, Any]:
    """`at_once` threads over two agents, `turns` turns on each."""
    rng = random.Random(5)  # noqa: S311 - the same text on every run
    with ExitStack() as stack:
        managers = [stack.enter_context(ContextManager.open(None, model=MODEL)) for _ in range(2)]
        agents = [Watched(manager) for manager in managers]
        askers = [asker(agent) for agent in agents]
        texts = [[sentence(rng, n) for n in range(turns)] for _ in range(at_once)]

        async def talk(thread: int) -> None:
            for turn, text in enumerate(texts[thread]):
                await askers[thread % 2](f"canary{thread}x {text}", f"q{thread}-{turn}", thread)

        started = time.perf_counter()
        await asyncio.gather(*map(talk, range(at_once)))
        seconds = time.perf_counter() - started
    steps = [step for agent in agents for step in agent.steps]
    return {
        "at_once": at_once,
        "turns": at_once * turns,
        "turns_per_second": at_once * turns / seconds,
        "mixed_prompts": sum(agent.mixed for agent in agents),
        "wall": _spread([step.wall for step in steps]),
        "processor": _spread([step.processor for step in steps]),
    }


def _spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        **report.spread_ms(ordered),
        "p99_9": ordered[int(0.999 * (len(ordered) - 1))] * 1e3,
        "over_5_ms": sum(each > 5e-3 for each in ordered),
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 10, 25, 50])
    arguments = parser.parse_args()
    asyncio.run(measured(2, 2))
    rows = [asyncio.run(measured(n, arguments.turns)) for n in cast("list[int]", arguments.at_once)]
    for row in rows:
        print(f"{row['at_once']} at once: {row['turns_per_second']:.0f} turns/s, ", end="")
        print(f"{row['mixed_prompts']} mixed prompts")
        for clock in ("wall", "processor"):
            step = row[clock]
            print(
                f"  {clock}: median {step['median']:.2f} ms, p95 {step['p95']:.2f}, "
                f"p99.9 {step['p99_9']:.1f}, longest {step['max']:.1f}, "
                f"{step['over_5_ms']} of {step['n']} over 5 ms"
            )
    report.write("agent_concurrency", {"max_tokens": MAX_TOKENS, "rows": rows})


if __name__ == "__main__":
    vocabulary()
    main()
