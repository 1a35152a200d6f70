"""The servers that tests run against: skipped with a reason where there is none.

`CTXMGR_REQUIRE_SERVICES=1` says that all of them are here, so a missing one is a failure.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest
import redis

REDIS_URL = os.environ.get("CTXMGR_TEST_REDIS_URL", "redis://127.0.0.1:6379/0")


def missing(service: str, reason: str) -> NoReturn:
    """Skip the test that needs `service`; fail it where every service is required."""
    message = f"{service} is needed: {reason}"
    if os.environ.get("CTXMGR_REQUIRE_SERVICES") == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def redis_url() -> str:
    """The URL of a Redis that answers."""
    try:
        with redis.Redis.from_url(REDIS_URL, socket_connect_timeout=5) as client:
            client.ping()
    except redis.RedisError as error:
        missing("Redis", f"{REDIS_URL} gives {type(error).__name__} (CTXMGR_TEST_REDIS_URL)")
    return REDIS_URL


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class OwnService:
    """A server of the test's own, to be killed, paused and started again on its port."""

    def __init__(self, port: int, command: list[str]) -> None:
        self.port = port
        self._command = command
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._server = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise TimeoutError(f"{self._command[0]} did not open port {self.port}")

    def kill(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def stop(self) -> None:
        """End it as an orderly shutdown does."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait()
            self._server = None

    def pause(self) -> None:
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._server is not None
        self._server.send_signal(signal.SIGCONT)


class OwnRedis(OwnService):
    def __init__(self, folder: Path, *settings: str) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            missing("redis-server", "the binary is not on PATH")
        port = free_port()
        command = [binary, "--port", str(port), "--bind", "127.0.0.1"]
        super().__init__(port, [*command, "--save", "", "--dir", str(folder), *settings])

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


class OwnQdrant(OwnService):
    """`tests.loopback_qdrant` in a process of its own, which keeps its collections in `folder`."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        command = [sys.executable, "-m", "tests.loopback_qdrant", "--port", str(port)]
        super().__init__(port, [*command, "--folder", str(folder)])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"
