# SPDX-License-Identifier: Apache-2.0
"""How commands end, and on which Python."""

import os
import subprocess
import sys

import pytest

from ppcls_ise.cli import process
from tests.conftest import REPOSITORY


def test_a_killed_reader_is_a_sentence(capsys):
    def fail() -> None:
        raise SystemError("(Fatal) DataLoader process (pid 7) exited is killed by signal: Killed.")

    with pytest.raises(SystemExit) as ended:
        process.run(fail)
    assert "num_workers" in str(ended.value) and "signal: Killed" in str(ended.value)
    with pytest.raises(RuntimeError, match="something else"):
        process.run(lambda: (_ for _ in ()).throw(RuntimeError("something else")))


def test_names_beyond_the_terminals_encoding_are_escaped():
    code = "from ppcls_ise.cli.process import run; run(lambda: print('f\u00fcnf'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "f\\xfcnf\n", done.stderr


@pytest.mark.parametrize("version", [(3, 8, 1), (3, 9, 19)])
def test_an_old_python_is_named(version):
    code = f"import sys; sys.version_info = {version}; import ppcls_ise"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert "needs Python 3.10" in done.stderr and f"3.{version[1]}" in done.stderr
