# SPDX-License-Identifier: Apache-2.0
"""The chain from features to labels and centroids."""

import dataclasses

import numpy as np
import pytest

from ppcls_ise.clustering import PseudoLabels, generate_pseudo_labels
from tests.conftest import read_reference, reference_files


def separated(sizes, dim=16, seed=0):
    """Tight groups of unit rows around orthogonal directions."""
    rng = np.random.default_rng(seed)
    identity = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.eye(dim)[identity] + 0.05 * rng.normal(size=(len(identity), dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), identity


def centroids_oracle(features, labels):
    rows = []
    for cluster in range(labels.max() + 1):
        members = features[labels == cluster].astype(np.float64)
        members /= np.maximum(np.linalg.norm(members, axis=1, keepdims=True), 1e-12)
        mean = members.mean(axis=0)
        rows.append(mean / max(np.linalg.norm(mean), 1e-12))
    return np.array(rows)


def test_separated_groups_are_found():
    features, identity = separated([12, 9, 20, 7])
    result = generate_pseudo_labels(features, 0.6, k1=8, k2=3)
    np.testing.assert_array_equal(result.labels, identity)
    assert (result.num_clusters, result.num_outliers) == (4, 0)
    assert (result.largest, result.median_size) == (20, 10.5)
    assert set(result.seconds) == {"neighbors", "jaccard", "dbscan"}
    assert result.labels.dtype == np.int64 and result.centroids.dtype == np.float32
    np.testing.assert_allclose(
        result.centroids, centroids_oracle(features, result.labels), atol=1e-6
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.num_clusters = 1


def test_cameras_reach_the_graph():
    features, identity = separated([16, 16, 16])
    cameras = np.arange(48) % 2
    result = generate_pseudo_labels(
        features, 0.6, camera_ids=cameras, k1_intra=4, k1_inter=4, k2_intra=2, k2_inter=2
    )
    np.testing.assert_array_equal(result.labels, identity)


def test_features_of_any_length_give_unit_centroids():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(9000, 5)).astype(np.float32) * 3
    features[17] = 0
    labels = rng.integers(-1, 40, 9000)
    result = PseudoLabels.from_labels(features, labels)
    np.testing.assert_allclose(result.centroids, centroids_oracle(features, labels), atol=2e-6)
    assert result.num_outliers == np.count_nonzero(labels == -1)
    assert result.seconds == {}
    with pytest.raises(ValueError, match="labels must have shape"):
        PseudoLabels.from_labels(features, labels[1:])


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_too_few_images_are_outliers(count):
    result = generate_pseudo_labels(np.eye(6, dtype=np.float32)[:count], 0.6)
    np.testing.assert_array_equal(result.labels, np.full(count, -1))
    assert result.centroids.shape == (0, 6)
    assert (result.num_clusters, result.num_outliers) == (0, count)
    assert (result.largest, result.median_size) == (0, 0.0)


def test_one_cluster_of_copies_larger_than_the_lists():
    features = np.tile(np.full((1, 4), 0.5, dtype=np.float32), (50, 1))
    result = generate_pseudo_labels(features, 0.5)
    # Equal rows have equal lists of the lowest indices, so only those see each other mutually;
    # every row averages the same rows and ends at distance 0.
    np.testing.assert_array_equal(result.labels, np.zeros(50))
    np.testing.assert_allclose(result.centroids, [[0.5] * 4], atol=1e-7)


def test_zero_vectors_do_not_break_anything():
    features, _ = separated([10, 10])
    features = np.concatenate([features, np.zeros((3, 16), dtype=np.float32)])
    result = generate_pseudo_labels(features, 0.5, k1=8, k2=3)
    assert np.isfinite(result.centroids).all()


def test_equal_features_give_equal_bytes():
    features = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    first, second = (generate_pseudo_labels(features, 0.7) for _ in range(2))
    assert first.labels.tobytes() == second.labels.tobytes()
    assert first.centroids.tobytes() == second.centroids.tobytes()


def test_errors_name_the_key():
    features = np.eye(4, dtype=np.float32)
    for eps in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="Clustering.eps"):
            generate_pseudo_labels(features, eps)
    features[2, 0] = np.nan
    with pytest.raises(ValueError, match="row 2"):
        generate_pseudo_labels(features, 0.5)
    with pytest.raises(ValueError, match="tracklet_ids are missing"):
        generate_pseudo_labels(np.eye(4, dtype=np.float32), 0.5, k2_inter=3)


@pytest.mark.parametrize("path", reference_files("jaccard_*.npz"))
def test_fixture(path):
    data = read_reference(path)
    robust = [e for e in range(len(data["eps"])) if data["eps_robust"][e]]
    assert robust, "no eps of this file can be compared"
    for e in robust:
        eps = float(data["eps"][e])
        result = generate_pseudo_labels(
            data["features"], eps, int(data["min_samples"]), int(data["k1"]), int(data["k2"])
        )
        np.testing.assert_array_equal(result.labels, data["dbscan_labels"][e])
        if eps == float(data["centroid_eps"]):
            np.testing.assert_allclose(result.centroids, data["centroids"], atol=1e-6)


def test_an_eps_that_float32_rounds_to_one_is_refused(unit_rows):
    with pytest.raises(ValueError, match=r"Clustering\.eps"):
        generate_pseudo_labels(unit_rows(np.random.default_rng(0), 8, 4), 0.99999999)
