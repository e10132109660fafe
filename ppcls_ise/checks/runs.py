# SPDX-License-Identifier: Apache-2.0
"""Whole runs on a small generated data set: repeating, resuming, exporting, loading, speed."""

import gc
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle

from ppcls_ise import compat
from ppcls_ise.checks.report import CheckFailed, LeftOut, Machine, require_close
from ppcls_ise.checks.transfers import transfers
from ppcls_ise.config.overrides import get_config
from ppcls_ise.deploy.export import LARGEST_DIFFERENCE, export_model, features_of
from ppcls_ise.engine.engine import UnsupervisedEngine
from ppcls_ise.engine.feature_extraction import loader_of
from ppcls_ise.engine.tf32 import full_float32
from ppcls_ise.inference.static_model import StaticModel
from ppcls_ise.registry import register
from ppcls_ise.synthetic.dataset import make_synthetic
from ppcls_ise.utils.threads import core_count
from ppcls_ise.weights.loading import read_state

_SMALL = {
    "Global.epochs": 1,
    "Global.eval_during_train": False,
    "Global.print_batch_step": 100,
    "Arch.bn_group_size": 8,
    "Clustering.warm_up_batches": 2,
    "Clustering.k1": 10,
    "Clustering.eps": 0.6,
    "DataLoader.Train.sampler.batch_size": 16,
    "DataLoader.Train.sampler.num_instances": 4,
    "DataLoader.Train.sampler.iters": 4,
}
_STOP_AFTER = 2  # steps
_HALF = 1e-2
_WORKERS = 4
# Runs `hold_workers` the way every command runs, so that workers end with it.
_HOLDER = (
    "from ppcls_ise.cli.process import run; from ppcls_ise.checks import runs; "
    "run(lambda: runs.hold_workers({device!r}, {folder!r}))"
)
_TRAIN = "from ppcls_ise.cli.main import main\nmain('train')\n"


def repeat_and_resume(machine: Machine) -> str:
    """Two equal runs, and one that is stopped within an epoch and resumed: equal weights."""
    with _deterministic(machine):
        first, again = (_trained(machine, name) for name in ("first", "again"))
        _require_equal(first, again, "two runs with the same seed")
        stopped = _engine(machine, "stopped")
        heard, steps = stopped.losses_read, iter(range(1, 100))

        def stop(values: dict[str, float]) -> None:
            heard(values)
            if next(steps) == _STOP_AFTER:
                os.kill(os.getpid(), signal.SIGTERM)

        stopped.losses_read = stop
        try:
            stopped.train()
        except SystemExit:
            pass
        else:
            raise CheckFailed("a run that was asked to stop did not")
        latest = stopped.run_folder / "latest"
        resumed = _trained(machine, "stopped", **{"Global.checkpoints": latest})
    _require_equal(first, resumed, f"a run that was resumed after {_STOP_AFTER} steps")
    return f"{len(first)} tensors equal, byte for byte, after a second run and after a resumed one"


def features(machine: Machine) -> str:
    """Evaluation features of the card against the CPU's, with TF32 off and as it is."""
    machine.require_card()
    found = {}
    for device in ("cpu", "gpu"):
        paddle.device.set_device(device)
        engine = _engine(machine, f"features_{device}", device=device)
        if device == "cpu":
            state = {k: v.numpy() for k, v in engine.plain_model.state_dict().items()}
            engine.plain_model.eval()
        else:
            engine.plain_model.set_state_dict(state)
        images = np.random.default_rng(0).standard_normal((8, 3, 96, 48)).astype(np.float32)
        engine.plain_model.eval()
        with full_float32():
            found[device] = features_of(engine.plain_model)(images)
        if device == "gpu":
            found["as it is"] = features_of(engine.plain_model)(images)
    error = require_close("a feature with TF32 off", found["gpu"], found["cpu"], LARGEST_DIFFERENCE)
    moved = np.abs(found["as it is"] - found["cpu"]).max()
    return f"{error:.0e} from the CPU's with TF32 off, {moved:.0e} as this Paddle is set"


def export(machine: Machine) -> str:
    """Checkpoint, export, Paddle Inference: the same features, in every precision there is."""
    overrides = [
        *_overrides(machine, "export", "cpu"),
        f"Global.save_inference_dir={_model(machine)}",
    ]
    lines = export_model(_config(overrides), allow_random_weights=True)
    facts = [lines[0].rsplit(": ", 1)[-1]]
    if machine.device == "gpu":
        images = np.random.default_rng(0).standard_normal((8, 3, 96, 48)).astype(np.float32)
        wanted = StaticModel(_model(machine))(images)
        for precision, tolerance in (("fp32", _HALF), ("fp16", _HALF)):
            network = StaticModel(_model(machine), device="gpu", precision=precision)
            error = require_close(f"a feature in {precision}", network(images), wanted, tolerance)
            facts.append(f"card in {precision}: {error:.0e}")
    return "; ".join(facts)


