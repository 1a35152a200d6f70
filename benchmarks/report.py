"""What every benchmark prints and keeps: command, commit, machine, spread, memory."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def memory_mib() -> float:
    """Resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def spread_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum in milliseconds, and how many were measured."""
    ordered = sorted(seconds)
    return {
        "median": statistics.median(ordered) * 1e3,
        "p95": ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))] * 1e3,
        "max": ordered[-1] * 1e3,
        "n": len(ordered),
    }


def paired(
    ours: Callable[[int], object], theirs: Callable[[int], object], rounds: int
) -> dict[str, Any]:
    """Both steps timed in turn, each called with the round's number, and their ratio.

    In every other round the other one goes first, so that what else the machine is doing
    hits both alike. The ratio is the median of the rounds' own, with its quartiles: a median
    of each side's times would compare moments far apart.
    """
    warm_up = max(3, rounds // 20)
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + warm_up):
        order = (0, 1) if number % 2 else (1, 0)
        for side in order:
            step = (ours, theirs)[side]
            started = time.perf_counter()
            step(number)
            seconds = time.perf_counter() - started
            if number >= warm_up:
                took[side].append(seconds)
    ratios = statistics.quantiles([a / b for a, b in zip(*took, strict=True)], n=4)
    return {
        "ours_ms": spread_ms(took[0]),
        "theirs_ms": spread_ms(took[1]),
        "ratio": dict(zip(("p25", "median", "p75"), ratios, strict=True)),
    }


def timed(step: Callable[[int], object], rounds: int) -> dict[str, float]:
    """Milliseconds that `step` takes, called with each round's number."""
    took: list[float] = []
    for number in range(rounds):
        started = time.perf_counter()
        step(number)
        took.append(time.perf_counter() - started)
    return spread_ms(took)


def write(name: str, figures: dict[str, Any]) -> Path:
    """Keep `figures` as JSON under `benchmarks/results/`, with where they were measured."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    about = {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
    }
    path.write_text(json.dumps({**about, **figures}, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path}")
    return path


def commit() -> str:
    """The version measured, as git names it."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    done = subprocess.run(
        [git, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
