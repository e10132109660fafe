# SPDX-License-Identifier: Apache-2.0
"""Search, labels and evaluation by several processes, of one machine and of two launchers."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.distributed import shared_work

pytestmark = pytest.mark.slow
SCRIPT = REPOSITORY / "tests" / "distributed" / "shared_work.py"


def launch(folder: Path, arguments: list[str], *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "paddle.distributed.launch", "--backend=gloo", *options]
    command += [f"--log_dir={folder / 'logs'}", str(SCRIPT), str(folder / "notes"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end_of(job: subprocess.Popen, folder: Path) -> tuple[int, str]:
    text = job.communicate(timeout=240)[0]
    logs = sorted((folder / "logs").glob("workerlog.*"))
    return job.returncode, text + "".join(path.read_text(errors="replace") for path in logs)


@pytest.fixture(scope="module")
def alone() -> dict[str, np.ndarray]:
    return shared_work.compute(shared_work.made_up()["features"])


def check(folder: Path, count: int, alone, *, copies: int, shared=None) -> None:
    ranks = [dict(np.load(folder / "notes" / f"{rank}.npz")) for rank in range(count)]
    for found in ranks:
        assert found.pop("read").tobytes() == shared_work.made_up()["features"].tobytes()
        for name, expected in alone.items():
            assert found[name].tobytes() == expected.tobytes(), name
    assert sum(bool(found["fills"]) for found in ranks) == copies
    assert [bool(found["shared"]) for found in ranks] == (shared or [False] * count)
    assert not list(Path("/dev/shm").glob(".ppcls_ise-*"))


@pytest.mark.parametrize(
    "disk", [False, pytest.param(True, marks=pytest.mark.long)], ids=["memory", "disk"]
)
def test_three_processes(alone, tmp_path, disk):
    arguments = ["", str(tmp_path / "disk")] if disk else [""]
    code, text = end_of(launch(tmp_path, arguments, "--nproc_per_node=3"), tmp_path)
    assert code == 0, text
    check(tmp_path, 3, alone, copies=1)
    if disk:
        assert not list((tmp_path / "disk").iterdir())


@pytest.mark.parametrize(
    ("special", "copies", "shared"),
    [
        pytest.param("shared", 1, [True, True, True], marks=pytest.mark.long),
        ("machines", 2, [True, True, False]),
        pytest.param("no room", 1, [False, False, False], marks=pytest.mark.long),
    ],
)
def test_processes_of_a_machine_share_what_all_need(alone, tmp_path, special, copies, shared):
    """As large arrays do; of the emulated machines the second one runs a single process."""
    code, text = end_of(launch(tmp_path, [special], "--nproc_per_node=3"), tmp_path)
    assert code == 0, text
    check(tmp_path, 3, alone, copies=copies, shared=shared)


def test_two_launchers(alone, tmp_path):
    """What is two machines to them; being one, they share the features."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    jobs = []
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
        options = [f"--master=127.0.0.1:{port}", "--nnodes=2", f"--rank={rank}"]
        jobs.append(launch(tmp_path / str(rank), [""], *options, "--nproc_per_node=1"))
    for rank, job in enumerate(jobs):
        code, text = end_of(job, tmp_path / str(rank))
        assert code == 0, text
        (tmp_path / "notes").mkdir(exist_ok=True)
        for note in (tmp_path / str(rank) / "notes").iterdir():
            note.rename(tmp_path / "notes" / note.name)
    check(tmp_path, 2, alone, copies=1)


@pytest.mark.long
@pytest.mark.parametrize("trouble", ["killed", "stopped"])
def test_a_process_that_dies_or_stops_in_the_search_ends_the_job(tmp_path, trouble):
    started = time.monotonic()
    code, text = end_of(launch(tmp_path, [trouble], "--nproc_per_node=2"), tmp_path)
    assert code != 0
    assert not (tmp_path / "notes").exists()
    if trouble == "stopped":
        assert f"process 1 has given no sign of life for {shared_work.SILENCE} s" in text
    assert time.monotonic() - started < 120  # 60 s on an idle machine
