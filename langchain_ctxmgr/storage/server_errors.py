"""What went wrong between us and a Qdrant server, told once for REST and gRPC.

`read_failure` looks at an exception of either client and says what it means: whether asking
again may help, how long the server asks to wait, and how to mend it. The exceptions' own
texts are shortened and the API key never gets into one.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from enum import Enum
from http import HTTPStatus
from typing import Any, NamedTuple, cast

from langchain_ctxmgr.errors import StorageError

_LONGEST_REASON = 300
_GRPC_STATUS = {
    "UNAUTHENTICATED": HTTPStatus.UNAUTHORIZED,
    "PERMISSION_DENIED": HTTPStatus.FORBIDDEN,
    "NOT_FOUND": HTTPStatus.NOT_FOUND,
    "ALREADY_EXISTS": HTTPStatus.CONFLICT,
    "RESOURCE_EXHAUSTED": HTTPStatus.TOO_MANY_REQUESTS,
    "UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
    "DEADLINE_EXCEEDED": HTTPStatus.GATEWAY_TIMEOUT,
    "ABORTED": HTTPStatus.SERVICE_UNAVAILABLE,
    "INTERNAL": HTTPStatus.INTERNAL_SERVER_ERROR,
    "INVALID_ARGUMENT": HTTPStatus.BAD_REQUEST,
}
"""The HTTP status with the meaning of a gRPC code."""


class CollectionMissingError(StorageError):
    """The collection is not there (any more)."""


class Kind(Enum):
    """What a failure means; the value says how to mend it."""

    OVERLOADED = "the server limits its load: ask less at once, or give it more resources"
    DOWN = "check that Qdrant runs there and is reachable from here"
    REFUSED = "check the API key (`api_key`, or the user part of the URL) and its rights"
    UNTRUSTED = "check the certificate, or give its authority as `verify`"
    MISSING = "the collection is gone: the next use makes it again"
    REJECTED = "the server does not take this request: check its version and strict-mode limits"
    UNREADABLE = "check that the URL names Qdrant's REST port and that the versions match"


_TRANSIENT = frozenset({Kind.OVERLOADED, Kind.DOWN})


class Failure(NamedTuple):
    """An exception of qdrant-client, understood."""

    kind: Kind
    reason: str
    retry_after_seconds: float | None = None
    """How long the server asks to wait."""

    @property
    def is_transient(self) -> bool:
        """Whether the same request may work in a while."""
        return self.kind in _TRANSIENT


def is_transient(error: BaseException) -> bool:
    """Whether the request that failed with `error` may work in a while."""
    return isinstance(error, Exception) and read_failure(error).is_transient


def storage_error(what: str, where: str, error: Exception, *, secret: str | None) -> StorageError:
    """`error` as one that says what failed, where, why and how to mend it."""
    failure = read_failure(error)
    reason = failure.reason.replace(secret, "***") if secret else failure.reason
    made = CollectionMissingError if failure.kind is Kind.MISSING else StorageError
    return made(f"cannot {what} at {where}: {reason[:_LONGEST_REASON]}; {failure.kind.value}")


def read_failure(error: Exception) -> Failure:
    """What `error` means."""
    from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    if isinstance(error, ResourceExhaustedResponse):
        return Failure(Kind.OVERLOADED, str(error), float(error.retry_after_s))
    if isinstance(error, QdrantException):
        # qdrant-client's answer to a 429 whose Retry-After is not in seconds.
        return Failure(Kind.OVERLOADED, str(error))
    if isinstance(error, UnexpectedResponse):
        status = error.status_code or HTTPStatus.INTERNAL_SERVER_ERROR
        return Failure(_kind(status), _said(error), _seconds(error.headers.get("Retry-After")))
    if isinstance(error, ResponseHandlingException):
        return _unanswered(error.source)
    return _grpc_failure(error) or Failure(Kind.UNREADABLE, _described(error))


def _kind(status: int) -> Kind:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Kind.OVERLOADED
    if status == HTTPStatus.REQUEST_TIMEOUT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Kind.DOWN
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return Kind.REFUSED
    return Kind.MISSING if status == HTTPStatus.NOT_FOUND else Kind.REJECTED


def _said(error: Any) -> str:
    head = f"{error.status_code} {error.reason_phrase}".strip()
    try:
        return f"{head}: {error.structured()['status']['error']}"
    except (ValueError, KeyError, TypeError):
        return head


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdecimal() else None


def _unanswered(source: Exception) -> Failure:
    import httpx

    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(source)):
        return Failure(Kind.UNTRUSTED, _described(source))
    if isinstance(source, httpx.TransportError) and not isinstance(
        source, httpx.UnsupportedProtocol
    ):
        return Failure(Kind.DOWN, _described(source))
    return Failure(Kind.UNREADABLE, _described(source))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _grpc_failure(error: Exception) -> Failure | None:
    import grpc

    if not isinstance(error, grpc.RpcError):
        return None
    call = cast("Any", error)
    code = call.code().name if callable(getattr(call, "code", None)) else "UNKNOWN"
    details = call.details() if callable(getattr(call, "details", None)) else None
    status = _GRPC_STATUS.get(code, HTTPStatus.BAD_REQUEST)
    return Failure(_kind(status), f"{code}: {details}" if details else code)


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
