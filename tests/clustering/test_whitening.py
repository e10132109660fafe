# SPDX-License-Identifier: Apache-2.0
"""Whitening against the definition by eigenvectors."""

import numpy as np
import pytest

from ppcls_ise.clustering import generate_pseudo_labels, k_nearest, whitening
from ppcls_ise.clustering.whitening import whitened
from tests.emulated_processes import together


def rows(count, dim, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, dim)) * 0.5 ** np.arange(dim) + 0.3
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype("f4")


def oracle(features, ridge, basis=None):
    double = features.astype(np.float64)
    filled = np.abs(double).sum(axis=1) > 0
    fitted = double[filled] if basis is None else basis[np.abs(basis).sum(axis=1) > 0].astype(float)
    mean = fitted.mean(axis=0)
    centered = double - mean
    covariance = (fitted - mean).T @ (fitted - mean) / len(fitted)
    values, vectors = np.linalg.eigh(covariance)
    values = values / values.sum() * min(len(mean), len(fitted) - 1) + ridge
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


@pytest.mark.parametrize("count", [2, 5, 40])
def test_mean_and_covariance_may_be_those_of_other_rows(count):
    features, basis = rows(120, 9, seed=1), rows(count, 9, seed=count)[:, ::-1]
    features[7] = 0
    basis = np.concatenate([basis, np.zeros((2, 9), "f4")])  # zero rows do not count
    result, expected = whitened(features, basis=basis), oracle(features, 3.0, basis)
    np.testing.assert_allclose(result @ result.T, expected @ expected.T, atol=2e-4)
    assert not result[7].any()
    with pytest.raises(ValueError, match="basis must have rows of 9 values, got 8"):
        whitened(features, basis=basis[:, :8])


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


def test_few_wide_rows():
    features = rows(8, 9, seed=3)
    wide = whitened(np.pad(features, ((0, 0), (0, 400))))
    narrow = whitened(features)
    np.testing.assert_allclose(wide @ wide.T, narrow @ narrow.T, atol=2e-4)
    few = rows(12, 900, seed=3)
    np.testing.assert_allclose(
        whitened(few) @ whitened(few).T, oracle(few, 3.0) @ oracle(few, 3.0).T, atol=2e-4
    )


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

    assert same_person(whitened(features, ridge=1.0)) > same_person(features) + 0.1
    assert same_person(whitened(features)) > same_person(features)


def test_pseudo_labels_of_whitened_features_have_centroids_of_the_given_ones():
    features = rows(300, 8, seed=4)
    result = generate_pseudo_labels(features, 0.6, k1=12, whiten=True)
    expected = generate_pseudo_labels(whitened(features), 0.6, k1=12)
    np.testing.assert_array_equal(result.labels, expected.labels)
    assert result.num_clusters
    mean = features[result.labels == 0].mean(axis=0)
    np.testing.assert_allclose(result.centroids[0], mean / np.linalg.norm(mean), atol=1e-5)


def test_every_tracklet_counts_once():
    features = rows(300, 8, seed=4)
    tracklets = np.sort(np.random.default_rng(0).integers(0, 25, 300) ** 2 // 30)
    features[tracklets == 3] = 0  # nothing of it could be read
    result = generate_pseudo_labels(features, 0.6, tracklet_ids=tracklets + 4, whiten=True)
    names = [name for name in np.unique(tracklets) if name != 3]
    means = np.array([features[tracklets == name].mean(axis=0) for name in names])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    moved = whitened(features, basis=means)
    options = {"tracklet_ids": tracklets, "must_link": False}
    expected = generate_pseudo_labels(moved, 0.6, whiten=False, **options)
    free = generate_pseudo_labels(features, 0.6, **options)  # the default with tracklets
    np.testing.assert_array_equal(free.labels, expected.labels)
    assert expected.num_clusters > 1
    kept = np.unique(np.stack([tracklets, result.labels]), axis=1)
    assert kept.shape[1] == len(names) + 1 and not len(result.mixed_tracklets)


@pytest.mark.parametrize("whiten", [False, True])
def test_nasty_tracklets(whiten):
    features = rows(60, 6, seed=2)

    def labels(features, tracklets, eps=0.5):
        ids = np.asarray(tracklets)
        result = generate_pseudo_labels(features, eps, tracklet_ids=ids, whiten=whiten)
        assert len(result.centroids) == result.num_clusters == result.labels.max(initial=-1) + 1
        assert np.isfinite(result.centroids).all()
        for name in set(ids[ids >= 0].tolist()) - set(result.mixed_tracklets.tolist()):
            assert len(set(result.labels[ids == name].tolist())) == 1
        return result.labels.tolist()

    six = np.arange(60) // 10
    assert set(labels(features, np.zeros(60, int))) == {0}  # a single tracklet
    assert labels(features, np.arange(60)) == labels(features, np.full(60, -1))  # a frame each
    assert labels(features, np.arange(60), eps=0.0) == [-1] * 60  # all outliers
    copies = labels(np.tile(features[:6], (10, 1)), np.tile(np.arange(6), 10))
    assert copies == np.tile(copies[:6], 10).tolist() and max(copies) > 0
    for same in (features[:1], np.zeros((1, 6), "f4")):  # every row equal, even zero
        assert len(set(labels(np.tile(same, (60, 1)), six))) <= 6
    assert labels(features[:0], np.zeros(0, int)) == []


def test_given_neighbors_are_not_those_of_whitened_features():
    features = rows(20, 4, seed=0)
    with pytest.raises(ValueError, match="whiten"):
        generate_pseudo_labels(
            features, 0.5, k1=5, whiten=True, neighbors=k_nearest(features, 5)[0]
        )


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize("count", [100, 33, 5, 1])
def test_any_number_of_processes_gives_the_same_bytes(count, size, monkeypatch):
    """Copies in the shares of other processes included."""
    monkeypatch.setattr(whitening, "_BLOCK_ROWS", 16)
    features = rows(count, 9, seed=3)
    features[count // 2 :: 9] = features[:: -max(1, count // 5)][0]
    features[count // 3 : count // 3 + 2] = 0
    expected = whitened(features)
    for found in together(size, lambda processes: whitened(features, processes=processes)):
        assert found.tobytes() == expected.tobytes()
