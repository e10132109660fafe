# SPDX-License-Identifier: Apache-2.0
"""Whether a configuration can work: a closed set of keys, and values of the right kind."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ppcls_ise import compat
from ppcls_ise.compat import Config, keys
from ppcls_ise.compat.tables import GEARS
from ppcls_ise.config.clustering import ClusteringOptions
from ppcls_ise.config.precision import PRECISIONS, cpu_problem
from ppcls_ise.config.values import (
    check_types,
    check_value,
    parameters_of,
    refuse_expressions,
    require_known,
    require_parameters,
    unknown,
)
from ppcls_ise.data.transforms import seeded_generators
from ppcls_ise.errors import ConfigError
from ppcls_ise.utils.components import components

# What the plugin adds to PaddleClas's keys.
_GLOBAL = [
    *keys.GLOBAL,
    *"imports image_root feature_precision normalize_on_device".split(),
    *"save_step_interval keep_checkpoints allow_changes".split(),
]
_ARCH = [*keys.ARCH, "bn_group_size"]
_DEVICES = ("cpu", "gpu", "xpu", "npu", "mlu")
_PATHS = "output_dir image_root pretrained_model checkpoints save_inference_dir".split()
# Sections that are built, by what the configuration is for; the others may say what they like.
_BUILT = {
    "train": ("DataLoader.Train", "DataLoader.Eval", "Loss", "Metric", "Optimizer"),
    "eval": ("DataLoader.Eval", "Metric"),
    "export": (),
}


def check_config(config: Config, *, mode: str = "train") -> Config:
    """Make sure that something reads every key, and that the plugin can work with the rest.

    Args:
        config: stays as it is.
        mode: ``train``, ``eval`` or ``export``: sections that it does not build are not looked at.

    Returns:
        A copy with the defaults filled in.

    Raises:
        ConfigError: names the key and the nearest known one, or what has to be changed.
    """
    built = _BUILT[mode]
    config = compat.copy_of(config)
    require_known(config, [*keys.SECTIONS, "Clustering"], "")
    for section in ("Global", "Arch"):
        if not isinstance(config.get(section), dict):
            raise ConfigError(f"the config has no section {section}")
    if not config["Arch"].get("Neck") and _compares_backbone(config["Global"]):
        del config["Global"]["retrieval_feature_from"]  # which is so without a neck
    if config["Global"].pop("image_cache", None):
        compat.logger().warning(
            "Global.image_cache is not read any more (a run with it was hardly faster) and will be "
            "refused by the next version: leave it out, and delete its folder"
        )
    require_known(config["Global"], _GLOBAL, "Global")
    _check_amp(config.get("AMP") or {})
    _check_global(config["Global"])
    _check_arch(config["Arch"])
    if (options := config.get("profiler_options")) and (
        problem := compat.profiler_problem(options)
    ):
        raise ConfigError(f"-p {options}: {problem}")
    loaders = config.get("DataLoader") or {}
    if "DataLoader.Eval" in built:
        require_known(loaders, ["Train", "Eval"], "DataLoader")
        require_known(loaders.get("Eval") or {}, ["Query", "Gallery"], "DataLoader.Eval")
        for path, part in loaders_of(loaders):
            if path.startswith(built):
                _check_loader(path, part)
    if "DataLoader.Train" not in built and loaders.get("Train"):
        try:
            _check_loader("DataLoader.Train", loaders["Train"])
        except ConfigError:
            del loaders["Train"]  # a training of PaddleClas's, which is not asked for here
    if mode == "export":
        for path, part in loaders_of(loaders):
            dataset = part.get("dataset") if isinstance(part, dict) else None
            if isinstance(dataset, dict):
                _check_transforms(dataset.get("transform_ops"), f"{path}.dataset")
    if "Loss" in built:
        _check_list(config.get("Loss"), "loss", "Loss", extra=("weight",))
    if "Metric" in built:
        _check_list(config.get("Metric"), "metric", "Metric")
        _check_metric(config)
    if "Optimizer" in built:
        _check_optimizer(config.get("Optimizer") or {})
    clustering = config.get("Clustering") or {}
    require_known(clustering, parameters_of(ClusteringOptions), "Clustering")
    check_types(clustering, ClusteringOptions, "Clustering")
    _check_transforms(clustering.get("transform_ops"), "Clustering")
    return config


def _compares_backbone(options: Any) -> bool:
    return bool(options.get("retrieval_feature_from") == "backbone")


def _check_global(options: Any) -> None:
    required = {"output_dir", "device", "epochs", "print_batch_step", "save_interval"}
    if missing := sorted(required - set(options)):
        raise ConfigError(f"Global lacks {', '.join(missing)}")
    defaults = {
        "checkpoints": None,
        "pretrained_model": None,
        "use_visualdl": False,
        "eval_during_train": False,
        "eval_interval": 1,
        "allow_changes": False,
        "save_step_interval": 0,
        "keep_checkpoints": 2,
        "eval_mode": "retrieval",
    }
    for key, value in defaults.items():
        options.setdefault(key, value)
    for key in _PATHS:
        if (value := options.get(key)) is not None:
            if not isinstance(value, str):
                raise ConfigError(f"Global.{key} has to be a path, got {value!r}")
            if not value.isprintable():
                raise ConfigError(f"Global.{key} has to be a path, got {value!r}")
            options[key] = str(Path(value).expanduser()) if value else None
    if options["output_dir"] is None:
        raise ConfigError("Global.output_dir is empty: name the folder for results")
    if options["device"] not in _DEVICES:
        raise ConfigError(
            f"Global.device has to be one of {', '.join(_DEVICES)}, got {options['device']!r}"
        )
    seed = options.get("seed")
    if seed is not None and (type(seed) is not int or not 0 <= seed < 1 << 32):
        raise ConfigError(f"Global.seed has to be a whole number in 0 .. 2^32 - 1, got {seed!r}")
    options.setdefault("normalize_on_device", False)
    for key in ("eval_during_train", "use_visualdl", "normalize_on_device", "allow_changes"):
        if not isinstance(options[key], bool):
            raise ConfigError(f"Global.{key} has to be True or False, got {options[key]!r}")
    shape = options.get("image_shape", [3, 1, 1])
    if not isinstance(shape, list) or len(shape) != 3 or any(type(n) is not int for n in shape):
        raise ConfigError(f"Global.image_shape has to be [3, height, width], got {shape!r}")
    if options["eval_mode"] != "retrieval":
        raise ConfigError(f"Global.eval_mode has to be retrieval, not {options['eval_mode']!r}")
    if options["device"] == "gpu" and not paddle.is_compiled_with_cuda():
        raise ConfigError(
            "Global.device is gpu, but the installed PaddlePaddle is a CPU build. "
            "Add -o Global.device=cpu, or install paddlepaddle-gpu (see the README)."
        )
    if options.get("to_static", False) not in (True, False):
        raise ConfigError(f"Global.to_static has to be True or False, got {options['to_static']!r}")
    _check_precision(options)
    counts = ("epochs", "print_batch_step", "eval_interval", "save_interval", "keep_checkpoints")
    for key in (*counts, "save_step_interval"):
        least = 1 if key in counts else 0
        if type(options[key]) is not int or options[key] < least:
            raise ConfigError(
                f"Global.{key} has to be a whole number >= {least}, got {options[key]!r}"
            )


def _check_precision(options: Any) -> None:
    precision, device = options.get("feature_precision", "fp32"), options["device"]
    if precision not in PRECISIONS:
        raise ConfigError(
            f"Global.feature_precision has to be one of {', '.join(PRECISIONS)}, got {precision!r}"
        )
    if device == "cpu" and (problem := cpu_problem(precision)):
        raise ConfigError(f"Global.feature_precision: {problem}")


def _check_amp(options: Any) -> None:
    require_known(options, [*keys.AMP, "dtype"], "AMP")
    dtype, level = options.get("dtype", "float16"), str(options.get("level", "O1")).upper()
    if dtype not in ("float16", "bfloat16") or level not in ("O1", "O2"):
        raise ConfigError(
            "AMP.dtype has to be float16 or bfloat16 and AMP.level O1 or O2, got "
            f"{dtype!r} and {level!r}"
        )
    if dtype == "bfloat16" and level == "O2":
        raise ConfigError("AMP.dtype=bfloat16 needs AMP.level=O1: PaddleClas's O2 is float16")


def _check_arch(arch: Any) -> None:
    require_known(arch, _ARCH, "Arch")
    if arch.get("name") != "RecModel":
        raise ConfigError(f"Arch.name has to be RecModel, not {arch.get('name')!r}")
    group_size = arch.get("bn_group_size")
    if group_size is not None and (type(group_size) is not int or group_size < 2):
        raise ConfigError(
            f"Arch.bn_group_size has to be a whole number >= 2 or null, got {group_size!r}"
        )
    backbone = arch.get("Backbone")
    if not isinstance(backbone, dict):
        raise ConfigError(f"Arch.Backbone has to be a section with a name, got {backbone!r}")
    factory = compat.lookup("backbone", str(backbone.get("name")))
    if factory is None:
        raise ConfigError(f"Arch.Backbone.name: PaddleClas knows no {backbone.get('name')!r}")
    if backbone.get("data_format", "NCHW") != "NCHW":
        raise ConfigError(
            "Arch.Backbone.data_format has to be NCHW (or left out): necks and grouped batch norm "
            f"take channels first, got {backbone['data_format']!r}"
        )
    require_known(backbone, ["name", "pretrained", *parameters_of(factory)], "Arch.Backbone")
    rest = {key: value for key, value in backbone.items() if key != "pretrained"}
    check_types(rest, factory, "Arch.Backbone")
    if compat.is_host_code(factory):
        refuse_expressions(backbone, "Arch.Backbone")
    for part in ("BackboneStopLayer", "Neck", "Head"):
        if part in arch and not arch[part]:
            del arch[part]  # PaddleClas takes the key for the thing
    for part in ("Neck", "Head"):
        if part not in arch:
            continue
        by_name = components(part.lower())
        require_known(arch[part], arch[part], f"Arch.{part}")
        name = str(arch[part].get("name"))
        if name in by_name:
            require_known(arch[part], ["name", *parameters_of(by_name[name])], f"Arch.{part}")
            check_types(arch[part], by_name[name], f"Arch.{part}")
            require_parameters(arch[part], by_name[name], f"Arch.{part}")
        elif name not in GEARS:
            raise ConfigError(f"Arch.{part}.name: {unknown(name, [*by_name, *GEARS])}")
        else:
            refuse_expressions(arch[part], f"Arch.{part}")


def loaders_of(section: Any) -> list[tuple[str, Any]]:
    """Path and content of every loader that the section ``DataLoader`` describes."""
    parts = {"DataLoader.Train": section.get("Train")}
    for name, part in (section.get("Eval") or {}).items():
        parts[f"DataLoader.Eval.{name}"] = part
    return [(path, part) for path, part in parts.items() if part]


def _check_loader(path: str, part: Any) -> None:
    require_known(part, ["dataset", "sampler", "loader"], path)
    loader = part.get("loader") or {}
    require_known(loader, keys.LOADER, f"{path}.loader")
    loader.setdefault("use_shared_memory", True)  # PaddleClas fails without it
    workers = loader.get("num_workers")
    if type(workers) is not int or workers < 0:
        raise ConfigError(
            f"{path}.loader.num_workers has to be a whole number >= 0, got {workers!r}"
        )
    if not isinstance(part.get("dataset"), dict) or not isinstance(part.get("sampler"), dict):
        raise ConfigError(f"{path} needs a dataset and a sampler")
    batch_size = part["sampler"].get("batch_size")
    if type(batch_size) is not int or batch_size < 1:
        raise ConfigError(
            f"{path}.sampler.batch_size has to be a whole number >= 1, got {batch_size!r}"
        )
    if path != "DataLoader.Train" and part["sampler"].get("drop_last"):
        raise ConfigError(
            f"{path}.sampler.drop_last has to be False: an evaluation counts every image"
        )
    for kind in ("dataset", "sampler"):
        _check_named(part[kind], kind, f"{path}.{kind}")
    _check_dataset(part["dataset"].get("name"), f"{path}.dataset")
    _check_transforms(part["dataset"].get("transform_ops"), f"{path}.dataset")


def _check_dataset(name: Any, path: str) -> None:
    """PaddleClas's data sets put another image in the place of one that cannot be read."""
    cls = compat.lookup("dataset", str(name))
    if cls is not None and compat.is_host_code(cls):
        ours = [known for known in components("dataset") if known.endswith(str(name))]
        raise ConfigError(
            f"{path}.name={name} is PaddleClas's own, which cannot be used here: set {path}.name="
            f"{(ours or [' or '.join(components('dataset'))])[0]}"
        )


