"""A Qdrant server on this machine: its REST routes as far as they are used, Qdrant Edge behind.

Requests are read with qdrant-client's own models, which refuse unknown fields, and answered
by Qdrant's engine. Like a server in strict mode it refuses to filter by a field without index.
It can be told to fail: see `Fault`. As a process of its own, whose collections outlive a kill:
`python -m tests.loopback_qdrant --folder FOLDER --port PORT`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import socket
import ssl
import tempfile
import threading
import uuid
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import qdrant_edge as edge
from qdrant_client import models

CERTIFICATE = Path(__file__).parent / "certificates" / "loopback.pem"
"""Its own authority, good for 127.0.0.1; the key beside it is no secret."""


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose path holds `path`."""

    path: str = ""
    times: int = 1
    status: int | None = None
    """Answered, with these `headers`, instead of the request being done."""
    headers: dict[str, str] = field(default_factory=dict)
    hang_seconds: float = 0.0
    is_reset: bool = False
    """The connection is cut off without an answer."""
    is_done: bool = False
    """The request is done all the same: its answer alone is lost."""


SETTINGS = "collection.json"
"""Beside the shards of a collection: how it was made."""


class RefusalError(Exception):
    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class LoopbackQdrant(ThreadingHTTPServer):
    """Use as a context manager; `url` says where it is.

    What is in `folder` from before is served again; without one there is a temporary folder.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *, api_key=None, version="1.20.0", is_tls=False, folder=None, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.is_tls = is_tls
        if is_tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_suffix(".key"))
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.api_key = api_key
        self.version = version
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.collections: dict[str, Collection] = {}
        self.lock = threading.RLock()
        self.connections: set[socket.socket] = set()
        self.is_kept = folder is not None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="loopback-qdrant-"))
        for kept in sorted(self.folder.glob(f"*/{SETTINGS}")):
            self.collections[kept.parent.name] = Collection.loaded(kept.parent)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self):
        return f"http{'s' if self.is_tls else ''}://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
        with self.lock:
            for collection in self.collections.values():
                collection.close()
        if not self.is_kept:
            shutil.rmtree(self.folder, ignore_errors=True)

    def fault_for(self, path):
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.path in path:
                    fault.times -= 1
                    return fault
        return None

    def collection(self, name):
        if name not in self.collections:
            raise RefusalError(404, f"Not found: Collection `{name}` doesn't exist!")
        return self.collections[name]

    def answered(self, method, parts, body):
        """The `result` of a request; `parts` are its path's."""
        match method, parts:
            case "GET", ["collections"]:
                return {"collections": [{"name": name} for name in self.collections]}
            case "GET", ["collections", name]:
                return self.collection(name).info()
            case "PUT", ["collections", name]:
                if name in self.collections:
                    raise RefusalError(409, f"Wrong input: Collection `{name}` already exists!")
                asked = models.CreateCollection.model_validate_json(body)
                self.collections[name] = Collection(self.folder / name, asked)
                self.collections[name].save()
                return True
            case "DELETE", ["collections", name]:
                gone = self.collections.pop(name, None)
                if gone is not None:
                    gone.close()
                    shutil.rmtree(gone.folder)
                return gone is not None
            case _, ["collections", name, *rest]:
                return self.collection(name).answered(method, rest, body)
        raise RefusalError(404, f"no such route: {method} {'/'.join(parts)}")


