"""What recall costs: time at many turns, bytes a turn, and indexing beside its encoder.

    python benchmarks/recall_latency.py time --turns 10000 100000
    python benchmarks/recall_latency.py time --turns 1000000 --folder /tmp/million --minutes 9
    python benchmarks/recall_latency.py indexing

`time`: one thread of so many short turns of a made-up conversation, searched by keyword,
dense vector and late interaction; the 95th percentile over questions that ask for words of
some turn, without the embedding of the question, in a process that has answered as many others
before. What the encoder would say is drawn from
the words (384 dimensions), since it is not what is measured. A thread that takes longer to
record than `--minutes` is kept in `--folder`, and the same command goes on where it stopped.
Bytes: what the folder takes on the disk for a turn, without the turn's text and its vector
of 4 bytes a dimension.

`indexing`: turns recorded a second, over those that the encoder alone takes
(`embed_documents` of the same texts, one processor thread), chunk by chunk in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import report
from conversations import local_model, vocabulary
from langchain_core.embeddings import Embeddings
from langchain_core.messages import BaseMessage, HumanMessage

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.evaluation.haystack import endless_conversation
from langchain_ctxmgr.memory.embeddings import Embedder, embeddings_from
from langchain_ctxmgr.memory.local import Encoded, Tokens, Vectors

SIZE = 384
FLOAT_BYTES = 4
SCOPE = Scope(tenant_id="latency", thread_id="one")
QUESTIONS = 200
WARM_UP = 200
"""Questions asked before: a folder that was just opened is read in page by page."""
BATCH = 512
CHUNK = 256
ROUNDS = 5
_WORD = re.compile(r"\w+")
_START = datetime(2020, 1, 1, tzinfo=UTC)

Figures = dict[str, Any]


class DrawnVectors(Embeddings):
    """Vectors of turns, questions and tokens drawn from their words; their time apart."""

    model = "drawn"

    def __init__(self) -> None:
        self.seconds = 0.0
        self._known: dict[str, Vectors] = {}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector a text."""
        return [self._encoded(text).vector for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        return self.embed_question(text).vector

    def embed_turns(self, turns: Sequence[tuple[str, str]]) -> list[Encoded]:
        """Of each turn, whatever stands before it."""
        return [self._encoded(turn) for _, turn in turns]

    def embed_question(self, question: str) -> Encoded:
        """Of a question."""
        started = time.perf_counter()
        encoded = self._encoded(question)
        self.seconds += time.perf_counter() - started
        return encoded

    async def aembed_turns(self, turns: Sequence[tuple[str, str]]) -> list[Encoded]:
        """`embed_turns` in a worker thread."""
        return await asyncio.to_thread(self.embed_turns, turns)

    async def aembed_question(self, question: str) -> Encoded:
        """`embed_question` in a worker thread."""
        return await asyncio.to_thread(self.embed_question, question)

    def _encoded(self, text: str) -> Encoded:
        found = list(_WORD.finditer(text)) or list(re.finditer(r"(?s).+", text))
        vectors = np.stack([self._word(word.group().lower()) for word in found])
        mean = vectors.mean(axis=0)
        mean /= np.linalg.norm(mean)
        return Encoded(mean.tolist(), Tokens([word.span() for word in found], vectors))

    def _word(self, word: str) -> Vectors:
        if word not in self._known:
            seed = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")
            drawn = np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)
            self._known[word] = (drawn / np.linalg.norm(drawn)).astype(np.float32)
        return self._known[word]


def short_turns() -> Iterator[BaseMessage]:
    """Turns of up to two sentences, without end."""
    for message in endless_conversation():
        text = " ".join(re.split(r"(?<=[.?!])\s+", message.text)[:2])
        yield message.model_copy(update={"content": text})


def grow(manager: ContextManager, turns: int, until: float) -> int:
    """Record up to `turns`, or until the monotonic clock says `until`; how many there are."""
    done: int = manager.stats(scope=SCOPE)["log"]["records"]
    said = islice(short_turns(), done, turns)
    while batch := list(islice(said, BATCH)):
        at = [_START + timedelta(minutes=3 * (done + i)) for i in range(len(batch))]
        manager.record(batch, scope=SCOPE, at=at)
        done += len(batch)
        if time.monotonic() > until:
            break
    return done


def questions(turns: int) -> list[str]:
    """Questions with words of turns anywhere in the thread."""
    rng = random.Random(7)  # noqa: S311 - the same questions on every run
    wanted = set(rng.sample(range(turns), QUESTIONS + WARM_UP))
    texts = (m.text for place, m in enumerate(islice(short_turns(), turns)) if place in wanted)
    asked: list[str] = []
    for text in texts:
        words = sorted({word for word in _WORD.findall(text) if len(word) > 3})
        chosen = rng.sample(words, min(5, len(words)))
        asked.append(f"What was said about {' '.join(chosen)}?")
    rng.shuffle(asked)
    return asked


