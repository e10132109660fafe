# SPDX-License-Identifier: Apache-2.0
"""All backends and any number of cores give the same bytes; the approximate search says so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from ppcls_ise.clustering import (
    PseudoLabels,
    faiss_search,
    generate_pseudo_labels,
    jaccard_graph,
    k_nearest,
    parallel,
    search_recall,
)
from ppcls_ise.clustering.neighbors import search, search_backend
from ppcls_ise.clustering.row_set import inner_products
from ppcls_ise.engine import gpu_search
from ppcls_ise.engine.clustering_callback import ClusteringCallback, summary
from ppcls_ise.errors import ConfigError
from tests.clustering.test_jaccard import camera_oracle, check, clustered, jaccard_oracle
from tests.clustering.test_neighbors import nasty_features

BACKENDS = ["blocked", gpu_search.top_candidates]
if faiss_search.installed():
    BACKENDS.append("faiss")


def random_set(count, seed):
    """Clustered unit rows, some of them copies, zero, or on a coarse grid (equal products)."""
    rng = np.random.default_rng(seed)
    features = clustered(count, int(rng.integers(2, 12)), int(rng.integers(1, 8)), seed)
    if rng.random() < 0.5:
        features = np.round(features * 4) / 4
    features = features[rng.integers(0, count, count)] if rng.random() < 0.5 else features
    features[rng.random(count) < 0.1] = 0
    return features.astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 70),
    k1=st.integers(1, 90),
    k2=st.integers(1, 8),
    eps=st.sampled_from([0.35, 0.45, 0.62, 0.9]),
    seed=st.integers(0, 10**6),
)
def test_labels_agree_with_dense_distances_and_scikit_learn(count, k1, k2, eps, seed):
    features = random_set(count, seed)
    scores = features.astype(float) @ features.T.astype(float)
    rank = np.argsort(-scores.round(12), axis=1, kind="stable")[:, :k1]
    dense = jaccard_oracle(features, rank.tolist(), k1, k2)
    at_the_bound = np.abs(dense - eps) < 1e-5
    if at_the_bound.any():  # rounding decides
        return
    expected = DBSCAN(eps=eps, min_samples=4, metric="precomputed").fit(dense).labels_
    for backend in BACKENDS:
        result = generate_pseudo_labels(features, eps, k1=k1, k2=k2, backend=backend)
        np.testing.assert_array_equal(result.labels, expected)


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("name", list(nasty_features()))
def test_backends_give_the_same_bytes(backend, name):
    features = nasty_features()[name].astype(np.float32)
    groups = np.arange(len(features)) % 3
    for k in (3, 30, 1000):
        for grouping in (None, groups, np.zeros_like(groups)):
            expected = search(features, k, groups=grouping, backend="blocked")
            found = search(features, k, groups=grouping, backend=backend)
            assert found[0].tobytes() == expected[0].tobytes()
            assert found[1].tobytes() == expected[1].tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_cameras_with_every_backend(backend):
    features = clustered(120, 10, 8, seed=3)
    cameras = np.random.default_rng(0).integers(0, 4, 120)
    graph = jaccard_graph(features, camera_ids=cameras, backend=backend)
    check(graph, camera_oracle(features, cameras, 5, 20, 2, 4))


def test_device_search_in_several_blocks(monkeypatch):
    monkeypatch.setattr(gpu_search, "_QUERY_ROWS", 32)
    monkeypatch.setattr(gpu_search, "_BASE_ROWS", 17)
    features = clustered(150, 9, 6, seed=1)
    calls = []
    found = k_nearest(
        features, 25, backend=gpu_search.top_candidates, progress=lambda *call: calls.append(call)
    )
    for part, expected in zip(found, k_nearest(features, 25), strict=True):
        assert part.tobytes() == expected.tobytes()
    assert ("neighbors", 45, 45) in calls  # 5 x 9 blocks


@pytest.mark.parametrize("cameras", [False, True])
def test_number_of_cores_does_not_matter(monkeypatch, cameras):
    features = clustered(5000, 24, 200, seed=5)
    features[4500:] = features[:500]
    extra = {"camera_ids": np.arange(5000) % 7} if cameras else {}
    graphs = []
    for cores in (1, 5):
        monkeypatch.setattr(parallel, "work_threads", lambda cores=cores: cores)
        for max_distance in (0.6, 0.95):
            graphs.append(jaccard_graph(features, max_distance=max_distance, **extra))
    for one, many in zip(graphs[:2], graphs[2:], strict=True):
        for name in ("data", "indices", "indptr"):
            assert getattr(one, name).tobytes() == getattr(many, name).tobytes()


def test_products_do_not_depend_on_their_place():
    rng = np.random.default_rng(0)
    for dim in (1, 3, 16, 33, 700):
        features = rng.normal(size=(40, dim)).astype(np.float32)
        left, right = np.divmod(np.arange(1600), 40)
        table = inner_products(features, left, right).reshape(40, 40)
        np.testing.assert_allclose(table, features @ features.T, atol=1e-3)
        assert (table == table.T).all()
        order = rng.permutation(1600)[:77]
        alone = [inner_products(features, left[[p]], right[[p]])[0] for p in order]
        assert (table.ravel()[order] == alone).all()


def test_reduced_precision_is_noticed():
    def rounded(row_set, width, *, progress=None):
        scores = (row_set.features @ row_set.features.T).astype(np.float16).astype(np.float32)
        indices = np.argsort(-scores, axis=1)[:, :width].astype(np.int32)
        return indices, np.take_along_axis(scores, indices, axis=1)

    with pytest.raises(ValueError, match="reduced precision.*NVIDIA_TF32_OVERRIDE"):
        k_nearest(clustered(100, 20, 5, seed=0), 10, backend=rounded)


def test_unknown_backends_are_named(monkeypatch):
    with pytest.raises(ConfigError, match="Clustering.backend=cuda is not available.*blocked"):
        search_backend("cuda")
    with pytest.raises(ConfigError, match="paddle_gpu needs a Global.device"):
        gpu_search.backend_of("paddle_gpu")
    monkeypatch.setattr(faiss_search, "faiss", None)
    with pytest.raises(ConfigError, match="Clustering.backend=faiss is not.*faiss-cpu"):
        k_nearest(np.eye(3, dtype=np.float32), 1, backend="faiss")
    with pytest.raises(ConfigError, match="Clustering.approximate needs"):
        k_nearest(np.eye(3, dtype=np.float32), 1, approximate=True)
    assert gpu_search.backend_of("auto") is search_backend("blocked")


@pytest.mark.skipif(not faiss_search.installed(), reason="needs faiss")
def test_approximate_search_tells_its_recall():
    features = clustered(3000, 24, 100, seed=9)
    features[2900:] = features[:100]
    exact = k_nearest(features, 20)[0]
    assert search_recall(features, exact) == 1.0
    found, values = k_nearest(features, 20, approximate=True)
    share = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(found, exact, strict=True)])
    assert 0.8 < share <= 1.0
    assert abs(search_recall(features, found, sample=3000) - share) < 0.01
    spoiled = found.copy()
    spoiled[:, 10:] = -1
    assert search_recall(features, spoiled) <= 0.5
    assert (np.diff(values, axis=1) <= 0).all()
    result = generate_pseudo_labels(features, 0.6, k1=20, approximate=True)
    assert 0.8 < result.recall <= 1.0
    assert generate_pseudo_labels(features, 0.6, k1=20).recall is None
    with pytest.raises(ValueError, match="Clustering.approximate cannot be combined"):
        generate_pseudo_labels(features, 0.6, camera_ids=np.zeros(3000), approximate=True)


def test_configuration_keys():
    options = {"transform_ops": [], "eps": 0.6}
    with pytest.raises(ConfigError, match="Clustering.backend has to be one of auto, .*'cuda'"):
        ClusteringCallback(**options, backend="cuda")
    for extra in ({"approximate": 1}, {"approximate": True, "camera_aware": True}):
        with pytest.raises(ConfigError, match="Clustering.approximate has to be"):
            ClusteringCallback(**options, **extra)
    labels = np.array([0, 0, 1, -1])
    features = np.eye(4, dtype=np.float32)
    assert "recall" not in summary(PseudoLabels.from_labels(features, labels))
    assert "recall 0.973" in summary(PseudoLabels.from_labels(features, labels, recall=0.973))
