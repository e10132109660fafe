# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's engine with an epoch hook, re-ID evaluation and checked weights."""

import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import paddle
import paddle.distributed as dist
from paddle import nn
from paddle.io import DataLoader
from paddle.utils import unique_name

from ppcls_ise import compat
from ppcls_ise.compat import Config
from ppcls_ise.compat.training_loop import mixed_precision_in, watched_batches
from ppcls_ise.config.complete import complete
from ppcls_ise.data import IdentitySampler, ReIDDataset
from ppcls_ise.distributed.collectives import AllProcesses
from ppcls_ise.engine import tf32
from ppcls_ise.engine.callback import Callback
from ppcls_ise.engine.clustering_callback import ClusteringCallback
from ppcls_ise.engine.epoch_report import EpochReport
from ppcls_ise.engine.evaluated_sets import known_of_both
from ppcls_ise.engine.feature_extraction import Features, extract, require_readable
from ppcls_ise.engine.feature_storage import FeatureStorage
from ppcls_ise.engine.input_remarks import odd_transforms
from ppcls_ise.engine.memory_needs import card_memory_remark, require_shared_memory
from ppcls_ise.engine.model_building import build_model, require_stopped
from ppcls_ise.engine.preparation import prepare
from ppcls_ise.engine.record.run_record import RunRecord
from ppcls_ise.engine.resume.checkpoints import Checkpoints
from ppcls_ise.engine.resume.settings import settings_of
from ppcls_ise.engine.start_remarks import StartRemarks
from ppcls_ise.engine.static_features import StaticFeatures
from ppcls_ise.errors import ConfigError, WeightsError
from ppcls_ise.heads import MemoryHead
from ppcls_ise.inference.static_model import set_process_threads
from ppcls_ise.layers import group_batch_norms
from ppcls_ise.metrics import ReIDMetric, ReIDResult, Side
from ppcls_ise.utils.components import components
from ppcls_ise.utils.files import replacing
from ppcls_ise.utils.stop_requests import keep_working
from ppcls_ise.utils.threads import describe_threads, eager_threads
from ppcls_ise.weights.loading import load_into, read_state, weight_path

Engine: Any = compat.engine_class()
_LOADERS = {
    "train": "DataLoader.Train",
    "query": "DataLoader.Eval.Query",
    "gallery": "DataLoader.Eval.Gallery",
}


