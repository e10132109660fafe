# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import paddle
import pytest

from ppcls_ise.layers.cluster_aggregation import (
    ClusterAggregation,
    aggregate_clusters,
    group_members,
    pad_groups,
)

HEADS, HEAD_DIM, FEATURES = 2, 3, 8


def make_layer(seed=0, *, trained=True):
    """A small layer; ``trained`` replaces the zeros of the query matrix."""
    paddle.seed(seed)
    layer = ClusterAggregation(FEATURES, num_heads=HEADS, attention_dim=HEADS * HEAD_DIM)
    if trained:
        values = np.random.default_rng(seed).standard_normal(layer.query.shape)
        layer.query.set_value(values.astype(np.float32))
    return layer


def slow_aggregation(layer, rows):
    """The equations of the class, sample by sample, in float64: g [D] and w [n]."""
    query, key = (w.numpy().astype(np.float64) for w in (layer.query, layer.key))
    rows = rows.astype(np.float64)
    scaled = math.sqrt(FEATURES) * rows
    weights, pooled = np.zeros(len(rows)), np.zeros(FEATURES)
    for h in range(HEADS):
        part = slice(h * HEAD_DIM, (h + 1) * HEAD_DIM)
        for asking in scaled:
            scores = [(asking @ query[:, part]) @ (x @ key[:, part]) for x in scaled]
            attention = np.exp(np.array(scores) / math.sqrt(HEAD_DIM))
            attention /= attention.sum()
            weights += attention / (HEADS * len(rows))
            pooled += attention @ rows / (HEADS * len(rows))
    return pooled, weights


def run(layer, groups):
    """The layer on arrays of rows, padded with a value that would show."""
    width = max(map(len, groups))
    samples = np.full((len(groups), width, FEATURES), 7.0, np.float32)
    mask = np.zeros((len(groups), width), np.float32)
    for i, rows in enumerate(groups):
        samples[i, : len(rows)], mask[i, : len(rows)] = rows, 1.0
    pooled, weights = layer(paddle.to_tensor(samples), paddle.to_tensor(mask))
    return pooled.numpy(), weights.numpy()


def test_attention_and_mask(unit_rows):
    generator = np.random.default_rng(1)
    layer = make_layer()
    groups = [unit_rows(generator, n, FEATURES) for n in (5, 1, 3)]
    pooled, weights = run(layer, groups)
    for i, rows in enumerate(groups):
        wanted, wanted_weights = slow_aggregation(layer, rows)
        np.testing.assert_allclose(pooled[i], wanted, atol=1e-5)
        np.testing.assert_allclose(weights[i, : len(rows)], wanted_weights, atol=1e-5)
        assert not weights[i, len(rows) :].any()
    assert weights[0].std() > 0.01  # so that the test sees the attention at all
    np.testing.assert_allclose(pooled[1], groups[1][0], atol=1e-6)


def test_order_of_the_samples_means_nothing(unit_rows):
    generator = np.random.default_rng(1)
    rows, order = unit_rows(generator, 6, FEATURES), generator.permutation(6)
    (first, second), weights = run(make_layer(), [rows, rows[order]])
    np.testing.assert_allclose(second, first, atol=1e-6)
    np.testing.assert_allclose(weights[1], weights[0][order], atol=1e-6)


