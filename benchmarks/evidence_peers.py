"""What else puts turns into a context: LangChain's own means, plain rankings, other memories.

Each gets the turns as `speaker: text`, which does all of them good, and the embeddings
that the product gets. A ranking is packed as far as the budget goes, what does not fit is
skipped, and shown in the order in which it was said.
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from conversations import TOKENS, Conversation, Remembered
from langchain_core import messages as lc
from langchain_core.documents import Document
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import BaseMessage, RemoveMessage

from langchain_ctxmgr.analysis import terms
from langchain_ctxmgr.budget.tokens import counter_for
from langchain_ctxmgr.compression.extractive import ExtractiveSummarizer
from langchain_ctxmgr.memory.importance import importance
from langchain_ctxmgr.memory.points import keyword_vectors
from langchain_ctxmgr.storage.vectors import BM25

_RRF_K = 60
_RANKED = 256
"""Turns that a store is asked for: more than 4,000 tokens hold."""
_SUMMARIZED = 64
"""Messages that the extractive summary is made for."""
_SAID = datetime(2026, 1, 1, tzinfo=UTC)
"""LangChain's messages have no time: all are of one day."""


class Peer(ABC):
    """A method of choosing what is shown."""

    @abstractmethod
    def view(self, conversation: Conversation, question: str, room: int) -> str:
        """What it shows for a question, in `room` tokens."""


class Ranking(Peer):
    """One that ranks turns."""

    def __init__(self) -> None:
        self._last: tuple[str, str, list[int]] = ("", "", [])

    @abstractmethod
    def rank(self, conversation: Conversation, question: str) -> Iterable[int]:
        """The places of turns, best first."""

    def view(self, conversation: Conversation, question: str, room: int) -> str:
        """The best turns that fit."""
        if self._last[:2] != (conversation.id, question):
            ranked = list(dict.fromkeys(self.rank(conversation, question)))
            self._last = (conversation.id, question, ranked)
        lines = conversation.lines
        chosen: list[int] = []
        for turn in self._last[2]:
            size = TOKENS.text(lines[turn])
            if size <= room:
                room -= size
                chosen.append(turn)
        return "".join(lines[turn] for turn in sorted(chosen))


class TrimMessages(Peer):
    """LangChain's `trim_messages`: the newest messages that fit."""

    def view(self, conversation: Conversation, question: str, room: int) -> str:
        """The newest messages."""
        del question
        trim: Any = lc.trim_messages  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        kept: list[BaseMessage] = trim(
            conversation.messages, max_tokens=room, token_counter=TOKENS.messages, strategy="last"
        )
        return "\n".join(message.text for message in kept)


class Summarization(Peer):
    """LangChain's SummarizationMiddleware, with sentences of our extractive kind as its summary.

    It is run once for each conversation and budget: what it does reads no question. The
    newest messages have half of the room, the summary the rest, and it is given all that it
    summarizes rather than the 4,000 tokens that it would by default.
    """

    _QUESTION_TOKENS = 40

    def __init__(self) -> None:
        from langchain.agents.middleware import SummarizationMiddleware

        self._middleware: Any = SummarizationMiddleware
        self._views: dict[tuple[str, int], str] = {}

    def view(self, conversation: Conversation, question: str, room: int) -> str:
        """Summary and newest messages."""
        del question
        budget = room - room % self._QUESTION_TOKENS
        key = (conversation.id, budget)
        if key not in self._views:
            self._views[key] = self._summarized(conversation, budget)
        return self._views[key]

    def _summarized(self, conversation: Conversation, room: int) -> str:
        kept = room // 2
        middleware = self._middleware(
            GenericFakeChatModel(messages=iter([])),
            trigger=("tokens", room),
            keep=("tokens", kept),
            token_counter=TOKENS.messages,
            trim_tokens_to_summarize=None,
            summarizer=partial(_sentences, max_tokens=room - kept - self._QUESTION_TOKENS),
        )
        state = {"messages": list(conversation.messages)}
        changed = middleware.before_model(state, None) or state
        shown = [each for each in changed["messages"] if not isinstance(each, RemoveMessage)]
        while TOKENS.messages(shown) > room:
            shown.pop(1)
        return "\n".join(message.text for message in shown)


def _sentences(messages: Sequence[BaseMessage], max_tokens: int) -> str:
    """Sentences of those messages that matter most."""
    records = [
        SimpleNamespace(
            message=message,
            message_id=message.id,
            importance=importance(message).score,
            slot=slot,
            at=_SAID,
            speaker=message.name,
            role=message.type,
        )
        for slot, message in enumerate(messages)
    ]
    best = sorted(records, key=lambda record: -record.importance)[:_SUMMARIZED]
    best.sort(key=lambda record: record.slot)
    summarizer = ExtractiveSummarizer()
    return summarizer.summarize(cast("Any", best), max_tokens, counter_for("gpt-4o-mini")).text


