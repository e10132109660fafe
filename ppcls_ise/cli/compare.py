# SPDX-License-Identifier: Apache-2.0
"""``compare``: Several runs in one table and one plot.

    compare output/first output/second --csv runs.csv --plot runs.png

A run is its folder (Global.output_dir, or RecModel in it), finished or not.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ppcls_ise.engine.record.history import FILE as HISTORY
from ppcls_ise.engine.record.history import Row, read_history
from ppcls_ise.engine.record.run_record import CONFIG
from ppcls_ise.errors import ConfigError, DataError, shown
from ppcls_ise.utils.files import reading, require_replaceable
from ppcls_ise.utils.tables import cell, write_csv
from ppcls_ise.visualization.run_curves import SUFFIXES, run_curves

# Column of history.csv -> its title and how it is written; of the last epoch that has a value.
_COLUMNS = {
    "epoch": ("epochs", "{:g}"),
    "clusters": ("clusters", "{:g}"),
    "outlier_share": ("outliers", "{:.1%}"),
    "median": ("median", "{:g}"),
    "largest": ("largest", "{:g}"),
    "stability": ("stability", "{:.3f}"),
    "pair_f1": ("pair F1", "{:.3f}"),
    "mAP": ("mAP", "{:.4f}"),
    "rank1": ("Rank-1", "{:.4f}"),
    "best": ("best mAP", "{:.4f}"),
    "minutes": ("minutes", "{:.1f}"),
}
_MOST_KEYS = 20  # that differ, on the screen
# Where a run lies says nothing about it.
_PLACES = ("Global.output_dir", "Global.save_inference_dir")


@dataclass(frozen=True)
class Run:
    """A run's name among those compared, its history, and its configuration by full key."""

    name: str
    rows: list[Row]
    config: dict[str, Any]

    @property
    def last(self) -> Row:
        """Of every column the last value, the best mAP, and the minutes of all stages."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        values: Row = {
            name: next((row[name] for row in self.rows[::-1] if row.get(name) is not None), None)
            for name in names
        }
        scores = [row["mAP"] for row in self.rows if row.get("mAP") is not None]
        seconds = [
            value
            for row in self.rows
            for name, value in row.items()
            if name.startswith("seconds_") and value is not None
        ]
        return {
            **values,
            "best": max((score for score in scores if score is not None), default=None),
            "minutes": sum(seconds) / 60 if seconds else None,
        }


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run")
    parser.add_argument("--csv", help="file for the table, with all columns of the histories")
    parser.add_argument("--plot", help=f"picture to write ({', '.join(SUFFIXES)})")


def command(args: argparse.Namespace) -> str:
    for option in ("csv", "plot"):
        if path := getattr(args, option):
            require_replaceable(path, f"--{option}")
    if args.plot and Path(args.plot).suffix not in SUFFIXES:
        raise ConfigError(f"--plot has to end in {' or '.join(SUFFIXES)}, got {shown(args.plot)}")
    runs = read_runs(args.runs)
    if args.csv:
        lasts = [run.last for run in runs]
        names = list(dict.fromkeys(name for last in lasts for name in last))
        rows = [
            [cell(run.name), *(last.get(name) for name in names)]
            for run, last in zip(runs, lasts, strict=True)
        ]
        write_csv(args.csv, ["run", *names], rows)
    if args.plot:
        run_curves(args.plot, [(run.name, run.rows) for run in runs])
    files = [f"written: {shown(path)}" for path in (args.csv, args.plot) if path]
    return "\n".join([*_table(runs), *_differences(runs), *files])


def read_runs(folders: Sequence[str]) -> list[Run]:
    """The runs in these folders.

    Raises:
        DataError: a folder holds no run, or files that cannot be read.
    """
    places = []
    for folder in map(Path, folders):
        found = [place for place in (folder, folder / "RecModel") if (place / HISTORY).is_file()]
        if not found:
            raise DataError(
                f"{shown(folder)} holds no run: there is no {HISTORY} in it, nor in RecModel in it"
            )
        places.append(found[0])
    runs = []
    for place, name in zip(places, _names(folders), strict=True):
        rows = read_history(place / HISTORY)
        if not rows:
            raise DataError(f"{shown(place / HISTORY)} has no row: no epoch was finished")
        config: dict[str, Any] = {}
        if (file := place / CONFIG).is_file():
            with reading(file, DataError, "is no YAML"):
                config = dict(_flat(yaml.safe_load(file.read_text(encoding="utf-8")), ""))
        runs.append(Run(name, rows, config))
    return runs


def _names(folders: Sequence[str]) -> list[str]:
    """As much of the paths as tells them apart."""
    paths = [os.path.abspath(folder) for folder in folders]
    if len(set(paths)) < len(paths):
        raise ConfigError("a run is named twice")
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [shown(os.path.relpath(path, common)) for path in paths]


def _flat(value: Any, path: str) -> list[tuple[str, Any]]:
    """(full key, value) of everything that is neither a section nor a list of sections."""
    if isinstance(value, dict):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        items = [(str(i), item) for i, item in enumerate(value)]
    else:
        return [(path, value)]
    return [pair for key, item in items for pair in _flat(item, f"{path}.{key}" if path else key)]


def _table(runs: Sequence[Run]) -> list[str]:
    lasts = [run.last for run in runs]
    columns = [name for name in _COLUMNS if any(last.get(name) is not None for last in lasts)]
    rows = [["run", *(_COLUMNS[name][0] for name in columns)]]
    for run, last in zip(runs, lasts, strict=True):
        values = [(last.get(name), _COLUMNS[name][1]) for name in columns]
        rows.append([run.name, *("-" if v is None else form.format(v) for v, form in values)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


def _differences(runs: Sequence[Run]) -> list[str]:
    """Keys of the configurations that are not the same in all runs."""
    known = [run for run in runs if run.config]
    keys = sorted({key for run in known for key in run.config} - set(_PLACES))
    differing = [key for key in keys if len({repr(run.config.get(key)) for run in known}) > 1]
    if len(known) < 2 or not differing:
        return []
    lines = ["", "configurations differ in"]
    for key in differing[:_MOST_KEYS]:
        lines.append(f"  {key}: {', '.join(str(run.config.get(key, '-')) for run in known)}")
    if len(differing) > _MOST_KEYS:
        lines.append(f"  and {len(differing) - _MOST_KEYS} more keys ({CONFIG} in each folder)")
    return lines