class Collection:
    """A collection: one Edge shard, or one for each shard key."""

    def __init__(self, folder, asked):
        self.folder = folder
        self.asked = asked
        self.asked_indexes = {}
        self.indexes = {}
        self.shards = {}
        self.folders = {}
        folder.mkdir(parents=True)
        if asked.sharding_method != models.ShardingMethod.CUSTOM:
            self.add_shard(None)

    @classmethod
    def loaded(cls, folder):
        """The collection that a process left in `folder`, however it ended."""
        kept = json.loads((folder / SETTINGS).read_text())
        collection = cls.__new__(cls)
        collection.folder = folder
        collection.asked = models.CreateCollection.model_validate(kept["asked"])
        collection.asked_indexes = kept["indexes"]
        collection.indexes = {
            name: edge_index(
                models.CreateFieldIndex(field_name=name, field_schema=schema).field_schema
            )
            for name, schema in kept["indexes"].items()
        }
        collection.folders = {key: folder / name for key, name in kept["shards"]}
        collection.shards = {
            key: edge.EdgeShard.load(str(path)) for key, path in collection.folders.items()
        }
        return collection

    def save(self):
        """Have what `loaded` needs in the folder."""
        kept = {
            "asked": self.asked.model_dump(mode="json", exclude_none=True),
            "indexes": self.asked_indexes,
            "shards": [(key, path.name) for key, path in self.folders.items()],
        }
        new = self.folder / f"{SETTINGS}.new"
        new.write_text(json.dumps(kept))
        new.replace(self.folder / SETTINGS)

    def add_shard(self, key):
        self.folders[key] = self.folder / uuid.uuid4().hex
        self.shards[key] = self.made(self.folders[key])

    def made(self, folder):
        dense = {
            name: edge.EdgeVectorParams(
                size=params.size,
                distance=edge.Distance.Cosine,
                datatype=edge.VectorStorageDatatype.Float16,
            )
            for name, params in (self.asked.vectors or {}).items()
        }
        sparse = {
            name: edge.EdgeSparseVectorParams(
                modifier=edge.Modifier.Idf if params.modifier else None
            )
            for name, params in (self.asked.sparse_vectors or {}).items()
        }
        folder.mkdir()
        config = edge.EdgeConfig(vectors=dense, sparse_vectors=sparse)
        shard = edge.EdgeShard.create(str(folder), config)
        for name, params in self.indexes.items():
            shard.update(edge.UpdateOperation.create_field_index(name, params))
        return shard

    def close(self):
        for shard in self.shards.values():
            shard.close()

    def info(self):
        kinds = {
            edge.KeywordIndexParams: "keyword",
            edge.IntegerIndexParams: "integer",
            edge.FloatIndexParams: "float",
        }
        return {
            "status": "green",
            "optimizer_status": "ok",
            "segments_count": 1,
            "points_count": sum(s.count(edge.CountRequest()) for s in self.shards.values()),
            "config": {
                "params": self.asked.model_dump(
                    mode="json",
                    exclude_none=True,
                    include={"vectors", "sparse_vectors", "shard_number", "sharding_method"},
                ),
                "hnsw_config": {"m": 0, "ef_construct": 100, "full_scan_threshold": 10_000},
                "optimizer_config": {
                    "deleted_threshold": 0.2,
                    "vacuum_min_vector_number": 1_000,
                    "default_segment_number": 1,
                    "flush_interval_sec": 5,
                },
                "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
                "metadata": self.asked.metadata,
            },
            "payload_schema": {
                name: {"data_type": kinds[type(params)], "points": 0}
                for name, params in self.indexes.items()
            },
        }

    def picked(self, selector, *, is_write=False):
        if None in self.shards:
            if selector is not None:
                raise RefusalError(400, "Wrong input: Shard key is not allowed with auto sharding")
            return [self.shards[None]]
        if selector is None:
            if is_write:
                raise RefusalError(400, "Wrong input: Shard key not specified")
            return list(self.shards.values())
        key = selector.target if selector.target in self.shards else selector.fallback
        if key not in self.shards:
            raise RefusalError(404, f"Not found: Shard key {key} not found")
        return [self.shards[key]]

    def answered(self, method, rest, body):
        match method, rest:
            case "PUT", ["index"]:
                asked = models.CreateFieldIndex.model_validate_json(body)
                self.indexes[asked.field_name] = edge_index(asked.field_schema)
                self.asked_indexes[asked.field_name] = asked.field_schema.model_dump(
                    mode="json", exclude_none=True
                )
                for shard in self.shards.values():
                    shard.update(
                        edge.UpdateOperation.create_field_index(
                            asked.field_name, self.indexes[asked.field_name]
                        )
                    )
                self.save()
            case "GET", ["shards"]:
                return {"shard_keys": [{"key": key} for key in self.shards if key is not None]}
            case "PUT", ["shards"]:
                key = models.CreateShardingKey.model_validate_json(body).shard_key
                if None in self.shards or key in self.shards:
                    raise RefusalError(400, f"Bad request: Sharding key {key} cannot be made")
                self.add_shard(key)
                self.save()
                return True
            case "PUT", ["points"]:
                self.upsert(models.PointsList.model_validate_json(body))
            case "POST", ["points", "delete"]:
                asked = models.FilterSelector.model_validate_json(body)
                needed = self.filter(asked.filter)
                for shard in self.picked(asked.shard_key, is_write=True):
                    shard.update(edge.UpdateOperation.delete_points_by_filter(needed))
            case "POST", ["points", "count"]:
                asked = models.CountRequest.model_validate_json(body)
                counting = edge.CountRequest(exact=asked.exact, filter=self.filter(asked.filter))
                return {"count": sum(s.count(counting) for s in self.picked(asked.shard_key))}
            case "POST", ["points", "scroll"]:
                return self.scroll(models.ScrollRequest.model_validate_json(body))
            case "POST", ["points", "query", "batch"]:
                searches = models.QueryRequestBatch.model_validate_json(body).searches
                return [{"points": self.query(each)} for each in searches]
            case _:
                raise RefusalError(404, f"no such route: {method} {'/'.join(rest)}")
        return {"operation_id": 1, "status": "completed"}

    def upsert(self, asked):
        points = [
            edge.Point(
                point.id,
                {name: edge_vector(vector) for name, vector in point.vector.items()},
                point.payload,
            )
            for point in asked.points
        ]
        for shard in self.picked(asked.shard_key, is_write=True):
            shard.update(edge.UpdateOperation.upsert_points(points))

    def scroll(self, asked):
        records = []
        for shard in self.picked(asked.shard_key):
            found, _ = shard.scroll(
                edge.ScrollRequest(
                    offset=asked.offset,
                    limit=asked.limit,
                    filter=self.filter(asked.filter),
                    with_payload=asked.with_payload,
                    with_vector=asked.with_vector,
                )
            )
            records += found
        records.sort(key=lambda record: record.id)
        return {
            "points": [
                {
                    "id": record.id,
                    "payload": record.payload,
                    "vector": {name: plain(v) for name, v in (record.vector or {}).items()},
                }
                for record in records[: asked.limit]
            ]
        }

    def query(self, asked):
        vector = asked.query.nearest
        params = None
        if isinstance(vector, models.SparseVector):
            corpus = asked.params.idf.corpus
            params = edge.SearchParams(idf=edge.IdfParams(self.filter(corpus)))
        request = edge.QueryRequest(
            limit=asked.limit,
            query=edge.Query.Nearest(edge_vector(vector), using=asked.using),
            filter=self.filter(asked.filter),
            params=params,
        )
        hits = [hit for shard in self.picked(asked.shard_key) for hit in shard.query(request)]
        hits.sort(key=lambda hit: -hit.score)
        return [{"id": hit.id, "version": 1, "score": hit.score} for hit in hits[: asked.limit]]

    def filter(self, asked):
        conditions = []
        for each in asked.must:
            if isinstance(each, models.HasIdCondition):
                conditions.append(edge.HasIdCondition(set(each.has_id)))
                continue
            if each.key not in self.indexes:
                raise RefusalError(
                    400, f'Bad request: Index required but not found for "{each.key}" (strict mode)'
                )
            conditions.append(
                edge.FieldCondition(key=each.key, match=edge.MatchValue(each.match.value))
                if each.match is not None
                else edge.FieldCondition(
                    key=each.key, range=edge.RangeFloat(gte=each.range.gte, lt=each.range.lt)
                )
            )
        return edge.Filter(must=conditions)


