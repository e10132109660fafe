# SPDX-License-Identifier: Apache-2.0
"""Batches of P clusters with n images each, preferably of different cameras or tracklets."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import paddle

from ppcls_ise import compat
from ppcls_ise.clustering.tracklets import tracklet_array
from ppcls_ise.data.reid_dataset import ReIDDataset
from ppcls_ise.errors import ConfigError
from ppcls_ise.utils.components import register

logger = compat.logger()


@dataclass(frozen=True)
class IdentityTable:
    """The M clustered images, grouped by cluster and, inside a cluster, by camera and tracklet.

    Clusters are numbered in order of first appearance. All arrays are int64.

    Attributes:
        positions: [M] index in the data set.
        starts, counts: [C] where a cluster begins in ``positions``, and its number of images.
        near_begin, near_end: [M] the stretch of the images that are not drawn beside this one as
            long as there are others: those of its own camera, or of its own tracklet where the
            cluster has one camera only; relative to the start of the cluster.
    """

    positions: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    near_begin: np.ndarray
    near_end: np.ndarray

    @classmethod
    def build(
        cls, labels: np.ndarray, camids: np.ndarray | None, tracklets: np.ndarray | None = None
    ) -> "IdentityTable":
        """Group images by label [N]; labels below 0 are left out, ``camids`` and ``tracklets`` [N]
        may be None."""
        positions = np.flatnonzero(labels >= 0)
        _, first, group = np.unique(labels[positions], return_index=True, return_inverse=True)
        group = np.argsort(np.argsort(first))[group]
        unknown = np.zeros_like(positions)
        cameras = unknown if camids is None else camids[positions]
        runs = unknown
        if tracklets is not None:
            runs = tracklet_array(tracklets, len(labels))[positions]
        order = np.lexsort((runs, cameras, group))
        group, cameras, runs = group[order], cameras[order], runs[order]
        counts = np.bincount(group, minlength=len(first))
        starts = np.cumsum(counts) - counts
        begin, end = _stretches(group, cameras)
        if tracklets is not None:
            one_camera = (end - begin == counts[group])[:, None]
            finer = np.column_stack(_stretches(group, cameras, runs))
            begin, end = np.where(one_camera, finer, np.column_stack([begin, end])).T
        return cls(positions[order], starts, counts, begin - starts[group], end - starts[group])

    def draw_blocks(
        self, clusters: np.ndarray, num_instances: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw one block of images for each of K clusters.

        The anchor is uniform over the cluster. The others come from the images of other cameras,
        or, if there are none, of other tracklets, or else from all images but the anchor: without
        replacement iff the pool holds at least ``num_instances`` images. A one-image cluster
        repeats its image.

        Args:
            clusters: int [K], numbers of clusters; may repeat.
            num_instances: n, images in a block.
            rng: the generator to draw from.

        Returns:
            int64 [K, n] data set indices, the anchor first. O(K n^2), without a Python loop over K.
        """
        start, size = self.starts[clusters], self.counts[clusters]
        anchor = rng.integers(0, size)
        begin, end = self.near_begin[start + anchor], self.near_end[start + anchor]
        alone = end - begin == size
        begin = np.where(alone, anchor, begin)
        end = np.where(alone, anchor + 1, end)
        pool = size - (end - begin)

        # Draw numbers of the pool, then step over the stretch [begin, end) that is not in it.
        others = rng.integers(
            0, np.maximum(pool, 1)[:, None], size=(len(clusters), num_instances - 1)
        )
        plenty = pool >= num_instances
        others[plenty] = _draw_distinct(pool[plenty], num_instances - 1, rng)
        others += np.where(others >= begin[:, None], (end - begin)[:, None], 0)
        others = np.where(pool[:, None] == 0, anchor[:, None], others)
        return self.positions[start[:, None] + np.column_stack([anchor, others])]


