"""Record into a SQLite log from processes of their own, and kill them at random points.

The long run: `python -m tests.integration.log_writer --kills 50`.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from langchain_core.messages import HumanMessage

from langchain_ctxmgr.records import Draft, Scope
from langchain_ctxmgr.storage.sqlite import SqliteLog

SCOPE = Scope(tenant_id="acme", thread_id="shared")
FOREVER = 10**9


def write(path: Path, worker: str, count: int, batch: int) -> None:
    """Append `count` batches, printing each batch's last message id once it is recorded."""
    with SqliteLog(path) as log:
        for first in range(0, count * batch, batch):
            keys = [f"{worker}-{number}" for number in range(first, first + batch)]
            log.append(SCOPE, [_draft(key) for key in keys])
            sys.stdout.write(f"{keys[-1]}\n")
            sys.stdout.flush()


def _draft(key: str) -> Draft:
    message = HumanMessage(f"{key} was said", id=key)
    return Draft(message, datetime.now(UTC), 9, "estimate", 0.5, (hash(key) % 2**31, 7), 0)


def start(path: Path, worker: str, count: int, batch: int = 1) -> subprocess.Popen[str]:
    """A process that writes as `write` does."""
    what = ["--write", str(path), "--worker", worker, "--count", str(count), "--batch", str(batch)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.log_writer", *what],
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_loop(kills: int, *, writers: int = 2, batch: int = 3, seed: int = 1) -> int:
    """Kill `writers` at random points, `kills` times; returns the messages acknowledged.

    After each kill every acknowledged message is in the log, batches are whole, and the
    log verifies and can be searched.
    """
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        acknowledged: list[str] = []
        for kill in range(kills):
            running = [start(path, f"{kill}.{n}", FOREVER, batch) for n in range(writers)]
            acknowledged += [_line(process) for process in running]
            time.sleep(rng.uniform(0, 0.3))
            for process in running:
                process.kill()
            for process in running:
                rest, _ = process.communicate()
                acknowledged += [line for line in rest.split("\n")[:-1] if line]
            _check(path, acknowledged, batch)
        return len(acknowledged) * batch


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _check(path: Path, acknowledged: Sequence[str], batch: int) -> None:
    with SqliteLog(path) as log:
        records = list(log.history(SCOPE))
        assert [record.position for record in records] == list(range(len(records)))
        missing = set(acknowledged) - {record.message_id for record in records}
        assert not missing, f"acknowledged and gone: {sorted(missing)[:5]}"
        assert len(records) % batch == 0, "a batch was torn"
        verified = log.verify()
        assert verified.ok, verified.problems
        assert len(log.search(SCOPE, [7], limit=len(records) + 1)) > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", default="w", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=FOREVER, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write is not None:
        write(arguments.write, arguments.worker, arguments.count, arguments.batch)
    else:
        count = kill_loop(arguments.kills)
        sys.stdout.write(f"{arguments.kills} kills: all {count} acknowledged messages kept\n")


if __name__ == "__main__":
    main()
