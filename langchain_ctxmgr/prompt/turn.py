"""Making the current turn fit while its tool loop grows.

The user's message and every AI message stay as they are. Tool results give way: the
oldest rounds of calls first, each cut in the middle with a visible marker, then left out
whole. A compaction goes down to half the room, so the next ones are far off, and a
round that was cut keeps its bytes from then on. Which rounds are cut is worked out by
replaying the loop from its first round: a pure function of the turn and its room, with
nothing remembered between calls. Within a round the largest results are cut first, to
one common size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import NamedTuple, cast

from langchain_core.messages import BaseMessage

from langchain_ctxmgr.budget.tokens import TokenCounter, middle_cut
from langchain_ctxmgr.errors import ContextOverflowError
from langchain_ctxmgr.prompt.validity import Group, asked_by, role_of

MIN_RESULT_TOKENS = 32
"""A cut result keeps at least this much: less says nothing but that it was cut."""
_CUT_SHARE = 16
"""The results of a round that gave way share one sixteenth of the room."""


class Trim(NamedTuple):
    """A message that was cut or left out to fit."""

    place: int
    """Where the message stood in the folded list."""
    message: BaseMessage
    from_tokens: int
    to_tokens: int
    """0: left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedTurn:
    """The current turn as it will be sent."""

    messages: tuple[BaseMessage, ...]
    tokens: int
    trims: tuple[Trim, ...]


def cut_message(message: BaseMessage, max_tokens: int, counter: TokenCounter) -> BaseMessage:
    """A copy whose text is cut in the middle, with a marker, to at most `max_tokens`.

    Media give way to a note of their type. The copy keeps id, name and all else. With
    less than the message's own overhead to spend the text is empty.
    """
    bare = _bare(message)
    room = max_tokens - counter.message(bare)
    if room <= 0:
        return bare
    return message.model_copy(update={"content": middle_cut(counter, _plain(message), room)})


def _bare(message: BaseMessage) -> BaseMessage:
    return message.model_copy(update={"content": ""})


def _plain(message: BaseMessage) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    parts: list[str] = []
    for block in content:
        if isinstance(block, str):
            parts.append(block)
        elif isinstance(block.get("text"), str):
            parts.append(cast("str", block["text"]))
        else:
            parts.append(f"[{block.get('type', 'block')}]")
    return "\n".join(parts)


def _level(sizes: Sequence[int], room: int) -> int:
    """The largest size to which all must be cut so that their sum fits `room`."""
    left = len(sizes)
    for size in sorted(sizes):
        if size * left > room:
            return max(room, 0) // left
        room -= size
        left -= 1
    return max(sizes, default=0)


class _State(Enum):
    WHOLE = auto()
    CUT = auto()
    GONE = auto()


