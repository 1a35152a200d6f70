"""Write the README's tables from the figures in `benchmarks/results/`.

    python benchmarks/readme_tables.py [--check]

Each table stands between `<!-- table: NAME -->` and `<!-- end -->`. With `--check` nothing
is written and a README that differs is an error.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the README's tables.")
    parser.add_argument("--check", action="store_true", help="fail where the README differs")
    check: bool = parser.parse_args().check
    text = README.read_text(encoding="utf-8")
    written = text
    for name, table in TABLES.items():
        rows = table(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))
        pattern = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        body = "\n".join(rows)
        written = pattern.sub(lambda found, body=body: f"{found[1]}{body}\n{found[2]}", written)
    if check and written != text:
        sys.exit("README.md differs from benchmarks/results: run benchmarks/readme_tables.py")
    README.write_text(written, encoding="utf-8")


def evidence_recall(figures: dict[str, Any]) -> list[str]:
    budgets: list[int] = figures["budgets"]
    rows: list[str] = []
    for part in figures["data"]:
        title = f"{part['kind']}, {part['conversations']} conversations"
        rows += [
            f"| {title} | {' | '.join(f'{b:,}' for b in budgets)} | all, at 1,000 |",
            "|---" * (len(budgets) + 2) + "|",
        ]
        for method, found in part["methods"].items():
            at = found["budgets"]
            cells = [_share(at[str(budget)]["recall"]) for budget in budgets]
            cells.append(_share(at["1000"]["all_gold"]))
            rows.append(f"| {method} | {' | '.join(cells)} |")
        rows.append("")
    return rows


def hot_path(figures: dict[str, Any]) -> list[str]:
    peers = list(figures["rows"][0]["peers"])
    rows = [
        f"| messages | turn, ms (p95) | of the smallest | memory, MiB | {' | '.join(peers)}, ms |",
        "|---" * (4 + len(peers)) + "|",
    ]
    for row in figures["rows"]:
        turn = row["turn_ms"]
        cells = [
            f"{row['messages']:,}",
            f"{turn['median']:.1f} ({turn['p95']:.1f})",
            f"{row['ratio_to_smallest']:.2f}",
            f"{row['memory_mib']:.0f}",
            *(f"{row['peers'][peer]['median']:.1f}" for peer in peers),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _share(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


TABLES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "evidence_recall": evidence_recall,
    "hot_path": hot_path,
}

if __name__ == "__main__":
    main()
