# SPDX-License-Identifier: Apache-2.0
"""What every memory-based head shares: gathering, the memory's life in a step, gating."""

from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import nn

from ppcls_ise.distributed.collectives import gather_labels, gather_rows
from ppcls_ise.layers.precision import float32
from ppcls_ise.layers.rows import host_labels, unit_rows, upload
from ppcls_ise.memory.cluster_memory import ClusterMemory, UpdatePlan


class MemoryHead(nn.Layer):
    """Base of the heads that compare features with a cluster memory.

    In training the head returns a dictionary for the losses; otherwise the unit feature. The
    memory is not a parameter and not in the weights: the clustering callback resets it.

    Args:
        momentum: mu, weight of the OLD prototype, in [0, 1].
        temperature: tau, positive.
        memory: update rule of `ClusterMemory`, ``mean`` or ``hard``.
    """

    def __init__(
        self, momentum: float = 0.1, temperature: float = 0.05, memory: str = "mean"
    ) -> None:
        super().__init__()
        self.memory = ClusterMemory(momentum, temperature, memory)
        self._step, self._num_steps = 0, 1
        self._expected: np.ndarray | None = None
        self.host_labels = np.empty(0, np.int64)

    def start_epoch(self, epoch: int, iters: int, epochs: int, done: int = 0) -> None:
        """Set the progress to ``done`` steps after the start of ``epoch`` (counted from 1) of
        ``epochs``."""
        self._step, self._num_steps = (epoch - 1) * iters + done, epochs * iters

    def reset_memory(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        centroids: np.ndarray,
        seed_key: tuple[int, ...],
    ) -> None:
        """Start the memory from a new clustering; here, from the centroids alone.

        Args:
            features: [N, D] float32 unit rows of all training images.
            labels: [N] int64, -1 = outlier.
            centroids: [C, D] float32 unit rows, C >= 1.
            seed_key: for a head that draws samples; the same on every process.
        """
        self.memory.reset(paddle.to_tensor(centroids))

    def expect(self, label: paddle.Tensor) -> None:
        """Read the labels of the next training step now, before the network is computed: later,
        the processor would wait for all of it.

        Args:
            label: what `forward` will get.
        """
        if self.training and dist.get_world_size() == 1:
            self._expected = _first_column(label).numpy()

    @property
    def progress(self) -> float:
        """t = (e I + i) / (E I), steps done over steps in all (ISE (1))."""
        return self._step / self._num_steps

    def report(self) -> dict[str, float]:
        """Numbers for the line that is logged after every epoch, by their names."""
        return {}

    def forward(self, features: paddle.Tensor, label: paddle.Tensor | None = None) -> Any:
        """
        Args:
            features: [B, D], as the neck delivers them.
            label: [B, k] int64, the pseudo-label in column 0; only needed in training.

        Returns:
            In training a dictionary: ``features`` unit rows [B, D], ``labels`` [B], ``logits``
            [R, C] and ``row_labels`` [R] of the rows compared with the memory, plus what a
            sub-class adds. Otherwise the unit rows [B, D].

            In a distributed run B counts the rows of all processes in rank order, so that losses
            and memory are the same as in one process.
        """
        # Cosines over a temperature of 0.05 need float32, also under automatic mixed precision.
        with float32() as full:
            unit = unit_rows(full(features))
            if not self.training:
                return unit
            if label is None:
                raise ValueError("a memory head needs the pseudo-labels in training")
            unit = gather_rows(unit)
            labels = gather_labels(_first_column(label))
            host, self._expected = self._expected, None
            self.host_labels = host_labels(labels if host is None else host, unit.shape[0])
            output = self.compare(unit, labels)
        self._step += 1
        return output

    def compare(self, features: paddle.Tensor, labels: paddle.Tensor) -> dict[str, paddle.Tensor]:
        """The training output for unit rows ``features`` [B, D] and their labels [B].

        The same labels are on the host as ``host_labels``; reading ``labels`` instead would wait
        for the device.
        """
        raise NotImplementedError

    def logits_and_update(self, rows: paddle.Tensor, labels: Any) -> paddle.Tensor:
        """Logits [R, C] of unit ``rows``, and the order to update the memory by these rows."""
        rows = self.updating(rows, rows, labels)
        return self.memory.logits_of_unit_rows(rows)

    def updating(self, compared: paddle.Tensor, rows: paddle.Tensor, labels: Any) -> paddle.Tensor:
        """``compared`` again; its gradient orders the memory's update by unit ``rows``.

        The update runs when the gradient of the result is known, hence with losses and gradients
        computed from the old memory and before the optimizer's step, as in the reference
        (CC (7), CC (8)). A forward pass alone changes nothing.
        """
        plan = self.memory.plan(host_labels(labels, rows.shape[0]))
        return self.updating_by_plan(compared, rows, plan, upload(*plan.arrays))

    def updating_by_plan(
        self,
        compared: paddle.Tensor,
        rows: paddle.Tensor,
        plan: UpdatePlan,
        arrays: list[paddle.Tensor],
    ) -> paddle.Tensor:
        """As `updating`, by a plan whose ``arrays`` are on the device already."""
        if compared.stop_gradient:
            return compared
        compared, fixed = compared.clone(), rows.detach()

        def update(gradient: paddle.Tensor) -> None:
            plan.move(fixed, *arrays)

        compared.register_hook(update)
        return compared


def _first_column(label: paddle.Tensor) -> paddle.Tensor:
    """The pseudo-labels [B] of [B, k]."""
    return label.reshape([label.shape[0], -1])[:, 0]