class _Round:
    """A group of the turn's tool traffic and its two sizes."""

    def __init__(self, group: Group, room: int, counter: TokenCounter) -> None:
        self.group = group
        self.state = _State.WHOLE
        self.sizes = [counter.message(message) for message in group.messages]
        self._counter = counter
        results = [
            (size, counter.message(_bare(message)))
            for size, message in zip(self.sizes, group.messages, strict=True)
            if _is_result(message)
        ]
        sizes = [size for size, _ in results]
        total = sum(self.sizes)
        fixed = total - sum(sizes)
        smallest = max([MIN_RESULT_TOKENS, *(bare for _, bare in results)])
        self.least_tokens = fixed + sum(min(size, smallest) for size in sizes)
        share = room // (_CUT_SHARE * max(1, len(results)))
        least = max(smallest, share)
        if fixed + sum(min(size, least) for size in sizes) > room:
            least = smallest
        self._whole = max(sizes, default=0)
        if total > room:
            self._whole = max(least, _level(sizes, max(0, room // 2 - fixed)))
        self._cut = min(least, self._whole)
        self.whole_tokens = fixed + sum(min(size, self._whole) for size in sizes)
        self.cut_tokens = fixed + sum(min(size, self._cut) for size in sizes)

    @property
    def tokens(self) -> int:
        """At most what the round costs in its state."""
        if self.state is _State.GONE:
            return 0
        return self.whole_tokens if self.state is _State.WHOLE else self.cut_tokens

    def messages(self) -> list[BaseMessage]:
        """The round as its state has it."""
        if self.state is _State.GONE:
            return []
        largest = self._whole if self.state is _State.WHOLE else self._cut
        return [
            cut_message(message, largest, self._counter)
            if _is_result(message) and size > largest
            else message
            for size, message in zip(self.sizes, self.group.messages, strict=True)
        ]


def is_speech(group: Group) -> bool:
    """Whether it is something that the model said, calling nothing."""
    message = group.messages[0]
    return role_of(message) == "ai" and not asked_by(message)


def _is_result(message: BaseMessage) -> bool:
    return role_of(message) in {"tool", "function"}


def least_tokens(groups: Sequence[Group], *, most_tokens: int, counter: TokenCounter) -> int:
    """The least limit that held each round of the turn when it came in, results cut.

    Rounds that not even `most_tokens` hold do not count. As the turn grows the limit may
    rise and never falls.
    """
    costs = [sum(counter.message(message) for message in group.messages) for group in groups]
    asked = costs[0] if costs else 0
    most = most_tokens - asked
    needs = (_Round(group, most, counter).least_tokens for group in groups[1:])
    return min(sum(costs), asked + max((need for need in needs if need <= most), default=0))


def fit_turn(
    groups: Sequence[Group],
    *,
    limit_tokens: int,
    counter: TokenCounter,
    fixed_tokens: int = 0,
) -> FittedTurn:
    """The current turn in at most `limit_tokens`.

    Nothing is cut while the turn fits. With the same limit, a turn that grows keeps the
    bytes already sent between two compactions.

    Args:
        groups: The turn, its user message first.
        limit_tokens: What the turn may take.
        counter: Counts messages, overhead included.
        fixed_tokens: What is sent besides and cannot be left out (system text, tool
            schemas); only for the numbers in the error.

    Raises:
        ContextOverflowError: If the user message alone does not fit.
    """
    if not groups:
        return FittedTurn(messages=(), tokens=0, trims=())
    question = groups[0]
    needed = sum(counter.message(message) for message in question.messages)
    if needed > limit_tokens:
        raise ContextOverflowError(
            needed_tokens=needed + fixed_tokens,
            max_tokens=limit_tokens + fixed_tokens,
            what="the current message with system text and tools",
        )
    room = limit_tokens - needed
    traffic = [message for group in groups[1:] for message in group.messages]
    total = sum(counter.message(message) for message in traffic)
    if total <= room:
        return FittedTurn(messages=(*question.messages, *traffic), tokens=needed + total, trims=())
    rounds = _fitted(groups[1:], room, counter)
    messages = list(question.messages)
    tokens = needed
    trims: list[Trim] = []
    for part in rounds:
        kept = part.messages()
        messages += kept
        for place, (index, message) in enumerate(
            zip(part.group.indexes, part.group.messages, strict=True)
        ):
            size = part.sizes[place]
            if kept and kept[place] is message:
                tokens += size
                continue
            left = counter.message(kept[place]) if kept else 0
            tokens += left
            trims.append(Trim(index, message, size, left))
    return FittedTurn(messages=tuple(messages), tokens=tokens, trims=tuple(trims))


def fit_rounds(groups: Sequence[Group], room_tokens: int, counter: TokenCounter) -> list[Group]:
    """Rounds of a turn that do not fit `room_tokens`, as `fit_turn` sends them."""
    return [
        replace(
            part.group,
            messages=tuple(kept),
            tokens=sum(counter.message(message) for message in kept),
        )
        for part in _fitted(groups, room_tokens, counter)
        if (kept := part.messages())
    ]


def _fitted(groups: Sequence[Group], room: int, counter: TokenCounter) -> list[_Round]:
    rounds = [_Round(group, room, counter) for group in groups]
    _settle(rounds, room)
    _end_without_speech(rounds)
    return rounds


def _settle(rounds: Sequence[_Round], room: int) -> None:
    """Replay the loop: as each round comes in, older ones give way."""
    total = 0
    for newest, part in enumerate(rounds):
        if part.tokens > room:
            part.state = _State.GONE
            continue
        total += part.tokens
        if total <= room:
            continue
        older = rounds[:newest]
        for state, target in ((_State.CUT, room // 2), (_State.GONE, room)):
            if total <= target:
                break
            total = _give_way(older, state, total, room // 2)


def _end_without_speech(rounds: Sequence[_Round]) -> None:
    """Leave out what the model said last where the rounds after it are gone: it speaks next."""
    for part in reversed(rounds):
        if part.state is not _State.GONE:
            if not is_speech(part.group):
                return
            part.state = _State.GONE


def _give_way(rounds: Sequence[_Round], state: _State, total: int, target: int) -> int:
    """Bring rounds to `state`, oldest first, until `target` is reached."""
    for part in rounds:
        if total <= target:
            break
        if part.state.value < state.value:
            total -= part.tokens
            part.state = state
            total += part.tokens
    return total
