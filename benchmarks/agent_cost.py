"""What does a long conversation with an agent cost, and does it remember?

The same traffic through the agent loop of langchain and over HTTP, against a server on this
machine that refuses what OpenAI refuses and reports cached input as OpenAI does. Each turn is
one of: a question that calls tools (several at once), a long question, one whose tool has a
long result, or a question about a fact that the user told in one of the first turns. The model
is scripted: it calls the tools that a question marks, and tells a fact if it stands in the
request. Asked for a summary it keeps every such fact it is shown, as far as 512 tokens go, which
is more than a real one would.

Counted at the server: rejected requests, input and what of it was cached, output; calls for
summaries included. Prices are those of the price list that the package uses.

    python benchmarks/agent_cost.py [--turns 150] [--seeds 3] [--only trim_messages …]

`deepagents` is not among the extras: `pip install deepagents` measures it too.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import report
from agent_cost_peers import MODEL, SYSTEM_TOKENS, Agent, chat, peers
from conversations import TOKENS, vocabulary

from langchain_ctxmgr.budget.costs import cost

WINDOW_TOKENS = 8_192
BUDGET_TOKENS = 6_000
FACTS = 30
ASKED_FROM = 60
"""The first turn that asks for a fact; all were told in the turns before 30."""
SUMMARY_TOKENS = 512
NAMES = [
    "amber",
    "birch",
    "cedar",
    "dahlia",
    "elm",
    "fern",
    "ginger",
    "hazel",
    "iris",
    "juniper",
    "kale",
    "laurel",
    "maple",
    "nettle",
    "oak",
    "pine",
    "quince",
    "rowan",
    "sage",
    "thyme",
    "umber",
    "violet",
    "willow",
    "xenia",
    "yarrow",
    "zinnia",
    "aspen",
    "basil",
    "clover",
    "daisy",
]
_ASKED = (
    "What is the locker code of {}?",
    "Which code opens the locker of {}?",
    "Remind me of the code that {} has for the locker, please.",
    "I am standing in front of the locker of {} and need the code.",
    "Tell me how to open the locker of {} again.",
    "Someone asks for the locker code of {}, do you still have it?",
)
_NAMED = re.compile(r"\b(" + "|".join(NAMES) + r")\b")
_FACT = re.compile(r"the locker code of (\w+) is ([a-z0-9-]+)")

Figures = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What is said to the agent, and what its answer needs."""

    text: str
    evidence: str | None = None


def traffic(turns: int, seed: int) -> list[Turn]:
    """The conversation of a seed."""
    rng = random.Random(seed)  # noqa: S311 - the same traffic on every run
    names = rng.sample(NAMES, FACTS)
    codes = {name: f"{rng.randint(100, 999)}-{rng.randint(10, 99)}" for name in names}
    asked = iter(rng.sample(names, FACTS))
    made: list[Turn] = []
    for number in range(turns):
        text = f"Turn {number}: tell me about item {number} of box {rng.randint(1, 40)}."
        name = next(asked, None) if number >= ASKED_FROM and number % 3 == 0 else None
        if name is not None:
            made.append(Turn(text=rng.choice(_ASKED).format(name), evidence=codes[name]))
            continue
        if number < FACTS:
            text += f" By the way, the locker code of {names[number]} is {codes[names[number]]}."
        if number % 20 == 19:
            text += f" [use report(item {number})]"
        elif number % 3 == 0:
            text += " Please be thorough." * rng.randint(5, 25)
        else:
            repeats = rng.randint(1, 2)
            calls = f" [use look_up(item {number})] [use weather(town {number})]"
            text += calls * repeats
        made.append(Turn(text=text))
    return made


class Model:
    """Says what the server says, and remembers what it said for what."""

    def __init__(self) -> None:
        server: Any = import_module("tests.loopback_openai")
        self._reply, self._marked = server.Reply, server.marked_tools
        self.output_tokens = 0
        self.summaries = 0

    def __call__(self, exchange: Any) -> Any:
        """A summary where no tools are given; else a fact that is asked for, or the tools."""
        text: str = exchange.text
        if not exchange.body.get("tools"):
            self.summaries += 1
            return self._said(self._reply(_summary(text)))
        last: Mapping[str, Any] = exchange.messages[-1]
        question = str(last.get("content")).rpartition("\n\n")[2]
        asked = _NAMED.search(question) if last["role"] == "user" else None
        if asked and "[use" not in question and "Turn" not in question:
            told = dict(_FACT.findall(text)).get(asked[1])
            answer = f"It is {told}." if told else "I do not know."
            return self._said(self._reply(answer))
        return self._said(self._marked(exchange))

    def _said(self, reply: Any) -> Any:
        calls = cast("list[tuple[str, Mapping[str, Any]]]", reply.calls)
        parts: list[str] = [reply.text, *(name + json.dumps(given) for name, given in calls)]
        self.output_tokens += sum(map(TOKENS.text, parts))
        return reply


