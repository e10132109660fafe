# SPDX-License-Identifier: Apache-2.0
"""``cluster``: From crops to people: who is shown on the images of a folder?

    cluster --model FOLDER --images FOLDER --out people
    cluster --model FOLDER --images FOLDER --out people --corrections corrections.csv --folders link

Writes clusters.csv and the page clusters.html into --out. On the page one can mark clusters and
export corrections; with them the same command writes both anew. Features that were computed are
kept in --out, so an interrupted command goes on where it was.
"""

import argparse
import hashlib
import os
from pathlib import Path

import numpy as np
from filelock import Timeout

from ppcls_ise import compat
from ppcls_ise.cli.cluster_results import PAGE, TABLE, TRAINING, SeenImages, write_results
from ppcls_ise.cli.image_names import (
    add_name_arguments,
    as_options,
    naming_options,
    require_folder,
)
from ppcls_ise.cli.inference_options import add_model_arguments, make_extractor, read_overrides
from ppcls_ise.clustering.corrections import Corrector
from ppcls_ise.clustering.row_set import unit_rows
from ppcls_ise.config.clustering import ClusteringOptions
from ppcls_ise.data.correction_file import read_corrections, write_corrections
from ppcls_ise.data.folder import UnlabeledFolder
from ppcls_ise.deploy.feature_store import FeatureStore
from ppcls_ise.deploy.image_clusters import ImageClusters, cluster_images, differences
from ppcls_ise.deploy.person_folder import WAYS
from ppcls_ise.engine.input_remarks import odd_lengths
from ppcls_ise.errors import ConfigError, DataError, shown
from ppcls_ise.registry import register
from ppcls_ise.utils.files import locked, require_writable
from ppcls_ise.utils.progress import progress_bar
from ppcls_ise.utils.results_folder import ResultsFolder

_SHOWN = 5
_FEATURES, _CLUSTERING, _CORRECTIONS = "features", "clustering.safetensors", "corrections.csv"
_COUNTS = ("k1", "k2", "min_samples")


