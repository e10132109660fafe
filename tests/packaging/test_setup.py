# SPDX-License-Identifier: Apache-2.0
"""The package metadata and the locks: complete, consistent, and true to what is imported."""

import ast
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import setuptools

import ppcls_ise
from ppcls_ise import compat

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ["requirements.txt", "requirements-paddle26.txt"]
HOST = {"paddlepaddle", "paddleclas"}

# The distribution that provides a module, where the two differ.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "paddle": "paddlepaddle",
    "ppcls": "paddleclas",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(name: str) -> dict[str, str]:
    pins: dict[str, str] = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+]+)", line)
            assert match, f"{name}: {line!r} is not of the form name==version"
            distribution = normalized(match.group(1))
            assert distribution not in pins, f"{name}: {distribution} is listed twice"
            pins[distribution] = match.group(2)
    return pins


def distributions_imported(folder: Path, *, only_on_import: bool) -> set[str]:
    """What the Python files below `folder` import from elsewhere, as names of distributions.

    With `only_on_import`, imports inside functions, classes and ``try`` are left out: what is
    missing there does not stop the module from loading.
    """
    own = {folder.name, "ppcls_ise"}
    # Scripts of PaddleClas that are run by hand; nothing of the package imports them.
    ignored = "feature_maps_visualization"
    modules: set[str] = set()
    for file in folder.rglob("*.py"):
        if ignored in file.parts:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in tree.body if only_on_import else ast.walk(tree):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.split(".")[0])
    modules -= set(sys.stdlib_module_names) | own
    return {DISTRIBUTIONS.get(module, module) for module in modules}


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    """The arguments that setup.py hands to setuptools."""
    captured: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(setuptools, "setup", captured.update)
        runpy.run_path(str(ROOT / "setup.py"))
    return captured


@pytest.fixture(scope="module")
def required(metadata: dict[str, Any]) -> set[str]:
    return {normalized(re.split(r"[<>=!~;\[ ]", r)[0]) for r in metadata["install_requires"]}


def test_version_is_the_one_of_the_package(metadata: dict[str, Any]) -> None:
    assert metadata["version"] == ppcls_ise.__version__ == "0.2.0"


def test_extras_choose_the_paddle_build_and_the_tools(metadata: dict[str, Any]) -> None:
    extras = metadata["extras_require"]
    assert set(extras) == {"cpu", "gpu", "dev", "onnx", "viewer"}
    assert any(r.startswith("paddlepaddle>") for r in extras["cpu"])
    assert any(r.startswith("paddlepaddle-gpu") for r in extras["gpu"])
    assert "pytest" in {normalized(re.split(r"[<>=]", r)[0]) for r in extras["dev"]}


def test_every_package_folder_is_installed(metadata: dict[str, Any]) -> None:
    with_modules = {file.parent for file in (ROOT / "ppcls_ise").rglob("*.py")}
    expected = {".".join(folder.relative_to(ROOT).parts) for folder in with_modules}
    assert set(metadata["packages"]) == expected | {"ppcls_ise.configs"}


def test_paddle_and_paddleclas_are_not_required(required: set[str]) -> None:
    # Their own pins would make `pip install .` fail, or pick the wrong build.
    assert not required & {"paddlepaddle", "paddlepaddle-gpu", "paddleclas", "visualdl-gpu"}


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_holds_every_requirement(lock: str, required: set[str]) -> None:
    assert required | HOST <= read_lock(lock).keys()


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("folder", ["ppcls_ise", "tools"])
def test_what_the_project_imports_is_required_and_locked(
    lock: str, folder: str, required: set[str]
) -> None:
    imported = distributions_imported(ROOT / folder, only_on_import=False)
    assert imported <= required | HOST
    assert imported <= read_lock(lock).keys()


@pytest.mark.parametrize("lock", LOCKS)
def test_what_paddleclas_needs_to_load_is_required_and_locked(
    lock: str, required: set[str]
) -> None:
    imported = distributions_imported(compat.ppcls_folder(), only_on_import=True)
    assert {"paddlepaddle", "numpy", "visualdl"} <= imported
    # In scripts beside the engine that it does not import.
    imported -= {"pycocotools", "nvidia"}
    assert imported <= required | HOST
    assert imported <= read_lock(lock).keys()


def test_locks_differ_only_where_paddle_forces_it() -> None:
    current, older = (read_lock(lock) for lock in LOCKS)
    differing = {name for name in current.keys() & older.keys() if current[name] != older[name]}
    assert differing == {"paddlepaddle", "numpy", "opencv-python-headless"}
    assert (current["paddlepaddle"], older["paddlepaddle"]) == ("3.3.1", "2.6.2")


@pytest.mark.parametrize("lock", LOCKS)
def test_development_lock_agrees(lock: str) -> None:
    pins, development = read_lock(lock), read_lock("requirements-dev.txt")
    shared = pins.keys() & development.keys()
    assert {name: pins[name] for name in shared} == {name: development[name] for name in shared}
