# SPDX-License-Identifier: Apache-2.0
"""The seam: what it says when something is missing, and whether each repair is still needed."""

import inspect
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import paddle
import pytest

import ppcls_ise
from ppcls_ise import compat
from ppcls_ise.compat import training_loop
from ppcls_ise.compat.training_loop import loss_logging_is_broken, watched_batches
from ppcls_ise.errors import ConfigError
from tests.conftest import REPOSITORY


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()
    ppcls_ise.register()  # a second time changes nothing


def is_develop() -> bool:
    return "update_freq" in inspect.getsource(compat.engine_class())


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("dataset", "UnsupervisedMarket1501"),
        ("dataset", "UnsupervisedMSMT17"),
        ("dataset", "UnsupervisedDukeMTMC"),
        ("dataset", "MarketStyleDataset"),
        ("dataset", "UnlabeledFolder"),
        ("sampler", "IdentitySampler"),
        ("transform", "RandomPadCrop"),
        ("backbone", "PlainConvNet"),
        ("backbone", "ResNet50_IBN_a"),
        ("backbone", "ViT_small_patch16_reid"),
        ("loss", "ClusterContrastLoss"),
        ("loss", "LPLoss"),
        ("metric", "ReIDMetric"),
    ],
)
def test_names_are_where_paddleclas_looks(kind, name):
    assert compat.lookup(kind, name).__module__.startswith("ppcls_ise.")


def test_a_taken_name_is_not_overwritten(monkeypatch):
    monkeypatch.setattr(compat.load("ppcls.loss"), "LPLoss", object)
    with pytest.raises(ConfigError, match="has a loss LPLoss itself"):
        ppcls_ise.register()


def test_rec_model_builds_the_plugins_gears():
    arch = compat.load("ppcls.arch")
    neck = arch.build_gear({"name": "ReIDNeck", "num_features": 4})
    assert type(neck).__name__ == "ReIDNeck"
    assert type(arch.build_gear({"name": "BNNeck", "num_features": 4})).__name__ == "BNNeck"


def test_gear_list_is_still_closed():
    """If this fails, PaddleClas accepts registered gears: remove `_open_gear_list`."""
    with pytest.raises(Exception, match="head only support"):
        compat.load("ppcls.arch.gears").build_gear({"name": "ReIDNeck", "num_features": 4})


def test_sgd_is_built_by_every_python():
    """If this works without `repair_sgd` on Python 3.11, remove it."""
    parameters = paddle.nn.Linear(2, 3)
    build = compat.lookup("optimizer", "SGD")(learning_rate=0.1, weight_decay=0.5)
    optimizer = build([parameters])
    before = parameters.weight.numpy().copy()
    parameters(paddle.zeros([1, 2])).sum().backward()
    optimizer.step()
    np.testing.assert_allclose(parameters.weight.numpy(), before * (1 - 0.1 * 0.5), rtol=1e-6)


def test_loss_logging_is_repaired_only_where_it_is_broken():
    """If `broken` is wrong, look at `repair_step_log` again."""

    class Trainer:
        output_info: dict = {}
        train_metric_func = None

    utils = compat.load("ppcls.engine.train.utils")
    try:
        utils.update_loss(Trainer(), {"loss": paddle.to_tensor(1.5)}, 4)
        broken = False
    except IndexError:
        broken = True
    assert broken == loss_logging_is_broken() == (not is_develop())
    trainer = Trainer()
    trainer.output_info = {}
    train = compat.load("ppcls.engine.train.train")
    train.update_loss(trainer, {"loss": paddle.to_tensor(1.5)}, 4)
    assert trainer.output_info["loss"].avg == pytest.approx(1.5)


def test_output_folder_and_iterator_follow_the_version():
    """If this fails, look at `output_folder_lacks_arch_name` and `watched_batches` again."""
    assert compat.output_folder_lacks_arch_name() == is_develop()
    source = inspect.getsource(compat.load("ppcls.engine.train.train").train_epoch)
    assert ("except Exception" in source) == is_develop()


