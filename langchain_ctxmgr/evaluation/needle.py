"""Needle in a haystack: is a fact found wherever it stands, however long the conversation?

Source: Kamradt 2023, "Needle In A Haystack - Pressure Testing LLMs".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_ctxmgr._plans import Plan, arun, call, run
from langchain_ctxmgr.analysis import sentences
from langchain_ctxmgr.budget.tokens import counter_for
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.evaluation.haystack import Needle, default_needles, generated_haystack
from langchain_ctxmgr.evaluation.measure import folded, view_text
from langchain_ctxmgr.intake import positive, shown
from langchain_ctxmgr.records import Scope

if TYPE_CHECKING:
    from langchain_ctxmgr.manager import ContextManager

LENGTHS: Final = tuple(range(16_000, 128_001, 16_000))
"""Tokens of the haystacks."""
DEPTHS: Final = tuple(step / 14 for step in range(15))
"""Where a needle stands: 0 in the first message, 1 in the last."""

_THREAD: Final = "needle-in-haystack"
_START: Final = datetime(2024, 1, 8, 9, tzinfo=UTC)
_PAUSE: Final = timedelta(minutes=7)
_NIGHT: Final = timedelta(hours=15)
_DAY_MESSAGES: Final = 40
"""Messages of a day: a conversation has pauses, and recall knows them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedleCell:
    """How it went with one needle."""

    length_tokens: int
    depth: float
    """0 in the first message, 1 in the last."""
    needle: Needle
    tokens: int
    """Of the view."""
    is_in_view: bool
    """Whether the needle stands in the view, word for word; not in one over its budget."""
    is_answered: bool | None = None
    """Whether the chat model's reply holds the answer; None without a model."""

    @property
    def is_found(self) -> bool:
        """In the reply where a model was asked, otherwise in the view."""
        return self.is_in_view if self.is_answered is None else self.is_answered


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedleReport:
    """How it went at every length and depth."""

    max_tokens: int
    """Budget of a view."""
    cells: tuple[NeedleCell, ...]
    """By length, then depth."""

    @property
    def found(self) -> int:
        """How many needles were found."""
        return sum(cell.is_found for cell in self.cells)


class _Cell(NamedTuple):
    length: int
    depth: float
    needle: Needle


def needle_in_haystack(
    manager: ContextManager,
    *,
    scope: Scope,
    max_tokens: int = 2_000,
    lengths: Sequence[int] = LENGTHS,
    depths: Sequence[float] = DEPTHS,
    needles: Sequence[Needle] | None = None,
    haystack: Sequence[BaseMessage] | None = None,
    model: BaseChatModel | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NeedleReport:
    """Hide a needle at every depth of haystacks of every length, and ask for each.

    A haystack is recorded in a thread of its own, and forgotten at the end. It holds as
    many different needles as there are, so that one recording serves several depths.

    Args:
        manager: Records the haystacks and prepares the views.
        scope: Tenant; a thread in it is the beginning of the threads' names.
        max_tokens: Budget of a view.
        lengths: Tokens of the haystacks, as `counter_for(None)` counts them.
        depths: 0 in the first message, 1 in the last.
        needles: Used in turn; by default `default_needles`.
        haystack: The messages to hide them in; by default `generated_haystack`.
        model: Asked with each view; without one the view alone is looked at.
        progress: Told `(done, total)` needles as it goes.

    Raises:
        ValueError: If an argument is not what it must be, or `haystack` is shorter than the
            longest of `lengths`.
    """
    plan = _searched(
        manager,
        scope=scope,
        max_tokens=max_tokens,
        lengths=lengths,
        depths=depths,
        needles=needles,
        haystack=haystack,
        model=model,
        progress=progress,
    )
    return run(plan)


async def aneedle_in_haystack(
    manager: ContextManager,
    *,
    scope: Scope,
    max_tokens: int = 2_000,
    lengths: Sequence[int] = LENGTHS,
    depths: Sequence[float] = DEPTHS,
    needles: Sequence[Needle] | None = None,
    haystack: Sequence[BaseMessage] | None = None,
    model: BaseChatModel | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NeedleReport:
    """`needle_in_haystack` on an event loop."""
    plan = _searched(
        manager,
        scope=scope,
        max_tokens=max_tokens,
        lengths=lengths,
        depths=depths,
        needles=needles,
        haystack=haystack,
        model=model,
        progress=progress,
    )
    return await arun(plan)


def _searched(
    manager: ContextManager,
    *,
    scope: Scope,
    max_tokens: int,
    lengths: Sequence[int],
    depths: Sequence[float],
    needles: Sequence[Needle] | None,
    haystack: Sequence[BaseMessage] | None,
    model: BaseChatModel | None,
    progress: Callable[[int, int], None] | None,
) -> Plan[NeedleReport]:
    budget = positive("max_tokens", max_tokens)
    if not isinstance(scope, Scope):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"scope must be a Scope, got {shown(scope)}")
    if model is not None and not isinstance(model, BaseChatModel):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"model must be a BaseChatModel or None, got {shown(model)}")
    piles = _piles(_sizes(lengths), _shares(depths), _needles(needles))
    longest = max(pile[0].length for pile in piles)
    hay = generated_haystack(longest) if haystack is None else list(haystack)
    ends = _ends(hay)
    if ends[-1] < longest:
        raise ValueError(f"haystack has {ends[-1]} tokens, lengths ask for {longest}")
    total = sum(map(len, piles))
    cells: list[NeedleCell] = []
    for number, pile in enumerate(piles):
        where = replace(scope, thread_id=f"{scope.thread_id or _THREAD}/{number}")
        messages = _with_needles(hay, ends, pile)
        try:
            yield from call(
                manager.record, messages, scope=where, at=[_moment(i) for i in range(len(messages))]
            )
            for cell in pile:
                cells.append((yield from _asked(manager, where, cell, budget, model)))
                if progress is not None:
                    progress(len(cells), total)
        except Exception:
            with suppress(StorageError):  # what went wrong first is told
                yield from call(manager.forget, scope=where)
            raise
        yield from call(manager.forget, scope=where)
    cells.sort(key=lambda cell: (cell.length_tokens, cell.depth))
    return NeedleReport(max_tokens=budget, cells=tuple(cells))