def _summary(text: str) -> str:
    """Every fact that is shown, the newest value of each, as far as it goes."""
    lines = ["The user asks about items of boxes; the assistant looks them up."]
    for name, code in dict(_FACT.findall(text)).items():
        line = f"The user said that the locker code of {name} is {code}."
        if TOKENS.text("\n".join([*lines, line])) > SUMMARY_TOKENS:
            break
        lines.append(line)
    return "\n".join(lines)


def measured(made: Callable[[Any, int], Agent], turns: list[Turn]) -> Figures:
    """One conversation through one agent."""
    serve: Any = import_module("tests.loopback_openai").LoopbackOpenAI
    model = Model()
    started = time.perf_counter()
    found = failed = 0
    errors: dict[str, int] = {}
    with ExitStack() as stack:
        server: Any = stack.enter_context(serve(model, window_tokens=WINDOW_TOKENS))
        agent = made(chat(server.url, WINDOW_TOKENS), BUDGET_TOKENS)
        stack.callback(agent.close)
        exchanges: list[Any] = server.account.exchanges
        for number, turn in enumerate(turns):
            before = len(exchanges)
            try:
                agent.ask(turn.text, f"q{number}")
            except Exception as error:  # noqa: BLE001 - a peer may fail in any way
                failed += 1
                errors[type(error).__name__] = errors.get(type(error).__name__, 0) + 1
            if turn.evidence is not None:
                shown = [e.text for e in exchanges[before:] if e.body.get("tools")]
                found += bool(shown) and turn.evidence in shown[-1]
        refused = len(server.account.refused)
    prompt, cached = (
        sum(getattr(exchange, name) for exchange in exchanges)
        for name in ("prompt_tokens", "cached_tokens")
    )
    usage: Any = {
        "input_tokens": prompt,
        "output_tokens": model.output_tokens,
        "total_tokens": prompt + model.output_tokens,
        "input_token_details": {"cache_read": cached},
    }
    return {
        "requests": len(exchanges),
        "refused": refused,
        "failed_turns": failed,
        "errors": errors,
        "summaries": model.summaries,
        "prompt_tokens": prompt,
        "cached_tokens": cached,
        "cached_share": cached / max(1, prompt),
        "output_tokens": model.output_tokens,
        "usd": float(cost(usage, MODEL) or Decimal(0)),
        "asked": sum(turn.evidence is not None for turn in turns),
        "found": found,
        "seconds": time.perf_counter() - started,
    }


def together(runs: list[Figures]) -> Figures:
    """The runs of all seeds: sums, and from to where they differ."""
    figures: Figures = {
        name: sum(run[name] for run in runs)
        for name in ("requests", "refused", "failed_turns", "summaries", "asked", "found")
    }
    for name in ("cached_share", "prompt_tokens", "usd"):
        values = [run[name] for run in runs]
        figures[name] = {"mean": statistics.mean(values), "min": min(values), "max": max(values)}
    return {**figures, "runs": runs}


def main() -> None:
    """Run every agent over every seed and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="ROW")
    arguments = parser.parse_args()
    agents = peers()
    chosen: list[str] = arguments.only or list(agents)
    if unknown := set(chosen) - agents.keys():
        sys.exit(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(agents)}")
    rows: dict[str, Figures] = {}
    for name in chosen:
        try:
            runs = [
                measured(agents[name], traffic(arguments.turns, seed))
                for seed in range(arguments.seeds)
            ]
        except ImportError as error:
            rows[name] = {"missing": str(error)}
            print(f"{name:<28} cannot be had here: {error}", flush=True)
            continue
        rows[name] = found = together(runs)
        print(
            f"{name:<28} refused {found['refused']:>4}  failed {found['failed_turns']:>4}  "
            f"cached {found['cached_share']['mean']:.3f}  "
            f"input {found['prompt_tokens']['mean']:,.0f}  USD {found['usd']['mean']:.4f}  "
            f"evidence {found['found']}/{found['asked']}  summaries {found['summaries']}",
            flush=True,
        )
    if not arguments.only:
        report.write(
            "agent_cost",
            {
                "model": MODEL,
                "turns": arguments.turns,
                "seeds": arguments.seeds,
                "window_tokens": WINDOW_TOKENS,
                "budget_tokens": BUDGET_TOKENS,
                "system_tokens": SYSTEM_TOKENS,
                "rows": rows,
            },
        )


if __name__ == "__main__":
    vocabulary()
    main()
