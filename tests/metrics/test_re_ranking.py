# SPDX-License-Identifier: Apache-2.0
"""Sparse re-ranking against the dense definition."""

import numpy as np
import pytest

from ppcls_ise.metrics import evaluate_rank, re_ranking


def problem(queries, gallery, seed, dim=12, clusters=8):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(clusters, dim))
    rows = centers[rng.integers(0, clusters, queries + gallery)]
    rows = rows + 0.7 * rng.normal(size=rows.shape)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return rows[:queries], rows[queries:]


def dense_oracle(query, gallery, k1, k2, weight):
    """Full matrices and one loop per image, from the definition."""
    rows = np.concatenate([query, gallery]).astype(np.float64)
    products = np.array([(rows * row).sum(axis=1) for row in rows])
    squared = np.maximum(2 - 2 * products, 0)
    original = (squared / squared.max(axis=0)).T
    rank = np.argsort(squared.round(12), axis=1, kind="stable")
    count = len(rows)

    place = np.argsort(rank, axis=1)

    def reciprocal(i, length):
        return [j for j in rank[i, :length] if place[j, i] < length]

    member = np.zeros((count, count))
    for i in range(count):
        own = reciprocal(i, k1 + 1)
        grown = set(own)
        for j in own:
            half = reciprocal(j, int(np.around(k1 / 2)) + 1)
            if len(set(half) & set(own)) > 2 / 3 * len(half):
                grown |= set(half)
        chosen = sorted(grown)
        strength = np.exp(-original[i, chosen])
        member[i, chosen] = strength / strength.sum()
    if k2 > 1:
        member = np.array([member[rank[i, :k2]].mean(axis=0) for i in range(count)])
    result = np.empty((len(query), len(gallery)))
    for i in range(len(query)):
        shared = np.minimum(member[i], member[len(query) :]).sum(axis=1)
        result[i] = (1 - weight) * (1 - shared / (2 - shared))
        result[i] += weight * original[i, len(query) :]
    return result


@pytest.mark.parametrize(
    ("k1", "k2", "weight"), [(20, 6, 0.3), (7, 1, 0.0), (5, 3, 1.0), (11, 4, 0.5), (134, 6, 0.3)]
)
def test_agrees_with_the_dense_definition(k1, k2, weight):
    query, gallery = problem(25, 110, seed=k1)
    blocks = list(re_ranking(query, gallery, k1=k1, k2=k2, lambda_value=weight))
    result = np.concatenate(blocks)
    assert result.dtype == np.float32 and result.shape == (25, 110)
    np.testing.assert_allclose(result, dense_oracle(query, gallery, k1, k2, weight), atol=5e-6)


def test_copies_of_queries_in_the_gallery():
    query, gallery = problem(20, 60, seed=1)
    gallery[:30] = np.concatenate([query[:10]] * 3)
    result = np.concatenate(list(re_ranking(query, gallery, k1=10, k2=3)))
    np.testing.assert_allclose(result, dense_oracle(query, gallery, 10, 3, 0.3), atol=5e-6)


def test_feeds_the_evaluation():
    query, gallery = problem(30, 90, seed=3)
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, high, n) for high in (5, 3) for n in (30, 90)]
    sparse = evaluate_rank(None, None, *labels, distmat=re_ranking(query, gallery))
    dense = evaluate_rank(None, None, *labels, distmat=dense_oracle(query, gallery, 20, 6, 0.3))
    assert sparse.mAP == pytest.approx(dense.mAP, abs=1e-4)


def test_limit_cases_and_errors():
    one = np.array([[1.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(next(iter(re_ranking(one, one))), [[0.0]], atol=1e-6)
    with pytest.raises(ValueError, match="the query set is empty"):
        re_ranking(one[:0], one)
    with pytest.raises(ValueError, match="the gallery set is empty"):
        re_ranking(one, one[:0])
    with pytest.raises(ValueError, match="2 values, gallery features 3"):
        re_ranking(one, np.eye(3, dtype=np.float32))
    with pytest.raises(ValueError, match="row 1 of query"):
        re_ranking(one, 2 * one)
    with pytest.raises(ValueError, match="k1 and k2"):
        re_ranking(one, one, k1=0)
    with pytest.raises(ValueError, match="lambda_value"):
        re_ranking(one, one, lambda_value=1.5)
