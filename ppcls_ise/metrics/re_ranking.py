# SPDX-License-Identifier: Apache-2.0
"""Re-ranking of a gallery by k-reciprocal encoding, sparse and in blocks of queries."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from ppcls_ise.clustering.membership import (
    expanded_neighbors,
    half_length,
    mutual_neighbors,
    query_expansion,
    set_similarities,
)
from ppcls_ise.clustering.neighbors import search
from ppcls_ise.clustering.parallel import Progress, ordered_map, spans
from ppcls_ise.clustering.processes import ONE_PROCESS, Processes, own_rows, whole_matrix
from ppcls_ise.clustering.row_set import as_features
from ppcls_ise.metrics.rank import query_blocks

_BLOCK_VALUES = 1 << 23
# Shared entries summed at once: small enough for the caches.
_BLOCK_ENTRIES = 1 << 17
_UNIT_TOLERANCE = 1e-3


def re_ranking(
    query_features: np.ndarray,
    gallery_features: np.ndarray,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    processes: Processes = ONE_PROCESS,
    progress: Progress | None = None,
) -> Iterator[np.ndarray]:
    """Blocks of rows of the re-ranked distance matrix [Q, G], for ``evaluate_rank(distmat=...)``.

    Over the M = Q + G images together, with d_ij the squared Euclidean distance and
    d'_ij = d_ij / max_j d_ij:

    * R(i): mutual neighbors in lists of k1 + 1 (itself included), H(i): in lists of
      round(k1/2) + 1, R*(i): R(i) and all H(j), j in R(i), with |H(j) & R(i)| > (2/3)·|H(j)|;
    * V_ij = exp(-d'_ij) / sum over j' in R*(i) of exp(-d'_ij'), averaged over the first k2
      neighbors;
    * result = (1 - lambda)·(1 - S_ij / (2 - S_ij)) + lambda·d'_ij, S_ij = sum_q min(V_iq, V_jq).

    Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.
    Deviation: codes that pass squared distances to a function which squares them again rank by
    the fourth power; here d is squared once.

    M²·D/2 multiplications for the search; memory O(M·k1) plus two blocks per core of 32 MB.

    Args:
        query_features: [Q, D] unit rows.
        gallery_features: [G, D] unit rows.
        k1: length of the neighbor lists without the image itself.
        k2: length of the list averaged in query expansion; 1 switches it off.
        lambda_value: weight of the original distance, in [0, 1].
        processes: who shares the work; each receives the rows of its own queries.
        progress: called as progress("neighbors", done, total).

    Yields:
        [b, G] float32, consecutive queries; the same bytes for any number of cores and processes.

    Raises:
        ValueError: an empty side, different D, rows that are not unit, k1 or k2 below 1, lambda
            outside [0, 1].
    """
    query = as_features(query_features, name="query_features")
    gallery = as_features(gallery_features, name="gallery_features")
    for side, matrix in (("query", query), ("gallery", gallery)):
        if not len(matrix):
            raise ValueError(f"the {side} set is empty: there is nothing to re-rank")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query features have {query.shape[1]} values, gallery features {gallery.shape[1]}"
        )
    if k1 < 1 or k2 < 1:
        raise ValueError(f"k1 and k2 must be at least 1, got {k1} and {k2}")
    if not 0.0 <= lambda_value <= 1.0:
        raise ValueError(f"lambda_value must be in [0, 1], got {lambda_value}")
    features = np.concatenate([query, gallery])
    norms = np.linalg.norm(features, axis=1)
    if not (np.abs(norms - 1.0) <= _UNIT_TOLERANCE).all():
        row = int(np.argmax(~(np.abs(norms - 1.0) <= _UNIT_TOLERANCE)))
        raise ValueError(
            f"re-ranking needs unit rows; row {row} of query + gallery has norm {norms[row]:.4g}"
        )
    memberships, farthest = _memberships(features, k1, k2, processes, progress)
    blocks = query_blocks(len(query), len(gallery), processes)
    return _blocks(query, gallery, memberships, farthest, lambda_value, blocks)


def _memberships(
    features: np.ndarray, k1: int, k2: int, processes: Processes, progress: Progress | None
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """V after query expansion [M, M], and the largest squared distance of each row [M]."""
    lowest = np.empty(len(features), dtype=np.float32)
    lists = search(features, k1 + 1, lowest=lowest, processes=processes, progress=progress)
    farthest = np.maximum(2.0 - 2.0 * lowest, np.finfo(np.float32).tiny)
    own = first, last = own_rows(len(features), processes)
    half = whole_matrix(mutual_neighbors(lists[0][:, : half_length(k1)], own), processes)
    sets = expanded_neighbors(mutual_neighbors(lists[0], own), half)
    distances = np.maximum(2.0 - 2.0 * set_similarities(features, sets, [lists], first), 0.0)
    sizes = np.diff(sets.indptr)
    weights = np.exp(-distances / np.repeat(farthest[first:last], sizes))
    filled = sizes > 0
    totals = np.add.reduceat(weights, sets.indptr[:-1][filled]) if filled.any() else weights
    weights /= np.repeat(totals, sizes[filled])
    memberships = whole_matrix(
        sparse.csr_matrix(
            (weights.astype(np.float32), sets.indices, sets.indptr), shape=sets.shape
        ),
        processes,
    )
    if k2 > 1:
        own_lists = lists[0][first:last, :k2]
        memberships = whole_matrix(query_expansion(memberships, own_lists), processes)
    return memberships, farthest


def _blocks(
    query: np.ndarray,
    gallery: np.ndarray,
    memberships: sparse.csr_matrix,
    farthest: np.ndarray,
    lambda_value: float,
    blocks: list[tuple[int, int]],
) -> Iterator[np.ndarray]:
    columns = memberships[len(query) :].tocsc()
    # Entries of the columns that a query's row shares: what its overlaps cost.
    shared = np.diff(columns.indptr)[memberships[: len(query)].indices]
    work = np.concatenate([[0], np.cumsum(shared)])[memberships.indptr[: len(query) + 1]]
    step = max(1, _BLOCK_VALUES // len(gallery))

    def distances(span: tuple[int, int]) -> np.ndarray:
        start, stop = span
        block = query[start:stop] @ gallery.T
        np.subtract(2.0, 2.0 * block, out=block)
        np.maximum(block, 0.0, out=block)
        block *= lambda_value / farthest[start:stop, None]
        block += 1.0 - lambda_value
        first = start
        while first < stop:
            last = int(np.searchsorted(work, work[first] + _BLOCK_ENTRIES, side="right")) - 1
            last = min(max(last, first + 1), stop)
            place, overlap = _overlaps(memberships[first:last], columns)
            near = block[first - start : last - start].reshape(-1)
            near[place] -= (1.0 - lambda_value) * (overlap / (2.0 - overlap))
            first = last
        return block

    parts = ((begin + i, begin + j) for begin, end in blocks for i, j in spans(end - begin, step))
    yield from ordered_map(distances, parts)


def _overlaps(rows: sparse.csr_matrix, columns: sparse.csc_matrix) -> tuple[np.ndarray, np.ndarray]:
    """S_ij = sum_q min(V_iq, W_jq) for rows V [R, M] and W [G, M], given by columns.

    Returns:
        Ascending places i·G + j of the pairs that share a column, and S there, float64.
    """
    begin = columns.indptr[rows.indices]
    length = columns.indptr[rows.indices + 1] - begin
    source = np.repeat(begin - (np.cumsum(length) - length), length)
    source += np.arange(len(source), dtype=source.dtype)
    size = columns.shape[0]
    offset = np.repeat(np.arange(rows.shape[0]) * size, np.diff(rows.indptr))
    key = np.repeat(offset, length) + columns.indices[source]
    shared = np.minimum(np.repeat(rows.data, length), columns.data[source])
    sums = np.bincount(key, weights=shared, minlength=rows.shape[0] * size)
    place = np.flatnonzero(sums)
    return place, sums[place]
