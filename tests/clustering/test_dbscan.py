# SPDX-License-Identifier: Apache-2.0
"""DBSCAN against scikit-learn and against a point-by-point derivation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import DBSCAN

from ppcls_ise.clustering import dbscan


def random_graph(count, density, seed):
    """Symmetric dense distances in steps of 0.1 (many exactly at eps), and the stored part."""
    rng = np.random.default_rng(seed)
    dense = np.ones((count, count), dtype=np.float32)
    upper = np.triu(rng.random((count, count)) < density, 1)
    steps = rng.integers(0, 10, (count, count)).astype(np.float32) / np.float32(10)
    dense[upper] = steps[upper]
    dense = np.minimum(dense, dense.T)
    np.fill_diagonal(dense, 0)
    row, column = np.nonzero(dense < 1)
    graph = sparse.csr_matrix((dense[row, column], (row, column)), shape=dense.shape)
    return dense, graph


def by_hand(dense, eps, min_samples):
    near = dense <= np.float32(eps)
    np.fill_diagonal(near, True)
    core = near.sum(axis=1) >= min_samples
    labels = np.full(len(dense), -1)
    cluster = 0
    for seed in range(len(dense)):
        if not core[seed] or labels[seed] != -1:
            continue
        stack = [seed]
        labels[seed] = cluster
        while stack:
            for other in np.flatnonzero(near[stack.pop()] & core & (labels == -1)):
                labels[other] = cluster
                stack.append(other)
        cluster += 1
    core_labels = labels.copy()
    for point in np.flatnonzero(~core):
        reached = core_labels[near[point] & core]
        if len(reached):
            labels[point] = reached.min()
    return labels


@settings(max_examples=80, deadline=None)
@given(
    count=st.integers(1, 60),
    density=st.floats(0.0, 0.3),
    seed=st.integers(0, 10**6),
    eps=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.5]),
    min_samples=st.integers(1, 6),
)
def test_agrees_with_scikit_learn(count, density, seed, eps, min_samples):
    dense, graph = random_graph(count, density, seed)
    labels = dbscan(graph, eps, min_samples)
    assert labels.dtype == np.int64
    if eps < 1:  # beyond that the graph has no entries for the far pairs
        np.testing.assert_array_equal(labels, by_hand(dense, eps, min_samples))
    model = DBSCAN(eps=max(eps, 1e-6), min_samples=min_samples, metric="precomputed")
    np.testing.assert_array_equal(labels, model.fit(graph).labels_)


def test_limit_cases():
    empty = sparse.csr_matrix((0, 0), dtype=np.float32)
    assert dbscan(empty, 0.5).shape == (0,)
    lone = sparse.csr_matrix((3, 3), dtype=np.float32)  # not even a diagonal
    np.testing.assert_array_equal(dbscan(lone, 0.5), [-1, -1, -1])
    np.testing.assert_array_equal(dbscan(lone, 0.5, 1), [0, 1, 2])
    copies = sparse.csr_matrix(
        (np.zeros(16, dtype=np.float32), np.tile(np.arange(4), 4), np.arange(0, 17, 4))
    )
    np.testing.assert_array_equal(dbscan(copies, 0.0), [0, 0, 0, 0])


def test_border_point_joins_the_lowest_numbered_cluster():
    # Rows 1-4 and 5-8 are clusters, row 0 is within reach of one core row of each.
    dense = np.ones((9, 9), dtype=np.float32)
    dense[1:5, 1:5] = dense[5:9, 5:9] = 0.1
    dense[0, [1, 5]] = dense[[1, 5], 0] = 0.2
    np.fill_diagonal(dense, 0)
    np.testing.assert_array_equal(
        dbscan(sparse.csr_matrix(dense), 0.5, 4), [0, 0, 0, 0, 0, 1, 1, 1, 1]
    )


def test_errors_name_the_key():
    graph = sparse.csr_matrix((2, 2), dtype=np.float32)
    for eps in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="Clustering.eps"):
            dbscan(graph, eps)
    with pytest.raises(ValueError, match="Clustering.min_samples"):
        dbscan(graph, 0.5, 0)
    with pytest.raises(ValueError, match="square"):
        dbscan(sparse.csr_matrix((2, 3), dtype=np.float32), 0.5)


@pytest.mark.parametrize("kind", [float, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("eps", [0.1, 0.3, 0.6, 0.7])
def test_a_distance_of_exactly_eps_is_near_whatever_type_eps_has(eps, kind):
    dense = np.full((4, 4), np.float32(eps), np.float32)
    np.fill_diagonal(dense, 0)
    assert dbscan(sparse.csr_matrix(dense), kind(eps), 2).tolist() == [0] * 4
    assert dbscan(dense, kind(eps), 2).tolist() == [0] * 4


def test_whole_distances_are_compared_with_a_fraction():
    assert dbscan(np.array([[0, 1], [1, 0]]), 0.9, 2).tolist() == [-1, -1]
    assert dbscan(np.array([[0, 1], [1, 0]]), 1.1, 2).tolist() == [0, 0]
