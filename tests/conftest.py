# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures. zlib comes before everything else for Paddle 2.6 (see ppcls_ise/__init__.py)."""

import os
import zlib  # noqa: F401
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
REFERENCE = Path(os.environ.get("ISE_FIXTURES", REPOSITORY.parent / "shared" / "fixtures"))


def reference_files(pattern: str) -> list:
    """Reference files as pytest parameters; one skipped parameter where there are none."""
    files = sorted(REFERENCE.glob(pattern)) if REFERENCE.is_dir() else []
    if not files:
        reason = f"no {pattern} in {REFERENCE} (set ISE_FIXTURES)"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id=pattern)]
    return [pytest.param(file, id=file.stem) for file in files]


def read_reference(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


@pytest.fixture
def unit_rows() -> Callable[..., np.ndarray]:
    """Random unit rows: unit_rows(generator, n, d)."""

    def make(generator: np.random.Generator, rows: int, columns: int) -> np.ndarray:
        values = generator.standard_normal((rows, columns)).astype(np.float32)
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    return make
