# SPDX-License-Identifier: Apache-2.0
"""From a crop to the array that the network takes, by the operators of an evaluation."""

import copy
import inspect
import random
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from ppcls_ise import compat
from ppcls_ise.compat import Config
from ppcls_ise.data.transforms import seeded_generators
from ppcls_ise.errors import ConfigError
from ppcls_ise.utils.files import reading

_CHANNELS_FIRST = "ToCHWImage"
_WORD = re.compile(r"[A-Za-z_]*")
_FRACTION = re.compile(r"\s*([\d.]+)\s*/\s*([\d.]+)\s*")
_SHOWN = 100  # characters
_LARGEST = 8192  # an image has no more pixels than its square (`data.images`)
_PROBES = ((256, 128), (97, 211))


class Preprocessing:
    """uint8 [H, W, 3] RGB of any size -> float32 [3, H, W] of one size.

    Args:
        transform_ops: PaddleClas's list of operators, with or without ``ToCHWImage`` at its end.

    Attributes:
        transform_ops: the list as plain data, with ``ToCHWImage`` at its end.
        image_shape: (3, H, W) of the result.

    Raises:
        ConfigError: an unknown operator, one that draws at random, or results of several sizes.
    """

    def __init__(self, transform_ops: Iterable[Any]) -> None:
        if not isinstance(transform_ops, list) or not transform_ops:
            raise ConfigError(f"transform_ops has to be a list of operators, got {transform_ops!r}")
        # PaddleClas's operators do not check what they are given, and raise all kinds of errors.
        with reading("transform_ops", ConfigError, "cannot be built"):
            self.transform_ops = [_plain(op) for op in transform_ops]
            if _CHANNELS_FIRST not in self.transform_ops[-1]:
                self.transform_ops.append({_CHANNELS_FIRST: None})
            self._ops = compat.build_transforms(copy.deepcopy(self.transform_ops))
        with reading("transform_ops", ConfigError, "cannot be applied"):
            self.image_shape = self._check()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        for op in self._ops:
            pixels = op(pixels)
        return np.ascontiguousarray(pixels, dtype=np.float32)

    def _check(self) -> tuple[int, ...]:
        shapes = set()
        for height, width in _PROBES:
            with seeded_generators(0):
                before = _generator_states()
                result = self(np.full((height, width, 3), 99, np.uint8))
                after = _generator_states()
            if before != after:
                raise ConfigError("transform_ops of an evaluation must not draw at random")
            if not np.isfinite(result).all():
                raise ConfigError(
                    "transform_ops give values that are not finite: look at NormalizeImage's "
                    "scale, mean and std"
                )
            shapes.add(result.shape)
        if len(shapes) != 1 or len(result.shape) != 3 or result.shape[0] != 3:
            raise ConfigError(
                f"transform_ops have to give [3, H, W] of one size, got {sorted(shapes)}: resize "
                "with ResizeImage.size [width, height]"
            )
        if np.array_equal(result, self(np.full((*_PROBES[-1], 3), 7, np.uint8))):
            raise ConfigError("transform_ops give the same values for every image")
        return result.shape


def _generator_states() -> tuple[Any, ...]:
    state: Any = np.random.get_state()
    return random.getstate(), state[1].tobytes(), state[2]


def evaluation_transforms(config: Config) -> Any:
    """The operators that an evaluation of ``config`` uses: those of the query images, or those of
    the clustering where the config evaluates nothing.

    Raises:
        ConfigError: there are neither.
    """
    evaluation = (config.get("DataLoader") or {}).get("Eval") or {}
    query = (evaluation.get("Query") or {}).get("dataset") or {}
    clustering = config.get("Clustering") or {}
    for section in (query, clustering):
        if section.get("transform_ops"):
            return section["transform_ops"]
    raise ConfigError(
        "the config does not say how images are prepared: it needs "
        "DataLoader.Eval.Query.dataset.transform_ops or Clustering.transform_ops"
    )


def _plain(op: Any) -> dict[str, Any]:
    """An operator as data of which nothing can be executed.

    PaddleClas evaluates some texts as Python, so texts are single words here; ``1.0/255.0``, which
    its configs use, becomes the number.
    """
    if not isinstance(op, dict) or len(op) != 1:
        raise ConfigError(f"an entry of transform_ops is one name with its options, got {op!r}")
    ((name, options),) = op.items()
    if not isinstance(name, str) or not inspect.isclass(compat.lookup("transform", name)):
        raise ConfigError(f"transform_ops: there is no operator {name!r}")
    if not options:
        return {name: None}
    if not isinstance(options, dict):
        raise ConfigError(f"transform_ops: the options of {name} are {options!r}")
    return {name: {str(key): _value(value, name) for key, value in options.items()}}


def _value(value: Any, name: str) -> Any:
    if isinstance(value, list | tuple):
        return [_value(item, name) for item in value]
    if isinstance(value, int | float) and not abs(value) <= _LARGEST:
        raise ConfigError(f"transform_ops: {name} has the option value {str(value)[:_SHOWN]}")
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str) and _WORD.fullmatch(value):
        return value
    if isinstance(value, str) and (match := _FRACTION.fullmatch(value)):
        return float(match[1]) / float(match[2])
    raise ConfigError(f"transform_ops: {name} has the option value {repr(value)[:_SHOWN]}")
