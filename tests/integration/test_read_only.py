"""A folder that may be read and not written: what is there is used, and what is not is told.

The scripts run as a plain user, as permissions do not bind root. What is imported on first
use is used before that: root's Python may be closed to others.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_ctxmgr import ContextManager, Scope

NOBODY = 65534
PLAIN_USER = f"""
import asyncio, os, sys
from pathlib import Path
from langchain_core.messages import HumanMessage
from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.errors import StorageError

SCOPE = Scope(tenant_id="acme", thread_id="t-1")
with ContextManager.open(None, model="gpt-4o-mini") as first:
    first.record([HumanMessage(f"water plant {{n}}") for n in range(60)], scope=SCOPE)
    asyncio.run(first.aprepare(scope=SCOPE, query="Which plant?", max_tokens=300))
    first.verify(), first.stats(), first.forget(scope=SCOPE)
if os.geteuid() == 0:
    os.setuid({NOBODY})
"""
OPENED = """
events = []
manager = ContextManager.open(sys.argv[1], model="gpt-4o-mini", listeners=[events.append])

def degraded():
    return [event.part for event in events if type(event).__name__ == "Degraded"]

def refused(work):
    try:
        work()
    except StorageError as error:
        return "make the file and its folder writable" in str(error)
"""
SCOPE = Scope(tenant_id="acme", thread_id="t-1")
FACT = "My daughter Mia is allergic to hazelnuts."


def plain(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PLAIN_USER + script, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module", autouse=True)
def plain_user() -> None:
    if os.name != "posix":
        pytest.skip("permissions are POSIX's")
    asked = plain("")
    if asked.returncode:
        pytest.skip(f"this process cannot become a plain user: {asked.stderr[-300:]}")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A recorded folder in a place that others may enter, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="ctxmgr-test-"))
    made.chmod(0o755)
    with ContextManager.open(made, model="gpt-4o-mini") as manager:
        manager.record(HumanMessage(FACT, id="fact"), scope=SCOPE)
        for turn in range(60):
            messages = [
                HumanMessage(f"Remind me to water plant {turn}.", id=f"h{turn}"),
                AIMessage(f"I will remind you of plant {turn}.", id=f"a{turn}"),
            ]
            manager.record(messages, scope=SCOPE)
    yield made
    set_modes(made, folders=0o755, files=0o644)
    shutil.rmtree(made)


def set_modes(folder: Path, *, folders: int, files: int) -> None:
    folder.chmod(0o755)
    for path in sorted(folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else files)
    for path in sorted([folder, *folder.rglob("*")], reverse=True):
        if path.is_dir():
            path.chmod(folders)


def ran(script: str, folder: Path) -> str:
    done = plain(OPENED + script, str(folder))
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


class TestReading:
    def test_reading_methods_answer_and_say_what_could_not_be_written(self, folder):
        set_modes(folder, folders=0o555, files=0o444)
        said = ran(
            """
print(len(manager.history(scope=SCOPE)), manager.verify(scope=SCOPE).problems)
print(manager.stats(scope=SCOPE)["log"]["records"])
print(manager.recall("What is Mia allergic to?", scope=SCOPE, k=1)[0].id)
question = HumanMessage("What is Mia allergic to?", id="q")
context = manager.prepare(scope=SCOPE, query=question, max_tokens=300)
print("hazelnuts" in context.messages[-1].content, sorted(set(degraded())))
""",
            folder,
        )
        assert said == "121 ()\n121\nfact\nTrue ['log', 'vectors']\n"
        assert [path.name for path in folder.glob("log.sqlite3*")] == ["log.sqlite3"]

    def test_the_async_twins_answer_too(self, folder):
        set_modes(folder, folders=0o555, files=0o444)
        said = ran(
            """
async def main():
    print(len(await manager.ahistory(scope=SCOPE)))
    found = await manager.arecall("What is Mia allergic to?", scope=SCOPE, k=1)
    question = HumanMessage("And Mia's allergy?", id="q")
    context = await manager.aprepare(scope=SCOPE, query=question, max_tokens=300)
    print(found[0].id, bool(context.messages), sorted(set(degraded())))
asyncio.run(main())
""",
            folder,
        )
        assert said == "121\nfact True ['log', 'vectors']\n"

    def test_what_another_process_has_not_copied_back_yet_is_read(self, folder):
        with ContextManager.open(folder, model="gpt-4o-mini") as writer:
            writer.record(HumanMessage("newest", id="newest"), scope=SCOPE)
            set_modes(folder, folders=0o555, files=0o444)
            assert (folder / "log.sqlite3-wal").stat().st_size
            assert ran("print(manager.history(scope=SCOPE)[-1].content)", folder) == "newest\n"

    def test_vectors_that_may_be_written_are_used_beside_a_log_that_may_not(
        self, folder, shut: Callable[[Path], None]
    ):
        shut(folder)
        said = ran(
            """
manager.recall("What is Mia allergic to?", scope=SCOPE, k=1)
print(degraded(), manager.stats()["index"]["behind"])
""",
            folder,
        )
        assert said == "['log'] 121\n"

    @pytest.fixture
    def shut(self) -> Callable[[Path], None]:
        def shut(folder: Path) -> None:
            """Leave only the vectors, and none of them yet, to be written."""
            shutil.rmtree(folder / "vectors")
            set_modes(folder, folders=0o555, files=0o444)
            folder.chmod(0o755)
            (folder / "vectors").mkdir()
            (folder / "vectors").chmod(0o777)
            folder.chmod(0o555)

        return shut


class TestWriting:
    def test_writing_methods_say_to_make_it_writable(self, folder):
        set_modes(folder, folders=0o555, files=0o444)
        said = ran(
            """
late = HumanMessage("late")
print(refused(lambda: manager.record(late, scope=SCOPE)))
print(refused(lambda: asyncio.run(manager.arecord(late, scope=SCOPE))))
print(refused(lambda: manager.forget(scope=SCOPE)), len(manager.history(scope=SCOPE)))
""",
            folder,
        )
        assert said == "True\nTrue\nTrue 121\n"

    def test_an_empty_file_that_cannot_be_made_a_log_says_so(self, folder):
        for path in folder.glob("log.sqlite3*"):
            path.unlink()
        (folder / "log.sqlite3").touch()
        set_modes(folder, folders=0o555, files=0o444)
        assert ran("print(refused(lambda: manager.history(scope=SCOPE)))", folder) == "True\n"

    def test_a_folder_made_writable_is_written_without_opening_it_again(self, folder):
        """One process, which may change the permissions of what is its own."""
        if os.geteuid() == 0:
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, NOBODY, -1)
        set_modes(folder, folders=0o555, files=0o444)
        said = ran(
            """
before = len(manager.history(scope=SCOPE))
folder = Path(sys.argv[1])
folder.chmod(0o755)
(folder / "log.sqlite3").chmod(0o644)
manager.record(HumanMessage("late"), scope=SCOPE)
print(before, len(manager.history(scope=SCOPE)))
""",
            folder,
        )
        assert said == "121 122\n"
