# SPDX-License-Identifier: Apache-2.0
"""A gallery of features: add, remove, search, save, load."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

from ppcls_ise.clustering.row_set import row_norms, unit_rows
from ppcls_ise.errors import DataError, shown
from ppcls_ise.retrieval import hnsw_graph
from ppcls_ise.retrieval.calibration import Calibration, checked_unit_rows
from ppcls_ise.retrieval.gallery_images import GalleryImage, images_of
from ppcls_ise.utils.array_files import read_tree, write_tree
from ppcls_ise.utils.files import reading
from ppcls_ise.utils.threads import faiss_threads

EXACT_LIMIT = 100_000
KIND = "ppcls_ise gallery 2"
_OLD_KIND = b"ppcls_ise gallery 1 "
_LARGEST_DEAD_SHARE = 0.25
_TIED = 1e-6  # scores this near may be equal: sums are rounded by the place in a block
_SHOWN = 5
_BLOCK_VALUES = 1 << 24


class Match(NamedTuple):
    """An image of the gallery and its cosine with the query."""

    path: str
    score: float


class GallerySearch:
    """Nearest images by cosine.

    Up to ``exact_limit`` images the search is exact (faiss ``IndexFlatIP``, O(N D) a query), above
    it approximate (HNSW). Images that were removed are never in a result. In an HNSW graph they
    stay as unreachable rows until they are a quarter of it or the rest fits an exact search; then
    the index is built anew from the features that it holds. Memory: 4 N D bytes, and 260 N more
    for HNSW.

    Args:
        model: fingerprint of the model that makes the features (``Extractor.fingerprint``); ""
            where nothing is known.
        exact_limit: images up to which the search is exact.

    Attributes:
        calibration: the threshold for "same person", or None.
    """

    def __init__(self, *, model: str = "", exact_limit: int = EXACT_LIMIT) -> None:
        self.model = model
        self.exact_limit = exact_limit
        self.calibration: Calibration | None = None
        self._index: Any = None
        self._rows: list[GalleryImage] = []  # the removed ones too
        self._alive = np.zeros(0, bool)
        self._place: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._place)

    @property
    def paths(self) -> list[str]:
        """N paths, in the order in which they were added."""
        return [image.path for image in self.images]

    @property
    def images(self) -> list[GalleryImage]:
        """N images, in the order of ``paths``."""
        return [self._rows[i] for i in np.flatnonzero(self._alive)]

    @property
    def features(self) -> np.ndarray:
        """[N, D] float32 unit rows in the order of ``paths``; a copy."""
        return self._vectors()[self._alive]

    @property
    def is_exact(self) -> bool:
        return not isinstance(self._index, faiss.IndexHNSWFlat)

    def require_model(self, fingerprint: str) -> None:
        """Raise if features of the model with this fingerprint cannot be compared with these.

        Raises:
            DataError: this gallery was made with another model.
        """
        if self.model != fingerprint:
            raise DataError(
                f"this gallery was made with another model (fingerprint {self.model[:12]}, the "
                f"one given has {fingerprint[:12]}): their features cannot be compared. Use that "
                "model (--model), or build the gallery again with this one (search.py build)."
            )

    def add(
        self,
        paths: Sequence[str],
        features: np.ndarray,
        *,
        cameras: Sequence[str] | None = None,
        tracklets: Sequence[str] | None = None,
    ) -> int:
        """Add images; a path that is in the gallery already is replaced.

        Args:
            paths: B different names.
            features: [B, D] finite rows of any length; a row of zeros is like nothing.
            cameras: B names, "" = unknown; None: all unknown.
            tracklets: likewise; a name is that of one tracklet in the whole gallery.

        Returns:
            How many were replaced.

        Raises:
            DataError: something does not fit; the gallery is as it was.
        """
        paths, rows = [str(path) for path in paths], _unit_rows(features)
        new = images_of(paths, cameras, tracklets)
        if len(paths) != len(rows) or len(set(paths)) != len(paths):
            raise DataError(
                f"{len(rows)} features need as many different paths, got {len(paths)} paths, "
                f"{len(set(paths))} of them different"
            )
        if self._index is not None and rows.shape[1] != self._index.d:
            raise DataError(
                f"the gallery's features have {self._index.d} values, these have {rows.shape[1]}: "
                "they are of another model"
            )
        if not paths:
            return 0
        known = [path for path in paths if path in self._place]
        self.remove(known)
        total = len(self._rows) + len(rows)
        if self._index is None or (self.is_exact and total > self.exact_limit):
            old = self._vectors() if self._index is not None else rows[:0]
            self._build(self.images + new, np.concatenate([old[self._alive], rows]))
        else:
            with faiss_threads():
                self._index.add(rows)
            self._number(self._rows + new, np.append(self._alive, np.ones(len(rows), bool)))
        return len(known)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove images.

        Raises:
            DataError: one of them is not in the gallery, which is as it was.
        """
        wanted = set(paths)
        if unknown := sorted(wanted - self._place.keys()):
            more = ", …" if len(unknown) > _SHOWN else ""
            raise DataError(f"not in the gallery: {', '.join(map(shown, unknown[:_SHOWN]))}{more}")
        if not wanted:
            return
        alive = self._alive.copy()
        alive[[self._place[path] for path in wanted]] = False
        left = int(alive.sum())
        dead_share = 1 - left / len(alive)
        if self.is_exact or left <= self.exact_limit or dead_share > _LARGEST_DEAD_SHARE:
            kept = [self._rows[i] for i in np.flatnonzero(alive)]
            self._build(kept, self._vectors()[alive])
        else:
            self._number(self._rows, alive)

    def search(
        self,
        features: np.ndarray,
        count: int = 10,
        *,
        exclude: Iterable[np.ndarray] | None = None,
    ) -> list[list[Match]]:
        """The ``count`` nearest images of every query, best first (all that there are, if fewer).

        Equal scores are in the order of ``paths``.

        Args:
            features: [Q, D], of any length.
            count: at least 1.
            exclude: for each of the Q queries the rows (in ``paths``) that its result does without,
                as `ppcls_ise.retrieval.gallery_images.rows_like` gives them; nothing may be left.
                The search is then exact in a gallery of any size, O(N D) a query.

        Raises:
            DataError: the gallery is empty, or features do not fit.
        """
        queries = _unit_rows(features)
        if not len(self):
            raise DataError("the gallery is empty: add images first (search.py add)")
        if queries.shape[1] != self._index.d or count < 1:
            raise DataError(
                f"a query needs {self._index.d} values and at least 1 result, got "
                f"{queries.shape[1]} values and {count} results"
            )
        if exclude is not None:
            return list(self._search_without(queries, count, exclude))
        count = min(count, len(self))
        width = min(count + 1, len(self))  # one more tells whether the cut goes through equals
        if self.is_exact:
            with faiss_threads():
                scores, rows = self._index.search(queries, width)
        else:
            scores, rows = hnsw_graph.search_graph(self._index, queries, width, self._alive)
        cut = (width > count) & (scores[:, count - 1] - scores[:, -1] <= _TIED)
        results = []
        for number, query in enumerate(queries):
            places = rows[number]
            if cut[number] or (places < 0).any():
                places = self._nearest(query, count)
            results.append(self._ranked(query, places, count))
        return results

    def _search_without(
        self, queries: np.ndarray, count: int, exclude: Iterable[np.ndarray]
    ) -> Iterator[list[Match]]:
        places = np.flatnonzero(self._alive)
        wanted = iter(exclude)
        step = max(1, _BLOCK_VALUES // len(self._rows))
        for start in range(0, len(queries), step):
            part = queries[start : start + step]
            scores = part @ self._vectors().T
            scores[:, ~self._alive] = -np.inf
            for query, own, rows in zip(part, scores, islice(wanted, len(part)), strict=True):
                own[places[rows]] = -np.inf
                yield self._ranked(query, _best(own, count), count)

    def _ranked(self, query: np.ndarray, places: np.ndarray, count: int) -> list[Match]:
        """The first ``count`` of ``places`` by score; the same images get the same score anywhere,
        and equal scores are in the order of the gallery."""
        scores = np.clip(np.einsum("ij,j->i", self._vectors()[places], query), -1, 1)
        order = np.lexsort((places, -scores))[:count]
        return [Match(self._rows[places[i]].path, float(scores[i])) for i in order]

    def save(self, path: str | Path) -> None:
        """Write the gallery to one file, atomically: it is the old one or the new one, whole.

        Raises:
            DataError: nothing has ever been added.
            OSError: it cannot be written there.
        """
        if self._index is None:
            raise DataError("a gallery without features cannot be saved: add images first")
        tree = {
            "model": self.model,
            "exact_limit": self.exact_limit,
            "calibration": self.calibration.to_json() if self.calibration else None,
            "paths": [image.path for image in self._rows],
            "cameras": [image.camera for image in self._rows],
            "tracklets": [image.tracklet for image in self._rows],
            "features": self._vectors(),
            "alive": self._alive,
        }
        if not self.is_exact:
            tree["graph"] = hnsw_graph.graph_arrays(self._index)
        write_tree(path, tree, kind=KIND)

    @classmethod
    def load(cls, path: str | Path) -> "GallerySearch":
        """Read a gallery; nothing in the file is executed.

        Raises:
            DataError: the file is damaged, or something else.
            OSError: there is no such file.
        """
        with Path(path).open("rb") as file:
            if file.read(len(_OLD_KIND)) == _OLD_KIND:
                raise DataError(
                    f"{shown(path)} is a gallery of version 0.1, which this version does not read. "
                    "Make it again with ppcls-ise search build."
                )
        with reading(path, DataError, "holds no gallery that can be used"):
            return cls._of(read_tree(path, kind=KIND, error=DataError))

    @classmethod
    def _of(cls, tree: dict[str, Any]) -> "GallerySearch":
        limit, paths = tree["exact_limit"], tree["paths"]
        # Galleries of before this version have neither.
        cameras, tracklets = tree.get("cameras"), tree.get("tracklets")
        if not isinstance(tree["model"], str) or type(limit) is not int:
            raise ValueError("its description has other types")
        for names in (paths, cameras or [], tracklets or []):
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError("its names are not texts")
            if names and len(names) != len(paths):
                raise ValueError("there are not as many names of a kind as images")
        vectors, alive, graph = tree["features"], tree["alive"], tree.get("graph")
        if vectors.dtype != np.float32 or vectors.ndim != 2 or not vectors.shape[1]:
            raise ValueError("its features are no matrix of numbers")
        if alive.dtype != bool or alive.shape != (len(vectors),) or len(paths) != len(vectors):
            raise ValueError("features, paths and marks are not equally many")
        vectors = checked_unit_rows(vectors)
        images = images_of(paths, cameras, tracklets)
        gallery = cls(model=tree["model"], exact_limit=limit)
        if tree["calibration"] is not None:
            gallery.calibration = Calibration.from_json(tree["calibration"])
        if graph is not None:
            gallery._index = hnsw_graph.graph_of(vectors, graph)
            gallery._number(images, alive)
        elif alive.all():
            gallery._index = _flat(vectors)
            gallery._number(images, alive)
        else:
            raise ValueError("an exact index has removed rows")
        if len(gallery._place) != int(alive.sum()):
            raise ValueError("a path occurs twice")
        return gallery

    def _build(self, images: list[GalleryImage], vectors: np.ndarray) -> None:
        """Build the index of these rows."""
        if len(images) > self.exact_limit:
            self._index = hnsw_graph.build_graph(vectors)
        else:
            self._index = _flat(vectors)
        self._number(images, np.ones(len(images), bool))

    def _number(self, rows: list[GalleryImage], alive: np.ndarray) -> None:
        self._rows, self._alive = rows, alive
        self._place = {rows[i].path: int(i) for i in np.flatnonzero(alive)}

    def _vectors(self) -> np.ndarray:
        """All rows [R, D], removed ones too: a view of what faiss holds."""
        if self._index is None:
            return np.zeros((0, 0), np.float32)
        flat = self._index if self.is_exact else faiss.downcast_index(self._index.storage)
        if not flat.ntotal:
            return np.zeros((0, flat.d), np.float32)
        return faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(-1, flat.d)

    def _nearest(self, query: np.ndarray, count: int) -> np.ndarray:
        """Places of the ``count`` nearest images and of those that may equal the last of them, for
        a search that cut through equal scores or found too few. O(N D) time, O(N) memory."""
        return _best(np.where(self._alive, self._vectors() @ query, -np.inf), count)


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Places of the ``count`` largest of scores [N], of which -Inf are none, and of those that may
    equal the last of them."""
    count = min(count, np.count_nonzero(scores > -np.inf))
    if not count:
        return np.zeros(0, np.int64)
    last = np.partition(scores, len(scores) - count)[len(scores) - count]
    return np.flatnonzero(scores >= last - _TIED)


def _flat(vectors: np.ndarray) -> faiss.IndexFlatIP:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    return index


def _unit_rows(features: np.ndarray) -> np.ndarray:
    """[B, D] float32 rows of length 1, or 0."""
    rows = np.ascontiguousarray(features, dtype=np.float32)
    if rows.ndim != 2 or not rows.shape[1]:
        raise DataError(f"features are a matrix [N, D], got shape {list(rows.shape)}")
    try:
        row_norms(rows)
    except ValueError as error:
        raise DataError(f"{error}. The weights may have diverged.") from error
    return unit_rows(rows)
