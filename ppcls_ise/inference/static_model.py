# SPDX-License-Identifier: Apache-2.0
"""A model's re-ID feature as a static graph: saving it, and running it with Paddle Inference."""

import functools
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import inference, nn
from threadpoolctl import ThreadpoolController

from ppcls_ise.config.precision import PRECISIONS, cpu_problem
from ppcls_ise.errors import ConfigError, ExportError, WeightsError
from ppcls_ise.inference.model_folder import InferenceFile
from ppcls_ise.utils.threads import eager_threads, static_threads

# Paddle 3 writes the first, 2.6 the second.
PROGRAM_SUFFIXES = (".json", ".pdmodel")
# Of one piece on a CPU: the activations of ResNet-50 then stay near the caches, a quarter faster
# than with 16.
_ROWS_PER_THREAD = 4
_LARGEST_BATCH = 256  # that TensorRT is prepared for


_PADDLES_OPENMP = ("libiomp", "libomp")


def set_process_threads(threads: int) -> None:
    """Set how many threads everything but a `StaticModel` uses in this process."""
    paddle.base.core.set_num_threads(threads)


@functools.cache
def _thread_pools() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Put the number of threads back, which a predictor sets for the whole process."""
    found = [i for i in _thread_pools().info() if i["prefix"].startswith(_PADDLES_OPENMP)]
    threads = found[0]["num_threads"] if found else eager_threads()
    try:
        yield
    finally:
        set_process_threads(threads)


class _FeatureNet(nn.Layer):
    """Backbone and neck, without the head: what `engine.feature_extraction` extracts."""

    def __init__(self, model: nn.Layer, normalize: bool) -> None:
        super().__init__()
        self.backbone, self.neck, self.normalize = model.backbone, model.neck, normalize

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """[B, 3, H, W] -> [B, D]."""
        x = self.backbone(x)
        if self.neck is not None:
            x = self.neck(x)
        return F.normalize(x, axis=1, epsilon=1e-12) if self.normalize else x


class StaticExport:
    """The evaluation-mode feature of a ``RecModel``, traced once and saved as often as wanted.

    The weights are those at the time of `save`. The model itself stays as it is: modes, names,
    random numbers and automatic names.

    Args:
        model: a ``RecModel``.
        image_shape: ``[3, H, W]``, as in ``Global.image_shape``; the batch size stays open.
        normalize: save ``N(BN(pooled))`` (CC (2)), else the neck's output before N.
    """

    def __init__(
        self, model: nn.Layer, image_shape: Sequence[int], *, normalize: bool = True
    ) -> None:
        shape = [None, *image_shape]
        if len(shape) != 4 or any(not isinstance(n, int) or n < 1 for n in shape[1:]):
            raise ConfigError(f"image_shape has to be [3, height, width], got {image_shape!r}")
        spec = paddle.static.InputSpec(shape, "float32", name="x")
        with paddle.utils.unique_name.guard():
            net = _FeatureNet(model, normalize)
            self._net = paddle.jit.to_static(net, input_spec=[spec], full_graph=True)

    def save(self, folder: str | Path, *, name: str = "inference") -> None:
        """Write ``<folder>/<name>.json`` (Paddle 2.6: ``.pdmodel``) and ``.pdiparams``.

        Raises:
            ExportError: Paddle cannot make this network static, or the files are cut short.
            OSError: the folder cannot be written to.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        dtypes = {str(p.dtype).split(".")[-1] for p in self._net.parameters()} - {"float32"}
        if dtypes:
            raise ExportError(
                f"the weights are {', '.join(sorted(dtypes))}, and a static model needs float32: "
                "leave out the section AMP (or its level O2)"
            )
        try:
            with evaluation_mode(self._net), paddle.utils.unique_name.guard():
                paddle.jit.save(self._net, str(folder / name))
            _require_whole(folder, name, sum(p.size * 4 for p in self._net.parameters()))
        except (OSError, ExportError):
            raise
        except Exception as error:  # whatever the tracing of foreign code raises
            raise ExportError(
                f"Paddle cannot make this network static: {type(error).__name__}: "
                f"{_last_line(error)}"
            ) from error


