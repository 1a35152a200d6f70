"""Counting messages as their provider counts them.

`counter_for` gives a model's counter: exact where the model's own vocabulary is on this
machine, otherwise an estimate that says so. A message is counted once: its count is kept
under a hash of its content, so a changed message is counted anew.
"""

from __future__ import annotations

import marshal
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage
from langchain_core.tools import BaseTool

from langchain_ctxmgr.budget import messages as _messages
from langchain_ctxmgr.budget.vocabulary import encoding_for, has_vocabulary, load_vocabulary
from langchain_ctxmgr.forking import ForkableLock

if TYPE_CHECKING:
    import tiktoken

CACHE_SIZE = 65_536
"""Messages whose counts are kept; about 20 MB when full."""
_TOOL_CACHE_SIZE = 1_024
_CHUNK_CHARS = 32_768
"""Text is encoded in pieces: tiktoken's regex engine panics on runs of half a million."""
_CUT_SEARCH_CHARS = 4_096

_SAFE_CUT = re.compile(
    r"(?<=\S)(?= )"
    r"|(?<=[^\W_])(?=[\s.,;:!?()\[\]{}<>=\u3000-\u3004\uff01-\uff0f\uff1a-\uff20])"
)
"""Where no token of any vocabulary reaches across: counts of the pieces add up exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterStats:
    """How the cache of message counts is doing."""

    hits: int
    misses: int
    size: int
    """Messages whose counts are kept now."""

    @property
    def hit_ratio(self) -> float:
        """Share of counts answered from the cache, 0.0 before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


class TokenCounter(Protocol):
    """Counts text, messages and tools for one model. Safe to share between threads."""

    @property
    def name(self) -> str:
        """The vocabulary, such as `o200k_base`, or `estimate`."""
        ...

    @property
    def exact(self) -> bool:
        """Whether this is the model's own vocabulary."""
        ...

    @property
    def stats(self) -> CounterStats:
        """Hits and misses of the cache of message counts."""
        ...

    def text(self, text: str) -> int:
        """Tokens of bare text."""
        ...

    def message(self, message: BaseMessage) -> int:
        """Tokens of one message with what stands around it."""
        ...

    def messages(self, messages: Sequence[BaseMessage]) -> int:
        """Tokens of a whole prompt, what opens the reply included."""
        ...

    def tools(self, tools: Sequence[object]) -> int:
        """Tokens of tool schemas; 0 without tools.

        Raises:
            ValueError: If one is nothing that a chat model's `bind_tools` takes.
        """
        ...


def model_name(model: str | BaseChatModel | None) -> str | None:
    """The name a provider knows `model` by, None where it has none."""
    if model is None or isinstance(model, str):
        return model
    for attribute in ("model_name", "model", "model_id", "deployment_name"):
        value: object = getattr(model, attribute, None)
        if isinstance(value, str) and value:
            return value
    return None


def counter_for(model: str | BaseChatModel | None, *, cache_size: int = CACHE_SIZE) -> TokenCounter:
    """The counter for `model`, made without touching a network.

    `exact` is true for OpenAI's models with their vocabulary on this machine. Other models
    are counted with the nearest vocabulary (`exact` is false), and with an estimate by
    script where no vocabulary is here; `vocabulary.download_vocabulary` fetches one.

    Raises:
        ValueError: If `cache_size` is negative.
    """
    encoding = encoding_for(model_name(model))
    if has_vocabulary(encoding.name):
        return VocabularyCounter(encoding.name, exact=encoding.is_own, cache_size=cache_size)
    return EstimateCounter(encoding.name if encoding.is_own else None, cache_size=cache_size)


_Key: TypeAlias = tuple[object, ...]


