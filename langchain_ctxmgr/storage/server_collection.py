"""The one collection all tenants share: made once, recognized by every process.

Whichever process comes first makes it, with an identity in its metadata; the others find it
there, finish its payload indexes if they come in between, and notice when it was dropped and
made anew.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.storage import server_requests as requests
from langchain_ctxmgr.storage.server_connection import QdrantConnection, Request
from langchain_ctxmgr.storage.server_errors import CollectionMissingError
from langchain_ctxmgr.storage.server_requests import CollectionSettings, Identity
from langchain_ctxmgr.storage.vectors import DenseVectors

if TYPE_CHECKING:
    from qdrant_client import models

IDENTITY_SECONDS = 5.0
"""How long `index_id` may be out of date after another process dropped the collection."""


class SharedCollection:
    """The collection called `base`, and after it its embedding, on the server behind `connection`.

    Args:
        connection: Where it is.
        base: What its name starts with.
        dense: Its embedding, or a function that says so at first use.
        layout: Its shards and replicas, where it has to be made.
    """

    def __init__(
        self,
        connection: QdrantConnection,
        base: str,
        dense: DenseVectors | Callable[[], DenseVectors] | None,
        layout: CollectionSettings,
    ) -> None:
        self._connection = connection
        self._base = base
        self._embedding = dense
        self._layout = layout
        self._found: _Found | None = None
        self._is_warned = False
        self._is_closed = False

    @property
    def dense(self) -> DenseVectors | None:
        """The embedding it is opened for."""
        if callable(self._embedding):
            self._embedding = self._embedding()
        return self._embedding

    @property
    def is_by_tenant(self) -> bool:
        """Whether requests are routed by tenant."""
        return self._layout.tenant_shards

    @property
    def _name(self) -> str:
        return requests.collection_name(self._base, self.dense)

    def refuse_closed(self) -> None:
        """Return while it is open.

        Raises:
            StorageError: Once it is closed.
        """
        if self._is_closed:
            raise StorageError(f"the vector store at {self._connection.url} is closed")

    def mark_closed(self) -> bool:
        """Refuse what comes from here on; False when that was so already."""
        was_open, self._is_closed = not self._is_closed, True
        return was_open

    def shard(self, tenant_id: str | None) -> models.ShardKeyWithFallback | None:
        """Where the points of a tenant are: in its own shard if there is one."""
        if not self._layout.tenant_shards or tenant_id is None:
            return None
        from qdrant_client import models

        return models.ShardKeyWithFallback(target=tenant_id, fallback=requests.SHARED_SHARD)

    def send(self, what: str, method: str, **arguments: Any) -> Plan[Any]:
        """An answer from the collection, which is made anew when another process dropped it."""
        yield from self.opened()
        try:
            return (yield from self._ask(what, method, collection_name=self._name, **arguments))
        except CollectionMissingError:
            self._found = None
            yield from self.opened()
            return (yield from self._ask(what, method, collection_name=self._name, **arguments))

    def send_to_others(self, what: str, method: str, **arguments: Any) -> Plan[None]:
        """The same request to each collection of this name for another embedding."""
        own = re.compile(rf"{re.escape(self._base)}-({requests.SUFFIX})")
        listed = yield from self._ask("list the collections", "get_collections")
        for each in listed.collections:
            if own.fullmatch(each.name) and each.name != self._name:
                yield from self._ask(what, method, collection_name=each.name, **arguments)

    def opened(self) -> Plan[Identity]:
        """Its identity; it is looked for, and made where there is none, at first use.

        Raises:
            StorageError: If the server is too old, or the collection is not for `dense`.
        """
        self.refuse_closed()
        if self._found is None:
            yield from self.check_server()
            self._found = yield from self._find()
        return self._found.identity

    def index_id(self) -> Plan[str]:
        """Identity of its content, at most `IDENTITY_SECONDS` old."""
        yield from self.opened()
        if self._found is None or time.monotonic() - self._found.at > IDENTITY_SECONDS:
            self._found = yield from self._find()
        return self._found.identity.index_id

    def drop(self) -> Plan[None]:
        """Remove it, whatever it holds."""
        self._found = None
        try:
            yield from self._ask(
                "drop the vectors", "delete_collection", collection_name=self._name
            )
        except CollectionMissingError:
            return

    def _ask(self, what: str, method: str, **arguments: Any) -> Plan[Any]:
        self.refuse_closed()
        return (yield from call(self._connection.send, Request(what, method, arguments)))

    def check_server(self) -> Plan[str]:
        """The server's version, warning once of troubles that can be lived with.

        Raises:
            StorageError: If it cannot be used, or would mix the tenants' words.
        """
        url = self._connection.url
        info = yield from self._ask("ask for the version", "info")
        served = _release(info.version)
        if served < requests.OLDEST_SERVER:
            oldest = ".".join(map(str, requests.OLDEST_SERVER))
            raise StorageError(
                f"the Qdrant server at {url} is {info.version}; upgrade it to {oldest} or "
                "newer, which keeps the term statistics of tenants apart"
            )
        if self._is_warned:
            return info.version
        self._is_warned = True
        installed = version("qdrant-client")
        ours = _release(installed)
        if ours[0] != served[0] or abs(ours[1] - served[1]) > 1:
            warnings.warn(
                f"qdrant-client {installed} and the Qdrant server {info.version} at {url} are "
                "more than one minor version apart; install ones that match",
                stacklevel=2,
            )
        if self._connection.sends_key_in_clear:
            warnings.warn(f"the API key goes to {url} unencrypted; use https", stacklevel=2)
        return info.version

    def _find(self) -> Plan[_Found]:
        name, dense = self._name, self.dense
        try:
            info = yield from self._ask("open the vectors", "get_collection", collection_name=name)
        except CollectionMissingError:
            info = yield from self._made(name, dense)
        found = requests.identity(info, name, dense)
        # Another process may have made the collection a moment ago and not be done with it.
        for field, schema in requests.payload_indexes().items():
            if field not in found.indexed:
                yield from self._ask(
                    f"index {field}",
                    "create_payload_index",
                    collection_name=name,
                    field_name=field,
                    field_schema=schema,
                )
        if self._layout.tenant_shards:
            yield from self._share_shard(name)
        return _Found(found, time.monotonic())

    def _made(self, name: str, dense: DenseVectors | None) -> Plan[models.CollectionInfo]:
        failed: StorageError | None = None
        try:
            yield from self._ask(
                "make the collection",
                "create_collection",
                collection_name=name,
                **requests.creation(dense, self._layout),
            )
        except StorageError as error:
            failed = error
        try:
            return (
                yield from self._ask("open the vectors", "get_collection", collection_name=name)
            )
        except CollectionMissingError as missing:
            # Where it is there, another process was faster; else the failure counts.
            raise (failed or missing) from None

    def _share_shard(self, name: str) -> Plan[None]:
        """Have the shard for tenants without their own; another process may be faster."""
        if (yield from self._has_shared_shard(name)):
            return
        try:
            yield from self._ask(
                "make the shared shard",
                "create_shard_key",
                collection_name=name,
                shard_key=requests.SHARED_SHARD,
            )
        except StorageError:
            if not (yield from self._has_shared_shard(name)):
                raise

    def _has_shared_shard(self, name: str) -> Plan[bool]:
        known = yield from self._ask("list the shards", "list_shard_keys", collection_name=name)
        return requests.SHARED_SHARD in [each.key for each in known.shard_keys or ()]


class _Found(NamedTuple):
    identity: Identity
    at: float
    """When, by the monotonic clock."""


def _release(text: str) -> tuple[int, int]:
    """Major and minor version; what cannot be read counts as the oldest."""
    numbers = text.split(".")
    if len(numbers) > 1 and numbers[0].isdecimal() and numbers[1].isdecimal():
        return int(numbers[0]), int(numbers[1])
    return 0, 0
