"""`ContextRunnable`: the context manager in a chain, between the prompt and the model.

What the prompt holds is recorded, and the model is handed a view of the whole thread in its
place: the prompt's system text, what was said before as far as it fits and matters, and the
question as the prompt has it. `ContextRunnable.recorder` stands behind the model and records
the answer, which passes through as it comes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import (
    BaseMessage,
    HumanMessage,
    MessageLikeRepresentation,
    SystemMessage,
    merge_message_runs,
    message_chunk_to_message,
)
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig, RunnableGenerator

from langchain_ctxmgr._plans import Plan, arun, call, run
from langchain_ctxmgr.chat_history import ContextChatMessageHistory
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.events import Degraded, emit
from langchain_ctxmgr.intake import messages_of, positive, shown, tools_of, with_ids
from langchain_ctxmgr.integrations.following import Follower, identified, turn_of
from langchain_ctxmgr.integrations.scopes import is_nested, runtime_here, scope_of_run
from langchain_ctxmgr.manager import ContextManager
from langchain_ctxmgr.prompt.validity import role_of
from langchain_ctxmgr.records import PreparedContext, Scope


class ContextRunnable(Runnable[LanguageModelInput, list[BaseMessage]]):
    """Turns a prompt into the messages that the model should see.

    `prompt | ContextRunnable(manager) | model`. Tenant, user and thread are those of
    `configurable` (`tenant_id`, `user_id`, `thread_id`), else the ones given here; in a node
    of a graph they are found as `ContextMiddleware` finds them.

    The prompt may hold the question alone, or the conversation so far with it: what the log
    lacks of it is recorded. Its system messages lead the view as one and are not recorded.
    Messages that are no part of the conversation (examples) belong into the system text, or
    behind this step. Inside a `RunnableWithMessageHistory` over a `ContextChatMessageHistory`
    the thread is that history's, which does all the recording.

    Args:
        manager: Shared with whatever else uses it; it is not closed here.
        max_tokens: Most that a prompt may take; by default what the manager's budget says.
        tools: What the model may call, for counting.
        tenant_id: Where the run names none.
        user_id: Where the run names none.
        thread_id: Where the run names none.
    """

    def __init__(
        self,
        manager: ContextManager,
        *,
        max_tokens: int | None = None,
        tools: Sequence[object] = (),
        tenant_id: str | None = None,
        user_id: str | None = None,
        thread_id: str | None = None,
    ) -> None:
        self.name = "ContextRunnable"
        self._manager = manager
        self._max_tokens = None if max_tokens is None else positive("max_tokens", max_tokens)
        self._tools = tools_of(tools)
        self._default = Scope(tenant_id=tenant_id, user_id=user_id, thread_id=thread_id)
        self._follower = Follower(manager)

    @property
    def recorder(self) -> Runnable[Any, Any]:
        """Records what a model says, and passes it on as it comes: a message, chunks or text.

        `prompt | context | model | context.recorder`. The answer goes to the end of the thread
        once it is whole; one whose stream is given up is not recorded. In a subgraph, and
        within a history that records by itself, it only passes through.
        """
        passing = cast("Any", self._passing)
        return RunnableGenerator[Any, Any](passing, cast("Any", self._apassing), name="recorder")

    def invoke(
        self,
        input: LanguageModelInput,  # noqa: A002 - LangChain's own name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[BaseMessage]:
        """The view for a prompt, a text, a message or several.

        Raises:
            ContextOverflowError: If system text, tools and question alone are over the budget.
            ValueError: If the run names no tenant or no thread, or the input is no prompt.
        """
        return self._call_with_config(self._invoke, input, config, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,  # noqa: A002 - LangChain's own name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[BaseMessage]:
        """`invoke` on an event loop."""
        return await self._acall_with_config(self._ainvoke, input, config, **kwargs)

    def _invoke(
        self,
        given: LanguageModelInput,
        run_manager: CallbackManagerForChainRun,
        config: RunnableConfig,
    ) -> list[BaseMessage]:
        del run_manager
        return run(self._view(given, config)).messages

    async def _ainvoke(
        self,
        given: LanguageModelInput,
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
    ) -> list[BaseMessage]:
        del run_manager
        return (await arun(self._view(given, config))).messages

    def _view(self, given: LanguageModelInput, config: RunnableConfig) -> Plan[PreparedContext]:
        system, said = _parted(given)
        history = _history_of(config)
        if history is not None:
            return (yield from self._beside(history.scope, said, system))
        scope = scope_of_run(runtime_here(), config, identified(said), default=self._default)
        messages = yield from self._named(scope, said)
        yield from self._follower.follow(scope, messages)
        return (
            yield from self._follower.view(
                scope, messages, system=system, tools=self._tools, max_tokens=self._max_tokens
            )
        )

    def _beside(
        self, scope: Scope, said: Sequence[BaseMessage], system: BaseMessage | None
    ) -> Plan[PreparedContext]:
        """The view where a history records the question, once it is answered."""
        turn = turn_of(said)
        is_question = turn == len(said) - 1
        messages = said if is_question else with_ids(said)
        return (
            yield from call(
                self._manager.prepare,
                scope=scope,
                query=messages[turn] if turn < len(messages) else None,
                max_tokens=self._max_tokens,
                tools=self._tools,
                system=system,
                head=None if is_question else messages[-1].id,
                held=messages,
            )
        )

    def _named(self, scope: Scope, messages: Sequence[BaseMessage]) -> Plan[list[BaseMessage]]:
        """The messages, each with an id: on a further step of a tool loop the recorded ones."""
        turn = turn_of(messages)
        known: list[BaseMessage] = []
        if len(messages) > turn + 1 and not messages[turn].id:
            try:
                known = yield from call(
                    self._manager.recorded, messages[turn:], scope=scope, newest_turn=True
                )
            except StorageError:
                known = []
        ahead = with_ids(messages[:turn])
        return [*ahead, *known, *with_ids(messages[turn + len(known) :])]

    def _passing(self, chunks: Iterator[Any], config: RunnableConfig) -> Iterator[Any]:
        parts: list[Any] = []
        for chunk in chunks:
            parts.append(chunk)
            yield chunk
        if parts:
            run(self._record(reduce(add, parts), config))

    async def _apassing(
        self, chunks: AsyncIterator[Any], config: RunnableConfig
    ) -> AsyncIterator[Any]:
        parts: list[Any] = []
        async for chunk in chunks:
            parts.append(chunk)
            yield chunk
        if parts:
            await arun(self._record(reduce(add, parts), config))

    def _record(self, answer: object, config: RunnableConfig) -> Plan[None]:
        """The boundary for a log that cannot be written: the answer is given, an event says so."""
        message = _answer_of(answer)
        if _history_of(config) is not None or is_nested(config):
            return
        scope = scope_of_run(runtime_here(), config, [message], default=self._default)
        try:
            yield from call(self._manager.record, with_ids([message]), scope=scope)
        except StorageError as error:
            event = Degraded(part="log", reason=str(error), fallback="an unrecorded answer")
            emit(self._manager.listeners, event)


def _parted(given: object) -> tuple[BaseMessage | None, list[BaseMessage]]:
    """The system text of a prompt as one message, and what else it holds.

    Raises:
        ValueError: If it is no prompt, or holds nothing but system text.
    """
    messages = _messages_in(given)
    system = [message for message in messages if role_of(message) == "system"]
    said = [message for message in messages if role_of(message) != "system"]
    if not said:
        raise ValueError(f"the prompt must hold a message to answer, got {shown(given)}")
    if len(system) > 1:
        plain = [SystemMessage(content=cast("Any", message.content)) for message in system]
        system = merge_message_runs(plain, chunk_separator="\n\n")
    return (system[0] if system else None), said


def _messages_in(given: object) -> list[BaseMessage]:
    if isinstance(given, str):
        return [HumanMessage(given)]
    if isinstance(given, PromptValue):
        return given.to_messages()
    if given is None or isinstance(given, Mapping):
        what = shown(cast("object", given))
        raise ValueError(f"input must be a prompt, text or messages, got {what}")
    return messages_of(cast("Sequence[MessageLikeRepresentation]", given))


def _history_of(config: RunnableConfig) -> ContextChatMessageHistory | None:
    """The history that the chain around this run records in."""
    given = cast("Mapping[str, Any]", config.get("configurable") or {})
    history = given.get("message_history")
    return history if isinstance(history, ContextChatMessageHistory) else None


def _answer_of(answer: object) -> BaseMessage:
    if isinstance(answer, str):
        return messages_of([("ai", answer)])[0]
    if isinstance(answer, BaseMessage):
        return message_chunk_to_message(cast("Any", answer))
    raise ValueError(f"the answer must be a message or text, got {shown(answer)}")
