# SPDX-License-Identifier: Apache-2.0
"""CMC, mAP and mINP by the Market-1501 protocol, without sorting the gallery."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ppcls_ise.clustering.parallel import ordered_map, spans
from ppcls_ise.clustering.processes import ONE_PROCESS, Processes, own_rows
from ppcls_ise.clustering.row_set import as_features, duplicate_groups, row_norms

PROTOCOLS = ("cross_camera", "all")
_BLOCK_VALUES = 3 << 23
_LEAST_BLOCK, _LARGEST_BLOCK = 64, 256
_FAR = 100.0  # squared distance of the mean from the origin over the variance around it


@dataclass(frozen=True)
class RankResult:
    """Retrieval quality.

    Attributes:
        cmc: [max_rank] float64, cmc[r-1] = share of valid queries with a match among the first r.
        mAP: mean average precision over the valid queries.
        mINP: mean over the valid queries of (number of matches) / (rank of the last match).
        num_queries: all queries.
        num_valid_queries: queries with at least one match; the figures above are NaN if 0.
        skipped_queries: [num_queries - num_valid_queries] int64, indices of the others.
        average_precision: [num_queries] float64, NaN for skipped queries.
    """

    cmc: np.ndarray
    mAP: float
    mINP: float
    num_queries: int
    num_valid_queries: int
    skipped_queries: np.ndarray
    average_precision: np.ndarray


def evaluate_rank(
    query_features: np.ndarray | None,
    gallery_features: np.ndarray | None,
    query_pids: np.ndarray,
    gallery_pids: np.ndarray,
    query_camids: np.ndarray | None,
    gallery_camids: np.ndarray | None,
    max_rank: int = 50,
    *,
    protocol: str = "cross_camera",
    query_tracklets: np.ndarray | None = None,
    gallery_tracklets: np.ndarray | None = None,
    distmat: np.ndarray | Iterable[np.ndarray] | None = None,
    processes: Processes = ONE_PROCESS,
) -> RankResult:
    """Rank the gallery for every query by squared Euclidean distance and score the ranking.

    Protocol "cross_camera" (Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV
    2015): gallery images with the identity and the camera of the query are removed. Protocol
    "all" removes nothing, not even the query image itself if the gallery contains it, and needs no
    cameras. With tracklets, gallery images with the identity and the tracklet of the query are
    removed too, whatever the protocol: they are frames that follow one another, found by any
    feature. Where no cameras are known that is the only honest count. Queries without a match in
    what remains are skipped and reported. Identities 0 and -1 are ordinary identities here; data
    sets leave out what must be left out.

    Clustering (13) to Clustering (15): AP of a query with matches at ranks r_1 < ... < r_n is
    (1/n) sum_t t/r_t. Gallery images at
    exactly the same distance are ranked by ascending gallery index, which is torchreid's evaluator
    with a stable sort; evaluators that use scikit-learn's average precision share one threshold
    among ties and differ then, and only then. Exact copies in the gallery tie exactly.

    Only the ranks of the matches are computed, by counting larger scores: O(Q·G·D) for the product
    and O(Q·G) for the rest; memory is a block of at most 100 MB per core, never Q x G. Any number
    of cores and processes gives the same figures to the last digit. Rows of equal norm (to
    float32 rounding) are ranked by inner product, which is the same order; rows far from the origin
    are moved there, which changes no distance.

    Args:
        query_features: [Q, D], used as float32 as they are; ignored if ``distmat`` is given.
        gallery_features: [G, D], likewise.
        query_pids: [Q] integer identities.
        gallery_pids: [G].
        query_camids: [Q] integer cameras; None is allowed with protocol "all" only.
        gallery_camids: [G], likewise.
        max_rank: length of the CMC curve, may exceed G.
        protocol: "cross_camera" or "all".
        query_tracklets: [Q] integers, below 0 = in no tracklet, or None.
        gallery_tracklets: [G], numbered as those of the queries; both or none.
        distmat: distances to use instead, [Q, G] or an iterable of consecutive row blocks of it; in
            several processes of the rows of `own_queries` alone.
        processes: who shares the queries out; all of them call this alike and receive the result.

    Raises:
        ValueError: an empty side, shapes that do not fit, NaN or Inf, unknown protocol, missing
            cameras, tracklets of one side only, max_rank < 1.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if max_rank < 1:
        raise ValueError(f"max_rank must be at least 1, got {max_rank}")
    query_pids, gallery_pids = np.asarray(query_pids), np.asarray(gallery_pids)
    for side, pids in (("query", query_pids), ("gallery", gallery_pids)):
        if pids.ndim != 1:
            raise ValueError(f"{side}_pids must have one dimension, got shape {pids.shape}")
        if not len(pids):
            raise ValueError(f"the {side} set is empty: there is nothing to evaluate")
    cameras = _cameras(protocol, query_pids, gallery_pids, query_camids, gallery_camids)
    tracklets = _pair("tracklets", query_pids, gallery_pids, query_tracklets, gallery_tracklets)
    count, gallery_count = len(query_pids), len(gallery_pids)
    by_pid = np.argsort(gallery_pids, kind="stable")
    first = np.searchsorted(gallery_pids[by_pid], query_pids, side="left")
    last = np.searchsorted(gallery_pids[by_pid], query_pids, side="right")

    def rate(start: int, scores: np.ndarray) -> np.ndarray:
        """Precision, penalty and rank of the first match of the queries from ``start`` on."""
        rated = np.full((len(scores), 3), np.nan)
        for line, row in enumerate(scores):
            query = start + line
            match = by_pid[first[query] : last[query]]
            own = np.zeros(len(match), dtype=bool)
            if cameras is not None:
                own |= cameras[1][match] == cameras[0][query]
            if tracklets is not None and tracklets[0][query] >= 0:
                own |= tracklets[1][match] == tracklets[0][query]
            row[match[own]] = -np.inf
            match = match[~own]
            if match.size:
                ranks = _match_ranks(row, match)
                number = np.arange(1, len(ranks) + 1)
                rated[line] = np.mean(number / ranks), len(ranks) / ranks[-1], ranks[0]
        return rated

    if distmat is not None:
        mine = own_queries(count, gallery_count, processes)
        rated = [rate(*block) for block in _distance_blocks(distmat, mine, count, gallery_count)]
    elif query_features is None or gallery_features is None:
        raise ValueError("query_features and gallery_features are needed unless distmat is given")
    else:
        scores_of = _scores(query_features, gallery_features, count, gallery_count, processes)
        rated = list(
            ordered_map(
                lambda span: rate(span[0], scores_of(*span)),
                query_blocks(count, gallery_count, processes),
            )
        )
    found = processes.whole(np.concatenate([np.empty((0, 3)), *rated]))
    precision, penalty, best = np.ascontiguousarray(found.T)
    hits = np.bincount(best[best <= max_rank].astype(np.int64) - 1, minlength=max_rank)
    skipped = np.flatnonzero(np.isnan(precision))
    valid = count - len(skipped)
    return RankResult(
        cmc=np.cumsum(hits) / valid if valid else np.full(max_rank, np.nan),
        mAP=float(np.nanmean(precision)) if valid else float("nan"),
        mINP=float(np.nanmean(penalty)) if valid else float("nan"),
        num_queries=count,
        num_valid_queries=valid,
        skipped_queries=skipped,
        average_precision=precision,
    )


