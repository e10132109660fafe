# SPDX-License-Identifier: Apache-2.0
"""What a run leaves in its folder, and that a resumed run goes on with it."""

import csv
import errno
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import adjusted_rand_score

import ppcls_ise
from ppcls_ise.clustering.record import ClusteringRecord
from ppcls_ise.engine.record.history import read_history
from ppcls_ise.engine.record.ranked_lists import read_ranked_lists
from tests.conftest import SYNTHETIC, lite_overrides
from tests.engine.resume.test_resume import latest, overrides_of, start
from tests.engine.test_engine import engine_of, log_of

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


@pytest.fixture(scope="module")
def run(lite_set, tmp_path_factory):
    """A finished run of two epochs: its engine and output folder."""
    output = tmp_path_factory.mktemp("run")
    seen = []
    engine = engine_of(lite_overrides(lite_set, output, Global__epochs=2))
    clustered = engine.record.clustered

    def watched(engine, epoch, features, result, before, quality):
        clustered(engine, epoch, features, result, before, quality)
        seen.append(result)

    engine.record.clustered = watched
    engine.train()
    return engine, output / "RecModel", seen


def test_history_has_a_row_per_epoch(run):
    engine, folder, seen = run
    rows = read_history(folder / "history.csv")
    assert [row["epoch"] for row in rows] == [1, 2]
    for row, result in zip(rows, seen, strict=True):
        assert row["clusters"] == result.num_clusters
        assert row["outliers"] == result.num_outliers
        assert row["largest"] == result.largest and row["median"] == result.median_size
        assert row["loss"] > 0 and row["loss_ClusterContrastLoss"] > 0 and row["lr"] > 0
        assert 0 <= row["lambda"] <= 1
        assert 0 <= row["nmi"] <= 1 and row["pair_f1"] is not None
        assert all(row[f"seconds_{s}"] >= 0 for s in ("features", "jaccard", "training"))
        assert 50 < row["peak_memory_mb_training"] < 100_000
    assert rows[0]["stability"] is None
    apart = []
    for result in seen:  # every outlier is a cluster of its own
        labels = result.labels.tolist()
        apart.append([n if n >= 0 else -2 - i for i, n in enumerate(labels)])
    assert rows[1]["stability"] == pytest.approx(adjusted_rand_score(*apart), abs=1e-5)
    assert rows[-1]["mAP"] == pytest.approx(engine.last_result.mAP, abs=1e-5)
    assert rows[-1]["mINP"] is not None and rows[-1]["rank1"] is not None


