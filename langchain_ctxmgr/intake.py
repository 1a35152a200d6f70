"""What callers hand in, checked and made into values before anything is touched.

Every refusal is a `ValueError` that says which argument was wrong and with which value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import repeat
from typing import TypeAlias, cast
from uuid import uuid4

from langchain_core.messages import (
    BaseMessage,
    ChatMessage,
    HumanMessage,
    MessageLikeRepresentation,
    RemoveMessage,
    SystemMessage,
    convert_to_messages,
)

from langchain_ctxmgr.analysis import cues, message_text, terms
from langchain_ctxmgr.budget.allocation import ContextBudget
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.memory.importance import importance
from langchain_ctxmgr.prompt.validity import role_of
from langchain_ctxmgr.records import Draft, Scope
from langchain_ctxmgr.storage.message_log import Withdrawal, require_whole

Messages: TypeAlias = BaseMessage | tuple[str, str] | Sequence[MessageLikeRepresentation]
"""One message (a tuple of role and text is one too), or several in any form LangChain takes."""
Moments: TypeAlias = datetime | Sequence[datetime | None] | None
"""When messages were said: one instant for all, one for each, or now."""

_SHOWN_CHARS = 80


def messages_of(messages: Messages) -> list[BaseMessage]:
    """The messages as LangChain's own.

    Raises:
        ValueError: If one is no message, or asks to remove one.
    """
    if isinstance(messages, BaseMessage) or _is_role_and_text(messages):
        messages = [cast("MessageLikeRepresentation", messages)]
    given = cast("Sequence[MessageLikeRepresentation]", _several("messages", messages))
    taken: list[BaseMessage] = []
    for place, message in enumerate(given):
        try:
            made = [message] if isinstance(message, BaseMessage) else convert_to_messages([message])
        except (ValueError, TypeError, KeyError, NotImplementedError) as error:
            raise ValueError(
                f"messages[{place}] must be a message, got {shown(message)}: {_first(error)}"
            ) from error
        if isinstance(made[0], RemoveMessage):
            raise ValueError(
                f"messages[{place}] is a RemoveMessage (id {made[0].id!r}): the log only takes "
                "in; use forget to erase"
            )
        taken += made
    return taken


def with_ids(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages, those without an id under a new one; what was handed in stays as it is."""
    return [
        message if message.id else message.model_copy(update={"id": str(uuid4())})
        for message in messages
    ]


def _is_role_and_text(messages: object) -> bool:
    """Whether it is LangChain's `(role, text)`: a list of two texts is two messages."""
    match messages:
        case (str(), str() | list()):
            return isinstance(messages, tuple)
        case _:
            return False


def drafts_of(
    messages: Messages, at: Moments, *, now: datetime, counter: TokenCounter
) -> list[Draft]:
    """The messages with when they were said and what is worked out about each.

    Raises:
        ValueError: If a message or an instant is not one, or their numbers differ.
    """
    taken = messages_of(messages)
    return [
        _draft(message, moment, counter)
        for message, moment in zip(taken, _moments(at, len(taken), now), strict=True)
    ]


def _draft(message: BaseMessage, at: datetime, counter: TokenCounter) -> Draft:
    text = message_text(message)
    seen = cues(text)
    return Draft(
        message=message,
        at=at,
        tokens=counter.message(message),
        encoding=counter.name,
        importance=importance(message, text, seen).score,
        terms=terms(text),
        cues=seen.value,
    )


def _moments(at: Moments, count: int, now: datetime) -> Iterable[datetime]:
    if at is None:
        return repeat(now, count)
    if isinstance(at, datetime):
        return repeat(aware("at", at), count)
    moments = _several("at", at)
    if len(moments) != count:
        raise ValueError(
            f"at must have one instant for each of {count} messages, got {len(moments)}"
        )
    return [
        now if moment is None else aware(f"at[{place}]", moment)
        for place, moment in enumerate(moments)
    ]


def aware(name: str, moment: object) -> datetime:
    """`moment`, if it is an instant that says where on earth it was that time.

    Raises:
        ValueError: If it is not, or lies outside the years 1 to 9999 of UTC.
    """
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise ValueError(f"{name} must be an aware datetime, got {shown(moment)}")
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(
            f"{name} must be within the years 1 to 9999 of UTC, got {shown(moment)}"
        ) from None
    return moment


def now_of(clock: Callable[[], datetime]) -> datetime:
    """The present instant as `clock` tells it.

    Raises:
        ValueError: If that is no aware datetime.
    """
    return aware("what clock() gives", clock())