def workers(machine: Machine) -> str:
    """Loader workers beside a device in use, whose process is then killed: none is left."""
    if sys.platform != "linux":
        raise LeftOut("needs /proc")
    folder = str(_images(machine))
    code = _HOLDER.format(device=machine.device, folder=folder)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        line = next((x for x in process.stdout if x.startswith("workers ")), "")
    finally:
        process.kill()
        process.wait()
    pids = [int(word) for word in line.split()[1:]]
    if len(pids) != _WORKERS:
        raise CheckFailed(f"{len(pids)} of {_WORKERS} loader workers came up")
    deadline = time.monotonic() + 10.0
    while left := [pid for pid in pids if os.path.exists(f"/proc/{pid}")]:
        if time.monotonic() > deadline:
            raise CheckFailed(f"workers {left} outlived their process: end them")
        time.sleep(0.05)
    return f"{_WORKERS} workers delivered images and ended with their process"


def hold_workers(device: str, folder: str) -> None:
    """Use the device, start workers, say which they are, and wait. Run in a process of its own."""
    register()
    paddle.device.set_device(device)
    paddle.ones([8, 8]).matmul(paddle.ones([8, 8])).numpy()
    engine_config = _config([f"Global.image_root={folder}"])
    section = engine_config["DataLoader"]["Train"]["dataset"]
    options = {key: value for key, value in section.items() if key != "name"}
    loader = loader_of(
        compat.lookup("dataset", section["name"])(**options),
        batch_size=4,
        num_workers=_WORKERS,
        device=paddle.CPUPlace() if device == "cpu" else paddle.CUDAPlace(0),
    )
    batches = iter(loader)
    next(batches)
    pids = [str(child.pid) for child in multiprocessing.active_children()]
    print("workers", *pids, flush=True)
    time.sleep(60)


def speed(machine: Machine) -> str:
    """Step time, transfers and peak memory; loader speed, and the workers to keep up with it."""
    rate = _loader_rate(machine)
    facts = [f"one loader worker reads {rate:.0f} images/s"]
    sizes = (64, 256) if machine.device == "gpu" else (16,)
    fastest = 0.0
    for batch_size in sizes:
        for amp in (False, True) if machine.device == "gpu" else (False,):
            seconds, moved, peak = _step_cost(machine, batch_size, amp=amp)
            fastest = max(fastest, batch_size / seconds)
            facts.append(
                f"B = {batch_size}{' O1' if amp else ''}: {1000 * seconds:.0f} ms a step, "
                f"{moved} transfers" + (f", {peak / 1e9:.1f} GB" if peak else "")
            )
    wanted = max(1, math.ceil(fastest / rate))
    facts.append(f"num_workers: {min(wanted, core_count())} would keep up")
    if wanted > core_count():
        facts[-1] = f"num_workers: {core_count()} (all cores; {wanted} would be needed to keep up)"
    return "; ".join(facts)


def two_cards(machine: Machine) -> str:
    """One process against two: the same batches, and weights equal up to the order of sums."""
    machine.require_card("it compares one card with two")
    if paddle.device.cuda.device_count() < 2:
        raise LeftOut("needs two cards")
    script = machine.folder / "train.py"
    script.write_text(_TRAIN, encoding="utf-8")
    found = []
    for cards, size in (("0", 16), ("0,1", 8)):
        name = f"cards_{size}"
        overrides = _overrides(machine, name, None, **{"DataLoader.Train.sampler.batch_size": size})
        command = [sys.executable, "-m", "paddle.distributed.launch", "--gpus", cards]
        command += ["--log_dir", str(machine.folder / "log"), str(script), "-c", "ISE_synthetic"]
        for override in overrides:
            command += ["-o", override]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise CheckFailed(f"training on card(s) {cards} failed: {done.stdout[-300:]}")
        state = read_state(machine.folder / name / "RecModel" / "latest.pdparams")
        found.append({key: value.astype(np.float64) for key, value in state.items()})
    worst = max(require_close(key, found[1][key], found[0][key], 1e-2) for key in found[0])
    return f"weights after {_SMALL['DataLoader.Train.sampler.iters']} steps: {worst:.0e} apart"


# -- what they share ------------------------------------------------------------------------


def _images(machine: Machine) -> Any:
    folder = machine.folder / "images"
    make_synthetic(
        folder, 0, num_train_ids=8, num_test_ids=2, images_per_id=8, height=128, width=64
    )
    return folder


def _model(machine: Machine) -> Any:
    return machine.folder / "model"


