# SPDX-License-Identifier: Apache-2.0
"""Pseudo-labels at the start of an epoch."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist

from ppcls_ise import compat
from ppcls_ise.clustering import PseudoLabels, generate_pseudo_labels
from ppcls_ise.clustering.neighbors import Backend
from ppcls_ise.config.clustering import ClusteringOptions
from ppcls_ise.data import ReIDDataset
from ppcls_ise.distributed.collectives import broadcast_array
from ppcls_ise.engine.callback import Callback, TrainingEngine
from ppcls_ise.engine.feature_extraction import Features, loader_of
from ppcls_ise.engine.gpu_search import backend_of, or_blocked
from ppcls_ise.engine.input_remarks import odd_features, odd_files, odd_lengths
from ppcls_ise.engine.memory_needs import require_shared_memory
from ppcls_ise.engine.record.run_record import RunRecord
from ppcls_ise.errors import ConfigError, DataError, shown
from ppcls_ise.metrics import ClusterQuality, cluster_quality
from ppcls_ise.utils.progress import progress_bar, tracked

_SHOWN = 5


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
        return {} if result is None else {"labels": result.labels, "recall": result.recall}

    def restore(self, engine: TrainingEngine, state: dict[str, Any]) -> None:
        """Labels come back; centroids do not, the memory has taken them over."""
        labels, recall = state["labels"], state["recall"]
        recall = None if recall is None else float(recall)
        engine.train_dataset.pseudo_labels = labels
        self.result = PseudoLabels.from_labels(
            np.zeros((len(labels), 1), np.float32), labels, recall=recall
        )

    def cluster(self, engine: TrainingEngine, epoch: int) -> None:
        """Compute the pseudo-labels and hand them to data set, sampler and memory."""
        dataset = engine.train_dataset
        backend = backend_of(self.options.backend)
        started = time.perf_counter()
        features = self._extract(engine, dataset)
        seconds = {"features": time.perf_counter() - started}
        self._report_quarantine(engine, features, dataset)
        if dist.get_rank() == 0:
            self._report_oddities(features, dataset)
        before, self.result = (
            self.result,
            self._label(features, dataset.camids, seconds, backend, epoch),
        )
        dataset.pseudo_labels = self.result.labels
        if self.result.num_clusters:
            engine.head.reset_memory(
                features.values, self.result.labels, self.result.centroids, (engine.seed, epoch)
            )
        quality = self._log(engine, epoch, dataset)
        if self.record is not None:
            self.record.clustered(engine, epoch, features, self.result, before, quality)

    def graph_inputs(self, engine: TrainingEngine) -> tuple[np.ndarray, dict[str, Any]]:
        """Features of the readable training images, and what else ``jaccard_graph`` gets."""
        dataset = engine.train_dataset
        features = self._extract(engine, dataset)
        self._report_quarantine(engine, features, dataset)
        rows = np.flatnonzero(features.readable)
        return features.usable(), self.graph_options(dataset.camids, rows)

    def _extract(self, engine: TrainingEngine, dataset: ReIDDataset) -> Features:
        loader = loader_of(
            dataset.view(self.options.transform_ops),
            batch_size=self.options.batch_size,
            num_workers=engine.num_workers,
            use_shared_memory=engine.use_shared_memory,
            device=engine.device,
        )
        require_shared_memory(loader, "DataLoader.Train")
        return engine.extract(loader, title="clustering features")

    def _label(
        self,
        features: Features,
        camids: np.ndarray | None,
        seconds: dict[str, float],
        backend: Backend,
        epoch: int,
    ) -> PseudoLabels:
        """Labels of the readable images, computed once, by process 0; an unreadable image is an
        outlier, so it is never drawn."""
        rows = np.flatnonzero(features.readable)
        options = self.graph_options(camids, rows)
        labels, recall = np.full(len(features.values), -1, np.int64), None
        if dist.get_rank() == 0:
            options.update(self.options.lengths_in(epoch))
            options["approximate"] = self.options.approximate
            with progress_bar("pseudo-labels", "block") as bar:
                part = or_blocked(
                    lambda backend: generate_pseudo_labels(
                        features.usable(),
                        self.options.eps,
                        self.options.min_samples,
                        backend=backend,
                        progress=lambda stage, done, total: bar(done, total),
                        **options,
                    ),
                    backend,
                )
            labels[rows] = part.labels
            seconds, recall = {**seconds, **part.seconds}, part.recall
        labels = broadcast_array(labels)
        return PseudoLabels.from_labels(features.values, labels, seconds=seconds, recall=recall)

    def graph_options(self, camids: np.ndarray | None, rows: np.ndarray) -> dict[str, Any]:
        """Keyword arguments of ``jaccard_graph`` for the given rows of the data set."""
        options: dict[str, Any] = dict(self.options.lengths)
        if self.options.camera_aware:
            if camids is None:
                raise ConfigError(
                    "Clustering.camera_aware needs camera numbers, and the training images have "
                    "none: name them (camera_from_folder or camera_pattern of "
                    "DataLoader.Train.dataset), or set Clustering.camera_aware=False"
                )
            options["camera_ids"] = camids[rows]
        return options

    def check(self, dataset: ReIDDataset) -> None:
        """Make sure that ``dataset`` has what the options need, before anything is computed.

        Raises:
            ConfigError: camera-aware clustering without camera numbers.
        """
        self.graph_options(dataset.camids, np.arange(0))

    @paddle.no_grad()
    def warm_up(self, engine: TrainingEngine) -> None:
        """Fill the batch-norm running statistics from training images, once and only without
        pretrained weights; see ``warm_up_batches``."""
        if self._warm or engine.has_pretrained_weights or not self.options.warm_up_batches:
            return
        self._warm = True
        dataset = engine.train_dataset
        view = dataset.view(self.options.transform_ops)
        generator = np.random.default_rng((engine.seed, 0))
        model = engine.plain_model
        model.train()
        model.head.eval()  # there are no labels, and no memory yet
        sampler = engine.train_sampler
        size = min(sampler.batch_size * sampler.world_size, len(dataset))
        compat.logger().info(
            "[Cluster] no pretrained weights: warming the batch-norm statistics with "
            f"{self.options.warm_up_batches} batches of {size} images (Clustering.warm_up_batches)"
        )
        batches = self.options.warm_up_batches
        for _ in tracked(range(batches), "warm-up", "batch", batches):
            # As in training, a process takes its part of the global batch; process 0's statistics
            # are the ones that count.
            chosen = generator.choice(len(dataset), size, replace=False)
            chosen = np.array_split(chosen, sampler.world_size)[sampler.rank]
            items = [view[int(i)] for i in chosen]
            images = [image for image, label, _ in items if label[2]]  # the readable ones
            if images:
                batch = paddle.to_tensor(np.stack(images))
                if view.on_device is not None:
                    batch = view.on_device(batch)
                with compat.precision(engine, is_eval=False), _dynamic_graph():
                    model(batch)
            engine.stop_if_asked()
        model.head.train()

    def _report_oddities(self, features: Features, dataset: ReIDDataset) -> None:
        values = features.usable()
        remarks = list(odd_features(values))
        if self.result is None:  # what follows does not change later on
            remarks += [*odd_lengths(self.options.lengths, len(values)), *odd_files(dataset.images)]
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
            compat.logger().warning(
                f"[Cluster][Epoch {epoch}] no cluster was found, so this epoch changes nothing. "
                f"Raise Clustering.eps (now {self.options.eps}) or lower Clustering.min_samples "
                f"(now {self.options.min_samples})."
            )
        return quality


@contextmanager
def _dynamic_graph() -> Iterator[None]:
    """A static graph that is first traced without gradients would serve the training steps too,
    which then learn nothing, silently (seen in Paddle 3.3.1)."""
    paddle.jit.enable_to_static(False)
    try:
        yield
    finally:
        paddle.jit.enable_to_static(True)


def summary(result: PseudoLabels) -> str:
    """Clusters, outliers, median and largest cluster in words."""
    text = f"{result.num_clusters} clusters, {100.0 * result.outlier_share:.1f} % outliers"
    if result.recall is not None:
        text += f", from neighbors of recall {result.recall:.3f} (approximate search)"
    if result.num_clusters:
        text += f", median {result.median_size:g}, largest {result.largest} images"
    return text
