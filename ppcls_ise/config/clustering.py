# SPDX-License-Identifier: Apache-2.0
"""The section ``Clustering`` of a configuration."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcls_ise.clustering.neighbors import BACKENDS
from ppcls_ise.errors import ConfigError

_COUNTS = "min_samples k1 k2 k1_intra k1_inter k2_intra k2_inter interval batch_size".split()


@dataclass(frozen=True, kw_only=True)
class ClusteringOptions:
    """How pseudo-labels are made; the attributes are the keys of the YAML section.

    Attributes:
        transform_ops: evaluation transforms for the clustering features.
        eps: largest Jaccard distance between neighbors.
        min_samples: neighbors, itself included, that make a sample a core point.
        k1: length of the neighbor lists behind the reciprocal sets.
        k2: length of the list that is averaged in local query expansion.
        camera_aware: use the camera-aware Jaccard distance (docs/en/ise.md), which looks for
            neighbors within the own camera and across the others apart; needs camera numbers.
            ``k1`` and ``k2`` are not used then.
        k1_intra, k1_inter, k2_intra, k2_inter: its list lengths.
        k2_first_epoch: both its k2 in the first epoch, while features are rough (published: 3);
            null: as in the others.
        backend: who searches for the neighbors: auto, blocked, faiss, faiss_gpu or paddle_gpu; all
            give the same labels. auto is the device of the network, or blocked on the processor.
        approximate: search by an HNSW graph of faiss, for sizes where exact takes too long; its
            measured recall is logged.
        features_on_disk: hold the features in a file instead of the memory: null, True (in the
            folder of the run), a folder, or auto: where they would take more than half of the
            memory that is available. It goes away by itself.
        interval: cluster every so many epochs; labels and memory live on in between (without a
            cluster, the next epoch tries again).
        batch_size: images per extraction batch.
        warm_up_batches: without pretrained weights, this many training-mode batches pass through
            the network before the first clustering, to fill the batch-norm running statistics;
            features are useless before. Weights do not change.

    Raises:
        ConfigError: a value is out of range; names its key.
    """

    transform_ops: list[dict[str, Any]]
    eps: float
    min_samples: int = 4
    k1: int = 30
    k2: int = 6
    camera_aware: bool = False
    k1_intra: int = 5
    k1_inter: int = 20
    k2_intra: int = 2
    k2_inter: int = 4
    k2_first_epoch: int | None = None
    backend: str = "auto"
    approximate: bool = False
    features_on_disk: bool | str | None = "auto"
    interval: int = 1
    batch_size: int = 64
    warm_up_batches: int = 40

    def __post_init__(self) -> None:
        for key, least in (*((key, 1) for key in _COUNTS), ("warm_up_batches", 0)):
            value = getattr(self, key)
            if not isinstance(value, int) or value < least:
                raise ConfigError(
                    f"Clustering.{key} has to be a whole number >= {least}, got {value!r}"
                )
        first = self.k2_first_epoch
        if first is not None and (type(first) is not int or first < 1):
            raise ConfigError(
                f"Clustering.k2_first_epoch has to be a whole number >= 1 or null, got {first!r}"
            )
        if not isinstance(self.eps, int | float) or not 0.0 <= np.float32(self.eps) < 1.0:
            raise ConfigError(
                f"Clustering.eps has to be a Jaccard distance in [0, 1), got {self.eps!r}"
            )
        if self.backend not in BACKENDS:
            raise ConfigError(
                f"Clustering.backend has to be one of {', '.join(BACKENDS)}, got {self.backend!r}"
            )
        if not isinstance(self.approximate, bool) or (self.approximate and self.camera_aware):
            raise ConfigError(
                "Clustering.approximate has to be True or False, and False with "
                f"Clustering.camera_aware, got {self.approximate!r}"
            )

        on_disk = self.features_on_disk
        if not isinstance(on_disk, bool | str | None) or on_disk == "":
            raise ConfigError(
                "Clustering.features_on_disk has to be null, auto, True or a folder, got "
                f"{on_disk!r}"
            )

    @property
    def lengths(self) -> dict[str, int]:
        """The list lengths of the Jaccard distance, as ``jaccard_graph`` takes them."""
        camera_aware = ("k1_intra", "k1_inter", "k2_intra", "k2_inter")
        keys = camera_aware if self.camera_aware else ("k1", "k2")
        return {key: getattr(self, key) for key in keys}

    def lengths_in(self, epoch: int) -> dict[str, int]:
        """`lengths` in an epoch, which are counted from 1."""
        first = self.k2_first_epoch
        if epoch > 1 or first is None or not self.camera_aware:
            return self.lengths
        return {**self.lengths, "k2_intra": first, "k2_inter": first}
