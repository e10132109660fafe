# SPDX-License-Identifier: Apache-2.0
"""A wheel of the tracked files, in an environment of its own: it has all that the commands need."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import ppcls_ise
from ppcls_ise.config import packaged_configs
from tests.conftest import REPOSITORY

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
OFFLINE = ["--no-index", "--no-deps"]
SHORT = {
    "Global.epochs": 1,
    "Global.eval_interval": 1,
    "Clustering.warm_up_batches": 2,
    "DataLoader.Train.sampler.iters": 2,
}


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clean_tree(target: Path) -> None:
    """The tracked files as they are now, and nothing that happens to lie around them."""
    if not shutil.which("git") or not (REPOSITORY / ".git").exists():
        pytest.skip("no git checkout: which files are the project's is not known")
    listed = run("git", "ls-files", "-z", cwd=REPOSITORY)
    for name in filter(None, listed.split("\0")):
        if (source := REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / name)


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """Folder of programs of a new environment that holds the wheel."""
    root = tmp_path_factory.mktemp("wheel")
    clean_tree(root / "tree")
    run(*PIP, "wheel", *OFFLINE, "--no-build-isolation", "-w", root, root / "tree", cwd=root)
    (wheel,) = root.glob("*.whl")
    venv.create(root / "venv", with_pip=False)
    python = root / "venv" / "bin" / "python"
    run(*PIP, "--python", python, "install", *OFFLINE, wheel, cwd=root)
    # What the project depends on comes from the environment of the tests, after its own packages.
    (site,) = (root / "venv").glob("lib/python*/site-packages")
    inherited = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = [f"import site; site.addsitedir({path!r})\n" for path in sorted(inherited)]
    (site / "zz-inherited.pth").write_text("".join(lines))
    return python.parent


@pytest.mark.slow
def test_the_installed_commands_work_in_an_empty_folder(environment, tmp_path):
    place = "import ppcls_ise; print(ppcls_ise.__version__, ppcls_ise.__file__)"
    version, file = run(environment / "python", "-c", place, cwd=tmp_path).split()[-2:]
    assert version == ppcls_ise.__version__
    assert Path(file).is_relative_to(environment.parent), "not the wheel's"
    command = environment / "ppcls-ise"
    assert run(command, "configs", cwd=tmp_path).split() == packaged_configs()
    text = (REPOSITORY / "configs" / "ISE_market.yaml").read_text(encoding="utf-8")
    shown = run(environment / "python", "-m", "ppcls_ise", "configs", "ISE_market", cwd=tmp_path)
    assert shown.strip() == text.strip()

    overrides = [part for key, value in SHORT.items() for part in ("-o", f"{key}={value}")]
    assert "Trained without labels" in run(command, "demo", "--fast", *overrides, cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "output"]
    assert (tmp_path / "output" / "ISE_synthetic_fast" / "RecModel" / "ranked_lists.png").is_file()
