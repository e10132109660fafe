# SPDX-License-Identifier: Apache-2.0
"""Settings and input that work, but probably not with the result that was hoped for."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ppcls_ise import compat
from ppcls_ise.clustering.parallel import spans
from ppcls_ise.data.file_stamps import copies
from ppcls_ise.data.transforms import seeded_generators
from ppcls_ise.errors import shown

_SHOWN = 3
_BLOCK_ROWS = 1024
_EQUAL = 1e-6  # between float32 unit rows


def odd_transforms(config: Any) -> Iterator[str]:
    """Remarks on transforms that do not fit each other or ``Global.image_shape``."""
    train = (config.get("DataLoader") or {}).get("Train") or {}
    evaluation = (config.get("DataLoader") or {}).get("Eval") or {}
    parts = {f"DataLoader.Eval.{name}.dataset": part for name, part in evaluation.items()}
    parts = {path: (part or {}).get("dataset") for path, part in parts.items()}
    parts["Clustering"] = config.get("Clustering") if train else None
    ops = {path: part["transform_ops"] for path, part in parts.items() if _transforms(part)}
    first = next(iter(ops), "")
    for path in ops:
        if ops[path] != ops[first]:
            yield (
                f"{path}.transform_ops differ from {first}.transform_ops: features are compared "
                "that were made of differently prepared images. Make them one list: "
                "transform_ops: &eval_transforms … and transform_ops: *eval_transforms"
            )
    if _transforms(train.get("dataset")):
        ops["DataLoader.Train.dataset"] = train["dataset"]["transform_ops"]
    stated = (config["Global"].get("image_shape") or [])[1:]
    for path, entries in ops.items():
        height, width = _size(entries)
        if stated and [height, width] != stated:
            yield (
                f"{path}.transform_ops give images of height {height} and width {width}, "
                f"Global.image_shape says height {stated[0]} and width {stated[1]}"
                + (
                    ": exchanged? ResizeImage.size is [width, height]"
                    if [width, height] == stated
                    else ""
                )
            )
        elif width > height:
            yield (
                f"{path}.transform_ops give images of height {height} and width {width}, but "
                "people stand: exchanged? ResizeImage.size is [width, height]"
            )


def _transforms(part: Any) -> bool:
    return bool(part and part.get("transform_ops"))


def _size(transform_ops: list[Any]) -> tuple[int, int]:
    image = np.zeros((256, 128, 3), np.uint8)
    with seeded_generators(0):
        for function in compat.build_transforms(copy.deepcopy(transform_ops)):
            image = function(image)
    height, width = image.shape[1:] if image.shape[0] == 3 else image.shape[:2]
    return height, width


def odd_features(values: np.ndarray) -> Iterator[str]:
    """Remarks on unit features [M, D]; O(M D)."""
    blocks = (values[start:stop] for start, stop in spans(len(values), _BLOCK_ROWS))
    if len(values) > 1 and all(np.abs(block - values[0]).max() <= _EQUAL for block in blocks):
        yield (
            f"all {len(values)} images have the same feature, so they cannot be told apart. Either "
            "they are copies of one image, or the network has collapsed: lower "
            "Optimizer.lr.learning_rate, or begin with other weights (Global.pretrained_model)"
        )


def odd_lengths(lengths: Mapping[str, int], count: int) -> Iterator[str]:
    """Remarks on the list lengths of the section Clustering for ``count`` images."""
    for key, length in lengths.items():
        if length > count:
            yield (
                f"Clustering.{key} is {length}, but there are only {count} images: every list "
                "holds all of them. Lower it, or check that Global.image_root is the right folder"
            )


def odd_files(paths: Sequence[str]) -> Iterator[str]:
    """Remarks on the files; reads those that have the size of another one."""
    found = copies(paths)
    if found:
        pairs = [f"{shown(path)} = {shown(first)}" for path, first in found.items()]
        yield (
            f"{len(found)} of {len(paths)} images are byte for byte copies of another one, which "
            f"counts them twice: {'; '.join(pairs[:_SHOWN])}{'; …' if len(pairs) > _SHOWN else ''}"
        )
