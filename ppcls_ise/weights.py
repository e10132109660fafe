# SPDX-License-Identifier: Apache-2.0
"""Reading and applying weight files: nothing executed, nothing skipped silently."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls_ise.errors import WeightsError

_SUFFIX = ".pdparams"
# paddle.save adds this table of internal names.
_NAME_TABLE = "StructuredToParameterName@@"
# A classifier of the training set: unused in re-identification, so it may differ or be absent.
_CLASSIFIER = ("head.", "fc.")
_SHOWN = 5


class _ArraysOnly(pickle.Unpickler):
    """Accepts numpy arrays and plain containers; any other global ends the loading."""

    _ALLOWED = {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        *(
            (f"{package}.multiarray", name)
            for package in ("numpy.core", "numpy._core")
            for name in ("_reconstruct", "scalar")
        ),
        *((f"{package}.numeric", "_frombuffer") for package in ("numpy.core", "numpy._core")),
        ("_codecs", "encode"),
        ("collections", "OrderedDict"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise WeightsError(
                f"it asks for {module}.{name}, which a file of plain arrays never does; "
                "it is not loaded, because loading could run code"
            )
        return super().find_class(module, name)


def weight_path(name: str) -> Path:
    """The file that ``name`` means, with or without ``.pdparams`` (PaddleClas omits it).

    Raises:
        WeightsError: there is no such file.
    """
    for path in (Path(name), Path(name + _SUFFIX)):
        if path.is_file():
            return path
    raise WeightsError(
        f"there is no weight file {name} (nor {name}{_SUFFIX}). Give its path with or without "
        f"{_SUFFIX} in Global.pretrained_model."
    )


def read_state(path: str | Path) -> dict[str, np.ndarray]:
    """Read a ``.pdparams`` file without executing anything in it.

    Returns:
        Name -> array, as ``paddle.save(layer.state_dict())`` wrote it.

    Raises:
        WeightsError: the file is damaged, holds something else, or asks for code.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file).load()
    except WeightsError as error:
        raise WeightsError(f"{path} is not a safe weight file: {error}") from None
    # A damaged pickle fails in any of these ways.
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        UnicodeDecodeError,
        MemoryError,
        OverflowError,
    ) as error:
        raise WeightsError(
            f"{path} cannot be read as Paddle weights ({type(error).__name__}: {error}). "
            "It may be truncated, or a file of another kind."
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a table of weights")
    content.pop(_NAME_TABLE, None)
    odd = [
        name
        for name, value in content.items()
        if not isinstance(value, np.ndarray) or value.dtype.hasobject
    ]
    if odd or not all(isinstance(name, str) for name in content):
        raise WeightsError(f"{path} holds entries that are not arrays: {_some(map(str, odd))}")
    return content


@dataclass(frozen=True)
class LoadReport:
    """What `load_into` did, by name."""

    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]

    def __str__(self) -> str:
        text = f"{len(self.loaded)} tensors loaded"
        for title in ("missing", "unexpected", "mismatched"):
            if names := getattr(self, title):
                text += f", {len(names)} {title} ({_some(names)})"
        return text


def load_into(model: nn.Layer, state: dict[str, np.ndarray], *, source: str) -> LoadReport:
    """Copy ``state`` into ``model``; everything but a classifier head has to fit exactly.

    Args:
        model: a ``RecModel``, or its backbone alone.
        state: see `read_state`.
        source: the file's name, for messages.

    Raises:
        WeightsError: a tensor of backbone or neck is missing, unknown to the model, or has
            another shape; the model is left as it was.
    """
    own = model.state_dict()
    common = [name for name in own if name in state]
    mismatched = [
        f"{name} {list(state[name].shape)} instead of {list(own[name].shape)}"
        for name in common
        if list(state[name].shape) != list(own[name].shape)
    ]
    report = LoadReport(
        loaded=[name for name in common if list(state[name].shape) == list(own[name].shape)],
        missing=[name for name in own if name not in state],
        unexpected=[name for name in state if name not in own],
        mismatched=mismatched,
    )
    problems = [
        name
        for names in (report.missing, report.unexpected, report.mismatched)
        for name in names
        if not name.startswith(_CLASSIFIER)
    ]
    if problems or not report.loaded:
        raise WeightsError(
            f"{source} does not fit the model: {report}. Check that Arch.Backbone and Arch.Neck "
            "are those the weights were trained with."
        )
    for name in report.loaded:
        own[name].set_value(paddle.to_tensor(state[name].astype(_dtype(own[name]), copy=False)))
    return report


def _dtype(tensor: paddle.Tensor) -> str:
    return str(tensor.dtype).rsplit(".", 1)[-1]


def _some(names: Any) -> str:
    names = list(names)
    more = f", … {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
