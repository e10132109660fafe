# SPDX-License-Identifier: Apache-2.0
"""The histories of several runs as curves in one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ppcls_ise.utils.files import replacing

Row = Mapping[str, float | None]
SUFFIXES = (".png", ".svg", ".pdf")
# Columns of history.csv, each in a field of its own where a run has it.
_FIELDS = {
    "mAP": "mAP",
    "rank1": "Rank-1",
    "clusters": "clusters",
    "outlier_share": "share of outliers",
    "largest": "largest cluster",
    "stability": "stability of the labels",
    "pair_f1": "pair F1 against known identities",
    "loss": "loss",
}
_COLUMNS = 2


def run_curves(path: str | Path, runs: Sequence[tuple[str, Sequence[Row]]]) -> None:
    """Write a picture (`SUFFIXES`) with a line per run in a field per quantity.

    Args:
        path: written atomically.
        runs: name, and rows of history.csv with None where a value is unknown.

    Raises:
        OSError: it cannot be written there.
    """
    fields = [name for name in _FIELDS if any(_points(rows, name) for _, rows in runs)]
    lines = max(1, -(-len(fields) // _COLUMNS))
    figure = Figure(figsize=(10, 2.6 * lines + 0.25 * len(runs) + 0.3), layout="constrained")
    grid = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
    for axes, field in zip(grid, fields, strict=False):
        for number, (name, rows) in enumerate(runs):
            if points := _points(rows, field):
                color = f"C{number % 10}"
                axes.plot(*zip(*points, strict=True), "o-", markersize=3, color=color, label=name)
        axes.set_title(_FIELDS[field], fontsize=10, loc="left")
        axes.set_xlabel("epoch", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
    for axes in grid[len(fields) :]:
        axes.set_axis_off()
    handles = {
        label: handle
        for axes in grid
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower left", fontsize=8)
    with replacing(path) as scratch:
        figure.savefig(scratch, format=Path(path).suffix[1:], dpi=110)


def _points(rows: Sequence[Row], column: str) -> list[tuple[float, float]]:
    return [
        (epoch, value)
        for row in rows
        if (epoch := row.get("epoch")) is not None and (value := row.get(column)) is not None
    ]
