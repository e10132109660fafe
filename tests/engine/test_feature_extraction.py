# SPDX-License-Identifier: Apache-2.0
"""Extraction: order, what is not a feature, and memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from ppcls_ise.clustering.row_set import unit_rows
from ppcls_ise.engine import feature_extraction, feature_storage
from ppcls_ise.engine.feature_extraction import Features, extract
from ppcls_ise.engine.feature_storage import FeatureStorage
from ppcls_ise.errors import ConfigError, DataError, DivergenceError
from tests.conftest import REPOSITORY

_SCRIPT = """
import json
import sys

import numpy as np
from benchmarks.common import PeakMemory, status
from ppcls_ise.engine.feature_extraction import extract
from ppcls_ise.engine.feature_storage import FeatureStorage
from tests.engine.test_feature_extraction import Loader, Repeat

SIZES = [(20_000, 512), (20_000, 2048)]
DISK = FeatureStorage(sys.argv[1])

class Static:
    def network(self, images):
        return lambda x: x.repeat(width // 4, 1)

extract(Repeat(64), Loader(256, 16), title="warm")
for count, width in SIZES:
    for static, storage in ((None, None), (Static(), None), (Static(), DISK)):
        before = status("RssAnon")
        with PeakMemory() as memory:
            found = extract(
                Repeat(width), Loader(count, 500), title="test", static=static, storage=storage
            )
        held = (status("RssAnon") - before) / 1024
        assert abs(np.linalg.norm(found.values[count - 1]) - 1) < 1e-4
        del found
        print(json.dumps([count, width, storage is None, memory.added, held]))
"""


class Repeat(paddle.nn.Layer):
    """Images [B, 4] -> features [B, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, images, labels):
        return {"features": images.tile([1, self.width // 4])}


class Loader:
    """Batches of (images [B, 4], labels [B, 3]), rows in a scrambled order."""

    def __init__(self, count: int, batch: int, values=None, readable=None) -> None:
        generator = np.random.default_rng(0)
        self.values = values
        if values is None:
            self.values = generator.standard_normal((count, 4)).astype(np.float32)
        self.readable = np.ones(count, int) if readable is None else readable
        self.order = generator.permutation(count)
        self.batch = batch
        self.dataset = _Dataset(f"{i}.jpg" for i in range(count))

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch)

    def __iter__(self):
        for start in range(0, len(self.order), self.batch):
            index = self.order[start : start + self.batch]
            labels = np.stack([np.full(len(index), -1), index, self.readable[index]], axis=1)
            yield paddle.to_tensor(self.values[index]), paddle.to_tensor(labels)


class _Dataset:
    on_device = None

    def __init__(self, images) -> None:
        self.images = list(images)

    def __len__(self) -> int:
        return len(self.images)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_rows_are_those_of_the_whole_matrix_in_the_data_sets_order(batch):
    readable = np.ones(50, int)
    readable[[3, 49]] = 0
    loader = Loader(50, batch, readable=readable)
    found = extract(Repeat(12), loader, title="test")
    expected = unit_rows(np.tile(loader.values, 3))
    expected[readable == 0] = 0.0
    assert found.values.tobytes() == expected.tobytes()
    np.testing.assert_array_equal(found.readable, readable.astype(bool))
    with found.together() as rows:
        assert rows.tobytes() == np.delete(expected, [3, 49], axis=0).tobytes()
        assert np.shares_memory(rows, found.values)
    assert found.values.tobytes() == expected.tobytes()


@pytest.mark.parametrize("bad", [[], [0], [49], [0, 1, 2, 30], list(range(49))])
def test_readable_rows_are_moved_together_and_back(bad, monkeypatch):
    monkeypatch.setattr(feature_extraction, "_MOVED_ROWS", 7)
    readable = np.ones(50, bool)
    readable[bad] = False
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    values[bad] = 0.0
    found = Features(values.copy(), readable)
    with found.together() as rows:
        np.testing.assert_array_equal(rows, values[readable])
    np.testing.assert_array_equal(found.values, values)


def test_features_that_are_not_finite_are_named():
    values = np.ones((20, 4), np.float32)
    values[[2, 17], [1, 3]] = np.nan, np.inf
    with pytest.raises(DivergenceError, match=r"2 of 20 .* 2\.jpg, 17\.jpg"):
        extract(Repeat(4), Loader(20, 8, values), title="test")
    readable = np.ones(20, int)
    readable[[2, 17]] = 0
    found = extract(Repeat(4), Loader(20, 8, values, readable), title="test")
    assert not found.values[[2, 17]].any()
    with pytest.raises(DataError, match="no image"):
        extract(Repeat(4), Loader(0, 8), title="test")


@pytest.mark.slow
def test_the_peak_is_the_result(tmp_path):
    """By the kernel's high-water mark, eager and static; a file's pages can be dropped."""
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 6
    for count, width, in_memory, added, held in lines:
        whole = 4 * count * width / 1e6
        assert 0.8 * whole < added < 1.25 * whole, f"{added / whole:.2f} of {count} x {width}"
        assert held > 0.8 * whole if in_memory else held < 0.25 * whole, f"{held / whole:.2f}"


@pytest.mark.parametrize("on_disk", [None, "auto", True, "folder"])
def test_where_features_are_held(tmp_path, monkeypatch, on_disk):
    loader = Loader(50, 16)
    expected = extract(Repeat(12), loader, title="test").values
    asked = str(tmp_path / "named") if on_disk == "folder" else on_disk
    for available, disk in ((1e12, on_disk not in (None, "auto")), (4000.0, on_disk is not None)):
        monkeypatch.setattr(feature_storage, "available_memory", lambda bytes=available: bytes)
        storage = FeatureStorage(asked, tmp_path / "run")
        found = extract(Repeat(12), loader, title="test", storage=storage).values
        assert found.tobytes() == expected.tobytes()
        assert isinstance(found, np.memmap) == disk
        if disk:
            folder = tmp_path / ("named" if on_disk == "folder" else "run")
            assert Path(found.filename).parent == folder and not list(folder.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Clustering.features_on_disk=.*file"):
        FeatureStorage(str(tmp_path / "file" / "folder")).zeros(3, 4)
    with pytest.raises(ConfigError, match="GB cannot be written into"):
        FeatureStorage(str(tmp_path)).zeros(1 << 40, 1 << 10)


def test_available_memory():
    assert 1e6 < feature_storage.available_memory() < 1e14
