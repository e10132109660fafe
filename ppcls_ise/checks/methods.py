# SPDX-License-Identifier: Apache-2.0
"""One training step of every method without its network, on data made up."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls_ise.heads import ClusterContrastHead, CSAHead, HybridHead, MemoryHead, PLIHead
from ppcls_ise.losses import AggregationLoss, ClusterContrastLoss, HybridContrastLoss, LPLoss

# Name: head for features of D values, and its losses, as in the recipes.
METHODS: dict[str, tuple[Callable[[int], MemoryHead], list[nn.Layer]]] = {
    "ISE": (lambda size: PLIHead(), [ClusterContrastLoss(), LPLoss()]),
    "ISE mean memory": (lambda size: PLIHead(memory="mean"), [ClusterContrastLoss(), LPLoss()]),
    "LP only": (lambda size: PLIHead(support_in_memory=False), [ClusterContrastLoss(), LPLoss()]),
    "Cluster Contrast": (lambda size: ClusterContrastHead(), [ClusterContrastLoss()]),
    "HHCL": (lambda size: HybridHead(), [HybridContrastLoss()]),
    "HHCL version 2": (lambda size: HybridHead(2, num_instances=8), [HybridContrastLoss()]),
    "CSA + HPS": (
        lambda size: CSAHead(size, attention_dim=64),
        [ClusterContrastLoss(), AggregationLoss()],
    ),
}


@dataclass(frozen=True)
class Batch:
    """Features [B, D], labels [B] and prototypes [C, D], each row near its prototype."""

    features: np.ndarray
    labels: np.ndarray
    prototypes: np.ndarray


def make_batch(
    identities: int = 8, instances: int = 8, clusters: int = 100, size: int = 64, seed: int = 0
) -> Batch:
    """A batch of ``identities`` labels with ``instances`` rows each, D = ``size``."""
    generator = np.random.default_rng(seed)
    prototypes = _unit(generator.standard_normal((clusters, size)))
    labels = np.repeat(generator.permutation(clusters)[:identities], instances)
    noise = _unit(generator.standard_normal((len(labels), size)))
    return Batch(_unit(prototypes[labels] + noise), labels, prototypes)


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Step:
    """A step of ``method`` on ``batch``, on Paddle's current device; call it as often as wanted.

    Attributes:
        head: after a call, with its moved memory.
        features: after a call, with the gradient of the sum of the losses.
    """

    def __init__(self, method: str, batch: Batch) -> None:
        make, self._losses = METHODS[method]
        self.head = make(batch.features.shape[1])
        generator = np.random.default_rng(1)
        for parameter in self.head.parameters():  # initializers differ between devices
            parameter.set_value(0.1 * generator.standard_normal(parameter.shape, np.float32))
        clusters = np.arange(len(batch.prototypes))
        self.head.reset_memory(batch.prototypes, clusters, batch.prototypes, (0,))
        self.head.start_epoch(1, 1, 2, 1)
        self.head.train()
        self.features = paddle.to_tensor(batch.features, stop_gradient=False)
        self.labels = paddle.to_tensor(batch.labels).unsqueeze(1)

    def __call__(
        self,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        features: paddle.Tensor | None = None,
    ) -> dict[str, paddle.Tensor]:
        """The losses by name, after the backward pass.

        Args:
            precision: makes the context that PaddleClas computes head and losses in.
            features: instead of those of the batch.
        """
        self.head.expect(self.labels)
        with precision():
            output = {
                "logits": self.head(self.features if features is None else features, self.labels)
            }
            values: dict[str, paddle.Tensor] = {}
            for loss in self._losses:
                values |= loss(output, self.labels)
        paddle.add_n(list(values.values())).backward()
        return values
