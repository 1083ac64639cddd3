"""A sweep as one picture: every combination of shares is a cell, coloured by the clips it keeps."""

import itertools
from pathlib import Path

import numpy as np

from svd.types.curation import SweepAxis, SweepReport

_MAX_CELLS_WITH_TEXT = 300
_DPI = 130


def draw_sweep(path: Path, report: SweepReport) -> None:
    """Write the picture as PNG.

    The first half of the axes runs down, the second half across; a row or column is one
    combination of its half, named by the shares that are dropped.
    """
    from matplotlib.figure import Figure

    num_down = (len(report.axes) + 1) // 2
    down, across = report.axes[:num_down], report.axes[num_down:]
    steps = len(report.shares)
    kept = np.array([row.num_clips for row in report.rows], dtype=np.float64)
    shares = (kept / max(1, report.num_clips)).reshape(steps**num_down, -1)
    size = (2.6 + 0.62 * shares.shape[1], 1.9 + 0.34 * shares.shape[0])
    figure = Figure(figsize=(max(5.2, size[0]), max(3.2, size[1])), dpi=_DPI, layout="constrained")
    panel = figure.add_subplot()
    image = panel.imshow(shares, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    panel.set_yticks(range(shares.shape[0]), _names(report, len(down)), fontsize=7)
    panel.set_xticks(
        range(shares.shape[1]), _names(report, len(across)), fontsize=7, rotation=60, ha="right"
    )
    panel.set_ylabel(_title(down), fontsize=8)
    panel.set_xlabel(_title(across), fontsize=8)
    panel.set_title(
        f"Clips that survive, of {report.num_clips:,} ({report.hours:,.2f} h)", fontsize=9
    )
    if shares.size <= _MAX_CELLS_WITH_TEXT:
        for (row, column), share in np.ndenumerate(shares):
            ink = "black" if share > 0.55 else "white"
            panel.text(column, row, f"{share:.0%}", ha="center", va="center", color=ink, fontsize=6)
    figure.colorbar(image, ax=panel, format=lambda value, _: f"{value:.0%}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": ""})


def _title(axes: tuple[SweepAxis, ...]) -> str:
    return "dropped: " + ", ".join(f"{axis.drops} {axis.score}" for axis in axes) if axes else ""


def _names(report: SweepReport, num_axes: int) -> list[str]:
    combinations = itertools.product(report.shares, repeat=num_axes)
    return [" | ".join(f"{share:.3g}" for share in shares) for shares in combinations]
