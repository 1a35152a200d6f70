"""Several processes record into one thread of one folder."""

from __future__ import annotations

import multiprocessing

from langchain_core.messages import HumanMessage

from langchain_ctxmgr import ContextManager, Scope

SCOPE = Scope(tenant_id="acme", thread_id="shared")
PROCESSES = 8
APPENDS = 500


def append(folder: str, worker: int) -> None:
    with ContextManager.open(folder, model="gpt-4o-mini") as manager:
        for number in range(APPENDS):
            message = HumanMessage(f"worker {worker} said item {number}", id=f"{worker}-{number}")
            manager.record([message], scope=SCOPE)


def test_eight_processes_append_to_one_thread_without_gap_or_loss(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=append, args=(str(tmp_path), n)) for n in range(PROCESSES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=300)
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    with ContextManager.open(tmp_path, model="gpt-4o-mini") as manager:
        ids = [message.id or "" for message in manager.history(scope=SCOPE)]
        assert len(ids) == PROCESSES * APPENDS
        assert manager.verify().ok
        for worker in range(PROCESSES):
            own = [int(i.split("-")[1]) for i in ids if i.startswith(f"{worker}-")]
            assert own == list(range(APPENDS))
        found = manager.recall("worker 3 item 321", scope=SCOPE, k=5)
        assert any(memory.id == "3-321" for memory in found)
