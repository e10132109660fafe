# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of ISE-ReID, Cluster Contrast and HHCL (PyTorch) to ``.pdparams`` and back.

The three share one ResNet-50 (`rec_model_layout`). PyTorch is imported by `read_torch` and
`write_torch` only; the renaming needs neither framework.
"""

import importlib
import pickle
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ppcls_ise.errors import WeightsError
from ppcls_ise.weights.loading import compare, read_state, replacing, write_state
from ppcls_ise.weights.rec_model_layout import rec_model_layout

_OURS = ".pdparams"
_THEIRS = (".pth", ".pt", ".tar")
_PARALLEL = "module."
_COUNTER = "num_batches_tracked"
_VARIANCE = "running_var"
_TORCH_POWER, _OUR_POWER = "gap.p", "neck.pooling.p"
# Entries of a variant that has no counterpart here -> what it is.
_VARIANTS = {
    "base.3.0.conv1.weight": "it has no ReLU after the stem (its stages are base.3 to base.6)",
    "feat.weight": "it has an embedding layer (--features)",
    "base.4.0.bn1.IN.weight": "it is an IBN-ResNet",
}


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did, by name."""

    converted: int
    ignored: list[str]
    pooling: str

    def __str__(self) -> str:
        text = f"{self.converted} tensors converted"
        if self.ignored:
            text += f", {len(self.ignored)} left out ({', '.join(self.ignored)})"
        return text + (
            ". The network pools with GeM: set Arch.BackboneStopLayer.name to blocks[15] and "
            "Arch.Neck.pooling to gem."
            if self.pooling == "gem"
            else ". The network pools by the average: Arch.BackboneStopLayer.name avg_pool."
        )


def from_torch(
    state: Mapping[str, np.ndarray], *, source: str
) -> tuple[dict[str, np.ndarray], ConversionReport]:
    """Rename a PyTorch ``state_dict`` to ours; floating values become float32.

    ``module.`` (data parallel) is taken off, a classifier and the batch counters are left out.

    Args:
        state: their name -> array.
        source: the file's name, for messages.

    Raises:
        WeightsError: it is another network; names what is missing or unexpected.
    """
    plain = {name.removeprefix(_PARALLEL): value for name, value in state.items()}
    if len(plain) != len(state):
        raise WeightsError(f"{source} has entries with and without {_PARALLEL} of one name")
    ignored = [name for name in plain if name.startswith("classifier.")]
    used = {
        name: value
        for name, value in plain.items()
        if name not in ignored and not name.endswith(f".{_COUNTER}")
    }
    gem = _TORCH_POWER in used
    layout = rec_model_layout(gem=gem)
    report = compare({tensor.torch_name: tensor.shape for tensor in layout}, used)
    if report.problems(optional=()):
        variant = [text for name, text in _VARIANTS.items() if name in used]
        raise WeightsError(
            f"{source} is not the ResNet-50 of ISE-ReID, Cluster Contrast and HHCL: "
            f"{str(report).replace('loaded', 'fit')}" + "".join(f"; {text}" for text in variant)
        )
    renamed = {t.name: used[t.torch_name].astype(np.float32, copy=False) for t in layout}
    return renamed, ConversionReport(len(renamed), ignored, "gem" if gem else "avg")


def to_torch(
    state: Mapping[str, np.ndarray], *, source: str, data_parallel: bool = False
) -> tuple[dict[str, np.ndarray], ConversionReport]:
    """Rename our state to PyTorch's, in PyTorch's order; `from_torch` gives the same bits back.

    The batch counters, which Paddle does not have, are 0. A head is left out.

    Raises:
        WeightsError: the state is of another network; names what is missing or unexpected.
    """
    ignored = [name for name in state if name.startswith("head.")]
    used = {name: value for name, value in state.items() if name not in ignored}
    gem = _OUR_POWER in used
    layout = rec_model_layout(gem=gem)
    report = compare({tensor.name: tensor.shape for tensor in layout}, used)
    if report.problems(optional=()):
        raise WeightsError(
            f"{source} is no RecModel of a ResNet-50 with a batch-norm neck: "
            f"{str(report).replace('loaded', 'fit')}"
        )
    prefix = _PARALLEL if data_parallel else ""
    renamed: dict[str, np.ndarray] = {}
    for tensor in layout:
        renamed[prefix + tensor.torch_name] = used[tensor.name]
        if tensor.torch_name.endswith(_VARIANCE):
            counter = tensor.torch_name.removesuffix(_VARIANCE) + _COUNTER
            renamed[prefix + counter] = np.zeros((), np.int64)
    return renamed, ConversionReport(len(layout), ignored, "gem" if gem else "avg")