class Loader(list):
    """Three batches, or an error in the place of one."""

    def __iter__(self):
        for batch in super().__iter__():
            if isinstance(batch, Exception):
                raise batch
            yield batch


def steps_of(batches, *, first=0, before_step=lambda step: None) -> list:
    """What ``train_epoch`` sees of a loader, by the loop of this version."""

    class Trainer:
        train_dataloader = batches if isinstance(batches, Loader) else Loader(batches)

    trainer = Trainer()
    if is_develop():
        trainer.iter_per_epoch = len(batches)
    seen = []
    with watched_batches(trainer, first, before_step):
        if is_develop():
            for _ in range(trainer.iter_per_epoch):
                try:
                    seen.append(next(trainer.train_dataloader_iter))
                except Exception:  # noqa: BLE001 - what develop's train_epoch does
                    pytest.fail("swallowed")
        else:
            seen += list(trainer.train_dataloader)
    assert isinstance(trainer.train_dataloader, Loader) and not hasattr(
        trainer, "train_dataloader_iter"
    )
    return seen


def test_loader_failures_cannot_be_swallowed():
    with pytest.raises(compat.InputPipelineFailure, match=r"broken\.jpg"):
        steps_of([1, OSError("broken.jpg cannot be read"), 3])
    with pytest.raises(compat.InputPipelineFailure):
        steps_of([1, 2, StopIteration()])


def test_the_loader_is_read_to_its_end_so_that_its_workers_end():
    ended = []

    class Counted(Loader):
        def __iter__(self):
            yield from super().__iter__()
            ended.append(True)

    steps_of(Counted([1, 2, 3]))
    assert ended == [True]


def test_steps_are_announced_and_errors_of_the_hook_come_through():
    announced = []
    assert steps_of([1, 2, 3], before_step=announced.append) == [1, 2, 3]
    assert announced[:3] == [0, 1, 2]

    def fail(step: int) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        steps_of([1, 2, 3], before_step=fail)


# -- what is said where something is missing: fresh interpreters over made-up installations -------


def fake_package(
    site: Path, package: str, version: str | None, files: tuple[str, ...] = ()
) -> None:
    (site / package).mkdir(parents=True)
    (site / package / "__init__.py").touch()
    for file in files:
        (site / package / file).parent.mkdir(parents=True, exist_ok=True)
        (site / package / file).touch()
    if version:
        name = {"paddle": "paddlepaddle"}.get(package, package)
        info = site / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def import_in(site: Path, **environment: str) -> tuple[str, str]:
    code = (
        "import ppcls_ise\ntry:\n    ppcls_ise.register()\nexcept ImportError as e:\n    print(e)"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("PPCLS_HOME", "PYTHONPATH")}
    path = os.pathsep.join([str(site), str(REPOSITORY)])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**clean, "PYTHONPATH": path, "PYTHONWARNINGS": "default", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("paddle_version", "paddleclas", "words"),
    [
        (None, None, ["PaddlePaddle, which is not installed", "pip install paddlepaddle==3.3.1"]),
        ("2.5.2", "2.4.2", ["does not support PaddlePaddle 2.5.2", "3.x and 2.6.2"]),
        ("3.3.1", None, ["PaddleClas, which is not installed", "--no-deps paddleclas==2.4.2"]),
        ("2.6.2", None, ["PaddleClas, which is not installed", "PPCLS_HOME"]),
        ("3.3.1", "2.4.3", ["paddleclas 2.4.3", "no training engine", "paddleclas==2.4.2"]),
    ],
)
def test_missing_or_unsupported_software_is_named(tmp_path, paddle_version, paddleclas, words):
    if paddle_version:
        fake_package(tmp_path, "paddle", paddle_version)
    if paddleclas:
        fake_package(tmp_path, "paddleclas", paddleclas, ("ppcls/__init__.py", "ppcls/arch/x.py"))
    printed, warned = import_in(tmp_path)
    for word in words:
        assert word in printed
        assert word in warned


