# SPDX-License-Identifier: Apache-2.0
"""How far work is, on a terminal and elsewhere."""

import sys

import pytest

from ppcls_ise.utils import progress


class Clock:
    """Lets tqdm believe that every look at the clock is ten seconds later."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 10.0
        return self.now


def test_lines_without_a_terminal(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr("tqdm.std.time", clock)
    assert list(progress.tracked(range(40), "features", "batch", 40)) == list(range(40))
    lines = capsys.readouterr().err.splitlines()
    assert 1 < len(lines) < 20  # not one per batch
    assert all(line.startswith("features") and "/40" in line for line in lines)
    assert not any("\r" in line for line in lines)


def test_short_work_says_nothing(capsys):
    with progress.progress_bar("pseudo-labels", "block") as move:
        for done in range(1, 101):
            move(done, 100)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    list(progress.tracked(range(3), "features", "batch", 3))
    assert "\r" in capsys.readouterr().err


def test_an_error_inside_passes(capsys):
    with pytest.raises(KeyError):
        for _ in progress.tracked(range(3), "features", "batch", 3):
            raise KeyError("x")