class Keywords(Ranking):
    """BM25 over `speaker: text`, stemmed (k1 1.2, b .75)."""

    def __init__(self) -> None:
        super().__init__()
        self._indexed: dict[str, tuple[list[Counter[int]], Counter[int], float]] = {}

    def rank(self, conversation: Conversation, question: str) -> list[int]:
        """By BM25."""
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
        return _order(
            sum(
                rarity * count[term] * 2.2 / (count[term] + 1.2 * (0.25 + 0.75 * length / mean))
                for term, rarity in wanted.items()
                if term in count
            )
            for count, length in ((count, count.total()) for count in counts)
        )


class Fused(Ranking):
    """BM25 and embeddings, fused by reciprocal rank (k 60)."""

    def __init__(self, embeddings: Remembered) -> None:
        super().__init__()
        self._keywords = Keywords()
        self._embeddings = embeddings

    def rank(self, conversation: Conversation, question: str) -> list[int]:
        """By the sum of reciprocal ranks."""
        turns = np.array(self._embeddings.embed_documents(conversation.lines))
        similar = turns @ np.array(self._embeddings.embed_query(question))
        fused: dict[int, float] = defaultdict(float)
        for ranking in (self._keywords.rank(conversation, question), _order(similar)):
            for rank, turn in enumerate(ranking, start=1):
                fused[turn] += 1 / (_RRF_K + rank)
        return sorted(fused, key=lambda turn: -fused[turn])


class LangChainQdrant(Ranking):
    """`langchain-qdrant` on qdrant-client's own engine, dense or hybrid.

    Hybrid has BM25 vectors of the product's own terms, with Qdrant's IDF: the sparse model
    it comes with must be downloaded.
    """

    def __init__(self, embeddings: Remembered, *, is_hybrid: bool) -> None:
        super().__init__()
        from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings
        from langchain_qdrant.sparse_embeddings import SparseVector
        from qdrant_client.models import Modifier

        class Terms(SparseEmbeddings):
            def embed_documents(self, texts: list[str]) -> list[SparseVector]:
                made = [keyword_vectors(terms(text), 0)[BM25] for text in texts]
                return [SparseVector(indices=list(v.indices), values=list(v.values)) for v in made]

            def embed_query(self, text: str) -> SparseVector:
                found = list(dict.fromkeys(terms(text)))
                return SparseVector(indices=found, values=[1.0] * len(found))

        self._store: Any = QdrantVectorStore
        self._arguments: dict[str, Any] = {"embedding": embeddings, "location": ":memory:"}
        if is_hybrid:
            self._arguments |= {
                "retrieval_mode": RetrievalMode.HYBRID,
                "sparse_embedding": Terms(),
                "sparse_vector_params": {"modifier": Modifier.IDF},
            }
        self._stores: dict[str, Any] = {}

    def rank(self, conversation: Conversation, question: str) -> list[int]:
        """As the store ranks them."""
        if conversation.id not in self._stores:
            documents = [
                Document(line, metadata={"place": place})
                for place, line in enumerate(conversation.lines)
            ]
            store = self._store.from_documents(documents, **self._arguments)
            self._stores[conversation.id] = store
        store = self._stores[conversation.id]
        found = store.similarity_search(question, k=_RANKED)
        return [document.metadata["place"] for document in found]


class LangGraphStore(Ranking):
    """The search of LangGraph's `InMemoryStore` with an index."""

    def __init__(self, embeddings: Remembered) -> None:
        super().__init__()
        from langgraph.store.memory import InMemoryStore

        self._embeddings = embeddings
        size = len(embeddings.embed_query("size"))
        index: Any = {"embed": embeddings, "dims": size, "fields": ["text"]}
        self._store = InMemoryStore(index=index)
        self._known: set[str] = set()

    def rank(self, conversation: Conversation, question: str) -> list[int]:
        """As the store ranks them."""
        namespace = (conversation.id,)
        if conversation.id not in self._known:
            self._known.add(conversation.id)
            self._embeddings.embed_documents(conversation.lines)
            # One by one: a batch with the same text twice is an error there (langgraph 1.2.22).
            for place, line in enumerate(conversation.lines):
                self._store.put(namespace, str(place), {"text": line})
        found = self._store.search(namespace, query=question, limit=_RANKED)
        return [int(item.key) for item in found]


