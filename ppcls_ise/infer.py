# SPDX-License-Identifier: Apache-2.0
"""Features of a folder or list of images, as a file."""

import argparse
import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ppcls_ise import plugin
from ppcls_ise.data.image_list import list_images
from ppcls_ise.errors import ConfigError, DataError
from ppcls_ise.extractor import Extractor
from ppcls_ise.files import replacing
from ppcls_ise.inference_options import make_extractor, read_overrides
from ppcls_ise.progress import progress_bar

_SUFFIXES = (".npz", ".csv")


def infer(args: argparse.Namespace) -> str:
    """Run ``tools/infer.py``.

    Returns:
        What was done, for the terminal.

    Raises:
        ConfigError, DataError, WeightsError: the message says what to change.
    """
    read_overrides(args)
    if Path(args.out).suffix not in _SUFFIXES:
        raise ConfigError(f"--out has to end in {' or '.join(_SUFFIXES)}, got {args.out}")
    if not args.images:
        raise ConfigError("name the images: --images PATH (PaddleClas: -o Global.infer_imgs=PATH)")
    extractor = make_extractor(args)
    paths = list_images(args.images)
    started = time.perf_counter()
    features, paths = extract_files(extractor, paths, skip_unreadable=args.skip_unreadable)
    seconds = time.perf_counter() - started
    save_features(args.out, features, paths, model=extractor.fingerprint)
    report = f"features of {len(paths)} images [{len(paths)}, {features.shape[1]}]: {args.out}"
    if args.benchmark:
        report += (
            f"\n{seconds:.2f} s, {len(paths) / seconds:.1f} images/s with reading and preparing "
            f"(batches of {extractor.batch_size})"
        )
    return report


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
        plugin.logger().warning(f"left out: {error}")
    if not len(extraction.kept):
        raise DataError(f"none of {len(paths)} images can be read, first of all: {error}")
    if extraction.errors:
        plugin.logger().warning(f"{len(extraction.errors)} of {len(paths)} images were left out")
    return extraction.features, [paths[i] for i in extraction.kept]


def save_features(
    path: str | Path, features: np.ndarray, paths: Sequence[str], *, model: str
) -> None:
    """Write ``features`` [N, D] float32 and ``paths`` [N], atomically.

    ``.npz``: arrays ``features``, ``paths`` and ``model`` (the fingerprint). ``.csv``: a header
    ``path,0,1,…``, then a line per image; 9 digits, which give the same float32 again.

    Raises:
        OSError: it cannot be written there.
    """
    with replacing(path) as scratch:
        if Path(path).suffix == ".npz":
            with scratch.open("wb") as file:
                np.savez(file, features=features, paths=np.array(paths), model=np.array(model))
            return
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["path", *range(features.shape[1])])
        for name, row in zip(paths, features, strict=True):
            writer.writerow([name, *(f"{value:.9g}" for value in row)])
        scratch.write_text(text.getvalue(), encoding="utf-8", errors="surrogateescape", newline="")


def load_features(path: str | Path) -> tuple[np.ndarray, list[str], str]:
    """Features [N, D], paths and fingerprint of a ``.npz`` that `save_features` wrote.

    Raises:
        DataError: it is something else.
        OSError: there is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            features, paths = content["features"], content["paths"]
            model = str(content["model"])
    except FileNotFoundError:
        raise
    except Exception as error:  # numpy and zipfile raise a dozen kinds for foreign files
        raise DataError(f"{path} is no .npz of tools/infer.py: {error}") from error
    if features.ndim != 2 or features.dtype != np.float32 or paths.shape != (len(features),):
        raise DataError(f"{path} is no .npz of tools/infer.py: its arrays do not fit together")
    return features, [str(name) for name in paths], model
