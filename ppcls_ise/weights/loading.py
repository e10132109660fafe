# SPDX-License-Identifier: Apache-2.0
"""Reading and applying weight files: nothing executed, nothing skipped silently."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls_ise.errors import WeightsError, shown
from ppcls_ise.utils import files
from ppcls_ise.utils.files import reading
from ppcls_ise.weights.rec_model_layout import rec_model_layout
from ppcls_ise.weights.released import RELEASED, cache_folder, downloaded_file, released_file
from ppcls_ise.weights.safe_pickle import read_pickle

_SUFFIX = ".pdparams"
# paddle.save adds this table of internal names.
NAME_TABLE = "StructuredToParameterName@@"
# A classifier of the training set: unused in re-identification, so it may differ or be absent.
# So are the centers of a supervised loss, which PaddleClas saves with the model.
_CLASSIFIER = ("head.", "fc.", "out.", "loss_func.")
_CONVERT = "Convert it with ppcls-ise convert."
_ZIP_START = b"PK\x03\x04"
_TORCH_LEGACY_START = 0x1950A86A20F9469CFC6C
_SHOWN = 5
_ADDRESS = "https://"
_MOST_EPOCHS = 1 << 31
_LARGEST = 1e9


def weight_path(name: str, *, key: str = "Global.pretrained_model") -> Path:
    """The file that ``name`` means.

    An address is downloaded once, with a checksum that the file has to match from then on.
    Otherwise, in this order: the file of that name, the same with ``.pdparams`` (which PaddleClas
    leaves out), released weights (``ISE_M``, ``ISE_MS``; downloaded once, see `released`).

    Raises:
        WeightsError: there is no such file, or the download failed; names ``key``.
    """
    if name.startswith(_ADDRESS):
        # A folder for each address: many files are called the same.
        folder = cache_folder() / hashlib.sha256(name.encode()).hexdigest()[:16]
        return downloaded_file(name, folder=folder, check=read_state, key=key)
    for path in (Path(name), Path(name + _SUFFIX)):
        if path.is_file():
            return path
    if name in RELEASED:
        return released_file(name, check=check_rec_model_file)
    raise WeightsError(
        f"there is no weight file {shown(name)} (nor {shown(name)}{_SUFFIX}). Give its path with "
        f"or without {_SUFFIX} in {key}, its https address, or the name of released weights "
        f"({', '.join(RELEASED)})."
    )


def read_state(path: str | Path) -> dict[str, np.ndarray]:
    """Read a ``.pdparams`` file without executing anything in it (`safe_pickle`).

    Returns:
        Name -> array, as ``paddle.save(layer.state_dict())`` wrote it.

    Raises:
        WeightsError: the file is damaged, holds something else, or asks for code.
    """
    path = Path(path)
    if path.is_file():
        with reading(path, WeightsError, "cannot be read"), path.open("rb") as file:
            if file.read(len(_ZIP_START)) == _ZIP_START:
                raise WeightsError(
                    f"{shown(path)} is a zip file, as PyTorch writes them. {_CONVERT}"
                )
    content = read_pickle(path)
    if type(content) is int and content == _TORCH_LEGACY_START:
        raise WeightsError(f"{shown(path)} is a PyTorch checkpoint. {_CONVERT}")
    if not isinstance(content, dict):
        raise WeightsError(
            f"{shown(path)} holds a {type(content).__name__}, not a table of weights"
        )
    content.pop(NAME_TABLE, None)
    odd = [
        str(name)
        for name, value in content.items()
        if not isinstance(value, np.ndarray) or not isinstance(name, str)
    ]
    if odd:
        raise WeightsError(f"{shown(path)} holds entries that are not arrays: {_some(odd)}")
    return content


def write_state(path: str | Path, state: Mapping[str, np.ndarray]) -> None:
    """Write ``state`` as ``paddle.save`` does, atomically."""
    tensors = {name: paddle.to_tensor(value, place="cpu") for name, value in state.items()}
    with replacing(path) as scratch:
        paddle.save(tensors, str(scratch))


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """`ppcls_ise.utils.files.replacing` for weights.

    Raises:
        WeightsError: it cannot be written there.
    """
    try:
        with files.replacing(path) as scratch:
            yield scratch
    except OSError as error:
        raise WeightsError(f"{shown(path)} cannot be written: {error.strerror or error}") from error


@dataclass(frozen=True)
class LoadReport:
    """How weights and a model fit, by name."""

    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]

    resized: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{len(self.loaded)} tensors loaded"
        left_out = [name for name in self.unexpected if name.startswith(_CLASSIFIER)]
        for title, names in (
            ("missing", self.missing),
            ("left out", left_out),
            ("unexpected", [name for name in self.unexpected if name not in left_out]),
            ("mismatched", self.mismatched),
        ):
            if names:
                text += f", {len(names)} {title} ({_some(names)})"
        return "; ".join([text, *self.resized])

    def problems(self, *, optional: tuple[str, ...] = _CLASSIFIER) -> list[str]:
        """What does not fit, entries whose names start with one of ``optional`` left out."""
        names = [*self.missing, *self.unexpected, *self.mismatched]
        return [name for name in names if not name.startswith(optional)]


def compare(shapes: Mapping[str, Sequence[int]], state: Mapping[str, np.ndarray]) -> LoadReport:
    """Hold ``state`` against the names and shapes that a model has."""
    fits = {n: list(state[n].shape) == list(shapes[n]) for n in shapes if n in state}
    return LoadReport(
        loaded=[name for name, fit in fits.items() if fit],
        missing=[name for name in shapes if name not in state],
        unexpected=[name for name in state if name not in shapes],
        mismatched=[
            f"{name} {list(state[name].shape)} instead of {list(shapes[name])}"
            for name, fit in fits.items()
            if not fit
        ],
    )


def load_into(model: nn.Layer, state: dict[str, np.ndarray], *, source: str) -> LoadReport:
    """Copy ``state`` into ``model``; everything but a classifier head has to fit exactly.

    A layer that can resize weights of another size does so (``adapt_weights``: the positions of a
    ViT).

    Args:
        model: a ``RecModel``, or its backbone alone.
        state: see `read_state`.
        source: the file's name, for messages.

    Raises:
        WeightsError: a tensor of backbone or neck is missing, unknown to the model, or has
            another shape; the model is left as it was.
    """
    own, state = model.state_dict(), dict(state)
    try:
        resized = [
            line
            for name, layer in model.named_sublayers(include_self=True)
            if hasattr(layer, "adapt_weights")
            for line in layer.adapt_weights(state, f"{name}." if name else "")
        ]
    except WeightsError as error:
        raise WeightsError(f"{shown(source)} does not fit Arch.Backbone: {error}") from error
    report = compare({name: value.shape for name, value in own.items()}, state)
    if report.problems() or not report.loaded:
        raise WeightsError(
            f"{shown(source)} does not fit the model: {report}. {_advice(own, state)}"
        )
    for name in report.loaded:
        own[name].set_value(paddle.to_tensor(state[name].astype(_dtype(own[name]), copy=False)))
    return replace(report, resized=resized)


def _advice(own: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """What to change where ``state`` does not fit a model of ``own`` names."""
    inside = [name for name in state if f"backbone.{name}" in own]
    if inside and not any(name in own for name in state):
        return (
            f"{len(inside)} of its names are those of the backbone alone: name the file in "
            "Arch.Backbone.pretrained instead of Global.pretrained_model."
        )
    outside = [name for name in state if name.startswith("backbone.") and name[9:] in own]
    if outside and not any(name in own for name in state):
        return (
            f"{len(outside)} of its names are those of a whole model: name the file in "
            "Global.pretrained_model instead of Arch.Backbone.pretrained."
        )
    return "Check that Arch.Backbone and Arch.Neck are those the weights were trained with."


def read_checkpoint(prefix: str) -> dict[str, Any]:
    """Read the three files of PaddleClas's checkpoints without executing anything in them.

    Args:
        prefix: path without suffix, as PaddleClas names checkpoints.

    Returns:
        ``model`` (name -> array), ``optimizers`` (a list of their states, with (name, array) for
        a tensor), ``metric`` and ``epoch``.

    Raises:
        WeightsError: a file is missing, or is not plain data of that kind.
    """
    for suffix in (_SUFFIX, ".pdopt", ".pdstates"):
        if not Path(prefix + suffix).is_file():
            raise WeightsError(
                f"there is no checkpoint file {shown(prefix)}{suffix}. Global.checkpoints is the "
                "path "
                "without suffix, e.g. output/ISE_market/RecModel/latest."
            )
    model = read_state(prefix + _SUFFIX)
    optimizers = read_pickle(Path(f"{prefix}.pdopt"))
    if isinstance(optimizers, dict):
        optimizers = [optimizers]
    if not isinstance(optimizers, list) or not all(isinstance(part, dict) for part in optimizers):
        raise WeightsError(f"{shown(prefix)}.pdopt holds no state of an optimizer")
    return {**read_progress(prefix), "model": model, "optimizers": optimizers}


def read_progress(prefix: str) -> dict[str, Any]:
    """``metric`` (-1 for NaN) and ``epoch`` of a checkpoint, from its ``.pdstates``.

    Raises:
        WeightsError: the file is missing, or is not plain data of that kind.
    """
    states = read_pickle(Path(f"{prefix}.pdstates"))
    epoch = states.get("epoch") if isinstance(states, dict) else None
    if type(epoch) is not int or not 0 <= epoch < _MOST_EPOCHS:
        raise WeightsError(f"{shown(prefix)}.pdstates does not say of which epoch it is")
    metric: Any = states.get("metric", -1.0)
    if isinstance(metric, np.ndarray) and metric.size == 1:
        metric = metric.reshape(())[()]
    is_number = isinstance(metric, float | int | np.floating | np.integer)
    if not is_number or abs(metric) > _LARGEST:
        raise WeightsError(f"{shown(prefix)}.pdstates holds a metric that is no number")
    return {"epoch": epoch, "metric": -1.0 if np.isnan(metric) else float(metric)}


def check_rec_model_file(path: str | Path) -> None:
    """Make sure that a file holds PaddleClas's ``RecModel`` with a ResNet-50 and a batch-norm
    neck: exactly its names and shapes, a head apart.

    Raises:
        WeightsError: names what is missing or unexpected.
    """
    state = read_state(path)
    layout = rec_model_layout(gem="neck.pooling.p" in state)
    report = compare({tensor.name: tensor.shape for tensor in layout}, state)
    if report.problems():
        raise WeightsError(
            f"{shown(path)} is no RecModel of a ResNet-50 with a batch-norm neck: {report}"
        )


def _dtype(tensor: paddle.Tensor) -> str:
    return str(tensor.dtype).rsplit(".", 1)[-1]


def _some(names: Iterable[Any]) -> str:
    names = list(names)
    more = f", … {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return shown(", ".join(names[:_SHOWN])) + more
