# SPDX-License-Identifier: Apache-2.0
"""Images per second of feature extraction on a CPU, and what bfloat16 does to pseudo-labels.

    python benchmarks/features.py [--images 64] [--repeat 3] [--networks [--core-seconds]]
    python benchmarks/features.py --labels config.yaml weights.pdparams

ResNet-50 at 256x128; with --networks the other networks of the recipes too, the network alone.
PaddleClas's way is its own model, computed eagerly with the one thread that Paddle sets when the
user sets nothing. "from JPEG files" adds decoding and resizing.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
import paddle
from PIL import Image

import ppcls_ise
from ppcls_ise import compat
from ppcls_ise.clustering import generate_pseudo_labels
from ppcls_ise.data import UnlabeledFolder
from ppcls_ise.engine.feature_extraction import extract, loader_of
from ppcls_ise.engine.static_features import StaticFeatures
from ppcls_ise.inference.static_model import set_process_threads
from ppcls_ise.metrics import cluster_quality

SHAPE = (3, 256, 128)
_POOLED = {"BackboneStopLayer": {"name": "avg_pool"}}
_ICS = {"conv_stem": True}
# Name -> backbone, what else its RecModel has, features.
NETWORKS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "ResNet-50": ({"name": "ResNet50_last_stage_stride1"}, _POOLED, 2048),
    "IBN-a ResNet-50": ({"name": "ResNet50_IBN_a"}, _POOLED, 2048),
    "ViT-S/16": ({"name": "ViT_small_patch16_reid"}, {}, 384),
    "ViT-S/16 + ICS": ({"name": "ViT_small_patch16_reid", **_ICS}, {}, 384),
    "ViT-B/16": ({"name": "ViT_base_patch16_reid"}, {}, 768),
}
TRANSFORMS = [
    {"ResizeImage": {"size": [128, 256], "interpolation": "bicubic", "backend": "pil"}},
    {
        "NormalizeImage": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "order": "",
        }
    },
]
KINDS = ("fp32", "bf16") if paddle.base.core.supports_bfloat16() else ("fp32",)


@paddle.no_grad()
def network(name: str = "ResNet-50") -> paddle.nn.Layer:
    """From random numbers, with running statistics that fit them."""
    paddle.seed(0)
    backbone, more, features = NETWORKS[name]
    neck = {"name": "ReIDNeck", "num_features": features}
    parts = {"Backbone": dict(backbone), "Neck": neck, "Head": {"name": "PLIHead"}}
    model = compat.load("ppcls.arch").RecModel(**parts, **more)
    model.train()
    model.head.eval()
    for _ in range(5):
        model(paddle.randn([4, *SHAPE]))
    model.eval()
    return model


def write_images(folder: Path, count: int) -> None:
    """JPEG files of the size of Market-1501's, with content that takes work to decode."""
    generator = np.random.default_rng(0)
    for i in range(count):
        coarse = generator.integers(0, 256, (16, 8, 3), np.uint8)
        Image.fromarray(coarse).resize((64, 128)).save(folder / f"{i:05d}.jpg", quality=90)


