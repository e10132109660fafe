# SPDX-License-Identifier: Apache-2.0
"""The command line of inference: flags, and PaddleClas's ``-o Global.…`` names for the same."""

import argparse
from collections.abc import Callable
from typing import Any

from ppcls_ise import compat
from ppcls_ise.cli.arguments import add_override
from ppcls_ise.config import parse_value
from ppcls_ise.config.precision import PRECISIONS
from ppcls_ise.deploy.extractor import Extractor
from ppcls_ise.errors import ConfigError

# What PaddleClas's deploy/python/predict_*.py reads from Global, and the flag here.
_KEYS: dict[str, tuple[str, type, Callable[[Any], Any]]] = {
    "rec_inference_model_dir": ("model", str, str),
    "inference_model_dir": ("model", str, str),
    "infer_imgs": ("images", str, str),
    "batch_size": ("batch_size", int, int),
    "cpu_num_threads": ("threads", int, int),
    "use_gpu": ("device", bool, lambda on: "gpu" if on else "cpu"),
    "device": ("device", str, str),
    "enable_mkldnn": ("mkldnn", bool, bool),
    "use_tensorrt": ("tensorrt", bool, bool),
    "use_fp16": ("precision", bool, lambda on: "fp16" if on else "fp32"),
    "use_onnx": ("onnx", bool, bool),
    "enable_benchmark": ("benchmark", bool, bool),
    "benchmark": ("benchmark", bool, bool),
}
_WITHOUT_EFFECT = ("gpu_mem", "ir_optim", "enable_profile")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that name a model, how it runs, and images."""
    add_model_arguments(parser)
    parser.add_argument("--images", help="folder, image, or text file with one path per line")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that name a model and how it runs."""
    parser.add_argument("--model", help="folder of ppcls-ise export (with -c: .pdparams)")
    parser.add_argument("-c", "--config", help="YAML file of a checkpoint's training")
    add_override(
        parser,
        "PaddleClas's names for these flags (Global.use_gpu=False, Global.batch_size=32, "
        "Global.inference_model_dir=..., ...), or keys of the config",
    )
    parser.add_argument("--device", choices=["cpu", "gpu"], help="default: cpu")
    parser.add_argument("--batch-size", type=int, help="default: 64")
    parser.add_argument("--threads", type=int, help="of the CPU; default: all cores")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: fp32")
    parser.add_argument(
        "--no-mkldnn", dest="mkldnn", action="store_false", default=None, help="without oneDNN"
    )
    parser.add_argument("--tensorrt", action="store_true", default=None, help="with TensorRT")
    parser.add_argument(
        "--onnx", action="store_true", default=None, help="run inference.onnx by onnxruntime"
    )


def read_overrides(args: argparse.Namespace) -> None:
    """Move what ``-o`` says about inference into the flags, which it overrides; ``args.override``
    keeps the rest, for the config.

    Raises:
        ConfigError: a value of another type, or a key that nothing reads.
    """
    rest = []
    for option in args.override:
        key, equals, text = option.partition("=")
        name = key.removeprefix("Global.")
        if equals and name in _WITHOUT_EFFECT and name != key:
            compat.logger().warning(f"-o {option} has no effect here")
        elif not equals or name == key or name not in _KEYS:
            rest.append(option)
        else:
            flag, kind, convert = _KEYS[name]
            value = text if kind is str else parse_value(text)
            if type(value) is not kind:
                raise ConfigError(f"-o {option}: {key} has to be a {kind.__name__}, got {text}")
            setattr(args, flag, convert(value))
    args.override = rest
    if rest and not args.config:
        known = ", ".join(f"Global.{name}" for name in _KEYS)
        raise ConfigError(f"-o {rest[0]}: without a config (-c), the keys are {known}")


def make_extractor(args: argparse.Namespace) -> Extractor:
    """The `Extractor` of arguments that `read_overrides` has seen."""
    if args.model is None and args.config is None:
        raise ConfigError(
            "name the model: --model FOLDER of ppcls-ise export (PaddleClas: "
            "-o Global.rec_inference_model_dir=FOLDER), or a checkpoint: -c CONFIG "
            "-o Global.pretrained_model=WEIGHTS"
        )
    chosen = {
        "batch_size": args.batch_size,
        "device": args.device,
        "threads": args.threads,
        "precision": args.precision,
        "use_mkldnn": args.mkldnn,
        "use_tensorrt": args.tensorrt,
        "use_onnx": args.onnx,
    }
    return Extractor(
        args.model,
        config=args.config,
        overrides=args.override,
        **{name: value for name, value in chosen.items() if value is not None},
    )
