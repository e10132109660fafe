# SPDX-License-Identifier: Apache-2.0
"""``cluster``: From crops to people: who is shown on the images of a folder?

    cluster --model FOLDER --images FOLDER --out people
    cluster --model FOLDER --images FOLDER --out people --corrections corrections.csv --folders link

Writes clusters.csv and the page clusters.html into --out. On the page one can mark clusters and
export corrections; with them the same command writes both anew. Features that were computed are
kept in --out, so an interrupted command goes on where it was.
"""

import argparse
import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout

from ppcls_ise import compat
from ppcls_ise.cli.image_names import add_name_arguments
from ppcls_ise.cli.inference_options import add_model_arguments, make_extractor, read_overrides
from ppcls_ise.clustering.corrections import Correction, apply_corrections
from ppcls_ise.clustering.dbscan import OUTLIER
from ppcls_ise.clustering.record import ClusteringRecord
from ppcls_ise.config.clustering import ClusteringOptions
from ppcls_ise.data.csv_table import read_table
from ppcls_ise.data.folder import UnlabeledFolder
from ppcls_ise.deploy.feature_files import cell
from ppcls_ise.deploy.feature_store import FeatureStore
from ppcls_ise.deploy.image_clusters import ImageClusters, cluster_images, differences
from ppcls_ise.deploy.person_folder import WAYS, make_folder, person_files
from ppcls_ise.engine.input_remarks import odd_lengths
from ppcls_ise.errors import ConfigError, DataError, shown
from ppcls_ise.registry import register
from ppcls_ise.utils.files import locked, require_writable
from ppcls_ise.utils.progress import progress_bar
from ppcls_ise.utils.results_folder import ResultsFolder

_SHOWN = 5
_FEATURES, _CLUSTERING, _CORRECTIONS = "features", "clustering.safetensors", "corrections.csv"
_TABLE, _PAGE, _TRAINING = "clusters.csv", "clusters.html", "bounding_box_train"
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
    require_writable(args.out, "--out")
    out = ResultsFolder(args.out, own=(_FEATURES, _CLUSTERING))
    new = read_corrections(args.corrections) if args.corrections else []
    names = {key: value for key in ("camera_pattern", "tracklet_pattern")
             if (value := getattr(args, key))}
    images = UnlabeledFolder(args.images, table=args.table, **names)
    try:
        with locked(Path(args.out) / _FEATURES):
            return _cluster(args, out, images, new)
    except Timeout as error:
        raise ConfigError(f"another process works in {shown(args.out)}: wait until it ends") from error


def _cluster(
    args: argparse.Namespace, out: ResultsFolder, images: UnlabeledFolder, new: list[Correction]
) -> str:
    for name in (_TABLE, _PAGE, *([_TRAINING] if args.folders else [])):
        out.require_own(name)  # before the work
    extractor = make_extractor(args)
    with progress_bar("features", "image") as progress:
        store = FeatureStore(out.folder / _FEATURES, extractor)
        features, rows, problems = store.features(images.images, progress=progress)
    _report_unreadable(problems, len(images.images), skip=args.skip_unreadable)
    options = _options(args, images)
    camids, tracklets = (
        None if ids is None else ids[rows] for ids in (images.camids, images.tracklet_ids)
    )
    paths = [images.images[row] for row in rows]
    stamps = [os.stat(path) for path in paths]
    bound_to = {
        "settings": _settings(args, options, extractor.fingerprint),
        "paths": paths,
        "sizes": [stamp.st_size for stamp in stamps],
        "times": [stamp.st_mtime_ns for stamp in stamps],
    }
    clusters = _kept_clusters(args, out, bound_to)
    if clusters is None:
        for remark in odd_lengths(options.lengths, len(paths)):
            compat.logger().warning(f"{remark}.")
        clusters = cluster_images(
            features, options, eps=args.eps, camera_ids=camids, tracklet_ids=tracklets
        )
        clusters.write(out.folder / _CLUSTERING, bound_to)
    _report_mixed(clusters, images, rows)
    applied = _corrections_of(out.folder / _CORRECTIONS)
    if new and applied[-len(new) :] == new:
        raise ConfigError(
            f"the corrections of {shown(args.corrections)} have been applied: they are the last "
            f"lines of {shown(out.folder / _CORRECTIONS)}. Leave --corrections out"
        )
    labels = apply_corrections(
        clusters.labels,
        [*applied, *new],
        features=features,
        graph=clusters.graph,
        eps=clusters.eps,
        min_samples=options.min_samples,
    )
    ...
