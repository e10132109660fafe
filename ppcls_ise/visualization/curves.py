# SPDX-License-Identifier: Apache-2.0
"""The columns of history.csv as curves."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Row = Mapping[str, float | None]
# Title -> what a column has to begin with; a column goes to the first that fits.
_GROUPS = {
    "evaluation": ("mAP", "mINP", "rank1"),
    "losses": ("loss",),
    "learning rate": ("lr",),
    "clusters": ("clusters",),
    "images per cluster": ("median", "largest"),
    "outliers": ("outlier_share",),
    "stability of the labels": ("stability",),
    "against known identities": ("nmi", "ari", "pair_f1"),
    "seconds": ("seconds_",),
    "memory, MB": ("peak_memory", "card_memory"),
}
_UNDRAWN = ("epoch", "outliers")


def curves(history: Sequence[Row]) -> list[dict[str, Any]]:
    """One picture per group of columns, as title and data URI (SVG); columns that belong to no
    group get one each."""
    columns = [name for name in (history[0] if history else {}) if name not in _UNDRAWN]
    groups: dict[str, list[str]] = {title: [] for title in _GROUPS}
    for column in columns:
        fits = (title for title, starts in _GROUPS.items() if column.startswith(starts))
        groups.setdefault(next(fits, column), []).append(column)
    return [
        {"title": title, "uri": _picture(title, names, history)}
        for title, names in groups.items()
        if any(row.get(name) is not None for name in names for row in history)
    ]


def _picture(title: str, columns: Sequence[str], history: Sequence[Row]) -> str:
    figure = Figure(figsize=(4.6, 2.9), layout="constrained")
    axes = figure.subplots()
    for column in columns:
        points = [(row["epoch"], row[column]) for row in history if row.get(column) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", markersize=3, label=column)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("epoch", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(alpha=0.25)
    if len(columns) > 1 or title != columns[0]:
        axes.legend(fontsize=7, frameon=False)
    stream = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
