# SPDX-License-Identifier: Apache-2.0
"""Pseudo-labels at the start of an epoch."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import paddle.distributed as dist

from ppcls_ise import compat
from ppcls_ise.clustering import PseudoLabels, generate_pseudo_labels
from ppcls_ise.clustering.dbscan import OUTLIER
from ppcls_ise.clustering.neighbors import Backend
from ppcls_ise.clustering.tracklets import tracklet_array
from ppcls_ise.config.clustering import ClusteringOptions
from ppcls_ise.data import ReIDDataset
from ppcls_ise.distributed.collectives import AllProcesses
from ppcls_ise.engine.callback import Callback, TrainingEngine
from ppcls_ise.engine.evaluated_sets import tracklet_name
from ppcls_ise.engine.feature_extraction import Features, loader_of
from ppcls_ise.engine.feature_storage import FeatureStorage
from ppcls_ise.engine.gpu_search import backend_of, or_blocked
from ppcls_ise.engine.input_remarks import odd_features, odd_files, odd_lengths
from ppcls_ise.engine.memory_needs import require_shared_memory
from ppcls_ise.engine.odd_crops import far_rows
from ppcls_ise.engine.record.run_record import RunRecord
from ppcls_ise.engine.warm_up import warm_up
from ppcls_ise.errors import DataError, shown
from ppcls_ise.metrics import ClusterQuality, cluster_quality
from ppcls_ise.utils.progress import progress_bar

_SHOWN = 5
FAR_IMAGES = "far_images.txt"
MIXED_TRACKLETS = "mixed_tracklets.txt"


class ClusteringCallback(Callback):
    """The start of an epoch: features -> Jaccard graph -> DBSCAN -> pseudo-labels, sampler, memory.

    The equations are Clustering (1) to Clustering (12) and CC (3) in docs/en.

    Args:
        **options: those of `ppcls_ise.config.ClusteringOptions`, the keys of the YAML section.

    Raises:
        ConfigError: a value is out of range; names its key.
    """

    def __init__(self, **options: Any) -> None:
        self.options = ClusteringOptions(**options)
        self.result: PseudoLabels | None = None
        self.record: RunRecord | None = None
        self._warm = False

    def on_epoch_begin(self, engine: TrainingEngine, epoch: int) -> bool:
        engine.train_dataset.require_unchanged()
        due = (epoch - 1) % self.options.interval == 0
        if due or self.result is None or not self.result.num_clusters:
            self.warm_up(engine)
            self.cluster(engine, epoch)
        return self.on_epoch_resume(engine, epoch, 0)

    def on_epoch_resume(self, engine: TrainingEngine, epoch: int, step: int) -> bool:
        assert self.result is not None
        engine.train_sampler.set_epoch(epoch, step)
        engine.head.start_epoch(epoch, len(engine.train_sampler), engine.epochs, step)
        return self.result.num_clusters > 0

    def state(self) -> dict[str, Any]:
        result = self.result
        if result is None:
            return {}
        return {
            "labels": result.labels,
            "recall": result.recall,
            "mixed_tracklets": result.mixed_tracklets,
        }

    def restore(self, engine: TrainingEngine, state: dict[str, Any]) -> None:
        """Labels come back; centroids do not, the memory has taken them over."""
        labels, recall = state["labels"], state["recall"]
        recall = None if recall is None else float(recall)
        engine.train_dataset.pseudo_labels = labels
        self.result = PseudoLabels.from_labels(
            np.zeros((len(labels), 1), np.float32),
            labels,
            recall=recall,
            mixed_tracklets=state.get("mixed_tracklets"),
        )

    def cluster(self, engine: TrainingEngine, epoch: int) -> None:
        """Compute the pseudo-labels and hand them to data set, sampler and memory."""
        dataset = engine.train_dataset
        backend = backend_of(self.options.backend)
        started = time.perf_counter()
        features = self._extract(engine, dataset)
        seconds = {"features": time.perf_counter() - started}
        self._report_quarantine(engine, features, dataset)
        before = self.result
        rows = np.flatnonzero(features.readable)
        with features.together() as values:
            if dist.get_rank() == 0:
                self._report_oddities(engine, values, rows, dataset)
            result = self._label(values, rows, dataset, backend, epoch)
        seconds |= result.seconds
        self.result = _with_outliers(replace(result, seconds=seconds), rows, len(dataset))
        dataset.pseudo_labels = self.result.labels
        if self.result.num_clusters:
            engine.head.reset_memory(
                features.values, self.result.labels, self.result.centroids, (engine.seed, epoch)
            )
        self._report_mixed(engine, dataset)
        quality = self._log(engine, epoch, dataset)
        if self.record is not None:
            self.record.clustered(engine, epoch, features, self.result, before, quality)

    def graph_inputs(self, engine: TrainingEngine) -> tuple[np.ndarray, dict[str, Any]]:
        """Features of the readable training images, and what else ``jaccard_graph`` gets."""
        dataset = engine.train_dataset
        features = self._extract(engine, dataset)
        self._report_quarantine(engine, features, dataset)
        rows = np.flatnonzero(features.readable)
        with features.together() as values:
            kept = values if len(rows) == len(dataset) else values.copy()
        return kept, self._graph_options(dataset, rows)

    def _extract(self, engine: TrainingEngine, dataset: ReIDDataset) -> Features:
        loader = loader_of(
            dataset.view(self.options.transform_ops),
            batch_size=self.options.batch_size,
            num_workers=engine.num_workers,
            use_shared_memory=engine.use_shared_memory,
            device=engine.device,
        )
        require_shared_memory(loader, "DataLoader.Train")
        storage = FeatureStorage(self.options.features_on_disk, engine.run_folder)
        return engine.extract(loader, title="clustering features", storage=storage)

    def _label(
        self,
        values: np.ndarray,
        rows: np.ndarray,
        dataset: ReIDDataset,
        backend: Backend,
        epoch: int,
    ) -> PseudoLabels:
        """Labels of the readable images ``rows`` [M] with the features ``values`` [M, D], computed
        by all processes together."""
        resolved = self.options_for(dataset)
        options = self._graph_options(dataset, rows)
        options.update(resolved.lengths_in(epoch))
        options.update(
            approximate=resolved.approximate,
            must_link=resolved.must_link,
            whiten=resolved.whiten,
        )
        with progress_bar("pseudo-labels", "block") as bar:
            return or_blocked(
                lambda backend: generate_pseudo_labels(
                    values,
                    resolved.eps,
                    resolved.min_samples,
                    backend=backend,
                    processes=AllProcesses(),
                    progress=lambda stage, done, total: bar(done, total),
                    **options,
                ),
                backend,
            )

    def options_for(self, dataset: ReIDDataset) -> ClusteringOptions:
        """The options `resolved` for what ``dataset`` knows."""
        return self.options.resolved(tracklets=dataset.tracklet_ids is not None)

    def _graph_options(self, dataset: ReIDDataset, rows: np.ndarray) -> dict[str, Any]:
        known = (dataset.camids, dataset.tracklet_ids)
        camids, tracklets = (None if array is None else array[rows] for array in known)
        return self.options_for(dataset).graph_options(camids, tracklets)

    def check(self, dataset: ReIDDataset) -> None:
        """Make sure that ``dataset`` has what the options need, before anything is computed.

        Raises:
            ConfigError: cameras or tracklets that are unknown, or cannot be used.
            DataError: a tracklet is in two cameras.
        """
        options = self._graph_options(dataset, np.arange(len(dataset)))
        resolved = self.options_for(dataset)
        if not resolved.tracklet_aware:
            return
        try:
            tracklet_array(options["tracklet_ids"], len(dataset), options.get("camera_ids"))
        except ValueError as error:
            raise DataError(f"the training images: {error}") from error
        compat.logger().info(
            "[Cluster] the training images are in tracklets, which the clustering uses "
            f"(Clustering.tracklet_aware): eps {resolved.eps:g} (Clustering.tracklet_eps), "
            f"must_link {resolved.must_link}, whiten {resolved.whiten}"
        )

    def warm_up(self, engine: TrainingEngine) -> None:
        """Fill the batch-norm running statistics from training images, once and only without
        pretrained weights; see ``warm_up_batches``."""
        if self._warm or engine.has_pretrained_weights or not self.options.warm_up_batches:
            return
        self._warm = True
        view = engine.train_dataset.view(self.options.transform_ops)
        warm_up(engine, view, self.options.warm_up_batches)

    def _report_oddities(
        self, engine: TrainingEngine, values: np.ndarray, rows: np.ndarray, dataset: ReIDDataset
    ) -> None:
        remarks = list(odd_features(values))
        if self.result is None:  # what follows does not change later on
            lengths = self.options_for(dataset).lengths
            remarks += [*odd_lengths(lengths, len(values)), *odd_files(dataset.images)]
            far = rows[far_rows(values)]
            if len(far):
                names = [shown(dataset.images[row]) for row in far]
                remarks.append(
                    f"{len(far)} of {len(values)} images are far from all others (they are used "
                    f"nevertheless): {'; '.join(names[:_SHOWN])}"
                    f"{'; …' if len(far) > _SHOWN else ''}. All of them: "
                    f"{engine.write_list(FAR_IMAGES, names)}"
                )
        for remark in remarks:
            compat.logger().warning(f"[Cluster] {remark}.")

    def _report_quarantine(
        self, engine: TrainingEngine, features: Features, dataset: ReIDDataset
    ) -> None:
        bad = np.flatnonzero(~features.readable)
        if not len(bad):
            return
        reasons = [str(dataset.read_error(int(i))) for i in bad[:_SHOWN]]
        names = [shown(dataset.images[i]) for i in bad]
        if len(bad) == len(dataset):
            raise DataError(f"none of the training images can be read: {'; '.join(reasons)}")
        compat.logger().warning(
            f"[Cluster] {len(bad)} of {len(dataset)} training images cannot be read and are left "
            f"out (never replaced): {'; '.join(reasons)}{'; …' if len(bad) > _SHOWN else ''}. "
            f"All of them: {engine.write_list('quarantine.txt', names)}"
        )

    def _report_mixed(self, engine: TrainingEngine, dataset: ReIDDataset) -> None:
        """List the tracklets that seem to mix people, by name, with their first and last image."""
        result = self.result
        assert result is not None
        if not self.options_for(dataset).tracklet_aware:
            return
        lines = []
        for number in result.mixed_tracklets:
            rows = np.flatnonzero(dataset.tracklet_ids == number)
            first, last = (shown(dataset.images[row]) for row in (rows[0], rows[-1]))
            name = shown(tracklet_name(dataset, int(number)))
            lines.append(f"{name}: {len(rows)} images, {first} to {last}")
        path = engine.write_list(MIXED_TRACKLETS, lines)
        if lines:
            compat.logger().info(
                f"[Cluster] {len(lines)} tracklets seem to show more than one person and are not "
                f"held together: {path}"
            )

    def _log(
        self, engine: TrainingEngine, epoch: int, dataset: ReIDDataset
    ) -> ClusterQuality | None:
        result = self.result
        assert result is not None
        stages = ", ".join(f"{name} {value:.1f}" for name, value in result.seconds.items())
        line = f"[Cluster][Epoch {epoch}/{engine.epochs}] {summary(result)} | seconds: {stages}"
        quality = None
        if dataset.pids is not None and result.num_clusters:
            quality = cluster_quality(result.labels, dataset.pids)
            line += (
                f" | against the identities in the file names (information only): "
                f"NMI {quality.nmi:.3f}, ARI {quality.ari:.3f}, pair F1 {quality.pair_f1:.3f}"
            )
        compat.logger().info(line)
        if not result.num_clusters:
            options = self.options_for(dataset)
            compat.logger().warning(
                f"[Cluster][Epoch {epoch}] no cluster was found, so this epoch changes nothing. "
                f"Raise {options.eps_key} (now {options.eps}) or lower Clustering.min_samples "
                f"(now {options.min_samples})."
            )
        return quality


def _with_outliers(result: PseudoLabels, rows: np.ndarray, count: int) -> PseudoLabels:
    """The labels of ``rows`` as those of ``count`` images; the others, which cannot be read, are
    outliers, so that they are never drawn."""
    labels = np.full(count, OUTLIER, np.int64)
    labels[rows] = result.labels
    outliers = result.num_outliers + count - len(rows)
    return replace(result, labels=labels, num_outliers=outliers)


def summary(result: PseudoLabels) -> str:
    """Clusters, outliers, median and largest cluster in words."""
    text = f"{result.num_clusters} clusters, {100.0 * result.outlier_share:.1f} % outliers"
    if result.recall is not None:
        text += f", from neighbors of recall {result.recall:.3f} (approximate search)"
    if result.num_clusters:
        text += f", median {result.median_size:g}, largest {result.largest} images"
    if len(result.mixed_tracklets):
        text += f", {len(result.mixed_tracklets)} tracklets of mixed people"
    return text
