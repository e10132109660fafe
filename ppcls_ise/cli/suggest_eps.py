# SPDX-License-Identifier: Apache-2.0
"""``suggest-eps``: Which Clustering.eps to take.

Clusters, outliers and stability over a range of eps, from one graph and without labels. The images
are the training images of the configuration, or --features names a file of features.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ppcls_ise.clustering import jaccard_graph
from ppcls_ise.clustering.eps_range import EpsRange, eps_range, graph_bound
from ppcls_ise.clustering.row_set import unit_rows
from ppcls_ise.clustering.tracklets import mixed_tracklets, tracklet_array
from ppcls_ise.clustering.whitening import whitened_by_tracklet
from ppcls_ise.compat import Config
from ppcls_ise.config import get_config
from ppcls_ise.config.clustering import ClusteringOptions
from ppcls_ise.engine import UnsupervisedEngine
from ppcls_ise.engine.gpu_search import backend_of, or_blocked
from ppcls_ise.errors import ConfigError, DataError
from ppcls_ise.registry import register
from ppcls_ise.utils.array_files import read_numpy
from ppcls_ise.utils.files import replacing, require_replaceable
from ppcls_ise.utils.progress import progress_bar
from ppcls_ise.visualization.pictures import eps_curves

_LEAST_STEP = 0.001
_HEADER = f"{'eps':>6}{'clusters':>10}{'outliers':>11}{'largest':>9}{'median':>8}{'stability':>11}"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", help="YAML file, see configs/")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--features", help=".npz with features [N, D], or .npy")
    parser.add_argument(
        "--eps",
        nargs=3,
        type=float,
        default=(0.2, 0.8, 0.05),
        metavar=("LOWEST", "HIGHEST", "STEP"),
        help="default: 0.2 0.8 0.05",
    )
    parser.add_argument("--plot", help="PNG file to write")
    parser.add_argument("--json", help="file to write the numbers to")


def command(args: argparse.Namespace) -> str:
    register()
    config = get_config(args.config, args.override) if args.config else None
    return suggest_eps(config, args.features, steps(*args.eps), plot=args.plot, json_file=args.json)


def steps(lowest: float, highest: float, step: float) -> list[float]:
    """lowest, lowest + step, ... up to highest.

    Raises:
        ConfigError: they are not 0 <= lowest <= highest < 1 with a step of 0.001 or more.
    """
    if not (0 <= lowest <= highest < 1 and step >= _LEAST_STEP):
        raise ConfigError(
            f"--eps {lowest:g} {highest:g} {step:g}: LOWEST and HIGHEST are Jaccard distances, "
            f"0 <= LOWEST <= HIGHEST < 1, and STEP is at least {_LEAST_STEP:g}"
        )
    count = int((highest - lowest) / step + 1e-6) + 1
    return [round(lowest + i * step, 6) for i in range(count)]


def suggest_eps(
    config: Config | None,
    features_file: str | None,
    eps_values: Sequence[float],
    *,
    plot: str | None = None,
    json_file: str | None = None,
) -> str:
    """Cluster the training images of a configuration, or features in a file, at every eps.

    Everything is done as at the start of an epoch, but the graph is made once, for the largest
    eps. No label is read.

    Args:
        config: from `ppcls_ise.config.get_config`; its ``Clustering`` section counts, and without
            ``features_file`` its training images and weights too. None: the defaults of
            `ppcls_ise.config.ClusteringOptions`.
        features_file: .npz with ``features`` [N, D] (and ``camids`` [N] for the camera-aware
            distance, ``tracklet_ids`` [N], -1 = in none and frames in the order of time, for the
            tracklet-aware one), or .npy with the matrix alone; rows are brought to unit length.
        eps_values: in [0, 1), at least one.
        plot: PNG file to write.
        json_file: file to write the numbers to.

    Returns:
        The table and the recommendation, to print.

    Raises:
        ConfigError: neither configuration nor features.
        DataError: the features file cannot be used.
        WeightsError: the configuration names no weights.
    """
    for option, path in (("--plot", plot), ("--json", json_file)):
        if path is not None:
            require_replaceable(path, option)
    if features_file is not None:
        features, clustering, options = _from_file(features_file, config)
    elif config is not None:
        features, clustering, options = _from_config(config)
    else:
        raise ConfigError("name a configuration (-c) or a file of features (--features)")
    tracklets = free = None
    if clustering.tracklet_aware:
        try:
            tracklets = tracklet_array(
                options["tracklet_ids"], len(features), options.get("camera_ids")
            )
        except ValueError as error:
            raise DataError(f"{features_file or 'the training images'}: {error}") from error
        free = mixed_tracklets(features, tracklets)
    compared = whitened_by_tracklet(features, tracklets) if clustering.whiten else features
    with progress_bar("distances", "block") as progress:
        graph = or_blocked(
            lambda backend: jaccard_graph(
                compared,
                backend=backend,
                max_distance=graph_bound(max(eps_values)),
                progress=lambda stage, done, total: progress(done, total),
                **options,
            ),
            backend_of(clustering.backend),
        )
    result = eps_range(
        graph,
        eps_values,
        clustering.min_samples,
        tracklets=tracklets,
        free=free,
        must_link=clustering.must_link,
    )
    if plot is not None:
        eps_curves(plot, result)
    if json_file is not None:
        _write_json(json_file, result, len(features))
    images = f"{len(features)} images"
    if tracklets is not None:
        images += f", {len(np.unique(tracklets))} tracklets"
    return _report(result, images, clustering.eps_key)


def _from_config(config: Config) -> tuple[np.ndarray, ClusteringOptions, dict[str, Any]]:
    config["Global"]["eval_during_train"] = False
    engine = UnsupervisedEngine(config, mode="train")
    engine.require_weights()
    features, options = engine.clustering.graph_inputs(engine)
    return features, engine.clustering.options_for(engine.train_dataset), options


def _from_file(
    path: str, config: Config | None
) -> tuple[np.ndarray, ClusteringOptions, dict[str, Any]]:
    features, camids, tracklet_ids = _read(path)
    section = {"eps": 0.5, "transform_ops": []} | (config["Clustering"] if config else {})
    clustering = ClusteringOptions(**section)
    for key, array, known in (
        ("camera_aware", "camids", camids),
        ("tracklet_aware", "tracklet_ids", tracklet_ids),
    ):
        if getattr(clustering, key) is True and known is None:
            raise DataError(
                f"Clustering.{key} needs {key.split('_')[0]} numbers, and {path} has no array "
                f"{array} [N]: add it, or set Clustering.{key}=False"
            )
    clustering = clustering.resolved(tracklets=tracklet_ids is not None)
    return features, clustering, clustering.graph_options(camids, tracklet_ids)


def _read(path: str) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Unit rows [N, D] float32, and cameras and tracklets [N] or None."""
    arrays = read_numpy(path, error=DataError, what="is no .npz or .npy file of numbers")
    if "" in arrays:
        arrays = {"features": arrays[""]}
    if "features" not in arrays:
        raise DataError(f"{path} has no array features, only {', '.join(arrays) or 'nothing'}")
    features = arrays["features"]
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: features have to be numbers [N, D], got {features.dtype} {features.shape}"
        )
    camids, tracklet_ids = (arrays.get(name) for name in ("camids", "tracklet_ids"))
    for name, numbers in (("camids", camids), ("tracklet_ids", tracklet_ids)):
        if numbers is not None and (
            numbers.shape != features.shape[:1] or numbers.dtype.kind not in "iu"
        ):
            raise DataError(
                f"{path}: {name} have to be {len(features)} whole numbers, got {numbers.dtype} "
                f"{numbers.shape}"
            )
    if tracklet_ids is not None and not (tracklet_ids >= 0).any():
        tracklet_ids = None
    features = features.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise DataError(f"{path}: row {bad[0]} of features is not finite ({len(bad)} such rows)")
    return unit_rows(features), camids, tracklet_ids


def _write_json(path: str | Path, result: EpsRange, count: int) -> None:
    content = {"images": count, **asdict(result)}
    for point in content["points"]:
        if math.isnan(point["stability"]):
            point["stability"] = None
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _report(result: EpsRange, images: str, key: str) -> str:
    lines = [images, _HEADER]
    for point in result.points:
        stability = "-" if math.isnan(point.stability) else f"{point.stability:.3f}"
        lines.append(
            f"{point.eps:6.3g}{point.num_clusters:10d}{100 * point.outlier_share:9.1f} %"
            f"{point.largest:9d}{point.median_size:8g}{stability:>11}"
        )
    if result.recommended is None:
        lines.append(f"No recommendation: {result.reason}.")
    else:
        lines.append(f"Recommended: {key}={result.recommended:g}: {result.reason}.")
    return "\n".join(lines)
