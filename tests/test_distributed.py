# SPDX-License-Identifier: Apache-2.0
"""Several processes compute what one does (CPU, gloo)."""

import subprocess
import sys

import numpy as np
import pytest

from ppcls_ise.weights import read_state
from tests.conftest import REPOSITORY, SYNTHETIC, lite_overrides, options, run_tool

pytestmark = pytest.mark.slow
# Enough clusters for a whole global batch, and a batch-norm group within every process.
SETTINGS = {
    "Clustering__k1": 6,
    "Clustering__k2": 2,
    "Clustering__eps": 0.4,
    "Clustering__min_samples": 3,
    "Arch__bn_group_size": 8,
}


def logged(text: str, word: str) -> list[str]:
    return [line.split("INFO: ")[1] for line in text.splitlines() if f"INFO: [{word}" in line]


def test_two_processes_follow_the_trajectory_of_one(lite_set, tmp_path):
    runs = {}
    for name, batch_size in (("one", 16), ("two", 8)):
        overrides = lite_overrides(
            lite_set,
            tmp_path / name,
            **SETTINGS,
            DataLoader__Train__sampler__batch_size=batch_size,
        )
        arguments = ["-c", str(SYNTHETIC), *options(overrides)]
        if name == "one":
            done = run_tool("train", *arguments)
            assert done.returncode == 0, done.stdout
            runs[name] = done.stdout
        else:
            log = tmp_path / "log"
            launch = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node=2"]
            launch += ["--backend=gloo", f"--log_dir={log}", str(REPOSITORY / "tools" / "train.py")]
            subprocess.run([*launch, *arguments], check=True, capture_output=True, timeout=300)
            runs[name] = (log / "workerlog.0").read_text()
    assert logged(runs["one"], "Eval") == logged(runs["two"], "Eval")
    clusters = [
        [line.split(" | ")[0] for line in logged(runs[name], "Cluster][Epoch")] for name in runs
    ]
    assert clusters[0] == clusters[1] and len(clusters[0]) == 2
    one, two = (
        read_state(tmp_path / name / "RecModel" / "latest.pdparams") for name in ("one", "two")
    )
    for key, value in one.items():
        np.testing.assert_allclose(two[key], value, atol=1e-5, err_msg=key)