class LlamaIndexMemory(Ranking):
    """LlamaIndex's `VectorMemory`: a user's message with the answers to it, by similarity.

    Its `Memory` with a `VectorMemoryBlock` wants a vector store beyond `llama-index-core`.
    """

    def __init__(self, embeddings: Remembered) -> None:
        super().__init__()
        from llama_index.core.base.llms.types import ChatMessage
        from llama_index.core.embeddings import BaseEmbedding
        from llama_index.core.memory import VectorMemory

        class Ours(BaseEmbedding):
            def _get_query_embedding(self, query: str) -> list[float]:
                return embeddings.embed_query(query)

            async def _aget_query_embedding(self, query: str) -> list[float]:
                return embeddings.embed_query(query)

            def _get_text_embedding(self, text: str) -> list[float]:
                return embeddings.embed_documents([text])[0]

        self._message: Any = ChatMessage
        self._memory: Any = VectorMemory
        self._model = Ours()
        self._memories: dict[str, Any] = {}

    def rank(self, conversation: Conversation, question: str) -> list[int]:
        """As the memory gives them."""
        if conversation.id not in self._memories:
            memory = self._memory.from_defaults(
                embed_model=self._model, retriever_kwargs={"similarity_top_k": _RANKED}
            )
            for place, (turn, line) in enumerate(
                zip(conversation.turns, conversation.lines, strict=True)
            ):
                role = "user" if turn["role"] == "user" else "assistant"
                kept = {"place": str(place)}
                memory.put(self._message(role=role, content=line, additional_kwargs=kept))
            self._memories[conversation.id] = memory
        found = self._memories[conversation.id].get(question)
        return [int(message.additional_kwargs["place"]) for message in found]


class Mem0(Ranking):
    """mem0 with `infer=False`: messages as they are, no language model."""

    def __init__(self, embeddings: Remembered) -> None:
        super().__init__()
        os.environ["MEM0_TELEMETRY"] = "False"
        from mem0 import Memory  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

        self._embeddings = embeddings
        self._folder = tempfile.TemporaryDirectory()
        self._known: set[str] = set()
        self._memory: Any = Memory.from_config(  # pyright: ignore[reportUnknownMemberType]
            {
                "vector_store": {
                    "provider": "qdrant",
                    "config": {
                        "path": f"{self._folder.name}/qdrant",
                        "embedding_model_dims": len(embeddings.embed_query("size")),
                    },
                },
                "embedder": {"provider": "langchain", "config": {"model": embeddings}},
                "llm": {"provider": "openai", "config": {"api_key": "none is called"}},
                "history_db_path": f"{self._folder.name}/history.db",
            }
        )

    def rank(self, conversation: Conversation, question: str) -> list[int]:
        """As its search ranks them."""
        if conversation.id not in self._known:
            self._known.add(conversation.id)
            self._embeddings.embed_documents(conversation.lines)
            for place, (turn, line) in enumerate(
                zip(conversation.turns, conversation.lines, strict=True)
            ):
                role = "user" if turn["role"] == "user" else "assistant"
                self._memory.add(
                    [{"role": role, "content": line}],
                    user_id=conversation.id,
                    metadata={"place": place},
                    infer=False,
                )
        found = self._memory.search(
            question,
            filters={"user_id": conversation.id},
            top_k=_RANKED,
            threshold=0.0,
        )
        return [memory["metadata"]["place"] for memory in found["results"]]


def _order(scores: Iterable[float]) -> list[int]:
    """Places by score, best first."""
    ranked = sorted(enumerate(scores), key=lambda pair: -pair[1])
    return [place for place, _ in ranked]


def peers(embeddings: Remembered | None) -> dict[str, Callable[[], Peer]]:
    """How to make each, by its name in the table; those with embeddings only where there are."""
    made: dict[str, Callable[[], Peer]] = {
        "trim_messages": TrimMessages,
        "SummarizationMiddleware, extractive": Summarization,
        "BM25": Keywords,
    }
    if embeddings is not None:
        made |= {
            "RRF of BM25 and dense": lambda: Fused(embeddings),
            "langchain-qdrant, dense": lambda: LangChainQdrant(embeddings, is_hybrid=False),
            "langchain-qdrant, hybrid": lambda: LangChainQdrant(embeddings, is_hybrid=True),
            "LangGraph InMemoryStore": lambda: LangGraphStore(embeddings),
            "LlamaIndex VectorMemory": lambda: LlamaIndexMemory(embeddings),
            "mem0, infer=False": lambda: Mem0(embeddings),
        }
    return made
