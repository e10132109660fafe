# SPDX-License-Identifier: Apache-2.0
"""A checkpoint as a static model of the re-ID feature, proven to give the same features."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle

import ppcls_ise
from ppcls_ise import compat
from ppcls_ise.clustering.row_set import unit_rows
from ppcls_ise.compat import Config
from ppcls_ise.data.images import ImageReadError, read_image
from ppcls_ise.engine.engine import UnsupervisedEngine
from ppcls_ise.errors import ConfigError, DataError, WeightsError
from ppcls_ise.inference import onnx_model
from ppcls_ise.inference.model_folder import NAME, SUFFIXES, InferenceFile
from ppcls_ise.inference.preprocessing import Preprocessing, evaluation_transforms
from ppcls_ise.inference.static_model import StaticModel, save_static_model
from ppcls_ise.utils.components import components
from ppcls_ise.utils.files import flush, require_writable, scratch_beside, sha256_of

LARGEST_DIFFERENCE = 1e-4
_CROPS = 16

Network = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """Unit features of an exported model beside those of the network that it came from.

    Attributes:
        name: of the exported model.
        max_difference: largest |a - b| over all values.
        min_cosine: smallest cosine of the two features of one crop.
        crops: which crops were compared.
    """

    name: str
    max_difference: float
    min_cosine: float
    crops: str

    def __str__(self) -> str:
        return (
            f"{self.name} against the checkpoint on {self.crops}: max |difference| "
            f"{self.max_difference:.2e}, min cosine {self.min_cosine:.7f}"
        )

    def require_equal(self) -> None:
        """Raise if the two do not agree.

        Raises:
            WeightsError: they differ by more than 1e-4.
        """
        if not self.max_difference <= LARGEST_DIFFERENCE:
            raise WeightsError(
                f"the exported model gives other features than the checkpoint ({self}; at most "
                f"{LARGEST_DIFFERENCE:g} is allowed): it is not usable"
            )


@contextmanager
def on_cpu() -> Iterator[None]:
    """Paddle computes on the CPU inside, and afterwards where it did before."""
    before = paddle.device.get_device()
    paddle.device.set_device("cpu")
    try:
        yield
    finally:
        paddle.device.set_device(before)


def build_network(config: Config, *, allow_random_weights: bool = False) -> UnsupervisedEngine:
    """The engine of ``config`` in mode ``export``: a network with checked weights, and no data;
    on the CPU whatever ``Global.device``. To be called inside `on_cpu`.

    Raises:
        WeightsError: there are no weights of the whole network, or they do not fit.
    """
    options = config["Global"]
    if options["pretrained_model"] or options["checkpoints"]:
        allow_random_weights = False
    elif not allow_random_weights:
        raise WeightsError(
            "these would be random weights: set Global.pretrained_model to a .pdparams file, e.g. "
            "-o Global.pretrained_model=output/ISE_market/RecModel/latest (a trial without "
            "weights: --allow-random-weights)"
        )
    if allow_random_weights:
        config["Arch"]["Backbone"].pop("pretrained", None)  # a download, and for nothing
    options["to_static"] = False
    # A card may round the products of the reference to TF32, which is more than the tolerance.
    options["device"] = "cpu"
    engine = UnsupervisedEngine(config, mode="export")
    engine.plain_model.eval()
    return engine


def features_of(model: paddle.nn.Layer) -> Network:
    """[B, 3, H, W] float32 -> [B, D] float32 unit features, as an evaluation extracts them."""

    @paddle.no_grad()
    def network(images: np.ndarray) -> np.ndarray:
        output = model(paddle.to_tensor(images))["features"]
        return unit_rows(output.astype("float32").numpy())

    return network


def fingerprint_of(state: Mapping[str, Any], transform_ops: list[dict[str, Any]]) -> str:
    """SHA-256 of backbone and neck (names, shapes, values) and of the preprocessing.

    A checkpoint, its exported model and another export of it have the same one.
    """
    total = hashlib.sha256(json.dumps(transform_ops, sort_keys=True).encode())
    for name in sorted(name for name in state if not name.startswith("head.")):
        value = np.ascontiguousarray(state[name].numpy())
        total.update(f"{name} {value.dtype} {value.shape}".encode())
        total.update(value.tobytes())
    return total.hexdigest()


@on_cpu()
def export_model(
    config: Config,
    *,
    allow_random_weights: bool = False,
    normalize: bool = True,
    onnx: bool = False,
) -> list[str]:
    """Write ``inference.*`` into ``Global.save_inference_dir`` and compare it with the checkpoint.

    ``inference.yml``, without which nothing here uses the model, is written last, once the
    features were found equal.

    Args:
        config: from `ppcls_ise.config.overrides.get_config`.
        allow_random_weights: export even without weights.
        normalize: the exported network gives unit rows.
        onnx: also write ``inference.onnx``; needs the extra ``onnx``.

    Returns:
        The report, line by line.

    Raises:
        ConfigError: no folder, no usable preprocessing, or paddle2onnx is missing.
        WeightsError: no weights, or the exported model gives other features.
    """
    if onnx:
        onnx_model.require_packages()
    folder = config["Global"].get("save_inference_dir")
    if not folder:
        raise ConfigError("set Global.save_inference_dir to the folder for the exported model")
    require_writable(folder, "Global.save_inference_dir")
    preprocessing = Preprocessing(evaluation_transforms(config))
    shape = preprocessing.image_shape
    stated = config["Global"].get("image_shape")
    if stated is not None and list(stated) != list(shape):
        compat.logger().warning(
            f"Global.image_shape is {list(stated)}, but the evaluation's transform_ops give "
            f"{list(shape)} (channels, height, width); exporting for the latter"
        )
    engine = build_network(config, allow_random_weights=allow_random_weights)
    folder = Path(folder)
    fingerprint = fingerprint_of(engine.plain_model.state_dict(), preprocessing.transform_ops)
    images, crops = _some_crops(config, preprocessing)
    eager = features_of(engine.plain_model)
    with _replacing_model(folder) as scratch:
        save_static_model(engine.plain_model, scratch, list(shape), name=NAME, normalize=normalize)
        network: Network = StaticModel(scratch, name=NAME)
        reports = [compare(eager, network, images, name="the exported model", crops=crops)]
        reports[-1].require_equal()
        if onnx:
            network = onnx_model.OnnxModel(onnx_model.convert(scratch, NAME))
            reports.append(compare(eager, network, images, name="the ONNX model", crops=crops))
            reports[-1].require_equal()
        files = [path for suffix in SUFFIXES if (path := scratch / f"{NAME}{suffix}").is_file()]
        InferenceFile(
            transform_ops=preprocessing.transform_ops,
            image_shape=shape,
            dimension=network(images[:1]).shape[1],
            normalized=normalize,
            fingerprint=fingerprint,
            files={path.name: sha256_of(path) for path in files},
            versions=_versions(),
        ).write(scratch)
    return [
        *map(str, reports),
        f"written to {folder}: {', '.join(path.name for path in files)}, {NAME}.yml (input "
        f"{list(shape)}: channels, height, width; features "
        f"{'of length 1' if normalize else 'not normalized'})",
    ]


@contextmanager
def _replacing_model(folder: Path) -> Iterator[Path]:
    """A scratch folder whose files take the place of an earlier export once all are there, the one
    that describes them (``inference.yml``) last; until then the earlier one stays as it was."""
    scratch = scratch_beside(folder / NAME)
    scratch.mkdir()
    try:
        yield scratch
        for path in scratch.iterdir():
            flush(path)
        for suffix in sorted(SUFFIXES, key=".yml".__eq__):
            new, old = scratch / f"{NAME}{suffix}", folder / f"{NAME}{suffix}"
            if new.is_file():
                os.replace(new, old)
            else:
                old.unlink(missing_ok=True)  # perhaps of another Paddle
        flush(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def compare(
    eager: Network, exported: Network, images: np.ndarray, *, name: str, crops: str
) -> Comparison:
    """Compare unit features of ``images``, all at once and the first one alone."""
    expected = eager(images)
    found = unit_rows(exported(images))
    alone = unit_rows(exported(images[:1]))
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise WeightsError(
            f"{name} gives {list(found.shape)} instead of {list(expected.shape)} finite values"
        )
    difference = max(np.abs(found - expected).max(), np.abs(alone - expected[:1]).max())
    cosines = (found.astype(np.float64) * expected).sum(axis=1)
    return Comparison(name, float(difference), float(cosines.min()), crops)


def _some_crops(config: Config, preprocessing: Preprocessing) -> tuple[np.ndarray, str]:
    """Prepared crops [B, 3, H, W] of the config's data set, or random ones, and which."""
    for paths in _data_sets(config):
        chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, _CROPS).astype(int))]
        crops = []
        for path in chosen:
            try:
                crops.append(preprocessing(read_image(path)))
            except ImageReadError:
                continue
        if crops:
            return np.stack(crops), f"{len(crops)} crops of {Path(chosen[0]).parent}"
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (_CROPS, 128, 64, 3), dtype=np.uint8)
    return (
        np.stack([preprocessing(image) for image in pixels]),
        f"{_CROPS} crops of random pixels (the config's data set is not here)",
    )


def _data_sets(config: Config) -> Any:
    """Image paths of the config's query, gallery and training set, those that are here."""
    loaders = config.get("DataLoader") or {}
    evaluation = loaders.get("Eval") or {}
    for part in (evaluation.get("Query"), evaluation.get("Gallery"), loaders.get("Train")):
        if part and part["dataset"].get("name") in components("dataset"):
            options = {k: v for k, v in part["dataset"].items() if k != "name"}
            try:
                yield compat.lookup("dataset", part["dataset"]["name"])(**options).images
            except (ConfigError, DataError):
                continue


def _versions() -> dict[str, str]:
    return {
        "ppcls_ise": ppcls_ise.__version__,
        "paddlepaddle": paddle.__version__,
        "paddleclas": compat.version().removeprefix("paddleclas "),
    }
