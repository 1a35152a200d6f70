"""Getting a value from each cache, beside a dictionary and plain redis-py.

Values are as large as the vector of a question in 384 numbers. The plain side of Redis gets the
same bytes from the same server by a key of its own.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import redis
import report

from langchain_ctxmgr import Scope
from langchain_ctxmgr.storage.cache import Cache, MemoryCache
from langchain_ctxmgr.storage.redis_cache import RedisCache
from tests.services import OwnRedis

SCOPE: Final = Scope(tenant_id="bench")
VALUE_BYTES: Final = 1_536


def value(number: int) -> bytes:
    """The bytes under key `number`."""
    return random.Random(number).randbytes(VALUE_BYTES)  # noqa: S311 - the same on every run


def compared(
    cache: Cache, size: int, rounds: int, plain: Callable[[str], object]
) -> dict[str, Any]:
    """Gets of random keys beside those of `plain`."""
    rng = random.Random(9)  # noqa: S311 - the same keys on every run
    keys = [f"k{rng.randrange(size)}" for _ in range(2 * rounds)]
    return report.paired(
        lambda number: cache.get(SCOPE, keys[number]), lambda number: plain(keys[number]), rounds
    )


def memory(size: int, rounds: int) -> dict[str, Any]:
    """The cache inside the process with `size` entries, beside a dictionary."""
    plain: dict[str, bytes] = {}
    before = report.memory_mib()
    cache = MemoryCache(max_bytes=1 << 40, max_entries=size)
    for number in range(size):
        plain[f"k{number}"] = value(number)
        cache.put(SCOPE, f"k{number}", plain[f"k{number}"])
    after = report.memory_mib()
    figures = compared(cache, size, rounds, plain.get)
    cache.close()
    return {"get": figures, "memory_mib": after - before}


def in_redis(size: int, rounds: int) -> dict[str, Any]:
    """The cache in a Redis of its own with `size` entries, beside plain redis-py."""
    with tempfile.TemporaryDirectory() as folder:
        server = OwnRedis(Path(folder))
        try:
            with closing(RedisCache(server.url)) as cache, redis.Redis(port=server.port) as plain:
                client: Any = plain
                before = client.info("memory")["used_memory"]
                for number in range(size):
                    cache.put(SCOPE, f"k{number}", value(number))
                taken = client.info("memory")["used_memory"] - before
                batch = client.pipeline()
                for number in range(size):
                    batch.set(f"k{number}", value(number))
                    if number % 1_000 == 999:
                        batch.execute()
                figures = compared(cache, size, rounds, client.get)
        finally:
            server.kill()
        return {"get": figures, "memory_mib": taken / 2**20}
