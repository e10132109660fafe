# SPDX-License-Identifier: Apache-2.0
"""``inference.yml`` edited by hand: an error that names the file, within seconds."""

import shutil

import pytest
import yaml

from ppcls_ise.deploy.extractor import Extractor
from ppcls_ise.errors import ConfigError, ReIDError

OPS = ("RecPreProcess", "transform_ops")
RESIZE = (*OPS, 0, "ResizeImage")
NORMALIZE = (*OPS, 1, "NormalizeImage")
EDITS = [
    ("Global", None),
    ("Global", "image_shape", 3),
    ("Global", "image_shape", [3, "96", 48]),
    ("Global", "image_shape", [3, 10**9, 10**9]),
    ("Global", "image_shape", [3, -96, 48]),
    ("Global", "image_shape", [[3], 96, 48]),
    ("Feature", []),
    ("Feature", "dimension", "many"),
    ("Feature", "dimension", 0),
    ("Feature", "dimension", 127),
    ("Feature", "dimension", float("inf")),
    ("Model", "files", []),
    ("Model", "files", {"../inference.json": "x"}),
    ("Model", "files", {"inference.json": 3}),
    ("Model", "files", {"other": "x"}),
    ("Versions", 3),
    (*OPS, None),
    (*OPS, {}),
    (*OPS, [1]),
    (*OPS, [{"Nothing": None}]),
    (*OPS, [{"ResizeImage": 1}]),
    (*RESIZE, "size", [0, 0]),
    (*RESIZE, "size", [10**9, 10**9]),
    (*RESIZE, "size", [-3, 5]),
    (*RESIZE, "size", "x"),
    (*RESIZE, "size", [1]),
    (*RESIZE, "size", {"a": 1}),
    (*RESIZE, "interpolation", "no"),
    (*RESIZE, "backend", "no"),
    (*RESIZE, "unknown", 1),
    (*NORMALIZE, "mean", [1, 2]),
    (*NORMALIZE, "mean", float("nan")),
    (*NORMALIZE, "std", "1/0"),
    (*NORMALIZE, "std", "1..2/3"),
    (*NORMALIZE, "scale", "__import__('os')"),
    (*NORMALIZE, "order", 5),
    (*NORMALIZE, "order", "abc"),
]


def edited(folder, target, place, value):
    shutil.copytree(folder, target, dirs_exist_ok=True)
    content = yaml.safe_load((folder / "inference.yml").read_text())
    part = content
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    (target / "inference.yml").write_text(yaml.safe_dump(content))


def test_edited_files_are_refused(lite_model, tmp_path):
    taken = []
    for number, (*place, value) in enumerate(EDITS):
        edited(lite_model, tmp_path / str(number), place, value)
        try:
            Extractor(tmp_path / str(number))
            taken.append((place[-1], value))
        except ReIDError:
            pass
    # PaddleClas replaces a backend that it does not know, and every order but chw is hwc.
    assert {name for name, _ in taken} <= {"backend", "order"}


@pytest.mark.parametrize(
    "text",
    [
        b"a: &a [x, x]\n"
        + b"".join(b"%c: &%c [*%c, *%c]\n" % (i + 1, i + 1, i, i) for i in range(97, 121)),
        b"a: &a [*a]\n",
        b"[" * 100_000,
        b"\xff\xfe",
        b"",
        b"a: !!python/object/apply:os.system [ls]\n",
        b"a: 2001-99-99\n",
        b"x" * 2_000_000,
    ],
)
def test_hostile_texts_are_refused(lite_model, tmp_path, text):
    shutil.copytree(lite_model, tmp_path / "m")
    (tmp_path / "m" / "inference.yml").write_bytes(text)
    with pytest.raises(ConfigError, match=r"inference\.yml is not what"):
        Extractor(tmp_path / "m")
