# SPDX-License-Identifier: Apache-2.0
"""Ordered feature extraction."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.io import DataLoader, DistributedBatchSampler
from tqdm import tqdm

from ppcls_ise.clustering.row_set import unit_rows
from ppcls_ise.data import ReIDDataset
from ppcls_ise.distributed.collectives import broadcast_running_statistics, gather_arrays
from ppcls_ise.engine.static_features import StaticFeatures
from ppcls_ise.errors import DataError, DivergenceError

_SHOWN = 5


@dataclass(frozen=True)
class Features:
    """Features of a data set, in its order.

    Attributes:
        values: [N, D] float32, unit rows; a zero row where the image could not be read.
        readable: [N] bool.
    """

    values: np.ndarray
    readable: np.ndarray


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
    )


@paddle.no_grad()
def extract(
    model: nn.Layer,
    loader: DataLoader,
    *,
    title: str,
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    static: StaticFeatures | None = None,
) -> Features:
    """Evaluation-mode features of every image behind ``loader`` (CC (2)).

    ``N(BN(pooled))`` of the single image. The order is the data set's whatever the loader's;
    several processes each compute a part and all receive the whole. Memory: 4 N D bytes.

    Args:
        model: a ``RecModel``; its mode is restored afterwards.
        loader: over a `ReIDDataset` (or a view of one).
        title: for the progress bar, which is shown on terminals only.
        precision: makes the mixed-precision context of a batch.
        static: computes by a static graph where it can.

    Raises:
        DivergenceError: a feature is not finite; names the image.
    """
    dataset = loader.dataset
    was_training = model.training
    model.eval()
    broadcast_running_statistics(model)
    parts: list[np.ndarray] = []
    marks: list[np.ndarray] = []
    network = None
    for images, labels, *_ in tqdm(loader, desc=title, unit="batch", leave=False, disable=None):
        if dataset.on_device is not None:
            images = dataset.on_device(images)
        if static is not None and not parts:
            network = static.network(images.numpy())
        if network is not None:
            parts.append(network(images.numpy()))
        else:
            with precision():
                output = model(images, labels)["features"]
            parts.append(output.astype("float32").numpy())
        marks.append(labels.numpy()[:, 1:3])
    if was_training:
        model.train()
    if not parts:
        raise DataError(f"{title}: there is no image to extract a feature from")

    index, readable = gather_arrays(np.concatenate(marks)).T
    raw = gather_arrays(np.concatenate(parts))
    values = np.zeros((len(dataset), raw.shape[1]), np.float32)
    values[index] = raw
    ok = np.zeros(len(dataset), bool)
    ok[index] = readable.astype(bool)
    values[~ok] = 0.0
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        bad = [dataset.images[i] for i in np.flatnonzero(~finite)[:_SHOWN]]
        raise DivergenceError(
            f"{title}: {int((~finite).sum())} of {len(values)} features are not finite, first of "
            f"{', '.join(bad)}."
        )
    return Features(unit_rows(values), ok)


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
