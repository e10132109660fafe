# SPDX-License-Identifier: Apache-2.0
"""k-reciprocal Jaccard distance as a sparse graph: plain, camera-aware or tracklet-aware."""

from __future__ import annotations

import functools
import operator
import time

import numpy as np
from scipy import sparse

from ppcls_ise.clustering.group_lists import group_lists
from ppcls_ise.clustering.membership import (
    Lists,
    expanded_neighbors,
    half_length,
    mutual_neighbors,
    query_expansion,
    set_similarities,
    soft_memberships,
)
from ppcls_ise.clustering.neighbors import Backend, search
from ppcls_ise.clustering.overlap import jaccard_distances
from ppcls_ise.clustering.parallel import Progress
from ppcls_ise.clustering.processes import ONE_PROCESS, Processes, own_rows, whole_matrix
from ppcls_ise.clustering.row_set import as_features
from ppcls_ise.clustering.tracklets import tracklet_array

_GROUP_DEFAULTS = {"k1_intra": 5, "k1_inter": 20, "k2_intra": 2, "k2_inter": 4}


def jaccard_graph(
    features: np.ndarray,
    k1: int = 30,
    k2: int = 6,
    max_distance: float = 1.0,
    *,
    camera_ids: np.ndarray | None = None,
    tracklet_ids: np.ndarray | None = None,
    k1_intra: int | None = None,
    k1_inter: int | None = None,
    k2_intra: int | None = None,
    k2_inter: int | None = None,
    neighbors: np.ndarray | Lists | None = None,
    backend: str | Backend = "auto",
    processes: Processes = ONE_PROCESS,
    progress: Progress | None = None,
    seconds: dict[str, float] | None = None,
) -> sparse.csr_matrix:
    """Jaccard distances J < max_distance between the soft k-reciprocal neighborhoods of images.

    Clustering (1) to Clustering (10). With rank(i) the k1 nearest rows of i, itself included:

    * R(i) = { j in rank(i) : i in rank(j) }, H(i) the same with lists of round(k1/2) + 1;
    * R*(i) = R(i) and all H(j), j in R(i), with |H(j) & R(i)| > (2/3)·|H(j)|;
    * V_ij = softmax over j in R*(i) of -d_ij, d_ij = 2 - 2·<x_i, x_j>;
    * V_i <- mean of V_j over the first k2 entries of rank(i), if k2 > 1;
    * J_ij = max(0, 1 - S_ij / (2 - S_ij)), S_ij = sum_q min(V_iq, V_jq).

    Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017, in
    the form used for pseudo-labels. Deviation: the diagonal is 0 by definition.

    With ``camera_ids`` the lists are those of Chen et al., "CA-Jaccard", CVPR 2024
    (arXiv 2311.10605): R(i) unites mutual neighbors within the own camera (lists of k1_intra + 1)
    and across cameras (lists of k1_inter + 1), there is no expansion by H, and the average runs
    over the first k2_intra and k2_inter entries of the two lists; k1 and k2 are not used.
    Deviation: lists that are too short stay short instead of being padded with far images.

    With ``tracklet_ids`` the tracklet takes the place of the camera: lists within the own tracklet
    (the frames of which are nearly equal) and across tracklets. With both, k1_intra + 1 and
    k2_intra entries come from the own tracklet, as many from the other tracklets of the own camera,
    and k1_inter + 1 and k2_inter from all other cameras.

    Beside the search (see :func:`ppcls_ise.clustering.k_nearest`) time and memory grow linearly
    with N; no N x N array is ever made.

    Args:
        features: [N, D], unit rows, used as float32.
        k1: length of the neighbor lists, itself included; may exceed N.
        k2: length of the lists averaged in query expansion, cut at k1; 1 switches it off.
        max_distance: pairs with J < max_distance (as float32) are stored.
        camera_ids: [N] integers; asks for the camera-aware form.
        tracklet_ids: [N] integers, below 0 = in no tracklet; asks for the tracklet-aware form. No
            tracklet is in two cameras.
        k1_intra: 5 by default, with ``camera_ids`` or ``tracklet_ids`` only, as the next three.
        k1_inter: 20 by default.
        k2_intra: 2 by default.
        k2_inter: 4 by default.
        neighbors: lists found elsewhere, [N, w] indices (-1 = empty, w >= min(k1, N)) or
            (indices, similarities [N, w]); not with ``camera_ids`` or ``tracklet_ids``.
        backend: who searches, see :func:`ppcls_ise.clustering.k_nearest`.
        processes: who shares the work, see there; process 0 receives the graph, the others one
            without entries.
        progress: called as progress(stage, done, total) in the stages "neighbors", "order", "ties",
            "sets", "expansion" and "jaccard".
        seconds: optional dictionary, receives the seconds of "neighbors" and "jaccard".

    Returns:
        [N, N] float32, symmetric, rows sorted by column: one stored entry per pair with
        J < max_distance, J = 0 included, and the diagonal stored as 0.0.

    Raises:
        ValueError: a length below 1, max_distance NaN or above 1, bad features, k1_intra and the
            like without camera_ids or tracklet_ids, ids or neighbors of a wrong shape, a tracklet
            in two cameras.
    """
    if not max_distance <= 1.0:
        raise ValueError(
            f"max_distance must be at most 1 (pairs at distance 1 are never stored), "
            f"got {max_distance}"
        )
    matrix = as_features(features)
    given = {"k1_intra": k1_intra, "k1_inter": k1_inter}
    given |= {"k2_intra": k2_intra, "k2_inter": k2_inter}
    started = time.perf_counter()
    if camera_ids is None and tracklet_ids is None:
        names = [name for name, value in given.items() if value is not None]
        if names:
            raise ValueError(
                f"{', '.join(names)} asks for the camera-aware or tracklet-aware Jaccard distance, "
                "but camera_ids and tracklet_ids are missing: pass one number per image"
            )
        _check_lengths({"k1": k1, "k2": k2})
        lists = _neighbor_lists(matrix, int(k1), neighbors, backend, processes, progress)
        searched = time.perf_counter()
        memberships = _memberships(matrix, lists, int(k1), int(k2), processes, progress)
        del lists
    else:
        if neighbors is not None:
            raise ValueError("neighbors cannot be combined with camera_ids or tracklet_ids")
        cameras = None if camera_ids is None else _camera_array(camera_ids, len(matrix))
        tracklets = (
            None if tracklet_ids is None else tracklet_array(tracklet_ids, len(matrix), cameras)
        )
        length = {
            name: _GROUP_DEFAULTS[name] if value is None else int(value)
            for name, value in given.items()
        }
        _check_lengths(length)
        within, across = group_lists(
            matrix,
            (
                max(length["k1_intra"] + 1, length["k2_intra"]),
                max(length["k1_inter"] + 1, length["k2_inter"]),
            ),
            tracklets=tracklets,
            cameras=cameras,
            backend=backend,
            processes=processes,
            progress=progress,
        )
        searched = time.perf_counter()
        memberships = _group_memberships(matrix, within, across, length, processes, progress)
        del within, across
    graph = jaccard_distances(memberships, max_distance, processes=processes, progress=progress)
    if seconds is not None:
        seconds["neighbors"] = searched - started
        seconds["jaccard"] = time.perf_counter() - searched
    return graph


