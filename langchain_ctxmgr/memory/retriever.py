"""`MemoryRetriever`: recall as a LangChain retriever."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

from langchain_ctxmgr.records import Memory, Scope


@runtime_checkable
class Recaller(Protocol):
    """What a `MemoryRetriever` asks: a `ContextManager`."""

    def recall(
        self,
        query: str,
        *,
        scope: Scope,
        k: int,
        max_tokens: int | None,
        explain: bool,
        score_threshold: float | None,
    ) -> list[Memory]:
        """The memories of `scope` that answer `query`, best first."""
        ...

    async def arecall(
        self,
        query: str,
        *,
        scope: Scope,
        k: int,
        max_tokens: int | None,
        explain: bool,
        score_threshold: float | None,
    ) -> list[Memory]:
        """`recall` on an event loop."""
        ...


class MemoryRetriever(BaseRetriever):
    """Documents from what was recorded in a scope that is fixed here, once.

    Each document holds a message's text; its id is the message's, its metadata `id`,
    `thread_id`, `at` (aware datetime), `role`, `speaker`, `score`, `slot` and
    `is_excerpt`, and the `explanation` where that is asked for. Best first. A call may ask
    for another number: `invoke(question, k=3)`.

    Raises:
        ValueError: On a call, if the question is empty, `k` or `max_tokens` is no number of
            at least 1, or the scope names no tenant.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    manager: Recaller
    scope: Scope
    k: int = 8
    """Most documents."""
    max_tokens: int | None = None
    """Most tokens of all of them together, as shown in a prompt."""
    explain: bool = False
    """Whether each document says what its score is made of: `Explanation` as a dict."""
    score_threshold: float | None = None
    """No documents where the chance that anything bears on the question is below; None: the
    manager's."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        del run_manager
        found = self.manager.recall(
            query,
            scope=self.scope,
            k=self.k if k is None else k,
            max_tokens=self.max_tokens,
            explain=self.explain,
            score_threshold=self.score_threshold,
        )
        return [_document(memory) for memory in found]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        del run_manager
        found = await self.manager.arecall(
            query,
            scope=self.scope,
            k=self.k if k is None else k,
            max_tokens=self.max_tokens,
            explain=self.explain,
            score_threshold=self.score_threshold,
        )
        return [_document(memory) for memory in found]


def _document(memory: Memory) -> Document:
    metadata: dict[str, Any] = {
        "id": memory.id,
        "thread_id": memory.thread_id,
        "at": memory.at,
        "role": memory.role,
        "speaker": memory.speaker,
        "score": memory.score,
        "slot": memory.slot,
        "is_excerpt": memory.is_excerpt,
    }
    if memory.explanation is not None:
        metadata["explanation"] = asdict(memory.explanation)
    return Document(id=memory.id, page_content=memory.text, metadata=metadata)
