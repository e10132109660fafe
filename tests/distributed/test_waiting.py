# SPDX-License-Identifier: Apache-2.0
"""Processes wait for one another longer than gloo does (30 s)."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

_SCRIPT = """
import sys
import time
sys.path.insert(0, sys.argv[1])
import ppcls_ise
import numpy as np
import paddle.distributed as dist
from ppcls_ise.distributed import broadcast_array, gather_arrays, largest, meet

dist.init_parallel_env()
rank = dist.get_rank()
if rank == 0:
    time.sleep(float(sys.argv[2]))
labels = broadcast_array(np.arange(3) if rank == 0 else np.zeros(3, np.int64))
if rank == 1:
    time.sleep(float(sys.argv[2]) / 10)
whole = gather_arrays(np.full([rank + 1, 2], rank))
meet()
print("rank", rank, labels.tolist(), whole[:, 0].tolist(), largest(rank), flush=True)
"""


def run(folder, seconds: float) -> str:
    script = folder / "waits.py"
    script.write_text(_SCRIPT)
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node=2"]
    command += ["--backend=gloo", f"--log_dir={folder}", str(script), str(REPOSITORY), str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    logs = "".join(path.read_text() for path in sorted(folder.glob("workerlog.*")))
    assert done.returncode == 0, done.stdout + logs
    return logs


@pytest.mark.slow
@pytest.mark.parametrize(
    "seconds", [0.5, pytest.param(35, marks=pytest.mark.long)], ids=["short", "longer than gloo"]
)
def test_processes_wait_for_process_0(tmp_path, seconds):
    logs = run(tmp_path, seconds)
    for rank in (0, 1):
        assert f"rank {rank} [0, 1, 2] [0, 1, 1] 1" in logs