def _stretches(*keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the run of rows with equal keys [M] begins and ends, for every row of sorted keys."""
    edge = np.ones(len(keys[0]), dtype=bool)
    edge[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    begins = np.flatnonzero(edge)
    run = np.cumsum(edge) - 1
    return begins[run], np.append(begins[1:], len(edge))[run]


def _draw_distinct(sizes: np.ndarray, amount: int, rng: np.random.Generator) -> np.ndarray:
    """Row i: ``amount`` different numbers below ``sizes[i]``, every sequence equally likely."""
    drawn = np.empty((len(sizes), amount), dtype=np.int64)
    for column in range(amount):  # Floyd's algorithm (CACM 30(9), 1987), all rows at once
        last = sizes - amount + column
        number = rng.integers(0, last + 1)
        taken = (drawn[:, :column] == number[:, None]).any(axis=1)
        drawn[:, column] = np.where(taken, last, number)
    return rng.permuted(drawn, axis=1)  # Floyd's sets are uniform, their order is not


@register("sampler")
class IdentitySampler(paddle.io.BatchSampler):
    """Batches of n images each of P clusters, ``iters`` of them per epoch.

    A pass visits all clusters once in random order (``IdentityTable.draw_blocks`` says what it
    takes of each), its blocks are cut into batches and the last partial batch is dropped. Passes
    follow one another until the epoch has its batches. Pseudo labels are read when iteration
    starts, so a re-labeled data set needs no new loader.

    A pass is drawn for the global batch of all processes, identically in each of them, and rank r
    takes the r-th part of every batch. So ranks see different clusters, and N processes see the
    very batches of one process with N times the batch size (but for the last point below).

    Deviations from the reference sampler (RandomMultipleGallerySampler of ISE):

    * One generator, seeded by (seed, epoch, pass), instead of three global ones; the rank enters
      as a slice and not as a seed. The distribution is the same.
    * A one-image cluster fills its block by repeating its image, instead of shifting all
      following blocks against the batches.
    * With fewer than P clusters the reference stops with an error. Here a batch then holds all
      clusters once (its rows are fewer), split over the ranks as evenly as possible; with fewer
      clusters than ranks, clusters are drawn again, so that no rank goes without.

    Args:
        dataset: the training set; its ``seed`` and ``epoch`` are kept up to date here.
        batch_size: rows per process, as everywhere in PaddleClas.
        num_instances: n, rows per cluster.
        iters: batches per epoch, whatever the number of clusters. Without clusters it
            raises.
        seed: key of all random choices, of the augmentation too.
        camera_aware: False, or a data set without cameras: cameras play no part in what is drawn
            beside an anchor.
        tracklet_aware: the same for tracklets.
        world_size, rank: of this process; taken from ``paddle.distributed`` if None.

    Yields:
        Lists of (index, draw), draw = step * rows of a full global batch + row.

    Raises:
        ConfigError: (a ValueError) sizes that do not fit together.
    """

    def __init__(
        self,
        dataset: ReIDDataset,
        batch_size: int,
        num_instances: int = 16,
        iters: int = 400,
        seed: int = 1,
        camera_aware: bool = True,
        tracklet_aware: bool = True,
        world_size: int | None = None,
        rank: int | None = None,
    ) -> None:
        # The base class would build an index sampler that has no part in this.
        for name, value in (("batch_size", batch_size), ("num_instances", num_instances)):
            if value < 1:
                raise ConfigError(f"DataLoader.Train.sampler.{name} must be >= 1, got {value}")
        if batch_size % num_instances:
            raise ConfigError(
                f"DataLoader.Train.sampler.batch_size ({batch_size}) must be a multiple of "
                f"DataLoader.Train.sampler.num_instances ({num_instances}); change one of them"
            )
        if iters < 1:
            raise ConfigError(
                f"DataLoader.Train.sampler.iters must be >= 1, got {iters}: the schedule of the "
                "learning rate needs a constant number, and that of a pass changes every epoch"
            )
        if seed < 0:
            raise ConfigError(f"DataLoader.Train.sampler.seed must be >= 0, got {seed}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_instances = num_instances
        self.iters = iters
        self.seed = seed
        self.camera_aware = camera_aware
        self.tracklet_aware = tracklet_aware
        self.shuffle = True
        self.drop_last = True
        self.world_size = paddle.distributed.get_world_size() if world_size is None else world_size
        self.rank = paddle.distributed.get_rank() if rank is None else rank
        self.set_epoch(0)

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        """Choose the random numbers of the next iteration, and of its augmentation.

        Args:
            epoch: counted from 1.
            first: batches that are left out at the beginning: those before a resumed step.
        """
        self.epoch = epoch
        self.first = first
        self.dataset.epoch = epoch
        self.dataset.seed = self.seed

    def __len__(self) -> int:
        return self.iters

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        if not (self.dataset.pseudo_labels >= 0).any():  # here: in a loader's thread it would hang
            raise ConfigError(
                "IdentitySampler draws from pseudo-labels, and there are none. They are made by "
                "this plugin's engine: train with tools/train.py or `ppcls-ise train`, not with "
                "PaddleClas's own tools"
            )
        camids = self.dataset.camids if self.camera_aware else None
        tracklets = self.dataset.tracklet_ids if self.tracklet_aware else None
        return self._batches(IdentityTable.build(self.dataset.pseudo_labels, camids, tracklets))

    def _batches(self, table: IdentityTable) -> Iterator[list[tuple[int, int]]]:
        full_batch = self.batch_size * self.world_size
        numbered = enumerate(self._global_batches(table))
        for step, blocks in islice(numbered, self.first, self.iters):
            draws = step * full_batch + np.arange(blocks.size).reshape(blocks.shape)
            mine = np.array_split(np.arange(len(blocks)), self.world_size)[self.rank]
            pairs = zip(blocks[mine].ravel().tolist(), draws[mine].ravel().tolist(), strict=True)
            yield list(pairs)

    def _global_batches(self, table: IdentityTable) -> Iterator[np.ndarray]:
        num_clusters = len(table.counts)
        per_batch = self.batch_size * self.world_size // self.num_instances
        eps = "Clustering.eps"
        if self.dataset.tracklet_ids is not None:
            eps += " (Clustering.tracklet_eps where tracklets are used)"
        if num_clusters == 1:
            logger.warning(
                "epoch %d: all clustered images are in one cluster, so there is nothing to tell "
                "apart: lower %s",
                self.epoch,
                eps,
            )
        elif num_clusters < per_batch:
            logger.warning(
                "epoch %d: %d clusters, but a batch wants %d; every batch holds all clusters once. "
                "Change %s if there should be more clusters, or lower "
                "DataLoader.Train.sampler.batch_size",
                self.epoch,
                num_clusters,
                per_batch,
                eps,
            )
        for number in count():
            rng = np.random.default_rng((self.seed, self.epoch, number))
            order = rng.permutation(num_clusters)
            if num_clusters < per_batch:
                per_batch_now = max(num_clusters, self.world_size)
                order = np.resize(order, per_batch_now)
            else:
                per_batch_now = per_batch
            blocks = table.draw_blocks(order, self.num_instances, rng)
            for first in range(0, len(blocks) - per_batch_now + 1, per_batch_now):
                yield blocks[first : first + per_batch_now]
