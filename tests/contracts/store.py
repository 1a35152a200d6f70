"""What LangGraph's documentation promises of a `BaseStore`, blocking and async.

Written from the docstrings of `langgraph.store.base`. A subclass gives a `store` fixture:
an empty store with an embedding model, whose time-to-live settings are `TTL`.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)

NS = ("users", "ann")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LEAF = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.dictionaries(
    TEXT,
    st.recursive(
        LEAF | NUMBER,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@pytest.fixture(params=["blocking", "async"])
def way(request):
    return request.param


class StoreContract:
    """One suite for every backend."""

    TTL: ClassVar = {"refresh_on_read": True, "omit_expired": True}
    has_ttl = True

    @pytest.fixture
    def do(self, store, way):
        """`await do("put", …)`: the blocking method or its twin."""

        async def call(name, *args, **kwargs):
            if way == "async":
                return await getattr(store, f"a{name}")(*args, **kwargs)
            return getattr(store, name)(*args, **kwargs)

        return call

    async def test_what_was_put_is_there(self, do):
        value = {"text": "likes tea", "n": 1.5, "deep": {"list": [1, None, True, "x"]}}
        before = datetime.now(UTC)
        await do("put", NS, "k", value)
        item = await do("get", NS, "k")
        assert (item.namespace, item.key, item.value) == (NS, "k", value)
        assert before <= item.created_at <= item.updated_at <= datetime.now(UTC)
        assert await do("get", NS, "other") is None
        assert await do("get", ("users",), "k") is None

    async def test_putting_again_replaces(self, do):
        await do("put", NS, "k", {"a": 1, "b": 2})
        first = await do("get", NS, "k")
        await do("put", NS, "k", {"a": 3})
        second = await do("get", NS, "k")
        assert second.value == {"a": 3}
        assert second.created_at >= first.created_at
        assert second.updated_at > first.updated_at

    async def test_what_was_deleted_is_gone(self, do):
        await do("put", NS, "k", {"a": 1})
        await do("delete", NS, "k")
        await do("delete", NS, "never there")
        assert await do("get", NS, "k") is None
        assert await do("search", NS) == []

    async def test_the_same_key_in_two_namespaces_is_two_items(self, do):
        for namespace in (("a",), ("a", "b"), ("a b",), ("b", "a")):
            await do("put", namespace, "k", {"is": list(namespace)})
        for namespace in (("a",), ("a", "b"), ("a b",), ("b", "a")):
            assert (await do("get", namespace, "k")).value == {"is": list(namespace)}

    async def test_namespaces_match_by_whole_segments(self, do):
        for namespace in (("user", "1"), ("user", "10"), ("users", "1"), ("user",)):
            await do("put", namespace, "k", {"a": 1})
        found = await do("search", ("user",))
        assert {item.namespace for item in found} == {("user", "1"), ("user", "10"), ("user",)}
        assert [item.namespace for item in await do("search", ("user", "1"))] == [("user", "1")]
        assert len(await do("search", ())) == 4
        assert await do("search", ("use",)) == []

    async def test_filters_compare_and_combine(self, do):
        rows = [
            {"kind": "note", "n": 1, "tags": ["a"], "who": {"name": "ann", "age": 30}},
            {"kind": "note", "n": 2.5, "done": True, "who": {"name": "bob", "age": 40}},
            {"kind": "task", "n": 3, "done": False, "tags": ["a", "b"]},
            {"kind": None, "n": -4},
        ]
        for number, row in enumerate(rows):
            await do("put", NS, f"k{number}", row)

        async def keys(query_filter):
            return sorted(item.key for item in await do("search", NS, filter=query_filter))

        assert await keys({"kind": "note"}) == ["k0", "k1"]
        assert await keys({"kind": {"$eq": "task"}}) == ["k2"]
        assert await keys({"kind": {"$ne": "note"}}) == ["k2", "k3"]
        assert await keys({"n": {"$gt": 1}}) == ["k1", "k2"]
        assert await keys({"n": {"$gte": 1, "$lt": 3}}) == ["k0", "k1"]
        assert await keys({"n": {"$lte": -4}}) == ["k3"]
        assert await keys({"kind": "note", "n": {"$gt": 1}}) == ["k1"]
        assert await keys({"done": True}) == ["k1"]
        assert await keys({"who": {"name": "ann"}}) == ["k0"]
        assert await keys({"tags": ["a"]}) == ["k0"]
        assert await keys({"missing": "x"}) == []

    async def test_filters_hold_in_a_search_by_meaning(self, do):
        for number in range(6):
            await do("put", NS, f"k{number}", {"text": "green tea", "even": number % 2 == 0})
        found = await do("search", NS, query="green tea", filter={"even": True})
        assert sorted(item.key for item in found) == ["k0", "k2", "k4"]

    async def test_an_unknown_operator_is_refused(self, do):
        await do("put", NS, "k", {"a": 1})
        with pytest.raises(ValueError, match="perator"):
            await do("search", NS, filter={"a": {"$near": 1}})

    async def test_pages_meet_without_gap_or_repeat(self, do):
        for number in range(25):
            await do("put", NS, f"k{number:02}", {"text": f"note {number}"})
        for query in (None, "note"):
            pages = [
                await do("search", NS, query=query, limit=7, offset=o) for o in range(0, 28, 7)
            ]
            assert [len(page) for page in pages] == [7, 7, 7, 4]
            assert len({item.key for page in pages for item in page}) == 25
        assert len(await do("search", NS)) == 10
        assert await do("search", NS, limit=5, offset=99) == []

    async def test_a_query_puts_the_nearest_first(self, do):
        texts = ["my cat sleeps all day", "the invoice is due in May", "we fly to Lisbon in June"]
        for number, text in enumerate(texts):
            await do("put", NS, f"k{number}", {"text": text})
        found = await do("search", NS, query="when is the invoice due?")
        assert found[0].key == "k1"
        scores = [item.score for item in found]
        assert scores == sorted(scores, reverse=True)
        assert (await do("search", NS))[0].score is None

    async def test_fields_that_are_not_indexed_are_not_searched(self, do):
        await do("put", NS, "no", {"text": "green tea"}, index=False)
        await do("put", NS, "part", {"text": "green tea", "other": "black coffee"}, index=["other"])
        await do("put", NS, "all", {"text": "green tea"})
        found = await do("search", NS, query="green tea", limit=1)
        assert [item.key for item in found] == ["all"]
        assert (await do("get", NS, "no")).value == {"text": "green tea"}
        assert "no" in {item.key for item in await do("search", NS)}

    async def test_namespaces_are_listed(self, do):
        names = [
            ("a", "b", "c"),
            ("a", "b", "d", "e"),
            ("a", "b", "d", "i"),
            ("a", "b", "f"),
            ("a", "c", "f"),
            ("b", "a", "f"),
        ]
        for name in names:
            await do("put", name, "k", {"a": 1})
        assert sorted(await do("list_namespaces")) == sorted(names)
        found = await do("list_namespaces", prefix=("a", "b"), max_depth=3)
        assert sorted(found) == [("a", "b", "c"), ("a", "b", "d"), ("a", "b", "f")]
        found = await do("list_namespaces", prefix=("a",), suffix=("f",))
        assert sorted(found) == [("a", "b", "f"), ("a", "c", "f")]
        assert sorted(await do("list_namespaces", prefix=("a", "*", "f"))) == [
            ("a", "b", "f"),
            ("a", "c", "f"),
        ]
        assert sorted(await do("list_namespaces", suffix=("*", "f"))) == [
            ("a", "b", "f"),
            ("a", "c", "f"),
            ("b", "a", "f"),
        ]
        first, second = [await do("list_namespaces", limit=4, offset=o) for o in (0, 4)]
        assert sorted([*first, *second]) == sorted(names)
        assert await do("list_namespaces", prefix=("z",)) == []
        assert await do("list_namespaces", suffix=("*", "*", "*", "*", "*")) == []

    async def test_a_batch_answers_in_order_and_reads_before_it_writes(self, do):
        await do("put", NS, "old", {"text": "old"})
        results = await do(
            "batch",
            [
                PutOp(NS, "new", {"text": "new"}),
                GetOp(NS, "new"),
                GetOp(NS, "old"),
                SearchOp(NS),
                SearchOp(NS, query="old new"),
                ListNamespacesOp((MatchCondition("prefix", ("users",)),)),
                PutOp(NS, "old", None),
                GetOp(NS, "missing"),
            ],
        )
        assert results[0] is results[1] is results[6] is results[7] is None
        assert results[2].value == {"text": "old"}
        assert [[item.key for item in found] for found in results[3:5]] == [["old"], ["old"]]
        assert results[5] == [NS]
        assert [item.key for item in await do("search", NS)] == ["new"]

    async def test_the_last_of_several_writes_to_a_key_counts(self, do):
        ops = [PutOp(NS, "k", {"n": 1}), PutOp(NS, "k", None), PutOp(NS, "k", {"n": 2})]
        assert await do("batch", ops) == [None, None, None]
        assert (await do("get", NS, "k")).value == {"n": 2}
        await do("batch", [PutOp(NS, "k", {"n": 3}), PutOp(NS, "k", None)])
        assert await do("get", NS, "k") is None
        assert await do("batch", []) == []

    @pytest.mark.parametrize(
        "namespace", [(), ("",), ("a.b",), ("langgraph", "x"), ("a", 3), ("a", None)]
    )
    async def test_a_namespace_that_is_none_is_refused(self, do, namespace):
        with pytest.raises(InvalidNamespaceError):
            await do("put", namespace, "k", {"a": 1})

    async def test_items_live_until_they_were_not_read_for_a_while(self, store, do, later):
        if not self.has_ttl:
            pytest.skip("keeps items for good")
        await do("put", NS, "short", {"text": "tea"}, ttl=10)
        await do("put", NS, "read", {"text": "tea"}, ttl=10)
        await do("put", NS, "peeked", {"text": "tea"}, ttl=10)
        await do("put", NS, "kept", {"text": "tea"})
        later(minutes=6)
        assert await do("get", NS, "read")
        assert await do("get", NS, "peeked", refresh_ttl=False)
        later(minutes=6)
        assert await do("get", NS, "short") is None
        assert await do("get", NS, "peeked") is None
        for query in (None, "tea"):
            found = await do("search", NS, query=query, refresh_ttl=False)
            assert {item.key for item in found} == {"read", "kept"}
        assert await do("sweep_ttl") == 2
        later(minutes=6)
        assert await do("search", NS, query="tea")
        assert {item.key for item in await do("search", NS)} == {"kept"}

    async def test_a_search_in_words_refreshes_what_it_returns(self, store, do, later):
        if not self.has_ttl:
            pytest.skip("keeps items for good")
        await do("put", NS, "k", {"text": "tea"}, ttl=10)
        for _ in range(4):
            later(minutes=6)
            assert len(await do("search", NS, query="tea")) == 1
        later(minutes=11)
        assert await do("search", NS, query="tea") == []
        assert await do("list_namespaces") == []

    async def test_many_at_once(self, store):
        async def mine(number):
            namespace = ("u", str(number))
            for step in range(4):
                await store.aput(namespace, f"k{step}", {"text": f"word{number}"})
            return await store.asearch(namespace, query=f"word{number}")

        for number, found in enumerate(await asyncio.gather(*map(mine, range(12)))):
            assert {item.value["text"] for item in found} == {f"word{number}"}
            assert len(found) == 4

    def test_any_json_comes_back(self, store):
        @settings(max_examples=25)
        @given(VALUES)
        def comes_back(value):
            store.put(NS, "any", value)
            assert store.get(NS, "any").value == value

        comes_back()
