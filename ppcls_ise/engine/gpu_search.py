# SPDX-License-Identifier: Apache-2.0
"""The neighbor search on Paddle's device: a backend for :mod:`ppcls_ise.clustering`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TypeVar

import numpy as np
import paddle

from ppcls_ise import compat
from ppcls_ise.clustering import faiss_search
from ppcls_ise.clustering.neighbors import Backend, search_backend
from ppcls_ise.clustering.parallel import Progress, spans
from ppcls_ise.clustering.processes import ONE_PROCESS, Processes, own_rows
from ppcls_ise.clustering.row_set import RowSet
from ppcls_ise.engine.tf32 import full_float32
from ppcls_ise.errors import ConfigError, InexactSearchError

_QUERY_ROWS = 4096
_BASE_ROWS = 65536

Result = TypeVar("Result")


def backend_of(name: str) -> Backend:
    """What ``Clustering.backend`` stands for on Paddle's current device.

    Raises:
        ConfigError: it is not available.
    """
    on_device = paddle.device.get_device() != "cpu"
    if name == "paddle_gpu" and not on_device:
        raise ConfigError(
            "Clustering.backend=paddle_gpu needs a Global.device other than cpu; on the processor "
            "there are auto, blocked and faiss"
        )
    if name == "paddle_gpu" or (name == "auto" and on_device):
        return top_candidates
    if on_device and faiss_search.gpu_count():
        paddle.device.cuda.empty_cache()  # faiss allocates beside what Paddle holds back
    return search_backend(name)


def or_blocked(compute: Callable[[Backend], Result], backend: Backend) -> Result:
    """``compute(backend)``; where that does not multiply in float32, a warning and the search on
    the processor instead."""
    try:
        return compute(backend)
    except InexactSearchError as error:
        compat.logger().warning(f"{error}. Searching on the processor instead (blocked).")
        return compute(search_backend("blocked"))


@paddle.no_grad()
def top_candidates(
    row_set: RowSet,
    width: int,
    *,
    processes: Processes = ONE_PROCESS,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """See :class:`ppcls_ise.clustering.neighbors.Backend`; M²·D products on the current device,
    shared out by rows, each process on its own.

    The rows stay in the memory of the host and go through the device in blocks, so that M is
    bounded by the former: 65,536 rows at a time (0.5 GB for D = 2048), 4,096 of the own rows
    beside them, and their products (1 GB, and as much again to sort them out).
    """
    count = len(row_set)
    first, last = own_rows(count, processes)
    indices = np.full((last - first, width), -1, dtype=np.int32)
    values = np.full((last - first, width), -np.inf, dtype=np.float32)
    blocks = list(product(spans(count, _BASE_ROWS), spans(last - first, _QUERY_ROWS)))
    on_device = -1  # where the rows that are on the device begin
    with full_float32():
        for done, ((begin, end), (start, stop)) in enumerate(blocks, 1):
            if begin != on_device:
                base, on_device = paddle.to_tensor(row_set.slice(begin, end)), begin
            own = paddle.to_tensor(row_set.slice(first + start, first + stop))
            scores = paddle.matmul(own, base, transpose_y=True)
            if row_set.groups is not None:
                left = paddle.to_tensor(row_set.groups[first + start : first + stop])
                right = paddle.to_tensor(row_set.groups[begin:end])
                same = left.unsqueeze(1) == right.unsqueeze(0)
                scores = paddle.where(same, paddle.full_like(scores, -float("inf")), scores)
            found_values, found = paddle.topk(scores, min(width, end - begin), axis=1)
            # What these rows had before, and what this block adds.
            names = np.concatenate([indices[start:stop], found.numpy() + begin], axis=1)
            both = np.concatenate([values[start:stop], found_values.numpy()], axis=1)
            best = np.argpartition(both, both.shape[1] - width, axis=1)[:, -width:]
            indices[start:stop] = np.take_along_axis(names, best, axis=1)
            values[start:stop] = np.take_along_axis(both, best, axis=1)
            if progress is not None:
                progress("neighbors", done, len(blocks))
    indices[np.isneginf(values)] = -1
    return indices, values
