# SPDX-License-Identifier: Apache-2.0
"""Hybrid memories of HHCL: mean prototypes beside hard prototypes or instance slots."""

from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from ppcls_ise.errors import ConfigError
from ppcls_ise.layers.rows import host_labels, least_similar, members_by_label, unit_rows
from ppcls_ise.memory.cluster_memory import ClusterMemory, UpdatePlan


class HybridMemory(ClusterMemory):
    """Version 1: a hard and a mean prototype per cluster (HHCL (1), HHCL (4), HHCL (5)).

    With ``mu`` the momentum of the OLD row and ``N'(v) = v / |v|``, once per label ``c`` present::

        h_c <- N'(mu h_c + (1 - mu) f_r)      r = argmin over the rows of c of <f_r, h_c>
        a_c <- N'(mu a_c + (1 - mu) mean of the rows of c)

    The argmin is the first one on ties; the mean is not normalized first. ``prototypes`` are the
    mean prototypes ``a``. Rows are used as given, by `update` too: the reference does not normalize
    them, since the network's output is unit already. (`logits`, of the base class, does.)

    Source: HHCL (arXiv 2109.12333), released code, ``CMhybrid``. Deviation: ``|v|`` is bounded
    below by 1e-12, so that a sum of exactly zero leaves a zero row instead of NaN.

    Args:
        momentum: weight of the old prototypes, in [0, 1).
        temperature: positive.
    """

    def __init__(self, momentum: float, temperature: float) -> None:
        super().__init__(momentum, temperature, "mean")
        self._hard: paddle.Tensor | None = None

    @property
    def hard_prototypes(self) -> paddle.Tensor:
        """Hard prototypes [C, D], unit rows, without gradient.

        Raises:
            RuntimeError: before the first `reset`.
        """
        return _filled(self._hard)

    @property
    def rows(self) -> paddle.Tensor:
        """The whole memory in the reference's layout, [2 C, D]: hard, then mean prototypes."""
        return paddle.concat([self.hard_prototypes, self.prototypes])

    def reset(self, centroids: paddle.Tensor) -> None:
        """Forget everything; both prototypes start from ``centroids`` [C, D] (unit rows)."""
        super().reset(centroids)
        self._hard = self.prototypes.clone()

    def restore(self, rows: paddle.Tensor) -> None:
        """Take over a memory in the layout of `rows` (array or tensor, copied).

        Raises:
            ValueError: the number of rows is not even.
        """
        hard, mean = _blocks(rows, 2)
        super().reset(mean)
        self._hard = hard.clone()

    def logits_of_unit_rows(self, rows: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """``<f_r, h_c> / temperature`` and ``<f_r, a_c> / temperature``, each [R, C].

        Differentiable in ``rows`` [R, D], which are used as given.
        """
        scaled = rows / self.temperature
        hard = paddle.matmul(scaled, self.hard_prototypes, transpose_y=True)
        return hard, super().logits_of_unit_rows(rows)

    def plan(self, labels: np.ndarray) -> UpdatePlan:
        """See `ClusterMemory.plan`; the rows are used as given.

        Both prototypes of the labels present move, others stay bit-identical. Cost of the update:
        O(R D + P R D) for R rows of P labels, independent of C.
        """
        labels = host_labels(labels, len(labels), below=self.prototypes.shape[0])
        present, members, counts = members_by_label(labels)
        group = np.searchsorted(present, labels)
        return UpdatePlan((labels, members, present, group, counts), self._move_both)

    @paddle.no_grad()
    def _move_both(
        self,
        rows: paddle.Tensor,
        labels: paddle.Tensor,
        members: paddle.Tensor,
        targets: paddle.Tensor,
        group: paddle.Tensor,
        counts: paddle.Tensor,
    ) -> None:
        least = least_similar(rows, labels, members, self.hard_prototypes)
        _move(self.hard_prototypes, targets, paddle.gather(rows, least), self.momentum)
        _move(self.prototypes, targets, _mean_rows(rows, group, counts), self.momentum)

    def update(self, features: paddle.Tensor, labels: Any) -> None:
        """Move both prototypes by ``features`` [R, D] in batch order, used as given, in place.

        Args:
            labels: [R] int64, each in 0 .. C-1.

        Raises:
            ValueError: a label is out of range; nothing has changed then.
        """
        self.update_by_unit_rows(features, labels)


class InstanceMemory(ClusterMemory):
    """Version 2: a mean prototype and n instance slots per cluster (HHCL (6), HHCL (9)).

    The mean prototypes ``a`` (``prototypes``) move as in `HybridMemory`. The rows of label ``c``,
    in batch order, overwrite slots 1, 2, ... of ``c``, without momentum or normalization; slots
    beyond them keep their content.

    Source: HHCL (arXiv 2109.12333), released code, ``CMhybrid_v2``. Deviations: more than n rows of
    one label go on at slot 1, so that the last n rows stay (the reference fails with an index
    error); ``|v|`` is bounded below by 1e-12.

    Cost: (n + 1) C D float32, e.g. 100 MB for n = 16, C = 720, D = 2048.

    Args:
        momentum: weight of the old mean prototypes, in [0, 1).
        temperature: positive.
        num_instances: n, at least 1; the sampler's images per cluster in a batch.
    """

    def __init__(self, momentum: float, temperature: float, num_instances: int) -> None:
        super().__init__(momentum, temperature, "mean")
        if num_instances < 1:
            raise ConfigError(
                f"num_instances has to be at least 1, got {num_instances} (Arch.Head.num_instances)"
            )
        self.num_instances = num_instances
        self._slots: paddle.Tensor | None = None

    @property
    def slots(self) -> paddle.Tensor:
        """Instance slots [n, C, D], without gradient; slot i of cluster c is ``slots[i - 1, c]``.

        Raises:
            RuntimeError: before the first `reset`.
        """
        return _filled(self._slots).reshape([self.num_instances, *self.prototypes.shape])

    @property
    def rows(self) -> paddle.Tensor:
        """The whole memory in the reference's layout, [(n + 1) C, D]: mean prototypes, then the
        slots; slot i of cluster c is row ``c + i C``."""
        return paddle.concat([self.prototypes, _filled(self._slots)])

    def reset(
        self,
        centroids: paddle.Tensor,
        features: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        generator: np.random.Generator | None = None,
    ) -> None:
        """Forget everything and start from a clustering.

        The slots of a cluster are the features of n of its images, drawn with replacement.

        Args:
            centroids: [C, D] (array or tensor, unit rows), C >= 1.
            features: [N, D] unit rows of all images.
            labels: [N] int64, -1 = outlier (never drawn), else 0 .. C-1, each at least once.
            generator: the randomness.

        Raises:
            ValueError: without features, labels and generator, or for a cluster without an image.
        """
        if features is None or labels is None or generator is None:
            raise ValueError(
                "a memory with instance slots starts from images: reset needs features, labels "
                "and generator beside the centroids (or set Arch.Head.version to 1)"
            )
        chosen = draw_members(labels, len(centroids), self.num_instances, generator)
        super().reset(centroids)
        # Slot by slot: the features, which may be on the disk, and the slots are never held twice.
        self._slots = paddle.zeros([chosen.size, features.shape[1]], self.prototypes.dtype)
        for number, rows in enumerate(chosen):
            place = slice(number * len(rows), (number + 1) * len(rows))
            self._slots[place] = paddle.to_tensor(features[rows])

    def restore(self, rows: paddle.Tensor) -> None:
        """Take over a memory in the layout of `rows` (array or tensor, copied).

        Raises:
            ValueError: the number of rows is not a multiple of n + 1.
        """
        means, *slots = _blocks(rows, self.num_instances + 1)
        super().reset(means)
        self._slots = paddle.concat(slots)

    def logits_of_unit_rows(self, rows: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """``<f_r, a_c> / temperature`` [R, C] and ``<f_r, slot_ic> / temperature`` [R, n, C].

        Differentiable in ``rows`` [R, D], which are used as given.
        """
        slots = paddle.matmul(rows / self.temperature, _filled(self._slots), transpose_y=True)
        shape = [rows.shape[0], self.num_instances, -1]
        return super().logits_of_unit_rows(rows), slots.reshape(shape)

    def plan(self, labels: np.ndarray) -> UpdatePlan:
        """See `ClusterMemory.plan`; the rows are used as given.

        Slots are overwritten and the mean prototypes of the labels present move. Cost of the
        update: O(P R D) for R rows of P labels, independent of C.
        """
        num_clusters = self.prototypes.shape[0]
        labels = host_labels(labels, len(labels), below=num_clusters)
        present, members, counts = members_by_label(labels)
        # The last n rows of a label have n different slots, so the order of writing is no matter.
        place, count = np.arange(members.shape[1]), counts[:, None]
        last = (place < count) & (place >= count - self.num_instances)
        slots = (place % self.num_instances) * num_clusters + present[:, None]
        group = np.searchsorted(present, labels)
        return UpdatePlan((members[last], slots[last], present, group, counts), self._write)

    @paddle.no_grad()
    def _write(
        self,
        rows: paddle.Tensor,
        chosen: paddle.Tensor,
        slots: paddle.Tensor,
        targets: paddle.Tensor,
        group: paddle.Tensor,
        counts: paddle.Tensor,
    ) -> None:
        paddle.scatter_(_filled(self._slots), slots, paddle.gather(rows, chosen))
        _move(self.prototypes, targets, _mean_rows(rows, group, counts), self.momentum)

    def update(self, features: paddle.Tensor, labels: Any) -> None:
        """Overwrite slots and move the mean prototypes by ``features`` [R, D], used as given.

        Args:
            labels: [R] int64, each in 0 .. C-1.

        Raises:
            ValueError: a label is out of range; nothing has changed then.
        """
        self.update_by_unit_rows(features, labels)


def draw_members(
    labels: np.ndarray, num_clusters: int, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Images of every cluster, drawn uniformly with replacement.

    Args:
        labels: [N] int64, -1 = outlier (never drawn), else 0 .. num_clusters - 1.
        num_clusters: C >= 1.
        count: images per cluster.
        generator: the randomness; equal states draw equal images.

    Returns:
        [count, C] int64, indices into ``labels``. O(N log N + count C) time.

    Raises:
        ValueError: a label is out of range, or a cluster has no image.
    """
    labels = np.asarray(labels, np.int64)
    if labels.max(initial=-1) >= num_clusters:
        raise ValueError(f"label {labels.max()} is out of range for {num_clusters} clusters")
    sizes = np.bincount(labels[labels >= 0], minlength=num_clusters)
    if not sizes.all():
        raise ValueError(f"clusters without an image: {np.flatnonzero(sizes == 0)[:5].tolist()}")
    members = np.argsort(labels, kind="stable")[np.count_nonzero(labels < 0) :]
    start = np.cumsum(sizes) - sizes
    return members[start + generator.integers(0, sizes, (count, num_clusters))]


def _filled(part: paddle.Tensor | None) -> paddle.Tensor:
    if part is None:
        raise RuntimeError("the memory is empty: reset has to come first")
    return part


def _blocks(rows: paddle.Tensor, count: int) -> list[paddle.Tensor]:
    """``count`` blocks of equally many rows."""
    if len(rows) % count:
        raise ValueError(f"this memory has a multiple of {count} rows, got {len(rows)}")
    if not isinstance(rows, paddle.Tensor):
        rows = paddle.to_tensor(rows)
    return paddle.split(rows.detach(), count)


def _mean_rows(rows: paddle.Tensor, group: paddle.Tensor, counts: paddle.Tensor) -> paddle.Tensor:
    """Mean of the rows of each label, [P, D]: ``group`` [R] names each row's, ``counts`` [P]."""
    member = F.one_hot(group, counts.shape[0]).t()
    share = member.astype(rows.dtype) / counts.astype(rows.dtype).unsqueeze(1)
    return paddle.matmul(share, rows)


def _move(
    prototypes: paddle.Tensor, targets: paddle.Tensor, towards: paddle.Tensor, momentum: float
) -> None:
    """``m_c <- N'(mu m_c + (1 - mu) v_c)`` in place, for the different labels ``targets``."""
    moved = momentum * paddle.gather(prototypes, targets) + (1.0 - momentum) * towards
    paddle.scatter_(prototypes, targets, unit_rows(moved))
