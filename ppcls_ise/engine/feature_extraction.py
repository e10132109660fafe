# SPDX-License-Identifier: Apache-2.0
"""Ordered feature extraction."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.io import DataLoader, DistributedBatchSampler

from ppcls_ise.clustering.parallel import spans
from ppcls_ise.clustering.row_set import unit_rows
from ppcls_ise.compat.training_loop import batches_of
from ppcls_ise.data import ReIDDataset
from ppcls_ise.distributed.collectives import (
    broadcast_running_statistics,
    gather_arrays,
    meet_all,
)
from ppcls_ise.engine.feature_storage import FeatureStorage
from ppcls_ise.engine.static_features import StaticFeatures
from ppcls_ise.errors import DataError, DivergenceError
from ppcls_ise.utils.progress import tracked
from ppcls_ise.utils.stop_requests import keep_working

_SHOWN = 5
_MOVED_ROWS = 1024


@dataclass(frozen=True)
class Features:
    """Features of a data set, in its order.

    Attributes:
        values: [N, D] float32, unit rows; a zero row where the image could not be read. Not to be
            written to: several processes may share them (`FeatureStorage`).
        readable: [N] bool.
        fills: whether this process writes them.
    """

    values: np.ndarray
    readable: np.ndarray
    fills: bool = True

    @contextmanager
    def together(self) -> Iterator[np.ndarray]:
        """Rows of the readable images [M, D], without a copy: they are moved together, and back in
        the end, so ``values`` must not be used meanwhile. All processes call this together."""
        rows = np.flatnonzero(self.readable)
        if len(rows) == len(self.values):
            yield self.values
            return
        blocks = list(spans(len(rows), _MOVED_ROWS))
        for start, stop in blocks if self.fills else ():
            self.values[start:stop] = self.values[rows[start:stop]]
        meet_all()
        yield self.values[: len(rows)]
        meet_all()
        for start, stop in reversed(blocks) if self.fills else ():
            self.values[rows[start:stop]] = self.values[start:stop].copy()
        if self.fills:
            self.values[~self.readable] = 0.0
        meet_all()


def loader_of(
    dataset: ReIDDataset,
    *,
    batch_size: int,
    num_workers: int,
    use_shared_memory: bool = True,
    device: Any,
) -> DataLoader:
    """A loader that walks through ``dataset`` once, in order, sharded over the processes."""
    sampler = DistributedBatchSampler(dataset, batch_size, shuffle=False, drop_last=False)
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=num_workers,
        use_shared_memory=use_shared_memory,
        places=device,
        return_list=True,
        worker_init_fn=keep_working,
    )


@paddle.no_grad()
def extract(
    model: nn.Layer,
    loader: DataLoader,
    *,
    title: str,
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    static: StaticFeatures | None = None,
    storage: FeatureStorage | None = None,
    after_batch: Callable[[], None] = lambda: None,
) -> Features:
    """Evaluation-mode features of every image behind ``loader`` (CC (2)).

    ``N(BN(pooled))`` of the single image. The order is the data set's whatever the loader's;
    several processes each compute a part, batch by batch, and all receive the whole.

    Memory: the result, 4 N D bytes, once on a machine, and some batches.

    Args:
        model: a ``RecModel``; its mode is restored afterwards.
        loader: over a `ReIDDataset` (or a view of one); as many batches in every process.
        title: for the progress bar.
        precision: makes the mixed-precision context of a batch.
        static: computes by a static graph where it can.
        storage: where the result is held; in memory by default.
        after_batch: called after every batch, in all processes alike.

    Raises:
        DivergenceError: a feature is not finite; names the image.
        DataError: there is no image.
    """
    dataset = loader.dataset
    was_training = model.training
    model.eval()
    broadcast_running_statistics(model)
    found: Features | None = None
    finite = np.ones(len(dataset), bool)
    network = None
    progress = tracked(batches_of(loader), title, "batch", len(loader))
    for images, labels, *_ in progress:
        if dataset.on_device is not None:
            images = dataset.on_device(images)
        if static is not None and found is None:
            network = static.network(images.numpy())
        if network is not None:
            rows = network(images.numpy())
        else:
            with precision():
                output = model(images, labels)["features"]
            rows = output.astype("float32").numpy()
        rows = gather_arrays(rows)
        index, readable = gather_arrays(labels.numpy()[:, 1:3]).T
        if found is None:
            values, fills = (storage or FeatureStorage()).zeros(len(dataset), rows.shape[1])
            found = Features(values, np.zeros(len(dataset), bool), fills)
        rows[readable == 0] = 0.0
        finite[index] = whole = np.isfinite(rows).all(axis=1)
        rows[~whole] = 0.0
        if found.fills:
            found.values[index] = unit_rows(rows, out=rows)
        found.readable[index] = readable != 0
        after_batch()
    meet_all()  # what others read is filled
    if was_training:
        model.train()
    if found is None:
        raise DataError(f"{title}: there is no image to extract a feature from")
    if not finite.all():
        bad = [dataset.images[i] for i in np.flatnonzero(~finite)[:_SHOWN]]
        raise DivergenceError(
            f"{title}: {int((~finite).sum())} of {len(finite)} features are not finite, first of "
            f"{', '.join(bad)}."
        )
    return found


def require_readable(features: Features, dataset: ReIDDataset, *, title: str) -> None:
    """Raise if an image could not be read (evaluation never goes on without one).

    Raises:
        DataError: names the images and why they could not be read.
    """
    bad = np.flatnonzero(~features.readable)
    if len(bad):
        reasons = [str(dataset.read_error(int(i))) for i in bad[:_SHOWN]]
        raise DataError(
            f"{title}: {len(bad)} of {len(features.readable)} images cannot be read, and an "
            f"evaluation without them would not be comparable: {'; '.join(reasons)}"
        )
