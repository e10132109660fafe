# SPDX-License-Identifier: Apache-2.0
"""The few collective operations of the plugin; each is the identity in a single process."""

from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from paddle.autograd import PyLayer


class _GatherRows(PyLayer):
    @staticmethod
    def forward(ctx: Any, rows: paddle.Tensor) -> paddle.Tensor:
        gathered, ctx.counts = _gather(rows)
        return gathered

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        # Every process computes the whole loss, so its own rows' gradient is complete. Data
        # parallelism then AVERAGES parameter gradients over processes where a sum is meant.
        start = sum(ctx.counts[: dist.get_rank()])
        own = gradient[start : start + ctx.counts[dist.get_rank()]]
        return own * dist.get_world_size()


def _all_gather(tensor: paddle.Tensor) -> list[paddle.Tensor]:
    parts: list[paddle.Tensor] = []
    dist.all_gather(parts, tensor.contiguous())
    return parts


def _gather(tensor: paddle.Tensor) -> tuple[paddle.Tensor, list[int]]:
    """Tensors of all processes in rank order, concatenated, and how many rows each had.

    Collectives want equal shapes, so shorter tensors travel with padding.
    """
    counts = paddle.concat(_all_gather(paddle.to_tensor([tensor.shape[0]]))).tolist()
    if missing := max(counts) - tensor.shape[0]:
        padding = paddle.zeros([missing, *tensor.shape[1:]], tensor.dtype)
        tensor = paddle.concat([tensor, padding])
    parts = _all_gather(tensor)
    return paddle.concat([part[:n] for part, n in zip(parts, counts, strict=True)]), counts


def gather_rows(rows: paddle.Tensor) -> paddle.Tensor:
    """Rows of all processes in rank order: [B_r, D] -> [sum of B_r, D], differentiable."""
    return rows if dist.get_world_size() == 1 else _GatherRows.apply(rows)


def gather_labels(labels: paddle.Tensor) -> paddle.Tensor:
    """Labels of all processes in rank order: [B_r] -> [sum of B_r]."""
    return labels if dist.get_world_size() == 1 else _gather(labels)[0]


def gather_arrays(array: np.ndarray) -> np.ndarray:
    """Arrays of all processes in rank order, concatenated; lengths may differ.

    Cost: every process holds the whole.
    """
    if dist.get_world_size() == 1:
        return array
    return _gather(paddle.to_tensor(array))[0].numpy()


def broadcast_array(array: np.ndarray) -> np.ndarray:
    """Process 0's array, which has to have the same shape and dtype everywhere."""
    if dist.get_world_size() == 1:
        return array
    tensor = paddle.to_tensor(array)
    dist.broadcast(tensor, src=0)
    return tensor.numpy()


def broadcast_running_statistics(model: paddle.nn.Layer) -> None:
    """Give every process the batch-norm statistics (all that has no gradient) of process 0."""
    if dist.get_world_size() > 1:
        for tensor in model.state_dict().values():
            if tensor.stop_gradient:
                dist.broadcast(tensor, src=0)
