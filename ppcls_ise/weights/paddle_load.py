# SPDX-License-Identifier: Apache-2.0
"""What PaddleClas gets where it asks Paddle to unpickle a file, or downloads one unchecked."""

from pathlib import Path
from typing import Any

import paddle

from ppcls_ise import compat
from ppcls_ise.weights.loading import NAME_TABLE, read_state
from ppcls_ise.weights.released import downloaded_file
from ppcls_ise.weights.safe_pickle import is_tensor, read_pickle


def plain_load(path: str, **_options: Any) -> Any:
    """``paddle.load`` for files of arrays and plain values, without executing anything in them.

    Returns:
        What was saved, with numpy arrays in place of tensors.

    Raises:
        WeightsError: the file is damaged, or asks for code.
    """
    return _arrays(read_pickle(Path(path)))


def _arrays(value: Any) -> Any:
    if is_tensor(value):
        return value[1]
    if type(value) is dict:
        return {name: _arrays(item) for name, item in value.items() if name != NAME_TABLE}
    return type(value)(map(_arrays, value)) if type(value) in (list, tuple) else value


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
