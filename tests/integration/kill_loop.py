"""Kill a recording process at random points and see that nothing acknowledged is gone.

The long run: `python -m tests.integration.kill_loop --kills 50`.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from langchain_core.messages import HumanMessage

from langchain_ctxmgr import ContextManager, Scope

SCOPE = Scope(tenant_id="acme", thread_id="killed")


def text_of(number: int) -> str:
    return f"Parcel {number} went to locker zq{number}x in the harbour."


def write_until_killed(folder: str, first: int) -> None:
    with ContextManager.open(folder, model="gpt-4o-mini") as manager:
        number = first
        while True:
            manager.record([HumanMessage(text_of(number), id=f"m{number}")], scope=SCOPE)
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
            number += 1


def kill_once(folder: Path, first: int, rng: random.Random) -> int:
    """Start a writer, kill it, return the last number it acknowledged."""
    command = [sys.executable, "-m", "tests.integration.kill_loop", "--write", str(folder)]
    with subprocess.Popen(
        [*command, "--first", str(first)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        acknowledged = int(writer.stdout.readline())
        time.sleep(rng.uniform(0.0, 0.4))
        writer.send_signal(signal.SIGKILL)
        for line in writer.stdout.read().splitlines():
            acknowledged = int(line)
    return acknowledged


def run(kills: int, *, seed: int = 1) -> int:
    """Kill `kills` times; after each, check the log and recall. Returns messages checked."""
    rng = random.Random(seed)
    acknowledged = -1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kill in range(kills):
            first_of_run = acknowledged + 1
            acknowledged = kill_once(folder, first_of_run, rng)
            with ContextManager.open(folder, model="gpt-4o-mini") as manager:
                kept = {str(m.content) for m in manager.history(scope=SCOPE)}
                missing = [n for n in range(acknowledged + 1) if text_of(n) not in kept]
                assert not missing, f"kill {kill}: acknowledged and gone: {missing[:5]}"
                verified = manager.verify()
                assert verified.ok, verified.problems
                for number in {first_of_run, acknowledged, rng.randint(0, acknowledged)}:
                    found = manager.recall(f"Where is zq{number}x?", scope=SCOPE, k=3)
                    assert any(f"zq{number}x" in memory.text for memory in found), number
    return acknowledged + 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write_until_killed(arguments.write, arguments.first)
    else:
        checked = run(arguments.kills)
        print(f"{arguments.kills} kills, {checked} acknowledged messages, none lost")


if __name__ == "__main__":
    main()
