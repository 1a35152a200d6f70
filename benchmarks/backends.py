"""What does each backend cost beside the plain driver or the bare engine under it?

Append and tail read of the message logs, a filtered hybrid query of the vector stores, a get
of the caches, with 10,000 and 100,000 records, with memory and bytes on disk; with `--large`
Qdrant Edge with a million, and what `backends_tail.py` asks of a million and ten million. Ours
and the plain one run in turn, round by round, in one process, so that whatever else the machine
does hits both; each size runs in a process of its own. What the plain side does is told in
`backends_logs.py`, `backends_vectors.py` and `backends_caches.py`.

    python benchmarks/backends.py [--only sqlite postgres edge server local memory redis]
        [--sizes 10000 100000] [--postgres URL]
    python benchmarks/backends.py --large [--only edge tail] [--postgres URL]

Needs PostgreSQL (a superuser's URL: it makes a database and roles of its own), redis-server
on the path, the `dev` extra, and for ten million messages 20 GB of PostgreSQL's disk. Figures
that an earlier run took of other backends and sizes are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, cast

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import report

POSTGRES: Final = "postgresql://postgres@127.0.0.1:5432/postgres"
PARTS: Final = ("sqlite", "postgres", "tail", "edge", "server", "local", "memory", "redis")
LARGE: Final = (("edge", 1_000_000), ("tail", 1_000_000), ("tail", 10_000_000))
ROUNDS: Final = {
    "sqlite": 600,
    "postgres": 400,
    "tail": 300,
    "edge": 300,
    "server": 150,
    "local": 20,
    "memory": 2_000,
    "redis": 1_000,
}
FEW_ROUNDS: Final = {("local", 100_000): 3, ("edge", 1_000_000): 50, ("server", 100_000): 60}


def measure(part: str, size: int, postgres: str) -> dict[str, Any]:
    """The figures of one backend with `size` records, in this process."""
    rounds = FEW_ROUNDS.get((part, size), ROUNDS[part])
    if part in ("sqlite", "postgres"):
        import backends_logs

        if part == "sqlite":
            return backends_logs.sqlite(size, rounds)
        return backends_logs.postgres(size, rounds, postgres)
    if part in ("memory", "redis"):
        import backends_caches

        return getattr(backends_caches, {"memory": "memory", "redis": "in_redis"}[part])(
            size, rounds
        )
    if part == "tail":
        import backends_tail

        return backends_tail.tail(size, rounds, postgres)
    import backends_vectors

    work = {
        "edge": backends_vectors.embedded,
        "server": backends_vectors.served,
        "local": backends_vectors.local,
    }
    return work[part](size, rounds)


def main() -> None:
    """Run each part and size in its own process and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--postgres", default=POSTGRES)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        part, size = arguments.one
        print(json.dumps(measure(part, int(size), arguments.postgres)))
        return
    usual = [(part, size) for part in PARTS if part != "tail" for size in arguments.sizes]
    for part, size in LARGE if arguments.large else usual:
        if part not in arguments.only:
            continue
        row = {
            "backend": part,
            "records": size,
            "commit": report.commit(),
            "load": os.getloadavg()[0],
            **_in_a_process(part, size, arguments.postgres),
        }
        print(f"{part} {size:,} (load {row['load']:.1f}): {_shown(row)}", flush=True)
        # After each step: the later ones take long.
        _write([*_kept(part, size), row])


def _kept(part: str, size: int) -> list[dict[str, Any]]:
    """The figures that are there, without those of `part` with `size` records."""
    path = report.RESULTS / "backends.json"
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return [row for row in rows if (row["backend"], row["records"]) != (part, size)]


def _write(rows: list[dict[str, Any]]) -> None:
    rows.sort(key=lambda row: (PARTS.index(row["backend"]), row["records"]))
    report.write("backends", {"rows": rows})


def _shown(row: dict[str, Any]) -> str:
    texts: list[str] = []
    for name, figures in row.items():
        if isinstance(figures, dict) and "ratio" in figures:
            paired = cast("dict[str, Any]", figures)
            ratio = paired["ratio"]
            texts.append(
                f"{name} {paired['ours_ms']['median']:.3f} ms, x{ratio['median']:.3g} "
                f"({ratio['p25']:.3g} to {ratio['p75']:.3g}) of {paired['theirs_ms']['median']:.3f}"
            )
        elif isinstance(figures, dict):
            texts.append(f"{name} {figures['median']:.1f}")
        elif name in ("disk_bytes_per_record", "memory_mib"):
            texts.append(f"{name} {figures:.0f}")
    return "; ".join(texts)


def _in_a_process(part: str, size: int, postgres: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", part, str(size), "--postgres", postgres]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
