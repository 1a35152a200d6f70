from __future__ import annotations

from langchain_ctxmgr.storage.sqlite import SqliteLog
from tests.integration.log_writer import SCOPE, kill_loop, start

PROCESSES, APPENDS = 8, 500


def test_processes_append_to_one_thread_without_gap_or_loss(tmp_path):
    path = tmp_path / "log.db"
    running = [start(path, str(n), APPENDS) for n in range(PROCESSES)]
    for process in running:
        process.communicate(timeout=300)
    assert [process.returncode for process in running] == [0] * PROCESSES
    with SqliteLog(path) as log:
        records = list(log.history(SCOPE))
        assert [record.position for record in records] == [*range(PROCESSES * APPENDS)]
        assert log.verify().ok
        for worker in range(PROCESSES):
            own = [r.message_id for r in records if r.message_id.startswith(f"{worker}-")]
            assert own == [f"{worker}-{n}" for n in range(APPENDS)]


def test_what_was_acknowledged_survives_kill_9():
    assert kill_loop(5) > 0
