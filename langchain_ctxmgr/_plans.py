"""Blocking and async code written once.

Anything that waits is a *plan*: a generator that yields the calls it needs and
returns its result. `run` drives a plan with blocking calls, `arun` drives the same
plan on an event loop. The names follow LangChain: `call(model.invoke, x)` is
`invoke` when run blocking and `ainvoke` when run async. A bound method without an
async twin is called in place, so only what takes well under a millisecond goes
without one. A `brief` method is called where the plan is, on an event loop too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")
_brief: set[Callable[..., Any]] = set()


@dataclass(frozen=True, slots=True)
class Call:
    """One call a plan asks its driver to make."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gather:
    """Several plans whose results are wanted together."""

    plans: tuple[Generator[Any, Any, Any], ...]


Step: TypeAlias = Call | Gather
Plan: TypeAlias = Generator[Step, Any, T]


def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Plan[T]:
    """Ask the driver for `function(*args, **kwargs)`, or its async twin's result."""
    return cast("T", (yield Call(function, args, kwargs)))


def brief(method: Callable[P, T]) -> Callable[P, T]:
    """Mark a blocking method that takes about as long as changing threads twice.

    On an event loop a plan advances in a worker thread, so it may block there.
    """
    _brief.add(method)
    return method


def gather(*plans: Plan[T]) -> Plan[list[T]]:
    """Run `plans` one after the other when blocking, together when async."""
    return cast("list[T]", (yield Gather(plans)))


def run(plan: Plan[T]) -> T:
    """Drive `plan` to its result with blocking calls."""
    try:
        step = next(plan)
        while True:
            step = _resumed(plan, step)
    except StopIteration as stop:
        return cast("T", stop.value)
    finally:
        plan.close()


async def arun(plan: Plan[T]) -> T:
    """Drive `plan` to its result, awaiting the async twin of each call.

    What the plan does between its calls (counting, scoring, packing) may take many
    milliseconds, so it runs in a worker thread, one stretch after the other, with the brief
    calls there are.
    """
    try:
        step = await _advance(plan, partial(next, plan))
        while not isinstance(step, _Done):
            try:
                result = await _awaited(step)
            except Exception as error:  # noqa: BLE001 - handed to the plan, which decides
                step = await _advance(plan, partial(plan.throw, error))
            else:
                step = await _advance(plan, partial(plan.send, result))
        return cast("T", step.value)
    finally:
        plan.close()


@dataclass(frozen=True, slots=True)
class _Done:
    """A plan's result: StopIteration cannot leave a worker thread."""

    value: Any


async def _advance(plan: Plan[Any], move: Callable[[], Step]) -> Step | _Done:
    """The plan's next step; when cancelled, only after the thread has let go of the plan."""
    moving = asyncio.ensure_future(asyncio.to_thread(_moved, plan, move))
    try:
        return await asyncio.shield(moving)
    except asyncio.CancelledError:
        await asyncio.wait([moving])
        raise


def _moved(plan: Plan[Any], move: Callable[[], Step]) -> Step | _Done:
    try:
        step = move()
        while isinstance(step, Call) and _is_brief(step.function):
            step = _resumed(plan, step)
    except StopIteration as stop:
        return _Done(stop.value)
    else:
        return step


def _is_brief(function: Callable[..., Any]) -> bool:
    return getattr(function, "__func__", None) in _brief


def _resumed(plan: Plan[Any], step: Step) -> Step:
    """The plan's next step, with what `step` came to."""
    try:
        result = _blocking(step)
    except Exception as error:  # noqa: BLE001 - handed to the plan, which decides
        return plan.throw(error)
    return plan.send(result)


def _blocking(step: Step) -> Any:
    if isinstance(step, Gather):
        return [run(plan) for plan in step.plans]
    return step.function(*step.args, **step.kwargs)


async def _awaited(step: Step) -> Any:
    if isinstance(step, Gather):
        return list(await asyncio.gather(*(arun(plan) for plan in step.plans)))
    twin = _async_twin(step.function)
    if twin is None:
        return step.function(*step.args, **step.kwargs)
    return await twin(*step.args, **step.kwargs)


def _async_twin(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]] | None:
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__name__", "")
    return getattr(owner, f"a{name}", None) if owner is not None else None
