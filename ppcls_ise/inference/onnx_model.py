# SPDX-License-Identifier: Apache-2.0
"""An exported model as ONNX, by the optional packages paddle2onnx and onnxruntime."""

import importlib
import importlib.util
from pathlib import Path

import numpy as np

from ppcls_ise.errors import ConfigError, ExportError
from ppcls_ise.utils.files import replacing

_PACKAGES = ("paddle2onnx", "onnxruntime")
_OPSET = 13


def require_packages() -> None:
    """Raise if the packages are not installed.

    Raises:
        ConfigError: names the extra to install.
    """
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise ConfigError(
            f"--onnx needs {' and '.join(missing)}, which the extra `onnx` installs: pip install "
            "'ppcls_ise[onnx]' (or pip install paddle2onnx onnxruntime)"
        )


def convert(folder: str | Path, name: str) -> Path:
    """Write ``name.onnx`` beside the static model ``name.json`` or ``name.pdmodel``.

    Raises:
        ExportError: paddle2onnx cannot convert this network.
    """
    paddle2onnx = importlib.import_module("paddle2onnx")
    folder = Path(folder)
    program = next(p for s in (".json", ".pdmodel") if (p := folder / f"{name}{s}").is_file())
    target = folder / f"{name}.onnx"
    try:
        # Given a file name it would "optimize", and install packages for that on its own.
        content = paddle2onnx.export(
            str(program), str(folder / f"{name}.pdiparams"), opset_version=_OPSET
        )
    except Exception as error:  # whatever it raises, of several kinds by version
        raise ExportError(f"paddle2onnx cannot convert {program}: {error}") from error
    with replacing(target) as scratch:
        scratch.write_bytes(content)
    return target


class OnnxModel:
    """[B, 3, H, W] float32 -> [B, D] float32 by onnxruntime on a CPU."""

    def __init__(self, path: str | Path) -> None:
        onnxruntime = importlib.import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; it warns of leftovers of the conversion
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self._session.run(None, {self._input: images})[0]