def _require_whole(folder: Path, name: str, num_bytes: int) -> None:
    """Raise if the disk has not taken all of a model, which Paddle does not notice."""
    weights, program = folder / f"{name}.pdiparams", folder / f"{name}.json"
    torn = None
    if not weights.is_file() or weights.stat().st_size < num_bytes:
        torn = weights
    elif program.is_file():
        try:
            json.loads(program.read_bytes())
        except ValueError:
            torn = program
    if torn is not None:
        raise ExportError(
            f"{torn} could not be written whole (the weights take {num_bytes / 1e6:.1f} MB, "
            f"{shutil.disk_usage(folder).free / 1e6:.1f} MB are free): make room there, or choose "
            "another folder"
        )


@contextmanager
def evaluation_mode(layer: nn.Layer) -> Iterator[None]:
    """``layer.eval()``, and afterwards every sublayer in the mode that it had, with the ``forward``
    that it had: Paddle 2.6 takes ``to_static`` off what it traces."""
    parts = layer.sublayers(include_self=True)
    before = [(part.training, vars(part).get("forward")) for part in parts]
    layer.eval()
    try:
        yield
    finally:
        for part, (training, forward) in zip(parts, before, strict=True):
            part.training = training
            if forward is not None:
                part.forward = forward
            else:
                vars(part).pop("forward", None)


def save_static_model(
    model: nn.Layer,
    folder: str | Path,
    image_shape: Sequence[int],
    *,
    name: str = "inference",
    normalize: bool = True,
) -> None:
    """Save the feature of ``model`` for Paddle Inference; see `StaticExport`.

    Raises:
        ConfigError, ExportError, OSError: see `StaticExport`.
    """
    StaticExport(model, image_shape, normalize=normalize).save(folder, name=name)


class StaticModel:
    """A saved static model: ``images [B, 3, H, W] float32 -> features [B, D] float32``.

    Args:
        folder: where `save_static_model` wrote it.
        name: its file names without suffix.
        device: ``"cpu"`` or ``"gpu"`` (card 0).
        threads: of the CPU; by default, this process's part of the cores.
        precision: ``fp32``; ``bf16`` (on a CPU it needs the instructions for it); ``fp16`` (GPU).
        use_mkldnn: compute with oneDNN on a CPU.
        use_tensorrt: compute with TensorRT on a GPU.

    Raises:
        ConfigError: an option that this machine or this Paddle cannot serve; names it.
        WeightsError: there is no model in the folder, or it cannot be loaded.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str = "inference",
        device: str = "cpu",
        threads: int | None = None,
        precision: str = "fp32",
        use_mkldnn: bool = True,
        use_tensorrt: bool = False,
    ) -> None:
        _check_precision(precision, device)
        config = inference.Config(*_files(Path(folder), name))
        config.disable_glog_info()
        # No enable_memory_optim(): with Paddle 3 it keeps the model from loading.
        self._rows: int | None = None  # of one piece
        if device == "gpu":
            _use_gpu(config, precision)
            if use_tensorrt:
                _use_tensorrt(config, precision, Path(folder), name)
        elif use_tensorrt:
            raise ConfigError("TensorRT needs a GPU: set device to gpu or use_tensorrt to False")
        else:
            config.disable_gpu()
            threads = threads or static_threads()
            self._rows = _ROWS_PER_THREAD * threads
            config.set_cpu_math_library_num_threads(threads)
            _use_mkldnn(config, precision, use_mkldnn)
        try:
            with _threads_kept():
                self._predictor = inference.create_predictor(config)
        except Exception as error:
            reason = str(error).strip().rsplit("\n", 1)[-1].strip()
            raise WeightsError(
                f"the static model in {folder} cannot be loaded: {reason}"
            ) from error
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._output = self._predictor.get_output_handle(self._predictor.get_output_names()[0])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """[B, 3, H, W] -> [B, D], both float32."""
        images = np.ascontiguousarray(images, dtype=np.float32)
        count = len(images)
        if not count:  # on which some operators crash
            return self._run(np.zeros((1, *images.shape[1:]), np.float32))[:0]
        rows = self._rows or count
        with _threads_kept():
            pieces = [self._run(images[i : i + rows]) for i in range(0, count, rows)]
        return np.concatenate(pieces)

    def _run(self, images: np.ndarray) -> np.ndarray:
        self._input.reshape(list(images.shape))
        self._input.copy_from_cpu(images)
        self._predictor.run()
        return self._output.copy_to_cpu().astype(np.float32, copy=False)


def _check_precision(precision: str, device: str) -> None:
    if device not in ("cpu", "gpu"):
        raise ConfigError(f"a static model runs on cpu or gpu, not on {device!r}")
    if precision not in PRECISIONS:
        raise ConfigError(f"precision has to be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if device == "gpu" and not paddle.is_compiled_with_cuda():
        raise ConfigError("the installed PaddlePaddle is a CPU build: set device to cpu")
    if device == "cpu" and (problem := cpu_problem(precision)):
        raise ConfigError(problem)


def _last_line(error: Exception) -> str:
    """Where Paddle's errors, which are pages long, say what is wrong."""
    return str(error).strip().rsplit("\n", 1)[-1].strip()