def _check_metric(config: Config) -> None:
    entries = (config.get("Metric") or {}).get("Eval") or []
    if entries and not set(entries[0]) <= set(components("metric")):
        raise ConfigError(
            f"Metric.Eval has to begin with {' or '.join(components('metric'))}, not "
            f"{', '.join(map(str, entries[0]))}: set "
            '-o "Metric.Eval=[{ReIDMetric: {topk: [1, 5, 10]}}]"'
        )


def _check_transforms(ops: Any, path: str) -> None:
    if not isinstance(ops or [], list):
        raise ConfigError(f"{path}.transform_ops has to be a list, got {ops!r}")
    image = np.full((256, 128, 3), 99, np.uint8)
    for i, op in enumerate(ops or []):
        _check_entry(op, "transform", f"{path}.transform_ops.{i}")
        try:
            with seeded_generators(0):
                (function,) = compat.build_transforms([op])
                image = function(image)
        except Exception as error:  # PaddleClas's operators do not check what they are given
            reason = error if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
            raise ConfigError(f"{path}.transform_ops.{i} ({op}) cannot work: {reason}") from error
        if not np.isfinite(np.asarray(image, np.float64)).all():
            raise ConfigError(f"{path}.transform_ops.{i} ({op}) gives values that are not finite")


def _check_optimizer(options: Any) -> None:
    if not options:
        return
    require_known(options, options, "Optimizer")
    for key in ("regularizer", "clip_norm"):
        if key in options and options[key] is None:
            del options[key]  # PaddleClas takes the key for the thing
    if options.get("name") == "AdamW" and "regularizer" in options:
        raise ConfigError(
            "Optimizer.regularizer does not go with AdamW, whose decay is a number: set "
            "Optimizer.regularizer=null and Optimizer.weight_decay=0.0005, say"
        )
    check_value(options.get("clip_norm", 1.0), ["float"], "Optimizer.clip_norm")
    _check_named(options, "optimizer", "Optimizer", extra=("lr", "regularizer", "clip_norm"))
    for key in ("regularizer", "lr"):
        if options.get(key) is not None:
            require_known(options[key], options[key] or {}, f"Optimizer.{key}")
    regularizer = options.get("regularizer") or {}
    require_known(regularizer, ["name", "coeff"], "Optimizer.regularizer")
    check_value(regularizer.get("coeff", 0.0), ["float"], "Optimizer.regularizer.coeff")
    if regularizer and regularizer.get("name") not in ("L1", "L2"):
        raise ConfigError("Optimizer.regularizer.name has to be L1 or L2")
    schedule = options.get("lr") or {}
    _check_named(schedule, "lr", "Optimizer.lr", extra=("by_epoch",))
    for key, kind, least, most in (
        ("learning_rate", "float", 0, math.inf),
        ("gamma", "float", 0, 1),
        ("step_size", "int", 1, math.inf),
        ("warmup_epoch", "float", 0, math.inf),
    ):
        if key in schedule:
            check_value(schedule[key], [kind], f"Optimizer.lr.{key}")
            if not least <= schedule[key] <= most or (key == "gamma" and schedule[key] == 1):
                raise ConfigError(
                    f"Optimizer.lr.{key} is out of its range, got {schedule[key]!r} "
                    f"({least} to {most}{', excluded' if key == 'gamma' else ''})"
                )