def query_blocks(
    count: int, gallery_count: int, processes: Processes = ONE_PROCESS
) -> list[tuple[int, int]]:
    """(start, stop) of the queries of this process, in the blocks that are multiplied at once.

    Rounding depends on the place in a block product, so the blocks are the same for any number of
    processes; which ones are whose is not.
    """
    step = int(np.clip(_BLOCK_VALUES // gallery_count, _LEAST_BLOCK, _LARGEST_BLOCK))
    blocks = list(spans(count, step))
    return blocks[slice(*own_rows(len(blocks), processes))]


def own_queries(count: int, gallery_count: int, processes: Processes) -> tuple[int, int]:
    """(start, stop) of the queries of this process."""
    blocks = query_blocks(count, gallery_count, processes)
    return (blocks[0][0], blocks[-1][1]) if blocks else (0, 0)


def _match_ranks(scores: np.ndarray, match: np.ndarray) -> np.ndarray:
    """1-based ranks, ascending, of the entries ``match`` (ascending indices) in ``scores`` [G].

    Removed entries are -Inf. Entries below the worst match cannot matter and are dropped first.
    """
    own = scores[match]
    rivals = np.flatnonzero(scores >= own.min())
    values = scores[rivals]
    ordered = np.sort(values)
    above = len(ordered) - np.searchsorted(ordered, own, side="right")
    equal = len(ordered) - np.searchsorted(ordered, own, side="left") - above
    ranks = above + 1
    for tied in np.flatnonzero(equal > 1):
        ranks[tied] += np.count_nonzero((values == own[tied]) & (rivals < match[tied]))
    return np.sort(ranks)


def _cameras(
    protocol: str,
    query_pids: np.ndarray,
    gallery_pids: np.ndarray,
    query_camids: np.ndarray | None,
    gallery_camids: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray] | None:
    if protocol == "all":
        return None
    if query_camids is None or gallery_camids is None:
        raise ValueError(
            "protocol 'cross_camera' needs the camera of every query and gallery image. Without "
            "camera labels set Metric.Eval.0.ReIDMetric.protocol=all"
        )
    return _pair("camids", query_pids, gallery_pids, query_camids, gallery_camids)


def _pair(
    kind: str,
    query_pids: np.ndarray,
    gallery_pids: np.ndarray,
    query_values: np.ndarray | None,
    gallery_values: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Both sides as arrays, one number per image; None if there are none."""
    if query_values is None and gallery_values is None:
        return None
    if query_values is None or gallery_values is None:
        raise ValueError(f"query_{kind} and gallery_{kind} are needed both, or none of them")
    query, gallery = np.asarray(query_values), np.asarray(gallery_values)
    for side, values, pids in (("query", query, query_pids), ("gallery", gallery, gallery_pids)):
        if values.shape != pids.shape:
            raise ValueError(
                f"{side}_{kind} has shape {values.shape}, {side}_pids has {pids.shape}"
            )
    return query, gallery


def _distance_blocks(
    distmat: np.ndarray | Iterable[np.ndarray],
    own: tuple[int, int],
    count: int,
    gallery_count: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """Negative distances of the queries ``own`` = (start, stop)."""
    begin, end = own
    blocks = distmat
    if isinstance(distmat, np.ndarray):
        if len(distmat) != count:
            raise ValueError(
                f"distmat must have shape ({count}, {gallery_count}), got {len(distmat)} rows"
            )
        step = max(1, _BLOCK_VALUES // gallery_count)
        blocks = (distmat[begin + i : begin + j] for i, j in spans(end - begin, step))
    start = begin
    for block in blocks:
        if block.ndim != 2 or block.shape[1] != gallery_count or start + len(block) > end:
            raise ValueError(
                f"distmat must have shape ({count}, {gallery_count}); rows {start}.. are "
                f"{block.shape}"
            )
        if not np.isfinite(block).all():
            raise ValueError("distmat contains NaN or Inf")
        yield start, np.negative(block, dtype=np.result_type(block, np.float32))
        start += len(block)
    if start != end:
        raise ValueError(f"distmat must have shape ({count}, {gallery_count}), got {start} rows")


def _scores(
    query_features: np.ndarray,
    gallery_features: np.ndarray,
    count: int,
    gallery_count: int,
    processes: Processes,
) -> Callable[[int, int], np.ndarray]:
    """A function of the block of queries (start, stop): scores <q, g> - |g|²/2, descending as the
    squared Euclidean distance ascends, valid until the thread calls it again."""
    query = as_features(query_features, name="query_features")
    gallery = as_features(gallery_features, name="gallery_features")
    for name, matrix, rows in (("query", query, count), ("gallery", gallery, gallery_count)):
        if len(matrix) != rows:
            raise ValueError(f"{name}_features has {len(matrix)} rows, {name}_pids has {rows}")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query features have {query.shape[1]} values, gallery features {gallery.shape[1]}"
        )
    row_norms(query, name="query_features", processes=processes)
    norms = row_norms(gallery, name="gallery_features", processes=processes)
    center = _far_center(gallery, norms)
    if center is not None:
        gallery = gallery - center
        norms = row_norms(gallery, name="gallery_features")
    same_norm = _same_norm(norms)
    half_square = (norms**2 / 2).astype(np.float32)
    # Copies get the score of their first image.
    first = duplicate_groups(gallery, processes=processes)
    copies = np.flatnonzero(first != np.arange(gallery_count))
    # One buffer a thread: fresh memory for each block would cost a page fault per page.
    own = threading.local()

    def scores_of(start: int, stop: int) -> np.ndarray:
        if not hasattr(own, "buffer") or len(own.buffer) < stop - start:
            own.buffer = np.empty((stop - start, gallery_count), dtype=np.float32)
        scores: np.ndarray = own.buffer[: stop - start]
        part = query[start:stop]
        np.matmul(part if center is None else part - center, gallery.T, out=scores)
        if not same_norm:
            scores -= half_square
        if copies.size:
            scores[:, copies] = scores[:, first[copies]]
        return scores

    return scores_of


def _far_center(rows: np.ndarray, norms: np.ndarray) -> np.ndarray | None:
    """Mean [D] of ``rows`` [N, D] where they lie so far from the origin that float32 products
    would lose their differences, else None. Distances are the same around the mean."""
    mean = rows.mean(axis=0, dtype=np.float64)
    far = float(mean @ mean)
    spread = max(float(np.mean(norms**2)) - far, 0.0)
    bound = _FAR if _same_norm(norms) else 1.0  # unit rows stay as they are unless they collapsed
    return mean.astype(np.float32) if far > bound * spread else None


def _same_norm(norms: np.ndarray) -> bool:
    return bool(np.ptp(norms) <= 1e-6 * norms.max())
