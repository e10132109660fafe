# SPDX-License-Identifier: Apache-2.0
"""Whitening against the definition by eigenvectors."""

import numpy as np
import pytest

from ppcls_ise.clustering import generate_pseudo_labels, k_nearest
from ppcls_ise.clustering.whitening import whitened


def rows(count, dim, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, dim)) * 0.5 ** np.arange(dim) + 0.3
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype("f4")


def oracle(features, ridge):
    double = features.astype(np.float64)
    filled = np.abs(double).sum(axis=1) > 0
    mean = double[filled].mean(axis=0)
    centered = double - mean
    covariance = centered[filled].T @ centered[filled] / filled.sum()
    values, vectors = np.linalg.eigh(covariance)
    values = values / values.mean() + ridge
    moved = centered @ vectors / np.sqrt(values) @ vectors.T
    moved[~filled] = 0
    return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)


@pytest.mark.parametrize("ridge", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("count", [2, 7, 3000])
def test_inner_products_are_those_of_the_definition(count, ridge):
    features = rows(count, 9, seed=count)
    if count > 5:
        features[3] = 0
    result, expected = whitened(features, ridge=ridge), oracle(features, ridge)
    assert result.dtype == np.float32
    some = slice(0, 200)
    np.testing.assert_allclose(result[some] @ result.T, expected[some] @ expected.T, atol=2e-4)


def test_copies_stay_copies_and_zero_rows_zero():
    features = rows(2100, 6, seed=1)
    features[1500:] = features[:600]
    features[5] = 0
    result = whitened(features)
    same = features[:600].any(axis=1)
    np.testing.assert_array_equal(result[1500:][same], result[:600][same])
    assert not result[5].any()


@pytest.mark.parametrize("count", [0, 1, 4])
def test_nothing_to_whiten(count):
    features = np.tile(np.float32([0.6, 0.8, 0.0]), (count, 1))
    np.testing.assert_allclose(whitened(features), features, atol=1e-7)


@pytest.mark.parametrize("ridge", [0.0, -1.0, float("nan")])
def test_ridge_has_to_be_positive(ridge):
    with pytest.raises(ValueError, match="ridge"):
        whitened(rows(5, 3, seed=0), ridge=ridge)


def test_what_all_images_share_hides_people_no_longer():
    # Four lights, far apart; eight people, close together: neighbors share the light.
    rng = np.random.default_rng(0)
    person, light = np.arange(400) % 8, np.arange(400) // 8 % 4
    values = 0.05 * rng.normal(size=(400, 24))
    values[np.arange(400), person] += 0.5
    values[np.arange(400), 8 + light] += 0.8
    features = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype("f4")

    def same_person(x):
        return (person[k_nearest(x, 40)[0]] == person[:, None]).mean()

    assert same_person(whitened(features)) > same_person(features) + 0.1


def test_pseudo_labels_of_whitened_features_have_centroids_of_the_given_ones():
    features = rows(300, 8, seed=4)
    result = generate_pseudo_labels(features, 0.6, k1=12, whiten=True)
    expected = generate_pseudo_labels(whitened(features), 0.6, k1=12)
    np.testing.assert_array_equal(result.labels, expected.labels)
    assert result.num_clusters
    mean = features[result.labels == 0].mean(axis=0)
    np.testing.assert_allclose(result.centroids[0], mean / np.linalg.norm(mean), atol=1e-5)


def test_given_neighbors_are_not_those_of_whitened_features():
    features = rows(20, 4, seed=0)
    with pytest.raises(ValueError, match="whiten"):
        generate_pseudo_labels(
            features, 0.5, k1=5, whiten=True, neighbors=k_nearest(features, 5)[0]
        )
