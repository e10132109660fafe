# SPDX-License-Identifier: Apache-2.0
"""The keys that PaddleClas reads, section by section, where its code does not tell them."""

import fnmatch
import functools
import re
from typing import Any

from ppcls_ise.compat.paddleclas import ppcls_folder

SECTIONS = "Global AMP Arch Loss Optimizer DataLoader Metric profiler_options".split()
GLOBAL = (
    "checkpoints pretrained_model output_dir device save_interval eval_during_train eval_interval "
    "start_eval_epoch epochs print_batch_step use_visualdl image_shape save_inference_dir "
    "eval_mode seed to_static log_ranks print_mem_info distributed"
).split()
AMP = "use_amp scale_loss use_dynamic_loss_scaling use_fp16_test level".split()
ARCH = (
    "name infer_output_key infer_add_softmax is_rec use_sync_bn Backbone BackboneStopLayer Neck "
    "Head"
).split()
LOADER = "num_workers use_shared_memory".split()

# What PaddleClas reads and the plugin does not support: the value that asks for nothing, and why.
UNSUPPORTED: dict[str, tuple[Any, str]] = {
    "EMA": (None, "averaged weights would need clustering and evaluation of a second network"),
    "Slim": (None, "a pruned or quantized network has other tensors than the weights here"),
    "Infer": (None, "images are read by `ppcls-ise infer`, with the transforms of the evaluation"),
    "Global.update_freq": (
        1,
        "the memory is updated in every backward pass, so steps cannot be gathered",
    ),
    "Global.use_dali": (False, "its pipeline knows no pseudo-labels"),
    "Global.iter_per_epoch": (None, "DataLoader.Train.sampler.iters sets the steps of an epoch"),
    "Global.train_mode": (None, "the steps are those of PaddleClas's plain training"),
    "Global.re_ranking": (False, "it is Metric.Eval.0.ReIDMetric.re_ranking here"),
    "Global.feature_normalize": (True, "features are compared by cosine, so they always are"),
    "Global.feature_binarize": (None, "features are compared by cosine"),
    "Global.retrieval_feature_from": (
        "features",
        "the neck's output is compared, or without a neck the "
        "backbone's: leave out Arch.Neck for that",
    ),
    "Global.sim_block_size": (
        None,
        "the evaluation here chooses its blocks by the size of the gallery",
    ),
    "Arch.head_feature_from": ("neck", "the head compares what the neck gives"),
    "*.class_num": (None, "there are no classes without labels"),
    "Global.use_multilabel": (False, "there are no classes without labels"),
    "AMP.use_promote": (None, "mixed precision keeps the losses in float32 here by other means"),
    "DataLoader.*.batch_transform_ops": (
        None,
        "they mix images, and a memory needs images of one label each",
    ),
}


def unsupported(path: str) -> str | None:
    """Why a key of PaddleClas's cannot be used with the plugin; None where PaddleClas does not read
    it either. What is not in `UNSUPPORTED`, PaddleClas's source tells."""
    if (entry := _entry(path)) is not None:
        return entry[1]
    return "it has not been made to work here" if _is_read(path) else None


def asks_for_nothing(path: str, value: Any) -> bool:
    """Whether a key of `UNSUPPORTED` is only written, with the value that changes nothing."""
    entry = _entry(path)
    return entry is not None and (value is None or value == entry[0])


def _entry(path: str) -> tuple[Any, str] | None:
    found = (entry for pattern, entry in UNSUPPORTED.items() if fnmatch.fnmatch(path, pattern))
    return next(found, None)


def _is_read(path: str) -> bool:
    section, dot, key = path.rpartition(".")
    place = rf"""\[["']{re.escape(section)}["']\]""" if dot else ""
    read = re.compile(rf"""config{place}(\.get\(|\[)\s*["']{re.escape(key)}["']""")
    return any(read.search(text) for text in _engine_sources())


@functools.cache
def _engine_sources() -> list[str]:
    """Where PaddleClas reads the configuration."""
    folder = ppcls_folder()
    files = [*(folder / "engine").rglob("*.py"), folder / "data/__init__.py"]
    files += [folder / "arch/__init__.py", folder / "optimizer/__init__.py"]
    return [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]
