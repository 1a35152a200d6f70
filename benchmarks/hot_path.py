"""What does one turn cost as the thread grows?

A turn is: record two messages, prepare at 4,000 tokens. Keyword recall only, so no
encoder is in the time. Each thread is built once; every round then opens a copy of it in
a process of its own, for an honest memory figure, all sizes in turn, so that what else the
machine does falls on all of them. Peers on the same messages with the same exact token counter:
`trim_messages` and the `before_model` step of LangChain's `SummarizationMiddleware`
(its model answers at once, so this is its own work).

    python benchmarks/hot_path.py [--sizes 100 1000 10000 100000] [--turns 60] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
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

MODEL = "gpt-4o-mini"
MAX_TOKENS = 4_000
WARM_UP_TURNS = 5
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


SCOPE = Scope(tenant_id="bench", thread_id="t")


def build(folder: Path, size: int) -> None:
    """A thread of `size` messages in `folder`."""
    history = thread(size)
    at = [START + timedelta(minutes=2 * i) for i in range(size)]
    with ContextManager.open(folder, model=MODEL) as manager:
        for start in range(0, size, 1_000):
            piece = slice(start, start + 1_000)
            manager.record(history[piece], scope=SCOPE, at=at[piece])


def measure(folder: Path, size: int, turns: int) -> dict[str, Any]:
    """Seconds a turn on the thread in `folder`, and this process's memory."""
    rng = random.Random(11)  # noqa: S311 - the same questions on every run
    record: list[float] = []
    prepare: list[float] = []
    with ContextManager.open(folder, model=MODEL) as manager:
        before = 0.0
        for turn in range(WARM_UP_TURNS + turns):
            if turn == WARM_UP_TURNS:
                before = report.memory_mib()
            question = HumanMessage(
                f"What about {rng.choice(WORDS)} and {rng.choice(WORDS)} in case "
                f"K{rng.randrange(size)}?",
                id=f"q{turn}",
            )
            answer = AIMessage(sentence(rng, size + turn), id=f"a{turn}")
            started = time.perf_counter()
            manager.prepare(scope=SCOPE, query=question, max_tokens=MAX_TOKENS)
            prepared = time.perf_counter()
            manager.record([question, answer], scope=SCOPE)
            recorded = time.perf_counter()
            prepare.append(prepared - started)
            record.append(recorded - prepared)
        after = report.memory_mib()
    measured = slice(WARM_UP_TURNS, None)
    whole = [a + b for a, b in zip(record[measured], prepare[measured], strict=True)]
    return {
        "turn_ms": report.spread_ms(whole),
        "record_ms": report.spread_ms(record[measured]),
        "prepare_ms": report.spread_ms(prepare[measured]),
        "memory_mib": after,
        "memory_growth_mib": after - before,
    }


def measure_peers(size: int, turns: int) -> dict[str, Any]:
    """The same turn through LangChain's own means, on messages held in memory."""
    from langchain.agents.middleware import SummarizationMiddleware
    from langchain_core.language_models.fake_chat_models import FakeListChatModel

    from langchain_ctxmgr.budget.tokens import counter_for

    counter = counter_for(MODEL)

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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step", choices=["build", "measure", "peers"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes, turns = arguments.sizes, arguments.turns
    if arguments.step == "build":
        build(arguments.folder, sizes[0])
    elif arguments.step == "measure":
        print(json.dumps(measure(arguments.folder, sizes[0], turns)))
    elif arguments.step == "peers":
        print(json.dumps(measure_peers(sizes[0], turns)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), sizes, turns, arguments.rounds)


def compare(folder: Path, sizes: list[int], turns: int, rounds: int) -> None:
    """Build a thread of each size, measure all of them in every round, report the medians."""
    for size in sizes:
        _in_a_process("build", size, turns, folder / str(size))
    measured: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            copy = folder / "copy"
            shutil.copytree(folder / str(size), copy)
            measured[size].append(_in_a_process("measure", size, turns, copy))
            shutil.rmtree(copy)
    rows: list[dict[str, Any]] = []
    for size, each in measured.items():
        row: dict[str, Any] = {"messages": size, **sorted(each, key=_median_ms)[rounds // 2]}
        row["round_ms"] = [_median_ms(one) for one in each]
        row["ratio_to_smallest"] = _median_ms(row) / _median_ms((rows or [row])[0])
        row["peers"] = _in_a_process("peers", size, turns)
        rows.append(row)
        peers = ", ".join(f"{name} {took['median']:.1f}" for name, took in row["peers"].items())
        print(
            f"{size:>7} messages: turn {_median_ms(row):.2f} ms "
            f"(p95 {row['turn_ms']['p95']:.2f}), x{row['ratio_to_smallest']:.2f} of the smallest; "
            f"memory {row['memory_mib']:.0f} MiB ({row['memory_growth_mib']:+.0f} over the turns); "
            f"peers ms: {peers}"
        )
    report.write(
        "hot_path", {"max_tokens": MAX_TOKENS, "turns": turns, "rounds": rounds, "rows": rows}
    )


def _median_ms(measured: dict[str, Any]) -> float:
    return measured["turn_ms"]["median"]


def _in_a_process(step: str, size: int, turns: int, folder: Path | None = None) -> dict[str, Any]:
    command = [sys.executable, __file__, "--step", step, "--sizes", str(size)]
    command += ["--turns", str(turns), *(["--folder", str(folder)] if folder else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}


if __name__ == "__main__":
    main()