def pure(
    model: paddle.nn.Layer,
    count: int,
    repeat: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Images per second of the network alone."""
    images = np.random.default_rng(0).standard_normal((count, *SHAPE), dtype=np.float32)
    batches = np.array_split(images, max(1, count // 32))
    networks = {kind: StaticFeatures(model, kind).network(batches[0]) for kind in KINDS}

    @paddle.no_grad()
    def eager() -> None:
        set_process_threads(1)
        for batch in batches:
            model(paddle.to_tensor(batch))["features"].numpy()

    def static(kind: str) -> None:
        for batch in batches:
            networks[kind](batch)

    runs = {"PaddleClas eager": eager}
    runs |= {f"static {kind}": lambda kind=kind: static(kind) for kind in KINDS}
    seconds = common.alternate(runs, repeat=repeat, clock=clock)
    return {name: count / value for name, value in seconds.items()}


def end_to_end(model: paddle.nn.Layer, count: int, repeat: int) -> dict[str, float]:
    """Images per second of a whole pass, the export of the weights included."""
    with tempfile.TemporaryDirectory() as folder:
        (images := Path(folder) / "images").mkdir()
        write_images(images, count)
        plain = UnlabeledFolder(str(images), transform_ops=TRANSFORMS)
        static = {kind: StaticFeatures(model, kind) for kind in KINDS}

        def run(dataset: UnlabeledFolder, features: StaticFeatures | None) -> None:
            if features is None:
                set_process_threads(1)
            else:
                bias = model.neck.feat_bn._mean
                bias.set_value(bias + 1e-6)  # as after an epoch: the weights are others
            loader = loader_of(dataset, batch_size=32, num_workers=0, device=paddle.CPUPlace())
            extract(model, loader, title="benchmark", static=features)

        runs = {"PaddleClas eager": lambda: run(plain, None)}
        for kind in KINDS:
            runs[f"static {kind}"] = lambda kind=kind: run(plain, static[kind])
        seconds = common.alternate(runs, repeat=repeat)
    return {name: count / value for name, value in seconds.items()}


def effect_on_labels(config_file: str, weights: str) -> dict[str, float | int]:
    """Pseudo-labels from bfloat16 features against those from float32."""
    from ppcls_ise.config.overrides import get_config
    from ppcls_ise.engine.engine import UnsupervisedEngine

    config = get_config(config_file, [f"Global.pretrained_model={weights}"])
    engine = UnsupervisedEngine(config, mode="train")
    dataset = engine.train_dataset
    options = config["Clustering"]
    lengths = {key: options[key] for key in ("k1", "k2") if key in options}
    labels, rows = {}, {}
    for kind in KINDS:
        view = dataset.view(options["transform_ops"])
        loader = loader_of(view, batch_size=64, num_workers=0, device=engine.device)
        static = StaticFeatures(engine.plain_model, kind)
        rows[kind] = extract(engine.model, loader, title=kind, static=static).values
        labels[kind] = generate_pseudo_labels(
            rows[kind], options["eps"], options.get("min_samples", 4), **lengths
        ).labels
    same = cluster_quality(labels["bf16"], outliers_apart(labels["fp32"]))
    result: dict[str, float | int] = {
        "images": len(dataset),
        "clusters fp32": int(labels["fp32"].max()) + 1,
        "clusters bf16": int(labels["bf16"].max()) + 1,
        "ARI of bf16 against fp32": same.ari,
        "images that change between cluster and outlier": int(
            ((labels["fp32"] < 0) != (labels["bf16"] < 0)).sum()
        ),
        "least cosine": float((rows["fp32"] * rows["bf16"]).sum(axis=1).min()),
    }
    if dataset.pids is not None:
        for kind in KINDS:
            result[f"ARI {kind} against identities"] = cluster_quality(
                labels[kind], dataset.pids
            ).ari
    return result


def outliers_apart(labels: np.ndarray) -> np.ndarray:
    """Every outlier (-1) as a cluster of its own, which is how the first partition is read too."""
    apart = labels.copy()
    apart[labels < 0] = labels.max() + 1 + np.arange(np.count_nonzero(labels < 0))
    return apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--networks", action="store_true", help="all networks, not ResNet-50 alone")
    parser.add_argument(
        "--core-seconds", action="store_true", help="with --networks: images per second of a core"
    )
    parser.add_argument("--labels", nargs=2, metavar=("CONFIG", "WEIGHTS"))
    arguments = parser.parse_args()
    ppcls_ise.register()
    if arguments.labels:
        common.report("features_bf16_labels", [effect_on_labels(*arguments.labels)])
        return
    logging.getLogger("ppcls").setLevel(logging.WARNING)
    if arguments.networks:
        rows = []
        clock = time.process_time if arguments.core_seconds else time.perf_counter
        for name in NETWORKS:
            speeds = pure(network(name), arguments.images, arguments.repeat, clock)
            rows += [
                {
                    "network": name,
                    "way": way,
                    f"images/{'core-' * arguments.core_seconds}s": speed,
                    "times PaddleClas": speed / speeds["PaddleClas eager"],
                }
                for way, speed in speeds.items()
            ]
        common.report("features_networks", rows)
        return
    model = network()
    groups = {
        "network alone": pure(model, arguments.images, arguments.repeat),
        "from JPEG files": end_to_end(model, arguments.images, arguments.repeat),
    }
    rows = [
        {
            "part": part,
            "way": way,
            "images/s": speed,
            "times PaddleClas": speed / group["PaddleClas eager"],
        }
        for part, group in groups.items()
        for way, speed in group.items()
    ]
    common.report("features", rows)
    common.bars("features", groups, ylabel="images per second (ResNet-50, 256x128)", log=True)


if __name__ == "__main__":
    main()
