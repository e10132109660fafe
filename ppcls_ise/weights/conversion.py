# SPDX-License-Identifier: Apache-2.0
"""PyTorch checkpoints to ``.pdparams`` and back.

Of ISE-ReID, Cluster Contrast and HHCL (one ResNet-50, also as IBN-a), of DINO and TransReID-SSL
(ViT), and ImageNet networks of torchvision and IBN-Net. PyTorch is not needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppcls_ise.errors import WeightsError
from ppcls_ise.weights.loading import compare, read_state, write_state
from ppcls_ise.weights.torch_file import read_torch_file, write_torch_file
from ppcls_ise.weights.torch_layouts import layout_of_ours, layout_of_torch

_OURS = ".pdparams"
_THEIRS = (".pth", ".pt", ".tar")
_PARTS = ("teacher", "state_dict", "model")
_PARALLEL, _BACKBONE, _BASE = "module.", "backbone.", "base."
_MOBILENET = "features.0.0.weight"
_HEADS_BESIDE_CLASSIFIER = ("head.",)
_HEADS = (*_HEADS_BESIDE_CLASSIFIER, "classifier.")
_COUNTER = "num_batches_tracked"
_VARIANCE = "running_var"
_SHOWN = 5
# Entries of a variant that has no counterpart here -> what it is.
_VARIANTS = {
    "base.3.0.conv1.weight": "it has no ReLU after the stem (its stages are base.3 to base.6)",
    "feat.weight": "it has an embedding layer (--features)",
}


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did, by name."""

    names: list[tuple[str, str]]  # read, written
    ignored: list[str]
    added: list[str]
    network: str
    advice: str

    @property
    def converted(self) -> int:
        """Tensors that were taken over."""
        return len(self.names)

    def __str__(self) -> str:
        text = f"{self.converted} tensors converted"
        for title, names in (("left out", self.ignored), ("added", self.added)):
            if names:
                more = f", … {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                text += f", {len(names)} {title} ({', '.join(names[:_SHOWN])}{more})"
        return f"{text}: {self.network}. {self.advice}".strip()

    def lines(self) -> list[str]:
        """Every name that was read, and what became of it."""
        return [
            *(f"{old} -> {new}" for old, new in self.names),
            *(f"{name} left out" for name in self.ignored),
            *(f"{name} added" for name in self.added),
        ]


def from_torch(
    state: Mapping[str, np.ndarray], *, source: str
) -> tuple[dict[str, np.ndarray], ConversionReport]:
    """Rename a PyTorch ``state_dict`` to ours; floating values become float32.

    ``module.`` (data parallel) is taken off, and ``backbone.`` of DINO's networks. Heads and the
    batch counters are left out; the classifier of an ImageNet network is kept.

    Args:
        state: their name -> array.
        source: the file's name, for messages.

    Raises:
        WeightsError: it is another network; names what is missing or unexpected.
    """
    plain = _without(state, _PARALLEL, source)
    if f"{_BACKBONE}cls_token" in plain or f"{_BACKBONE}conv1.weight" in plain:  # DINO's wrapper
        plain = _without(plain, _BACKBONE, source)
    elif f"{_BASE}cls_token" in plain:  # supervised TransReID
        plain = _without(plain, _BASE, source)
    heads = _HEADS_BESIDE_CLASSIFIER if _MOBILENET in plain else _HEADS
    if "cls_token" in plain:
        heads = (*heads, "fc.")
    ignored = [name for name in plain if name.startswith(heads)]
    used = {
        name: value
        for name, value in plain.items()
        if name not in ignored and not name.endswith(f".{_COUNTER}")
    }
    layout = layout_of_torch({name: value.shape for name, value in used.items()})
    report = compare({tensor.torch_name: tensor.shape for tensor in layout.tensors}, used)
    if report.problems(optional=()):
        variant = [text for name, text in _VARIANTS.items() if name in used]
        raise WeightsError(
            f"{source} is not {layout.network}: "
            f"{str(report).replace('loaded', 'fit')}" + "".join(f"; {text}" for text in variant)
        )
    renamed = {}
    for tensor in layout.tensors:
        value = used[tensor.torch_name].astype(np.float32, copy=False)
        renamed[tensor.name] = np.ascontiguousarray(value.T) if tensor.transposed else value
    known = list(renamed)
    if layout.add is not None:
        layout.add(renamed)
    return renamed, ConversionReport(
        names=[(t.torch_name, t.name) for t in layout.tensors],
        ignored=ignored,
        added=[name for name in renamed if name not in known],
        network=layout.network,
        advice=f"Name the file in {layout.advice}",
    )


