"""What tenants of a plan get: how long they are remembered, how much is sent, what it may cost.

Presets to take or to copy: `manager.expire(scope=…, keep=PRO.keep)`,
`ContextManager(budget=PRO.budget)`, `ChatSummarizer(max_cost_per_day=PRO.summaries_usd_per_day)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from langchain_ctxmgr.budget.allocation import ContextBudget


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Limits of one plan.

    Raises:
        ValueError: If a limit is not positive.
    """

    name: str
    keep: timedelta
    """A thread expires when nothing was said in it for so long."""
    context_tokens: int
    """Most that a prompt takes."""
    summaries_usd_per_day: Decimal
    """Most that a tenant's summaries by a chat model may take."""

    def __post_init__(self) -> None:
        for limit in ("keep", "context_tokens", "summaries_usd_per_day"):
            value = getattr(self, limit)
            if value <= type(value)(0):
                raise ValueError(f"{limit} must be positive, got {value!r}")

    @property
    def budget(self) -> ContextBudget:
        """`context_tokens` for a prompt."""
        return ContextBudget(max_input_tokens=self.context_tokens, reserve_tokens=0)


STARTER: Final = Tier(
    name="starter",
    keep=timedelta(days=7),
    context_tokens=2_000,
    summaries_usd_per_day=Decimal(1),
)
PRO: Final = Tier(
    name="pro",
    keep=timedelta(days=30),
    context_tokens=4_000,
    summaries_usd_per_day=Decimal(5),
)
ENTERPRISE: Final = Tier(
    name="enterprise",
    keep=timedelta(days=365),
    context_tokens=8_000,
    summaries_usd_per_day=Decimal(100),
)
