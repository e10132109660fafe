# SPDX-License-Identifier: Apache-2.0
"""Several processes compute what one does, and end together (CPU, gloo)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY, lite_overrides

pytestmark = pytest.mark.slow
RUN = REPOSITORY / "tests" / "distributed" / "run.py"
# Enough clusters for a whole global batch, and a batch-norm group within every process.
SETTINGS = {
    "Clustering__k1": 6,
    "Clustering__k2": 2,
    "Clustering__eps": 0.5,
    "Clustering__min_samples": 2,
    "Arch__bn_group_size": 4,
    # That of the recipes. Adam moves a weight whose gradient is nothing but rounding by it.
    "Optimizer__lr__learning_rate": 0.00035,
}


def start(processes: int, root: Path, output: Path, trouble: str = "", **more) -> tuple[int, str]:
    """Exit code, and all that was printed."""
    overrides = lite_overrides(root, output, **SETTINGS, **more)
    overrides.append(f"DataLoader.Train.sampler.batch_size={16 // processes}")
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "paddle.distributed.launch", f"--nproc_per_node={processes}"]
        command += ["--backend=gloo", f"--log_dir={output / 'logs'}"]
    done = subprocess.run(
        [*command, str(RUN), str(output / "notes"), trouble, *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    logs = sorted((output / "logs").glob("workerlog.*")) if processes > 1 else []
    return done.returncode, done.stdout + "".join(p.read_text(errors="replace") for p in logs)


def notes_of(processes: int, root: Path, output: Path, **more) -> list[dict[str, np.ndarray]]:
    """What each rank saw."""
    code, text = start(processes, root, output, **more)
    assert code == 0, text
    notes = []
    for rank in range(processes):
        with np.load(output / "notes" / f"{rank}_of_{processes}.npz") as content:
            notes.append({name: content[name] for name in content.files})
    return notes


@pytest.fixture(scope="module")
def uneven_set(lite_set, tmp_path_factory) -> Path:
    """79 training images, 22 queries and 30 of the gallery: no number can be divided by 4."""
    root = tmp_path_factory.mktemp("uneven") / "set"
    shutil.copytree(lite_set, root)
    max((root / "bounding_box_train").iterdir()).unlink()
    return root


@pytest.fixture(scope="module")
def alone(uneven_set, tmp_path_factory) -> dict[str, np.ndarray]:
    return notes_of(1, uneven_set, tmp_path_factory.mktemp("alone"))[0]


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.long)])
def test_processes_see_and_compute_what_one_does(alone, uneven_set, tmp_path, processes):
    ranks = notes_of(processes, uneven_set, tmp_path)
    # Up to the first step nothing depends on the number of processes: equal bytes.
    for name in ("features 1", "labels 1", "start 1"):
        for rank in ranks:
            assert rank[name].tobytes() == alone[name].tobytes(), name
    for epoch in (1, 2):
        np.testing.assert_array_equal(ranks[0][f"labels {epoch}"], alone[f"labels {epoch}"])
        np.testing.assert_array_equal(ranks[0][f"result {epoch}"], alone[f"result {epoch}"])
        steps = [rank[f"steps {epoch}"] for rank in ranks]
        np.testing.assert_array_equal(np.concatenate(steps, axis=1), alone[f"steps {epoch}"])
        for step in range(len(steps[0])):
            seen = [set(part[step].tolist()) for part in steps]
            assert sum(map(len, seen)) == len(set.union(*seen)), "identities are not disjoint"
        for name in alone:
            if name.startswith((f"memory {epoch}", f"weight {epoch} ", f"result {epoch}")):
                np.testing.assert_allclose(ranks[0][name], alone[name], atol=1e-5, err_msg=name)
            if name.startswith((f"memory {epoch}", f"features {epoch}", f"labels {epoch}")):
                assert len({rank[name].tobytes() for rank in ranks}) == 1, name
    parameters = [name for name in alone if name.endswith("weight")]
    for name in parameters:  # running statistics may differ, gradients are averaged
        assert len({rank[name].tobytes() for rank in ranks}) == 1, name


@pytest.mark.long
def test_tracklets_in_two_processes(tmp_path):
    """Labels, steps and results are those of one process, mixed tracklets those of process 0."""
    from ppcls_ise.synthetic import make_tracklets

    size = {"height": 32, "width": 16, "mean_length": 5}
    make_tracklets(tmp_path / "set", 0, num_train_ids=12, num_test_ids=4, slips=0.5, **size)
    more = {f"DataLoader__{part}__dataset__name": "MARS" for part in ("Train", "Eval__Query")} | {
        "DataLoader__Eval__Gallery__dataset__name": "MARS",
        "Clustering__tracklet_eps": 0.5,
    }
    (alone,) = notes_of(1, tmp_path / "set", tmp_path / "alone", **more)
    ranks = notes_of(2, tmp_path / "set", tmp_path / "two", **more)
    for rank in ranks:
        for epoch in (1, 2):
            np.testing.assert_array_equal(rank[f"labels {epoch}"], alone[f"labels {epoch}"])
            np.testing.assert_array_equal(rank[f"result {epoch}"], alone[f"result {epoch}"])
            assert rank[f"mixed {epoch}"].tolist() == alone[f"mixed {epoch}"].tolist()
    steps = np.concatenate([rank["steps 1"] for rank in ranks], axis=1)
    np.testing.assert_array_equal(steps, alone["steps 1"])
    lists = [tmp_path / run / "RecModel" / "mixed_tracklets.txt" for run in ("alone", "two")]
    assert lists[0].read_text() == lists[1].read_text()


@pytest.mark.long
@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("killed", ""),  # who notices first, launcher or rank 0, and so the words, vary
        ("lost", "lost.jpg: the file does not exist"),
    ],
)
def test_a_rank_that_dies_ends_the_job(uneven_set, tmp_path, trouble, words):
    """Without the launcher's end, the other rank would wait for ever: the time limit notices."""
    code, text = start(2, uneven_set, tmp_path, trouble, DataLoader__Train__loader__num_workers=0)
    assert code != 0 and words in text
    assert not list((tmp_path / "notes").glob("*.npz"))
    assert not any(str(tmp_path) in line for line in running())


def running() -> list[str]:
    """Command lines of this machine's processes."""
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                lines.append((entry / "cmdline").read_bytes().decode(errors="replace"))
            except OSError:
                continue
    return lines
