# SPDX-License-Identifier: Apache-2.0
"""What PaddleClas gets where it asks Paddle to unpickle a file, or downloads one unchecked."""

from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ppcls_ise import compat
from ppcls_ise.errors import WeightsError, shown
from ppcls_ise.weights.loading import NAME_TABLE, read_state
from ppcls_ise.weights.pickled_arrays import (
    DamagedPickle,
    ElementType,
    NamedFunction,
    RefusedPickle,
)
from ppcls_ise.weights.released import downloaded_file
from ppcls_ise.weights.safe_pickle import read_pickle


def plain_load(path: str, **_options: Any) -> Any:
    """``paddle.load`` for files of arrays and plain values, without executing anything in them.

    Returns:
        What was saved, with numpy arrays in place of tensors.

    Raises:
        WeightsError: the file is damaged, or asks for code.
    """
    try:
        return _arrays(read_pickle(Path(path)))
    except (RefusedPickle, DamagedPickle, RecursionError) as error:
        raise WeightsError(f"{shown(path)} is not loaded, it is no plain data: {error}") from error


def _arrays(value: Any) -> Any:
    if type(value) is dict:
        return {name: _arrays(item) for name, item in value.items() if name != NAME_TABLE}
    if type(value) is list:
        return [_arrays(item) for item in value]
    # How Paddle pickles a tensor that is not directly in a table: (name, array).
    if type(value) is tuple and len(value) == 2 and isinstance(value[1], np.ndarray):
        return value[1]
    if type(value) is tuple:
        return tuple(_arrays(item) for item in value)
    if isinstance(value, NamedFunction | ElementType):
        raise RefusedPickle("it holds a function or type in place of a value")
    return value


def checked_download(url: str, md5sum: str | None = None) -> str:
    """PaddleClas's ``get_weights_path_from_url`` with `released.downloaded_file`: into the
    same folder, but with a checksum that the file has to match from then on."""
    folder = Path(compat.weights_home())
    key = "Arch.Backbone.pretrained"
    return str(downloaded_file(url, folder=folder, check=read_state, key=key))


class PaddleWithoutUnpickling:
    """The module ``paddle``, but for `plain_load`."""

    load = staticmethod(plain_load)

    def __getattr__(self, name: str) -> Any:
        return getattr(paddle, name)
