# SPDX-License-Identifier: Apache-2.0
"""``history.csv``: one row per epoch."""

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from ppcls_ise.errors import DataError
from ppcls_ise.utils.files import reading
from ppcls_ise.utils.tables import write_csv

Row = dict[str, float | None]
FILE = "history.csv"
# In this order; losses, and what a head reports, follow the epoch by their own names.
_FIRST = ["epoch"]
_LAST = (
    "lr clusters outliers outlier_share median largest stability nmi ari pair_f1 mAP mINP rank1 "
    "seconds_features seconds_neighbors seconds_jaccard seconds_dbscan seconds_training "
    "seconds_evaluation peak_memory_mb_clustering peak_memory_mb_training "
    "peak_memory_mb_evaluation card_memory_mb"
).split()


def write_history(path: Path, rows: Iterable[Mapping[str, float | None]]) -> None:
    """Write the rows by ascending epoch; a cell is empty where a value is unknown or not finite.

    Raises:
        OSError: it cannot be written there.
    """
    ordered = sorted(rows, key=lambda row: row["epoch"] or 0)
    own = dict.fromkeys(name for row in ordered for name in row if name not in {*_FIRST, *_LAST})
    header = [*_FIRST, *own, *_LAST]
    write_csv(path, header, ([_cell(row.get(name)) for name in header] for row in ordered))


def read_history(path: Path) -> list[Row]:
    """Rows of a history.csv, with None for an empty cell.

    Raises:
        DataError: it is something else.
        FileNotFoundError: there is none.
    """
    with (
        reading(path, DataError, "is no history.csv"),
        path.open(encoding="utf-8", newline="") as file,
    ):
        rows = [
            {name: float(value) if value else None for name, value in row.items()}
            for row in csv.DictReader(file)
        ]
        if any(row.get("epoch") is None for row in rows):
            raise ValueError("a row has no epoch")
    return rows


def _cell(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return ""
    return str(int(value)) if value == int(value) else f"{value:.6g}"