class _CachedCounter:
    """Messages and tools over a way to count text."""

    def __init__(self, *, name: str, exact: bool, cache_size: int) -> None:
        if cache_size < 0:
            raise ValueError(f"cache_size must not be negative, got {cache_size}")
        self.name = name
        self.exact = exact
        self._cache_size = cache_size
        self._counts: OrderedDict[_Key, int] = OrderedDict()
        self._tools: OrderedDict[_Key, tuple[int, object]] = OrderedDict()
        self._lock = ForkableLock()
        self._hits = self._misses = 0

    def text(self, text: str) -> int:
        raise NotImplementedError

    @property
    def stats(self) -> CounterStats:
        with self._lock:
            return CounterStats(hits=self._hits, misses=self._misses, size=len(self._counts))

    def message(self, message: BaseMessage) -> int:
        key = _content_key(message)
        if key is None or not self._cache_size:
            with self._lock:
                self._misses += 1
            return _messages.message_tokens(message, self.text)
        with self._lock:
            found = self._counts.get(key)
            if found is not None:
                self._counts.move_to_end(key)
                self._hits += 1
                return found
            self._misses += 1
        counted = _messages.message_tokens(message, self.text)
        with self._lock:
            self._counts[key] = counted
            while len(self._counts) > self._cache_size:
                self._counts.popitem(last=False)
        return counted

    def messages(self, messages: Sequence[BaseMessage]) -> int:
        return _messages.REPLY_TOKENS + sum(self.message(message) for message in messages)

    def tools(self, tools: Sequence[object]) -> int:
        if not tools:
            return 0
        return _messages.TOOLS_TOKENS + sum(self._tool(tool) for tool in tools)

    def _tool(self, tool: object) -> int:
        key = _tool_key(tool)
        if key is None:
            return _messages.tool_tokens(tool, self.text)
        with self._lock:
            found = self._tools.get(key)
        if found is not None:
            return found[0]
        counted = _messages.tool_tokens(tool, self.text)
        with self._lock:
            self._tools[key] = (counted, tool)  # held, so that no other object takes its id
            while len(self._tools) > _TOOL_CACHE_SIZE:
                self._tools.popitem(last=False)
        return counted


class VocabularyCounter(_CachedCounter):
    """Counts with one of tiktoken's vocabularies, loaded from this machine at first use.

    Text that spells a special token is counted as the text it is; a lone surrogate as the
    replacement character that providers make of it.
    """

    def __init__(self, name: str, *, exact: bool = True, cache_size: int = CACHE_SIZE) -> None:
        super().__init__(name=name, exact=exact, cache_size=cache_size)
        self._encoding: tiktoken.Encoding | None = None

    def text(self, text: str) -> int:
        """Tokens of bare text.

        Raises:
            FileNotFoundError: If the vocabulary is not on this machine.
        """
        if not text:
            return 0
        encoding = self._encoding
        if encoding is None:
            encoding = self._encoding = load_vocabulary(self.name)
        if len(text) <= _CHUNK_CHARS:
            return len(encoding.encode_ordinary(text))
        return _chunked(text, lambda piece: len(encoding.encode_ordinary(piece)))


class EstimateCounter(_CachedCounter):
    """Estimates by script, for a machine without the vocabulary; `exact` is false.

    `encoding` names the vocabulary to estimate; None stays above both of OpenAI's.
    """

    def __init__(self, encoding: str | None = None, *, cache_size: int = CACHE_SIZE) -> None:
        super().__init__(name="estimate", exact=False, cache_size=cache_size)
        from langchain_ctxmgr.budget.estimate import Estimator

        self._estimator = Estimator(encoding)

    def text(self, text: str) -> int:
        """Estimated tokens of bare text."""
        return self._estimator.tokens(text)


def _chunked(text: str, count: Callable[[str], int]) -> int:
    """Count long text piece by piece, never below the count of the whole.

    Pieces end where no token reaches across; one token is added where there is no such
    place within reach.
    """
    total = start = 0
    while len(text) - start > _CHUNK_CHARS:
        limit = start + _CHUNK_CHARS
        cut = 0
        for match in _SAFE_CUT.finditer(text, limit - _CUT_SEARCH_CHARS, limit):
            cut = match.start()
        if not cut:
            cut = limit
            total += 1
        total += count(text[start:cut])
        start = cut
    return total + count(text[start:])


def _content_key(message: BaseMessage) -> _Key | None:
    """A hash of all that `message_tokens` reads; None for content that cannot be hashed."""
    content = cast("object", message.content)
    kwargs = message.additional_kwargs
    rest: object = None
    if isinstance(message, AIMessage):
        if message.tool_calls or message.invalid_tool_calls or kwargs:
            rest = (message.tool_calls, message.invalid_tool_calls, kwargs)
    elif kwargs:
        rest = kwargs
    kind = message.role if isinstance(message, ChatMessage) else message.type
    if rest is None and type(content) is str:
        return (kind, message.name, hash(content), len(content))
    try:
        # Format 0 has no references: equal content gives equal bytes.
        packed = marshal.dumps(cast("Any", (content, rest)), 0)
    except ValueError:
        return None
    return (kind, message.name, hash(packed), len(packed), True)


