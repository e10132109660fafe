# SPDX-License-Identifier: Apache-2.0
"""Identities of images, for a calibration: from names, a table, or clustering."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppcls_ise.clustering import generate_pseudo_labels
from ppcls_ise.data.csv_table import read_table
from ppcls_ise.data.market1501 import person_and_camera
from ppcls_ise.errors import ConfigError, DataError, shown
from ppcls_ise.retrieval.calibration import PSEUDO_LABELS

NAMES, PSEUDO = "names", "pseudo"
_UNKNOWN = -1


@dataclass(frozen=True)
class Labels:
    """Identities [N] int64, -1 where unknown; cameras [N] int64 or None; the source in words."""

    identities: np.ndarray
    cameras: np.ndarray | None
    source: str


def read_labels(
    kind: str, features: np.ndarray, paths: Sequence[str], *, eps: float = 0.5
) -> Labels:
    """Identities of N images.

    Args:
        kind: ``names``: identity and camera from file names like ``0002_c1s1_*.jpg`` (identities
            -1 and 0 are junk and background: unknown). ``pseudo``: clusters of the features
            (outliers: unknown). Otherwise a CSV file with the columns ``path``, ``identity`` and,
            if known, ``camera``; images that are not in it are unknown.
        features: [N, D] unit rows, for ``pseudo``.
        paths: N files.
        eps: largest Jaccard distance between neighbors, for ``pseudo``.

    Raises:
        DataError, ConfigError: a name or line that does not follow the rule; names it.
    """
    if kind == NAMES:
        return _from_names(paths)
    if kind == PSEUDO:
        if not 0 <= np.float32(eps) < 1:
            raise ConfigError(f"--eps is a Jaccard distance in 0 .. 1, got {eps}")
        labels = generate_pseudo_labels(features, eps).labels
        count = int(labels.max(initial=_UNKNOWN)) + 1
        if count < 2:
            raise DataError(
                f"clustering {len(features)} images gives {count} clusters, so there is nothing to "
                f"compare: {'raise' if not count else 'lower'} --eps ({eps}), or give labels"
            )
        return Labels(labels, None, f"{PSEUDO_LABELS} ({count} clusters; rates are too good)")
    return _from_table(kind, paths)


def _from_names(paths: Sequence[str]) -> Labels:
    pairs: list[tuple[int, int]] = []
    for path in paths:
        if pair := person_and_camera(os.path.basename(path)):
            pairs.append(pair)
        else:
            raise DataError(
                f"{shown(path)} does not tell identity and camera like 0002_c1s1_000451.jpg: give "
                "a table (--labels FILE.csv), or use --labels pseudo"
            )
    identities = np.array([pair[0] if pair[0] > 0 else _UNKNOWN for pair in pairs], np.int64)
    return Labels(identities, np.array([pair[1] for pair in pairs], np.int64), "file names")


def _from_table(file: str, paths: Sequence[str]) -> Labels:
    if not Path(file).is_file():
        raise ConfigError(
            f"--labels is {NAMES}, {PSEUDO} or a CSV file; there is no file {shown(file)}"
        )
    rows = read_table(file, needed=("path", "identity"), optional=("camera",), others=True)
    known: dict[str, tuple[str, str]] = {}
    for number, row in rows:
        path, entry = row["path"], (row["identity"].strip(), row.get("camera", "").strip())
        if not path or not entry[0] or ("camera" in row and not entry[1]):
            raise DataError(f"{shown(file)}: line {number} is not complete")
        if known.setdefault(os.path.abspath(path), entry) != entry:
            raise DataError(f"{shown(file)}: {shown(path)} has two identities or cameras")
    with_cameras = "camera" in rows[0][1]
    found = [known.get(os.path.abspath(path)) for path in paths]
    if not any(found):
        raise DataError(
            f"{shown(file)} names none of the {len(paths)} images; is its path column right?"
        )
    identities = _numbered([entry and entry[0] for entry in found])
    cameras = _numbered([entry and entry[1] for entry in found]) if with_cameras else None
    return Labels(identities, cameras, f"labels of {shown(Path(file).name)}")


def _numbered(values: Sequence[str | None]) -> np.ndarray:
    """A number per different text, -1 for None."""
    order = {value: i for i, value in enumerate(sorted({v for v in values if v is not None}))}
    return np.array([_UNKNOWN if v is None else order[v] for v in values], np.int64)
