"""What every provider accepts, and how a recorded history is mended to it.

A history is folded into *groups*, the runs of messages that stand or fall together: a
user message, an AI message with the results of all its calls, a lone AI message. What
no provider would accept (a result without its call, a call without its result) is left
out of the view and accounted for; the log keeps it. One small class a rule says what is
wrong and what becomes of it. Reasoning and opaque provider blocks need no rule: a group
is kept or left out whole and its AI message is never edited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast

from langchain_core.messages import BaseMessage

_ROLES = {
    "HumanMessageChunk": "human",
    "AIMessageChunk": "ai",
    "SystemMessageChunk": "system",
    "ToolMessageChunk": "tool",
    "FunctionMessageChunk": "function",
    "ChatMessageChunk": "chat",
}
_CHAT_ROLES = {
    "user": "human",
    "human": "human",
    "assistant": "ai",
    "ai": "ai",
    "model": "ai",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "function",
}
_CALL_BLOCKS = frozenset({"tool_use", "tool_call", "invalid_tool_call", "function_call"})
"""Content blocks that ask the host for a result (server-side tools bring their own)."""
_REASONING_BLOCKS = frozenset({"thinking", "redacted_thinking", "reasoning", "reasoning_content"})


def role_of(message: BaseMessage) -> str:
    """The part a message plays: human, ai, system, tool, function, remove or chat.

    Chunks count as what they are chunks of, a `ChatMessage` as its role when it has a
    known one.
    """
    kind = _ROLES.get(message.type, message.type)
    if kind == "chat":
        return _CHAT_ROLES.get(str(getattr(message, "role", "")).casefold(), kind)
    return kind


def asked_by(message: BaseMessage) -> tuple[str | None, ...]:
    """The ids of the calls that must be answered before anything else is said.

    Calls that could not be parsed count: providers are sent them too. A legacy function
    call is identified by its function's name. None stands for a call without an id.
    """
    ids: list[str | None] = [
        call.get("id") or None
        for attribute in ("tool_calls", "invalid_tool_calls")
        for call in cast("list[dict[str, Any]]", getattr(message, attribute, ()))
    ]
    extra = message.additional_kwargs
    if not ids and extra:
        raw = cast("Sequence[dict[str, Any]]", extra.get("tool_calls") or ())
        ids = [call.get("id") or None for call in raw]
    if isinstance(message.content, list):
        blocks = (block for block in message.content if isinstance(block, dict))
        inside = [
            block.get("call_id") or block.get("id")
            for block in blocks
            if block.get("type") in _CALL_BLOCKS
        ]
        ids += [call_id for call_id in dict.fromkeys(inside) if call_id and call_id not in ids]
    if not ids and "function_call" in extra:
        return (_function_id(str(extra["function_call"].get("name"))),)
    return tuple(ids)


def _answer_of(message: BaseMessage) -> str | None:
    if message.type.startswith(("f", "F")):
        return _function_id(str(message.name))
    return getattr(message, "tool_call_id", None)


def _function_id(name: str) -> str:
    return f"function:{name}"


def is_blank(message: BaseMessage, *, reasoning_counts: bool = False) -> bool:
    """Whether a message says nothing a provider would accept: no text, no media."""
    content = message.content
    if isinstance(content, str):
        return not content.strip() and "audio" not in message.additional_kwargs
    for block in content:
        if isinstance(block, str):
            if block.strip():
                return False
        elif block.get("type") == "text":
            if str(block.get("text") or "").strip():
                return False
        elif reasoning_counts or block.get("type") not in _REASONING_BLOCKS:
            return False
    return True


@dataclass(slots=True)
class Draft:
    """A history on its way through the rules."""

    messages: Sequence[BaseMessage]
    roles: list[str]
    owner: list[int]
    """For each message, the index of the one that leads its group."""
    has_turn: bool = True
    asked: dict[int, tuple[str | None, ...]] = field(default_factory=dict[int, Any])
    answers: dict[int, dict[str, int]] = field(default_factory=dict[int, Any])
    """For each AI message with calls: call id to the index of its result."""
    system: list[int] = field(default_factory=list[int])
    dropped: dict[int, str] = field(default_factory=dict[int, str])

    @property
    def question(self) -> int | None:
        """The index of the user message that opens the current turn."""
        if not self.has_turn:
            return None
        for index in range(len(self.roles) - 1, -1, -1):
            if self.roles[index] == "human":
                return index
        return None


class Rule(Protocol):
    """One thing that providers insist on."""

    def apply(self, draft: Draft) -> None:
        """Group or drop what the rule speaks of."""
        ...


class SystemLeads:
    """System text stands first and once, so it leaves the run of the conversation."""

    def apply(self, draft: Draft) -> None:
        """Set system messages apart; ignore requests to remove a message."""
        for index, role in enumerate(draft.roles):
            if role == "system":
                draft.system.append(index)
            elif role == "remove":
                draft.dropped[index] = "a request to remove a message is not content"


class ResultJoinsItsCall:
    """A tool result stands right after the message that asked for it.

    It answers the latest message before it that asked for its id, also when something
    was said in between. Of several results for one call the first counts: it may have
    been sent already, and a later one would change what stands.
    """

    def apply(self, draft: Draft) -> None:
        """Give each result to its call; drop strays and repeats."""
        callers: dict[str, int] = {}
        for index, role in enumerate(draft.roles):
            if role == "ai":
                asked = asked_by(draft.messages[index])
                if asked:
                    draft.asked[index] = asked
                    draft.answers[index] = {}
                    callers.update((call_id, index) for call_id in asked if call_id)
            elif role in {"tool", "function"}:
                answer = _answer_of(draft.messages[index])
                caller = callers.get(answer) if answer else None
                if caller is None or answer is None:
                    draft.dropped[index] = "a tool result without its call"
                elif answer in draft.answers[caller]:
                    draft.dropped[index] = "another result for the same call"
                else:
                    draft.answers[caller][answer] = index
                    draft.owner[index] = caller


class EveryCallIsAnswered:
    """A message with calls needs every one of their results, parallel calls included."""

    def apply(self, draft: Draft) -> None:
        """Drop a message with an open call, and the results of its other calls."""
        for index, asked in draft.asked.items():
            answers = draft.answers[index]
            if len(answers) == len(asked):
                continue
            draft.dropped[index] = "a call without its result"
            for answer in answers.values():
                draft.dropped[answer] = "a parallel call has no result"


class SomethingIsSaid:
    """Some providers reject a message without text, media or calls.

    The current question is the host's own and stays as it is.
    """

    def apply(self, draft: Draft) -> None:
        """Drop blank messages; in the current turn reasoning alone is enough to stay."""
        question = draft.question
        for index, role in enumerate(draft.roles):
            if index == question or role in {"tool", "function", "system", "remove"}:
                continue
            if index in draft.asked:
                continue
            active = question is not None and index > question
            if is_blank(draft.messages[index], reasoning_counts=active):
                draft.dropped[index] = "nothing in it"


RULES: tuple[Rule, ...] = (
    SystemLeads(),
    ResultJoinsItsCall(),
    EveryCallIsAnswered(),
    SomethingIsSaid(),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Messages that stand or fall together."""

    indexes: tuple[int, ...]
    """Where they stand in the folded list, the leading message first."""
    messages: tuple[BaseMessage, ...]
    opens: bool
    """Whether a window may start here: with a user message, as providers ask."""
    tokens: int
    importance: float
    """Of its most important message, 0 to 1."""