def _check_list(section: Any, kind: str, path: str, *, extra: Iterable[str] = ()) -> None:
    require_known(section or {}, ["Train", "Eval"], path)
    for name, entries in (section or {}).items():
        if not isinstance(entries or [], list):
            raise ConfigError(f"{path}.{name} has to be a list, got {entries!r}")
        for i, entry in enumerate(entries or []):
            _check_entry(entry, kind, f"{path}.{name}.{i}", extra=extra)
            for cls, options in entry.items():
                weight = (options or {}).get("weight", 1.0)
                check_value(weight, ["float"], f"{path}.{name}.{i}.{cls}.weight")
    if kind == "loss" and section and len(section.get("Train") or []) == 1:
        (only,) = section["Train"][0].values()
        if only.get("weight", 1.0) != 1.0:
            raise ConfigError(
                f"Loss.Train.0: PaddleClas ignores the weight ({only['weight']}) of a single loss; "
                "set it to 1.0 and scale Optimizer.lr.learning_rate instead"
            )


def _check_entry(entry: Any, kind: str, path: str, *, extra: Iterable[str] = ()) -> None:
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ConfigError(f"{path} has to be one name with its options, got {entry!r}")
    ((name, options),) = entry.items()
    require_known({} if options is None else options, options or {}, f"{path}.{name}")
    _check_named({"name": name, **(options or {})}, kind, f"{path}.{name}", extra=extra)


def _check_named(options: Any, kind: str, path: str, *, extra: Iterable[str] = ()) -> None:
    if "name" not in options:
        if options:
            raise ConfigError(f"{path} needs a name")
        return
    cls = compat.lookup(kind, str(options["name"]))
    if cls is None:
        known = [name for name in compat.names(kind) if name[:1].isupper()]
        raise ConfigError(f"{path}: {unknown(options['name'], known)}")
    require_known(options, ["name", *extra, *parameters_of(cls)], path)
    check_types(options, cls, path)
    require_parameters(options, cls, path)
    if compat.is_host_code(cls) and kind not in ("dataset", "sampler"):
        refuse_expressions(options, path)
