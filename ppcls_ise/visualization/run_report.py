# SPDX-License-Identifier: Apache-2.0
"""The report of a training run, from what the run left in its folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ppcls_ise.clustering.record import ClusteringRecord
from ppcls_ise.config.clustering import ClusteringOptions
from ppcls_ise.engine.record.history import FILE as HISTORY
from ppcls_ise.engine.record.history import Row, read_history
from ppcls_ise.engine.record.ranked_lists import FILE as RANKED
from ppcls_ise.engine.record.ranked_lists import read_ranked_lists
from ppcls_ise.engine.record.run_record import CLUSTERING, CONFIG, SUMMARY
from ppcls_ise.errors import ConfigError, DataError, shown
from ppcls_ise.utils.files import reading
from ppcls_ise.visualization.cluster_page import write_cluster_page
from ppcls_ise.visualization.thumbnails import moved

REPORT = "report.html"
_TABLE_ROWS = 40


def write_run_report(
    run: str | Path, out: str | Path | None = None, *, images: str | None = None
) -> Path:
    """Write the report of a run; see `write_cluster_page` for what is in it.

    Args:
        run: its folder, or the ``output_dir`` above it.
        out: HTML file; ``report.html`` in the folder by default.
        images: where ``Global.image_root`` is now, if it was moved.

    Returns:
        The file.

    Raises:
        ConfigError: there is no run.
        DataError: what it left is damaged.
        OSError: the file cannot be written.
    """
    folder = run_folder_of(run)
    record = ClusteringRecord.read(folder / CLUSTERING)
    with reading(folder / CONFIG, DataError, "is no configuration of a run"):
        text = (folder / CONFIG).read_text(encoding="utf-8")
        config = yaml.safe_load(text)
        options = clustering_options(config, record)
        root = str(config["Global"].get("image_root") or "")
    history = read_history(folder / HISTORY) if (folder / HISTORY).is_file() else []
    out = Path(out) if out is not None else folder / REPORT
    write_cluster_page(
        out,
        record,
        options.graph_settings(epoch=record.epoch),
        title=f"Run {folder.parent.name if folder.name == 'RecModel' else folder.name}",
        subtitle=f"What training without labels found in {shown(root)}",
        place=moved(root, images),
        history=history,
        ranked=read_ranked_lists(folder / RANKED),
        tables=_tables(folder, history, text),
        spelled=lambda words: words.replace("Clustering.eps", options.eps_key),
    )
    return out


def run_folder_of(run: str | Path) -> Path:
    """The folder of a run itself, from it or from the ``output_dir`` above it.

    Raises:
        ConfigError: there is none.
    """
    for folder in (Path(run), Path(run, "RecModel")):
        if (folder / CLUSTERING).is_file() and (folder / CONFIG).is_file():
            return folder
    raise ConfigError(
        f"{shown(str(run))} is no folder of a run: there is no {CLUSTERING} in it, nor in RecModel "
        "below it. Name the Global.output_dir of a training that has clustered at least once (runs "
        "of older versions left no such file)"
    )


def clustering_options(config: Mapping[str, Any], record: ClusteringRecord) -> ClusteringOptions:
    """How the clusters of a run were made, from its configuration."""
    options = ClusteringOptions(**config["Clustering"])
    return options.resolved(tracklets=record.tracklets is not None)


def _tables(folder: Path, history: Sequence[Row], config: str) -> list[dict[str, Any]]:
    tables: list[dict[str, Any]] = []
    if (folder / SUMMARY).is_file():
        with reading(folder / SUMMARY, DataError, "is no summary of a run"):
            summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
            state = "finished" if summary["finished"] else "not finished"
            rows = [
                ["run", f"{shown(str(folder))}, {state}"],
                ["epochs", f"{summary['epochs_done']} of {summary['epochs']}"],
                ["images", f"{summary['images']:,}"],
                ["started, written", f"{summary['started']}, {summary['written']}"],
                *([name, text] for name, text in summary["versions"].items()),
            ]
            total = sum(summary["seconds"].values())
            stages = [["stage", "seconds in all", "share"]]
            stages += [
                [stage, f"{value:,.1f}", f"{100 * value / max(total, 1e-9):.0f} %"]
                for stage, value in summary["seconds"].items()
            ]
            first, last = summary["first"], summary["last"]
            memory = [["stage", f"epoch {first['epoch']:g}", f"epoch {last['epoch']:g}"]]
            memory += [
                [name.removeprefix("peak_memory_mb_"), *map(_megabytes, (first.get(name), value))]
                for name, value in last.items()
                if "memory" in name and value is not None
            ]
        tables += [
            {"title": "Run", "rows": rows, "text": ""},
            {"title": "Seconds per stage", "rows": stages, "text": ""},
            {
                "title": "Memory: the most that the process had taken when a stage ended",
                "rows": memory,
                "text": "",
            },
        ]
    tables.append({"title": "History", "rows": _history_rows(history), "text": ""})
    tables.append({"title": "Configuration as run (config.yaml)", "rows": [], "text": config})
    return tables


def _megabytes(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f} MB"


def _history_rows(history: Sequence[Row]) -> list[list[str]]:
    """The last epochs, without columns of which nothing is known."""
    if not history:
        return []
    names = [name for name in history[0] if any(row[name] is not None for row in history)]
    rows = [
        ["" if (value := row[name]) is None else f"{value:.5g}" for name in names]
        for row in history[-_TABLE_ROWS:]
    ]
    return [names, *rows]
