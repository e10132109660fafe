# SPDX-License-Identifier: Apache-2.0
"""The report of a run: at its end, by the command, and where it fails."""

import argparse
import shutil

import pytest

import ppcls_ise
from ppcls_ise.cli import report as cli
from ppcls_ise.errors import ConfigError, DataError
from ppcls_ise.visualization.run_report import write_run_report
from tests.conftest import lite_overrides
from tests.engine.test_engine import engine_of, log_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(lite_set, tmp_path_factory):
    ppcls_ise.register()
    output = tmp_path_factory.mktemp("a run")  # with a space, for the commands
    engine = engine_of(lite_overrides(lite_set, output, Global__epochs=2))
    engine.train()
    return engine, output


def test_the_end_of_a_run_names_what_is_next(run):
    engine, output = run
    path = cli.report_and_next_steps(engine)
    assert path == engine.run_folder / "report.html"
    lines = log_of(output).splitlines()
    start = next(i for i, line in enumerate(lines) if line.endswith("next steps:"))
    last = "\n".join(lines[start:])
    assert len(lines) - start == 5  # nothing follows
    assert str(path) in last and f"'{output}/RecModel/config.yaml'" in last
    for command in ("ppcls-ise eval", "ppcls-ise export", "ppcls-ise infer"):
        assert command in last
    text = path.read_text(encoding="utf-8")
    for words in ("Verdict", "Curves", "Map of the features", "Ranked lists", "Seconds per stage"):
        assert words in text
    assert "after epoch 2" in text and path.stat().st_size < 15e6


def test_a_failing_report_is_a_warning(run, monkeypatch):
    engine, output = run

    def fail(*arguments):
        raise RuntimeError("out of ink")

    monkeypatch.setattr(cli, "write_run_report", fail)
    assert cli.report_and_next_steps(engine) is None
    log = log_of(output)
    assert "the run is complete, but its report could not be written (RuntimeError: out of" in log
    assert f"ppcls-ise report '{output}/RecModel'" in log


def test_the_command_finds_the_run_and_writes_elsewhere(run, tmp_path):
    _, output = run
    for place in (output, output / "RecModel"):
        out = tmp_path / "r" / "page.html"
        said = cli.command(argparse.Namespace(run=str(place), out=str(out), images=None))
        assert str(out) in said and out.stat().st_size > 50_000


def test_what_is_no_run_is_said(run, tmp_path):
    _, output = run
    with pytest.raises(ConfigError, match="no folder of a run"):
        write_run_report(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(output / "RecModel", copy)
    (copy / "history.csv").write_text("nonsense\n1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"history\.csv"):
        write_run_report(copy)
    (copy / "history.csv").unlink()
    (copy / "config.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(DataError, match="no configuration of a run"):
        write_run_report(copy)
    (copy / "clustering.safetensors").write_bytes(b"x")
    with pytest.raises(DataError, match="clustering"):
        write_run_report(copy)
