"""The picture of a needle in a haystack: which lengths and depths were found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from langchain_ctxmgr.evaluation.needle import NeedleReport

FORMATS: Final = (".png", ".svg", ".pdf")


def draw_heat_map(report: NeedleReport, path: str | Path) -> Path:
    """Draw which needles were found: length along, depth down, green where found.

    Args:
        report: What to draw.
        path: The file to write: `.png`, `.svg` or `.pdf`.

    Raises:
        ImportError: If matplotlib is missing; the message names the extra.
        ValueError: If `path` has another ending.
        OSError: If the file cannot be written.
    """
    target = check_picture(path)
    from matplotlib.figure import Figure

    lengths = sorted({cell.length_tokens for cell in report.cells})
    depths = sorted({cell.depth for cell in report.cells})
    grid = [[float("nan")] * len(lengths) for _ in depths]
    for cell in report.cells:
        grid[depths.index(cell.depth)][lengths.index(cell.length_tokens)] = float(cell.is_found)
    figure: Any = Figure(
        figsize=(2 + 0.9 * len(lengths), 2 + 0.35 * len(depths)), layout="constrained"
    )
    axes: Any = figure.subplots()
    axes.pcolormesh(grid, cmap="RdYlGn", vmin=0, vmax=1, edgecolors="white", linewidth=1)
    axes.set_xticks([place + 0.5 for place in range(len(lengths))], [f"{n:,}" for n in lengths])
    axes.set_yticks([place + 0.5 for place in range(len(depths))], [f"{d:.0%}" for d in depths])
    axes.invert_yaxis()
    axes.set_xlabel("tokens of the conversation")
    axes.set_ylabel("depth of the needle")
    axes.set_title(f"{report.found} of {len(report.cells)} found in {report.max_tokens:,} tokens")
    figure.savefig(target, dpi=150)
    return target


def check_picture(path: str | Path) -> Path:
    """`path`, if a picture can be drawn there.

    Raises:
        ImportError: If matplotlib is missing; the message names the extra.
        ValueError: If it has an ending that is none of `FORMATS`.
    """
    try:
        import matplotlib.figure  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise ImportError(
            "a heat map needs matplotlib: pip install 'langchain-ctxmgr[evaluation]'"
        ) from error
    target = Path(path)
    if target.suffix not in FORMATS:
        raise ValueError(f"path must end in {', '.join(FORMATS)}, got {str(path)!r}")
    return target
