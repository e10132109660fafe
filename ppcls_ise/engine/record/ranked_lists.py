# SPDX-License-Identifier: Apache-2.0
"""The ranked lists of a few queries, as they were at the first and at the last evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppcls_ise.errors import DataError
from ppcls_ise.metrics import Side, nearest_images
from ppcls_ise.utils.files import reading, replacing

FILE = "ranked_lists.json"
_QUERIES, _HITS = 12, 10


def ranked_lists(
    epoch: int,
    query: Side,
    gallery: Side,
    query_images: Sequence[str],
    gallery_images: Sequence[str],
    *,
    protocol: str,
) -> dict[str, Any]:
    """Twelve queries, evenly from all, and the ten gallery images nearest to each by cosine.

    Args:
        epoch: after which; 0 = before training.
        query, gallery: features (unit rows), identities, cameras, tracklets.
        protocol: of the evaluation: left out are images of the query's identity and tracklet, and
            with ``cross_camera`` those of its identity and camera, as `evaluate_rank` does it.

    Returns:
        What JSON can hold. O(12 G D).
    """
    rows = np.unique(np.linspace(0, len(query_images) - 1, _QUERIES).astype(int))
    lists = []
    for row in rows.tolist():
        found = nearest_images(query, gallery, row, _HITS, by_camera=protocol == "cross_camera")
        hits = [
            _image(gallery, gallery_images, int(i)) | {"score": round(float(score), 4)}
            for i, score in zip(*found, strict=True)
        ]
        lists.append(_image(query, query_images, row) | {"hits": hits})
    return {"epoch": epoch, "queries": lists}


def write_ranked_lists(path: Path, evaluations: Sequence[dict[str, Any]]) -> None:
    """Write the lists of some evaluations.

    Raises:
        OSError: it cannot be written there.
    """
    with replacing(path) as scratch:
        scratch.write_text(json.dumps({"evaluations": evaluations}), encoding="ascii")


def read_ranked_lists(path: Path) -> list[dict[str, Any]]:
    """What `write_ranked_lists` wrote; nothing where there is no such file.

    Raises:
        DataError: it is something else.
    """
    if not path.is_file():
        return []
    with reading(path, DataError, "holds no ranked lists"):
        evaluations = json.loads(path.read_text(encoding="ascii"))["evaluations"]
        for evaluation in evaluations:
            images = [i for query in evaluation["queries"] for i in (query, *query["hits"])]
            if not all({"path", "pid", "camid"} <= set(image) for image in images):
                raise ValueError("an image lacks path, pid or camid")
        return evaluations


def _image(side: Side, images: Sequence[str], row: int) -> dict[str, Any]:
    return {
        "path": images[row],
        "pid": None if side.pids is None else int(side.pids[row]),
        "camid": None if side.camids is None else int(side.camids[row]),
    }
