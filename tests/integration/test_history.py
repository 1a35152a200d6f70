"""`ContextChatMessageHistory`, alone and in LangChain's `RunnableWithMessageHistory`."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import ConfigurableFieldSpec
from langchain_core.runnables.history import RunnableWithMessageHistory

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.budget.tokens import counter_for
from langchain_ctxmgr.errors import LogError
from langchain_ctxmgr.events import Degraded
from langchain_ctxmgr.integrations.history import ContextChatMessageHistory
from tests.integration.agents import chat, said
from tests.integration.test_log_down import Unreachable
from tests.loopback_openai import LoopbackOpenAI, text_of

pytestmark = pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated")

SCOPE = Scope(thread_id="t")
WORDS = "some words " * 40


@pytest.fixture
def server():
    with LoopbackOpenAI() as server:
        yield server
        assert server.account.refused == []


@pytest.fixture
def manager():
    with ContextManager.open(None, model="gpt-4o-mini", tenant_id="acme") as manager:
        yield manager


@pytest.fixture
def history(manager):
    return ContextChatMessageHistory(manager, SCOPE)


def shown(server, place=-1):
    return [(m["role"], text_of(m["content"])) for m in server.account.exchanges[place].messages]


def call(name):
    return {"name": "weather", "args": {"query": "Oslo"}, "id": name, "type": "tool_call"}


class TestMessages:
    def test_it_is_a_langchain_history(self, history):
        assert isinstance(history, BaseChatMessageHistory)
        history.add_user_message("hello")
        history.add_ai_message("hi")
        assert [m.content for m in history.messages] == ["hello", "hi"]
        assert str(history) == "Human: hello\nAI: hi"

    def test_every_native_method_has_an_async_twin_of_its_own(self):
        for blocking, twin in (("add_messages", "aadd_messages"), ("clear", "aclear")):
            own = (getattr(ContextChatMessageHistory, name) for name in (blocking, twin))
            assert len({str(inspect.signature(method)) for method in own}) == 1
        for name in ("aget_messages", "aadd_messages", "aclear"):
            assert name in vars(ContextChatMessageHistory)

    async def test_blocking_and_async_are_the_same(self, manager, history):
        await history.aadd_messages([HumanMessage("hello", id="1"), AIMessage("hi", id="2")])
        assert history.messages == await history.aget_messages()
        other = manager.chat_history("t")
        assert await other.aget_messages() == other.messages == history.messages
        await other.aclear()
        assert await manager.ahistory(scope=SCOPE) == other.messages == []

    def test_it_stays_as_it_was_read_until_something_is_added(self, manager, history):
        history.add_messages([HumanMessage("hello"), AIMessage("hi")])
        before = history.messages
        manager.record([HumanMessage("from elsewhere")], scope=SCOPE)
        assert history.messages == before
        history.add_messages([AIMessage("what?")])
        assert [m.content for m in history.messages] == ["hello", "hi", "from elsewhere", "what?"]

    def test_changing_the_list_changes_nothing(self, history):
        history.add_messages([HumanMessage("hello")])
        history.messages.clear()
        assert len(history.messages) == 1

    def test_a_long_one_is_its_newest_part_in_the_budget(self, manager):
        history = ContextChatMessageHistory(manager, SCOPE, max_tokens=1_000)
        starts = []
        counter = counter_for("gpt-4o-mini")
        for number in range(60):
            history.add_messages([HumanMessage(f"q{number} {WORDS}"), AIMessage(f"a{number}")])
            kept = history.messages
            assert counter.messages(kept) <= 1_000 + counter.messages([])
            assert kept[0].type == "human"
            assert kept[-1].content == f"a{number}"
            starts.append(kept[0].content)
        assert len(kept) >= 8
        assert len(set(starts)) < 20
        assert len(manager.history(scope=SCOPE)) == 120

    def test_system_text_is_left_to_the_prompt(self, history):
        history.add_messages([SystemMessage("Be brief."), HumanMessage("hello"), AIMessage("hi")])
        assert [m.type for m in history.messages] == ["human", "ai"]

    def test_calls_stand_with_their_results_or_not_at_all(self, history):
        history.add_messages([HumanMessage("q"), AIMessage("", tool_calls=[call("c1")])])
        assert [m.type for m in history.messages] == ["human", "ai"]
        history.add_messages([ToolMessage("14 degrees", tool_call_id="c1")])
        assert [m.type for m in history.messages] == ["human", "ai", "tool"]
        history.add_messages([HumanMessage("q2"), AIMessage("", tool_calls=[call("c2")])])
        history.add_messages([HumanMessage("never mind"), AIMessage("ok")])
        assert "'c2'" not in repr(history.messages)

    def test_an_abandoned_branch_is_not_in_it(self, manager, history):
        history.add_messages([HumanMessage("I like tea.", id="1"), AIMessage("Noted.", id="2")])
        history.add_messages([HumanMessage("Zorro", id="3"), AIMessage("Noted.", id="4")])
        first = manager.history(scope=SCOPE)[1]
        manager.record([first, HumanMessage("Bella", id="5")], scope=SCOPE)
        assert [m.id for m in ContextChatMessageHistory(manager, SCOPE).messages] == ["1", "2", "5"]

    def test_another_tenant_and_thread_see_nothing(self):
        with ContextManager.open(None, model="gpt-4o-mini") as manager:
            for tenant, thread in (("acme", "t"), ("globex", "t"), ("acme", "u")):
                scope = Scope(tenant_id=tenant, thread_id=thread)
                history = ContextChatMessageHistory(manager, scope)
                assert history.messages == []
                history.add_messages([HumanMessage(f"{tenant} {thread}")])
                assert [m.content for m in history.messages] == [f"{tenant} {thread}"]
            history.clear()
            assert manager.history(scope=Scope(tenant_id="globex", thread_id="t"))

    def test_clearing_erases_the_thread_whoever_speaks_in_it(self, manager):
        scope = Scope(thread_id="t", user_id="ann")
        history = ContextChatMessageHistory(manager, scope)
        history.add_messages([HumanMessage("secret")])
        history.clear()
        assert history.messages == manager.history(scope=SCOPE) == []


class TestBadInput:
    @pytest.mark.parametrize("scope", [None, "t", Scope(tenant_id="acme")])
    def test_a_scope_without_a_thread_is_refused(self, manager, scope):
        with pytest.raises(ValueError, match="scope must be a Scope with a thread_id"):
            ContextChatMessageHistory(manager, scope)

    @pytest.mark.parametrize("session_id", ["", 3, "a\0b", "x" * 600, "\ud800"])
    def test_a_session_id_that_is_no_id_is_refused(self, manager, session_id):
        with pytest.raises(ValueError, match="thread_id must"):
            manager.chat_history(session_id)

    @pytest.mark.parametrize("limit", [0, -1, "many", True])
    def test_a_limit_that_is_none_is_refused(self, manager, limit):
        with pytest.raises(ValueError, match="max_tokens must"):
            ContextChatMessageHistory(manager, SCOPE, max_tokens=limit)

    async def test_a_missing_tenant_is_an_error(self):
        with ContextManager.open(None, model="gpt-4o-mini") as manager:
            with pytest.raises(ValueError, match="scope must have a tenant_id"):
                manager.chat_history("t")
            history = ContextChatMessageHistory(manager, SCOPE)
            with pytest.raises(ValueError, match="scope must have a tenant_id"):
                _ = history.messages
            with pytest.raises(ValueError, match="scope must have a tenant_id"):
                await history.aadd_messages([HumanMessage("hello")])

    def test_what_is_no_message_is_refused_and_nothing_recorded(self, manager, history):
        for wrong in (None, [HumanMessage("fine"), 3]):
            with pytest.raises(ValueError, match="messages"):
                history.add_messages(wrong)
        history.add_messages([])
        assert manager.history(scope=SCOPE) == []

    def test_text_of_any_kind_comes_back(self, history):
        texts = ["", "\ud800 alone", "naïve 文 🦊", "x" * 100_000]
        history.add_messages([HumanMessage(text) for text in texts])
        assert [m.content for m in history.messages if m.content][:1] == ["\ud800 alone"]


class TestLogDown:
    async def test_a_run_without_a_history_is_answered(self, tmp_path, monkeypatch):
        monkeypatch.setattr("langchain_ctxmgr.memory.breaker.LOG_REST_SECONDS", 0.0)
        log, events = Unreachable(tmp_path / "log.sqlite3"), []
        with ContextManager(
            log=log, model="gpt-4o-mini", tenant_id="acme", listeners=[events.append]
        ) as manager:
            history = manager.chat_history("t")
            log.is_down = True
            assert history.messages == await history.aget_messages() == []
            assert "no history" in [e.fallback for e in events if isinstance(e, Degraded)]
            with pytest.raises(LogError):
                history.add_messages([HumanMessage("hello")])
            log.is_down = False
            history.add_messages([HumanMessage("hello")])
            assert len(history.messages) == 1
        log.close()


def with_key(server, get_history, **settings):
    """A prompt with a place for the history, behind `history_messages_key`."""
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Be brief."), MessagesPlaceholder("past"), ("human", "{question}")]
    )
    return RunnableWithMessageHistory(
        prompt | chat(server),
        get_history,
        input_messages_key="question",
        history_messages_key="past",
        **settings,
    )


def without_key(server, get_history, **settings):
    """The model itself: it is handed the history with the input behind it."""
    return RunnableWithMessageHistory(chat(server), get_history, **settings)


CHAINS = [(with_key, lambda text: {"question": text}), (without_key, HumanMessage)]


@pytest.mark.parametrize(("chain_of", "given"), CHAINS)
class TestRunnableWithMessageHistory:
    async def test_each_message_is_recorded_once(self, server, manager, chain_of, given):
        chain = chain_of(server, manager.chat_history)
        config = {"configurable": {"session_id": "t"}}
        texts = [f"Note {number}: {WORDS}" for number in range(8)]
        for number, text in enumerate(texts):
            way = number % 4
            if way == 0:
                chain.invoke(given(text), config)
            elif way == 1:
                await chain.ainvoke(given(text), config)
            elif way == 2:
                assert list(chain.stream(given(text), config))
            else:
                assert [part async for part in chain.astream(given(text), config)]
        history = manager.history(scope=SCOPE)
        assert [m.text for m in history[::2]] == texts
        assert all(m.type == "ai" for m in history[1::2])
        assert [m for m in shown(server) if m[0] == "user"] == [("user", text) for text in texts]

    async def test_a_view_that_moves_loses_nothing(self, server, manager, chain_of, given):
        def small(session_id):
            scope = Scope(thread_id=session_id)
            return ContextChatMessageHistory(manager, scope, max_tokens=500)

        chain = chain_of(server, small)
        config = {"configurable": {"session_id": "t"}}
        for number in range(12):
            text = given(f"Note {number}: {WORDS}")
            if number % 2:
                await chain.ainvoke(text, config)
            else:
                chain.invoke(text, config)
        history = manager.history(scope=SCOPE)
        assert [m.text for m in history[::2]] == [f"Note {n}: {WORDS}" for n in range(12)]
        assert max(e.prompt_tokens for e in server.account.exchanges) <= 700
        assert len(shown(server)) < 14

    async def test_many_threads_at_once_do_not_meet(self, server, manager, chain_of, given):
        chain = chain_of(server, manager.chat_history)

        async def talk(number):
            config = {"configurable": {"session_id": f"t{number}"}}
            for text in (f"My word is word{number}x.", "Again."):
                await chain.ainvoke(given(text), config)

        await asyncio.gather(*(talk(number) for number in range(20)))
        for exchange in server.account.exchanges:
            assert len({n for n in range(20) if f"word{n}x" in exchange.text}) <= 1
        for number in range(20):
            assert len(manager.history(scope=Scope(thread_id=f"t{number}"))) == 4

    async def test_a_batch(self, server, manager, chain_of, given):
        chain = chain_of(server, manager.chat_history)
        configs = [{"configurable": {"session_id": f"t{n}"}} for n in range(6)]
        inputs = [given(f"I am {n}.") for n in range(6)]
        chain.batch(inputs, configs)
        await chain.abatch(inputs, configs)
        for number in range(6):
            history = manager.history(scope=Scope(thread_id=f"t{number}"))
            assert [m.text for m in history[::2]] == [f"I am {number}."] * 2

    def test_tenants_of_one_manager(self, server, chain_of, given):
        fields = [
            ConfigurableFieldSpec(id=name, annotation=str) for name in ("tenant_id", "thread_id")
        ]
        with ContextManager.open(None, model="gpt-4o-mini") as manager:

            def of(tenant_id, thread_id):
                scope = Scope(tenant_id=tenant_id, thread_id=thread_id)
                return ContextChatMessageHistory(manager, scope)

            chain = chain_of(server, of, history_factory_config=fields)
            for tenant in ("acme", "globex", "acme"):
                config = {"configurable": {"tenant_id": tenant, "thread_id": "t"}}
                chain.invoke(given(f"I am {tenant}."), config)
            assert "globex" not in server.account.exchanges[-1].text
            assert len(shown(server)) - (chain_of is with_key) == 3
            kept = manager.history(scope=Scope(tenant_id="globex", thread_id="t"))
            assert said(kept)[0] == ("human", "I am globex.", [])
