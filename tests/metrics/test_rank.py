# SPDX-License-Identifier: Apache-2.0
"""CMC, mAP and mINP against a full sort per query and against the fixtures."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from ppcls_ise.metrics import evaluate_rank, rank
from tests.conftest import read_reference, reference_files
from tests.emulated_processes import together


def oracle(
    distances,
    query_pids,
    gallery_pids,
    query_camids,
    gallery_camids,
    max_rank,
    protocol,
    tracklets=None,
):
    """Stable sort of the kept gallery per query, then walk down the list."""
    hits, precisions, penalties, skipped = np.zeros(max_rank), [], [], []
    for q in range(len(query_pids)):
        order = np.argsort(distances[q], kind="stable")
        match = gallery_pids[order] == query_pids[q]
        own = np.zeros(len(order), bool)
        if protocol == "cross_camera":
            own |= gallery_camids[order] == query_camids[q]
        if tracklets is not None and tracklets[0][q] != -1:
            own |= tracklets[1][order] == tracklets[0][q]
        match = match[~(match & own)]
        if not match.any():
            skipped.append(q)
            continue
        ranks = np.flatnonzero(match) + 1
        hits[ranks[0] - 1 :] += 1
        precisions.append(np.mean([match[:r].sum() / r for r in ranks]))
        penalties.append(len(ranks) / ranks[-1])
    return hits / len(precisions), np.mean(precisions), np.mean(penalties), skipped


def problem(queries, gallery, seed, dim=8, pids=6, cams=3):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(queries, dim)).astype(np.float32),
        rng.normal(size=(gallery, dim)).astype(np.float32),
        rng.integers(-1, pids, queries),
        rng.integers(-1, pids, gallery),
        rng.integers(0, cams, queries),
        rng.integers(0, cams, gallery),
    )


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def squared_distances(query, gallery):
    return ((query[:, None].astype(float) - gallery[None].astype(float)) ** 2).sum(axis=2)


def check(result, expected):
    cmc, mean_precision, penalty, skipped = expected
    np.testing.assert_allclose(result.cmc, cmc, atol=1e-12)
    assert result.cmc.dtype == np.float64
    assert result.mAP == pytest.approx(mean_precision, abs=1e-12)
    assert result.mINP == pytest.approx(penalty, abs=1e-12)
    np.testing.assert_array_equal(result.skipped_queries, skipped)
    assert result.num_valid_queries == result.num_queries - len(skipped)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(result.average_precision)), skipped)


@pytest.mark.parametrize("protocol", ["cross_camera", "all"])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("max_rank", [1, 10, 500])
def test_agrees_with_a_full_sort(protocol, normalized, max_rank):
    query, gallery, *labels = problem(60, 150, seed=max_rank)
    if normalized:
        query, gallery = unit(query), unit(gallery)
    result = evaluate_rank(query, gallery, *labels, max_rank, protocol=protocol)
    distances = squared_distances(query, gallery)
    check(result, oracle(distances, *labels, max_rank, protocol))


@settings(max_examples=60, deadline=None)
@given(
    queries=st.integers(1, 12),
    gallery=st.integers(1, 30),
    levels=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    protocol=st.sampled_from(["cross_camera", "all"]),
)
def test_ties_are_ranked_by_gallery_index(queries, gallery, levels, seed, protocol):
    _, _, *labels = problem(queries, gallery, seed, pids=3, cams=2)
    distances = np.random.default_rng(seed).integers(0, levels, (queries, gallery)) / 10
    result = evaluate_rank(None, None, *labels, 20, protocol=protocol, distmat=distances)
    if result.num_valid_queries:
        check(result, oracle(distances, *labels, 20, protocol))


def test_copies_in_the_gallery_tie_exactly():
    query, gallery, *labels = problem(80, 700, seed=5, dim=257)
    query, gallery = unit(query), unit(gallery)
    gallery[350:] = gallery[np.random.default_rng(1).permutation(350)]
    distances = squared_distances(query, gallery).round(12)
    result = evaluate_rank(query, gallery, *labels)
    check(result, oracle(distances, *labels, 50, "cross_camera"))


def test_blocks_of_queries_do_not_matter(monkeypatch):
    args = problem(70, 90, seed=9)
    whole = evaluate_rank(*args)
    monkeypatch.setattr(rank, "_BLOCK_VALUES", 1)
    monkeypatch.setattr(rank, "_LEAST_BLOCK", 7)
    parts = evaluate_rank(*args)
    assert (whole.mAP, whole.mINP) == (parts.mAP, parts.mINP)
    np.testing.assert_array_equal(whole.cmc, parts.cmc)


def test_distance_blocks_are_consumed_in_order():
    query, gallery, *labels = problem(30, 40, seed=2)
    distances = squared_distances(query, gallery)
    blocks = (distances[start : start + 11] for start in range(0, 30, 11))
    result = evaluate_rank(None, None, *labels, distmat=blocks)
    check(result, oracle(distances, *labels, 50, "cross_camera"))


def test_no_valid_query_gives_nan_not_zero():
    rows = np.eye(3, dtype=np.float32)
    pids, cams = np.arange(3), np.zeros(3, dtype=int)
    result = evaluate_rank(rows, rows, pids, pids, cams, cams, 4)
    assert result.num_valid_queries == 0
    assert np.isnan(result.cmc).all() and result.cmc.shape == (4,)
    assert np.isnan(result.mAP) and np.isnan(result.mINP)
    np.testing.assert_array_equal(result.skipped_queries, [0, 1, 2])


def test_protocol_all_keeps_the_query_image_and_needs_no_cameras():
    rows = np.eye(3, dtype=np.float32)
    pids = np.arange(3)
    result = evaluate_rank(rows, rows, pids, pids, None, None, protocol="all")
    assert result.mAP == result.mINP == result.cmc[0] == 1.0


def test_background_identities_are_ordinary_wrong_ones():
    query = np.array([[1, 0]], dtype=np.float32)
    gallery = np.array([[1, 0], [0.9, 0.1], [0, 1]], dtype=np.float32)
    result = evaluate_rank(
        query, gallery, np.array([5]), np.array([0, -1, 5]), np.array([0]), np.array([0, 0, 1])
    )
    assert result.mAP == pytest.approx(1 / 3)
    np.testing.assert_array_equal(result.cmc[:4], [0, 0, 1, 1])


def test_errors_name_what_is_wrong():
    query, gallery, *labels = problem(5, 6, seed=0)
    query_pids, gallery_pids, query_camids, gallery_camids = labels
    with pytest.raises(ValueError, match="the query set is empty"):
        evaluate_rank(
            query[:0], gallery, query_pids[:0], gallery_pids, query_camids[:0], gallery_camids
        )
    with pytest.raises(ValueError, match="the gallery set is empty"):
        evaluate_rank(
            query, gallery[:0], query_pids, gallery_pids[:0], query_camids, gallery_camids[:0]
        )
    with pytest.raises(ValueError, match=r"Metric\.Eval\.0\.ReIDMetric\.protocol=all"):
        evaluate_rank(query, gallery, query_pids, gallery_pids, None, gallery_camids)
    with pytest.raises(ValueError, match="protocol must be one of"):
        evaluate_rank(query, gallery, *labels, protocol="market")
    with pytest.raises(ValueError, match="max_rank"):
        evaluate_rank(query, gallery, *labels, 0)
    with pytest.raises(ValueError, match="gallery_camids has shape"):
        evaluate_rank(query, gallery, *labels[:3], gallery_camids[1:])
    with pytest.raises(ValueError, match="query_features has 4 rows"):
        evaluate_rank(query[:4], gallery, *labels)
    with pytest.raises(ValueError, match="query features have 7 values"):
        evaluate_rank(query[:, :7], gallery, *labels)
    with pytest.raises(ValueError, match="distmat must have shape"):
        evaluate_rank(None, None, *labels, distmat=np.zeros((5, 5)))
    with pytest.raises(ValueError, match="got 4 rows"):
        evaluate_rank(None, None, *labels, distmat=np.zeros((4, 6)))
    with pytest.raises(ValueError, match="needed unless distmat"):
        evaluate_rank(None, gallery, *labels)
    gallery[3, 1] = np.nan
    with pytest.raises(ValueError, match="gallery_features: row 3"):
        evaluate_rank(query, gallery, *labels)
    with pytest.raises(ValueError, match="distmat contains NaN"):
        evaluate_rank(None, None, *labels, distmat=np.full((5, 6), np.nan))


def test_result_is_frozen():
    result = evaluate_rank(*problem(5, 30, seed=0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.mAP = 1.0


@pytest.mark.parametrize("path", reference_files("rank_*.npz"))
@pytest.mark.parametrize("size", [1, 2, 3])
def test_fixture(path, size):
    data = read_reference(path)
    labels = [data[name] for name in ("q_pids", "g_pids", "q_camids", "g_camids")]
    longest = max(100, len(data["ise_cmc"]))
    *_, result = together(
        size,
        lambda each: evaluate_rank(
            None, None, *labels, longest, distmat=data["distmat"], processes=each
        ),
    )
    np.testing.assert_allclose(result.cmc[: len(data["ise_cmc"])], data["ise_cmc"], atol=1e-9)
    np.testing.assert_allclose(
        result.cmc[: len(data["torchreid_cmc"])], data["torchreid_cmc"], atol=1e-6
    )
    np.testing.assert_allclose(result.cmc[data["ranks"] - 1], data["ise_cmc_at"], atol=1e-9)
    assert result.mAP == pytest.approx(float(data["torchreid_mAP"]), abs=1e-9)
    valid = ~np.isnan(result.average_precision)
    np.testing.assert_array_equal(valid, data["valid_query"])

    # ISE's evaluator: tied distances share one threshold. Equal without ties, else not.
    shared = [
        average_precision_score(data["g_pids"][keep] == pid, -data["distmat"][q][keep])
        for q, (pid, cam) in enumerate(zip(data["q_pids"], data["q_camids"], strict=True))
        if valid[q]
        for keep in [(data["g_pids"] != pid) | (data["g_camids"] != cam)]
    ]
    np.testing.assert_allclose(shared, data["ise_ap_per_valid_query"], atol=1e-9)
    ties = any(len(np.unique(row)) < len(row) for row in data["distmat"])
    if not ties:
        np.testing.assert_allclose(result.average_precision[valid], shared, atol=1e-9)
        assert result.mAP == pytest.approx(float(data["ise_mAP"]), abs=1e-9)
        sides = data["query_features"], data["gallery_features"]
        direct, *_ = together(size, lambda each: evaluate_rank(*sides, *labels, processes=each))
        assert direct.mAP == pytest.approx(float(data["ise_mAP"]), abs=1e-6)


@pytest.mark.parametrize("offset", [0.0, 10.0, 1e3, 1e5])
def test_rows_far_from_the_origin_are_ranked_by_their_distance(offset):
    query, gallery, *labels = problem(40, 150, seed=3, dim=16)
    query, gallery = (np.float32(rows + np.float32(offset)) for rows in (query, gallery))
    expected = oracle(squared_distances(query, gallery), *labels, 10, "all")
    check(evaluate_rank(query, gallery, *labels, max_rank=10, protocol="all"), expected)


@pytest.mark.parametrize("protocol", ["cross_camera", "all"])
@pytest.mark.parametrize("seed", range(3))
def test_frames_of_the_own_tracklet_do_not_count(protocol, seed):
    query, gallery, *labels = problem(50, 120, seed=seed)
    rng = np.random.default_rng(seed)
    tracklets = rng.integers(-1, 4, 50), rng.integers(-1, 4, 120)
    result = evaluate_rank(
        query,
        gallery,
        *labels,
        20,
        protocol=protocol,
        query_tracklets=tracklets[0],
        gallery_tracklets=tracklets[1],
    )
    distances = squared_distances(query, gallery)
    check(result, oracle(distances, *labels, 20, protocol, tracklets))
    without = evaluate_rank(query, gallery, *labels, 20, protocol=protocol)
    assert without.mAP != result.mAP


def test_a_near_copy_of_the_query_counts_only_where_tracklets_are_unknown():
    query = np.array([[1, 0]], np.float32)
    gallery = np.array([[1, 0.01], [0, 1], [-1, 0]], np.float32)
    pids = [np.array([7]), np.array([7, 8, 7]), None, None]
    assert evaluate_rank(query, gallery, *pids, protocol="all").cmc[0] == 1.0
    tracklets = {"query_tracklets": np.array([3]), "gallery_tracklets": np.array([3, 5, 4])}
    strict = evaluate_rank(query, gallery, *pids, protocol="all", **tracklets)
    assert (strict.cmc[0], strict.mAP) == (0.0, 0.5)
    tracklets["gallery_tracklets"][:] = 3
    assert evaluate_rank(query, gallery, *pids, protocol="all", **tracklets).num_valid_queries == 0
    for wrong in ({"query_tracklets": np.array([3])}, tracklets | {"query_tracklets": [1, 2]}):
        with pytest.raises(ValueError, match="tracklets"):
            evaluate_rank(query, gallery, *pids, protocol="all", **wrong)
