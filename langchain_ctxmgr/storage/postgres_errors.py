"""What PostgreSQL's errors mean to a caller: try again, or how to mend it.

No text of ours or the driver's that leaves here holds a password.
"""

from __future__ import annotations

import random
import time
from datetime import timedelta
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from langchain_ctxmgr.errors import LogError, ReadOnlyLogError

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
OVERDUE: Final = "the server did not answer in time"
_CONFLICTS: Final = frozenset({"40001", "40P01"})
"""Serialization failure, deadlock: nothing was done, and the next try meets other company."""
_RESTARTING: Final = ("starting up", "shutting down", "recovery", "too many clients", "terminating")
_STOPPED: Final = frozenset({"57P01", "57P02", "57P03", "53300"})

_REMEDIES: Final = {
    "28P01": "check user and password in the URL",
    "28000": "the server does not let this role in; see its pg_hba.conf",
    "3D000": "create the database",
    "53100": "nothing was recorded: free disk space on the server and try again",
    "53200": "nothing was recorded: the server is out of memory",
    "25006": "nothing was recorded: the server is read-only; name its primary",
    "42501": "grant the role what langchain_ctxmgr.storage.postgres lists",
    "42P01": "a table is missing: run setup() as the owner of the schema",
    "3F000": "the schema is missing: run setup() as a role that may create it",
    "57014": "the statement took longer than the timeout; try again, or raise it",
    "55P03": "another writer holds the thread; try again",
}
_UNWRITABLE: Final = frozenset({"53100", "25006"})
"""Disk full, read-only: what is there can be read."""
_REFUSALS: Final = {
    "password authentication failed": "check user and password in the URL",
    "no password supplied": "give the password in the URL, or in libpq's password file",
    "pg_hba.conf": _REMEDIES["28000"],
    "does not exist": "create it, or name another in the URL",
}
"""By what the server says when it lets nobody in: libpq tells no state then."""


class OverdueError(psycopg.OperationalError):
    """The server did not answer in time."""


class Server:
    """Where the log is, as error texts may name it.

    Raises:
        ValueError: If `url` cannot be read.
    """

    def __init__(self, url: str) -> None:
        if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"url must be text, got {type(url).__name__}")
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in {"postgresql", "postgres", "postgresql+psycopg"}:
            raise ValueError(f"url must start with postgresql://, got {scheme[:20]!r}")
        self.url = f"postgresql://{rest}"
        try:
            parts = conninfo_to_dict(self.url)
        except psycopg.ProgrammingError:
            raise ValueError(
                "url must be postgresql://user:password@host:port/database, with other "
                "characters than letters, digits and -._~ percent-encoded"
            ) from None
        self._secrets = [str(parts[name]) for name in ("password", "sslpassword") if name in parts]
        host = parts.get("host") or parts.get("hostaddr") or ""
        port = f":{parts['port']}" if "port" in parts else ""
        user = f"{parts['user']}@" if "user" in parts else ""
        self.name = f"postgresql://{user}{host}{port}/{parts.get('dbname', '')}"

    def explain(self, error: psycopg.Error) -> LogError:
        """`error` as a `LogError` that says how to mend it, if a user can."""
        text = " ".join(str(error).split()) or type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        remedy = _REMEDIES.get(error.sqlstate or "")
        if remedy is None and isinstance(error, psycopg.OperationalError):
            unreachable = "make sure that the server runs and can be reached"
            refusals = (_REFUSALS[said] for said in _REFUSALS if said in text)
            remedy = next(refusals, unreachable)
        kind = ReadOnlyLogError if error.sqlstate in _UNWRITABLE else LogError
        return kind(f"{self.name}: {text}{'; ' if remedy else ''}{remedy or ''}")


class Attempts:
    """Tries of one operation until its time is over."""

    def __init__(self, server: Server, timeout: timedelta) -> None:
        self._server = server
        self.until = time.monotonic() + timeout.total_seconds()
        """When, by the monotonic clock."""
        self._pause = _FIRST_PAUSE

    @property
    def seconds_left(self) -> float:
        """Until then, 0 at least."""
        return max(self.until - time.monotonic(), 0.0)

    def pause_after(self, error: psycopg.Error) -> float:
        """Seconds to wait before the next try.

        Raises:
            LogError: If there is no point in one, or no time.
        """
        pause = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries
        if not may_pass(error) or time.monotonic() + pause > self.until:
            # The driver's own error may hold the password, so it is no cause to be shown.
            raise self._server.explain(error) from None
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return pause


def may_pass(error: psycopg.Error) -> bool:
    """Whether the same operation may succeed a moment later, nothing mended."""
    if isinstance(error, OverdueError):
        return False
    if error.sqlstate is not None:
        state = error.sqlstate
        return state in _CONFLICTS or state in _STOPPED or state.startswith("08")
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    text = str(error)
    # Without a state: no connection. What the server itself refuses, it will refuse again.
    return "FATAL:" not in text or any(reason in text for reason in _RESTARTING)
