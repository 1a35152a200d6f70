"""How the window is shared out, how full it is, and what to do about it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, NamedTuple, TypeGuard

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage

from langchain_ctxmgr.budget.models import ModelInfo, model_info
from langchain_ctxmgr.budget.tokens import TokenCounter

SMALL_ROOM_TOKENS = 8_000
"""Below this a prompt is the last turns and what was recalled: a summary there says less
than the same tokens of recalled text (.005 to .014 of evidence recall at 2,000 and 4,000)."""
LARGE_ROOM_TOKENS = 32_000
"""From here on the full history is kept while it fits."""
FOCUS_TOKENS = 30_000
"""Where a history is condensed for the question although the window would hold it all: models
find less in long prompts, and each costs as much again."""
CACHED_ROOM_TOKENS = 2_048
"""From here on what was sent is worth keeping: OpenAI's prompt cache begins at 1,024 tokens,
and a prompt is on average about half as long again as right after a compaction."""
_SMALL_HISTORY, _LIVE_HISTORY, _LARGE_HISTORY = 0.10, 0.40, 0.60
_DRAWN_HISTORY = 0.05
"""Below `LARGE_ROOM_TOKENS`, where what matters most is drawn from all of a thread at rest."""
_SUMMARY = 0.05
_SMALL_SUMMARY = 0.10
"""Of a room below `SMALL_ROOM_TOKENS`, for a summary that a chat model made."""
_LARGE_RECALLED = 0.20
_LIVE_RECALLED, _LIVE_RECALLED_TOKENS = 1 / 20, (256, 2_048)
"""For one question of a live conversation, and its bounds. It stays next to its question in the
prompts that follow, so what is recalled adds up until the window starts anew."""
_WORKING, _FACTS, _LEAST_BESIDE_TOKENS = 0.10, 0.05, 96
"""For what is pinned and for facts of the user: two or three lines even in a small room."""
_DEFAULT_RESERVE_TOKENS = 1_024


class RiskLevel(StrEnum):
    """How near the limit a conversation is."""

    SAFE = "safe"
    CAUTION = "caution"
    WARNING = "warning"
    CRITICAL = "critical"
    OVERFLOW = "overflow"


class Strategy(StrEnum):
    """What to do about it."""

    MONITOR_ONLY = "monitor_only"
    """Send the history as it is."""
    CONDENSE_LIGHT = "condense_light"
    """Shorten what is old."""
    CONDENSE_AGGRESSIVE = "condense_aggressive"
    """Keep a summary, what matters and the last turns."""
    EMERGENCY_TRUNCATION = "emergency_truncation"
    """Cut whatever must be cut to fit."""

    @classmethod
    def for_risk(cls, risk: RiskLevel) -> Strategy:
        """The strategy that `risk` calls for."""
        return _STRATEGIES[risk]


_STRATEGIES = {
    RiskLevel.SAFE: Strategy.MONITOR_ONLY,
    RiskLevel.CAUTION: Strategy.MONITOR_ONLY,
    RiskLevel.WARNING: Strategy.CONDENSE_LIGHT,
    RiskLevel.CRITICAL: Strategy.CONDENSE_AGGRESSIVE,
    RiskLevel.OVERFLOW: Strategy.EMERGENCY_TRUNCATION,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Where each risk level begins, as a share of the limit. Above 1.0 is OVERFLOW.

    Raises:
        ValueError: If a threshold is not in (0, 1], or they do not rise.
    """

    caution: float = 0.70
    warning: float = 0.80
    critical: float = 0.90

    def __post_init__(self) -> None:
        for name in ("caution", "warning", "critical"):
            value: object = getattr(self, name)
            if not _is_number(value) or not 0 < value <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {value!r}")
        if not self.caution <= self.warning <= self.critical:
            raise ValueError(
                "caution, warning and critical must not fall, got "
                f"{self.caution}, {self.warning}, {self.critical}"
            )

    def risk(self, current_tokens: int, limit_tokens: int) -> RiskLevel:
        """The risk level of `current_tokens` in a limit of `limit_tokens`."""
        if current_tokens > limit_tokens:
            return RiskLevel.OVERFLOW
        share = utilisation(current_tokens, limit_tokens)
        if share >= self.critical:
            return RiskLevel.CRITICAL
        if share >= self.warning:
            return RiskLevel.WARNING
        return RiskLevel.CAUTION if share >= self.caution else RiskLevel.SAFE


