"""`TenantStore`: tenants apart, hybrid recall, importance, and langmem's tools on it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import warnings
from typing import Any, ClassVar

import pytest
from langchain_core.embeddings import Embeddings
from langgraph.config import get_store
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchOp
from qdrant_client import QdrantClient

from langchain_ctxmgr.errors import ShardInUseError, StorageError
from langchain_ctxmgr.events import Degraded
from langchain_ctxmgr.integrations.store import TenantStore
from langchain_ctxmgr.storage.edge_client import EdgeClient
from tests.hashed_words import HashedWords
from tests.integration.agents import agent_of, asked, on
from tests.loopback_openai import LoopbackOpenAI, Reply, scripted
from tests.loopback_store import LoopbackStore

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports what LangGraph has moved
    from langmem import create_manage_memory_tool, create_search_memory_tool

NS = ("memories", "ann")


@pytest.fixture
def client(tmp_path):
    with EdgeClient(tmp_path / "store") as client:
        yield client


@pytest.fixture
def store(client):
    return TenantStore(client, tenant_id="acme")


class Flaky(HashedWords):
    is_down = False

    def embed_query(self, text):
        if self.is_down:
            raise ConnectionError("the model is down")
        return super().embed_query(text)


class TestTenants:
    """What one tenant does, no other sees, whatever it is called."""

    NAMES = ("acme", "globex", "*", "tenant:acme", "a.b", "langgraph", '"quoted\\"', "文")

    def test_nobody_sees_another_tenants_items(self, client):
        stores = {name: TenantStore(client, tenant_id=name) for name in self.NAMES}
        for name, store in stores.items():
            store.put(NS, "k", {"text": "the same words", "of": name})
            store.put(("acme", "memories"), "k", {"text": "the same words", "of": name})
        for name, store in stores.items():
            assert store.get(NS, "k").value["of"] == name
            for query in (None, "the same words"):
                for prefix in ((), NS, ("acme",)):
                    found = store.search(prefix, query=query, limit=100)
                    assert {item.value["of"] for item in found} == {name}
                    assert all("tenant" not in item.namespace[0] for item in found)
            assert sorted(store.list_namespaces()) == [("acme", "memories"), NS]
            assert store.list_namespaces(prefix=("*", "*")) == store.list_namespaces()
            assert store.list_namespaces(suffix=("*", "*", "*")) == []
            assert store.list_namespaces(max_depth=1, suffix=("ann",)) == [("memories",)]
            assert store.list_namespaces(prefix=("tenant:globex",)) == []
        assert stores["*"].forget() == 2
        assert stores["*"].search(()) == []
        assert all(len(stores[name].search(())) == 2 for name in self.NAMES if name != "*")

    def test_how_rare_a_word_is_elsewhere_does_not_show(self, client):
        one, other = (TenantStore(client, tenant_id=name) for name in ("acme", "globex"))
        for number in range(5):
            one.put(NS, f"k{number}", {"text": f"apple {'pear ' * number}"})
        before = [(item.key, item.score) for item in one.search(NS, query="apple pear")]
        other.batch([PutOp(NS, f"k{number}", {"text": "pear"}) for number in range(50)])
        assert [(item.key, item.score) for item in one.search(NS, query="apple pear")] == before

    async def test_the_tenant_is_the_runs(self, client):
        store = TenantStore(client)

        @entrypoint(store=store)
        async def remember(text: str) -> Any:
            await store.aput(NS, text, {"text": text})
            store.put(NS, f"{text} again", {"text": text})
            return sorted(item.key for item in await store.asearch(NS))

        for tenant in ("acme", "globex"):
            keys = await remember.ainvoke(tenant, on("t", tenant_id=tenant))
            assert keys == [tenant, f"{tenant} again"]
        with pytest.raises(ValueError, match="must name a tenant_id"):
            await remember.ainvoke("nobody", on("t"))
        for call in (lambda: store.get(NS, "acme"), store.forget, store.list_namespaces):
            with pytest.raises(ValueError, match="must name a tenant_id"):
                call()

    def test_a_bound_store_refuses_another_tenants_run(self, store):
        @entrypoint(store=store)
        def read(_: Any) -> Any:
            return store.search(())

        assert read.invoke(1, on("t", tenant_id="acme")) == []
        with pytest.raises(ValueError, match="must be the store's own"):
            read.invoke(1, on("t", tenant_id="globex"))

    def test_in_a_graph_the_nodes_store_is_the_tenants(self, client):
        def node(state: MessagesState) -> Any:
            store = get_store()
            store.put(NS, "k", {"text": state["messages"][-1].content})
            return {"messages": [("ai", store.search(NS)[0].value["text"])]}

        graph = StateGraph(MessagesState)
        graph.add_node("node", node)
        graph.add_edge(START, "node")
        graph = graph.compile(store=TenantStore(client))
        for tenant in ("acme", "globex"):
            final = graph.invoke(asked(f"I am {tenant}."), on("t", tenant_id=tenant))
            assert final["messages"][-1].content == f"I am {tenant}."
        assert TenantStore(client, tenant_id="acme").get(NS, "k").value["text"] == "I am acme."


class TestRecall:
    TEXTS: ClassVar = {
        "passport": {"text": "The passport number is KX-4412."},
        "cat": {"text": "My cat is called Zorro."},
        "trip": {"text": "We fly to Lisbon on 7 May."},
    }

    def test_without_a_model_words_find_items(self, store):
        for key, value in self.TEXTS.items():
            store.put(NS, key, value)
        assert [i.key for i in store.search(NS, query="What is my cat called?")] == ["cat"]
        assert [i.key for i in store.search(NS, query="KX-4412")] == ["passport"]
        assert store.search(NS, query="violin") == []
        assert {i.key for i in store.search(NS, query="???")} == self.TEXTS.keys()

    def test_a_rare_word_is_found_that_the_model_does_not_tell_apart(self, client):
        class Blind(Embeddings):
            def embed_documents(self, texts):
                return [[1.0, 0.0] for _ in texts]

            def embed_query(self, text):
                return [1.0, 0.0]

        store = TenantStore(client, tenant_id="acme", embeddings=Blind())
        for number in range(300):
            store.put(NS, f"k{number}", {"text": f"common words {number + 1000}"})
        store.put(NS, "passport", self.TEXTS["passport"])
        assert store.search(NS, query="KX-4412", limit=1)[0].key == "passport"

    def test_what_matters_comes_first_among_what_fits_alike(self, store):
        store.put(NS, "a", {"text": "tea", "importance": 0.1})
        store.put(NS, "b", {"text": "tea", "importance": 0.9})
        store.put(NS, "c", {"text": "tea", "importance": "high"})
        found = store.search(NS, query="tea")
        assert found[0].key == "b"
        assert found[0].score == pytest.approx(0.98)
        assert all(0 <= item.score <= 1 for item in found)
        store.put(NS, "rule", {"text": "Never put milk in tea: I am allergic to milk."})
        store.put(NS, "talk", {"text": "Some milk was in some tea or other on a day."})
        assert store.search(NS, query="milk in tea", limit=1)[0].key == "rule"

    def test_scores_and_pages_agree(self, client):
        store = TenantStore(client, tenant_id="acme", embeddings=HashedWords())
        store.batch([PutOp(NS, f"k{n}", {"text": f"tea {n % 7} {n % 3}"}) for n in range(60)])
        whole = [(i.key, i.score) for i in store.search(NS, query="tea 3", limit=60)]
        paged = [
            (i.key, i.score)
            for offset in range(0, 60, 9)
            for i in store.search(NS, query="tea 3", limit=9, offset=offset)
        ]
        assert paged == whole
        assert len({key for key, _ in whole}) == 60

    async def test_a_model_that_is_down_leaves_keywords(self, client):
        events: list[Any] = []
        model = Flaky()
        store = TenantStore(client, tenant_id="acme", embeddings=model, listeners=[events.append])
        await store.aput(NS, "cat", self.TEXTS["cat"])
        model.is_down = True
        assert [i.key for i in await store.asearch(NS, query="cat")] == ["cat"]
        assert isinstance(events[0], Degraded)
        assert events[0].part == "embeddings"

    def test_fields_choose_what_is_searched(self, client):
        store = TenantStore(client, tenant_id="acme", fields=["text", "more[*].note"])
        store.put(NS, "k", {"text": "tea", "more": [{"note": "milk"}], "other": "coffee"})
        assert [i.key for i in store.search(NS, query="milk")] == ["k"]
        assert store.search(NS, query="coffee") == []


class TestItems:
    async def test_when_it_was_made_stays_and_gone_namespaces_go(self, store):
        await store.aput(NS, "k", {"a": 1})
        first = await store.aget(NS, "k")
        await store.aput(NS, "k", {"a": 2})
        assert (await store.aget(NS, "k")).created_at == first.created_at
        await store.adelete(NS, "k")
        assert await store.alist_namespaces() == []

    def test_forgetting_a_part_leaves_the_rest(self, store):
        store.batch([PutOp(("a", str(n % 2)), f"k{n}", {"n": n}) for n in range(1_200)])
        assert store.forget(("a", "1")) == 600
        assert store.list_namespaces() == [("a", "0")]
        assert asyncio.run(store.aforget()) == 600
        assert store.search(()) == []

    def test_it_is_there_when_opened_again(self, tmp_path):
        for number in range(3):
            with EdgeClient(tmp_path / "kept") as client:
                store = TenantStore(client, tenant_id="acme", embeddings=HashedWords())
                store.put(NS, f"k{number}", {"text": f"tea {number}"})
                assert len(store.search(NS, query="tea")) == number + 1

    def test_another_model_or_another_use_of_the_collection_is_refused(self, client):
        TenantStore(client, tenant_id="acme").setup()
        with pytest.raises(ValueError, match="embedding"):
            TenantStore(client, tenant_id="acme", embeddings=HashedWords()).setup()
        local = QdrantClient(":memory:")
        local.create_collection("other", vectors_config={})
        with pytest.raises(ValueError, match="collection"):
            TenantStore(local, collection_name="other", tenant_id="acme").setup()
        local.close()

    def test_a_server_that_is_gone_says_so(self):
        with LoopbackStore() as server:
            client = QdrantClient(url=server.url, check_compatibility=False, timeout=2)
            store = TenantStore(client, tenant_id="acme")
            store.put(NS, "k", {"a": 1})
        with pytest.raises(Exception, match="refused"):
            store.get(NS, "k")
        client.close()


class TestBadInput:
    @pytest.mark.parametrize(
        "op",
        [
            None,
            "get",
            PutOp(NS, "k", {"a": "\ud800"}),
            PutOp(NS, "\ud800", {"a": 1}),
            PutOp(("\ud800",), "k", {"a": 1}),
            PutOp((), "k", {"a": 1}),
            GetOp((), "k"),
            GetOp(("a.b",), "k"),
            SearchOp(NS, limit=-1),
            SearchOp(NS, offset=-1, query="x"),
            SearchOp(NS, filter={"a": {"$near": 1}}, query="x"),
            SearchOp(("",)),
            ListNamespacesOp((MatchCondition("prefix", ("a.b",)),)),
        ],
    )
    async def test_it_is_refused_and_nothing_is_written(self, store, op):
        good = PutOp(NS, "good", {"a": 1})
        with pytest.raises(ValueError, match=r"must|Unknown|Unsupported|label"):
            store.batch([good, op])
        with pytest.raises(ValueError, match=r"must|Unknown|Unsupported|label"):
            await store.abatch([good, op])
        assert store.search(()) == []

    @pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": 2**70}, {"a": {1, 2}}, [1]])
    def test_a_value_that_is_no_json_is_refused(self, store, value):
        with pytest.raises((ValueError, TypeError)):
            store.put(NS, "k", value)
        assert store.get(NS, "k") is None

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("client", None),
            ("tenant_id", ""),
            ("tenant_id", "\ud800"),
            ("embeddings", 3),
            ("fields", "text"),
            ("fields", []),
            ("listeners", 3),
        ],
    )
    def test_a_wrong_setting_is_refused(self, client, setting, value):
        settings = {"client": client, setting: value}
        with pytest.raises(ValueError, match=setting):
            TenantStore(settings.pop("client"), **settings)

    def test_large_values_and_odd_keys(self, store):
        store.put(NS, "long", {"text": "word " * 50_000})
        store.put(("ä b/c", "文"), "k\n\0'\"", {"text": "x"})
        assert store.search(NS, query="word")[0].key == "long"
        assert store.get(("ä b/c", "文"), "k\n\0'\"").value == {"text": "x"}


def _bytes_in(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


class TestEdgeClient:
    def test_one_process_owns_the_folder(self, tmp_path, store):
        store.put(NS, "k", {"a": 1})
        code = (
            "import sys; from langchain_ctxmgr.storage.edge_client import EdgeClient\n"
            "from langchain_ctxmgr.integrations.store import TenantStore\n"
            f"TenantStore(EdgeClient({str(tmp_path / 'store')!r}), tenant_id='a').setup()"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # noqa: PLW1510
        assert ShardInUseError.__name__ in done.stderr
        other = TenantStore(EdgeClient(tmp_path / "store"), tenant_id="acme")
        with pytest.raises(ShardInUseError):
            other.setup()

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_is_told(self, store):
        store.put(NS, "k", {"a": 1})
        child = os.fork()
        if child == 0:
            try:
                store.get(NS, "k")
            except StorageError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert store.get(NS, "k")

    def test_what_was_forgotten_is_in_no_file(self, tmp_path):
        folder = tmp_path / "kept"
        with EdgeClient(folder) as client:
            theirs, ours = (
                TenantStore(client, tenant_id=name, embeddings=HashedWords())
                for name in ("globex", "acme")
            )
            for number in range(200):
                theirs.put(NS, f"k{number}", {"text": f"canary-{number} sang", "is_old": True})
                ours.put(NS, f"k{number}", {"text": f"tea {number}", "is_old": number == 7})
            assert b"canary-7" in _bytes_in(folder)
            ours.put(NS, "k8", {"text": "lost-8"})
            ours.delete(NS, "k8")
            (folder / "ctxmgr_store" / "shard-left").mkdir()
            assert theirs.forget() == 200
            assert b"canary-" not in _bytes_in(folder)
            assert b"lost-8" not in _bytes_in(folder)
            assert theirs.search(NS, query="canary sang") == []
        with EdgeClient(folder) as client:
            store = TenantStore(client, tenant_id="acme", embeddings=HashedWords())
            assert len(store.search(NS, limit=500)) == 199
            assert store.search(NS, query="tea 9")[0].key == "k9"
            assert [item.key for item in store.search(NS, filter={"is_old": True})] == ["k7"]
            assert len(list((folder / "ctxmgr_store").glob("shard-*"))) == 1

    def test_a_closed_one_and_a_missing_collection_say_so(self, tmp_path):
        client = EdgeClient(tmp_path / "x")
        with pytest.raises(StorageError, match="no collection"):
            client.count("missing")
        with pytest.raises(ValueError, match="collection_name"):
            client.collection_exists("../up")
        client.close()
        client.close()
        with pytest.raises(StorageError, match="closed"):
            client.count("missing")


class TestLangmem:
    """langmem's memory tools, called by an agent and by hand."""

    @pytest.mark.parametrize("embeddings", [None, HashedWords()])
    async def test_memories_are_made_found_changed_and_deleted(self, client, embeddings):
        store = TenantStore(client, tenant_id="acme", embeddings=embeddings)
        namespace = ("memories", "{langgraph_user_id}")
        manage = create_manage_memory_tool(namespace, store=store)
        search = create_search_memory_tool(namespace, store=store)
        mine = on("t", langgraph_user_id="ann")
        made = await manage.ainvoke({"content": "Ann likes green tea."}, mine)
        manage.invoke({"content": "Bob plays chess."}, on("t", langgraph_user_id="bob"))
        name = made.split()[-1]
        found = json.loads(search.invoke({"query": "green tea"}, mine))
        assert [item["value"]["content"] for item in found] == ["Ann likes green tea."]
        change = {"content": "Ann likes black tea.", "action": "update", "id": name}
        manage.invoke(change, mine)
        found = json.loads(await search.ainvoke({"query": "tea"}, mine))
        assert [item["value"]["content"] for item in found] == ["Ann likes black tea."]
        await manage.ainvoke({"action": "delete", "id": name}, mine)
        assert json.loads(search.invoke({"query": "tea"}, mine)) == []
        assert store.list_namespaces() == [("memories", "bob")]

    def test_an_agents_memories_are_its_tenants(self, client):
        namespace = ("memories", "{langgraph_user_id}")
        tools = [create_manage_memory_tool(namespace), create_search_memory_tool(namespace)]
        with LoopbackOpenAI() as server:
            agent = agent_of(server, tools=tools, store=TenantStore(client))
            for tenant in ("acme", "globex"):
                server.rule = scripted(
                    Reply(calls=(("manage_memory", {"content": f"I am {tenant}"}),)),
                    Reply(calls=(("search_memory", {"query": "I am"}),)),
                    Reply("Done."),
                )
                config = on("t", tenant_id=tenant, langgraph_user_id="ann")
                final = agent.invoke(asked("Remember me."), config)
                found = json.loads(final["messages"][-2].content)
                assert [item["value"]["content"] for item in found] == [f"I am {tenant}"]
            assert server.account.refused == []