def test_fresh_layer_is_the_plain_mean(unit_rows):
    rows = unit_rows(np.random.default_rng(1), 5, FEATURES)
    (pooled,), (weights,) = run(make_layer(trained=False), [rows])
    np.testing.assert_allclose(pooled, rows.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(weights, 0.2, atol=1e-7)


def test_group_without_samples_and_zero_rows():
    pooled, weights = run(make_layer(), [np.zeros((3, FEATURES), np.float32), np.zeros((0, 8))])
    assert not pooled.any() and not weights[1].any()
    np.testing.assert_allclose(weights[0], 1 / 3, atol=1e-6)


def test_every_parameter_gets_its_gradient(unit_rows):
    """Against central differences in the slow, float64 equations."""
    generator = np.random.default_rng(3)
    layer = make_layer()
    rows, direction = unit_rows(generator, 4, FEATURES), generator.standard_normal(FEATURES)
    samples, mask = paddle.to_tensor(rows[None]), paddle.ones([1, 4])
    (layer(samples, mask)[0] * paddle.to_tensor(direction.astype(np.float32))).sum().backward()
    for parameter in layer.parameters():
        got = parameter.grad.numpy()
        before = parameter.numpy()
        for place in [(0, 0), (3, 2), (7, 5)]:
            values = []
            for step in (1e-2, -1e-2):
                moved = before.copy()
                moved[place] += step
                parameter.set_value(moved)
                values.append(slow_aggregation(layer, rows)[0] @ direction)
            parameter.set_value(before)
            slope = (values[0] - values[1]) / 2e-2
            assert got[place] == pytest.approx(slope, rel=1e-2, abs=1e-5)


def test_fresh_layer_starts_with_the_query(unit_rows):
    layer = make_layer(trained=False)
    samples = paddle.to_tensor(unit_rows(np.random.default_rng(3), 4, FEATURES)[None])
    layer(samples, paddle.ones([1, 4]))[0][0, 0].backward()
    assert np.abs(layer.query.grad.numpy()).max() > 0
    assert layer.key.grad is not None and not layer.key.grad.numpy().any()


def test_bad_parameters():
    for options in ({"num_heads": 0}, {"attention_dim": 0}, {"num_heads": 3, "attention_dim": 8}):
        with pytest.raises(ValueError, match=r"Arch\.Head\.attention_dim"):
            ClusterAggregation(FEATURES, **options)
    with pytest.raises(ValueError, match=r"Arch\.Neck\.num_features"):
        make_layer()(paddle.ones([1, 2, FEATURES + 1]), paddle.ones([1, 2]))


def test_groups():
    names, groups = group_members(np.array([3, -1, 0, 3, 3, -1, 0]))
    assert names.tolist() == [0, 3]
    assert [group.tolist() for group in groups] == [[2, 6], [0, 3, 4]]
    index, mask = pad_groups(groups)
    assert index.tolist() == [[2, 6, 2], [0, 3, 4]]
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert group_members(np.array([-1, -1]))[1] == []


def clusters(unit_rows, sizes, outliers=3):
    """Shuffled unit rows, labels and unit means of clusters of these sizes."""
    generator = np.random.default_rng(9)
    labels = np.repeat(np.arange(-1, len(sizes)), [outliers, *sizes])
    labels = generator.permutation(labels)
    features = unit_rows(generator, len(labels), FEATURES)
    features[labels == -1] = np.nan  # never looked at
    means = np.stack([features[labels == c].mean(axis=0) for c in range(len(sizes))])
    return features, labels, means / np.linalg.norm(means, axis=1, keepdims=True)


def test_every_cluster_is_aggregated(unit_rows):
    features, labels, centroids = clusters(unit_rows, [4, 1, 7, *[3] * 40])  # two chunks
    layer = make_layer()
    got = aggregate_clusters(layer, features, labels, centroids, (1, 2))
    for c, row in enumerate(got):
        wanted, _ = slow_aggregation(layer, features[labels == c])
        np.testing.assert_allclose(row, wanted / np.linalg.norm(wanted), atol=1e-5)


@pytest.mark.parametrize("sizes", [[1], [70], [4, 1, 33, 7]])
@pytest.mark.parametrize("most", [1, 8, 64])
def test_fresh_layer_gives_the_centroids_for_any_size(unit_rows, sizes, most):
    features, labels, centroids = clusters(unit_rows, sizes)
    layer = make_layer(trained=False)
    got = aggregate_clusters(layer, features, labels, centroids, (1, 2), max_samples=most)
    np.testing.assert_allclose(got, centroids, atol=1e-5)


def test_large_clusters_are_dealt_by_the_seed(unit_rows):
    features, labels, centroids = clusters(unit_rows, [30, 5])
    layer = make_layer()

    def aggregate(*key):
        return aggregate_clusters(layer, features, labels, centroids, key, max_samples=8)

    first, same, other = aggregate(1, 2), aggregate(1, 2), aggregate(1, 3)
    np.testing.assert_array_equal(first, same)
    assert np.abs(first[0] - other[0]).max() > 1e-6
    np.testing.assert_allclose(first[1], other[1], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0, atol=1e-6)


def test_without_a_direction_the_centroid_stays(unit_rows):
    features = np.zeros((3, FEATURES), np.float32)
    centroids = unit_rows(np.random.default_rng(0), 2, FEATURES)
    labels = np.array([0, 0, -1])  # cluster 1 has no rows
    got = aggregate_clusters(make_layer(), features, labels, centroids, (0,))
    np.testing.assert_array_equal(got, centroids)
