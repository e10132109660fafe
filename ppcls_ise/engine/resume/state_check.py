# SPDX-License-Identifier: Apache-2.0
"""Whether a state that was read belongs to the run that it is to continue.

Every number and shape is held against what it belongs to (the model, the optimizer, the images)
before anything is set, because Paddle would take most of it and fail, or not, steps later.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle

from ppcls_ise import compat
from ppcls_ise.engine.callback import TrainingEngine
from ppcls_ise.engine.resume.settings import check_settings
from ppcls_ise.engine.resume.training_state import FORMAT, hash_of, image_fingerprint
from ppcls_ise.errors import DataError, WeightsError
from ppcls_ise.weights import compare

_MOST = 1 << 31
_SCHEDULE = "LR_Scheduler"
_MASTER = "master_weights"
# What Paddle puts around the name of an accumulator: <parameter>[_fp32_master_0]_moment1_0.
_NUMBERS = re.compile(r"^fp32_master_\d+_|_\d+$")


def check_state(engine: TrainingEngine, state: Mapping[str, Any], source: str) -> None:
    """Make sure that ``state`` is of this model and of these images.

    Raises:
        WeightsError, DataError: it is not; names ``source`` and the way out.
    """
    if state.get("format", FORMAT) != FORMAT or (wrong := _wrong_kinds(state)):
        raise WeightsError(
            f"{source} is not a training state of this version of ppcls_ise"
            + (f": look at its {', '.join(wrong)}" if state.get("format", FORMAT) == FORMAT else "")
        )
    own = engine.plain_model.state_dict(use_hook=False)
    report = compare({name: value.shape for name, value in own.items()}, state["model"])
    if report.problems(optional=()):
        raise WeightsError(
            f"Global.checkpoints: {source} is of another model: {report}. To start from its "
            "backbone and neck instead of resuming, use Global.pretrained_model."
        )
    images = image_fingerprint(engine.train_dataset)
    if state.get("images", images) != images:
        raise DataError(
            f"Global.checkpoints: {source} was trained on other images (or tracklets) than those "
            f"in {engine.train_dataset.image_root} now ({len(engine.train_dataset)}). To go on "
            "with these, start anew with Global.pretrained_model."
        )
    stamps = engine.train_dataset.stamps
    if state.get("sizes", sizes := hash_of(stamps.sizes())) != sizes:
        raise DataError(
            f"Global.checkpoints: {source} was trained on other images: files of the same names in "
            f"{engine.train_dataset.image_root} have other sizes now. To go on with these, start "
            "anew with Global.pretrained_model."
        )
    if state.get("times", times := hash_of(stamps.times())) != times:
        compat.logger().warning(
            f"the images in {engine.train_dataset.image_root} have been written anew since the run "
            "began (copied, or replaced by others of the same sizes)"
        )
    check_settings(state.get("settings", engine.settings), engine.config, engine.settings)
    problem = _loss_problem(engine, state) or _memory_problem(engine, state)
    if (state["step"] or 0) > (steps := len(engine.train_sampler)):
        problem = f"it is at step {state['step']} of an epoch of {steps} steps"
    for optimizer, values in zip(engine.optimizer, state["optimizers"], strict=False):
        problem = problem or _optimizer_problem(optimizer, values)
    if len(engine.optimizer) != len(state["optimizers"]):
        problem = f"it has {len(state['optimizers'])} optimizers instead of {len(engine.optimizer)}"
    if problem:
        raise WeightsError(
            f"Global.checkpoints: {source} does not fit this run: {problem}. To start from its "
            "weights instead of resuming, use Global.pretrained_model."
        )


def _wrong_kinds(state: Mapping[str, Any]) -> list[str]:
    """The entries that are missing, or of another kind than a state has there."""
    step = state.get("step", "missing")
    right = {
        "epoch": _is_count(state.get("epoch")),
        "step": step is None or _is_count(step),
        "global_step": _is_count(state.get("global_step", 0)),
        "best": _is_number(state.get("best")),
        "model": _is_table_of_arrays(state.get("model")),
        "loss": _is_table_of_arrays(state.get("loss", {})),
        "optimizers": _is_list_of(state.get("optimizers"), dict),
        "scaler": isinstance(state.get("scaler", {}), dict),
        "meters": all(
            _is_list_of(meter, int | float) and len(meter) == 4
            for meter in _values(state.get("meters", {}))
        ),
        "memory": state.get("memory") is None or isinstance(state["memory"], np.ndarray),
        "callbacks": _is_list_of(_values(state.get("callbacks", {})), dict),
        "images": isinstance(state.get("images", ""), str),
    }
    return [name for name, is_right in right.items() if not is_right]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _MOST


def _is_list_of(values: Any, kind: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def _values(table: Any) -> list[Any]:
    return list(table.values()) if isinstance(table, dict) else [None]


def _is_table_of_arrays(table: Any) -> bool:
    return isinstance(table, dict) and all(
        isinstance(value, np.ndarray) and value.dtype.kind in "fiub" for value in table.values()
    )


def _loss_problem(engine: TrainingEngine, state: Mapping[str, Any]) -> str | None:
    own = engine.train_loss_func.state_dict()
    if "loss" not in state:  # a checkpoint of PaddleClas
        return None
    report = compare({name: value.shape for name, value in own.items()}, state["loss"])
    return f"loss: {report}" if report.problems(optional=()) else None


def _memory_problem(engine: TrainingEngine, state: Mapping[str, Any]) -> str | None:
    clustering = state.get("callbacks", {}).get("ClusteringCallback", {})
    mixed = clustering.get("mixed_tracklets")
    if mixed is not None and not (isinstance(mixed, np.ndarray) and mixed.dtype == np.int64):
        return "its mixed tracklets are no numbers"
    memory = state.get("memory")
    if memory is None:
        return None
    width = (engine.config["Arch"].get("Neck") or {}).get("num_features")
    if memory.ndim != 2 or memory.dtype.kind != "f" or width not in (None, memory.shape[1]):
        return f"the cluster memory is {memory.dtype} {list(memory.shape)}"
    labels = clustering.get("labels")
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64:
        return "there is a cluster memory, but no pseudo-labels"
    clusters = int(labels.max(initial=-1)) + 1
    if labels.shape != (len(engine.train_dataset),) or not 0 < clusters <= len(labels):
        return f"the pseudo-labels are not those of {len(engine.train_dataset)} images"
    if not len(memory) or len(memory) % clusters:
        return f"the cluster memory has {len(memory)} rows for {clusters} clusters"
    return None


def _optimizer_problem(optimizer: Any, values: Mapping[Any, Any]) -> str | None:
    shapes = {parameter.name: list(parameter.shape) for parameter in optimizer._parameter_list}
    own = optimizer.state_dict().get(_SCHEDULE, {})
    kinds: set[str] = set()
    for key, value in values.items():
        if not isinstance(key, str):
            return f"the optimizer's {key!r} is no name"
        if key == _SCHEDULE:
            if not _is_schedule(value, own):
                return f"the learning-rate schedule is another one ({str(value)[:100]})"
        elif key == _MASTER:
            if not isinstance(value, dict) or any(
                not _is_tensor(item) or list(item[1].shape) != shapes.get(name)
                for name, item in value.items()
            ):
                return "the master weights are of other parameters"
        else:
            name = max((n for n in shapes if key.startswith(f"{n}_")), key=len, default=None)
            if name is None or not _is_tensor(value):
                return f"the optimizer's {key[:100]!r} belongs to no parameter"
            if list(value[1].shape) != shapes[name] and value[1].size != 1:
                return f"the optimizer's {key[:100]!r} has the shape {list(value[1].shape)}"
            kinds.add(_NUMBERS.sub("", key.removeprefix(f"{name}_")))
    if unknown := sorted(kinds - _accumulators(optimizer)):
        return (
            f"{unknown[0]!r} is of another optimizer than {type(optimizer).__name__} "
            "(Optimizer.name)"
        )
    return None


def _is_tensor(value: Any) -> bool:
    """Whether this is a (name, array) as `training_state` and Paddle write it."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], np.ndarray)
        and value[1].dtype.kind in "fu"  # Paddle gives bfloat16 as uint16
    )


def _is_schedule(value: Any, own: Mapping[str, Any]) -> bool:
    """Whether the entries that ``own`` has too are of their kind there."""
    if not isinstance(value, dict):
        return False
    for key in own.keys() & value.keys():
        if isinstance(own[key], dict):
            if not _is_schedule(value[key], own[key]):
                return False
        elif _is_number(own[key]) and not _is_number(value[key]):
            return False
    return True


def _accumulators(optimizer: paddle.optimizer.Optimizer) -> set[str]:
    """What an optimizer keeps of every parameter, e.g. moment1: Paddle's classes name it."""
    return {
        value
        for cls in type(optimizer).__mro__
        for key, value in vars(cls).items()
        if "_acc_" in key and key.endswith("_str") and isinstance(value, str)
    }