def scope_of(scope: object, tenant_id: str | None) -> Scope:
    """The scope with its tenant: the one place where a bound tenant may be left out.

    Raises:
        ValueError: If it is no scope, names no tenant and none is bound, or names another
            than the bound one.
    """
    if not isinstance(scope, Scope):
        raise ValueError(f"scope must be a Scope, got {shown(scope)}")
    if scope.tenant_id is None:
        if tenant_id is None:
            raise ValueError(f"scope must have a tenant_id, got {scope}")
        return replace(scope, tenant_id=tenant_id)
    if tenant_id not in {None, scope.tenant_id}:
        raise ValueError(
            f"scope's tenant_id must be the manager's own ({tenant_id!r}), got {scope.tenant_id!r}"
        )
    return scope


def thread_of(scope: object, tenant_id: str | None) -> Scope:
    """`scope_of`, for what needs one thread.

    Raises:
        ValueError: As `scope_of`, and if it names no thread.
    """
    where = scope_of(scope, tenant_id)
    if where.thread_id is None:
        raise ValueError(f"scope must have a thread_id, got {where}")
    return where


def withdrawal_of(scope: Scope, *, message_ids: object, since: object, until: object) -> Withdrawal:
    """Which messages of a scope are meant.

    Raises:
        ValueError: If ids are none, or come without a thread, or a time has no zone.
    """
    ids: tuple[str, ...] | None = None
    if message_ids is not None:
        ids = tuple(text_of("message_ids", each) for each in _several("message_ids", message_ids))
        if not ids:
            raise ValueError("message_ids must name a message, got none")
        if scope.thread_id is None:
            raise ValueError(f"scope must have a thread_id with message_ids, got {scope}")
    return Withdrawal(
        message_ids=ids,
        since=None if since is None else aware("since", since),
        until=None if until is None else aware("until", until),
    )


def whole_of(scope: object, tenant_id: str | None, doing: str) -> Scope:
    """`scope_of`, for what is done to a whole thread or tenant.

    Raises:
        ValueError: As `scope_of` and `message_log.require_whole`.
    """
    where = scope_of(scope, tenant_id)
    require_whole(where, doing)
    return where


def question_of(query: object) -> BaseMessage | None:
    """The question as a message; None stays None: the newest recorded one.

    Raises:
        ValueError: If it is neither text nor a user message; a `ChatMessage` is one by its role.
    """
    if query is None:
        return None
    if isinstance(query, str):
        return HumanMessage(query)
    if isinstance(query, BaseMessage) and role_of(query) == "human":
        return query
    if isinstance(query, ChatMessage):
        raise ValueError(f"query must be a user's, got a ChatMessage of role {query.role!r}")
    raise ValueError(f"query must be text or a HumanMessage, got {shown(query)}")


def system_of(system: object) -> BaseMessage | None:
    """The system text as a message; None and "" mean none.

    Raises:
        ValueError: If it is neither text nor a system message.
    """
    if system is None or system == "":
        return None
    if isinstance(system, str):
        return SystemMessage(system)
    if isinstance(system, SystemMessage):
        return system
    raise ValueError(f"system must be text or a SystemMessage, got {shown(system)}")


def tools_of(tools: object) -> tuple[object, ...]:
    """What the model may call; None means nothing.

    Raises:
        ValueError: If it is no sequence.
    """
    return () if tools is None else tuple(_several("tools", tools))


def head_of(head: object) -> str | None:
    """The id of the message a view ends at; None: the newest.

    Raises:
        ValueError: If it is no id.
    """
    return None if head is None else text_of("head", head)


def limit_of(max_tokens: object, budget: ContextBudget | None) -> int:
    """The most tokens a prompt may take; None: the budget's.

    Raises:
        ValueError: If it is no number of tokens, is more than the window holds, or there is
            neither a number nor a budget.
    """
    if max_tokens is None:
        if budget is None:
            raise ValueError("max_tokens is needed where the manager has neither model nor budget")
        return budget.prompt_tokens
    limit = positive("max_tokens", max_tokens)
    if budget is not None and limit > budget.max_input_tokens:
        raise ValueError(
            f"max_tokens must be at most the window's {budget.max_input_tokens} tokens, got {limit}"
        )
    return limit


def positive(name: str, number: object) -> int:
    """`number`, if it is an int of at least 1.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{name} must be an int of at least 1, got {shown(number)}")
    return number


def text_of(name: str, text: object) -> str:
    """`text`, if it is a string that says something.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{name} must be text that is not empty, got {shown(text)}")
    return text


def _several(name: str, values: object) -> Sequence[object]:
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | Mapping):
        raise ValueError(f"{name} must be a sequence, got {shown(cast('object', values))}")
    return list(cast("Iterable[object]", values))


def shown(value: object) -> str:
    """A value in an error: short, and without what a long one might hold."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}… ({type(value).__name__})"


def _first(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0]