def test_pseudo_labels_are_those_of_the_last_clustering(run):
    engine, folder, seen = run
    with open(folder / "pseudo_labels.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == engine.train_dataset.images
    assert [int(row["cluster"]) for row in rows] == seen[-1].labels.tolist()
    assert [int(row["camera"]) for row in rows] == engine.train_dataset.camids.tolist()
    record = ClusteringRecord.read(folder / "clustering.safetensors")
    assert record.epoch == 2 and record.paths == engine.train_dataset.images
    for row, distance, silhouette in zip(rows, record.distances, record.silhouettes, strict=True):
        assert (row["distance"] == "") == (row["cluster"] == "-1")
        if row["distance"]:
            assert float(row["distance"]) == pytest.approx(distance, abs=1e-4)
        assert (row["silhouette"] == "") == bool(np.isnan(silhouette))


def test_summary_and_ranked_lists(run):
    engine, folder, _ = run
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["finished"] and summary["epochs_done"] == summary["epochs"] == 2
    assert summary["images"] == len(engine.train_dataset)
    assert summary["best"]["mAP"] == pytest.approx(engine.last_result.mAP) or summary["best"]
    assert summary["versions"]["ppcls_ise"] == ppcls_ise.__version__
    evaluations = read_ranked_lists(folder / "ranked_lists.json")
    assert evaluations[-1]["epoch"] == 2
    for query in evaluations[-1]["queries"]:
        scores = [hit["score"] for hit in query["hits"]]
        assert scores == sorted(scores, reverse=True) and scores
        assert not any(
            hit["pid"] == query["pid"] and hit["camid"] == query["camid"] for hit in query["hits"]
        )


def test_the_dump_of_the_configuration_is_in_the_file_alone(lite_set, tmp_path, capsys):
    engine_of(lite_overrides(lite_set, tmp_path))
    assert "PaddleClas is powered" in log_of(tmp_path)
    assert "PaddleClas is powered" not in capsys.readouterr().out


def test_the_configuration_starts_the_same_run_again(run, tmp_path):
    engine, folder, seen = run
    written = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert written["Clustering"]["k2_intra"] == 2 and written["Clustering"]["backend"] == "auto"
    assert written["Arch"]["Head"]["support_in_memory"] is True  # left out in the config
    again = engine_of([f"Global.output_dir={tmp_path}"], config=folder / "config.yaml")
    again.train()
    assert np.array_equal(again.clustering.result.labels, seen[-1].labels)
    assert again.last_result.mAP == engine.last_result.mAP
    for name, value in again.plain_model.state_dict().items():
        assert np.array_equal(value.numpy(), engine.plain_model.state_dict()[name].numpy())


def comparable(folder):
    """Rows of a history without what no two runs have in common."""
    return [
        {name: value for name, value in row.items() if not name.startswith(("seconds", "peak"))}
        for row in read_history(folder / "RecModel" / "history.csv")
    ]


def test_a_resumed_run_continues_its_history(lite_set, tmp_path):
    changes = {"Global__eval_during_train": True, "Global__eval_interval": 1}
    start(overrides_of(lite_set, tmp_path / "straight", **changes))
    stopped = tmp_path / "stopped"
    start(overrides_of(lite_set, stopped, **changes), stop=(2, 2))
    assert [row["epoch"] for row in comparable(stopped)] == [1]
    config = stopped / "RecModel" / "config.yaml"  # as good as the one of the start
    for place in (tmp_path / "elsewhere", stopped):
        start([latest(stopped), f"Global.output_dir={place}"], config=config)
        assert comparable(place) == comparable(tmp_path / "straight")
        assert [row["epoch"] for row in comparable(place)] == [1, 2]


def test_a_checkpoint_without_a_state_reads_the_rows(lite_set, tmp_path):
    overrides = overrides_of(lite_set, tmp_path / "run", Global__epochs=1)
    start(overrides)
    for state in (tmp_path / "run" / "RecModel" / "resume").glob("*.safetensors"):
        state.unlink()
    start([*overrides, "Global.epochs=2", latest(tmp_path / "run")])
    assert [row["epoch"] for row in comparable(tmp_path / "run")] == [1, 2]


def test_a_refused_start_changes_nothing(run, lite_set):
    _, folder, _ = run
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}
    before.pop("train.log")
    overrides = lite_overrides(lite_set, folder.parent, Global__seed=5)
    with pytest.raises(ValueError, match="holds another run"):
        engine_of(overrides).train()
    for name, stamp in before.items():
        assert (folder / name).stat().st_mtime_ns == stamp


def test_every_packaged_configuration_can_be_written_and_read(tmp_path):
    from ppcls_ise.config.complete import complete
    from ppcls_ise.config.overrides import get_config

    for path in sorted(SYNTHETIC.parent.glob("*.yaml")):
        mode = "export" if path.stem.endswith("_infer") else "train"
        config = get_config(str(path), ["Global.device=cpu"], mode=mode)
        whole = complete(config)
        written = tmp_path / path.name
        written.write_text(yaml.safe_dump(whole), encoding="utf-8")
        assert complete(get_config(str(written), mode=mode)) == whole, path


def test_tables_that_cannot_be_written_do_not_end_the_run(lite_set, tmp_path, monkeypatch):
    from ppcls_ise.utils import files

    replace, refused = files.os.replace, []

    def full(source, target):
        if Path(target).name in ("history.csv", "pseudo_labels.csv", "config.yaml"):
            refused.append(Path(target).name)
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    engine_of(overrides_of(lite_set, tmp_path, Global__epochs=1)).train()
    assert set(refused) == {"history.csv", "pseudo_labels.csv", "config.yaml"}
    log = log_of(tmp_path)
    assert "history.csv could not be written (No space left on device)" in log
    assert (tmp_path / "RecModel" / "latest.pdparams").is_file()
    assert not list(tmp_path.rglob("*.tmp"))
