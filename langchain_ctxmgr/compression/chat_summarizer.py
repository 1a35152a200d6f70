"""A rolling summary by a chat model: the statements so far and what is new make the next ones.

The model is asked for statements that name their sources. Each is held against the messages it
names; what they do not bear out is replaced by the sentence it was about. A refusal, an empty
answer, one that is no list or longer than what it sums up is an error: the summary stays what
it was. What is longer than the model takes at once is given to it in parts, none left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import cache, partial
from importlib.resources import files
from typing import Final, NamedTuple

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.utils.json import parse_json_markdown
from pydantic import BaseModel, Field, TypeAdapter, field_validator

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.analysis import message_text
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.compression.extractive import Extract, extract
from langchain_ctxmgr.compression.model_call import ModelCall
from langchain_ctxmgr.compression.statements import Cited, Kind, Statement, fitting, sendable
from langchain_ctxmgr.compression.verification import Evidence, Source, extracted
from langchain_ctxmgr.errors import SummaryError
from langchain_ctxmgr.prompt.layout import day, row, who
from langchain_ctxmgr.records import LogRecord

_WORDS_PER_TOKEN: Final = 0.6
"""About, so that an answer stays within its bound."""
_WEIGHED: Final = 64
"""Messages whose sentences are weighed together."""
_OVERHEAD: Final = 32
_ROLES: Final = {"human": "the user", "ai": "the assistant"}


class Update(NamedTuple):
    """The next statements, and how they came about."""

    statements: list[Statement]
    written: int
    """Statements in the model's answers."""
    unsupported: list[str]
    """Why the others were replaced, one reason each."""
    fresh: list[Statement]
    """Those of what is new, whether or not they found room among `statements`."""

    def then(self, after: Update) -> Update:
        """This and the next call's."""
        written, unsupported = self.written + after.written, self.unsupported + after.unsupported
        return Update(after.statements, written, unsupported, self.fresh + after.fresh)

    @property
    def supported(self) -> float:
        """Share of what was written that its sources bear out, 0 to 1; 1 for nothing."""
        return 1 - len(self.unsupported) / self.written if self.written else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSummarizer:
    """Rolling summaries by a chat model, made off the hot path.

    Raises:
        ValueError: If a setting is out of its range.
    """

    model: BaseChatModel
    section_tokens: int = 8_000
    """A summary is brought up to date whenever so much more was said."""
    trigger_tokens: int | None = None
    """A thread is summed up once it has so many; None: half of what the model takes."""
    max_tokens: int = 600
    """Of the overview, at most."""
    max_notes_tokens: int = 4_000
    """Of the sections' own notes beside it, at most: the oldest go up into the overview."""
    max_chunk_tokens: int = 16_000
    """New messages handed to the model in one call, at most: less than its window."""
    read_share: float = 0.2
    """Share of what was said that the model reads: the sentences that say most; 1: all of it."""
    timeout: timedelta = timedelta(seconds=60)
    """For one call."""
    min_supported: float = 0.8
    """Share of what is written that its sources should bear out; below, an event says so."""
    min_preserved: float = 0.6
    """Share of the statements so far whose sources the next ones must still name."""
    max_cost_per_day: Decimal | None = None
    """USD a tenant's summaries may take in a day (UTC) in this process; None: no bound."""
    prompt: str | None = None
    """Instructions in place of `prompts/rolling_summary.txt`; `{max_words}` is filled in."""

    def __post_init__(self) -> None:
        if not isinstance(self.model, BaseChatModel):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"model must be a BaseChatModel, got {type(self.model).__name__}")
        sizes = ("section_tokens", "max_tokens", "max_notes_tokens", "max_chunk_tokens")
        for name in sizes if self.trigger_tokens is None else (*sizes, "trigger_tokens"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 100:  # noqa: PLR2004 - less holds no note
                raise ValueError(f"{name} must be an int of at least 100, got {value!r}")
        for name in ("min_supported", "min_preserved", "read_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)!r}")
        if self.timeout <= timedelta(0):
            raise ValueError(f"timeout must be positive, got {self.timeout!r}")
        if self.max_cost_per_day is not None and self.max_cost_per_day < 0:
            raise ValueError(f"max_cost_per_day must not be negative, got {self.max_cost_per_day}")

    @property
    def instructions(self) -> str:
        """What the model is told."""
        text = prompt_text("rolling_summary") if self.prompt is None else self.prompt
        return text.replace("{max_words}", str(int(self.max_tokens * _WORDS_PER_TOKEN)))

    @property
    def identity(self) -> tuple[object, ...]:
        """What a finished summary follows from besides its messages."""
        name = getattr(self.model, "model_name", None) or getattr(self.model, "model", None)
        model = (type(self.model).__name__, str(name))
        sizes = (self.section_tokens, self.max_tokens, self.max_notes_tokens, self.read_share)
        return (*model, *sizes, self.instructions)

    def parts(self, records: Sequence[LogRecord], counter: TokenCounter) -> Iterator[list[Extract]]:
        """What the model reads of `records`, in as many calls as that takes."""
        if self.read_share >= 1:
            said = [Extract(record, message_text(record.message)) for record in records]
        else:
            said = list(_telling(records, self.read_share, counter))
        return _parts(said, self.max_chunk_tokens, counter)

    def update(
        self,
        previous: Sequence[Statement],
        part: Sequence[Extract],
        cited: Mapping[str, LogRecord],
        counter: TokenCounter,
        paid: Callable[[AIMessage], None],
    ) -> Plan[Update]:
        """The statements that stand for `previous` and `part`, by one call of the model.

        Args:
            previous: The statements so far.
            part: What was said since, oldest first.
            cited: The messages that `previous` comes from, by id; one that is missing is gone
                from the log, and what rests on it alone goes too.
            counter: What sizes are counted with.
            paid: Handed the reply, whether or not it can be used.

        Raises:
            SummaryError: If the answer is no summary. What the model itself raises passes.
        """
        known = {**cited, **{piece.record.message_id: piece.record for piece in part}}
        before = [each for each in previous if any(s.message_id in known for s in each.sources)]
        asked = _question(before, part)
        reply = yield from call(
            ModelCall(self.model, self.timeout).invoke,
            [SystemMessage(self.instructions), HumanMessage(asked)],
        )
        paid(reply)
        answers = _answers(reply, max(self.max_tokens, counter.text(asked)), counter)
        checked = _checked(answers, before, part, known)
        kept = self._preserving(before, checked.statements)
        return self._updated(kept, part, len(answers), checked.problems, counter)

    def extracted(
        self,
        previous: Sequence[Statement],
        records: Sequence[LogRecord],
        counter: TokenCounter,
    ) -> Update:
        """The same without the model: for `records` the sentences of theirs that say most."""
        part = extract(records, self.max_tokens, counter)
        quoted = [_quoted(Kind.FACT, each.record, each.text) for each in part]
        return self._updated([*previous, *quoted], part, 0, [], counter)

    def _updated(
        self,
        statements: Sequence[Statement],
        part: Sequence[Extract],
        written: int,
        problems: list[str],
        counter: TokenCounter,
    ) -> Update:
        new = {piece.record.message_id for piece in part}
        return Update(
            fitting(statements, self.max_tokens, counter),
            written,
            problems,
            [s for s in statements if not new.isdisjoint(c.message_id for c in s.sources)],
        )

    def _preserving(
        self, previous: Sequence[Statement], after: Sequence[Statement]
    ) -> list[Statement]:
        """`after` with those of `previous` put back that it should not have lost."""
        named = {source.message_id for each in after for source in each.sources}
        lost = [s for s in previous if named.isdisjoint(c.message_id for c in s.sources)]
        allowed = int(len(previous) * (1 - self.min_preserved))
        back = sorted(lost, key=lambda each: each.weight, reverse=True)
        back = back[: max(0, len(lost) - allowed)]
        return [*(each for each in previous if each in back), *after]


def _telling(
    records: Sequence[LogRecord], share: float, counter: TokenCounter
) -> Iterator[Extract]:
    """The sentences that say most, a few messages at a time."""
    for first in range(0, len(records), _WEIGHED):
        some = records[first : first + _WEIGHED]
        tokens = sum(counter.text(message_text(record.message)) for record in some)
        # The room for a fence and for names that a shown summary would need.
        yield from extract(some, int(tokens * share) + _OVERHEAD, counter)


def _parts(
    said: Sequence[Extract], max_tokens: int, counter: TokenCounter
) -> Iterator[list[Extract]]:
    """All of `said`, in lists of at most `max_tokens`."""
    part: list[Extract] = []
    room = max_tokens
    for record, whole in said:
        for text in _cut(whole, max_tokens, counter):
            tokens = counter.text(text)
            if part and tokens > room:
                yield part
                part, room = [], max_tokens
            part.append(Extract(record, text))
            room -= tokens
    if part:
        yield part


def _cut(text: str, max_tokens: int, counter: TokenCounter) -> Iterator[str]:
    """`text` in pieces of at most `max_tokens`; nothing for blank text."""
    if not text.strip():
        return
    if counter.text(text) <= max_tokens:
        yield text
        return
    middle = text.rfind(" ", len(text) // 4, len(text) // 2) + 1 or len(text) // 2
    yield from _cut(text[:middle], max_tokens, counter)
    yield from _cut(text[middle:], max_tokens, counter)


def _question(statements: Sequence[Statement], part: Sequence[Extract]) -> str:
    """The notes so far and the new messages, each under its name."""
    lines = ["Notes so far:\n"]
    for number, statement in enumerate(statements, 1):
        lines.append(f"[s{number}] {statement.kind.value}: {statement.text}\n")
    lines.append("(none)\n\nNew messages:\n" if not statements else "\nNew messages:\n")
    shown = None
    for number, (record, text) in enumerate(part, 1):
        if record.at.date() != shown:
            shown = record.at.date()
            lines.append(day(record.at))
        said = row(slot=record.slot, speaker=record.speaker, role=record.role, text=text)
        lines.append(f"[m{number}] {said.partition(' ')[2]}")
    return sendable("".join(lines))


class _Answer(BaseModel):
    """A statement as the model wrote it."""

    kind: Kind = Kind.FACT
    text: str = Field(min_length=1)
    sources: list[str] = []

    @field_validator("kind", mode="before")
    @classmethod
    def _known(cls, kind: object) -> object:
        """A kind nobody knows is a fact's."""
        return kind if kind in list(Kind) else Kind.FACT

    @field_validator("text", mode="before")
    @classmethod
    def _on_one_line(cls, text: object) -> object:
        """Further lines could pose as messages where the notes are handed on."""
        return sendable(" ".join(text.split())) if isinstance(text, str) else text


def _answers(reply: AIMessage, max_tokens: int, counter: TokenCounter) -> list[_Answer]:
    """What a reply states.

    Raises:
        SummaryError: If it refuses, is empty, too long, or states nothing that can be read.
    """
    text = reply.text.strip()
    ends = {reply.response_metadata.get(name) for name in ("finish_reason", "stop_reason")}
    if reply.additional_kwargs.get("refusal") or ends & _REFUSED:
        raise SummaryError("the model refused")
    if ends & _CUT_OFF:
        raise SummaryError("the model's answer is cut off at its output limit")
    if not text:
        raise SummaryError("the model's answer is empty")
    try:
        answers = _ANSWERS.validate_python(parse_json_markdown(text, parser=_parsed))
    except ValueError:
        raise SummaryError("the model's answer is no list of statements") from None
    if sum(counter.text(answer.text) for answer in answers) > max_tokens:
        raise SummaryError("the model's answer is longer than what it sums up")
    return answers


_ANSWERS: Final = TypeAdapter(list[_Answer])
_parsed: Final = partial(json.loads, strict=False)
"""Without the ends that LangChain's own parser adds: half a statement can say the opposite."""
_REFUSED: Final = {"content_filter", "refusal", "SAFETY"}
_CUT_OFF: Final = {"length", "max_tokens", "MAX_TOKENS"}
"""What OpenAI, Anthropic and Gemini end an answer with that has no room for its end."""


class _Checked(NamedTuple):
    statements: list[Statement]
    problems: list[str]


def _checked(
    answers: Sequence[_Answer],
    previous: Sequence[Statement],
    part: Sequence[Extract],
    known: Mapping[str, LogRecord],
) -> _Checked:
    """The answers that hold, and for the others the sentences they were about."""
    names: dict[str, tuple[str, ...]] = {
        f"m{number}": (piece.record.message_id,) for number, piece in enumerate(part, 1)
    }
    for number, statement in enumerate(previous, 1):
        names[f"s{number}"] = tuple(source.message_id for source in statement.sources)
    everything = tuple(dict.fromkeys(name for ids in names.values() for name in ids))
    checked = _Checked([], [])
    for answer in answers:
        ids = dict.fromkeys(each for name in answer.sources for each in names.get(name, ()))
        sources = [known[each] for each in ids or everything if each in known]
        evidence = Evidence([source_of(record) for record in sources])
        problem = evidence.problem(answer.text) if ids else "it names no source"
        if problem is None:
            cited = tuple(_cited(record) for record in sources)
            checked.statements.append(Statement(kind=answer.kind, text=answer.text, sources=cited))
            continue
        checked.problems.append(f"{answer.text[:120]!r}: {problem}")
        instead = extracted(answer.text, evidence)
        if instead is not None:
            stands = _quoted(answer.kind, sources[instead.source], instead.text)
            if stands not in checked.statements:
                checked.statements.append(stands)
    return checked


def _quoted(kind: Kind, record: LogRecord, text: str) -> Statement:
    """A message's own words as a statement."""
    said = sendable(f"{_shown(record)}: {text}")
    return Statement(kind=kind, text=said, sources=(_cited(record),))


def source_of(record: LogRecord) -> Source:
    """A recorded message as statements are held against it."""
    return Source(text=message_text(record.message), speaker=_speaker(record), at=record.at)


def _cited(record: LogRecord) -> Cited:
    return Cited(record.message_id, record.slot, record.importance, record.tokens)


def _speaker(record: LogRecord) -> str:
    return record.speaker or _ROLES.get(record.role, record.role)


def _shown(record: LogRecord) -> str:
    """Who says it, where a summary quotes it: a name that poses as a role is no speaker's."""
    name = (record.speaker or "").strip()
    return who(name, record.role) if name else _ROLES.get(record.role, record.role)


@cache
def prompt_text(name: str) -> str:
    """The instructions in `prompts/<name>.txt`."""
    folder = files("langchain_ctxmgr.compression").joinpath("prompts")
    return folder.joinpath(f"{name}.txt").read_text("utf-8").strip()
