# SPDX-License-Identifier: Apache-2.0
"""Features of image files, and the file that holds them."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppcls_ise import compat
from ppcls_ise.deploy.extractor import Extractor
from ppcls_ise.errors import DataError
from ppcls_ise.utils.array_files import read_numpy
from ppcls_ise.utils.files import reading, replacing
from ppcls_ise.utils.progress import progress_bar
from ppcls_ise.utils.tables import cell


def extract_files(
    extractor: Extractor, paths: Sequence[str], *, skip_unreadable: bool = False
) -> tuple[np.ndarray, list[str]]:
    """Features [M, D] and paths of the files that can be read, with a progress bar.

    Args:
        extractor: the model.
        paths: N files.
        skip_unreadable: log the files that cannot be read and go on with the M others.

    Raises:
        DataError: a file cannot be read, or none can.
    """
    with progress_bar("features", "image") as progress:
        if not skip_unreadable:
            return extractor(paths, progress=progress), list(paths)
        extraction = extractor.extract(paths, progress=progress)
    for error in extraction.errors:
        compat.logger().warning(f"left out: {error}")
    if not len(extraction.kept):
        raise DataError(f"none of {len(paths)} images can be read, first of all: {error}")
    if extraction.errors:
        compat.logger().warning(f"{len(extraction.errors)} of {len(paths)} images were left out")
    return extraction.features, [paths[i] for i in extraction.kept]


def save_features(
    path: str | Path,
    features: np.ndarray,
    paths: Sequence[str],
    *,
    model: str,
    arithmetic: str = "float32",
    camids: np.ndarray | None = None,
    tracklet_ids: np.ndarray | None = None,
) -> None:
    """Write ``features`` [N, D] float32 and ``paths`` [N], atomically.

    ``.npz``: arrays ``features``, ``paths``, ``model`` (the fingerprint) and ``arithmetic`` (what
    the device computed in, see `engine.tf32.state`: TF32 moves features by 1e-3), and ``camids``
    and ``tracklet_ids`` [N] int64 (-1 = in none) where they are known. ``.csv``: a header
    ``path,0,1,…``, then a line per image; 9 digits, which give the same float32 again.

    Raises:
        OSError: it cannot be written there.
    """
    with replacing(path) as scratch:
        if Path(path).suffix == ".npz":
            groups = {"camids": camids, "tracklet_ids": tracklet_ids}
            known: Any = {name: array for name, array in groups.items() if array is not None}
            with scratch.open("wb") as file:
                np.savez(
                    file,
                    features=features,
                    paths=np.array(paths),
                    model=np.array(model),
                    arithmetic=np.array(arithmetic),
                    **known,
                )
            return
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["path", *range(features.shape[1])])
        for name, row in zip(paths, features, strict=True):
            writer.writerow([cell(name), *(f"{value:.9g}" for value in row)])
        scratch.write_text(text.getvalue(), encoding="utf-8", errors="surrogateescape", newline="")


class FeatureFile(NamedTuple):
    """Features [N, D], paths and fingerprint of the model; cameras and tracklets [N] or None."""

    features: np.ndarray
    paths: list[str]
    model: str
    camids: np.ndarray | None
    tracklet_ids: np.ndarray | None


def load_features(path: str | Path) -> FeatureFile:
    """What `save_features` wrote as ``.npz``.

    Raises:
        DataError: it is something else.
        OSError: there is no such file.
    """
    what = "is no .npz of ppcls-ise infer"
    arrays = read_numpy(path, error=DataError, what=what)
    with reading(path, DataError, what):
        features, paths, model = (arrays[name] for name in ("features", "paths", "model"))
        if features.ndim != 2 or features.dtype != np.float32 or paths.shape != (len(features),):
            raise ValueError("its arrays do not fit together")
        if {paths.dtype.kind, model.dtype.kind} != {"U"} or model.ndim:
            raise ValueError("its names are no texts")
        groups = [arrays.get(name) for name in ("camids", "tracklet_ids")]
        for array in groups:
            if array is not None and (array.shape != paths.shape or array.dtype.kind not in "iu"):
                raise ValueError("its cameras or tracklets are not one number per image")
    return FeatureFile(features, [str(name) for name in paths], str(model), *groups)
