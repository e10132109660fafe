# SPDX-License-Identifier: Apache-2.0
"""What a run writes down as it goes: configuration, history, last clustering, summary."""

import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
import yaml

import ppcls_ise
from ppcls_ise import compat
from ppcls_ise.clustering import PseudoLabels
from ppcls_ise.clustering.record import ClusteringRecord
from ppcls_ise.engine.callback import Callback, TrainingEngine
from ppcls_ise.engine.feature_extraction import Features
from ppcls_ise.engine.record.history import FILE as HISTORY
from ppcls_ise.engine.record.history import Row, read_history, write_history
from ppcls_ise.engine.record.ranked_lists import FILE as RANKED
from ppcls_ise.engine.record.ranked_lists import (
    ranked_lists,
    read_ranked_lists,
    write_ranked_lists,
)
from ppcls_ise.errors import DataError
from ppcls_ise.metrics import ClusterQuality, ReIDResult, Side, label_stability
from ppcls_ise.utils.files import replacing
from ppcls_ise.utils.memory import peak_megabytes

CONFIG = "config.yaml"
CLUSTERING = "clustering.safetensors"
PSEUDO_LABELS = "pseudo_labels.csv"
SUMMARY = "summary.json"
# Column -> its place in VisualDL; what is not named is under "training".
_PLACES = {
    "loss": "loss",
    "clusters": "clustering",
    "outlier_share": "clustering",
    "median": "clustering",
    "largest": "clustering",
    "stability": "clustering",
    "nmi": "identities",
    "ari": "identities",
    "pair_f1": "identities",
    "mAP": "evaluation",
    "mINP": "evaluation",
    "rank1": "evaluation",
    "seconds": "seconds",
    "peak": "memory",
    "card": "memory",
}


