# SPDX-License-Identifier: Apache-2.0
"""Input that can be clustered, but probably not with the result that was hoped for."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ppcls_ise.data.file_stamps import copies
from ppcls_ise.errors import shown

_SHOWN = 3
_EQUAL = 1e-6  # between float32 unit rows


def odd_features(values: np.ndarray) -> Iterator[str]:
    """Remarks on unit features [M, D]; O(M D)."""
    if len(values) > 1 and np.abs(values - values[0]).max() <= _EQUAL:
        yield (
            f"all {len(values)} images have the same feature, so they cannot be told apart. Either "
            "they are copies of one image, or the network has collapsed: lower "
            "Optimizer.lr.learning_rate, or begin with other weights (Global.pretrained_model)"
        )


def odd_lengths(lengths: Mapping[str, int], count: int) -> Iterator[str]:
    """Remarks on the list lengths of the section Clustering for ``count`` images."""
    for key, length in lengths.items():
        if length > count:
            yield (
                f"Clustering.{key} is {length}, but there are only {count} images: every list "
                "holds all of them. Lower it, or check that Global.image_root is the right folder"
            )


def odd_files(paths: Sequence[str]) -> Iterator[str]:
    """Remarks on the files; reads those that have the size of another one."""
    found = copies(paths)
    if found:
        pairs = [f"{shown(path)} = {shown(first)}" for path, first in found.items()]
        yield (
            f"{len(found)} of {len(paths)} images are byte for byte copies of another one, which "
            f"counts them twice: {'; '.join(pairs[:_SHOWN])}{'; …' if len(pairs) > _SHOWN else ''}"
        )
