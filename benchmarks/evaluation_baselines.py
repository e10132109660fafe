# SPDX-License-Identifier: Apache-2.0
"""What evaluation is measured against: dense, sort-based, one matrix of all distances.

The definitions are those of ppcls_ise.metrics (Market-1501 protocol; k-reciprocal re-ranking), in
the form that most toolboxes share. Peers are called where a checkout is given; none is copied.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np

# query features, gallery features, query and gallery identities, query and gallery cameras
Problem = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def product_alone(problem: Problem) -> None:
    """The matrix product that every evaluation needs, 1,024 queries at a time."""
    query, gallery = problem[:2]
    buffer = np.empty((min(1024, len(query)), len(gallery)), dtype=np.float32)
    for start in range(0, len(query), len(buffer)):
        block = query[start : start + len(buffer)]
        np.matmul(block, gallery.T, out=buffer[: len(block)])


def squared_distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    distances = left @ right.T
    distances *= -2.0
    distances += np.einsum("ij,ij->i", left, left)[:, None]
    distances += np.einsum("ij,ij->i", right, right)[None]
    return np.maximum(distances, 0.0, out=distances)


def dense_evaluation(problem: Problem) -> float:
    """mAP and CMC by sorting the whole gallery for every query."""
    query, gallery, *labels = problem
    return sorted_ranking(squared_distances(query, gallery), *labels)


def sorted_ranking(
    distances: np.ndarray,
    query_pids: np.ndarray,
    gallery_pids: np.ndarray,
    query_camids: np.ndarray,
    gallery_camids: np.ndarray,
) -> float:
    order = np.argsort(distances, axis=1)
    cmc, precisions = np.zeros(50), []
    for i, row in enumerate(order):
        match = gallery_pids[row] == query_pids[i]
        match = match[~(match & (gallery_camids[row] == query_camids[i]))]
        place = np.flatnonzero(match)
        if len(place):
            cmc[place[0] :] += 1
            precisions.append(np.mean(np.arange(1, len(place) + 1) / (place + 1)))
    return float(np.mean(precisions))


def dense_re_ranking(problem: Problem, k1: int = 20, k2: int = 6, weight: float = 0.3) -> float:
    """Several [Q+G, Q+G] matrices and a loop over the images; mAP of the result."""
    query, gallery, *labels = problem
    rows = np.concatenate([query, gallery])
    count, queries = len(rows), len(query)
    original = squared_distances(rows, rows)
    original /= original.max(axis=1, keepdims=True)
    rank = np.argsort(original, axis=1).astype(np.int32)

    def mutual(i: int, length: int) -> np.ndarray:
        near = rank[i, :length]
        return near[(rank[near, :length] == i).any(axis=1)]

    member = np.zeros((count, count), dtype=np.float32)
    for i in range(count):
        own = mutual(i, k1 + 1)
        grown = [own]
        for j in own:
            half = mutual(j, round(k1 / 2) + 1)
            if len(np.intersect1d(half, own)) > 2 / 3 * len(half):
                grown.append(half)
        chosen = np.unique(np.concatenate(grown))
        strength = np.exp(-original[i, chosen])
        member[i, chosen] = strength / strength.sum()
    original = original[:queries, queries:].copy()
    expanded = np.empty_like(member)
    for i in range(count):
        expanded[i] = member[rank[i, :k2]].mean(axis=0)
    having = [np.flatnonzero(expanded[:, j]) for j in range(count)]
    for i in range(queries):
        shared = np.zeros(count, dtype=np.float32)
        for j in np.flatnonzero(expanded[i]):
            shared[having[j]] += np.minimum(expanded[i, j], expanded[having[j], j])
        jaccard = 1 - shared[queries:] / (2 - shared[queries:])
        original[i] = (1 - weight) * jaccard + weight * original[i]
    return sorted_ranking(original, *labels)


def peers(path: Path) -> Iterator[tuple[str, Callable[[Problem], object], bool]]:
    """Name, function and whether it re-ranks, of the evaluations in one checkout.

    Known: ISE-ReID and its relatives (clustercontrast/), torchreid, fastreid and PaddleClas
    (ppcls/). PyTorch is needed for all but the last; torchreid and fast-reid rank by their
    compiled code if it has been built in place, else by their Python code.
    """
    sys.path.insert(0, str(path))
    if (path / "clustercontrast").is_dir():
        yield from _authors(path)
    elif (path / "torchreid").is_dir():
        yield from _toolbox("torchreid", path / "torchreid" / "metrics")
    elif (path / "fastreid").is_dir():
        yield from _toolbox("fast-reid", path / "fastreid" / "evaluation")
    elif (path / "ppcls").is_dir():
        yield from _paddleclas(path)
    else:
        sys.exit(f"--peer {path}: none of clustercontrast, torchreid, fastreid, ppcls is there")


def _package(name: str, folder: Path, module: str) -> types.ModuleType:
    """Import one module of a folder without running the folder's own ``__init__``."""
    package = sys.modules.setdefault(name, types.ModuleType(name))
    package.__path__ = [str(folder)]
    return importlib.import_module(f"{name}.{module}")


