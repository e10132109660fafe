# SPDX-License-Identifier: Apache-2.0
"""Who multiplies: the search backends, all with the same result."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ppcls_ise.clustering import faiss_search
from ppcls_ise.clustering.blocked_search import top_candidates
from ppcls_ise.clustering.parallel import Progress
from ppcls_ise.clustering.row_set import RowSet
from ppcls_ise.errors import ConfigError


class Backend(Protocol):
    """Finds the largest inner products; what it returns is put in exact order afterwards."""

    def __call__(
        self, row_set: RowSet, width: int, *, progress: Progress | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Indices [M, width] int32 (-1 = empty) and float32 products (-Inf there) of every row.

        In any order; products that are missing are at most the smallest one of their row, up to
        float32 rounding. Pairs of one group are left out if the row set has groups.
        """


def search_backend(backend: str | Backend) -> Backend:
    """The backend of that name.

    Args:
        backend: "blocked" (own block products on the processor), "faiss", "faiss_gpu", or "auto":
            faiss on the GPU where it has one, else "blocked", which is faster than faiss on the
            processor. Or a function (for example of :mod:`ppcls_ise.gpu_search`).

    Raises:
        ConfigError: it is not there; names the key and what is.
    """
    if not isinstance(backend, str):
        return backend
    backends: dict[str, Backend] = {"blocked": top_candidates}
    if faiss_search.installed():
        backends["faiss"] = faiss_search.top_candidates
    if faiss_search.gpu_count():
        backends["faiss_gpu"] = faiss_search.gpu_top_candidates
    if backend == "auto":
        return backends.get("faiss_gpu", top_candidates)
    if backend not in backends:
        raise ConfigError(
            f"Clustering.backend={backend} is not available here; there are auto, "
            f"{', '.join(backends)} (faiss needs the package faiss-cpu, faiss_gpu a faiss built "
            "with CUDA and a GPU, paddle_gpu a Global.device other than cpu)"
        )
    return backends[backend]