def convert(source: str | Path, target: str | Path, *, data_parallel: bool = False) -> str:
    """Convert a file; the direction follows from the names.

    Args:
        source, target: one ``.pdparams``, the other ``.pth``, ``.pt`` or ``.tar``; ``target`` is
            written atomically.
        data_parallel: write PyTorch names with ``module.``.

    Returns:
        A sentence on what was done.

    Raises:
        WeightsError: see `from_torch`, `to_torch`, `read_torch`; or the names do not fit.
    """
    source, target = Path(source), Path(target)
    if not source.is_file():
        raise WeightsError(f"there is no checkpoint {source}")
    if source.suffix in _THEIRS and target.suffix == _OURS:
        state, report = from_torch(read_torch(source), source=str(source))
        write_state(target, state)
    elif source.suffix == _OURS and target.suffix in _THEIRS:
        state, report = to_torch(
            read_state(source), source=str(source), data_parallel=data_parallel
        )
        write_torch(target, state)
    else:
        raise WeightsError(
            f"one of {source.name} and {target.name} has to end in {_OURS}, the other in "
            f"{', '.join(_THEIRS)}"
        )
    return f"{target}: {report}"


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """Read the ``state_dict`` of a checkpoint (zip or legacy format), without executing anything.

    PyTorch's own restricted loader does the reading. Training scripts also store the best mAP as a
    numpy number, which that loader refuses; here a stand-in takes its place.

    Returns:
        Name -> array, ``module.`` included; half precision as float32.

    Raises:
        WeightsError: PyTorch is not installed, or the file is not a checkpoint or asks for code.
    """
    torch = _torch()
    stand_ins = [
        (_Number, f"{package}.multiarray.scalar") for package in ("numpy.core", "numpy._core")
    ]
    stand_ins.append((_NumberType, "numpy.dtype"))
    try:
        with torch.serialization.safe_globals(stand_ins):
            content = torch.load(str(path), map_location="cpu", weights_only=True)
    # Everything that a damaged file can make the loader raise.
    except (
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        EOFError,
        OSError,
        ArithmeticError,
        MemoryError,
        AssertionError,
        struct.error,
        pickle.UnpicklingError,
    ) as error:
        raise WeightsError(
            f"{path} is no PyTorch checkpoint that can be loaded safely ({_first_line(error)})"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds no state_dict")
    odd = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise WeightsError(
            f"{path} holds no state_dict, but entries that are no tensors: {', '.join(odd[:5])}"
        )
    return {str(name): _to_numpy(value) for name, value in content.items()}


def write_torch(path: str | Path, state: Mapping[str, np.ndarray]) -> None:
    """Write ``{"state_dict": ...}``, as the training scripts do, atomically."""
    torch = _torch()
    # A copy: PyTorch shares memory with the array, which may be read-only.
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
    with replacing(path) as scratch:
        torch.save({"state_dict": tensors}, scratch)


class _Number:
    """Stands for a numpy number in a checkpoint; its value is not needed."""

    def __init__(self, *_: Any) -> None:
        pass


class _NumberType(_Number):
    """Stands for the type of a numpy number: numpy's own would take any state."""

    def __setstate__(self, _: Any) -> None:
        pass


def _to_numpy(tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous().numpy()


def _torch() -> ModuleType:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise WeightsError(
            "PyTorch checkpoints need PyTorch: pip install 'ppcls_ise[torch]', or pip install torch"
        ) from error
    if not hasattr(torch.serialization, "safe_globals"):
        raise WeightsError(f"PyTorch {torch.__version__} is too old: 2.6 or newer is needed")
    return torch


def _first_line(error: BaseException) -> str:
    lines: Iterable[str] = str(error).strip().splitlines()
    return next(iter(lines), type(error).__name__)
