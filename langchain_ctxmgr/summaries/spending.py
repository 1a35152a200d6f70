"""What summaries take of a chat model, and the cap that a tenant's may not pass in a day."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage

from langchain_ctxmgr.budget.costs import cost
from langchain_ctxmgr.events import Degraded, Listener, emit


@dataclass(slots=True, kw_only=True)
class Spent:
    """What the summarizer's model has taken in this process."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    """Of the calls whose price is known."""
    unpriced_calls: int = 0
    by_day: dict[tuple[str, date], Decimal] = field(default_factory=dict[tuple[str, date], Decimal])
    """USD by tenant and day (UTC)."""


class Spending:
    """Keeps count of what is spent.

    Args:
        model: Decides the price.
        cap: USD a tenant's summaries may take in a day (UTC); None: no bound.
        listeners: Told once a day of a tenant's cap that is reached, or that cannot be held.
        now: The present instant, aware.
    """

    def __init__(
        self,
        model: BaseChatModel,
        cap: Decimal | None,
        *,
        listeners: tuple[Listener, ...],
        now: Callable[[], datetime],
    ) -> None:
        self._model = model
        self._cap = cap
        self._listeners = listeners
        self._now = now
        self._told: set[tuple[str, date]] = set()
        self.spent = Spent()

    def paid(self, tenant_id: str, reply: AIMessage) -> None:
        """Note what a call took."""
        spent, used = self.spent, reply.usage_metadata
        spent.calls += 1
        price = None if used is None else cost(used, self._model, at=self._now())
        if used is not None:
            spent.input_tokens += used["input_tokens"]
            spent.output_tokens += used["output_tokens"]
        today = (tenant_id, self._now().date())
        if price is None:
            spent.unpriced_calls += 1
            if self._cap is not None:
                why = "cannot be held to what they may take: the price of a call is unknown"
                self._tell_once(today, why, "calls whose cost is not counted")
            return
        spent.cost_usd += price
        for tenant_day in list(spent.by_day):
            if tenant_day[1] < today[1]:
                spent.by_day.pop(tenant_day, None)
        spent.by_day[today] = spent.by_day.get(today, Decimal(0)) + price

    def is_over_cap(self, tenant_id: str) -> bool:
        """Whether the tenant's means for today are used up."""
        today = (tenant_id, self._now().date())
        if self._cap is None or self.spent.by_day.get(today, Decimal(0)) < self._cap:
            return False
        why = f"took {self._cap} USD today, as much as they may"
        self._tell_once(today, why, "sentences extracted from the log")
        return True

    def _tell_once(self, today: tuple[str, date], why: str, fallback: str) -> None:
        if today in self._told:
            return
        self._told = {each for each in self._told if each[1] >= today[1]} | {today}
        reason = f"summaries of {today[0]!r} {why}"
        emit(self._listeners, Degraded(part="summarizer", reason=reason, fallback=fallback))
