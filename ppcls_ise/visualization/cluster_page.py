# SPDX-License-Identifier: Apache-2.0
"""A clustering, and perhaps the run that made it, as one HTML file that loads nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ppcls_ise.clustering.record import ClusteringRecord
from ppcls_ise.clustering.sample_graph import GraphSettings
from ppcls_ise.utils.files import replacing
from ppcls_ise.visualization.cluster_parts import cluster_parts
from ppcls_ise.visualization.curves import curves
from ppcls_ise.visualization.pages import render
from ppcls_ise.visualization.thumbnails import Thumbnails
from ppcls_ise.visualization.verdict import Row, verdict


def write_cluster_page(
    path: str | Path,
    record: ClusteringRecord,
    settings: GraphSettings,
    *,
    title: str,
    subtitle: str = "",
    place: Callable[[str], str] = lambda path: path,
    history: Sequence[Row] = (),
    ranked: Sequence[dict[str, Any]] = (),
    tables: Sequence[dict[str, Any]] = (),
    numbers: Sequence[int] | None = None,
    spelled: Callable[[str], str] = lambda advice: advice,
) -> int:
    """Write the page: verdict, curves, gallery, pairs, splits, map, ranked lists, configuration.

    It opens from disk, loads nothing, and stays below 15 MB: thumbnails are reduced, and of large
    sets samples are shown, which the page says.

    Args:
        path: HTML file, written atomically.
        record: the clustering; `ClusteringRecord.describe` makes it of arrays.
        settings: how it was made, for a look at other values of eps.
        title, subtitle: of the page.
        place: where an image is now; see `ppcls_ise.visualization.thumbnails.moved`.
        history: rows of history.csv, for the curves.
        ranked: evaluations of `ppcls_ise.engine.record.ranked_lists`.
        tables: title and either rows of cells or a text each, for the last section.
        numbers: by which the page calls the C clusters; None: 0 .. C-1.
        spelled: texts with keys of the configuration, as the page is to say them.

    Returns:
        Bytes of the file.

    Raises:
        OSError: it cannot be written there.
    """
    thumbnails = Thumbnails(place)
    parts = cluster_parts(record, settings, thumbnails, ranked=ranked, numbers=numbers)
    judged = verdict(record, parts.table, parts.eps, settings, history, numbers=numbers)
    remarks = [
        replace(r, evidence=spelled(r.evidence), advice=spelled(r.advice)) for r in judged.remarks
    ]
    values = dict(
        title=title,
        subtitle=subtitle,
        parts=parts,
        verdict=replace(judged, remarks=remarks),
        curves=curves(history),
        tables=tables,
        data=parts.data,
    )
    content = render("page.html", values).encode("utf-8")
    with replacing(path) as scratch:
        scratch.write_bytes(content)
    return len(content)