def to_torch(
    state: Mapping[str, np.ndarray], *, source: str, data_parallel: bool = False
) -> tuple[dict[str, np.ndarray], ConversionReport]:
    """Rename our state to PyTorch's, in PyTorch's order; `from_torch` gives the same bits back.

    The batch counters, which Paddle does not have, are 0. A head is left out.

    Raises:
        WeightsError: the state is of another network, or of one that PyTorch's has fewer layers
            than; names what is missing or unexpected.
    """
    ignored = [name for name in state if name.startswith(("head.", "loss_func."))]
    used = {name: value for name, value in state.items() if name not in ignored}
    layout = layout_of_ours({name: value.shape for name, value in used.items()})
    if layout.add is not None:
        raise WeightsError(
            f"{source}: there is no way back to {layout.network}, which lacks a layer that "
            "PaddleClas's network has"
        )
    report = compare({tensor.name: tensor.own_shape for tensor in layout.tensors}, used)
    if report.problems(optional=()):
        raise WeightsError(
            f"{source} is no state of {layout.network}: {str(report).replace('loaded', 'fit')}"
        )
    prefix = _PARALLEL if data_parallel else ""
    renamed: dict[str, np.ndarray] = {}
    for tensor in layout.tensors:
        value = used[tensor.name]
        if tensor.transposed:
            value = np.ascontiguousarray(value.T)
        renamed[prefix + tensor.torch_name] = value
        if tensor.torch_name.endswith(_VARIANCE):
            counter = tensor.torch_name.removesuffix(_VARIANCE) + _COUNTER
            renamed[prefix + counter] = np.zeros((), np.int64)
    names = [(t.name, prefix + t.torch_name) for t in layout.tensors]
    return renamed, ConversionReport(names, ignored, [], layout.network, "")


def convert(
    source: str | Path, target: str | Path, *, data_parallel: bool = False
) -> ConversionReport:
    """Convert a file; the direction follows from the names.

    Args:
        source, target: one ``.pdparams``, the other ``.pth``, ``.pt`` or ``.tar``; ``target`` is
            written atomically.
        data_parallel: write PyTorch names with ``module.``.

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
    return report


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """Read the weights of a checkpoint (zip or legacy format), without executing anything.

    Taken are DINO's ``teacher``, else ``state_dict``, else ``model``, else the whole content.

    Returns:
        Name -> array, ``module.`` included; half precision as float32.

    Raises:
        WeightsError: the file is not a checkpoint or asks for code; names the file.
    """
    content, values = read_torch_file(path)
    if isinstance(content, dict):
        parts = [content.get(key) for key in _PARTS]
        content = next((part for part in parts if isinstance(part, dict)), content)
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path} holds no state_dict")
    state = {str(name): values(item) for name, item in content.items()}
    odd = [name for name, value in state.items() if value is None]
    if odd:
        raise WeightsError(
            f"{path} holds no state_dict, but entries that are no tensors: {', '.join(odd[:5])}"
        )
    return {name: value for name, value in state.items() if value is not None}


def write_torch(path: str | Path, state: Mapping[str, np.ndarray]) -> None:
    """Write ``{"state_dict": ...}``, as the training scripts do, atomically.

    Raises:
        WeightsError: it cannot be written there.
    """
    try:
        write_torch_file(path, state)
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {error.strerror or error}") from error


def _without(state: Mapping[str, np.ndarray], prefix: str, source: str) -> dict[str, np.ndarray]:
    plain = {name.removeprefix(prefix): value for name, value in state.items()}
    if len(plain) != len(state):
        raise WeightsError(f"{source} has entries with and without {prefix} of one name")
    return plain
