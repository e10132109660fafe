# SPDX-License-Identifier: Apache-2.0
"""The neighbor search on Paddle's device: a backend for :mod:`ppcls_ise.clustering`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import paddle

from ppcls_ise import compat
from ppcls_ise.clustering import faiss_search
from ppcls_ise.clustering.neighbors import Backend, search_backend
from ppcls_ise.clustering.parallel import Progress, spans
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
    row_set: RowSet, width: int, *, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """See :class:`ppcls_ise.clustering.neighbors.Backend`; M²·D products on the current device.

    Needs memory for the rows (4·M·D bytes) and one block of 4,096 x 65,536 products (1 GB, and as
    much again to sort it out).
    """
    count = len(row_set)
    indices = np.empty((count, width), dtype=np.int32)
    values = np.empty((count, width), dtype=np.float32)
    rows = paddle.to_tensor(row_set.slice(0, count))
    groups = None if row_set.groups is None else paddle.to_tensor(row_set.groups)
    with full_float32():
        for start, stop in spans(count, _QUERY_ROWS):
            best_values: Any = None
            best: Any = None
            for first, last in spans(count, _BASE_ROWS):
                scores = paddle.matmul(rows[start:stop], rows[first:last], transpose_y=True)
                if groups is not None:
                    same = groups[start:stop].unsqueeze(1) == groups[first:last].unsqueeze(0)
                    scores = paddle.where(same, paddle.full_like(scores, -float("inf")), scores)
                found_values, found = paddle.topk(scores, min(width, last - first), axis=1)
                found = found + first
                if best is not None:
                    found_values = paddle.concat([best_values, found_values], axis=1)
                    found = paddle.concat([best, found], axis=1)
                    found_values, place = paddle.topk(
                        found_values, min(width, found.shape[1]), axis=1
                    )
                    found = paddle.take_along_axis(found, place, axis=1)
                best_values, best = found_values, found
            indices[start:stop], values[start:stop] = best.numpy(), best_values.numpy()
            if progress is not None:
                progress("neighbors", stop, count)
    indices[np.isneginf(values)] = -1
    return indices, values