def _files(folder: Path, name: str) -> tuple[str, str]:
    weights = folder / f"{name}.pdiparams"
    for suffix in PROGRAM_SUFFIXES:
        if (program := folder / f"{name}{suffix}").is_file() and weights.is_file():
            return str(program), str(weights)
    raise WeightsError(
        f"there is no static model {name}.pdiparams with {name}.json or {name}.pdmodel in {folder}"
    )


def _use_mkldnn(config: Any, precision: str, use_mkldnn: bool) -> None:
    if use_mkldnn:
        config.enable_mkldnn()
        if precision == "bf16":
            config.enable_mkldnn_bfloat16()
    elif precision == "bf16":
        raise ConfigError("bf16 on a CPU is oneDNN's: set use_mkldnn to True or precision to fp32")
    elif hasattr(config, "disable_mkldnn"):  # on from the start in Paddle 3
        config.disable_mkldnn()


def _use_gpu(config: Any, precision: str) -> None:
    config.enable_use_gpu(256, 0, _kind(precision))  # MB to begin with, card


def _kind(precision: str) -> Any:
    kinds = inference.PrecisionType
    return {"fp32": kinds.Float32, "bf16": kinds.Bfloat16, "fp16": kinds.Half}[precision]


def _use_tensorrt(config: Any, precision: str, folder: Path, name: str) -> None:
    if not any(inference.get_trt_compile_version()):
        raise ConfigError("this PaddlePaddle is built without TensorRT: set use_tensorrt to False")
    if not any(inference.get_trt_runtime_version()):
        raise ConfigError(
            "the TensorRT library that this PaddlePaddle was built for cannot be loaded: install "
            "it (libnvinfer), or set use_tensorrt to False"
        )
    described = InferenceFile.read(folder) if (folder / f"{name}.yml").is_file() else None
    if (folder / f"{name}.json").is_file() or described is None:
        raise ConfigError(
            f"TensorRT takes the .pdmodel of Paddle 2.6 with its {name}.yml, and {folder} has "
            "none: export with Paddle 2.6.2, or set use_tensorrt to False"
        )
    config.enable_tensorrt_engine(
        workspace_size=1 << 30, max_batch_size=_LARGEST_BATCH, precision_mode=_kind(precision)
    )
    shape = list(described.image_shape)
    config.set_trt_dynamic_shape_info(
        {"x": [1, *shape]}, {"x": [_LARGEST_BATCH, *shape]}, {"x": [_LARGEST_BATCH // 4, *shape]}
    )