class UnsupervisedEngine(Engine):
    """PaddleClas's ``Engine`` for unsupervised re-identification.

    What it adds, all of it around PaddleClas's own training loop:

    * callbacks before and after every epoch (clustering, report);
    * evaluation by the Market-1501 protocol;
    * weights that are read safely and have to fit;
    * batch norm over groups of rows (``Arch.bn_group_size``).

    Args:
        config: from `ppcls_ise.config.get_config`.
        mode: ``"train"``, ``"eval"`` or ``"export"``.
    """

    train_epoch_func: Any  # PaddleClas's, until `_prepare_training` puts ours in its place

    def __init__(self, config: Config, mode: str = "train") -> None:
        config = compat.copy_of(config)  # PaddleClas changes it, and so do we
        prepare(config, mode)
        as_run = complete(config) if mode == "train" else {}
        self.settings = settings_of(as_run) if as_run else {}
        options = config["Global"]
        if mode != "train":  # a checkpoint is as good a place for weights to evaluate
            options["pretrained_model"] = options["pretrained_model"] or options["checkpoints"]
        weights, options["pretrained_model"] = options["pretrained_model"], None
        backbone = config["Arch"]["Backbone"]
        backbone_weights = backbone.get("pretrained", False)
        if backbone_weights and (
            isinstance(backbone_weights, str) or weights or options["checkpoints"]
        ):
            # Other weights follow, so the download would be wasted; not every network has the key.
            backbone.pop("pretrained")
        # PaddleClas would make one static graph of the whole model; the head keeps a memory that
        # changes, so only backbone and neck become static, below.
        static, options["to_static"] = options.get("to_static", False), False
        # Paddle keeps optimizer states under names that count up.
        with unique_name.guard(), compat.building(), compat.config_in_file_only():
            build_model(super().__init__, config, mode)
        require_stopped(self.plain_model.backbone, config["Arch"])
        options["pretrained_model"], options["to_static"] = weights, static
        compat.say_log_errors_once()
        compat.logger().info(compat.describe())
        for remark in odd_transforms(config):
            compat.logger().warning(remark)
        for name, section in _LOADERS.items():
            if loader := getattr(self, f"{name}_dataloader", None):
                loader.worker_init_fn = keep_working
                if options.get("normalize_on_device"):
                    loader.dataset.normalize_on_device()
                require_shared_memory(loader, section)
        self._static_features: StaticFeatures | None = None
        precision = options.get("feature_precision", "fp32")
        compat.logger().info(f"{options['device']} computes in {tf32.state(options['device'])}")
        if options["device"] == "cpu":
            compat.logger().info(describe_threads())
            set_process_threads(eager_threads())  # whatever was set before in this process
            self._static_features = StaticFeatures(self.plain_model, precision)

        self.has_pretrained_weights = bool(backbone_weights or weights or options["checkpoints"])
        self._load_weights(weights, backbone_weights)
        if group_size := config["Arch"].get("bn_group_size"):
            group_batch_norms(self.plain_model, group_size)
        if static:
            _make_static(self.plain_model)
        self.last_result: ReIDResult | None = None
        self.eval_func = UnsupervisedEngine.evaluate
        if mode == "eval" or (mode == "train" and options["eval_during_train"]):
            self._check_evaluation()
        if mode == "train":
            self._prepare_training(as_run)

    # -- what callbacks and tools use ---------------------------------------------------------

    @property
    def plain_model(self) -> nn.Layer:
        """The model itself, not its data-parallel wrapper."""
        return getattr(self.model, "_layers", self.model)

    @property
    def head(self) -> MemoryHead:
        return self.plain_model.head

    @property
    def epochs(self) -> int:
        return self.config["Global"]["epochs"]

    @property
    def seed(self) -> int:
        return self.config["Global"]["seed"]

    @property
    def train_dataset(self) -> ReIDDataset:
        return self.train_dataloader.dataset

    @property
    def train_sampler(self) -> IdentitySampler:
        return self.train_dataloader.batch_sampler

    @property
    def metric(self) -> ReIDMetric:
        metric = self.eval_metric_func.metric_func_list[0]
        if not isinstance(metric, ReIDMetric):
            raise ConfigError(
                f"Metric.Eval has to begin with ReIDMetric, not {type(metric).__name__}, which "
                "does not follow the protocol of re-identification: see configs/"
            )
        return metric

    @property
    def num_workers(self) -> int:
        return self.train_dataloader.num_workers

    @property
    def use_shared_memory(self) -> bool:
        return self.train_dataloader.use_shared_memory

    @property
    def run_folder(self) -> Path:
        """Where checkpoints and lists of this run go: ``output_dir/RecModel``."""
        folder = Path(self.output_dir)  # `prepare` completed it where PaddleClas does not
        if compat.output_folder_lacks_arch_name():
            return folder
        return folder / self.config["Arch"]["name"]

    def warm_up(self) -> None:
        """Fill the batch-norm statistics of a network without pretrained weights."""
        self.clustering.warm_up(self)

    def write_list(self, name: str, lines: list[str]) -> Path:
        """Write a text file into the run's folder (by process 0) and return its path."""
        path = self.run_folder / name
        if dist.get_rank() == 0:
            with replacing(path) as scratch:
                scratch.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    def require_weights(self) -> None:
        """Raise if there are no weights but random ones.

        Raises:
            WeightsError: neither the model nor its backbone has been given weights.
        """
        if not self.has_pretrained_weights:
            raise WeightsError(
                "these are random weights: set Global.pretrained_model to a .pdparams file"
            )

    # -- training -----------------------------------------------------------------------------

    def _prepare_training(self, as_run: dict[str, Any]) -> None:
        if not isinstance(self.head, MemoryHead):
            raise ConfigError(
                "training without labels needs a head with a memory: set Arch.Head.name to "
                f"one of {', '.join(_memory_heads())}"
            )
        if self.plain_model.neck is None:
            raise ConfigError("training needs Arch.Neck, e.g. ReIDNeck: see configs/")
        if not isinstance(self.train_sampler, IdentitySampler):
            raise ConfigError("DataLoader.Train.sampler.name has to be IdentitySampler")
        for key in ("eps", "transform_ops"):
            if (self.config.get("Clustering") or {}).get(key) is None:
                raise ConfigError(f"training without labels needs Clustering.{key}: see configs/")
        self.train_sampler.seed = self.seed
        self.clustering = ClusteringCallback(**self.config["Clustering"])
        self.clustering.check(self.train_dataset)
        if compat.output_folder_lacks_arch_name():
            as_run["Global"]["output_dir"] = str(self.run_folder.parent)
        self.record = RunRecord(as_run, compat.take_visualdl_writer(self))
        self.clustering.record = self.record
        report = EpochReport(self.clustering)
        self.callbacks: list[Callback] = [
            self.record,
            StartRemarks(self.clustering.options),
            report,
            self.clustering,
        ]
        self.checkpoints = Checkpoints(self)
        if self.config["Global"]["eval_during_train"]:
            for loader in (self.query_dataloader, self.gallery_dataloader):
                loader.dataset.require_openable()
        self.plain_model.register_forward_pre_hook(self._before_network)
        if remark := card_memory_remark(self):
            compat.logger().warning(remark)
        self._train_steps = self.train_epoch_func
        self.train_epoch_func = UnsupervisedEngine._train_one_epoch

    def _before_network(self, model: nn.Layer, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """In a training step, before the network is computed: labels are read while the device has
        nothing to do (`MemoryHead.expect`), and uint8 images become what the network takes."""
        if not model.training or len(inputs) < 2:
            return None
        images, labels, *rest = inputs
        model.head.expect(labels)
        if (on_device := self.train_dataset.on_device) is not None:
            images = on_device(images, labels)
        return (images, labels, *rest)

    def _check_evaluation(self) -> None:
        """Find what would keep an evaluation from its end before anything is computed."""
        query, gallery = self.query_dataloader.dataset, self.gallery_dataloader.dataset
        self.metric.check(*known_of_both(query, gallery))

    def train(self) -> None:
        """Train to the last epoch, from where ``Global.checkpoints`` left off; see
        `ppcls_ise.engine.resume.checkpoints.Checkpoints.run` for the ways in which it ends."""
        with unique_name.guard():
            self.checkpoints.run(super().train)
        self.record.finish(self)

    def losses_read(self, values: dict[str, float]) -> None:
        """Called by the repaired log of `compat.training_loop` with the losses of every step."""
        self.checkpoints.losses_read(values)

    def stop_if_asked(self) -> None:
        """Between batches of features or the like: end the run if a signal has asked for it."""
        if checkpoints := getattr(self, "checkpoints", None):
            checkpoints.between_batches()

    def _train_one_epoch(self, epoch: int, print_batch_step: int) -> None:
        """Takes the place of PaddleClas's ``train_epoch``, which it calls: the epoch hook."""
        self.model.train()
        step = self.checkpoints.begin_epoch(epoch)
        if step is None:
            ready = all([callback.on_epoch_begin(self, epoch) for callback in self.callbacks])
        else:
            ready = all([c.on_epoch_resume(self, epoch, step) for c in self.callbacks])
        if (step or 0) < len(self.train_sampler):
            if ready:
                dtype = (self.config.get("AMP") or {}).get("dtype")
                with (
                    watched_batches(self, step or 0, self.checkpoints.before_step),
                    mixed_precision_in(dtype),
                ):
                    self._train_steps(self, epoch, print_batch_step)
            else:
                self._skip_steps()
        self.checkpoints.after_steps()
        for callback in self.callbacks:
            callback.on_epoch_end(self, epoch)

    def _skip_steps(self) -> None:
        """Let a skipped epoch count in the learning-rate schedule like any other."""
        for schedule in self.lr_sch:
            by_epoch = getattr(schedule, "by_epoch", False)
            for _ in range(1 if by_epoch else len(self.train_sampler)):
                schedule.step()

    # -- evaluation ---------------------------------------------------------------------------

    def evaluate(self, epoch: int = 0) -> float:
        """Query/gallery evaluation; the result is kept in ``last_result``.

        Returns:
            mAP in [0, 1]; NaN where no query has a match. It selects the best model.

        Raises:
            DataError: an image cannot be read.
        """
        started = time.perf_counter()
        sides = self.query_and_gallery()
        result = self.metric(*sides, processes=AllProcesses())
        self.last_result = result
        if self.mode == "train":
            self.record.evaluated(self, epoch, result, sides, time.perf_counter() - started)
        compat.logger().info(f"[Eval][Epoch {epoch}] {result}")
        if skipped := result.describe_skipped(self.query_dataloader.dataset.images):
            compat.logger().warning(f"[Eval] {skipped}")
        return result.mAP

    def extract(
        self, loader: DataLoader, *, title: str, storage: FeatureStorage | None = None
    ) -> Features:
        """`ppcls_ise.engine.feature_extraction.extract` with this engine's model and precision."""
        return extract(
            self.model,
            loader,
            title=title,
            precision=self._feature_context,
            static=self._static_features,
            storage=storage,
            after_batch=self.stop_if_asked,
        )

    def _feature_context(self) -> AbstractContextManager[Any]:
        kind = self.config["Global"].get("feature_precision", "fp32")
        if kind == "fp32" or self._static_features is not None:
            return compat.precision(self, is_eval=True)
        return paddle.amp.auto_cast(dtype={"bf16": "bfloat16", "fp16": "float16"}[kind])

    def query_and_gallery(self) -> tuple[Side, Side]:
        """Features of both sides and what is known of them, in the order of their data sets.

        Raises:
            DataError: an image cannot be read.
        """
        loaders = (self.query_dataloader, self.gallery_dataloader)
        known = known_of_both(*(loader.dataset for loader in loaders))
        sides = []
        for title, loader, labels in zip(("query", "gallery"), loaders, known, strict=True):
            loader.dataset.require_unchanged()
            features = self.extract(loader, title=f"{title} features")
            require_readable(features, loader.dataset, title=title)
            sides.append(Side(features.values, *labels))
        return sides[0], sides[1]

    # -- weights ------------------------------------------------------------------------------

    def _load_weights(self, weights: str | None, backbone_weights: Any) -> None:
        if isinstance(backbone_weights, str) and not weights:
            path = weight_path(backbone_weights, key="Arch.Backbone.pretrained")
            report = load_into(self.plain_model.backbone, read_state(path), source=str(path))
            compat.logger().info(f"backbone weights {path}: {report}")
        if weights:
            path = weight_path(weights)
            report = load_into(self.plain_model, read_state(path), source=str(path))
            compat.logger().info(f"weights {path}: {report}")


def _memory_heads() -> list[str]:
    heads = components("head").items()
    return [name for name, cls in heads if isinstance(cls, type) and issubclass(cls, MemoryHead)]


def _make_static(model: nn.Layer) -> None:
    """Make backbone and neck static; not the head, whose memory changes."""
    # Not full_graph=True: traces in a tenth of the time, but crashes with oneDNN (Paddle 3.3.1).
    model.backbone = paddle.jit.to_static(model.backbone)
    if model.neck is not None:
        model.neck = paddle.jit.to_static(model.neck)
