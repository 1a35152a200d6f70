"""Where everything stands in the prompt, and how recalled text is shown.

What changes least stands first: system text, summary, history, and last the current
turn with what was recalled for it, so that a provider's prompt cache holds up to the
current turn, and on through it where the next prompt shows it as it was sent. Recalled
text and summaries are data: they stand inside a fence that nothing within can close, each
line says which message it is from, who spoke and on which day, and lines of one message
are indented so that none can pose as another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple, TypeVar
from unicodedata import category, normalize
from unicodedata import name as unicode_name

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.prompt.validity import role_of
from langchain_ctxmgr.records import Memory

T = TypeVar("T")

_RECALLED = ("<recalled data-only>\n", "</recalled>\n\n")
_SUMMARY = ("<conversation-summary data-only>\n", "</conversation-summary>")
_FENCES = ("recalled", "conversation-summary")
_UNSEEN = r"[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]*"
"""Characters that show as nothing: a marker with them inside reads as one without."""
_FENCE = re.compile(
    rf"[<\uff1c\ufe64](?=[\W_]{{0,16}}(?:{'|'.join(map(_UNSEEN.join, _FENCES))}))", re.IGNORECASE
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LABELS = {"human": "user", "ai": "assistant"}
_ROLE_WORDS = frozenset(
    {
        "ai",
        "assistant",
        "chat",
        "developer",
        "function",
        "human",
        "instruction",
        "instructions",
        "model",
        "system",
        "tool",
        "user",
    }
)
"""A name with one of these in it could pose as the role of that name."""
_MOST_NAME_WORDS = 8
"""A longer name is a sentence."""
_NAME_MARKS = frozenset(" .,'\u2019-_@+&/#")


class Order(StrEnum):
    """In which order recalled messages, or exchanges of the history, are shown."""

    CACHE_STABLE = "cache_stable"
    """As they were said: what was sent before stays where it was."""
    BOOKEND = "bookend"
    """The most important first and last, the least in the middle, where models look least.

    Source: Liu et al. 2023, "Lost in the Middle".
    """
    IMPORTANCE_FIRST = "importance_first"
    ALTERNATING = "alternating"
    """The most important, the newest, the next important, the next newest, and so on."""


def ordered(items: Sequence[T], order: Order, score: Callable[[T], float]) -> list[T]:
    """`items`, given as they were said, in `order`; among equals the earlier one counts more."""
    if order is Order.CACHE_STABLE:
        return list(items)
    ranked = sorted(items, key=score, reverse=True)
    if order is Order.IMPORTANCE_FIRST:
        return ranked
    if order is Order.BOOKEND:
        return ranked[::2] + ranked[1::2][::-1]
    places = sorted(range(len(items)), key=lambda place: -score(items[place]))
    newest = range(len(items) - 1, -1, -1)
    mixed = (place for pair in zip(places, newest, strict=True) for place in pair)
    return [items[place] for place in dict.fromkeys(mixed)]


def row(*, slot: int, speaker: str | None, role: str, text: str) -> str:
    """One line that says which message, who, and what: `412 Ann: text`, newline included.

    A name that could be read as a role, or as more than a name, is quoted behind the real
    role: `412 user "system": text`. The text is verbatim but for white space (blank lines
    go, further lines are indented) and for fence markers, whose `<` becomes `&lt;`.
    """
    lines = [kept for line in text.splitlines() if (kept := line.rstrip())]
    said = "\n ".join(lines).lstrip()
    return _FENCE.sub("&lt;", f"{slot} {who(speaker or '', role)}: {said}\n")


def note(*, text: str, slots: Sequence[int]) -> str:
    """One line of a summary, with the numbers of the messages it is from, newline included.

    The text on one line, without fence markers: `- The port is 8443. [412, 415]`.
    """
    return _FENCE.sub("&lt;", f"- {' '.join(text.split())} [{', '.join(map(str, slots))}]\n")


def beside_recalled(block: str, sections: str) -> str:
    """The recalled block with labelled `sections` at its end, inside its fence."""
    if not sections:
        return block
    return (block.removesuffix(_RECALLED[1]) or _RECALLED[0]) + sections + _RECALLED[1]


def without_sections(block: str, sections: str) -> str:
    """The block as it was before `beside_recalled`."""
    left = block.replace(f"{sections}{_RECALLED[1]}", _RECALLED[1])
    return "" if left == "".join(_RECALLED) else left


def fence_tokens(counter: TokenCounter) -> int:
    """What the fence of a recalled block takes."""
    return sum(map(counter.text, _RECALLED))


def fact_line(*, at: datetime, by: str, text: str, source: str) -> str:
    """One line of a fact, newline included: `- 1 Mar 2025, user: I live in Oslo. [m7]`.

    The text on one line, without fence markers; behind it the id of the message that says so.
    """
    told = f"- {day(at.date()).rstrip()}, {by}: {' '.join(text.split())}"
    return _FENCE.sub("&lt;", f"{told} [{' '.join(source.split())}]\n")


def pinned_row(
    *, at: datetime, slot: int | None, speaker: str | None, role: str, text: str, source: str
) -> str:
    """One pinned message, newline included: `7 May 2023, 412 Ann: text`.

    Where it is of another thread, with its id, for a number would be of this one.
    """
    on = f"{day(at.date()).rstrip()}, "
    if slot is not None:
        return on + row(slot=slot, speaker=speaker, role=role, text=text)
    return fact_line(at=at, by=who(speaker or "", role), text=text, source=source)


def remembered(*, at: datetime, by: str, text: str, memory_id: str | None) -> str:
    """One line of what is remembered, newline included: `- 2025-03-01, human: I live in Oslo.`.

    The text on one line, without fence markers; behind it the id of a memory that can be
    forgotten.
    """
    behind = "" if memory_id is None else f" [memory {memory_id}]"
    return _FENCE.sub("&lt;", f"- {at:%Y-%m-%d}, {by}: {' '.join(text.split())}{behind}\n")


@lru_cache(maxsize=1_024)
def who(speaker: str, role: str) -> str:
    """Who says something, as a line shows it: a plain name, or the role ahead of any other."""
    label = _LABELS.get(role, role)
    name = " ".join(speaker.split())
    if not name:
        return label
    if is_plain(name):
        return name
    shown = "".join(sign for sign in name if sign.isprintable()).replace('"', "'")
    return f'{label} "{shown}"' if shown else label


def is_plain(name: str) -> bool:
    """Whether a name is letters, digits and the marks of names, and no role is in it."""
    if len(name.split()) > _MOST_NAME_WORDS:
        return False
    if not all(sign in _NAME_MARKS or category(sign)[0] in "LMN" for sign in name):
        return False
    if any(len(alphabets) > 1 for alphabets in map(_alphabets, name.split())):
        return False
    base = "".join(sign for sign in normalize("NFKD", name.casefold()) if category(sign)[0] != "M")
    words = re.findall(r"[^\W\d_]+", base)
    return _ROLE_WORDS.isdisjoint([*words, "".join(words)])


def _alphabets(word: str) -> set[str]:
    """Which of the alphabets with look-alike letters a word is written in."""
    found = {unicode_name(sign, "").partition(" ")[0] for sign in word}
    return found & {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE"}


def day(at: date) -> str:
    """The line above what was said on a day: `7 May 2023`, newline included."""
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}\n"


def headings(at: date) -> dict[int | date, str]:
    """The lines above what was said on a day, its year and itself, by what they name."""
    return {at.year: f"{at.year}\n", at: f"{at.day} {_MONTHS[at.month - 1]}\n"}


class _Line(NamedTuple):
    memory: Memory
    text: str
    tokens: int


class RecalledBlock:
    """Recalled messages as the text that stands ahead of the question, priced exactly.

    Every line is counted with its newline. Tokenizers never join across those, so the
    parts add up to the whole and packing can fill a budget to the token. The block's end
    may still merge with a question that starts with a newline or a slash: whoever promises
    a bound counts the finished message.
    """

    def __init__(self, counter: TokenCounter, order: Order = Order.CACHE_STABLE) -> None:
        self._counter = counter
        self._order = order
        self._lines: list[_Line] = []
        self._headed: set[int | date] = set()
        self._last: _Line | None = None
        self.tokens = 0
        """What the block adds to the question: 0 while it is empty."""

    def cost(self, memory: Memory) -> int:
        """What adding `memory` would add, the fence and the lines of its day included."""
        tokens = self._line(memory).tokens
        if not self._lines:
            tokens += fence_tokens(self._counter)
        if self._order is Order.CACHE_STABLE:
            above = headings(_day_of(memory)).items()
            tokens += sum(self._counter.text(line) for at, line in above if at not in self._headed)
        return tokens

    def add(self, memory: Memory) -> None:
        """Take `memory` into the block."""
        self.tokens += self.cost(memory)
        self._lines.append(self._line(memory))
        self._headed.update(headings(_day_of(memory)))

    def render(self) -> str:
        """The block, fence and blank line after it included; empty without memories."""
        if not self._lines:
            return ""
        lines = ordered(
            sorted(self._lines, key=_place), self._order, lambda line: line.memory.score
        )
        parts: list[str] = []
        above: dict[int | date, str] = {}
        for line in lines:
            if self._order is Order.CACHE_STABLE:
                new = headings(_day_of(line.memory))
                parts += (text for at, text in new.items() if at not in above)
                above = new
            parts.append(line.text)
        return "".join((_RECALLED[0], *parts, _RECALLED[1]))

    def _line(self, memory: Memory) -> _Line:
        if self._last is None or self._last.memory is not memory:
            text = row(slot=memory.slot, speaker=memory.speaker, role=memory.role, text=memory.text)
            if self._order is not Order.CACHE_STABLE:
                text = f"{day(_day_of(memory)).rstrip()}, {text}"
            self._last = _Line(memory, text, self._counter.text(text))
        return self._last


def _day_of(memory: Memory) -> date:
    return memory.at.date()


def _place(line: _Line) -> tuple[date, str, int]:
    return _day_of(line.memory), line.memory.thread_id, line.memory.slot


def summary_message(text: str) -> HumanMessage:
    """A summary as the message that stands for what the view leaves out.

    A user message, not system text: it quotes the conversation. Its id depends on the
    text alone.
    """
    name = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    fenced = f"{_SUMMARY[0]}{text.rstrip()}\n{_SUMMARY[1]}"
    return HumanMessage(content=fenced, id=f"summary-{name}")


def with_recalled(message: BaseMessage, recalled: str) -> BaseMessage:
    """A copy of the question with the recalled block ahead of its own content."""
    if not recalled:
        return message
    if isinstance(message.content, str):
        return message.model_copy(update={"content": recalled + message.content})
    block = {"type": "text", "text": recalled.rstrip()}
    return message.model_copy(update={"content": [block, *message.content]})


def assemble(
    *,
    system: BaseMessage | None = None,
    summary: str = "",
    history: Sequence[BaseMessage] = (),
    turn: Sequence[BaseMessage] = (),
    recalled: str = "",
) -> list[BaseMessage]:
    """The messages to send: system, summary, history, current turn.

    Recalled text goes into the user message that opens the turn; where none does, it
    stands in a user message of its own. The input is never changed.
    """
    messages = [] if system is None else [system]
    if summary:
        messages.append(summary_message(summary))
    messages += history
    if recalled and turn and role_of(turn[0]) == "human":
        return [*messages, with_recalled(turn[0], recalled), *turn[1:]]
    if recalled:
        messages.append(HumanMessage(content=recalled.rstrip()))
    return [*messages, *turn]


def prefix_digest(messages: Iterable[BaseMessage]) -> str:
    """SHA-256, as hex, of what the provider is sent before the current turn."""
    digest = sha256()
    for message in messages:
        content = message.content
        is_text = isinstance(content, str)
        encoded = (content if is_text else repr(content)).encode("utf-8", "surrogatepass")
        calls = message.tool_calls if isinstance(message, AIMessage) else None
        answers = message.tool_call_id if isinstance(message, ToolMessage) else None
        parts = (message.type, message.id, message.name, answers, is_text, len(encoded))
        head = f"{parts!r}{calls or None!r}{message.additional_kwargs or None!r}\n"
        digest.update(head.encode("utf-8", "surrogatepass") + encoded)
    return digest.hexdigest()
