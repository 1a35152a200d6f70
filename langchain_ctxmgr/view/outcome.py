"""A finished view as the caller gets it, and as listeners hear of it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from langchain_ctxmgr.budget.allocation import ContextBudget, Strategy
from langchain_ctxmgr.events import Listener, Prepared, Trimmed, emit
from langchain_ctxmgr.records import PreparedContext, Scope
from langchain_ctxmgr.view.builder import View


def context_of(
    view: View,
    *,
    max_tokens: int,
    exact: bool,
    budget: ContextBudget,
    cost: Decimal | None,
    elapsed: timedelta,
) -> PreparedContext:
    """The view with its risk, strategy and cost."""
    risk = budget.thresholds.risk(view.full_tokens, max_tokens)
    return PreparedContext(
        messages=view.messages,
        tokens=view.tokens,
        max_tokens=max_tokens,
        exact=exact,
        budget=budget,
        risk=risk,
        strategy=Strategy.for_risk(risk),
        cost=cost,
        full_tokens=view.full_tokens,
        elapsed=elapsed,
        prefix_digest=view.prefix_digest,
        preservation=view.preservation,
        sections=view.sections,
        receipt=view.receipt,
    )


def announce(
    view: View,
    thread: Scope,
    max_tokens: int,
    elapsed: timedelta,
    listeners: tuple[Listener, ...],
) -> None:
    """Tell listeners what was prepared, and what was cut for it."""
    tenant_id, thread_id = str(thread.tenant_id), str(thread.thread_id)
    for trim in view.trims:
        cut = Trimmed(
            tenant_id=tenant_id,
            thread_id=thread_id,
            message_id=trim.message.id or "",
            from_tokens=trim.from_tokens,
            to_tokens=trim.to_tokens,
        )
        emit(listeners, cut)
    prepared = Prepared(
        tenant_id=tenant_id,
        thread_id=thread_id,
        tokens=view.tokens,
        max_tokens=max_tokens,
        full_tokens=view.full_tokens,
        elapsed_ms=elapsed.total_seconds() * 1e3,
    )
    emit(listeners, prepared)