def _tool_key(tool: object) -> _Key | None:
    """What identifies a tool whose schema is costly to make."""
    if isinstance(tool, BaseTool):
        return (id(tool), tool.name, tool.description, id(tool.args_schema))
    if isinstance(tool, type) or callable(tool):
        return (id(tool),)
    return None


_HEAD_SHARE = 0.6
"""Of what is kept, the part from the start: openings tell more, endings hold the result."""
_SNAP_CHARS = 16
"""How far a cut moves to fall between words."""
_MAX_STEPS = 40


def middle_cut(counter: TokenCounter, text: str, max_tokens: int) -> str:
    """`text` within `max_tokens` by `counter`: head and tail, with a marker for the middle.

    Text that fits comes back as it is. The marker reads `[… 1,234 tokens cut …]`; where not
    even that fits, the result is a shorter one, or empty.

    Raises:
        ValueError: If `max_tokens` is negative.
    """
    if max_tokens < 0:
        raise ValueError(f"max_tokens must not be negative, got {max_tokens}")
    full = counter.text(text)
    if full <= max_tokens:
        return text
    best = _marker_within(counter, full, max_tokens)
    low, high = 0, len(text)  # what is known to fit, what is known not to
    guess = len(text) * max_tokens // full
    for _ in range(_MAX_STEPS):
        if high - low <= 1:
            break
        keep = min(max(guess, low + 1), high - 1)
        candidate = _cut_to(counter, text, keep, full)
        used = counter.text(candidate)
        if used <= max_tokens:
            low, best = keep, candidate
        else:
            high = keep
        guess = _next_guess(low, high, keep, used, max_tokens)
    return best


def _next_guess(low: int, high: int, keep: int, used: int, max_tokens: int) -> int:
    """By the density just seen when that lies between the bounds, else halfway."""
    guess = keep * max_tokens // max(used, 1)
    margin = (high - low) // 8
    if low + margin < guess < high - margin:
        return guess
    return (low + high) // 2


def _marker_within(counter: TokenCounter, cut_tokens: int, max_tokens: int) -> str:
    for marker in (_marker(cut_tokens), "[…]", "…"):
        if counter.text(marker) <= max_tokens:
            return marker
    return ""


def _marker(cut_tokens: int) -> str:
    return f"[… {cut_tokens:,} tokens cut …]"


def _cut_to(counter: TokenCounter, text: str, keep: int, full_tokens: int) -> str:
    head_end = _snap_back(text, max(1, int(keep * _HEAD_SHARE)))
    tail_start = _snap_forward(text, len(text) - (keep - int(keep * _HEAD_SHARE)))
    tail_start = max(tail_start, head_end)
    head, tail = text[:head_end], text[tail_start:]
    kept = counter.text(head) + counter.text(tail)
    parts = (head.rstrip(" "), _marker(max(full_tokens - kept, 1)), tail.lstrip(" "))
    return "\n".join(part for part in parts if part)


def _snap_back(text: str, end: int) -> int:
    """To just after the nearest space before `end`, if it is near."""
    space = max(text.rfind(" ", max(0, end - _SNAP_CHARS), end), text.rfind("\n", 0, end))
    if space >= end - _SNAP_CHARS and space > 0:
        return space + 1
    return _off_joins(text, end, -1)


def _snap_forward(text: str, start: int) -> int:
    space = text.find(" ", start, start + _SNAP_CHARS)
    return space if space >= 0 else _off_joins(text, start, 1)


_JOINS = re.compile(r"[\u0300-\u036f\u200d\ufe0e\ufe0f\U0001f3fb-\U0001f3ff\udc00-\udfff]")
"""Combining marks, joiners, skin tones, low surrogates: each belongs to what is before it."""


def _off_joins(text: str, at: int, step: int) -> int:
    for _ in range(_SNAP_CHARS):
        if not 0 < at < len(text) or not (_JOINS.match(text, at) or text[at - 1] == "\u200d"):
            break
        at += step
    return min(max(at, 0), len(text))