def _memberships(
    features: np.ndarray,
    lists: Lists,
    k1: int,
    k2: int,
    processes: Processes,
    progress: Progress | None,
) -> sparse.csr_matrix:
    """V after query expansion, from the neighbor lists."""
    ranks = lists[0][:, :k1]
    own = own_rows(len(features), processes)
    half = whole_matrix(mutual_neighbors(ranks[:, : half_length(k1)], own), processes)
    sets = expanded_neighbors(mutual_neighbors(ranks, own), half, progress=progress)
    del half
    known = [lists] if lists[1].size else []
    similarities = set_similarities(features, sets, known, own[0])
    memberships = whole_matrix(soft_memberships(sets, similarities), processes)
    del sets, similarities
    if k2 == 1:
        return memberships
    own_lists = ranks[slice(*own), :k2]
    return whole_matrix(query_expansion(memberships, own_lists, progress=progress), processes)


def _group_memberships(
    features: np.ndarray,
    within: list[Lists],
    across: list[Lists],
    length: dict[str, int],
    processes: Processes,
    progress: Progress | None,
) -> sparse.csr_matrix:
    """V after query expansion, from the lists within and across groups, which are disjoint."""
    own = own_rows(len(features), processes)
    reciprocal = [
        mutual_neighbors(indices[:, : length["k1_intra"] + 1], own) for indices, _ in within
    ]
    reciprocal += [
        mutual_neighbors(indices[:, : length["k1_inter"] + 1], own) for indices, _ in across
    ]
    sets = functools.reduce(operator.add, reciprocal)
    del reciprocal
    sets.sort_indices()
    similarities = set_similarities(features, sets, [*within, *across], own[0])
    memberships = whole_matrix(soft_memberships(sets, similarities), processes)
    del sets, similarities
    rows = slice(*own)
    averaged = [indices[rows, : length["k2_intra"]] for indices, _ in within]
    averaged += [indices[rows, : length["k2_inter"]] for indices, _ in across]
    own_lists = np.concatenate(averaged, axis=1)
    return whole_matrix(query_expansion(memberships, own_lists, progress=progress), processes)


def _check_lengths(lengths: dict[str, int]) -> None:
    for name, value in lengths.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _camera_array(camera_ids: np.ndarray, count: int) -> np.ndarray:
    cameras = np.asarray(camera_ids)
    if cameras.shape != (count,):
        raise ValueError(f"camera_ids must have shape ({count},), got {cameras.shape}")
    return np.unique(cameras, return_inverse=True)[1].reshape(count).astype(np.int64)


def _neighbor_lists(
    features: np.ndarray,
    k1: int,
    neighbors: np.ndarray | Lists | None,
    backend: str | Backend,
    processes: Processes,
    progress: Progress | None,
) -> Lists:
    if neighbors is None:
        return search(features, k1, backend=backend, processes=processes, progress=progress)
    given = neighbors if isinstance(neighbors, tuple) else (neighbors, None)
    indices = np.asarray(given[0], dtype=np.int64)
    count = len(features)
    if indices.ndim != 2 or len(indices) != count or indices.shape[1] < min(k1, count):
        raise ValueError(
            f"neighbors must have shape ({count}, at least {min(k1, count)}), got {indices.shape}"
        )
    if indices.size and (indices.min() < -1 or indices.max() >= count):
        raise ValueError(f"neighbors must hold indices in [-1, {count})")
    if given[1] is None:
        # Nothing is known: every similarity is computed from the features.
        return indices, np.empty((count, 0), dtype=np.float32)
    return indices, np.asarray(given[1], dtype=np.float32)