def test_wrong_ppcls_home_is_named(tmp_path):
    fake_package(tmp_path, "paddle", "3.3.1")
    fake_package(tmp_path, "paddleclas", "2.4.2", ("ppcls/engine/engine.py",))
    home = tmp_path / "checkout"
    printed, warned = import_in(tmp_path, PPCLS_HOME=str(home))
    assert f"PPCLS_HOME={home}" in printed and "no training engine" in warned
    _, warned = import_in(tmp_path)
    assert "RuntimeWarning" not in warned


def test_paddle_free_parts_need_no_paddle():
    code = (
        "import sys; sys.modules['paddle'] = None\n"
        "from ppcls_ise.clustering import generate_pseudo_labels\n"
        "from ppcls_ise.metrics import evaluate_rank\n"
        "assert not any(name.split('.')[0] in ('ppcls', 'paddleclas') for name in sys.modules)"
    )
    code = code.replace("sys.modules['paddle'] = None", BLOCK_PADDLE)
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


BLOCK_PADDLE = """
class Block:
    def find_spec(self, name, path=None, target=None):
        if name == "paddle":
            raise ImportError("blocked")
sys.meta_path.insert(0, Block())
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "paddle" else real(name, *a)
import warnings; warnings.simplefilter("ignore")
"""


def test_a_failed_import_leaves_nothing_behind(tmp_path):
    """PPCLS_HOME is put right in the same process, e.g. a notebook."""
    home = tmp_path / "broken"
    (home / "ppcls" / "engine").mkdir(parents=True)
    (home / "ppcls" / "engine" / "engine.py").touch()
    (home / "ppcls" / "__init__.py").write_text("from . import arch\nimport no_such_module\n")
    (home / "ppcls" / "arch.py").touch()
    script = (
        "import os, sys\nfrom ppcls_ise import compat\n"
        "try:\n    compat.load()\nexcept ImportError:\n    pass\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'ppcls'])\n"
        "del os.environ['PPCLS_HOME']\nprint(compat.engine_class().__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env=os.environ | {"PPCLS_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout.splitlines()[-2:] == ["[]", "Engine"]


def test_a_log_that_cannot_be_written_is_said_once(tmp_path, capfd, monkeypatch):
    handler = logging.FileHandler(tmp_path / "train.log")
    handler.stream.close()
    handler.stream = open("/dev/full", "w")
    monkeypatch.setattr(compat.logger(), "handlers", [handler])
    compat.say_log_errors_once()
    for _ in range(3):
        compat.logger().error("lost")
    said = capfd.readouterr().err
    assert said.count("train.log cannot be written") == 1 and "No space left" in said
    assert "Logging error" not in said and "Traceback" not in said


class Slow(paddle.io.Dataset):
    """The second of three items takes longer than one is patient."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, item: int):
        time.sleep(1.5 if item == 1 else 0)
        return np.float32(item)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_that_does_not_come_is_said(monkeypatch, caplog, workers):
    monkeypatch.setattr(training_loop, "LATE_SECONDS", 0.5)
    loader = paddle.io.DataLoader(Slow(), batch_size=1, num_workers=workers)
    batches = training_loop.batches_of(loader)
    assert len(list(batches)) == 3
    said = [r.getMessage() for r in caplog.records if "no batch of images" in r.getMessage()]
    assert said and all("Still waiting" in line and "num_workers" in line for line in said)


def test_a_stopped_worker_is_named(monkeypatch, caplog):
    monkeypatch.setattr(training_loop, "LATE_SECONDS", 1.0)
    loader = paddle.io.DataLoader(Slow(), batch_size=1, num_workers=1)
    batches = training_loop.batches_of(loader)
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGSTOP)
    timer = threading.Timer(4.0, os.kill, (worker.pid, signal.SIGCONT))
    timer.start()
    assert len(list(batches)) == 2
    timer.join()
    assert f"kill -CONT {worker.pid}" in caplog.text


@pytest.mark.parametrize("config", [{"a": {"b": [{"c": [1]}]}}])
def test_a_copied_config_shares_nothing(config):
    first = compat.attribute_dict(config)
    second = compat.copy_of(first)
    assert second == first and second.a.b is not first.a.b
    second.a["b"][0]["c"].append(2)
    assert first.a["b"] == [{"c": [1]}]
