from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pytest

from langchain_ctxmgr.storage import server_requests
from langchain_ctxmgr.storage.server import QdrantVectorStore
from langchain_ctxmgr.storage.server_connection import ConnectionSettings
from langchain_ctxmgr.storage.server_requests import CollectionSettings, batches, collection_name
from langchain_ctxmgr.storage.vectors import DenseVectors
from tests.contracts.vectors import EMBEDDING, point


class TestConstruction:
    def test_nothing_is_imported_or_asked_before_first_use(self):
        code = (
            "import sys\n"
            "from langchain_ctxmgr.storage.server import QdrantVectorStore\n"
            "QdrantVectorStore('http://nowhere.invalid:6333', api_key='k').close()\n"
            "assert 'qdrant_client' not in sys.modules and 'grpc' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    @pytest.mark.parametrize(
        "url", ["localhost:6333", "ftp://q", "", "http://", "http://key@q:6333", "http://q?grpc=1"]
    )
    def test_the_constructor_takes_a_plain_url(self, url):
        with pytest.raises(ValueError, match="url must"):
            QdrantVectorStore(url)

    def test_several_processes_may_use_it(self):
        assert QdrantVectorStore("http://q:6333").is_shared


class TestFromUrl:
    def test_key_and_options_come_from_the_url(self):
        store = QdrantVectorStore.from_url(
            "https://k%40y@q.example:6333/prefix?collection=mine&grpc=1&grpc_port=7000&ca=/ca.pem"
        )
        assert store.url == "https://q.example:6333/prefix"
        assert store.collection == "mine"
        assert store._connection._api_key == "k@y"
        assert store._connection.settings == ConnectionSettings(
            prefer_grpc=True, grpc_port=7000, verify="/ca.pem"
        )
        assert "k@y" not in repr(store)
        assert "k%40y" not in repr(store)

    def test_an_argument_goes_before_the_urls_key(self):
        store = QdrantVectorStore.from_url("http://old@localhost:6333", api_key="new")
        assert store._connection._api_key == "new"

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("http://secret@q?colection=x", "colection"),
            ("http://secret@q?grpc=yes", "grpc must be 0 or 1"),
            ("http://secret@q?grpc_port=x", "grpc_port a number"),
            ("redis://secret@q", "url must be"),
        ],
    )
    def test_what_is_wrong_is_said_without_the_key(self, url, says):
        with pytest.raises(ValueError, match=says) as caught:
            QdrantVectorStore.from_url(url)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("url", "in_clear"),
        [
            ("http://key@q:6333", True),
            ("https://key@q:6333", False),
            ("http://key@127.0.0.1:6333", False),
            ("http://q:6333", False),
        ],
    )
    def test_a_key_in_clear_is_noticed(self, url, in_clear):
        assert QdrantVectorStore.from_url(url)._connection.sends_key_in_clear == in_clear


class TestSettings:
    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"attempts": 0}, "attempts"),
            ({"timeout": timedelta(0)}, "timeout"),
            ({"attempts": "4"}, "attempts"),
            ({"timeout": 5}, "timeout"),
            ({"patience": timedelta(seconds=-1)}, "patience"),
            ({"prefer_grpc": True, "verify": False}, "verify"),
        ],
    )
    def test_wrong_connections(self, wrong, says):
        with pytest.raises(ValueError, match=says):
            ConnectionSettings(**wrong)

    @pytest.mark.parametrize(
        "name", ["shard_number", "replication_factor", "write_consistency_factor"]
    )
    def test_wrong_layouts(self, name):
        with pytest.raises(ValueError, match=name):
            CollectionSettings(**{name: 0})


class TestRequests:
    def test_each_embedding_has_its_own_collection(self):
        names = {
            collection_name("ctxmgr", dense)
            for dense in (None, EMBEDDING, DenseVectors(name="another", size=4))
        }
        assert len(names) == 3
        assert all(name.startswith("ctxmgr-") for name in names)

    def test_batches_are_bounded_by_points_and_bytes(self, monkeypatch):
        points = [
            server_requests.server_point(point(seq, dense=[1, 0, 0, 0]), EMBEDDING)
            for seq in range(1, 11)
        ]
        assert [len(batch) for batch in batches(points, 4)] == [4, 4, 2]
        monkeypatch.setattr(server_requests, "_MAX_BYTES", 2 * server_requests._bytes(points[0]))
        sizes = [len(batch) for batch in batches(points, 4)]
        assert sum(sizes) == 10
        assert max(sizes) <= 2
        monkeypatch.setattr(server_requests, "_MAX_BYTES", 1)
        assert [len(batch) for batch in batches(points, 4)] == [1] * 10
        assert list(batches([], 4)) == []
