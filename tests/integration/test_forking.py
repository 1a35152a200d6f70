"""A process with busy threads forks: its children use the same manager."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import warnings

from langchain_ctxmgr.forking import ForkableLock

FORKS = 15
SCRIPT = """
import multiprocessing, sys, threading
from langchain_core.messages import HumanMessage
from langchain_ctxmgr import ContextManager, Scope

def turn(thread, number):
    scope = Scope(tenant_id="acme", thread_id=thread)
    manager.record(HumanMessage(f"plant {number}"), scope=scope)
    manager.prepare(scope=scope, query="plant", max_tokens=300)

def work(thread):
    number = 0
    while not stop.is_set():
        turn(thread, number)
        number += 1

forking = multiprocessing.get_context("fork")
stop = threading.Event()
with ContextManager.open(sys.argv[1], model="gpt-4o-mini") as manager:
    turn("first", 0)
    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    codes = []
    for number in range(int(sys.argv[2])):
        child = forking.Process(target=turn, args=(f"child-{number}", number))
        child.start()
        child.join(8)
        codes.append(child.exitcode)
        if child.exitcode is None:
            child.kill()
    stop.set()
    for thread in threads:
        thread.join()
    found = [len(manager.history(scope=Scope(tenant_id="acme", thread_id=f"child-{n}")))
             for n in range(int(sys.argv[2]))]
    print(set(codes), set(found), manager.verify().problems)
"""


def test_children_of_a_busy_process_neither_hang_nor_lose_anything(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path), str(FORKS)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stdout == "{0} {1} ()\n", done.stderr[-2_000:]


def test_a_lock_that_another_thread_holds_at_a_fork_is_free_in_the_child():
    lock, held, done = ForkableLock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            done.wait(30)

    def take():
        with lock:
            pass

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    child = multiprocessing.get_context("fork").Process(target=take)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    child.join(20)
    code = child.exitcode
    child.kill()
    done.set()
    holder.join()
    assert code == 0