def _overrides(machine: Machine, name: str, device: str | None = None, **more: Any) -> list[str]:
    values = {
        **_SMALL,
        "Global.device": device or machine.device,
        "Global.image_root": _images(machine),
        "Global.output_dir": machine.folder / name,
        **more,
    }
    return [f"{key}={value}" for key, value in values.items()]


def _config(overrides: list[str]) -> Any:
    return get_config("ISE_synthetic", overrides)


def _engine(machine: Machine, name: str, device: str | None = None, **more: Any) -> Any:
    with paddle.utils.unique_name.guard():
        return UnsupervisedEngine(_config(_overrides(machine, name, device, **more)))


def _trained(machine: Machine, name: str, **more: Any) -> dict[str, np.ndarray]:
    engine = _engine(machine, name, **more)
    engine.train()
    return {key: value.numpy() for key, value in engine.plain_model.state_dict().items()}


def _require_equal(wanted: dict[str, np.ndarray], found: dict[str, np.ndarray], what: str) -> None:
    other = [key for key in wanted if wanted[key].tobytes() != found[key].tobytes()]
    if other:
        worst = max(np.abs(wanted[key] - found[key]).max() for key in other)
        raise CheckFailed(
            f"{what} ended with other weights: {len(other)} of {len(wanted)} tensors differ, by "
            f"up to {worst:.1e} ({other[0]})"
        )


@contextmanager
def _deterministic(machine: Machine) -> Iterator[None]:
    """cuDNN chooses among algorithms that add up in a fixed order."""
    if machine.device != "gpu":
        yield
        return
    flag = "FLAGS_cudnn_deterministic"
    before = paddle.get_flags([flag])
    paddle.set_flags({flag: True})
    try:
        yield
    finally:
        paddle.set_flags(before)


def _loader_rate(machine: Machine) -> float:
    """Images per second of one worker with the transforms of the recipes (256 x 128)."""
    size = "[128,256]"
    path = "DataLoader.Train.dataset.transform_ops.0.ResizeImage.size"
    engine = _engine(machine, "rate", "cpu", **{path: size})
    count = min(64, len(engine.train_dataset))
    started = time.perf_counter()
    for i in range(count):
        engine.train_dataset[i, i]
    return count / (time.perf_counter() - started)


def _step_cost(machine: Machine, batch_size: int, *, amp: bool) -> tuple[float, int, int]:
    """Seconds and transfers of a step of the whole network, and peak bytes on a card.

    On a card with ResNet-50 at 256 x 128, on a CPU with the small network of the set.
    """
    more: dict[str, Any] = {"DataLoader.Train.sampler.batch_size": batch_size}
    shape = [3, 96, 48]
    if machine.device == "gpu":
        shape = [3, 256, 128]
        more |= {
            "Arch.Backbone": "{'name': 'ResNet50_last_stage_stride1'}",
            "Arch.BackboneStopLayer": "{'name': 'blocks[15]'}",
            "Arch.Neck.num_features": 2048,
            "Arch.bn_group_size": 64,
        }
    if amp:
        more["AMP"] = "{'use_amp': True, 'level': 'O1', 'use_dynamic_loss_scaling': True}"
    engine = _engine(machine, f"cost_{batch_size}_{amp}", **more)
    generator = np.random.default_rng(0)
    prototypes = generator.standard_normal((100, engine.plain_model.neck.num_features))
    engine.head.memory.reset(prototypes.astype(np.float32))
    engine.head.start_epoch(1, 10, 10)
    engine.model.train()
    images = paddle.to_tensor(generator.standard_normal((batch_size, *shape), np.float32))
    labels = paddle.to_tensor(np.repeat(np.arange(batch_size // 4), 4)[:, None])

    def step() -> None:
        with paddle.amp.auto_cast(enable=amp):
            output = engine.model(images, labels)
            loss = engine.train_loss_func(output, labels)["loss"]
        (engine.scaler.scale(loss) if amp else loss).backward()
        for optimizer in engine.optimizer:
            optimizer.step() if not amp else engine.scaler.step(optimizer)
            optimizer.clear_grad()
        if amp:
            engine.scaler.update()

    return _measure(step, machine)


def _measure(step: Callable[[], None], machine: Machine) -> tuple[float, int, int]:
    cuda = paddle.device.cuda
    if machine.device == "gpu" and hasattr(cuda, "reset_max_memory_allocated"):
        gc.collect()  # the network of the measurement before
        cuda.empty_cache()
        cuda.reset_max_memory_allocated()
    step()
    with transfers() as moved:
        step()
    if machine.device == "gpu":
        cuda.synchronize()
    times = 5 if machine.device == "gpu" else 1
    started = time.perf_counter()
    for _ in range(times):
        step()
    if machine.device == "gpu":
        cuda.synchronize()
    seconds = (time.perf_counter() - started) / times
    peak = cuda.max_memory_allocated() if machine.device == "gpu" else 0
    return seconds, len(moved), peak