class RunRecord(Callback):
    """Writes the run's folder, by process 0, as the run goes; a resumed run goes on with it.

    Rows are part of the exact state, so that a resumed run repeats no epoch; without one (a
    checkpoint of PaddleClas) the rows of finished epochs are read from the folder.

    Args:
        config: as run, complete (`ppcls_ise.config.complete`).
        writer: of VisualDL, or None.
    """

    def __init__(self, config: dict[str, Any], writer: Any = None) -> None:
        self._config, self._writer = config, writer
        self._rows: dict[int, Row] = {}
        self._row: Row = {}
        self._begun = False
        self._since = 0.0
        self._started = time.time()
        self._lists: list[dict[str, Any]] = []

    # -- called in the course of training -----------------------------------------------------

    def on_epoch_begin(self, engine: TrainingEngine, epoch: int) -> bool:
        self._begin(engine, epoch)
        self._row = {"epoch": epoch}
        self._since = time.perf_counter()
        return True

    def on_epoch_resume(self, engine: TrainingEngine, epoch: int, step: int) -> bool:
        self._begin(engine, epoch)
        if self._row.get("epoch") != epoch:
            self._row = {"epoch": epoch}
        self._since = time.perf_counter()
        return True

    def clustered(
        self,
        engine: TrainingEngine,
        epoch: int,
        features: Features,
        result: PseudoLabels,
        before: PseudoLabels | None,
        quality: ClusterQuality | None,
    ) -> None:
        """After a clustering; ``before`` is the one before it. O(N C D), see
        `ClusteringRecord.describe`."""
        if dist.get_rank() == 0:
            dataset = engine.train_dataset
            record = ClusteringRecord.describe(
                dataset.images,
                features.values,
                result.labels,
                centroids=result.centroids,
                camids=dataset.camids,
                tracklets=dataset.tracklet_ids,
                pids=dataset.pids,
                epoch=epoch,
            )
            with _reported():
                record.write(engine.run_folder / CLUSTERING)
                record.write_table(engine.run_folder / PSEUDO_LABELS)
        if before is not None:
            self._row["stability"] = label_stability(before.labels, result.labels)
        if quality is not None:
            self._row |= {"nmi": quality.nmi, "ari": quality.ari, "pair_f1": quality.pair_f1}
        self._row |= {f"seconds_{stage}": value for stage, value in result.seconds.items()}
        self._row["peak_memory_mb_clustering"] = peak_megabytes()
        self._since = time.perf_counter()

    def on_epoch_end(self, engine: TrainingEngine, epoch: int) -> None:
        result = engine.clustering.result
        assert result is not None
        row = self._row
        for name, meter in engine.output_info.items():
            row[name if name == "loss" else f"loss_{name}"] = float(meter.avg)
        row |= {name: float(value) for name, value in engine.head.report().items()}
        for i, schedule in enumerate(engine.lr_sch, 1):
            row["lr" if i == 1 else f"lr_{i}"] = float(schedule.get_lr())
        row |= {
            "clusters": result.num_clusters,
            "outliers": result.num_outliers,
            "outlier_share": result.outlier_share,
            "median": result.median_size,
            "largest": result.largest,
            "seconds_training": self._training_seconds(),
            "peak_memory_mb_training": peak_megabytes(),
        }
        if "gpu" in str(engine.device):
            row["card_memory_mb"] = paddle.device.cuda.max_memory_allocated() / 1e6
        self._since = time.perf_counter()
        self._rows[epoch] = row
        self._write(engine)
        self._show(row, epoch)

    def evaluated(
        self,
        engine: Any,
        epoch: int,
        result: ReIDResult,
        sides: tuple[Side, Side],
        seconds: float,
    ) -> None:
        """After an evaluation; ``epoch`` 0 means before training (and later means nothing)."""
        if not epoch and self._rows:
            return
        query, gallery = engine.query_dataloader.dataset, engine.gallery_dataloader.dataset
        lists = ranked_lists(
            epoch,
            *sides,
            query.images,
            gallery.images,
            protocol=result.protocol,
        )
        self._lists = [*self._lists[:1], lists | {"mAP": result.mAP, "rank1": result.rank1}]
        if epoch not in self._rows:
            return
        scores: Row = {
            "mAP": result.mAP,
            "mINP": result.ranks.mINP,
            "rank1": result.rank1,
            "seconds_evaluation": seconds,
            "peak_memory_mb_evaluation": peak_megabytes(),
        }
        self._rows[epoch] |= scores
        self._write(engine)
        self._show(scores, epoch)
        if dist.get_rank() == 0:
            with _reported():
                write_ranked_lists(engine.run_folder / RANKED, self._lists)

    def finish(self, engine: TrainingEngine) -> None:
        """After the last epoch."""
        if self._rows:
            self._write(engine, finished=True)
        if self._writer is not None:
            self._writer.close()

    # -- resuming -----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        row = dict(self._row)
        if row and row["epoch"] not in self._rows:
            row["seconds_training"] = self._training_seconds()
        rows = [self._rows[epoch] for epoch in sorted(self._rows)]
        return {"rows": json.dumps([rows, row, self._lists]), "started": self._started}

    def restore(self, engine: TrainingEngine, state: dict[str, Any]) -> None:
        rows, self._row, self._lists = json.loads(state["rows"])
        self._rows = {int(row["epoch"]): row for row in rows}
        self._started = float(state["started"])

    # -- files --------------------------------------------------------------------------------

    def _training_seconds(self) -> float:
        """Of the steps of this epoch, those before a resume included."""
        return (self._row.get("seconds_training") or 0.0) + time.perf_counter() - self._since

    def _begin(self, engine: TrainingEngine, epoch: int) -> None:
        """Once, when the folder is known to be this run's."""
        if self._begun:
            return
        self._begun = True
        if dist.get_rank():
            return
        folder = engine.run_folder
        if not self._rows and epoch > 1:
            numbered = {int(row["epoch"] or 0): row for row in _rows_of(folder)}
            self._rows = {number: row for number, row in numbered.items() if number < epoch}
            self._lists = [
                lists for lists in read_ranked_lists(folder / RANKED) if lists["epoch"] < epoch
            ]
        text = (
            f"# SPDX-License-Identifier: Apache-2.0\n# As run by ppcls_ise {ppcls_ise.__version__},"
            " every default of the plugin written out. Start another run like it with\n"
            f"# ppcls-ise train -c {CONFIG} -o Global.output_dir=...\n"
        )
        text += yaml.safe_dump(self._config, sort_keys=False, allow_unicode=True)
        with _reported(), replacing(folder / CONFIG) as scratch:
            scratch.write_text(text, encoding="utf-8")

    def _write(self, engine: TrainingEngine, *, finished: bool = False) -> None:
        if dist.get_rank():
            return
        rows = [self._rows[epoch] for epoch in sorted(self._rows)]
        summary = self._summary(engine, rows, finished)
        with _reported():
            write_history(engine.run_folder / HISTORY, rows)
            with replacing(engine.run_folder / SUMMARY) as scratch:
                scratch.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")

    def _summary(self, engine: TrainingEngine, rows: list[Row], finished: bool) -> dict[str, Any]:
        last = rows[-1]
        scored = [row for row in rows if row.get("mAP") is not None]
        best = max(scored, key=lambda row: _number(row["mAP"]), default=None)
        names = dict.fromkeys(name for row in rows for name in row)
        return {
            "finished": finished,
            "epochs_done": int(last["epoch"] or 0),
            "epochs": engine.epochs,
            "images": len(engine.train_dataset),
            **{key: last[key] for key in "clusters outliers median largest".split()},
            "first": _finite(rows[0]),
            "last": _finite(last),
            "best": _finite(best) if best else None,
            "seconds": {
                name.removeprefix("seconds_"): round(sum(row.get(name) or 0.0 for row in rows), 3)
                for name in names
                if name.startswith("seconds_")
            },
            "peak_memory_mb": max(row.get(n) or 0.0 for row in rows for n in row if "peak" in n),
            "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._started)),
            "written": time.strftime("%Y-%m-%d %H:%M:%S"),
            "versions": {
                "ppcls_ise": ppcls_ise.__version__,
                "host": compat.describe(),
                "paddle": paddle.__version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
                "system": platform.platform(),
            },
            "processes": dist.get_world_size(),
            "config": CONFIG,
        }

    def _show(self, row: Row, epoch: int) -> None:
        if self._writer is None:
            return
        for name, value in row.items():
            if value is not None and name not in ("epoch", "outliers"):
                place = _PLACES.get(name) or _PLACES.get(name.partition("_")[0], "training")
                self._writer.add_scalar(tag=f"{place}/{name}", step=epoch, value=float(value))


@contextmanager
def _reported() -> Iterator[None]:
    """A table that cannot be written (disk full) is said, and training goes on."""
    try:
        yield
    except OSError as error:
        compat.logger().warning(
            f"{error.filename or 'a table of the run'} could not be written "
            f"({error.strerror or error}). Training goes on, and tries again after the next epoch"
        )


def _rows_of(folder: Path) -> list[Row]:
    try:
        return read_history(folder / HISTORY)
    except FileNotFoundError:
        return []
    except DataError as error:
        compat.logger().warning(f"{error}; it begins anew")
        return []


def _number(value: float | None) -> float:
    return -1.0 if value is None or value != value else value


def _finite(row: Row) -> Row:
    """JSON knows no NaN."""
    return {name: None if value is None or value != value else value for name, value in row.items()}
