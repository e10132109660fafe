# SPDX-License-Identifier: Apache-2.0
"""The neighbor search against a float64 stable sort, with every kind of tie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppcls_ise.clustering import k_nearest
from ppcls_ise.clustering.blocked_search import top_candidates
from ppcls_ise.clustering.neighbors import search
from ppcls_ise.clustering.row_set import RowSet, duplicate_groups, row_norms


def sorted_oracle(features, k, allowed=None):
    """Full stable sort of float64 inner products, each summed in the same order."""
    rows = features.astype(np.float64)
    scores = np.array([(rows * row).sum(axis=1) for row in rows]).round(12)
    if allowed is not None:
        scores[~allowed] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def nasty_features():
    rng = np.random.default_rng(7)
    return {
        "distinct": unit(rng.normal(size=(300, 16))),
        "few copies": unit(rng.normal(size=(200, 16)))[rng.integers(0, 200, 300)],
        "groups larger than k": unit(rng.normal(size=(6, 16)))[rng.integers(0, 6, 400)],
        "all equal": np.ones((300, 7)),
        "all zero": np.zeros((100, 5)),
        "zero rows": unit(rng.normal(size=(400, 16))) * (rng.random((400, 1)) < 0.7),
        "negative zeros": np.where(np.arange(8) < 4, -0.0, 0.0) * rng.normal(size=(50, 8)),
        "small integers": rng.integers(-1, 2, size=(500, 12)),
        "integers, long tie runs": rng.integers(-1, 2, size=(400, 64)),
        "quantized": np.round(rng.normal(size=(400, 8)) * 2) / 4,
        "different lengths": rng.normal(size=(200, 8)) * 10.0 ** rng.integers(-3, 4, (200, 1)),
        "one row": np.ones((1, 3)),
    }


@pytest.mark.parametrize("k", [1, 3, 30, 1000])
@pytest.mark.parametrize("name", list(nasty_features()))
def test_agrees_with_a_stable_float64_sort(name, k):
    features = nasty_features()[name].astype(np.float32)
    indices, similarities = k_nearest(features, k)
    assert indices.shape == similarities.shape == (len(features), min(k, len(features)))
    assert indices.dtype == np.int64 and similarities.dtype == np.float32
    np.testing.assert_array_equal(indices, sorted_oracle(features, k))
    expected = np.einsum("id,ijd->ij", features.astype(float), features[indices].astype(float))
    scale = (np.linalg.norm(features, axis=1).max() ** 2) if len(features) else 1.0
    np.testing.assert_allclose(similarities, expected, rtol=1e-5, atol=1e-6 * scale)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 60),
    dim=st.integers(1, 5),
    k=st.integers(1, 70),
    seed=st.integers(0, 10**6),
    levels=st.integers(1, 4),
)
def test_agrees_on_random_quantized_rows(count, dim, k, seed, levels):
    rng = np.random.default_rng(seed)
    features = rng.integers(-levels, levels + 1, size=(count, dim)).astype(np.float32) / levels
    np.testing.assert_array_equal(k_nearest(features, k)[0], sorted_oracle(features, k))


def test_block_size_does_not_matter():
    features = unit(np.random.default_rng(1).normal(size=(500, 24))).astype(np.float32)
    row_set = RowSet(features=features, rows=None, norms=row_norms(features))
    lowest = np.empty(500, dtype=np.float32)
    reference = np.sort(-(features @ features.T), axis=1)
    for block_rows in (7, 64, 499, 500, 4096):
        indices, values = top_candidates(row_set, 11, lowest=lowest, block_rows=block_rows)
        np.testing.assert_allclose(-np.sort(-values, axis=1), -reference[:, :11], atol=1e-6)
        np.testing.assert_allclose(lowest, -reference[:, -1], atol=1e-6)
        assert all(len(set(row)) == 11 for row in indices.tolist())


def test_ties_hold_across_blocks():
    # More rows than one block, copies far apart: block products differ in the last bit.
    rng = np.random.default_rng(3)
    distinct = unit(rng.normal(size=(2500, 33))).astype(np.float32)
    features = np.concatenate([distinct, distinct[::-1][:2000]])
    indices, _ = k_nearest(features, 12)
    twin = np.arange(len(features))
    twin[2500:] = 2499 - np.arange(2000)
    np.testing.assert_array_equal(indices[2500:], indices[twin[2500:]])
    some = rng.choice(len(features), 60, replace=False)
    scores = np.array([(features.astype(float) * features[i].astype(float)).sum(1) for i in some])
    expected = np.argsort(-scores.round(12), axis=1, kind="stable")[:, :12]
    np.testing.assert_array_equal(indices[some], expected)


def test_groups_exclude_each_other():
    rng = np.random.default_rng(5)
    features = unit(rng.normal(size=(40, 6)))[rng.integers(0, 40, 150)].astype(np.float32)
    groups = rng.integers(0, 3, 150)
    allowed = groups[:, None] != groups[None, :]
    for k in (4, 60, 150):
        indices, values = search(features, k, groups=groups)
        oracle = sorted_oracle(features, k, allowed)
        for row in range(150):
            size = min(k, int(allowed[row].sum()))
            np.testing.assert_array_equal(indices[row, :size], oracle[row, :size])
            assert (indices[row, size:] == -1).all() and np.isneginf(values[row, size:]).all()
    indices, _ = search(features, 5, groups=np.zeros(150, dtype=np.int64))
    assert (indices == -1).all()


def test_duplicate_groups():
    features = np.array([[1, 2], [0, 0], [1, 2], [-0.0, 0], [3, 4]], dtype=np.float32)
    np.testing.assert_array_equal(duplicate_groups(features), [0, 1, 0, 1, 4])
    groups = np.array([0, 0, 1, 0, 0])
    np.testing.assert_array_equal(duplicate_groups(features, groups), [0, 1, 2, 1, 4])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_values_are_named(value):
    features = np.ones((1000, 4), dtype=np.float32)
    features[[700, 900], 2] = value
    with pytest.raises(ValueError, match="row 700 contains NaN or Inf.*2 such"):
        k_nearest(features, 3)


def test_other_errors():
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        k_nearest(np.ones((4, 2), dtype=np.float32), 0)
    with pytest.raises(ValueError, match="matrix"):
        k_nearest(np.ones(4, dtype=np.float32), 1)
    with pytest.raises(ValueError, match="row 1 has norm"):
        k_nearest(np.array([[1.0], [1e30]], dtype=np.float32), 1)


def test_empty_and_progress():
    indices, similarities = k_nearest(np.empty((0, 8), dtype=np.float32), 3)
    assert indices.shape == similarities.shape == (0, 0)
    calls = []
    k_nearest(np.eye(5, dtype=np.float32), 2, progress=lambda *call: calls.append(call))
    assert calls == [("neighbors", 1, 1), ("order", 5, 5)]
