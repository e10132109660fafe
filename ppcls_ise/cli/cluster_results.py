# SPDX-License-Identifier: Apache-2.0
"""What ``cluster`` leaves: the table, the page, the training set."""

import re
from pathlib import Path

import numpy as np

from ppcls_ise.clustering.dbscan import OUTLIER
from ppcls_ise.clustering.record import TABLE_HEADER, ClusteringRecord
from ppcls_ise.config.clustering import ClusteringOptions
from ppcls_ise.data.folder import UnlabeledFolder
from ppcls_ise.deploy.image_clusters import ImageClusters
from ppcls_ise.deploy.person_folder import make_folder, person_files
from ppcls_ise.errors import shown
from ppcls_ise.utils.results_folder import ResultsFolder
from ppcls_ise.utils.tables import cell, write_csv
from ppcls_ise.visualization.cluster_page import write_cluster_page

TABLE, PAGE, TRAINING = "clusters.csv", "clusters.html", "bounding_box_train"


class SeenImages:
    """The images that can be read, and what is known of them."""

    def __init__(self, images: UnlabeledFolder, rows: np.ndarray) -> None:
        self.folder = images.image_root
        self.paths = [images.images[row] for row in rows]
        self.camids = None if images.camids is None else images.camids[rows]
        self.tracklets = None if images.tracklet_ids is None else images.tracklet_ids[rows]
        self._camera_name = images.camera_name
        self._tracklet_names = images.tracklet_names

    def camera(self, row: int) -> str:
        return "" if self.camids is None else self._camera_name(int(self.camids[row]))

    def tracklet(self, row: int) -> str:
        if self.tracklets is None or self.tracklets[row] < 0 or self._tracklet_names is None:
            return ""
        return self._tracklet_names[int(self.tracklets[row])]


def write_results(
    out: ResultsFolder,
    seen: SeenImages,
    features: np.ndarray,
    labels: np.ndarray,
    clusters: ImageClusters,
    options: ClusteringOptions,
    *,
    remark: str,
    folders: str | None,
) -> str:
    """Write table, page and, with ``folders`` (one of `person_folder.WAYS`), the training set.

    Args:
        labels: [N] after corrections, numbers from 1.
        clusters: as they were found.
        remark: a line for page and report, or "".

    Returns:
        What to print.

    Raises:
        ConfigError: a file there is not ours, see `ResultsFolder`.
        OSError: something cannot be written.
    """
    inside = labels != OUTLIER
    numbers, compact = np.unique(labels[inside], return_inverse=True)
    gapless = np.full(len(labels), OUTLIER, np.int64)
    gapless[inside] = compact.reshape(-1)
    record = ClusteringRecord.describe(
        seen.paths, features, gapless, camids=seen.camids, tracklets=seen.tracklets
    )
    lines = [
        f"{len(labels)} images: {len(numbers)} clusters, "
        f"{np.count_nonzero(~inside)} images in none",
        f"eps {clusters.eps:g}: {clusters.reason}",
    ]
    if remark:
        lines.append(remark)
    table = out.write(TABLE, lambda file: _write_table(file, seen, labels, record))
    page = out.write(
        PAGE,
        lambda file: write_cluster_page(
            file,
            record,
            options.graph_settings(eps=clusters.eps),
            title=f"People in {shown(Path(seen.folder).name)}",
            subtitle="; ".join([shown(seen.folder), *lines[1:]]),
            numbers=numbers.tolist(),
            spelled=_as_options,
        ),
    )
    lines += [f"table: {shown(table)}", f"page:  {shown(page)}"]
    if folders:
        files = person_files(seen.paths, labels, seen.camids)
        out.write(TRAINING, lambda folder: make_folder(folder, files, folders))
        lines.append(
            f"training set in the layout of Market-1501 ({len(files)} images, "
            f"{folders}): {shown(out.folder / TRAINING)}"
        )
    return "\n".join(lines)


def _as_options(advice: str) -> str:
    """``Clustering.min_samples`` -> ``--min-samples``."""
    text = re.sub(r"Clustering\.(\w+)", lambda key: "--" + key[1].replace("_", "-"), advice)
    return text.replace("=True", "")


def _write_table(
    file: Path, seen: SeenImages, labels: np.ndarray, record: ClusteringRecord
) -> None:
    rows = [
        [
            cell(path),
            labels[row],
            cell(seen.camera(row)),
            cell(seen.tracklet(row)),
            *(
                "" if np.isnan(value) else f"{value:.4f}"
                for value in (record.distances[row], record.silhouettes[row])
            ),
        ]
        for row, path in enumerate(seen.paths)
    ]
    write_csv(file, TABLE_HEADER, rows, newline="\r\n")