def latency(turns: int, folder: Path, minutes: float) -> Figures | None:
    """How long recall takes over `turns` turns; None while they are not all recorded."""
    vectors = DrawnVectors()
    embedder = Embedder(vectors, vectors.model)
    with ContextManager.open(folder, model="gpt-4o-mini", embeddings=embedder) as manager:
        started = time.perf_counter()
        before: int = manager.stats(scope=SCOPE)["log"]["records"]
        done = grow(manager, turns, time.monotonic() + 60 * minutes)
        took = time.perf_counter() - started
        if done < turns:
            print(f"{done:,} of {turns:,} turns recorded in {folder}: run it again", flush=True)
            return None
        asked = questions(turns)
        ways: dict[str, dict[str, Any]] = {
            "k8": {"k": 8},
            "tokens2000": {"k": 500, "max_tokens": 2_000},
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for number, question in enumerate(asked):
            for way, limits in ways.items():
                embedding = vectors.seconds
                clock = time.perf_counter()
                manager.recall(question, scope=SCOPE, **limits)
                seconds = time.perf_counter() - clock - (vectors.seconds - embedding)
                if number >= WARM_UP:
                    times[way].append(seconds)
            vectors.seconds = 0.0
    texts = sum(len(message.text.encode()) for message in islice(short_turns(), turns))
    return {
        "turns": turns,
        **{f"recall_{way}_ms": report.spread_ms(taken) for way, taken in times.items()},
        "memory_mib": report.memory_mib(),
        "text_bytes": texts / turns,
        "vector_bytes": SIZE * FLOAT_BYTES,
        **{f"{name}_bytes": size / turns for name, size in disk(folder).items()},
        "recorded_per_second": (turns - before) / took if turns > before else None,
    }


def disk(folder: Path) -> dict[str, int]:
    """Bytes that log and vectors take on the disk."""
    sizes = {"log": 0, "vectors": 0}
    for path in folder.rglob("*"):
        if path.is_file():
            part = "vectors" if "vectors" in path.relative_to(folder).parts else "log"
            sizes[part] += path.stat().st_blocks * 512
    return sizes


def indexing(spec: str, turns: int) -> Figures:
    """Recording with an embedding model, over the model alone."""
    embedder = embeddings_from(spec)
    if embedder is None:
        sys.exit("name an embedding model with --embeddings")
    model = embedder.model
    model.embed_documents(["warm", "up"])
    kinds = {"short turns": short_turns(), "turns of any length": endless_conversation()}
    found: Figures = {}
    for kind, said in kinds.items():
        rates: dict[str, list[float]] = {"encoder": [], "record": []}
        start = 0
        with ContextManager.open(None, model="gpt-4o-mini", embeddings=embedder) as manager:
            manager.record(HumanMessage("warm up"), scope=Scope(tenant_id="w", thread_id="w"))
            for number in range(max(2, turns // CHUNK)):
                chunk = list(islice(said, CHUNK))
                texts = [f"User: {message.text}" for message in chunk]
                at = [_START + timedelta(minutes=3 * (start + i)) for i in range(CHUNK)]
                start += CHUNK

                def encode(texts: list[str] = texts) -> None:
                    model.embed_documents(texts)

                def record(chunk: list[BaseMessage] = chunk, at: list[datetime] = at) -> None:
                    manager.record(chunk, scope=SCOPE, at=at)

                steps = [("encoder", encode), ("record", record)]
                for name, step in steps if number % 2 else reversed(steps):
                    clock = time.process_time(), time.perf_counter()
                    step()
                    rates[name].append(CHUNK / (time.perf_counter() - clock[1]))
        ratios = [
            ours / theirs for ours, theirs in zip(rates["record"], rates["encoder"], strict=True)
        ]
        found[kind] = {
            "encoder_per_second": statistics.median(rates["encoder"]),
            "recorded_per_second": statistics.median(rates["record"]),
            "ratio": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
            "n": start,
        }
    return found


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
    parser.add_argument("what", choices=["time", "indexing"])
    parser.add_argument("--turns", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--folder", type=Path, help="kept and grown; for one number of turns")
    parser.add_argument("--minutes", type=float, default=60, help="of recording, then stop")
    parser.add_argument("--embeddings", help="for indexing; default: local MiniLM")
    arguments = parser.parse_args()
    if arguments.folder is not None and len(arguments.turns) > 1:
        parser.error("--folder holds one number of turns")
    path = report.RESULTS / "recall_latency.json"
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows: dict[int, dict[str, Any]] = {row["turns"]: row for row in figures.get("rows", [])}
    measured: dict[str, Any] = figures.get("indexing", {})
    if arguments.what == "indexing":
        measured = indexing(arguments.embeddings or local_model() or "", ROUNDS * CHUNK)
        print(json.dumps(measured, indent=1))
    else:
        for turns in arguments.turns:
            with kept_or_temporary(arguments.folder) as folder:
                row = latency(turns, folder, arguments.minutes)
            if row is not None:
                rows[turns] = {**row, "commit": report.commit()}
                print(json.dumps(row, indent=1), flush=True)
    report.write(
        "recall_latency",
        {"rows": [rows[turns] for turns in sorted(rows)], "indexing": measured},
    )


if __name__ == "__main__":
    vocabulary()
    main()
