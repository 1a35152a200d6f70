"""Parts that fail are left alone, and told of once."""

from __future__ import annotations

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
