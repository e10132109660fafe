# SPDX-License-Identifier: Apache-2.0
"""``infer``: Features of images, as a file.

The model is a folder of `export`, or a checkpoint (-c CONFIG
-o Global.pretrained_model=WEIGHTS). PaddleClas's names for the flags work too:
-o Global.rec_inference_model_dir=FOLDER -o Global.infer_imgs=FOLDER -o Global.use_gpu=False ...
"""

import argparse
import time
from pathlib import Path

from ppcls_ise.cli.inference_options import add_arguments, make_extractor, read_overrides
from ppcls_ise.data.image_list import list_images
from ppcls_ise.deploy.feature_files import extract_files, save_features
from ppcls_ise.errors import ConfigError, shown
from ppcls_ise.registry import register
from ppcls_ise.utils.files import require_replaceable

_SUFFIXES = (".npz", ".csv")


def configure(parser: argparse.ArgumentParser) -> None:
    add_arguments(parser)
    parser.add_argument("--out", default="features.npz", help=".npz or .csv (default: %(default)s)")
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out images that cannot be read"
    )
    parser.add_argument("--benchmark", action="store_true", help="print images per second")


def command(args: argparse.Namespace) -> str:
    register()
    read_overrides(args)
    if Path(args.out).suffix not in _SUFFIXES:
        raise ConfigError(f"--out has to end in {' or '.join(_SUFFIXES)}, got {shown(args.out)}")
    if not args.images:
        raise ConfigError("name the images: --images PATH (PaddleClas: -o Global.infer_imgs=PATH)")
    require_replaceable(args.out, "--out")
    extractor = make_extractor(args)
    paths = list_images(args.images)
    started = time.perf_counter()
    features, paths = extract_files(extractor, paths, skip_unreadable=args.skip_unreadable)
    seconds = time.perf_counter() - started
    save_features(
        args.out,
        features,
        paths,
        model=extractor.fingerprint,
        arithmetic=extractor.arithmetic,
    )
    report = (
        f"features of {len(paths)} images [{len(paths)}, {features.shape[1]}]: {shown(args.out)}"
    )
    if args.benchmark:
        report += (
            f"\n{seconds:.2f} s, {len(paths) / seconds:.1f} images/s with reading and preparing "
            f"(batches of {extractor.batch_size})"
        )
    return report
