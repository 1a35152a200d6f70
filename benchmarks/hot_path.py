"""What does one turn cost as the thread grows?

A turn is: record two messages, prepare at 4,000 tokens. Keyword recall only, so no
encoder is in the time. Each thread length runs in a process of its own, for an honest
memory figure. Peers on the same messages with the same exact token counter:
`trim_messages` and the `before_model` step of LangChain's `SummarizationMiddleware`
(its model answers at once, so this is its own work).

    python benchmarks/hot_path.py [--sizes 100 1000 10000 100000] [--turns 60]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import report
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage

from langchain_ctxmgr import ContextManager, Scope

MAX_TOKENS = 4_000
START = datetime(2026, 1, 5, 9, tzinfo=UTC)
WORDS = [
    "harbour",
    "ledger",
    "violin",
    "meadow",
    "invoice",
    "glacier",
    "basil",
    "turbine",
    "lantern",
    "orchard",
    "memo",
    "pilot",
    "quartz",
    "ferry",
    "parcel",
    "saffron",
    "kettle",
    "beacon",
    "canyon",
    "thimble",
    "atlas",
    "ribbon",
    "cobalt",
    "walnut",
    "tram",
    "garden",
    "deadline",
    "budget",
    "venue",
    "flight",
    "dentist",
    "recipe",
    "laptop",
    "password",
    "holiday",
    "contract",
    "tax",
    "cousin",
    "bicycle",
    "paint",
    "school",
    "museum",
    "river",
    "storm",
    "battery",
    "passport",
    "ticket",
    "hotel",
    "concert",
    "piano",
]


def sentence(rng: random.Random, index: int) -> str:
    """Between 16 and 96 words, some much more common, with a name that only this turn has.

    About 75 tokens: already 100 messages pass the budget, so that every size does the same
    work (window, summary, recall) and no size just sends its full history.
    """
    words = [WORDS[min(int(rng.paretovariate(0.9)), len(WORDS) - 1)] for _ in range(8)]
    words += rng.choices(WORDS, k=rng.randint(8, 88))
    rng.shuffle(words)
    return f"{' '.join(words).capitalize()}, case K{index}."


def thread(size: int) -> list[AnyMessage]:
    """`size` messages, user and assistant in turn."""
    rng = random.Random(7)  # noqa: S311 - the same text on every run
    kinds = (HumanMessage, AIMessage)
    return [kinds[i % 2](sentence(rng, i), id=f"m{i}") for i in range(size)]


def measure(size: int, turns: int) -> dict[str, Any]:
    """Seconds a turn on a thread of `size` messages, and this process's memory."""
    scope = Scope(tenant_id="bench", thread_id="t")
    rng = random.Random(11)  # noqa: S311 - the same questions on every run
    with tempfile.TemporaryDirectory() as folder:
        manager = ContextManager.open(folder, model="gpt-4o-mini")
        history = thread(size)
        at = [START + timedelta(minutes=2 * i) for i in range(size)]
        for start in range(0, size, 1_000):
            manager.record(
                history[start : start + 1_000], scope=scope, at=at[start : start + 1_000]
            )
        del history, at
        before = report.memory_mib()
        record: list[float] = []
        prepare: list[float] = []
        for turn in range(turns + 5):
            question = HumanMessage(
                f"What about {rng.choice(WORDS)} and {rng.choice(WORDS)} in case "
                f"K{rng.randrange(size)}?",
                id=f"q{turn}",
            )
            answer = AIMessage(sentence(rng, size + turn), id=f"a{turn}")
            started = time.perf_counter()
            manager.prepare(scope=scope, query=question, max_tokens=MAX_TOKENS)
            prepared = time.perf_counter()
            manager.record([question, answer], scope=scope)
            recorded = time.perf_counter()
            prepare.append(prepared - started)
            record.append(recorded - prepared)
        after = report.memory_mib()
        manager.close()
    whole = [a + b for a, b in zip(record[5:], prepare[5:], strict=True)]
    return {
        "messages": size,
        "turn_ms": report.spread_ms(whole),
        "record_ms": report.spread_ms(record[5:]),
        "prepare_ms": report.spread_ms(prepare[5:]),
        "memory_mib": after,
        "memory_growth_mib": after - before,
    }


def measure_peers(size: int, turns: int) -> dict[str, Any]:
    """The same turn through LangChain's own means, on messages held in memory."""
    from langchain.agents.middleware import SummarizationMiddleware
    from langchain_core.language_models.fake_chat_models import FakeListChatModel

    from langchain_ctxmgr.budget.tokens import counter_for

    counter = counter_for("gpt-4o-mini")

    def count(messages: Iterable[Any]) -> int:
        return counter.messages(list(messages))

    history = thread(size)
    middleware = SummarizationMiddleware(
        model=FakeListChatModel(responses=["A short summary."]),
        trigger=("tokens", MAX_TOKENS),
        keep=("tokens", MAX_TOKENS // 2),
        token_counter=count,
    )
    # By name: its overloads are not typed in full.
    trim: Any = getattr(import_module("langchain_core.messages"), "trim_messages")  # noqa: B009
    state: Any = {"messages": history}
    runtime: Any = None
    peers: dict[str, Callable[[], Any]] = {
        "trim_messages": lambda: trim(
            history, max_tokens=MAX_TOKENS, token_counter=count, strategy="last"
        ),
        "SummarizationMiddleware.before_model": lambda: middleware.before_model(state, runtime),
    }
    figures: dict[str, Any] = {}
    for name, step in peers.items():
        step()
        took: list[float] = []
        deadline = time.perf_counter() + 20
        for _ in range(turns):
            started = time.perf_counter()
            step()
            took.append(time.perf_counter() - started)
            if time.perf_counter() > deadline:
                break
        figures[name] = report.spread_ms(took)
    return figures


def main() -> None:
    """Run each size in its own process and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000])
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--peers", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        work = measure_peers if arguments.peers else measure
        print(json.dumps(work(arguments.one, arguments.turns)))
        return
    rows: list[dict[str, Any]] = []
    for size in arguments.sizes:
        row = _in_a_process(size, arguments.turns)
        row["peers"] = _in_a_process(size, arguments.turns, "--peers")
        row["ratio_to_smallest"] = (
            row["turn_ms"]["median"] / (rows or [row])[0]["turn_ms"]["median"]
        )
        rows.append(row)
        peers = ", ".join(f"{name} {took['median']:.1f}" for name, took in row["peers"].items())
        print(
            f"{size:>7} messages: turn {row['turn_ms']['median']:.2f} ms "
            f"(p95 {row['turn_ms']['p95']:.2f}), x{row['ratio_to_smallest']:.2f} of the smallest; "
            f"memory {row['memory_mib']:.0f} MiB ({row['memory_growth_mib']:+.0f} over the turns); "
            f"peers ms: {peers}"
        )
    medians = [row["turn_ms"]["median"] for row in rows]
    print(f"largest over smallest thread: x{medians[-1] / statistics.median(medians[:1]):.2f}")
    report.write("hot_path", {"max_tokens": MAX_TOKENS, "turns": arguments.turns, "rows": rows})


def _in_a_process(size: int, turns: int, *flags: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", str(size), "--turns", str(turns), *flags]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
