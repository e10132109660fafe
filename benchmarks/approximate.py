# SPDX-License-Identifier: Apache-2.0
"""Approximate neighbor search against exact: recall, clusters, and how alike these are.

    python benchmarks/approximate.py --images 100000 --dim 256

HNSW is `Clustering.approximate`. IVF-PQ is not part of the package: rows as 64 bytes (product
quantization) in 1,024 inverted lists, of which some are visited; of the 128 best rows by these
bytes, the exact products decide.
"""

import argparse
import time
from pathlib import Path

import faiss
import numpy as np
from common import RESULTS, report
from made_up_features import clustered_features
from sklearn.metrics import adjusted_rand_score

from ppcls_ise.clustering import generate_pseudo_labels, k_nearest
from ppcls_ise.clustering.row_set import RowSet, inner_products

_LISTS, _BYTES, _COMPARED, _ROWS = 1024, 64, 128, 2048


class IvfPq:
    """A search backend."""

    def __init__(self, visited: int) -> None:
        self.visited = visited

    def __call__(
        self, row_set: RowSet, width: int, *, progress: object = None
    ) -> tuple[np.ndarray, np.ndarray]:
        features = row_set.slice(0, len(row_set))
        lists = faiss.IndexFlatIP(row_set.dim)
        index = faiss.IndexIVFPQ(lists, row_set.dim, _LISTS, _BYTES, 8, faiss.METRIC_INNER_PRODUCT)
        index.train(features[:: max(1, len(features) // (40 * _LISTS))])
        index.add(features)
        index.nprobe = self.visited
        indices = np.full((len(features), width), -1, np.int32)
        values = np.full((len(features), width), -np.inf, np.float32)
        for start in range(0, len(features), _ROWS):
            part = features[start : start + _ROWS]
            found = index.search(part, _COMPARED)[1]
            row, place = np.nonzero(found >= 0)
            exact = np.full(found.shape, -np.inf, np.float32)
            exact[row, place] = inner_products(features, row + start, found[row, place])
            best = np.argpartition(exact, _COMPARED - width, axis=1)[:, -width:]
            indices[start : start + len(part)] = np.take_along_axis(found, best, axis=1)
            values[start : start + len(part)] = np.take_along_axis(exact, best, axis=1)
        return indices, values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--eps", type=float, default=0.6)
    parser.add_argument("--visited", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    features = clustered_features(args.images, args.dim)
    runs = {"exact": {}, "HNSW": {"approximate": True}}
    for visited in args.visited:
        runs[f"IVF-PQ, {visited} of {_LISTS} lists"] = {"backend": IvfPq(visited)}
    rows: list[dict] = []
    exact, labels = np.empty(0), np.empty(0)
    for name, options in runs.items():
        started, used = time.perf_counter(), time.process_time()
        found = k_nearest(features, 30, **options)
        seconds, used = time.perf_counter() - started, time.process_time() - used
        result = generate_pseudo_labels(features, args.eps, neighbors=found)
        if not rows:
            exact, labels = found[0], result.labels
        sample = np.linspace(0, args.images - 1, 5000).astype(int)
        hits = [len(np.intersect1d(exact[row], found[0][row])) for row in sample]
        rows.append(
            {
                "images": args.images,
                "dim": args.dim,
                "search": name,
                "s": seconds,
                "CPU s": used,
                "recall": float(np.mean(hits)) / 30,
                "clusters": result.num_clusters,
                "outliers": result.outlier_share,
                "ARI against exact": adjusted_rand_score(labels, result.labels),
            }
        )
        report(f"approximate_{args.images}", rows, args.out)


if __name__ == "__main__":
    main()
