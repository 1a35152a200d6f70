"""Write the README's tables from the figures in `benchmarks/results/`.

    python benchmarks/readme_tables.py [--check]

Each table stands between `<!-- table: NAME -->` and `<!-- end -->`; one whose figures were not
measured yet stays as it is. With `--check` nothing is written and a README that differs is an
error.
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
        path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        rows = table(json.loads(path.read_text(encoding="utf-8")))
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
            if "missing" in found:
                rows.append(f"| {method} | cannot be had here {'| ' * (len(budgets) + 1)}|")
                continue
            at = found["budgets"]
            cells = [_share(at[str(budget)]["recall"]) for budget in budgets]
            cells.append(_share(at["1000"]["all_gold"]))
            rows.append(_row(method, *cells))
        rows.append("")
    return rows


def recall_latency(figures: dict[str, Any]) -> list[str]:
    rows = [
        (
            "| turns | eight best, ms (p95) | 2,000 tokens, ms (p95) | bytes a turn beside text "
            "and vector | memory, MiB |"
        ),
        "|---" * 5 + "|",
    ]
    for row in figures["rows"]:
        stored = row["log_bytes"] + row["vectors_bytes"] - row["text_bytes"] - row["vector_bytes"]
        cells = [
            f"{row['turns']:,}",
            *(
                f"{row[f'recall_{way}_ms']['median']:.1f} ({row[f'recall_{way}_ms']['p95']:.1f})"
                for way in ("k8", "tokens2000")
            ),
            f"{stored:,.0f}",
            f"{row['memory_mib']:,.0f}",
        ]
        rows.append(_row(*cells))
    if figures["indexing"]:
        rows += [
            "",
            "| indexing | turns recorded a second | of the encoder's own rate |",
            "|---|---|---|",
        ]
    for kind, found in figures["indexing"].items():
        rows.append(f"| {kind} | {found['recorded_per_second']:,.0f} | {found['ratio']:.2f} |")
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
        rows.append(_row(*cells))
    return rows


def summaries(figures: dict[str, Any]) -> list[str]:
    rows = [
        "| method | calls | tokens read | USD | facts in the view |",
        "|---" * 5 + "|",
    ]
    for row in figures["rows"]:
        if "failed" in row:
            rows.append(f"| {row['method']} | cannot be had here {'| ' * 4}|")
            continue
        cells = [
            row["method"],
            f"{row['calls']}",
            f"{row['summarized_tokens']:,}",
            f"{row['cost_usd']:.4f}",
            f"{row['facts_in_view']} of {row['facts']}",
        ]
        rows.append(_row(*cells))
    rows += [
        "",
        (
            "| log, cache | turns, switches of model | prepared without a call "
            "| look-ups that hit | hit in the process, ms (p95) | cache | log |"
        ),
        "|---" * 7 + "|",
    ]
    for row in figures["tiers"]:
        hits = row["hit_ms"]
        cells = [
            row["place"],
            f"{row['turns']:,}, {row['switches']}",
            _share(row["without_call"]),
            f"{_share(row['hit_ratio'])} of {sum(row['look_ups'].values()):,}",
            *(_brief_ms(hits[tier]) for tier in ("process", "cache", "log")),
        ]
        rows.append(_row(*cells))
    return rows


def importance(figures: dict[str, Any]) -> list[str]:
    data: list[dict[str, Any]] = figures["data"]
    titles = [f"{part['kind']}, {part['conversations']} conversations" for part in data]
    rows = [f"| taken first | {' | '.join(titles)} |", "|---" * (len(data) + 1) + "|"]
    rows += [_row(name, *(_share(part["rows"][name]) for part in data)) for name in data[0]["rows"]]
    return rows


def agent_cost(figures: dict[str, Any]) -> list[str]:
    rows = [
        "| | rejected | cached share | input tokens | USD | facts in the prompt | summary calls |",
        "|---" * 7 + "|",
    ]
    for name, row in figures["rows"].items():
        if "missing" in row:
            rows.append(f"| {name} | cannot be had here {'| ' * 6}|")
            continue
        cells = [
            f"{row['refused']:,} of {row['requests'] + row['refused']:,}",
            _share(row["cached_share"]["mean"]),
            f"{row['prompt_tokens']['mean']:,.0f}",
            f"{row['usd']['mean']:.4f}",
            f"{row['found']} of {row['asked']}",
            f"{row['summaries']}",
        ]
        rows.append(_row(name, *cells))
    return rows


def agent_overhead(figures: dict[str, Any]) -> list[str]:
    rows = [
        f"| at {figures['messages']:,} messages | median, ms | p95 | processor, ms | p95 |",
        "|---" * 5 + "|",
    ]
    for name, row in figures["rows"].items():
        times = [row[clock][key] for clock in ("wall", "processor") for key in ("median", "p95")]
        rows.append(_row(name, *(f"{each:.1f}" for each in times)))
    return rows


def agent_concurrency(figures: dict[str, Any]) -> list[str]:
    rows = [
        "| turns at once | turns a second | loop held, median, ms | p99.9 | longest | over 5 ms |",
        "|---" * 6 + "|",
    ]
    for row in figures["rows"]:
        held = row["processor"]
        cells = [
            f"{row['at_once']}",
            f"{row['turns_per_second']:.0f}",
            f"{held['median']:.2f}",
            f"{held['p99_9']:.1f}",
            f"{held['max']:.1f}",
            f"{held['over_5_ms']:,} of {held['n']:,}",
        ]
        rows.append(_row(*cells))
    return rows


def backends(figures: dict[str, Any]) -> list[str]:
    rows: list[dict[str, Any]] = figures["rows"]
    table = [
        (
            "| log | messages | append, ms | of plain | read of the last 20, ms | of plain "
            "| of plain, as bytes | disk, bytes each |"
        ),
        "|---" * 8 + "|",
    ]
    for row in _of(rows, "sqlite", "postgres"):
        cells = [
            *_paired(row["append"]),
            *_paired(row["tail_read"]),
            _ratio(row["tail_read_bytes"]),
            f"{row['disk_bytes_per_record']:,.0f}",
        ]
        table.append(f"| {_LABELS[row['backend']]} | {row['records']:,} | {' | '.join(cells)} |")
    table += [
        "",
        (
            "| PostgreSQL thread of | read of the last 20, ms | of one of 1,000 | append, ms "
            "| of one of 1,000 | disk, bytes each |"
        ),
        "|---" * 6 + "|",
    ]
    for row in _of(rows, "tail"):
        read, append = _paired(row["tail_read_of_short"]), _paired(row["append_of_short"])
        disk = f"{row['disk_bytes_per_record']:,.0f}"
        table.append(f"| {row['records']:,} | {' | '.join([*read, *append, disk])} |")
    table += [
        "",
        (
            "| vectors | points | hybrid query, ms | of the bare engine | disk, bytes each | "
            "memory, MiB |"
        ),
        "|---" * 6 + "|",
    ]
    for row in _of(rows, "edge", "server", "local"):
        memory, name = f"{row['memory_mib']:,.0f}", row["backend"]
        if name == "local":
            measured = [
                (
                    "qdrant-client, in memory",
                    [f"{row['edge_query']['theirs_ms']['median']:,.0f}", "", "0"],
                ),
                (
                    "langchain-qdrant on it",
                    [f"{row['langchain_qdrant_ms']['median']:,.0f}", "", "0"],
                ),
            ]
        else:
            disk = f"{row['disk_bytes_per_record']:,.0f}"
            measured = [(_LABELS[name], [*_paired(row["query"]), disk])]
        for label, cells in measured:
            table.append(f"| {label} | {row['records']:,} | {' | '.join(cells)} | {memory} |")
    table += ["", "| cache | values | get, ms | of plain | memory, MiB |", "|---" * 5 + "|"]
    for row in _of(rows, "memory", "redis"):
        cells = [*_paired(row["get"]), f"{row['memory_mib']:,.0f}"]
        table.append(f"| {_LABELS[row['backend']]} | {row['records']:,} | {' | '.join(cells)} |")
    return table


_LABELS = {
    "sqlite": "SQLite",
    "postgres": "PostgreSQL",
    "edge": "Qdrant Edge",
    "server": "Qdrant server (loopback)",
    "memory": "in the process",
    "redis": "Redis",
}


def _of(rows: list[dict[str, Any]], *backends: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["backend"] in backends]


def _paired(figures: dict[str, Any]) -> list[str]:
    ours: dict[str, float] = figures["ours_ms"]
    return [_brief_ms(ours), _ratio(figures)]


def _brief(value: float) -> str:
    """Two digits that count, never in powers of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def _brief_ms(times: dict[str, float]) -> str:
    return f"{_brief(times['median'])} ({_brief(times['p95'])})"


def _ratio(figures: dict[str, Any]) -> str:
    return f"{figures['ratio']['median']:.2f}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _share(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


TABLES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "evidence_recall": evidence_recall,
    "recall_latency": recall_latency,
    "hot_path": hot_path,
    "backends": backends,
    "summaries": summaries,
    "importance": importance,
    "agent_cost": agent_cost,
    "agent_overhead": agent_overhead,
    "agent_concurrency": agent_concurrency,
}

if __name__ == "__main__":
    main()