def edge_index(schema):
    match schema:
        case models.KeywordIndexParams():
            return edge.KeywordIndexParams(is_tenant=schema.is_tenant)
        case models.IntegerIndexParams():
            return edge.IntegerIndexParams(lookup=schema.lookup, range=schema.range)
        case models.FloatIndexParams():
            return edge.FloatIndexParams()
    raise RefusalError(400, f"Bad request: no such index: {schema}")


def edge_vector(vector):
    if isinstance(vector, models.SparseVector):
        return edge.SparseVector(list(vector.indices), list(vector.values))
    return vector


def plain(vector):
    if isinstance(vector, edge.SparseVector):
        return {"indices": list(vector.indices), "values": list(vector.values)}
    return vector


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: LoopbackQdrant

    def setup(self):
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self):
        self.server.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_):
        pass

    def handle(self):
        with contextlib.suppress(ConnectionError):
            super().handle()

    def respond(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        self.server.requests.append(f"{self.command} {path}")
        fault = self.server.fault_for(f"{self.command} {path}")
        if fault is None:
            self.answer(*self.result(path, body))
            return
        if fault.is_done:
            self.result(path, body)
        threading.Event().wait(fault.hang_seconds)  # not `sleep`, which tests replace
        if fault.is_reset or fault.status is None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        text = HTTPStatus(fault.status).phrase
        self.answer(fault.status, {"status": {"error": text}, "time": 0.0}, fault.headers)

    do_GET = do_PUT = do_POST = do_DELETE = respond  # noqa: N815 - the names http.server calls

    def result(self, path, body):
        key = self.server.api_key
        if key is not None and self.headers.get("api-key") != key:
            return 401, {"status": {"error": "Must provide an API key or a bearer token"}}
        parts = [unquote(part) for part in path.split("/") if part]
        if not parts:
            return 200, {"title": "qdrant", "version": self.server.version}
        try:
            with self.server.lock:
                return 200, {"result": self.server.answered(self.command, parts, body), "time": 0.0}
        except RefusalError as refusal:
            return refusal.status, {"status": {"error": str(refusal)}, "time": 0.0}
        except Exception as error:  # noqa: BLE001 - the engine's refusals are bare exceptions
            return 400, {"status": {"error": f"Wrong input: {error}"}, "time": 0.0}

    def answer(self, status, body, headers=None):
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    with LoopbackQdrant(folder=given.folder, port=given.port) as server:
        server.thread.join()


if __name__ == "__main__":
    main()
