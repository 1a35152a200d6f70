from __future__ import annotations

import ssl

import grpc
import httpx
import pytest
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.storage.server_errors import (
    CollectionMissingError,
    Kind,
    is_transient,
    read_failure,
    storage_error,
)


def answered(status, *, headers=None, body=b'{"status":{"error":"too much"}}'):
    return UnexpectedResponse(status, "Reason", body, httpx.Headers(headers or {}))


def rpc(code, details="said the server"):
    return grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details, debug_error_string=""
    )


class TestKinds:
    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (answered(429), Kind.OVERLOADED),
            (ResourceExhaustedResponse("slow down", 3), Kind.OVERLOADED),
            (answered(408), Kind.DOWN),
            (answered(500), Kind.DOWN),
            (answered(507), Kind.DOWN),
            (answered(401), Kind.REFUSED),
            (answered(403), Kind.REFUSED),
            (answered(404), Kind.MISSING),
            (answered(400), Kind.REJECTED),
            (answered(409), Kind.REJECTED),
            (ResponseHandlingException(httpx.ConnectError("refused")), Kind.DOWN),
            (ResponseHandlingException(httpx.ReadTimeout("slow")), Kind.DOWN),
            (ResponseHandlingException(httpx.RemoteProtocolError("cut")), Kind.DOWN),
            (ResponseHandlingException(httpx.UnsupportedProtocol("ftp")), Kind.UNREADABLE),
            (ResponseHandlingException(ValueError("not Qdrant's")), Kind.UNREADABLE),
            (rpc(grpc.StatusCode.UNAVAILABLE), Kind.DOWN),
            (rpc(grpc.StatusCode.DEADLINE_EXCEEDED), Kind.DOWN),
            (rpc(grpc.StatusCode.INTERNAL), Kind.DOWN),
            (rpc(grpc.StatusCode.ABORTED), Kind.DOWN),
            (rpc(grpc.StatusCode.RESOURCE_EXHAUSTED), Kind.OVERLOADED),
            (rpc(grpc.StatusCode.UNAUTHENTICATED), Kind.REFUSED),
            (rpc(grpc.StatusCode.PERMISSION_DENIED), Kind.REFUSED),
            (rpc(grpc.StatusCode.NOT_FOUND), Kind.MISSING),
            (rpc(grpc.StatusCode.ALREADY_EXISTS), Kind.REJECTED),
            (rpc(grpc.StatusCode.INVALID_ARGUMENT), Kind.REJECTED),
            (rpc(grpc.StatusCode.UNIMPLEMENTED), Kind.REJECTED),
            (grpc.RpcError(), Kind.REJECTED),
            (TypeError("ours"), Kind.UNREADABLE),
        ],
        ids=repr,
    )
    def test_both_clients_errors_mean_the_same(self, error, kind):
        assert read_failure(error).kind is kind
        assert is_transient(error) == (kind in {Kind.OVERLOADED, Kind.DOWN})

    def test_a_certificate_is_not_asked_for_again(self):
        error = httpx.ConnectError("handshake")
        error.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
        failure = read_failure(ResponseHandlingException(error))
        assert failure.kind is Kind.UNTRUSTED
        assert not failure.is_transient

    @pytest.mark.parametrize(
        ("error", "seconds"),
        [
            (ResourceExhaustedResponse("slow down", 3), 3.0),
            (answered(503, headers={"retry-after": "7"}), 7.0),
            (answered(503, headers={"Retry-After": "tomorrow"}), None),
            (answered(503), None),
        ],
    )
    def test_how_long_the_server_asks_to_wait(self, error, seconds):
        assert read_failure(error).retry_after_seconds == seconds

    def test_a_cancellation_is_no_failure(self):
        assert not is_transient(KeyboardInterrupt())


class TestMessages:
    def test_it_says_what_failed_where_why_and_how_to_mend_it(self):
        error = storage_error("count points", "http://q:6333", answered(429), secret=None)
        assert str(error) == (
            "cannot count points at http://q:6333: 429 Reason: too much; "
            "the server limits its load: ask less at once, or give it more resources"
        )

    def test_the_key_is_never_in_it(self):
        echo = rpc(grpc.StatusCode.INTERNAL, "bad header api-key: s3cret")
        assert "s3cret" not in str(storage_error("search", "http://q", echo, secret="s3cret"))

    def test_long_and_unreadable_answers_are_cut(self):
        error = storage_error("search", "http://q", answered(500, body=b"<html>"), secret=None)
        assert "500 Reason; check" in str(error)
        long = rpc(grpc.StatusCode.INTERNAL, "x" * 10_000)
        assert len(str(storage_error("search", "http://q", long, secret=None))) < 500

    def test_a_missing_collection_can_be_told_apart(self):
        error = storage_error("search", "http://q", answered(404), secret=None)
        assert isinstance(error, CollectionMissingError)
        assert isinstance(error, StorageError)
