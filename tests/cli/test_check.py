# SPDX-License-Identifier: Apache-2.0
import argparse
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from ppcls_ise.checks import numerics, report
from ppcls_ise.checks.report import CheckFailed, Machine, require_close, run_checks
from ppcls_ise.cli import check
from ppcls_ise.errors import ConfigError
from tests.conftest import REPOSITORY


@pytest.mark.slow
def test_all_checks_on_a_cpu(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "ppcls_ise", "check", "--device", "cpu", "--json"]
        + [str(tmp_path / "check.json")],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "check.json").read_text())
    status = {one["name"]: one["status"] for one in content["checks"]}
    assert list(status) == [name for name, _, _ in check.CHECKS]
    left_out = {name for name, kind in status.items() if kind == report.LEFT_OUT}
    assert left_out == {"trajectory", "mixed-precision", "features", "two-cards"}
    assert content["passed"] and content["device"] == "cpu"
    for title in (title for _, title, _ in check.CHECKS):
        assert title in done.stdout
    assert "9 passed, 0 FAILED, 4 left out" in done.stdout


def outcomes_of(tmp_path, *functions):
    checks = [(f"check{i}", f"title {i}", function) for i, function in enumerate(functions)]
    return run_checks(checks, Machine("cpu", tmp_path))


def test_outcomes(tmp_path):
    def fails(machine):
        raise CheckFailed("it is wrong")

    def breaks(machine):
        raise RuntimeError("pages of text\nthe reason")

    def left_out(machine):
        machine.require_card()

    outcomes = outcomes_of(tmp_path, lambda machine: "fine", fails, breaks, left_out)
    assert [(o.status, o.detail) for o in outcomes] == [
        ("passed", "fine"),
        ("FAILED", "it is wrong"),
        ("FAILED", "RuntimeError: the reason"),
        ("left out", "needs a card: it compares a card with the CPU"),
    ]
    assert report.table(outcomes).endswith("1 passed, 2 FAILED, 1 left out")
    report.write_json(tmp_path / "o.json", Machine("cpu", tmp_path), outcomes)
    assert json.loads((tmp_path / "o.json").read_text())["passed"] is False


def test_a_failed_check_is_an_exit_code(monkeypatch, capsys):
    def fails(machine):
        raise CheckFailed("it is wrong")

    monkeypatch.setattr(check, "CHECKS", [("one", "the title", fails)])
    with pytest.raises(SystemExit) as end:
        check.command(argparse.Namespace(device="cpu", only=None, json=None))
    assert end.value.code == 1
    assert "it is wrong" in capsys.readouterr().out


def test_a_card_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(check, "_sees_a_card", lambda: False)
    with pytest.raises(ConfigError, match="Paddle sees no card"):
        check.command(argparse.Namespace(device="gpu", only=None, json=None))


@pytest.mark.parametrize("found", [[1.0, 2.1], [1.0, np.nan], [1.0, np.inf]])
def test_require_close(found):
    with pytest.raises(CheckFailed, match="a thing is off by"):
        require_close("a thing", np.array(found), np.array([1.0, 2.0]), 1e-3)
    assert require_close("a thing", np.array([1.0, 2.001]), np.array([1.0, 2.0]), 1e-3) > 0


def test_checks_notice_what_they_look_for(tmp_path, monkeypatch):
    machine = Machine("cpu", tmp_path)

    with monkeypatch.context() as patch:
        patch.setattr(numerics, "_ROWS", 200)
        wrong = (np.zeros((200, 30), np.int64), np.zeros((200, 30), np.float32))
        right = numerics.k_nearest
        patch.setattr(
            numerics, "k_nearest", lambda *a, backend: wrong if callable(backend) else right(*a)
        )
        with pytest.raises(CheckFailed, match="indices differ in"):
            numerics.search(machine)
    with monkeypatch.context() as patch:
        patch.setattr(numerics, "_TRANSFERS", 1)
        with pytest.raises(CheckFailed, match="more than 1 transfers"):
            numerics.steps(machine)
    with monkeypatch.context() as patch:
        patch.setattr(numerics.GroupedBatchNorm, "_update_running_statistics", lambda *_: None)
        with pytest.raises(CheckFailed, match="the running mean is off"):
            numerics.batch_norm(machine)
