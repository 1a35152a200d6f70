"""Parts that fail are left alone, and told of once."""

from __future__ import annotations

from contextlib import suppress

from langchain_ctxmgr.events import Degraded, Event
from langchain_ctxmgr.memory.breaker import REST_SECONDS, Breaker


class TestBreaker:
    def test_a_run_of_failures_is_one_event(self):
        told: list[Event] = []
        now = [0.0]
        breaker = Breaker("vectors", "keywords", (told.append,), lambda: now[0])
        for _ in range(3):
            now[0] += REST_SECONDS
            assert breaker.is_closed
            breaker.failed(OSError("disk"))
            assert not breaker.is_closed
        assert told == [Degraded(part="vectors", reason="OSError: disk", fallback="keywords")]
        now[0] += REST_SECONDS
        breaker.worked()
        breaker.failed(OSError("again"))
        assert len(told) == 2

    def test_once_it_has_rested_one_asks_and_the_others_go_on_without(self):
        now = [0.0]
        breaker = Breaker("vectors", "keywords", clock=lambda: now[0])
        breaker.failed(OSError("disk"))
        now[0] = REST_SECONDS
        assert breaker.is_closed
        with breaker.asking():
            assert not breaker.is_closed
            breaker.worked()
        assert breaker.is_closed
        breaker.failed(OSError("again"))
        now[0] *= 2
        with breaker.asking():
            breaker.failed(OSError("still"))
        assert not breaker.is_closed

    def test_what_was_asked_before_a_failure_says_nothing_of_it(self):
        now = [0.0]
        breaker = Breaker("vectors", "keywords", clock=lambda: now[0])
        with breaker.asking() as asked:
            breaker.failed(OSError("disk"))
            breaker.worked(asked)
        assert not breaker.is_closed
        now[0] = REST_SECONDS
        with breaker.asking() as asked:
            breaker.worked(asked)
        now[0] += 1
        breaker.failed(OSError("again"))
        assert not breaker.is_closed

    def test_one_that_asked_and_got_no_answer_leaves_it_to_the_next(self):
        now = [0.0]
        breaker = Breaker("vectors", "keywords", clock=lambda: now[0])
        with breaker.asking():
            assert breaker.is_closed
        breaker.failed(OSError("disk"))
        now[0] = REST_SECONDS
        with suppress(KeyboardInterrupt), breaker.asking():
            raise KeyboardInterrupt
        assert breaker.is_closed
