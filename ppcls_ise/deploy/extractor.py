# SPDX-License-Identifier: Apache-2.0
"""Features of images, by an exported model or a checkpoint."""

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import paddle

import ppcls_ise
from ppcls_ise.config.overrides import get_config
from ppcls_ise.data.images import ImageReadError, read_image
from ppcls_ise.engine import tf32
from ppcls_ise.errors import ConfigError, DataError, shown
from ppcls_ise.inference.model_folder import InferenceFile
from ppcls_ise.inference.onnx_model import OnnxModel, require_packages
from ppcls_ise.inference.preprocessing import Preprocessing, evaluation_transforms
from ppcls_ise.inference.static_model import StaticModel, save_static_model
from ppcls_ise.utils.threads import core_count

_SHOWN = 5

Image = str | PathLike | np.ndarray


@dataclass(frozen=True)
class Extraction:
    """Features of the images that could be read.

    Attributes:
        features: [M, D] float32.
        kept: [M] int64, which of the given images they are of, ascending.
        errors: why the others could not be read.
    """

    features: np.ndarray
    kept: np.ndarray
    errors: list[ImageReadError]


class Extractor:
    """Images to features, as an evaluation computes them.

        extractor = ppcls_ise.Extractor("inference/ISE_market")
        features = extractor(["a.jpg", "b.jpg"])  # [2, D]

    Args:
        model: a folder that ``ppcls-ise export`` wrote; or, with ``config``, a ``.pdparams``
            file (or the name of released weights), which is made static first.
        config: the YAML file that the weights were trained with.
        overrides: ``key=value`` for it, as after ``-o``.
        batch_size: images per run of the network; a CPU computes them in smaller pieces.
        use_onnx: run the folder's ``inference.onnx`` by onnxruntime, in fp32 on a CPU.
        device, threads, precision, use_mkldnn, use_tensorrt: see `StaticModel`.

    Attributes:
        fingerprint: the same for a checkpoint and its exported models, see `export.fingerprint_of`.
        dimension: D.
        normalized: whether features have length 1 (always with ``config``).
        arithmetic: what the device computes in, e.g. ``float32``; see `engine.tf32.state`.

    Raises:
        ConfigError, WeightsError: not usable; the message says what to change.
    """

    def __init__(
        self,
        model: str | Path | None,
        *,
        config: str | Path | None = None,
        overrides: Iterable[str] = (),
        batch_size: int = 64,
        device: str = "cpu",
        use_onnx: bool = False,
        **options: Any,
    ) -> None:
        ppcls_ise.register()
        if type(batch_size) is not int or batch_size < 1:
            raise ConfigError(f"the batch size has to be a whole number >= 1, got {batch_size!r}")
        threads = options.get("threads")
        if threads is not None and (type(threads) is not int or threads < 1):
            raise ConfigError(f"threads have to be a whole number >= 1, got {threads!r}")
        self.batch_size = batch_size
        options["device"] = device
        if use_onnx and (config is not None or device != "cpu"):
            raise ConfigError(
                "ONNX is for a CPU and an exported model: give a folder of ppcls-ise export "
                "--onnx and no config (-c), and set device to cpu"
            )
        if config is not None:
            self._from_checkpoint(model, str(config), list(overrides), options)
        elif model is None or not Path(model).is_dir():
            raise ConfigError(
                f"{shown(model or 'that')} is no folder of an exported model. Export with "
                "ppcls-ise export, or "
                "give the weights' config file too (-c, or Extractor(..., config=...))"
            )
        else:
            self._from_folder(Path(model), options, use_onnx)
        precision = options.get("precision", "fp32")
        self.arithmetic = tf32.state(device) if precision == "fp32" else precision

    def __call__(
        self, images: Image | Iterable[Image], *, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        """Features [N, D] float32 of N images, in their order.

        Args:
            images: paths, or uint8 arrays [H, W, 3] in RGB; one of them or many.
            progress: called as progress(done, total).

        Raises:
            DataError: an image cannot be read, or a feature is not finite; names it.
        """
        extraction = self.extract(images, progress=progress)
        if extraction.errors:
            reasons = "; ".join(str(error) for error in extraction.errors[:_SHOWN])
            raise DataError(
                f"{len(extraction.errors)} images cannot be read: {reasons}. Repair or remove them "
                "(or leave them out: --skip-unreadable)"
            )
        return extraction.features

    def extract(
        self, images: Image | Iterable[Image], *, progress: Callable[[int, int], None] | None = None
    ) -> Extraction:
        """Like a call, but images that cannot be read are left out and reported.

        Raises:
            DataError: a feature is not finite, or an array is no image.
        """
        given = [images] if isinstance(images, str | PathLike | np.ndarray) else list(images)
        features: np.ndarray = np.zeros((len(given), self.dimension), np.float32)
        kept: list[int] = []
        errors: list[ImageReadError] = []
        batch: list[np.ndarray] = []
        for index, prepared in enumerate(self._prepared(given)):
            if isinstance(prepared, ImageReadError):
                errors.append(prepared)
            else:
                kept.append(index)
                batch.append(prepared)
            if batch and (len(batch) == self.batch_size or index == len(given) - 1):
                features[len(kept) - len(batch) : len(kept)] = self._network(np.stack(batch))
                batch.clear()
            if progress is not None:
                progress(index + 1, len(given))
        features = features[: len(kept)]
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            names = ", ".join(_name(given[kept[i]], kept[i]) for i in bad[:_SHOWN])
            raise DataError(f"{len(bad)} features are not finite: {names}. The weights diverged.")
        return Extraction(features, np.array(kept, np.int64), errors)

    def _from_folder(self, folder: Path, options: dict[str, Any], use_onnx: bool) -> None:
        described = InferenceFile.read(folder)
        if not (folder / "inference.pdmodel").is_file() and paddle.__version__.startswith("2."):
            raise ConfigError(
                f"{shown(folder)} was exported with Paddle "
                f"{described.versions.get('paddlepaddle')}, "
                f"which Paddle {paddle.__version__} cannot read: export it again"
            )
        self._preprocessing = Preprocessing(described.transform_ops)
        if self._preprocessing.image_shape != described.image_shape:
            raise ConfigError(
                f"{shown(folder)}/inference.yml: transform_ops give "
                f"{self._preprocessing.image_shape}, "
                f"not image_shape {described.image_shape}"
            )
        self.fingerprint, self.dimension = described.fingerprint, described.dimension
        self.normalized = described.normalized
        self._network = _onnx(folder) if use_onnx else StaticModel(folder, **options)
        found = list(self._network(np.zeros((1, *described.image_shape), np.float32)).shape)
        if found != [1, self.dimension]:
            raise ConfigError(
                f"{folder}/inference.yml: the network gives {found} for one image, not "
                f"{self.dimension} values"
            )

    def _from_checkpoint(
        self, weights: Any, config_path: str, overrides: list[str], options: dict[str, Any]
    ) -> None:
        from ppcls_ise.deploy.export import build_network, fingerprint_of, on_cpu

        config = get_config(
            config_path, [*overrides, f"Global.device={options['device']}"], mode="export"
        )
        if weights is not None:
            config["Global"]["pretrained_model"] = str(weights)
        self._preprocessing = Preprocessing(evaluation_transforms(config))
        with on_cpu():
            model = build_network(config).plain_model
        self.fingerprint = fingerprint_of(model.state_dict(), self._preprocessing.transform_ops)
        self.normalized = True
        shape = self._preprocessing.image_shape
        with on_cpu(), tempfile.TemporaryDirectory(prefix="ppcls_ise_") as folder:
            save_static_model(model, folder, list(shape))
            self._network = StaticModel(folder, **options)
        self.dimension = self._network(np.zeros((1, *shape), np.float32)).shape[1]

    def _prepared(self, images: Sequence[Image]) -> Iterator[np.ndarray | ImageReadError]:
        """Prepared images in their order, read ahead by threads."""
        waiting: deque[Future] = deque()
        with ThreadPoolExecutor(core_count()) as pool:
            try:
                for image in images:
                    waiting.append(pool.submit(self._prepare, image))
                    if len(waiting) > 2 * self.batch_size:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _prepare(self, image: Image) -> np.ndarray | ImageReadError:
        if isinstance(image, np.ndarray):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
                raise DataError(
                    "an image is a uint8 array [H, W, 3] in RGB, got "
                    f"{image.dtype} {list(image.shape)}"
                )
            return self._preprocessing(np.array(image))
        try:
            return self._preprocessing(read_image(image))
        except ImageReadError as error:
            return error


def _onnx(folder: Path) -> OnnxModel:
    require_packages()
    if not (path := folder / "inference.onnx").is_file():
        raise ConfigError(f"there is no {shown(path)}: export with ppcls-ise export --onnx")
    return OnnxModel(path)


def _name(image: Image, index: int) -> str:
    return f"image {index}" if isinstance(image, np.ndarray) else shown(image)