def _authors(path: Path) -> Iterator[tuple[str, Callable[[Problem], object], bool]]:
    folder = path / "clustercontrast"
    _package("clustercontrast", folder, "utils")
    evaluators = _package("clustercontrast", folder, "evaluators")
    import torch

    def distances(left: np.ndarray, right: np.ndarray) -> tuple:
        features = {("q", i): row for i, row in enumerate(torch.from_numpy(left))}
        features |= {("g", i): row for i, row in enumerate(torch.from_numpy(right))}
        keys = [[(key, 0, 0) for key in features if key[0] == side] for side in "qg"]
        return evaluators.pairwise_distance(features, *keys)[0]

    def score(matrix: object, labels: list[np.ndarray]) -> None:
        names = ("query_ids", "gallery_ids", "query_cams", "gallery_cams")
        evaluators.evaluate_all(
            None, None, matrix, cmc_flag=True, **dict(zip(names, labels, strict=True))
        )

    def evaluate(problem: Problem) -> None:
        query, gallery, *labels = problem
        score(distances(query, gallery), labels)

    def re_rank(problem: Problem) -> None:
        query, gallery, *labels = problem
        parts = [(query, gallery), (query, query), (gallery, gallery)]
        matrices = [distances(*part).numpy() for part in parts]
        score(evaluators.re_ranking(*matrices), labels)

    yield "authors", evaluate, False
    yield "authors", re_rank, True


def _toolbox(name: str, folder: Path) -> Iterator[tuple[str, Callable[[Problem], object], bool]]:
    package = name.replace("-", "_") + "_metrics"
    rank = _package(package, folder, "rank")
    import torch

    def distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        left, right = torch.from_numpy(left), torch.from_numpy(right)
        matrix = (left**2).sum(1)[:, None] + (right**2).sum(1)[None]
        return matrix.addmm_(left, right.T, beta=1, alpha=-2).numpy()

    def evaluate(problem: Problem) -> None:
        query, gallery, *labels = problem
        rank.evaluate_rank(distances(query, gallery), *labels, use_cython=rank.IS_CYTHON_AVAI)

    yield f"{name}, {'compiled' if rank.IS_CYTHON_AVAI else 'Python'}", evaluate, False
    again = folder / "rerank.py"
    if again.exists():
        re_ranking = _package(package, folder, "rerank").re_ranking

        def re_rank(problem: Problem) -> None:
            query, gallery, *labels = problem
            parts = [(query, gallery), (query, query), (gallery, gallery)]
            matrix = re_ranking(*(np.sqrt(squared_distances(*part)) for part in parts))
            rank.evaluate_rank(matrix, *labels, use_cython=rank.IS_CYTHON_AVAI)

        yield name, re_rank, True


def _paddleclas(path: Path) -> Iterator[tuple[str, Callable[[Problem], object], bool]]:
    from ppcls.engine.evaluation import retrieval
    from ppcls.metric import build_metrics
    from ppcls.utils import logger

    logger.init_logger()

    def evaluation(again: bool) -> Callable[[Problem], object]:
        def evaluate(problem: Problem) -> None:
            query, gallery, *labels = problem
            sides = {
                "query": (query, labels[0], labels[2]),
                "gallery": (gallery, labels[1], labels[3]),
            }
            options = {"re_ranking": again, "print_batch_step": 10**9, "feature_normalize": False}
            engine = types.SimpleNamespace(
                model=_Given(),
                gallery_query_dataloader=None,
                query_dataloader=_Loader(*sides["query"]),
                gallery_dataloader=_Loader(*sides["gallery"]),
                use_dali=False,
                amp=False,
                is_rec=True,
                auto_cast=lambda is_eval: nullcontext(),
                eval_loss_func=True,
                config={"Global": options},
                eval_metric_func=build_metrics([{"Recallk": {"topk": [1, 5]}}, {"mAP": {}}]),
            )
            retrieval.retrieval_eval(engine)

        return evaluate

    yield "PaddleClas", evaluation(False), False
    yield "PaddleClas", evaluation(True), True


class _Given:
    """A model that hands its input on."""

    def eval(self) -> None: ...

    def __call__(self, features: object, labels: object) -> dict[str, object]:
        return {"features": features}


class _Loader:
    """Everything in one batch: features, identities, cameras."""

    def __init__(self, *batch: np.ndarray) -> None:
        self.batch, self.dataset = batch, batch[0]

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        yield self.batch
