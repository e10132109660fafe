# SPDX-License-Identifier: Apache-2.0
"""``infer``: Features of images, as a file.

The model is a folder of `export`, or a checkpoint (-c CONFIG
-o Global.pretrained_model=WEIGHTS). PaddleClas's names for the flags work too:
-o Global.rec_inference_model_dir=FOLDER -o Global.infer_imgs=FOLDER -o Global.use_gpu=False ...
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ppcls_ise.cli.image_names import ImageNames, add_name_arguments, names_of
from ppcls_ise.cli.inference_options import add_arguments, make_extractor, read_overrides
from ppcls_ise.data import naming
from ppcls_ise.data.image_list import list_images
from ppcls_ise.deploy.feature_files import extract_files, save_features
from ppcls_ise.errors import ConfigError, shown
from ppcls_ise.registry import register
from ppcls_ise.retrieval.gallery_images import tracklet_numbers
from ppcls_ise.utils.files import require_replaceable

_WORDS = {"camids": "cameras", "tracklet_ids": "tracklets"}
_SUFFIXES = (".npz", ".csv")


def configure(parser: argparse.ArgumentParser) -> None:
    add_arguments(parser)
    parser.add_argument("--out", default="features.npz", help=".npz or .csv (default: %(default)s)")
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out images that cannot be read"
    )
    add_name_arguments(parser, "camera", "tracklet")
    parser.add_argument("--benchmark", action="store_true", help="print images per second")


def command(args: argparse.Namespace) -> str:
    register()
    read_overrides(args)
    if Path(args.out).suffix not in _SUFFIXES:
        raise ConfigError(f"--out has to end in {' or '.join(_SUFFIXES)}, got {shown(args.out)}")
    is_table = Path(args.out).suffix == ".csv"
    if is_table and (args.camera_pattern or args.tracklet_pattern or args.table):
        raise ConfigError("--out has to end in .npz: a .csv holds no cameras and tracklets")
    if not args.images:
        raise ConfigError("name the images: --images PATH (PaddleClas: -o Global.infer_imgs=PATH)")
    require_replaceable(args.out, "--out")
    extractor = make_extractor(args)
    paths = list_images(args.images)
    names = dict(zip(paths, names_of(args, paths), strict=True))
    started = time.perf_counter()
    features, paths = extract_files(extractor, paths, skip_unreadable=args.skip_unreadable)
    seconds = time.perf_counter() - started
    groups = {} if is_table else _numbers([names[path] for path in paths])
    save_features(
        args.out,
        features,
        paths,
        model=extractor.fingerprint,
        arithmetic=extractor.arithmetic,
        **groups,
    )
    report = (
        f"features of {len(paths)} images [{len(paths)}, {features.shape[1]}]: {shown(args.out)}"
    )
    if groups:
        found = [f"{array.max() + 1} {_WORDS[name]}" for name, array in groups.items()]
        report += f", in {' and '.join(found)}"
    if args.benchmark:
        report += (
            f"\n{seconds:.2f} s, {len(paths) / seconds:.1f} images/s with reading and preparing "
            f"(batches of {extractor.batch_size})"
        )
    return report


def _numbers(names: Sequence[ImageNames]) -> dict[str, np.ndarray]:
    """Cameras, where every image has one, and tracklets, where any image is in one, as numbers."""
    groups = {}
    if all(name.camera for name in names):
        groups["camids"] = np.array(naming.numbered([name.camera for name in names])[0], np.int64)
    tracklets = tracklet_numbers([name.tracklet for name in names])
    if tracklets is not None:
        groups["tracklet_ids"] = tracklets
    return groups