def utilisation(current_tokens: int, limit_tokens: int) -> float:
    """How much of the limit is used: 1.0 is full, more is over."""
    if limit_tokens <= 0:
        return 0.0 if current_tokens <= 0 else math.inf
    return current_tokens / limit_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A section's part of the room, within bounds.

    Raises:
        ValueError: If `fraction` is not in [0, 1], a bound is negative, or they are crossed.
    """

    fraction: float
    min_tokens: int = 0
    """Given even where the fraction is less, as far as the room goes."""
    max_tokens: int | None = None
    """Never more than this, None for no bound."""

    def __post_init__(self) -> None:
        if not _is_number(self.fraction) or not 0 <= self.fraction <= 1:
            raise ValueError(f"fraction must be in [0, 1], got {self.fraction!r}")
        _check_tokens("min_tokens", self.min_tokens, at_least=0)
        if self.max_tokens is not None:
            _check_tokens("max_tokens", self.max_tokens, at_least=0)
            if self.max_tokens < self.min_tokens:
                raise ValueError(
                    f"max_tokens must be at least min_tokens, got {self.max_tokens} "
                    f"and {self.min_tokens}"
                )

    def of(self, room_tokens: int) -> int:
        """Tokens of a room, bounds kept."""
        wanted = max(math.floor(self.fraction * room_tokens), self.min_tokens)
        if self.max_tokens is not None:
            wanted = min(wanted, self.max_tokens)
        return min(wanted, room_tokens)


class Allocation(NamedTuple):
    """Tokens for each section; history, summary and recalled together never pass `room`."""

    max_tokens: int
    fixed_tokens: int
    """System text, tools and the current turn: what must be sent."""
    room: int
    """What is left for the sections; 0 when what must be sent fills the window."""
    history: int
    summary: int
    recalled: int
    """With what is pinned and facts: what these leave of their shares is for recalled text."""
    working: int
    """Of a room, for what is pinned, at most."""
    facts: int
    """Of a room, for facts of the user, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextBudget:
    """How much fits, and how it is shared among history, summary and recalled text.

    A share is a fraction of the room that system text, tools and the current turn leave, or a
    `Share` with bounds; None is the default for the size of the window. The full history is
    sent while it fits and is no longer than `focus_above_tokens`. Once it is not: below 8,000
    tokens a tenth for the last turns (40 % while a conversation is live), the rest for what is
    recalled; from 8,000 to 32,000 a summary and more and more history; from 32,000 on 60 %
    history, 5 % summary and 20 % recalled. Without a question, where no chat model sums up and the
    conversation rests, the last turns have a twentieth below 32,000, the summary the rest. What is
    pinned takes at most a tenth of the room, facts of the user at most a twentieth (either 96
    tokens in a small room), both out of what is recalled, and only as far as there is something
    to show. While a live conversation goes on from turn to turn, from 2,048 tokens on, each
    question is given a twentieth of recalled text (256 to 2,048 tokens), and what was sent stays
    until the window is full: so the provider's prompt cache holds. `history` is then where it
    starts anew.

    Raises:
        ValueError: If a number is out of range, the reserve leaves nothing, or the shares
            add up to more than 1.
    """

    max_input_tokens: int
    """The model's context window."""
    reserve_tokens: int = _DEFAULT_RESERVE_TOKENS
    """Held back for the reply."""
    history_share: Share | float | None = None
    summary_share: Share | float | None = None
    recalled_share: Share | float | None = None
    working_share: Share | float | None = None
    """For what is pinned, out of what is recalled; also where the full history is sent."""
    facts_share: Share | float | None = None
    """The same for facts of the user from other threads."""
    keep_full_history: bool = True
    """Send the whole history while it fits; False: the shares hold from the first turn on."""
    focus_above_tokens: int | None = FOCUS_TOKENS
    """A longer history is condensed to so many tokens for the question: the newest part, a
    summary and what bears on it. None: as many as the window holds."""
    thresholds: Thresholds = field(default_factory=Thresholds)

    def __post_init__(self) -> None:
        _check_tokens("max_input_tokens", self.max_input_tokens, at_least=1)
        _check_tokens("reserve_tokens", self.reserve_tokens, at_least=0)
        if self.reserve_tokens >= self.max_input_tokens:
            raise ValueError(
                f"reserve_tokens must be less than max_input_tokens ({self.max_input_tokens}), "
                f"got {self.reserve_tokens}"
            )
        if self.focus_above_tokens is not None:
            _check_tokens("focus_above_tokens", self.focus_above_tokens, at_least=1)
        total = 0.0
        for name in ("history_share", "summary_share", "recalled_share"):
            total += _fraction(name, getattr(self, name))
        for name in ("working_share", "facts_share"):
            _fraction(name, getattr(self, name))
        if total > 1 + 1e-9:
            raise ValueError(f"the shares must not add up to more than 1, got {total:g}")

    @classmethod
    def for_model(cls, model: ModelInfo | str | BaseChatModel, **settings: Any) -> ContextBudget:
        """The budget of `model`'s window; `settings` are the other fields.

        Raises:
            UnknownModelError: If no source knows the model's window.
            ValueError: If a setting is out of range.
        """
        info = model if isinstance(model, ModelInfo) else model_info(model)
        settings.setdefault(
            "reserve_tokens", min(_DEFAULT_RESERVE_TOKENS, info.max_input_tokens // 4)
        )
        settings.setdefault("max_input_tokens", info.max_input_tokens)
        return cls(**settings)

    @property
    def prompt_tokens(self) -> int:
        """The most a prompt may hold: the window without the reserve."""
        return self.max_input_tokens - self.reserve_tokens

    def focused(self, room_tokens: int) -> int:
        """What of `room_tokens` history, summary and recalled text may take together."""
        bound = self.focus_above_tokens
        return room_tokens if bound is None else min(room_tokens, bound)

    def allocate(
        self,
        max_tokens: int | None = None,
        fixed_tokens: int = 0,
        *,
        is_live: bool = False,
        is_summarized: bool = False,
        is_drawn: bool = False,
        goes_on: bool = False,
    ) -> Allocation:
        """Share out `max_tokens` (by default `prompt_tokens`) after `fixed_tokens`.

        `is_live`: the conversation goes on without a pause, so what was just said matters
        more, and the provider's prompt cache still holds what was sent before.
        `is_summarized`: a chat model's summary is there to be shown. `is_drawn`: there is no
        question to recall by, so the summary is to have what matters most. `goes_on`: the turn
        before was prepared too, so this prompt and the next ones are to extend each other.

        Raises:
            ValueError: If a number is negative.
        """
        limit = self.prompt_tokens if max_tokens is None else max_tokens
        _check_tokens("max_tokens", limit, at_least=0)
        _check_tokens("fixed_tokens", fixed_tokens, at_least=0)
        room = self.focused(max(limit - fixed_tokens, 0))
        limit = min(limit, fixed_tokens + room)
        default = _default_summary(limit, is_summarized=is_summarized)
        summary = min(_share(self.summary_share, default).of(room), room)
        default = _default_history(limit, is_live=is_live)
        if is_drawn and not is_live and limit < LARGE_ROOM_TOKENS:
            default = _DRAWN_HISTORY
        history = min(_share(self.history_share, default).of(room), room - summary)
        rest = room - summary - history
        if self.recalled_share is None and is_live and goes_on and limit >= CACHED_ROOM_TOKENS:
            least, most = _LIVE_RECALLED_TOKENS
            live = Share(fraction=_LIVE_RECALLED, min_tokens=least, max_tokens=most)
            recalled = min(live.of(room), rest)
        elif self.recalled_share is None and limit < LARGE_ROOM_TOKENS:
            recalled = rest
        else:
            recalled = min(_share(self.recalled_share, _LARGE_RECALLED).of(room), rest)
        return Allocation(
            max_tokens=limit,
            fixed_tokens=fixed_tokens,
            room=room,
            history=history,
            summary=summary,
            recalled=recalled,
            working=_beside(self.working_share, _WORKING).of(room),
            facts=_beside(self.facts_share, _FACTS).of(room),
        )


def _fraction(name: str, value: object) -> float:
    """What a share takes of the room.

    Raises:
        ValueError: If it is none.
    """
    if value is None:
        return 0.0
    if isinstance(value, Share):
        return value.fraction
    if _is_number(value) and 0 <= value <= 1:
        return value
    raise ValueError(f"{name} must be a Share or in [0, 1], got {value!r}")


def _share(given: Share | float | None, default: float) -> Share:
    if isinstance(given, Share):
        return given
    return Share(fraction=default if given is None else given)


def _beside(given: Share | float | None, default: float) -> Share:
    if given is None:
        return Share(fraction=default, min_tokens=_LEAST_BESIDE_TOKENS)
    return _share(given, default)


def _default_history(max_tokens: int, *, is_live: bool) -> float:
    """From a small room's share, rising in a straight line, to 60 % in large ones."""
    small = _LIVE_HISTORY if is_live else _SMALL_HISTORY
    grown = (max_tokens - SMALL_ROOM_TOKENS) / (LARGE_ROOM_TOKENS - SMALL_ROOM_TOKENS)
    return small + (_LARGE_HISTORY - small) * min(max(grown, 0.0), 1.0)


def _default_summary(max_tokens: int, *, is_summarized: bool) -> float:
    if max_tokens >= SMALL_ROOM_TOKENS:
        return _SUMMARY
    return _SMALL_SUMMARY if is_summarized else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """How full the window is, and what to do about it."""

    risk: RiskLevel
    utilisation: float
    """Current tokens as a share of the limit; above 1.0 when over."""
    current_tokens: int
    limit_tokens: int
    available_tokens: int
    """What is left; 0 when over."""
    strategy: Strategy
    message_count: int
    elapsed: timedelta


def analyze(
    messages: Sequence[BaseMessage],
    *,
    counter: TokenCounter,
    limit_tokens: int,
    tools: Sequence[object] = (),
    thresholds: Thresholds | None = None,
) -> Analysis:
    """How full `messages` and `tools` make a window of `limit_tokens`; changes nothing.

    Raises:
        ValueError: If `limit_tokens` is not positive.
    """
    _check_tokens("limit_tokens", limit_tokens, at_least=1)
    started = time.perf_counter()
    current = counter.messages(messages) + counter.tools(tools)
    risk = (thresholds or Thresholds()).risk(current, limit_tokens)
    return Analysis(
        risk=risk,
        utilisation=utilisation(current, limit_tokens),
        current_tokens=current,
        limit_tokens=limit_tokens,
        available_tokens=max(limit_tokens - current, 0),
        strategy=Strategy.for_risk(risk),
        message_count=len(messages),
        elapsed=timedelta(seconds=time.perf_counter() - started),
    )


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_tokens(name: str, value: object, *, at_least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name} must be an int of at least {at_least}, got {value!r}")
