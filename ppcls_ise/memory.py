# SPDX-License-Identifier: Apache-2.0
"""Cluster memory of Cluster Contrast and ISE."""

import paddle
import paddle.nn.functional as F

from ppcls_ise.errors import ConfigError
from ppcls_ise.tensors import as_labels, as_rows

_UPDATES = ("hard", "mean")


class ClusterMemory:
    """One unit prototype per cluster; a constant for differentiation (spec: section 6).

    ``z_rc = <N(x_r), m_c> / temperature`` with ``N(v) = v / max(|v|, 1e-12)``.

    Updates, with ``x`` the normalized rows and ``mu`` the momentum of the OLD prototype (0.1 keeps
    10 %), renormalized by the plain norm:

    * ``hard``: for each label present, ``m <- N(mu m + (1 - mu) x_r)`` once, where ``r`` is the row
      of that label with the smallest ``<x_r, m>`` (the first one on ties).
    * ``mean``: ``m <- N(mu m + (1 - mu) x_r)`` for every row in batch order (the reference calls it
      ``ori``); later rows weigh more.

    Source: Cluster Contrast (arXiv 2103.11568) and ISE (CVPR 2022) as their released code computes
    them. Deviation: the reference updates inside a custom backward pass; here the caller decides,
    and `ppcls_ise.heads` calls `update` from a gradient hook, which is the same moment.

    Args:
        momentum: weight of the old prototype, in [0, 1].
        temperature: positive.
        update: ``"hard"`` or ``"mean"``.

    Raises:
        ConfigError: (a ValueError) a parameter is out of range.
    """

    def __init__(self, momentum: float, temperature: float, update: str = "hard") -> None:
        if not 0.0 <= momentum <= 1.0:
            raise ConfigError(f"momentum has to be in [0, 1], got {momentum} (Arch.Head.momentum)")
        if not temperature > 0.0:
            raise ConfigError(
                f"temperature has to be positive, got {temperature} (Arch.Head.temperature)"
            )
        if update not in _UPDATES:
            raise ConfigError(
                f"the memory's update rule has to be one of {', '.join(_UPDATES)}, got "
                f"{update!r} (Arch.Head.memory)"
            )
        self.momentum = float(momentum)
        self.temperature = float(temperature)
        self.update_rule = update
        self._prototypes: paddle.Tensor | None = None

    @property
    def prototypes(self) -> paddle.Tensor:
        """Prototypes [C, D], unit rows, without gradient.

        Raises:
            RuntimeError: before the first `reset`.
        """
        if self._prototypes is None:
            raise RuntimeError("the memory is empty: reset(centroids) has to come first")
        return self._prototypes

    def reset(self, centroids: paddle.Tensor) -> None:
        """Forget everything and start from ``centroids`` [C, D], unit rows (array or tensor; kept
        as float32)."""
        self._prototypes = as_rows(centroids, paddle.float32).detach().clone()
        self._prototypes.stop_gradient = True

    @property
    def rows(self) -> paddle.Tensor:
        """The whole memory as rows of one matrix."""
        return self.prototypes

    def restore(self, rows: paddle.Tensor) -> None:
        """Take over a memory in the layout of `rows` (array or tensor, copied)."""
        self.reset(rows)

    def logits(self, features: paddle.Tensor) -> paddle.Tensor:
        """Similarity of the normalized ``features`` [R, D] to every prototype over the
        temperature: [R, C]. Differentiable in the features."""
        rows = as_rows(features, paddle.float32)
        return self.logits_of_unit_rows(F.normalize(rows, axis=1, epsilon=1e-12))

    def logits_of_unit_rows(self, rows: paddle.Tensor) -> paddle.Tensor:
        """As `logits`, for rows that are normalized already."""
        return paddle.matmul(rows, self.prototypes, transpose_y=True) / self.temperature

    @paddle.no_grad()
    def update(self, features: paddle.Tensor, labels: paddle.Tensor) -> None:
        """Move the prototypes of the labels present towards ``features`` [R, D], in place.

        Prototypes of absent labels stay bit-identical. Cost: O(R D + R^2), independent of C.

        Args:
            features: rows in batch order, normalized here.
            labels: [R] int64, each in 0 .. C-1.

        Raises:
            ValueError: a label is out of range; nothing has changed then.
        """
        rows = as_rows(features, paddle.float32).detach()
        rows = F.normalize(rows, axis=1, epsilon=1e-12)
        labels = as_labels(labels, rows.shape[0], below=self.prototypes.shape[0])
        update = self._update_hard if self.update_rule == "hard" else self._update_mean
        update(rows, labels)

    def _update_hard(self, rows: paddle.Tensor, labels: paddle.Tensor) -> None:
        similarity = (rows * paddle.gather(self.prototypes, labels)).sum(axis=1)
        index = paddle.arange(labels.shape[0])
        # Row a is beaten by a row b of its label that is less similar, or as similar and earlier.
        same = labels.unsqueeze(1) == labels.unsqueeze(0)
        lower = similarity.unsqueeze(0) < similarity.unsqueeze(1)
        earlier_tie = (similarity.unsqueeze(0) == similarity.unsqueeze(1)) & (
            index.unsqueeze(0) < index.unsqueeze(1)
        )
        beaten = (same & (lower | earlier_tie)).any(axis=1)
        self._move(rows, labels, paddle.nonzero(~beaten).flatten())

    def _update_mean(self, rows: paddle.Tensor, labels: paddle.Tensor) -> None:
        index = paddle.arange(labels.shape[0])
        same = labels.unsqueeze(1) == labels.unsqueeze(0)
        # occurrence[r] = how many earlier rows have the label of row r; all rows with the same
        # occurrence belong to different labels and can be taken at once.
        occurrence = (same & (index.unsqueeze(0) < index.unsqueeze(1))).astype("int64").sum(axis=1)
        for step in range(int(occurrence.max()) + 1):
            self._move(rows, labels, paddle.nonzero(occurrence == step).flatten())

    def _move(self, rows: paddle.Tensor, labels: paddle.Tensor, chosen: paddle.Tensor) -> None:
        """``m_y <- N(mu m_y + (1 - mu) x)`` for the chosen rows, whose labels all differ."""
        targets = paddle.gather(labels, chosen)
        moved = self.momentum * paddle.gather(self.prototypes, targets) + (
            1.0 - self.momentum
        ) * paddle.gather(rows, chosen)
        # The bound only matters for an exactly zero sum, where the plain norm would give NaN.
        moved = moved / paddle.linalg.norm(moved, axis=1, keepdim=True).clip(min=1e-12)
        paddle.scatter_(self.prototypes, targets, moved)
