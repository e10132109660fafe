# SPDX-License-Identifier: Apache-2.0
"""Approximate neighbor search against exact: recall, clusters, and how alike these are.

    python benchmarks/approximate.py --images 100000 --dim 256
    python benchmarks/processes.py --images 1000000 --dim 256 --processes 2 --keep exact.npz
    python benchmarks/approximate.py --images 1000000 --dim 256 --lists 4096 --exact exact.npz

HNSW is `Clustering.approximate`. IVF-PQ is not part of the package: rows as 64 bytes (product
quantization) in inverted lists, of which some are visited; of the 128 best rows by these bytes, the
exact products decide.
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

_BYTES, _COMPARED, _ROWS = 64, 128, 2048


class IvfPq:
    """A search backend."""

    def __init__(self, lists: int, visited: int) -> None:
        self.lists, self.visited = lists, visited

    def __call__(
        self, row_set: RowSet, width: int, *, progress: object = None
    ) -> tuple[np.ndarray, np.ndarray]:
        features = row_set.slice(0, len(row_set))
        lists = faiss.IndexFlatIP(row_set.dim)
        form = (row_set.dim, self.lists, _BYTES, 8, faiss.METRIC_INNER_PRODUCT)
        index = faiss.IndexIVFPQ(lists, *form)
        index.train(features[:: max(1, len(features) // (40 * self.lists))])
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
    parser.add_argument("--lists", type=int, default=1024)
    parser.add_argument("--exact", type=Path, help="what processes.py kept; else it is computed")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    features = clustered_features(args.images, args.dim)
    runs = {} if args.exact else {"exact": {}}
    runs["HNSW"] = {"approximate": True}
    for visited in args.visited:
        name = f"IVF-PQ, {visited} of {args.lists} lists"
        runs[name] = {"backend": IvfPq(args.lists, visited)}
    rows: list[dict] = []
    if args.exact:
        kept = np.load(args.exact)
        exact, labels = kept["indices"], kept["labels"]
    for name, options in runs.items():
        started, used = time.perf_counter(), time.process_time()
        found = k_nearest(features, 30, **options)
        seconds, used = time.perf_counter() - started, time.process_time() - used
        result = generate_pseudo_labels(features, args.eps, neighbors=found)
        if name == "exact":
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
