# SPDX-License-Identifier: Apache-2.0
"""Any number of processes give the bytes of one."""

from functools import partial

import numpy as np
import pytest

from ppcls_ise.clustering import faiss_search, k_nearest
from ppcls_ise.clustering.blocked_search import top_candidates
from ppcls_ise.clustering.neighbors import search
from ppcls_ise.engine import gpu_search
from ppcls_ise.errors import InexactSearchError
from tests.clustering.test_neighbors import nasty_features
from tests.emulated_processes import together

BACKENDS = {
    "small blocks": partial(top_candidates, block_rows=37),
    "blocked": "blocked",
    "device": gpu_search.top_candidates,
}
if faiss_search.installed():
    BACKENDS["faiss"] = "faiss"
NAMES = list(nasty_features())


def same_bytes(found, expected):
    for part, wanted in zip(found, expected, strict=True):
        assert part.dtype == wanted.dtype and part.shape == wanted.shape
        assert part.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    ("backend", "size"),
    [("small blocks", 1), *((name, 3) for name in BACKENDS)]
    + [("small blocks", 2), ("small blocks", 4)],
)
def test_lists_of_several_processes_are_those_of_one(backend, size, monkeypatch):
    monkeypatch.setattr(gpu_search, "_QUERY_ROWS", 64)
    monkeypatch.setattr(gpu_search, "_BASE_ROWS", 150)
    names = NAMES if backend == "small blocks" and size > 1 else NAMES[2:8:2]
    for features in map(nasty_features().get, names):
        features = features.astype(np.float32)
        groups = np.arange(len(features)) % 3
        for k, grouping in ((3, None), (30, groups)):
            expected = search(features, k, groups=grouping, backend="blocked")
            run = partial(search, features, k, groups=grouping, backend=BACKENDS[backend])
            for found in together(size, lambda processes, run=run: run(processes=processes)):
                same_bytes(found, expected)


@pytest.mark.parametrize("size", [2, 3])
def test_the_smallest_product_of_each_row(size):
    for features in map(nasty_features().get, NAMES[:3]):
        features = features.astype(np.float32)
        expected = np.empty(len(features), np.float32)
        search(features, 4, lowest=expected)

        def run(processes, features=features):
            lowest = np.empty(len(features), np.float32)
            search(features, 4, lowest=lowest, processes=processes)
            return lowest

        for lowest in together(size, run):
            np.testing.assert_array_equal(lowest, expected)


def test_products_are_dealt_evenly():
    """Of 20 blocks, 190 products off the diagonal; progress counts those of one process."""
    features = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    backend = partial(top_candidates, block_rows=10)

    def run(processes):
        calls = []

        def note(*call):
            calls.append(call)

        search(features, 5, backend=backend, processes=processes, progress=note)
        return [total for stage, _, total in calls if stage == "neighbors"][-1]

    assert together(3, run) == [71, 70, 69]


def test_an_error_of_one_process_is_an_error_of_all():
    features = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)

    def inexact(row_set, width, *, processes, progress=None):
        indices, values = top_candidates(row_set, width, processes=processes)
        return indices, values * np.float32(1 + 1e-3 * (processes.rank == 1))

    def run(processes):
        with pytest.raises(InexactSearchError) as caught:
            k_nearest(features, 5, backend=inexact, processes=processes)
        return str(caught.value)

    messages = together(3, run)
    assert "TF32" in messages[1] and "process 1" in messages[0] and "process 1" in messages[2]


@pytest.mark.skipif(not faiss_search.installed(), reason="needs faiss-cpu")
def test_approximate_lists_are_the_same_in_all_processes():
    features = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    exact = k_nearest(features, 6)[0]
    first, second = together(
        2, lambda processes: k_nearest(features, 6, approximate=True, processes=processes)
    )
    same_bytes(first, second)
    assert np.mean(first[0] == exact) > 0.99
