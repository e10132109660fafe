# SPDX-License-Identifier: Apache-2.0
"""Features of many images, kept in blocks: what a killed command has computed is not lost."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppcls_ise.deploy.extractor import Extractor
from ppcls_ise.errors import DataError, shown
from ppcls_ise.utils.array_files import read_tree, write_tree

KIND = "ppcls_ise features 1"
_BLOCK = 1024  # images
_PATTERN = "block_*.safetensors"


class FeatureStore:
    """A folder of features, each bound to the file, its size and its time of change.

    Args:
        folder: where the blocks are; made when there is something to write.
        extractor: computes what is not there.

    Raises:
        DataError: a block is damaged, or the features are of another model.
    """

    def __init__(self, folder: str | Path, extractor: Extractor) -> None:
        self.folder = Path(folder)
        self.extractor = extractor
        # Path -> size, time of change, block and row.
        self._places: dict[str, tuple[int, int, Path, int]] = {}
        for file in sorted(self.folder.glob(_PATTERN)):
            block = self._read(file)
            for row, path in enumerate(block["paths"]):
                size, time = (int(block[name][row]) for name in ("sizes", "times"))
                self._places[path] = (size, time, file, row)

    def features(
        self,
        paths: Sequence[str],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Features of N files; those that are not there yet are computed and kept.

        A block is written per 1,024 images, so an interruption costs at most so many.

        Returns:
            features [M, D] float32 of the files that can be read; which ones [M] int64, ascending;
            and in words why the others cannot. Memory: one matrix and one block.

        Raises:
            DataError: a feature is not finite.
            OSError: nothing can be written.
        """
        stamps = [_stamp(path) for path in paths]
        missing = [i for i, path in enumerate(paths) if not self._holds(path, stamps[i])]
        problems: list[str] = []
        for start in range(0, len(missing), _BLOCK):
            part = missing[start : start + _BLOCK]
            problems += self._compute([paths[i] for i in part], [stamps[i] for i in part])
            if progress is not None:
                progress(len(paths) - len(missing) + start + len(part), len(paths))
        kept = [i for i, path in enumerate(paths) if self._holds(path, stamps[i])]
        features = np.zeros((len(kept), self.extractor.dimension), np.float32)
        for file, rows, places in self._by_block([paths[i] for i in kept]):
            features[rows] = self._read(file)["features"][places]
        return features, np.array(kept, np.int64), problems

    def _holds(self, path: str, stamp: tuple[int, int] | None) -> bool:
        place = self._places.get(path)
        return place is not None and place[:2] == stamp

    def _compute(self, paths: list[str], stamps: list[tuple[int, int] | None]) -> list[str]:
        extraction = self.extractor.extract(paths)
        kept = [int(i) for i in extraction.kept if stamps[i] is not None]
        if kept:
            numbers = [int(file.stem.split("_")[1]) for file in self.folder.glob(_PATTERN)]
            file = self.folder / f"block_{max(numbers, default=0) + 1:06d}.safetensors"
            known = [stamps[i] or (0, 0) for i in kept]
            tree: dict[str, Any] = {
                "model": self.extractor.fingerprint,
                "arithmetic": self.extractor.arithmetic,
                "paths": [paths[i] for i in kept],
                "sizes": np.array([size for size, _ in known], np.int64),
                "times": np.array([time for _, time in known], np.int64),
                "features": extraction.features[np.isin(extraction.kept, kept)],
            }
            write_tree(file, tree, kind=KIND)
            for row, (i, stamp) in enumerate(zip(kept, known, strict=True)):
                self._places[paths[i]] = (*stamp, file, row)
        return [str(error) for error in extraction.errors]

    def _by_block(self, paths: Sequence[str]) -> Iterator[tuple[Path, list[int], list[int]]]:
        """File, rows of the result and rows of the block, for every block in use."""
        blocks: dict[Path, tuple[list[int], list[int]]] = {}
        for row, path in enumerate(paths):
            file, place = self._places[path][2:]
            rows, places = blocks.setdefault(file, ([], []))
            rows.append(row)
            places.append(place)
        for file, (rows, places) in blocks.items():
            yield file, rows, places

    def _read(self, file: Path) -> dict[str, Any]:
        block = read_tree(file, kind=KIND, error=DataError)
        count = len(block["paths"])
        shapes = {block[name].shape for name in ("sizes", "times")}
        if shapes != {(count,)} or block["features"].shape != (count, self.extractor.dimension):
            raise DataError(f"{shown(file)} does not hold as many features as paths: remove it")
        for key, own in (
            ("model", self.extractor.fingerprint),
            ("arithmetic", self.extractor.arithmetic),
        ):
            if block[key] != own:
                raise DataError(
                    f"{shown(self.folder)} holds features of another {key} ({block[key][:12]}, "
                    f"this one is {own[:12]}), which cannot be compared with these: name another "
                    f"folder (--out), or remove {shown(self.folder)}"
                )
        return block


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
