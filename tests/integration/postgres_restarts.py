"""Append to one PostgreSQL thread from many processes while the server is restarted.

Every acknowledged record is there once, none twice, each process's in order. The long run:
`python -m tests.integration.postgres_restarts`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

from langchain_core.messages import HumanMessage

from langchain_ctxmgr.records import Draft, Scope
from langchain_ctxmgr.storage.postgres import PostgresLog
from tests.postgres import own_database
from tests.postgres_server import OwnServer, own_server

SCOPE = Scope(tenant_id="acme", thread_id="shared")
RESTARTS = ("fast", "immediate")
"""How the server is stopped: once orderly, once as a crash."""


def write(url: str, worker: str, count: int) -> None:
    """Append `count` messages, printing each one's id once it is recorded.

    Every other message comes without an id of its own: the log gives it one.
    """
    with PostgresLog(url, timeout=timedelta(seconds=30)) as log:
        for number in range(count):
            key = f"{worker}-{number}"
            message = HumanMessage(key, id=key if number % 2 else None)
            draft = Draft(message, datetime.now(UTC), 9, "estimate", 0.5, (number, 7), 0)
            [record] = log.append(SCOPE, [draft])
            sys.stdout.write(f"{record.message_id}\n")
            sys.stdout.flush()


def run(server: OwnServer, *, processes: int = 8, appends: int = 500) -> int:
    """The number of restarts the writers went on through; the records are checked."""
    with own_database(server.url) as database:
        with PostgresLog(database.url()):
            database.grant()
        url = database.url(database.app)
        started = [_start(url, str(number), appends) for number in range(processes)]
        restarts = 0
        with PostgresLog(url, timeout=timedelta(seconds=30)) as log:
            for number, mode in enumerate(RESTARTS, 1):
                _wait_for(log, processes * appends * number // (len(RESTARTS) + 1))
                server.stop(mode)
                server.start()
                restarts += any(process.poll() is None for process in started)
            acknowledged = [process.communicate(timeout=600)[0].split() for process in started]
            assert [process.returncode for process in started] == [0] * processes
            _check(log, acknowledged, appends)
    return restarts


def _start(url: str, worker: str, count: int) -> subprocess.Popen[str]:
    what = ["--write", url, "--worker", worker, "--appends", str(count)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.postgres_restarts", *what],
        stdout=subprocess.PIPE,
        text=True,
    )


def _wait_for(log: PostgresLog, records: int) -> None:
    deadline = time.monotonic() + 300
    while log.tenant_stats(SCOPE).records < records:
        assert time.monotonic() < deadline, "the writers have stopped"
        time.sleep(0.05)


def _check(log: PostgresLog, acknowledged: list[list[str]], appends: int) -> None:
    records = list(log.history(SCOPE))
    recorded = [record.message_id for record in records]
    assert len(set(recorded)) == len(recorded) == len(acknowledged) * appends
    assert [record.position for record in records] == [*range(len(records))]
    said = [record.message.content for record in records]
    for worker, ids in enumerate(acknowledged):
        assert [i for i in recorded if i in set(ids)] == ids, (
            "acknowledged and gone, or out of order"
        )
        own = [text for text in said if text.startswith(f"{worker}-")]
        assert own == [f"{worker}-{number}" for number in range(appends)], "one is there twice"
    verified = log.verify()
    assert verified.ok, verified.problems
    pending = log.pending("acme", 0, len(records) + 1)
    assert [entry.record.message_id for entry in pending.entries] == recorded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--appends", type=int, default=500)
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--worker", default="0", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write:
        write(given.write, given.worker, given.appends)
        return
    with own_server() as server:
        started = time.monotonic()
        restarts = run(server, processes=given.processes, appends=given.appends)
        seconds = time.monotonic() - started
    count = given.processes * given.appends
    print(f"{restarts} restarts: all {count} records there once, in order, in {seconds:.0f} s")


if __name__ == "__main__":
    main()