class Dropped(NamedTuple):
    """A message that no provider would accept where it stands."""

    place: int
    """Its index in the folded list."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """A history as groups, in order, and what was set apart."""

    groups: tuple[Group, ...]
    system: tuple[int, ...]
    """Indexes of system messages: the caller decides which one leads the view."""
    dropped: tuple[Dropped, ...]

    @property
    def turn(self) -> int:
        """Index of the group that opens the current turn; `len(groups)` without one."""
        for index in range(len(self.groups) - 1, -1, -1):
            if self.groups[index].opens:
                return index
        return len(self.groups)


def fold(
    messages: Sequence[BaseMessage],
    *,
    tokens: Sequence[int] = (),
    importance: Sequence[float] = (),
    has_turn: bool = True,
) -> Folded:
    """The messages as indivisible groups in order, mended to what every provider takes.

    Args:
        messages: Oldest first; the list may begin in the middle of a group.
        tokens: What each message costs; without them groups cost 0.
        importance: How much each message matters, 0 to 1; without it 0.
        has_turn: Whether the last user message opens the current turn. The current turn
            is left as the host made it where a history would be mended: the question may
            be blank, and a message of nothing but reasoning stays.
    """
    draft = Draft(
        messages=messages,
        roles=[role_of(message) for message in messages],
        owner=list(range(len(messages))),
        has_turn=has_turn,
    )
    for rule in RULES:
        rule.apply(draft)
    members: dict[int, list[int]] = {}
    gone = draft.dropped.keys() | draft.system
    for index, owner in enumerate(draft.owner):
        if index not in gone:
            members.setdefault(owner, []).append(index)
    return Folded(
        groups=tuple(
            Group(
                indexes=tuple(indexes),
                messages=tuple([messages[index] for index in indexes]),
                opens=draft.roles[leader] == "human",
                tokens=sum([tokens[index] for index in indexes]) if tokens else 0,
                importance=max([importance[index] for index in indexes]) if importance else 0.0,
            )
            for leader, indexes in members.items()
        ),
        system=tuple(draft.system),
        dropped=tuple(Dropped(index, draft.dropped[index]) for index in sorted(draft.dropped)),
    )
