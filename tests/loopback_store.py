"""A Qdrant server on this machine for LangGraph's stores: their REST routes over an `EdgeClient`.

Requests are read with qdrant-client's own models, which refuse unknown fields.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import TypeAdapter
from qdrant_client.http import models

from langchain_ctxmgr.storage.edge_client import EdgeClient

SELECTOR = TypeAdapter(models.PointsSelector)


class LoopbackStore(ThreadingHTTPServer):
    """Use as a context manager; `url` is what a `QdrantClient` takes."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = Path(tempfile.mkdtemp(prefix="loopback-store-"))
        self.client = EdgeClient(self.folder)
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
        self.client.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def answered(self, method, name, rest, body) -> Any:
        """The `result` of a request on the collection `name`."""
        client = self.client
        match method, rest:
            case "GET", ["exists"]:
                return {"exists": client.collection_exists(name)}
            case "GET", []:
                return client.get_collection(name)
            case "PUT", []:
                asked = models.CreateCollection.model_validate_json(body)
                return client.create_collection(
                    name,
                    vectors_config=asked.vectors or {},
                    sparse_vectors_config=asked.sparse_vectors,
                    metadata=asked.metadata,
                )
            case "PATCH", []:
                asked = models.UpdateCollection.model_validate_json(body)
                return client.update_collection(name, metadata=asked.metadata)
            case "PUT", ["index"]:
                asked = models.CreateFieldIndex.model_validate_json(body)
                client.create_payload_index(name, asked.field_name, asked.field_schema)
            case "PUT", ["points"]:
                client.upsert(name, models.PointsList.model_validate_json(body).points)
            case "POST", ["points"]:
                asked = models.PointRequest.model_validate_json(body)
                return client.retrieve(name, asked.ids, with_payload=asked.with_payload)
            case "POST", ["points", "delete"]:
                client.delete(name, points_selector=SELECTOR.validate_json(body))
            case "POST", ["points", "batch"]:
                asked = models.UpdateOperations.model_validate_json(body)
                client.batch_update_points(name, asked.operations)
                return [{"operation_id": 1, "status": "completed"} for _ in asked.operations]
            case "POST", ["points", "count"]:
                asked = models.CountRequest.model_validate_json(body)
                return client.count(name, count_filter=asked.filter, exact=asked.exact)
            case "POST", ["points", "scroll"]:
                asked = models.ScrollRequest.model_validate_json(body)
                page, following = client.scroll(
                    name,
                    scroll_filter=asked.filter,
                    limit=asked.limit,
                    offset=asked.offset,
                    with_payload=asked.with_payload,
                )
                return {"points": page, "next_page_offset": following}
            case "POST", ["points", "query", "batch"]:
                searches = models.QueryRequestBatch.model_validate_json(body).searches
                return client.query_batch_points(name, [as_asked(each) for each in searches])
            case "POST", ["facet"]:
                asked = models.FacetRequest.model_validate_json(body)
                return client.facet(
                    name,
                    key=asked.key,
                    facet_filter=asked.filter,
                    limit=asked.limit,
                    exact=asked.exact,
                )
            case _:
                raise LookupError(f"no such route: {method} {'/'.join(rest)}")
        return {"operation_id": 1, "status": "completed"}


def as_asked(search):
    """A search as the client was asked for it: over HTTP a vector comes as `nearest`."""
    if isinstance(search.query, models.NearestQuery):
        return search.model_copy(update={"query": search.query.nearest})
    return search


def plain(result):
    if isinstance(result, list):
        return [plain(each) for each in result]
    if isinstance(result, dict):
        return {name: plain(each) for name, each in result.items()}
    if isinstance(result, bool | int | str | None):
        return result
    return result.model_dump(mode="json")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: LoopbackStore

    def log_message(self, *_):
        pass

    def respond(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = [unquote(part) for part in urlsplit(self.path).path.split("/") if part]
        if not parts:
            self.answer(200, self.server.client.info().model_dump(mode="json"))
            return
        try:
            with self.server.lock:
                result = self.server.answered(self.command, parts[1], parts[2:], body)
        except Exception as error:  # noqa: BLE001 - whatever went wrong is the answer
            self.answer(400, {"status": {"error": f"Wrong input: {error}"}, "time": 0.0})
        else:
            self.answer(200, {"result": plain(result), "status": "ok", "time": 0.0})

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = respond  # noqa: N815 - http.server's names

    def answer(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
