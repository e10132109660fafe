# SPDX-License-Identifier: Apache-2.0
"""All that the rest of a training run depends on, as a tree of arrays and numbers, and back.

Generators are not in it: batches and augmentation are drawn from (seed, epoch, place in the epoch),
and Paddle's generator is seeded anew before every step (`seed_step`), so a position says it all.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist

from ppcls_ise.compat import training_loop
from ppcls_ise.engine.callback import TrainingEngine
from ppcls_ise.errors import WeightsError

_NOT_OF_A_KIND = ("LR_Scheduler", "master_weights")
FORMAT = 1


def seed_step(seed: int, epoch: int, step: int) -> None:
    """Seed Paddle's generator (dropout and the like) for one step of this process."""
    words = np.random.SeedSequence((seed, epoch, step, dist.get_rank())).generate_state(1)
    paddle.seed(int(words[0]))


def training_state(engine: TrainingEngine, *, epoch: int, step: int | None) -> dict[str, Any]:
    """The state of ``engine`` between two steps.

    Args:
        epoch: epochs that are finished, evaluation included.
        step: steps done in the epoch after them; None if that has not begun.

    Returns:
        A tree for `state_files.StateFolder`; arrays are copies. Memory: that of the model, the
        optimizer and the cluster memory, once.
    """
    scaler = training_loop.loss_scaler(engine)
    clustered = engine.clustering.result is not None and engine.clustering.result.num_clusters
    return {
        "format": FORMAT,
        "epoch": epoch,
        "step": step,
        "global_step": engine.global_step,
        "meters": training_loop.meter_values(engine),
        "settings": engine.settings,
        "images": image_fingerprint(engine.train_dataset),
        "sizes": hash_of(engine.train_dataset.stamps.sizes()),
        "times": hash_of(engine.train_dataset.stamps.times()),
        "model": _arrays(engine.plain_model.state_dict(use_hook=False)),
        "loss": _arrays(engine.train_loss_func.state_dict()),
        "optimizers": [_named_arrays(optimizer.state_dict()) for optimizer in engine.optimizer],
        "scaler": _arrays(scaler.state_dict()) if scaler else {},
        "memory": _array(engine.head.memory.rows) if clustered else None,
        "callbacks": {type(callback).__name__: callback.state() for callback in engine.callbacks},
    }


def restore_training_state(engine: TrainingEngine, state: Mapping[str, Any]) -> None:
    """Put ``engine`` where it was when ``state`` was taken; see `training_state`.

    Parts that are missing (a checkpoint of PaddleClas) are left as they are.
    """
    _set(engine.plain_model.state_dict(use_hook=False), state["model"])
    _set(engine.train_loss_func.state_dict(), state.get("loss", {}))
    for optimizer, values in zip(engine.optimizer, state["optimizers"], strict=True):
        _require_same_kind(optimizer, values)
        optimizer.set_state_dict(_tensors(values))
    if (scaler := training_loop.loss_scaler(engine)) and state.get("scaler"):
        scaler.load_state_dict(state["scaler"])
    engine.global_step = state.get("global_step", 0)
    training_loop.set_meter_values(engine, state.get("meters", {}))
    if state.get("memory") is not None:
        engine.head.memory.restore(state["memory"])
    for callback in engine.callbacks:
        if own := state.get("callbacks", {}).get(type(callback).__name__):
            callback.restore(engine, own)


def _require_same_kind(optimizer: Any, values: Mapping[str, Any]) -> None:
    """Raise if ``values`` were kept by another kind of optimizer.

    Raises:
        WeightsError: Paddle would fail in the first step, or leave out what it does not know.
    """
    own = [getattr(optimizer, name) for name in dir(optimizer) if name.endswith("_acc_str")]
    kept = [name for name in values if name not in _NOT_OF_A_KIND]
    foreign = [name for name in kept if not any(f"_{kind}_" in name for kind in own)]
    if foreign or (own and values and not kept):
        raise WeightsError(
            "Global.checkpoints: the optimizer's state is not of "
            f"{type(optimizer).__name__} (it holds {', '.join(foreign[:2]) or 'nothing'}): set "
            "Optimizer.name to the one of that run, or start anew with Global.pretrained_model"
        )


def non_finite(weights: Mapping[str, paddle.Tensor]) -> list[str]:
    """Names of the weights with a NaN or an infinity."""
    return [name for name, value in weights.items() if not np.isfinite(_array(value)).all()]


def num_bytes(tree: Any) -> int:
    """Size of all arrays in a tree."""
    if isinstance(tree, Mapping):
        return sum(num_bytes(item) for item in tree.values())
    if isinstance(tree, list | tuple):
        return sum(num_bytes(item) for item in tree)
    return tree.nbytes if isinstance(tree, np.ndarray) else 0


def image_fingerprint(dataset: Any) -> str:
    """Hash of the training images' paths below their root, so that the root may move, and of their
    tracklets where these are known."""
    digest = hashlib.sha256()
    for path in dataset.images:
        digest.update(os.path.relpath(path, dataset.image_root).encode("utf-8", "surrogateescape"))
        digest.update(b"\0")
    if dataset.tracklet_ids is not None:
        digest.update(dataset.tracklet_ids.tobytes())
    return digest.hexdigest()


def hash_of(values: Any) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()


def _array(tensor: paddle.Tensor) -> np.ndarray:
    # numpy has no bfloat16; float32 holds its values exactly.
    return (tensor.astype("float32") if "bfloat16" in str(tensor.dtype) else tensor).numpy()


def _arrays(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _array(value) if isinstance(value, paddle.Tensor) else value
        for name, value in values.items()
    }


def _named_arrays(values: Any) -> Any:
    """An optimizer's state with (name, array) for a tensor: Paddle goes by names there."""
    if isinstance(values, Mapping):
        return {key: _named_arrays(value) for key, value in values.items()}
    return (values.name, _array(values)) if isinstance(values, paddle.Tensor) else values


def _tensors(values: Any) -> Any:
    """The inverse of `_named_arrays`."""
    if isinstance(values, Mapping):
        return {key: _tensors(value) for key, value in values.items()}
    if isinstance(values, list | tuple) and len(values) == 2 and isinstance(values[1], np.ndarray):
        tensor = paddle.to_tensor(values[1])
        tensor.name = values[0]
        return tensor
    return values


def _set(own: Mapping[str, paddle.Tensor], values: Mapping[str, np.ndarray]) -> None:
    for name, value in values.items():
        dtype = str(own[name].dtype).rsplit(".", 1)[-1]
        own[name].set_value(paddle.to_tensor(value).astype(dtype))
