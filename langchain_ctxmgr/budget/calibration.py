"""How far the counts of a model's prompts are off, learnt from the usage it reports."""

from __future__ import annotations

import math
import re
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata

from langchain_ctxmgr.budget.tokens import model_name
from langchain_ctxmgr.budget.vocabulary import encoding_for
from langchain_ctxmgr.forking import ForkableLock

T = TypeVar("T")

_MIN_TOKENS = 64
"""Shorter prompts say more of a provider's fixed overhead than of its tokenizer."""
_RATIO_BOUNDS = (0.2, 5.0)
"""A ratio beyond these is a counting mistake (usage of several calls, or of a part)."""
_WINDOW = 32
_MAX_MODELS = 256
_HIGH_QUANTILE = 0.9
_STEPS = 20
"""Steps of the factor to 1."""
_MAX_THREADS = 4_096

_PRIORS = (
    (re.compile(r"claude"), 1.3),
    (re.compile(r"mistral|mixtral|llama-?2|codestral"), 1.25),
)
_PRIOR = 1.1
"""Tokens for one of OpenAI's nearest vocabulary, before a model has reported any usage."""


class Calibration:
    """A factor a model: the tokens it reports for each token counted.

    It is the 90th percentile of the last 32 prompts, so most prompts cost less than factor
    times count. Before any usage it is 1.0 for models counted with their own vocabulary and
    a guess by family above 1 for others. It is never below 1.0: usage below the count gives
    nothing away. Safe to share between threads; the 256 models last seen are kept.
    """

    def __init__(self) -> None:
        self._ratios: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = ForkableLock()

    def observe(
        self,
        model: str | BaseChatModel | None,
        counted_tokens: int,
        usage: UsageMetadata | Mapping[str, Any] | None,
    ) -> bool:
        """Learn from one answer: what was counted for its prompt, and what it reports.

        Returns whether it taught anything: missing or senseless usage and prompts under 64
        tokens do not.
        """
        name = model_name(model)
        reported = _input_tokens(usage)
        if name is None or reported is None or counted_tokens < _MIN_TOKENS:
            return False
        ratio = reported / counted_tokens
        if not _RATIO_BOUNDS[0] <= ratio <= _RATIO_BOUNDS[1]:
            return False
        with self._lock:
            window = self._ratios.setdefault(name, deque(maxlen=_WINDOW))
            window.append(ratio)
            self._ratios.move_to_end(name)
            while len(self._ratios) > _MAX_MODELS:
                self._ratios.popitem(last=False)
        return True

    def factor(self, model: str | BaseChatModel | None) -> float:
        """Tokens the model will report for each token counted, on the high side."""
        name = model_name(model)
        with self._lock:
            ratios = sorted(self._ratios.get(name or "", ()))
        if not ratios:
            return _prior(name)
        return max(1.0, ratios[math.ceil(_HIGH_QUANTILE * len(ratios)) - 1])

    def room(self, model: str | BaseChatModel | None, max_tokens: int) -> int:
        """The count that stays within `max_tokens` as the model counts.

        The factor is taken in steps, so that each new answer does not move every budget and
        with it the prompt's prefix.
        """
        return max_tokens * _STEPS // self._steps(model)

    def needed(self, model: str | BaseChatModel | None, counted_tokens: int) -> int:
        """The least `max_tokens` whose `room` holds `counted_tokens`."""
        return -(-counted_tokens * self._steps(model) // _STEPS)

    def _steps(self, model: str | BaseChatModel | None) -> int:
        return math.ceil(round(self.factor(model) * _STEPS, 6))


class PromptSizes:
    """Room and size of each thread's prompts, and what their answers teach about them."""

    def __init__(self, calibration: Calibration, model: str | BaseChatModel | None) -> None:
        self._calibration = calibration
        self._model = model
        self._counted: OrderedDict[Hashable, int] = OrderedDict()
        self._rooms: OrderedDict[Hashable, tuple[Hashable, int]] = OrderedDict()
        self._lock = ForkableLock()

    def room(self, thread: Hashable, turn: Hashable, max_tokens: int) -> int:
        """The count that stays within `max_tokens`, the same on each step of one turn.

        What is learnt in a tool loop counts from the next turn on: within the turn nothing
        that was sent may change. A `turn` of None is like no other.
        """
        with self._lock:
            known = self._rooms.get(thread)
            if turn is not None and known is not None and known[0] == (turn, max_tokens):
                return known[1]
        room = self._calibration.room(self._model, max_tokens)
        with self._lock:
            _keep(self._rooms, thread, ((turn, max_tokens), room))
        return room

    def needed(self, counted_tokens: int) -> int:
        """The least `max_tokens` with which a turn's room holds `counted_tokens`."""
        return self._calibration.needed(self._model, counted_tokens)

    def sent(self, thread: Hashable, counted_tokens: int) -> None:
        """A prompt of `counted_tokens` was prepared for `thread`."""
        with self._lock:
            _keep(self._counted, thread, counted_tokens)

    def answered(self, thread: Hashable, messages: Iterable[BaseMessage]) -> None:
        """Learn from the first of `messages` that reports usage for the last prompt."""
        usage = next(
            (
                message.usage_metadata
                for message in messages
                if isinstance(message, AIMessage) and message.usage_metadata
            ),
            None,
        )
        if usage is None:
            return
        with self._lock:
            counted = self._counted.pop(thread, 0)
        self._calibration.observe(self._model, counted, usage)


def _keep(latest: OrderedDict[Hashable, T], thread: Hashable, value: T) -> None:
    latest[thread] = value
    latest.move_to_end(thread)
    if len(latest) > _MAX_THREADS:
        latest.popitem(last=False)


def _prior(name: str | None) -> float:
    if name is None or encoding_for(name).is_own:
        return 1.0
    return next((guess for family, guess in _PRIORS if family.search(name.lower())), _PRIOR)


def _input_tokens(usage: UsageMetadata | Mapping[str, Any] | None) -> int | None:
    if not isinstance(usage, Mapping):
        return None
    value = cast("Mapping[str, Any]", usage).get("input_tokens")
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
