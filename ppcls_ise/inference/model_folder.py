# SPDX-License-Identifier: Apache-2.0
"""``inference.yml``: what has to be known of an exported model beside its network.

Its sections ``Global`` and ``RecPreProcess`` are those that PaddleClas's ``predict_rec.py`` reads.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ppcls_ise.errors import ConfigError, WeightsError, shown
from ppcls_ise.utils.files import reading, replacing, sha256_of

NAME = "inference"
# Every file that an export writes is called inference and one of these.
SUFFIXES = (".yml", ".json", ".pdmodel", ".pdiparams", ".pdiparams.info", ".onnx")
_HEAD = """# SPDX-License-Identifier: Apache-2.0
# Written by ppcls-ise export. Images are RGB; image_shape is channels, height, width.
"""
_LARGEST_FILE = 1 << 20  # bytes; an export writes about 2,000
_LARGEST_SIZE = 1 << 16
_SHOWN = 100  # characters
_MODEL_SUFFIXES = (".json", ".pdmodel", ".pdiparams")
# What PaddleClas's predict_rec.py asks for, started in this folder: -c inference.yml.
_HOST_KEYS: dict[str, Any] = {
    "rec_inference_model_dir": ".",
    "infer_imgs": "images",
    "batch_size": 16,
    "use_gpu": False,
    "gpu_mem": 8000,
    "cpu_num_threads": 1,
    "enable_mkldnn": False,
    "enable_benchmark": False,
    "enable_profile": False,
    "use_fp16": False,
    "ir_optim": True,
    "use_tensorrt": False,
}


@dataclass(frozen=True)
class InferenceFile:
    """Content of ``inference.yml``.

    Attributes:
        transform_ops: how an image is prepared.
        image_shape: (3, H, W) of what the network takes.
        dimension: D of a feature.
        normalized: whether the network gives unit rows.
        fingerprint: identifies weights and preprocessing, see `export.fingerprint_of`.
        files: SHA-256 of the files beside this one.
        versions: of what wrote them.
    """

    transform_ops: list[dict[str, Any]]
    image_shape: tuple[int, ...]
    dimension: int
    normalized: bool
    fingerprint: str
    files: dict[str, str]
    versions: dict[str, str]

    def write(self, folder: str | Path) -> Path:
        """Write it into ``folder``, atomically."""
        content = {
            "Global": {**_HOST_KEYS, "image_shape": list(self.image_shape)},
            "RecPreProcess": {"transform_ops": self.transform_ops},
            "RecPostProcess": None,
            "Feature": {"dimension": self.dimension, "normalized": self.normalized},
            "Model": {
                "fingerprint": self.fingerprint,
                "preprocessing": preprocessing_digest(self.transform_ops),
                "files": self.files,
            },
            "Versions": self.versions,
        }
        path = Path(folder) / f"{NAME}.yml"
        with replacing(path) as scratch:
            text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100)
            scratch.write_text(_HEAD + text, encoding="utf-8")
        return path

    @classmethod
    def read(cls, folder: str | Path) -> "InferenceFile":
        """Read it, and make sure that the files beside it are those that it describes.

        Raises:
            ConfigError: there is no such file, or it is something else.
            WeightsError: the model's files are missing, torn or of another export.
        """
        path = Path(folder) / f"{NAME}.yml"
        if not path.is_file():
            raise ConfigError(
                f"{folder} is no exported model: there is no {path.name} in it. Make one with "
                "ppcls-ise export (--model is the folder that it wrote)."
            )
        with reading(path, ConfigError, "is not what ppcls-ise export writes"):
            content = yaml.safe_load(_text(path))
            result = cls(
                transform_ops=content["RecPreProcess"]["transform_ops"],
                image_shape=tuple(_size(size) for size in content["Global"]["image_shape"]),
                dimension=_size(content["Feature"]["dimension"]),
                normalized=bool(content["Feature"]["normalized"]),
                fingerprint=str(content["Model"]["fingerprint"]),
                files={str(k): str(v) for k, v in content["Model"]["files"].items()},
                versions={str(k): str(v) for k, v in content["Versions"].items()},
            )
            stated = content["Model"].get("preprocessing")  # unknown to earlier exports
        if stated not in (None, preprocessing_digest(result.transform_ops)):
            raise ConfigError(
                f"{path}: RecPreProcess.transform_ops were changed after the export, so features "
                "would be others under the same fingerprint. Put them back, or change "
                "DataLoader.Eval.Query.dataset.transform_ops in the config and export again with "
                "ppcls-ise export"
            )
        result._check_files(Path(folder))
        return result

    def _check_files(self, folder: Path) -> None:
        found = {path.name for path in folder.glob(f"{NAME}.*") if path.suffix in _MODEL_SUFFIXES}
        if unknown := sorted(found - self.files.keys()):
            raise WeightsError(
                f"{folder} holds {', '.join(unknown)}, which {NAME}.yml does not know: export the "
                "model again with ppcls-ise export"
            )
        for name, digest in self.files.items():
            if not name.startswith(f"{NAME}.") or Path(name).name != name:
                raise ConfigError(
                    f"{folder}/{NAME}.yml names a file elsewhere: {shown(name[:_SHOWN])}"
                )
            if not (folder / name).is_file() or sha256_of(folder / name) != digest:
                raise WeightsError(
                    f"{folder / name} is missing, damaged or of another export than {NAME}.yml: "
                    "export the model again with ppcls-ise export"
                )


def _text(path: Path) -> str:
    """The file's text, which can be no larger than it looks."""
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"it has more than {_LARGEST_FILE:,} bytes")
    text = path.read_text(encoding="utf-8")
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
        raise ValueError("it has aliases (*), with which a few lines can stand for any amount")
    return text


def _size(value: Any) -> int:
    if type(value) is not int or not 0 < value <= _LARGEST_SIZE:
        raise ValueError(f"a size has to be a whole number in 1 .. {_LARGEST_SIZE}, got {value!r}")
    return value


def preprocessing_digest(transform_ops: list[dict[str, Any]]) -> str:
    """SHA-256 of the operators, hexadecimal."""
    return hashlib.sha256(json.dumps(transform_ops, sort_keys=True).encode()).hexdigest()
