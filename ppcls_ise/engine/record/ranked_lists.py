# SPDX-License-Identifier: Apache-2.0
"""The ranked lists of a few queries, as they were at the first and at the last evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppcls_ise.errors import DataError
from ppcls_ise.metrics import Side
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
    cross_camera: bool,
) -> dict[str, Any]:
    """Twelve queries, evenly from all, and the ten gallery images nearest to each by cosine.

    Args:
        epoch: after which; 0 = before training.
        query, gallery: features (unit rows), identities, cameras.
        cross_camera: whether images of the query's identity and camera are left out.

    Returns:
        What JSON can hold. O(12 G D).
    """
    rows = np.unique(np.linspace(0, len(query_images) - 1, _QUERIES).astype(int))
    lists = []
    for row in rows.tolist():
        scores = gallery[0] @ query[0][row]
        if cross_camera:
            own = _equal(gallery[1], query[1], row) & _equal(gallery[2], query[2], row)
            scores = np.where(own, -np.inf, scores)
        order = np.argsort(-scores, kind="stable")[:_HITS]
        order = order[np.isfinite(scores[order])]
        hits = [
            _image(gallery, gallery_images, i) | {"score": round(float(scores[i]), 4)}
            for i in order.tolist()
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


def _equal(values: np.ndarray | None, queries: np.ndarray | None, row: int) -> Any:
    return False if values is None or queries is None else values == queries[row]


def _image(side: Side, images: Sequence[str], row: int) -> dict[str, Any]:
    return {
        "path": images[row],
        "pid": None if side[1] is None else int(side[1][row]),
        "camid": None if side[2] is None else int(side[2][row]),
    }
