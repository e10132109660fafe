# SPDX-License-Identifier: Apache-2.0
"""Feature rows as the neighbor search sees them: checked, with norms, exact duplicates merged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppcls_ise.clustering.parallel import map_rows, spans
from ppcls_ise.clustering.processes import ONE_PROCESS, Processes, own_rows

_CHUNK_ROWS = 512
_PAIR_VALUES = 1 << 17
_HASH_SEED = 20220617
# Inner products of rows up to this length cannot overflow float32.
_LARGEST_NORM = 1e18


def as_features(features: np.ndarray, *, name: str = "features") -> np.ndarray:
    """Return ``features`` as a C-contiguous float32 matrix [N, D]; no copy if it is one."""
    array = np.ascontiguousarray(features, dtype=np.float32)
    if array.ndim != 2:
        raise ValueError(f"{name} must be a matrix [N, D], got shape {array.shape}")
    return array


def unit_rows(values: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    """``N(v) = v / max(|v|, 1e-12)`` of each row of [N, D], a copy unless ``out`` is given; a zero
    row stays zero."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, np.maximum(norms, 1e-12), out=out)


def row_norms(
    features: np.ndarray, *, name: str = "features", processes: Processes = ONE_PROCESS
) -> np.ndarray:
    """Euclidean norms [N] float64; O(N·D) time, shared out, memory of a few hundred rows.

    Raises:
        ValueError: a row holds NaN or Inf, or is too long for float32 products; names the row.
    """
    first, last = own_rows(len(features), processes)
    own = np.empty(last - first, dtype=np.float64)

    def measure(span: tuple[int, int]) -> None:
        chunk = features[first:last][slice(*span)].astype(np.float64)
        own[slice(*span)] = np.sqrt(np.einsum("ij,ij->i", chunk, chunk))

    list(map_rows(measure, len(own), _CHUNK_ROWS))
    norms = processes.whole(own)
    # The float64 squares of finite float32 values cannot overflow, so the norm shows every NaN/Inf.
    bad = np.flatnonzero(~np.isfinite(norms))
    if bad.size:
        raise ValueError(
            f"{name}: row {bad[0]} contains NaN or Inf ({bad.size} such row(s) of {len(norms)})"
        )
    long = np.flatnonzero(norms > _LARGEST_NORM)
    if long.size:
        raise ValueError(
            f"{name}: row {long[0]} has norm {norms[long[0]]:.3g}, above {_LARGEST_NORM:g}; "
            "its inner products overflow float32. Normalize the rows."
        )
    return norms


def inner_products(features: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float32 inner products of the rows left[p] and right[p] of ``features`` [N, D]; [P].

    A pair gives the same bits at every place and in both orders.
    """
    products = np.empty(len(left), dtype=np.float32)
    step = max(1, _PAIR_VALUES // max(features.shape[1], 1))
    for start in range(0, len(left), step):
        part = slice(start, start + step)
        np.einsum("ij,ij->i", features[left[part]], features[right[part]], out=products[part])
    return products


def duplicate_groups(
    features: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    processes: Processes = ONE_PROCESS,
) -> np.ndarray:
    """For each row the lowest index of a row with exactly the same values (and group), [N] int64.

    Rows are hashed to 64 bits and equal hashes are verified. O(N·D) time, shared out. Two different
    rows with one hash are simply not merged with each other's copies, so a collision costs time,
    never truth.
    """
    count, dim = features.shape
    weights = np.random.default_rng(_HASH_SEED).integers(0, 2**63, size=dim, dtype=np.uint64)
    weights = weights * np.uint64(2) + np.uint64(1)
    first, last = own_rows(count, processes)
    own = np.empty(last - first, dtype=np.uint64)

    def hash_rows(span: tuple[int, int]) -> None:
        # "+ 0.0" turns -0.0 into 0.0: equal values must have equal bits.
        bits = (features[first:last][slice(*span)] + np.float32(0.0)).view(np.uint32)
        own[slice(*span)] = np.einsum("ij,j->i", bits.astype(np.uint64), weights)

    list(map_rows(hash_rows, len(own), _CHUNK_ROWS))
    keys = processes.whole(own)
    if groups is not None:
        keys = keys ^ groups.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    _, place, inverse = np.unique(keys, return_index=True, return_inverse=True)
    lowest = place[inverse.ravel()].astype(np.int64)
    for start, stop in spans(count, _CHUNK_ROWS):
        rows: np.ndarray = np.arange(start, stop)
        rows = rows[lowest[rows] != rows]
        if rows.size:
            same = (features[rows] == features[lowest[rows]]).all(axis=1)
            if groups is not None:
                same &= groups[rows] == groups[lowest[rows]]
            lowest[rows[~same]] = rows[~same]
    return lowest


@dataclass(frozen=True)
class RowSet:
    """Rows of a feature matrix, optionally a subset given by index, never copied as a whole.

    Attributes:
        features: [N, D] float32.
        rows: [M] int64 ascending indices of the rows meant, or None for all of them.
        norms: [M] float64.
        groups: [M] int64; if given, only rows of different groups are neighbors of each other.
    """

    features: np.ndarray
    rows: np.ndarray | None
    norms: np.ndarray
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.norms)

    @property
    def dim(self) -> int:
        return int(self.features.shape[1])

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop), a view where possible."""
        if self.rows is None:
            return self.features[start:stop]
        return self.features[self.rows[start:stop]]

    def take(self, index: np.ndarray) -> np.ndarray:
        """Rows of the given positions, a copy."""
        return self.features[index if self.rows is None else self.rows[index]]
