# SPDX-License-Identifier: Apache-2.0
"""Clusters as a training set in the layout of Market-1501."""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

WAYS = ("link", "copy")


def person_files(
    paths: Sequence[str], labels: np.ndarray, camids: np.ndarray | None
) -> dict[str, str]:
    """File name -> image, for every image that is in a cluster.

    ``0003_c2s1_000017_00.jpg``: cluster 3, second camera (the first where none is known), image 17
    of that cluster in the order of ``paths``.

    Args:
        labels: [N], numbers from 1; -1 is left out.
        camids: [N] from 0, or None.
    """
    digits = max(4, len(str(labels.max(initial=0))))
    counts: Counter[int] = Counter()
    files = {}
    for row in np.flatnonzero(labels > 0).tolist():
        person = int(labels[row])
        camera = 1 if camids is None else int(camids[row]) + 1
        suffix = Path(paths[row]).suffix.lower()
        name = f"{person:0{digits}d}_c{camera}s1_{counts[person]:06d}_00{suffix}"
        counts[person] += 1
        files[name] = paths[row]
    return files


def make_folder(folder: Path, files: dict[str, str], way: str) -> None:
    """Fill a new folder with links to images, or copies of them.

    Raises:
        OSError: it cannot be done there; names the file.
    """
    folder.mkdir(parents=True)
    for name, path in files.items():
        if way == "link":
            (folder / name).symlink_to(os.path.abspath(path))
        else:
            shutil.copyfile(path, folder / name)
