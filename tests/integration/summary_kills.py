"""Kill a process again and again while it makes summaries; the next one goes on.

Every summary that is due is there in the end, and none was made twice but for the one that a
kill cut off. The long run: `python -m tests.integration.summary_kills --kills 20`.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

from langchain_core.messages import HumanMessage

from langchain_ctxmgr import ContextBudget, ContextManager, Scope
from langchain_ctxmgr.compression.chat_summarizer import ChatSummarizer
from tests.scripted_summarizer import ScriptedSummarizer, honest, notes_in

THREADS = 3
TENANT = "acme"
PART = 8
"""Messages a process records to each thread before it is killed."""
CALL_SECONDS = 0.05


def manager_of(folder: Path) -> ContextManager:
    """A manager whose model notes each call in a file before it answers."""

    def script(question: str) -> str:
        new = [note.text.split(".")[0] for note in notes_in(question) if note.name[0] == "m"]
        with Path(folder, "calls").open("a") as calls:
            calls.write(f"{new[0]} to {new[-1]}\n")
        time.sleep(CALL_SECONDS)
        return honest(question)

    return ContextManager.open(
        folder / "data",
        model="gpt-4o-mini",
        budget=ContextBudget(max_input_tokens=8_000),
        summarizer=ChatSummarizer(
            model=ScriptedSummarizer(script=script),
            section_tokens=200,
            trigger_tokens=200,
            max_tokens=4_000,
            read_share=1.0,
            timeout=timedelta(seconds=1),
        ),
        tenant_id=TENANT,
    )


def work(folder: Path, part: int) -> None:
    """Record a part of each thread, and make what is due until killed."""
    with manager_of(folder) as manager:
        for thread in range(THREADS):
            said = [
                HumanMessage(f"Thread {thread} parcel {n}. The boats stayed in.", id=f"{n}")
                for n in range(part * PART, (part + 1) * PART)
            ]
            manager.record(said, scope=Scope(thread_id=f"t{thread}"))
        print("recorded", flush=True)
        time.sleep(60)


def run(kills: int) -> str:
    """What was found after `kills`, checked."""
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in range(kills):
            with subprocess.Popen(
                [sys.executable, "-m", __name__, "--work", name, "--part", str(part)],
                stdout=subprocess.PIPE,
                text=True,
            ) as child:
                assert child.stdout is not None
                assert child.stdout.readline() == "recorded\n"
                time.sleep(rng.uniform(0, 8 * CALL_SECONDS))
                child.send_signal(signal.SIGKILL)
        with manager_of(folder) as manager:
            manager.record(HumanMessage("hello"), scope=Scope(thread_id="other"))
            last = manager._log.last_seq(TENANT)
            give_up = time.monotonic() + 120
            while manager._log.marks(TENANT, "summaries").words_seq < last:
                assert time.monotonic() < give_up, "something stays due"
                time.sleep(0.2)
            calls = Counter(Path(folder, "calls").read_text().splitlines())
            made = sum(calls.values())
            for thread in range(THREADS):
                text = manager.summarize(scope=Scope(thread_id=f"t{thread}")).text
                found = [n for n in range(kills * PART) if f"parcel {n}." in text]
                assert found == list(range(len(found)))
                assert len(found) > kills * PART - 2 * PART
            after = Path(folder, "calls").read_text().splitlines()
        assert len(after) == made, "something was still due"
        twice = made - len(calls)
        assert twice <= kills, calls
    return f"{kills} kills: {len(calls)} summaries made, {twice} calls repeated, none left due"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--part", type=int, default=0)
    given = parser.parse_args()
    if given.work is not None:
        work(given.work, given.part)
    else:
        print(run(given.kills))


if __name__ == "__main__":
    __name__ = "tests.integration.summary_kills"
    main()