def configure(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--images", required=True, metavar="FOLDER", help="crops of people")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="for results; new or ours")
    parser.add_argument("--skip-unreadable", action="store_true")
    add_name_arguments(parser, "camera", "tracklet")
    parser.add_argument("--eps", type=float, help="largest Jaccard distance; default: chosen")
    for key in _COUNTS:
        default = getattr(ClusteringOptions, key)
        flag = "--" + key.replace("_", "-")
        parser.add_argument(flag, type=int, default=default, help=f"default: {default}")
    parser.add_argument(
        "--camera-aware", action="store_true", help="look across cameras for neighbors too"
    )
    parser.add_argument(
        "--whiten",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="cluster whitened features; default: where tracklets are known",
    )
    parser.add_argument(
        "--recluster",
        action="store_true",
        help="replace the clusters of other settings or images in --out (features are kept)",
    )
    parser.add_argument("--corrections", metavar="CSV", help="exported from the page: apply them")
    parser.add_argument(
        "--folders", choices=WAYS, help="also a training set in the layout of Market-1501"
    )


def command(args: argparse.Namespace) -> str:
    register()
    read_overrides(args)
    require_folder(args.images, "--images")
    inside = Path(os.path.realpath(args.images))
    if inside in (place := Path(os.path.realpath(args.out)), *place.parents):
        raise ConfigError(
            f"--out: {shown(args.out)} lies in --images, so that what is written there would be "
            "among the images next time: name a folder elsewhere"
        )
    out = ResultsFolder(args.out, own=(_FEATURES, _FEATURES + ".lock", _CLUSTERING))
    require_writable(args.out, "--out")
    with as_options():
        images = UnlabeledFolder(os.path.abspath(args.images), **naming_options(args))
    for name in (TABLE, PAGE, *([TRAINING] if args.folders else [])):
        out.require_own(name)  # before the work
    try:
        with locked(out.folder / _FEATURES):
            return _cluster(args, out, images)
    except Timeout as error:
        raise ConfigError(
            f"another process works in {shown(args.out)}: wait until it ends"
        ) from error


def _cluster(args: argparse.Namespace, out: ResultsFolder, images: UnlabeledFolder) -> str:
    new = read_corrections(args.corrections) if args.corrections else []
    applied = []
    if (out.folder / _CORRECTIONS).is_file():
        applied = read_corrections(out.folder / _CORRECTIONS)
    if new and applied[-len(new) :] == new:
        raise ConfigError(
            f"the corrections of {shown(args.corrections)} have been applied: they are the last "
            f"lines of {shown(out.folder / _CORRECTIONS)}. Leave --corrections out"
        )
    options = _options(args, images)
    extractor = make_extractor(args)
    store = FeatureStore(out.folder / _FEATURES, extractor)
    with progress_bar("features", "image") as progress:
        features, rows, problems = store.features(images.images, progress=progress)
    _report_unreadable(problems, len(images.images), skip=args.skip_unreadable)
    unit_rows(features, out=features)
    seen = SeenImages(images, rows)
    clusters = _clusters(args, out, seen, features, options, extractor.fingerprint, len(applied))
    if clusters.mixed.any():
        compat.logger().warning(
            f"{clusters.mixed.sum()} images are of tracklets that seem to show several people, for "
            f"instance {shown(seen.paths[int(np.argmax(clusters.mixed))])}: they are clustered "
            "one by one"
        )
    corrector = Corrector(
        clusters.labels,
        seen.paths,
        features,
        clusters.graph,
        clusters.eps,
        options.min_samples,
    )
    labels = corrector([*applied, *new])
    if new:
        write_corrections(out.folder / _CORRECTIONS, [*applied, *new])
    count = len(applied) + len(new)
    remark = f"{count} corrections of {shown(out.folder / _CORRECTIONS)} are in" if count else ""
    return write_results(
        out, seen, features, labels, clusters, options, remark=remark, folders=args.folders
    )


def _report_unreadable(problems: list[str], count: int, *, skip: bool) -> None:
    if not problems:
        return
    reasons = "; ".join(problems[:_SHOWN]) + ("; …" if len(problems) > _SHOWN else "")
    if not skip or len(problems) == count:
        raise DataError(
            f"{len(problems)} of {count} images cannot be read: {reasons}. Repair or remove them "
            "(or leave them out: --skip-unreadable); the features of the others are kept"
        )
    compat.logger().warning(f"{len(problems)} of {count} images are left out: {reasons}")


def _options(args: argparse.Namespace, images: UnlabeledFolder) -> ClusteringOptions:
    if args.camera_aware and images.camids is None:
        raise ConfigError("--camera-aware needs cameras: --camera-pattern or --table")
    try:
        options = ClusteringOptions(
            eps=0.5 if args.eps is None else args.eps,
            transform_ops=[],
            camera_aware=args.camera_aware,
            whiten="auto" if args.whiten is None else args.whiten,
            **{key: getattr(args, key) for key in _COUNTS},
        )
    except ConfigError as error:
        raise ConfigError(str(error).replace("Clustering.", "--")) from error
    return options.resolved(tracklets=images.tracklet_ids is not None)


def _clusters(
    args: argparse.Namespace,
    out: ResultsFolder,
    seen: SeenImages,
    features: np.ndarray,
    options: ClusteringOptions,
    model: str,
    corrections: int,
) -> ImageClusters:
    """Those of --out if they are of the same images and settings, else new ones."""
    file = out.folder / _CLUSTERING
    stamps = [os.stat(path) for path in seen.paths]
    groups = {"cameras": seen.camids, "tracklets": seen.tracklets}
    bound_to = {
        "settings": {
            "model": model,
            "eps": args.eps,
            "min_samples": options.min_samples,
            "whiten": options.whiten,
            "camera_aware": options.camera_aware,
            **options.lengths,
            **{key: None if ids is None else _digest(ids) for key, ids in groups.items()},
        },
        "paths": seen.paths,
        "sizes": [stamp.st_size for stamp in stamps],
        "times": [stamp.st_mtime_ns for stamp in stamps],
    }
    if file.is_file():
        kept, before = ImageClusters.read(file)
        if not (changes := differences(before, bound_to)):
            return kept
        words = "; ".join(changes[:_SHOWN])
        if corrections:
            raise ConfigError(
                f"{shown(out.folder)} holds other clusters ({words}) and corrections of them: name "
                f"another --out, or remove {shown(out.folder / _CORRECTIONS)} and --recluster"
            )
        if not args.recluster:
            raise ConfigError(
                f"{shown(out.folder)} holds other clusters ({words}): name another --out, or "
                "replace them (--recluster; the features are kept)"
            )
    for remark in odd_lengths(options.lengths, len(seen.paths)):
        compat.logger().warning(f"{remark}.")
    clusters = cluster_images(
        features, options, eps=args.eps, camera_ids=seen.camids, tracklet_ids=seen.tracklets
    )
    clusters.write(file, bound_to)
    return clusters


def _digest(ids: np.ndarray) -> str:
    return hashlib.sha256(ids.astype(np.int64).tobytes()).hexdigest()[:16]
