"""What the provider's prompt cache gave, beside what the prompts let one expect.

A provider charges less for the beginning that a prompt shares with an earlier one. That
beginning is known here before anything is sent; what came of it is told with the answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple, TypedDict, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage

from langchain_ctxmgr.budget.models import model_name
from langchain_ctxmgr.forking import ForkableLock

_MAX_THREADS = 1_024
_MAX_MODELS = 64
_UNNAMED = "unknown"


class PromptCacheFigures(TypedDict):
    """Of one model, since the manager was made."""

    answers: int
    """That told their usage, and whose prompt was prepared here."""
    input_tokens: int
    """Of their prompts, as the provider counts."""
    predicted_tokens: int
    """Of them, what stood at the beginning of the thread's prompt before, as counted here."""
    cache_read_tokens: int | None
    """What came from the provider's cache; None where no answer told."""
    cache_write_tokens: int
    """What was written to it, where that has a price of its own."""
    hit_ratio: float | None
    """Of the input of the answers that told, the share that came from the cache."""


class _Sent(NamedTuple):
    """A prompt: what tells its tools and its messages apart, and how much of it was known."""

    tools: int
    messages: tuple[int, ...]
    predicted_tokens: int


@dataclass(slots=True)
class _Account:
    answers: int = 0
    input_tokens: int = 0
    predicted_tokens: int = 0
    told_tokens: int = 0
    """Input of the answers that tell what came from the cache."""
    read_tokens: int | None = None
    written_tokens: int = 0

    @property
    def figures(self) -> PromptCacheFigures:
        ratio = None if self.read_tokens is None else self.read_tokens / max(1, self.told_tokens)
        return PromptCacheFigures(
            answers=self.answers,
            input_tokens=self.input_tokens,
            predicted_tokens=self.predicted_tokens,
            cache_read_tokens=self.read_tokens,
            cache_write_tokens=self.written_tokens,
            hit_ratio=ratio,
        )


class PromptCache:
    """Predicted and reported cache hits by model; safe to share between threads.

    Args:
        model: What answers count for that do not name their model.
    """

    def __init__(self, model: str | BaseChatModel | None) -> None:
        self._model = model_name(model) or _UNNAMED
        self._sent: OrderedDict[Hashable, _Sent] = OrderedDict()
        self._waiting: set[Hashable] = set()
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._lock = ForkableLock()

    def sent(
        self,
        thread: Hashable,
        messages: Sequence[BaseMessage],
        *,
        tools: Sequence[object],
        tokens: int,
        count: Callable[[BaseMessage], int],
    ) -> None:
        """A prompt of `tokens` was prepared for `thread`; `count` gives those of a message."""
        known = tuple(map(_told_apart, messages))
        bound = hash(repr(tools))
        with self._lock:
            before = self._sent.get(thread)
            predicted = 0
            if before is not None and before.tools == bound:
                pairs = zip(before.messages, known, strict=False)
                same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
                predicted = tokens - sum(map(count, messages[same:])) if same else 0
            self._sent[thread] = _Sent(bound, known, max(0, predicted))
            self._sent.move_to_end(thread)
            self._waiting.add(thread)
            while len(self._sent) > _MAX_THREADS:
                oldest, _ = self._sent.popitem(last=False)
                self._waiting.discard(oldest)

    def answered(self, thread: Hashable, messages: Iterable[BaseMessage]) -> None:
        """Count the first of `messages` that tells the usage of the thread's last prompt."""
        answer = next((m for m in messages if isinstance(m, AIMessage) and m.usage_metadata), None)
        if answer is None:
            return
        usage = cast("Mapping[str, Any]", answer.usage_metadata)
        details = cast("Mapping[str, Any]", usage.get("input_token_details") or {})
        asked, read, written = (
            _tokens(usage.get("input_tokens")),
            _tokens(details.get("cache_read")),
            _tokens(details.get("cache_creation")),
        )
        with self._lock:
            if thread not in self._waiting or not asked:
                return
            self._waiting.discard(thread)
            account = self._accounts.setdefault(self._name_of(answer), _Account())
            account.answers += 1
            account.input_tokens += asked
            account.predicted_tokens += self._sent[thread].predicted_tokens
            account.written_tokens += written or 0
            if read is not None:
                account.told_tokens += asked
                account.read_tokens = (account.read_tokens or 0) + read
            while len(self._accounts) > _MAX_MODELS:
                self._accounts.popitem(last=False)

    @property
    def figures(self) -> dict[str, PromptCacheFigures]:
        """By the model's name."""
        with self._lock:
            return {name: account.figures for name, account in self._accounts.items()}

    def _name_of(self, answer: AIMessage) -> str:
        told = cast("Mapping[str, Any]", answer.response_metadata)
        return str(told.get("model_name") or told.get("model") or self._model)


def _told_apart(message: BaseMessage) -> int:
    """A number that two messages share only if the provider is sent the same of both."""
    content = message.content
    calls = repr(message.tool_calls) if isinstance(message, AIMessage) else None
    text = content if isinstance(content, str) else repr(content)
    return hash((message.type, message.name, text, calls))


def _tokens(value: object) -> int | None:
    """A number of tokens; None where nothing sensible is told."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return None