def _asked(
    manager: ContextManager,
    scope: Scope,
    cell: _Cell,
    max_tokens: int,
    model: BaseChatModel | None,
) -> Plan[NeedleCell]:
    query = HumanMessage(cell.needle.question)
    context = yield from call(manager.prepare, scope=scope, query=query, max_tokens=max_tokens)
    is_within = context.tokens <= max_tokens
    is_answered = None
    if model is not None:
        reply = yield from call(model.invoke, context.messages)
        is_answered = folded(cell.needle.answer).casefold() in folded(reply.text).casefold()
    return NeedleCell(
        length_tokens=cell.length,
        depth=cell.depth,
        needle=cell.needle,
        tokens=context.tokens,
        is_in_view=is_within and folded(cell.needle.text) in view_text(context.messages),
        is_answered=is_answered,
    )


def _piles(
    lengths: Sequence[int], depths: Sequence[float], needles: Sequence[Needle]
) -> list[list[_Cell]]:
    """What is hidden together: needles of one length that differ from each other."""
    return [
        [
            _Cell(length, depth, needle)
            for depth, needle in zip(depths[start : start + len(needles)], needles, strict=False)
        ]
        for length in lengths
        for start in range(0, len(depths), len(needles))
    ]


def _with_needles(
    hay: Sequence[BaseMessage], ends: Sequence[int], pile: Sequence[_Cell]
) -> list[BaseMessage]:
    """The beginning of `hay`, with each needle in the middle of a message at its depth."""
    last = next(place for place, end in enumerate(ends) if end >= pile[0].length)
    messages = list(hay[: last + 1])
    fit = [place for place, message in enumerate(messages) if _is_plain(message)]
    if not fit:
        raise ValueError("haystack must hold user or assistant messages of plain text")
    for cell in pile:
        wanted = cell.depth * ends[last]
        place = min(fit, key=lambda place: abs(ends[place] - wanted))
        messages[place] = _hiding(messages[place], cell.needle)
    return messages


def _is_plain(message: BaseMessage) -> bool:
    return (
        isinstance(message, HumanMessage | AIMessage)
        and isinstance(message.content, str)
        and not getattr(message, "tool_calls", None)
    )


def _hiding(message: BaseMessage, needle: Needle) -> BaseMessage:
    """`message` with the needle between two of its sentences."""
    parts = sentences(message.text)
    middle = sum(map(len, parts[: (len(parts) + 1) // 2]))
    before, after = message.text[:middle].rstrip(), message.text[middle:].lstrip()
    return message.model_copy(update={"content": f"{before} {needle.text} {after}".strip()})


def _ends(hay: Sequence[BaseMessage]) -> list[int]:
    """Tokens up to the end of each message."""
    if not hay or not all(isinstance(message, BaseMessage) for message in hay):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError("haystack must hold LangChain messages, one at least")
    size = counter_for(None).text
    return list(accumulate(size(message.text) for message in hay))


def _moment(number: int) -> datetime:
    day, place = divmod(number, _DAY_MESSAGES)
    return _START + day * (_DAY_MESSAGES * _PAUSE + _NIGHT) + place * _PAUSE


def _sizes(lengths: object) -> list[int]:
    return sorted({positive("lengths", length) for length in _listed("lengths", lengths)})


def _shares(depths: object) -> list[float]:
    shares = _listed("depths", depths)
    for share in shares:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ValueError(f"depths must be numbers from 0 to 1, got {shown(share)}")
    return sorted({float(share) for share in cast("list[float]", shares)})


def _needles(needles: object) -> list[Needle]:
    if needles is None:
        return default_needles()
    given = _listed("needles", needles)
    if not all(isinstance(needle, Needle) for needle in given):
        raise ValueError(f"needles must be Needles, got {shown(given)}")
    return list(dict.fromkeys(cast("list[Needle]", given)))


def _listed(name: str, values: object) -> list[object]:
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        listed = list(cast("Sequence[object]", values))
        if listed:
            return listed
    found = shown(cast("object", values))
    raise ValueError(f"{name} must be a sequence with something in it, got {found}")
