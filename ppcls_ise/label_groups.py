# SPDX-License-Identifier: Apache-2.0
"""The rows of each label in a batch, found on the host: the device has nothing to wait for."""

import numpy as np
import paddle

from ppcls_ise.tensors import row_dots


def members_by_label(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows of each label as a rectangle.

    Args:
        labels: [R] int64, R >= 1.

    Returns:
        names [P] int64, the different labels in ascending order; members [P, width] int64, the
        rows of each label in ascending order, shorter lines filled up with their first row (which
        changes neither minimum nor maximum); counts [P] int64, rows per label. O(R log R) time.
    """
    names, counts = np.unique(labels, return_counts=True)
    order = np.argsort(labels, kind="stable")
    place = np.arange(counts.max())
    place = np.where(place < counts[:, None], place, 0) + (np.cumsum(counts) - counts)[:, None]
    return names, order[place], counts


def least_similar(
    rows: paddle.Tensor, labels: np.ndarray, members: np.ndarray, prototypes: paddle.Tensor
) -> paddle.Tensor:
    """The row of each label with the smallest ``<x_r, m_y>``, the first one on ties: [P] int64.

    Args:
        rows: [R, D].
        labels: [R] int64 in 0 .. C-1.
        members: [P, width] int64, see `members_by_label`.
        prototypes: [C, D].
    """
    own = paddle.gather(prototypes, paddle.to_tensor(labels))
    similarity = paddle.gather(row_dots(rows, own), paddle.to_tensor(members.reshape(-1)))
    least = similarity.reshape(members.shape).argmin(axis=1, keepdim=True)
    return paddle.index_sample(paddle.to_tensor(members), least).squeeze(1)
