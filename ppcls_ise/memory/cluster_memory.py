# SPDX-License-Identifier: Apache-2.0
"""Cluster memory of Cluster Contrast and ISE."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from ppcls_ise.errors import ConfigError
from ppcls_ise.layers.rows import (
    as_rows,
    host_labels,
    least_similar,
    members_by_label,
    unit_rows,
    upload,
)

_UPDATES = ("hard", "mean")


@dataclass(frozen=True)
class UpdatePlan:
    """An update of a memory by rows whose labels are known and whose values are not yet.

    So that a step can send all its index arrays to the device at once, before it computes.

    Attributes:
        arrays: int64 arrays that ``move`` needs on the device, see `layers.rows.upload`.
        move: called with the rows [R, D] and those arrays as tensors; moves the memory.
    """

    arrays: tuple[np.ndarray, ...]
    move: Callable[..., None]


class ClusterMemory:
    """One unit prototype per cluster; a constant for differentiation (CC (3) to CC (8)).

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
        return self.logits_of_unit_rows(unit_rows(as_rows(features, paddle.float32)))

    def logits_of_unit_rows(self, rows: paddle.Tensor) -> paddle.Tensor:
        """As `logits`, for rows that are normalized already."""
        # Scaled before the product: a pass over [R, D] instead of one over [R, C].
        return paddle.matmul(rows / self.temperature, self.prototypes, transpose_y=True)

    def update(self, features: paddle.Tensor, labels: Any) -> None:
        """Move the prototypes of the labels present towards ``features`` [R, D], in place.

        Prototypes of absent labels stay bit-identical. Cost: O(R D), independent of C, in a
        constant number of operations with ``hard``; with ``mean`` one round of them per row of the
        most frequent label, because each round starts from the outcome of the one before.

        Args:
            features: rows in batch order, normalized here.
            labels: [R] int64, each in 0 .. C-1; an array spares the wait for the device.

        Raises:
            ValueError: a label is out of range; nothing has changed then.
        """
        self.update_by_unit_rows(unit_rows(as_rows(features, paddle.float32).detach()), labels)

    def update_by_unit_rows(self, rows: paddle.Tensor, labels: Any) -> None:
        """As `update`, for rows that are normalized already."""
        labels = host_labels(labels, rows.shape[0])
        if len(labels):
            plan = self.plan(labels)
            plan.move(rows.detach(), *upload(*plan.arrays))

    def plan(self, labels: np.ndarray) -> UpdatePlan:
        """The update by unit rows with these ``labels`` [R] int64, each in 0 .. C-1.

        Raises:
            ValueError: a label is out of range.
        """
        labels = host_labels(labels, len(labels), below=self.prototypes.shape[0])
        present, members, counts = members_by_label(labels)
        if self.update_rule == "hard":
            return UpdatePlan((labels, members, present), self._move_by_hardest)
        # Frequent labels first: round j takes the j-th row of the first labels, and the others,
        # which have no such row, are done.
        order = np.argsort(-counts, kind="stable")
        active = (counts[:, None] > np.arange(members.shape[1])).sum(axis=0)
        chosen = [members[order[:n], j] for j, n in enumerate(active)]
        return UpdatePlan(
            (np.concatenate(chosen), present[order]),
            functools.partial(self._move_by_all, active.tolist()),
        )

    @paddle.no_grad()
    def _move_by_hardest(
        self,
        rows: paddle.Tensor,
        labels: paddle.Tensor,
        members: paddle.Tensor,
        targets: paddle.Tensor,
    ) -> None:
        hardest = least_similar(rows, labels, members, self.prototypes)
        self._move(targets, [self._weighted(rows, hardest)])

    @paddle.no_grad()
    def _move_by_all(
        self,
        active: list[int],
        rows: paddle.Tensor,
        chosen: paddle.Tensor,
        targets: paddle.Tensor,
    ) -> None:
        self._move(targets, paddle.split(self._weighted(rows, chosen), active))

    def _weighted(self, rows: paddle.Tensor, chosen: paddle.Tensor) -> paddle.Tensor:
        """``(1 - mu) x`` of the chosen rows, [n, 1, D]."""
        return paddle.gather(rows, chosen).scale_(1.0 - self.momentum).unsqueeze(1)

    def _move(self, targets: paddle.Tensor, rounds: list[paddle.Tensor]) -> None:
        """``m <- N'(mu m + w)``, round after round, for the first labels of ``targets``.

        ``w`` are `_weighted` rows. The 1e-24 matters for an exactly zero sum only: it stays zero.
        """
        current = paddle.gather(self.prototypes, targets).unsqueeze(1)  # [P, 1, D]
        done: list[paddle.Tensor] = []
        for x in rounds:
            if x.shape[0] < current.shape[0]:
                done.insert(0, current[x.shape[0] :])
                current = current[: x.shape[0]]
            current = self.momentum * current + x
            squares = paddle.matmul(current, current, transpose_y=True)
            current = current * paddle.rsqrt(squares + 1e-24)
        paddle.scatter_(self.prototypes, targets, paddle.concat([current, *done]).squeeze(1))
