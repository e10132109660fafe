# SPDX-License-Identifier: Apache-2.0
"""The section ``Clustering`` of a configuration."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ppcls_ise.clustering.neighbors import BACKENDS
from ppcls_ise.clustering.sample_graph import GraphSettings
from ppcls_ise.errors import ConfigError

AUTO = "auto"
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
        camera_aware: use the camera-aware Jaccard distance (docs/en/clustering.md), which looks for
            neighbors within the own camera and across the others apart; needs camera numbers.
            ``k1`` and ``k2`` are not used then.
        tracklet_aware: look for neighbors within the own tracklet and across the others apart
            (docs/en/clustering.md). auto: where the data set knows tracklets; True: and it is an
            error if it knows none. ``k1``, ``k2`` and ``eps`` are not used then.
        tracklet_eps: takes the place of ``eps`` where tracklets are used: distances between
            other lists are other ones.
        must_link: where tracklets are used, one label for all images of a tracklet, except where
            it seems to mix people.
        whiten: cluster whitened features (`ppcls_ise.clustering.whitening`); auto: where tracklets
            are used.
        k1_intra, k1_inter, k2_intra, k2_inter: list lengths, camera-aware or tracklet-aware.
        k2_first_epoch: both these k2 in the first epoch, while features are rough (published: 3);
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
    tracklet_aware: bool | str = AUTO
    tracklet_eps: float = 0.5
    must_link: bool = True
    whiten: bool | str = AUTO
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
        for key in ("eps", "tracklet_eps"):
            eps = getattr(self, key)
            if not isinstance(eps, int | float) or not 0.0 <= np.float32(eps) < 1.0:
                raise ConfigError(
                    f"Clustering.{key} has to be a Jaccard distance in [0, 1), got {eps!r}"
                )
        for key in ("tracklet_aware", "whiten"):
            value = getattr(self, key)
            if not isinstance(value, bool) and value != AUTO:
                raise ConfigError(f"Clustering.{key} has to be True, False or auto, got {value!r}")
        if not isinstance(self.must_link, bool):
            raise ConfigError(
                f"Clustering.must_link has to be True or False, got {self.must_link!r}"
            )
        if self.backend not in BACKENDS:
            raise ConfigError(
                f"Clustering.backend has to be one of {', '.join(BACKENDS)}, got {self.backend!r}"
            )
        if not isinstance(self.approximate, bool) or (self.approximate and self._grouped):
            raise ConfigError(
                "Clustering.approximate has to be True or False, and False with "
                "Clustering.camera_aware or Clustering.tracklet_aware, got "
                f"{self.approximate!r}"
            )
        on_disk = self.features_on_disk
        if not isinstance(on_disk, bool | str | None) or on_disk == "":
            raise ConfigError(
                "Clustering.features_on_disk has to be null, auto, True or a folder, got "
                f"{on_disk!r}"
            )

    def resolved(self, *, tracklets: bool) -> "ClusteringOptions":
        """These options for data that knows ``tracklets`` or does not: no auto is left, and ``eps``
        is the one in use.

        Raises:
            ConfigError: tracklets are asked for and not known, or known and cannot be used.
        """
        if self.tracklet_aware is True and not tracklets:
            raise ConfigError(
                "Clustering.tracklet_aware=True needs tracklets, and the training images have "
                "none: name them (tracklet_from_folder, tracklet_pattern or table of "
                "DataLoader.Train.dataset), or set Clustering.tracklet_aware=auto"
            )
        aware = tracklets and self.tracklet_aware is not False
        if aware and self.approximate:
            raise ConfigError(
                "Clustering.approximate=True finds no neighbors within and across tracklets, which "
                "the training images have: set one of Clustering.approximate and "
                "Clustering.tracklet_aware to False"
            )
        return replace(
            self,
            tracklet_aware=aware,
            eps=self.tracklet_eps if aware else self.eps,
            whiten=aware if self.whiten == AUTO else self.whiten,
        )

    def graph_options(
        self, camids: np.ndarray | None, tracklet_ids: np.ndarray | None
    ) -> dict[str, Any]:
        """Of `resolved` options: keyword arguments of ``jaccard_graph``.

        Args:
            camids: cameras of the images [N], or None.
            tracklet_ids: their tracklets, or None.

        Raises:
            ConfigError: camera-aware without cameras.
        """
        options: dict[str, Any] = dict(self.lengths)
        if self.camera_aware:
            if camids is None:
                raise ConfigError(
                    "Clustering.camera_aware needs camera numbers, and the training images have "
                    "none: name them (camera_from_folder or camera_pattern of "
                    "DataLoader.Train.dataset), or set Clustering.camera_aware=False"
                )
            options["camera_ids"] = camids
        if self.tracklet_aware:
            options["tracklet_ids"] = tracklet_ids
        return options

    def graph_settings(
        self, *, eps: float | None = None, epoch: int | None = None
    ) -> GraphSettings:
        """Of `resolved` options: the same for a look at clusters afterwards.

        Args:
            eps: that was chosen instead of these.
            epoch: of the clusters, as `lengths_in` counts them; None: outside of a training.
        """
        return GraphSettings(
            self.eps if eps is None else eps,
            self.min_samples,
            self.lengths if epoch is None else self.lengths_in(epoch),
            camera_aware=self.camera_aware,
            tracklet_aware=bool(self.tracklet_aware),
            whiten=bool(self.whiten),
            must_link=self.must_link,
        )

    @property
    def eps_key(self) -> str:
        """Of `resolved` options: the key that ``eps`` comes from."""
        return "Clustering.tracklet_eps" if self.tracklet_aware else "Clustering.eps"

    @property
    def _grouped(self) -> bool:
        return self.camera_aware or self.tracklet_aware is True

    @property
    def lengths(self) -> dict[str, int]:
        """The list lengths of the Jaccard distance, as ``jaccard_graph`` takes them; of `resolved`
        options."""
        grouped = ("k1_intra", "k1_inter", "k2_intra", "k2_inter")
        keys = grouped if self._grouped else ("k1", "k2")
        return {key: getattr(self, key) for key in keys}

    def lengths_in(self, epoch: int) -> dict[str, int]:
        """`lengths` in an epoch, which are counted from 1."""
        first = self.k2_first_epoch
        if epoch > 1 or first is None or not self._grouped:
            return self.lengths
        return {**self.lengths, "k2_intra": first, "k2_inter": first}
