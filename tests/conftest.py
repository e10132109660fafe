# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures. zlib comes before everything else for Paddle 2.6 (see ppcls_ise/__init__.py)."""

import logging
import os
import shutil
import subprocess
import sys
import zlib  # noqa: F401
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
REFERENCE = Path(os.environ.get("ISE_FIXTURES", REPOSITORY.parent / "shared" / "fixtures"))


def reference_files(pattern: str) -> list:
    """Reference files as pytest parameters; one skipped parameter where there are none."""
    files = sorted(REFERENCE.glob(pattern)) if REFERENCE.is_dir() else []
    if not files:
        reason = f"no {pattern} in {REFERENCE} (set ISE_FIXTURES)"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id=pattern)]
    return [pytest.param(file, id=file.stem) for file in files]


def read_reference(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def numeric_gradient(function, values, step=1e-6):
    """Central differences of a scalar function, float64."""
    gradient = np.zeros_like(values)
    for place in np.ndindex(values.shape):
        moved = values.copy()
        moved[place] += step
        high = function(moved)
        moved[place] -= 2 * step
        gradient[place] = (high - function(moved)) / (2 * step)
    return gradient


@pytest.fixture
def unit_rows() -> Callable[..., np.ndarray]:
    """Random unit rows: unit_rows(generator, n, d)."""

    def make(generator: np.random.Generator, rows: int, columns: int) -> np.ndarray:
        values = generator.standard_normal((rows, columns)).astype(np.float32)
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    return make


@pytest.fixture(autouse=True)
def heard_logger():
    """PaddleClas's engine cuts its logger off from pytest's."""
    logging.getLogger("ppcls").propagate = True


@pytest.fixture(scope="session")
def lite_set(tmp_path_factory) -> Path:
    """A small generated data set in the Market-1501 layout."""
    from ppcls_ise.synthetic.dataset import make_synthetic

    out = tmp_path_factory.mktemp("lite") / "set"
    make_synthetic(out, 0, num_train_ids=10, num_test_ids=6, images_per_id=8, height=48, width=24)
    return out


@contextmanager
def without_rights():
    """As somebody who may not read everything, where the tests run as root."""
    if os.geteuid():
        yield
        return
    try:
        os.seteuid(65534)
    except OSError:
        pytest.skip("root cannot become somebody else here")
    try:
        yield
    finally:
        os.seteuid(0)


SYNTHETIC = REPOSITORY / "configs" / "ISE_synthetic.yaml"
LITE = {
    "Global.epochs": 2,
    "Global.eval_interval": 1,
    "Clustering.warm_up_batches": 4,
    "Clustering.k1": 10,
    "Clustering.eps": 0.6,
    "DataLoader.Train.sampler.batch_size": 16,
    "DataLoader.Train.sampler.num_instances": 4,
    "DataLoader.Train.sampler.iters": 3,
}


def lite_overrides(root: Path, output: Path, **more) -> list[str]:
    """``-o`` values that make the synthetic config a run of seconds; ``__`` stands for a dot."""
    values = {"Global.image_root": root, "Global.output_dir": output, **LITE}
    values |= {key.replace("__", "."): value for key, value in more.items()}
    return [f"{key}={value}" for key, value in values.items()]


def run_tool(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run tools/<name>.py as a user would; stdout and stderr together in ``stdout``."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / f"{name}.py"), *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def options(overrides: list[str]) -> list[str]:
    return [part for override in overrides for part in ("-o", override)]


@pytest.fixture(scope="session")
def lite_checkpoint(lite_set, tmp_path_factory) -> list[str]:
    """``-o`` values for configs/ISE_synthetic.yaml with weights of a run of seconds."""
    import paddle

    import ppcls_ise

    ppcls_ise.register()
    from ppcls_ise.config.overrides import get_config
    from ppcls_ise.engine.engine import UnsupervisedEngine

    overrides = lite_overrides(
        lite_set, tmp_path_factory.mktemp("run"), Global__eval_during_train=False
    )
    with paddle.utils.unique_name.guard():
        engine = UnsupervisedEngine(get_config(str(SYNTHETIC), overrides))
        engine.train()
    return [*overrides, f"Global.pretrained_model={engine.run_folder / 'latest'}"]


@pytest.fixture(scope="session")
def lite_model(lite_checkpoint, tmp_path_factory) -> Path:
    """The exported model of ``lite_checkpoint``."""
    from ppcls_ise.config.overrides import get_config
    from ppcls_ise.deploy.export import export_model

    folder = tmp_path_factory.mktemp("model")
    overrides = [*lite_checkpoint, f"Global.save_inference_dir={folder}"]
    export_model(get_config(str(SYNTHETIC), overrides))
    return folder


@pytest.fixture
def transfers():
    """`ppcls_ise.checks.transfers.transfers`, where a test wants to count."""
    from ppcls_ise.checks.transfers import transfers

    return transfers


@pytest.fixture
def browser():
    """Debian's Chromium, driven by playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"no browser on the PATH ({', '.join(names)})")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()
