# SPDX-License-Identifier: Apache-2.0
"""The few collective operations of the plugin; each is the identity in a single process."""

import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from paddle.autograd import PyLayer

from ppcls_ise.distributed import heartbeat
from ppcls_ise.distributed.shared_arrays import SHARED_MEMORY, create, shared_array
from ppcls_ise.distributed.store import own_store

_MEETING = "ppcls_ise/meeting"
_LONGEST_PAUSE = 0.1  # seconds
_CHUNK = 1 << 27  # bytes of all processes that are gathered at once, on the device on cards
_SMALL = 1 << 22  # bytes of an array that every process holds for itself
_meetings = 0
_store: paddle.base.core.TCPStore | None = None


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


def meet() -> None:
    """Wait until every process is here, however long that takes; call it before a collective
    operation that some processes may reach much later than others. A process that gives no sign of
    life meanwhile ends all (`heartbeat`).

    A collective of gloo fails after 30 s, which Paddle has no setting for. So this one goes through
    the store by which the processes found each other. Unlike a barrier it may be left while others
    are still in it: a collective operation has to follow.

    Raises:
        RuntimeError: process 0, which has the store, is gone.
    """
    global _meetings, _store
    if dist.get_world_size() == 1:
        return
    heartbeat.start()
    _store = _store or own_store()
    _meetings += 1
    _store.add(_MEETING, 1)
    pause = 0.001
    while _store.add(_MEETING, 0) < _meetings * dist.get_world_size():
        time.sleep(pause)
        pause = min(1.25 * pause, _LONGEST_PAUSE)


def meet_all() -> None:
    """No process goes on before all are here."""
    AllProcesses().gather(np.zeros(1, np.uint8))


def largest(number: int) -> int:
    """The largest of one number per process; without `meet`, for processes in step."""
    if dist.get_world_size() == 1:
        return number
    return int(paddle.concat(_all_gather(paddle.to_tensor([number]))).max())


class AllProcesses:
    """The processes of this run, for what shares its work out (`ppcls_ise.clustering`,
    `ppcls_ise.metrics`)."""

    @property
    def rank(self) -> int:
        return dist.get_rank()

    @property
    def size(self) -> int:
        return dist.get_world_size()

    def gather(self, part: np.ndarray) -> list[np.ndarray]:
        """Arrays of all processes by rank, of any type; their lengths may differ.

        Cost: every process holds them all, on the host. It waits for the others (`meet`).
        """
        if self.size == 1:
            return [part]
        parts = [np.empty((n, *part.shape[1:]), part.dtype) for n in self._lengths(part)]
        _exchange(part, parts, range(self.size))
        return parts

    def whole(self, part: np.ndarray) -> np.ndarray:
        """The same rows as one array in rank order, which must not be written to.

        Cost: processes of a machine share one copy in /dev/shm where it has more than 4 MB and
        there is room; else every process holds its own.
        """
        if self.size == 1:
            return part
        starts = np.cumsum([0, *self._lengths(part)])
        shape = (int(starts[-1]), *part.shape[1:])

        def make(many: bool) -> Path | None:
            with suppress(OSError):
                return create(SHARED_MEMORY, shape, part.dtype) if many else None
            return None

        array, near = None, [self.rank]
        large = shape[0] * _row_bytes(part) > _SMALL
        if large:
            array, near = shared_array(make, shape, part.dtype, rank=self.rank, gather=self.gather)
        result = np.empty(shape, part.dtype) if array is None else np.asarray(array)
        rows = [result[start:stop] for start, stop in pairwise(starts)]
        rows[self.rank][...] = part
        if array is None or len(near) < self.size:
            far = set(range(self.size)).difference(near) if self.rank == near[0] else ()
            _exchange(part, rows, far)
        if large:
            meet_all()  # all is filled
        result.flags.writeable = False
        return result

    def _lengths(self, part: np.ndarray) -> list[int]:
        meet()
        return [int(n) for n in paddle.concat(_all_gather(paddle.to_tensor([len(part)])))]


def _row_bytes(part: np.ndarray) -> int:
    return int(np.prod(part.shape[1:])) * part.itemsize


def _exchange(part: np.ndarray, parts: Sequence[np.ndarray], wanted: Collection[int]) -> None:
    """Fill in the ``wanted`` ones of ``parts``, which have the lengths of those of all
    processes."""
    longest = max(len(each) for each in parts) * _row_bytes(part)
    own = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
    flat = [each.reshape(-1).view(np.uint8) for each in parts]
    step = max(_CHUNK // len(parts), 1)
    for start in range(0, longest, step):
        # Collectives want equal shapes, so shorter parts travel with padding.
        sent = np.zeros(min(step, longest - start), np.uint8)
        piece = own[start : start + len(sent)]
        sent[: len(piece)] = piece
        received = _all_gather(paddle.to_tensor(sent))
        for rank in wanted:
            place = flat[rank][start : start + len(sent)]
            place[:] = received[rank].numpy()[: len(place)]


def gather_arrays(array: np.ndarray) -> np.ndarray:
    """Arrays of all processes in rank order, concatenated; lengths may differ.

    Cost: every process holds the whole. It waits for the others (`meet`).
    """
    parts = AllProcesses().gather(array)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def broadcast_array(array: np.ndarray) -> np.ndarray:
    """Process 0's array, which has to have the same shape and dtype everywhere.

    It waits for process 0 (`meet`).
    """
    if dist.get_world_size() == 1:
        return array
    meet()
    tensor = paddle.to_tensor(array)
    dist.broadcast(tensor, src=0)
    return tensor.numpy()


def broadcast_running_statistics(model: paddle.nn.Layer) -> None:
    """Give every process the batch-norm statistics (all that has no gradient) of process 0."""
    if dist.get_world_size() > 1:
        meet()
        for tensor in model.state_dict().values():
            if tensor.stop_gradient:
                dist.broadcast(tensor, src=0)
