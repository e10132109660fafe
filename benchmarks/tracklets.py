# SPDX-License-Identifier: Apache-2.0
"""What tracklets are worth: ways to label generated tracklets, trained from scratch.

    python benchmarks/tracklets.py --seeds 3
    python benchmarks/tracklets.py --short --network ViT --rows plain

Each row trains the small network of configs/ISE_synthetic.yaml (16 epochs of 50 steps) on the
frames of one generated set, by itself and not through the engine, so that rows differ in nothing
but their labels and in what a batch takes of a cluster. Reported is the LAST epoch, on the
training frames themselves: one query per person and camera with a match under another one.
Labels are scored by pair F1 against the people really shown, slips included.
"""

import argparse
import csv
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import paddle  # noqa: E402
import paddle.nn.functional as F  # noqa: E402

from benchmarks.common import table  # noqa: E402
from ppcls_ise.backbones import PlainConvNet, ReIDViT  # noqa: E402
from ppcls_ise.clustering import PseudoLabels, generate_pseudo_labels  # noqa: E402
from ppcls_ise.data import read_image  # noqa: E402
from ppcls_ise.data.samplers import IdentityTable  # noqa: E402
from ppcls_ise.heads import ClusterContrastHead, PLIHead  # noqa: E402
from ppcls_ise.losses import label_preserving_loss  # noqa: E402
from ppcls_ise.metrics import evaluate_rank  # noqa: E402
from ppcls_ise.necks import ReIDNeck  # noqa: E402
from ppcls_ise.synthetic import make_tracklets  # noqa: E402

NAME = re.compile(r"(\d{4})C(\d)T(\d{4})F\d{3}\.jpg")
HEIGHT = 64  # twice the width
CLUSTERS, INSTANCES, WARM_UP = 16, 4, 40
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
# name -> what generate_pseudo_labels gets beside features, and whether batches know tracklets
TRACKLETS, CAMERAS = {"tracklet_ids": "tracklets"}, {"camera_ids": "cameras"}
FREE = {"eps": 0.4, "must_link": False, "whiten": False}
LINKED = {"eps": 0.4, "must_link": True, "whiten": False}
WHITE = {"eps": 0.5, "must_link": True, "whiten": True}
ROWS: dict[str, tuple[dict | None, bool]] = {
    "plain": ({"eps": 0.5, "k1": 15, "k2": 6}, False),
    "camera-aware": ({"eps": 0.4, **CAMERAS}, False),
    "tracklets": ({**FREE, **TRACKLETS}, False),
    "tracklets, must-link": ({**LINKED, **TRACKLETS}, False),
    "tracklets, must-link, whitened": ({**WHITE, **TRACKLETS}, False),
    "tracklets, must-link, whitened, sampler": ({**WHITE, **TRACKLETS}, True),
    "both, must-link": ({**LINKED, **TRACKLETS, **CAMERAS}, False),
    "both, must-link, whitened, sampler": ({**WHITE, **TRACKLETS, **CAMERAS}, True),
    "true identities": (None, False),
}


# name -> backbone, its channels, pooling of the neck, learning rate; as in benchmarks/methods.py
NETWORKS: dict[str, tuple[Callable[[tuple[int, int]], paddle.nn.Layer], int, str, float]] = {
    "convolutions": (lambda size: PlainConvNet((16, 32, 64, 128)), 128, "gem", 0.0015),
    "IBN": (lambda size: PlainConvNet((16, 32, 64, 128), ibn_layers=2), 128, "gem", 0.0015),
    "ViT": (
        lambda size: ReIDViT(embed_dim=96, depth=4, num_heads=3, image_size=size),
        96,
        "none",
        0.0005,
    ),
}


@dataclass(frozen=True)
class Frames:
    """uint8 RGB [N, height, width, 3], and [N] who is shown, by which camera, in which tracklet."""

    pixels: np.ndarray
    people: np.ndarray
    cameras: np.ndarray
    tracklets: np.ndarray

    @classmethod
    def read(cls, root: Path, height: int) -> "Frames":
        with open(root / "info" / "slips.csv", encoding="utf-8") as file:
            slips = {row["image"]: int(row["identity"]) for row in csv.DictReader(file)}
        paths = sorted((root / "bbox_train").rglob("*.jpg"))
        names = [NAME.fullmatch(path.name).groups() for path in paths]
        pixels = [
            cv2.resize(read_image(str(path)), (height // 2, height), interpolation=cv2.INTER_AREA)
            for path in paths
        ]
        people = [
            slips.get(str(path.relative_to(root)), int(name[0]))
            for path, name in zip(paths, names, strict=True)
        ]
        tracklets = np.unique(names, axis=0, return_inverse=True)[1]
        return cls(
            np.stack(pixels), np.array(people), np.array([int(n[1]) for n in names]), tracklets
        )


class Network(paddle.nn.Layer):
    def __init__(self, method: str, name: str, size: tuple[int, int]) -> None:
        super().__init__()
        backbone, width, pooling, self.learning_rate = NETWORKS[name]
        self.backbone = backbone(size)
        self.neck = ReIDNeck(width, pooling=pooling)
        head = PLIHead if method == "ISE" else ClusterContrastHead
        self.head = head(momentum=0.1, temperature=0.05, memory="mean")

    def forward(self, images, labels=None):
        return self.head(self.neck(self.backbone(images)), labels)


def augmented(pixels: np.ndarray, rng: np.random.Generator) -> paddle.Tensor:
    """Flip, shift by up to 5 pixels and erase, as in the config."""
    tall, broad = pixels.shape[1:3]
    batch = np.empty((len(pixels), 3, tall, broad), np.float32)
    for i, image in enumerate(pixels):
        padded = np.pad(image[:, :: rng.choice((-1, 1))], ((5, 5), (5, 5), (0, 0)))
        top, left = rng.integers(0, 11, 2)
        image = (padded[top : top + tall, left : left + broad] / np.float32(255) - MEAN) / STD
        if rng.random() < 0.5:
            area, ratio = rng.uniform(0.02, 0.15) * tall * broad, rng.uniform(0.3, 1 / 0.3)
            high, wide = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if high < tall and wide < broad:
                y, x = rng.integers(tall - high + 1), rng.integers(broad - wide + 1)
                image[y : y + high, x : x + wide] = MEAN
        batch[i] = image.transpose(2, 0, 1)
    return paddle.to_tensor(batch)


@paddle.no_grad()
def features_of(network: Network, pixels: np.ndarray) -> np.ndarray:
    network.eval()
    parts = []
    for start in range(0, len(pixels), 256):
        images = (pixels[start : start + 256] / np.float32(255) - MEAN) / STD
        parts.append(network(paddle.to_tensor(images.transpose(0, 3, 1, 2))).numpy())
    network.train()
    return np.concatenate(parts)


def labeler(frames: Frames, options: dict | None) -> Callable[[np.ndarray], PseudoLabels]:
    if options is None:
        people = np.unique(frames.people, return_inverse=True)[1]
        return lambda features: PseudoLabels.from_labels(features, people)
    known = {
        key: getattr(frames, value) if isinstance(value, str) else value
        for key, value in options.items()
    }
    return lambda features: generate_pseudo_labels(features, **known)


def pair_f1(labels: np.ndarray, people: np.ndarray) -> float:
    """F1 of "the same label" as a guess at "the same person", over all pairs of frames."""

    def pairs(*keys: np.ndarray) -> float:
        sizes = np.unique(np.stack(keys), axis=1, return_counts=True)[1].astype(float)
        return float((sizes * (sizes - 1)).sum())

    chosen = labels >= 0
    hit = pairs(labels[chosen], people[chosen]) if chosen.any() else 0.0
    guessed = pairs(labels[chosen]) if chosen.any() else 0.0
    return 2 * hit / max(guessed + pairs(people), 1.0)


def mean_ap(frames: Frames, features: np.ndarray) -> float:
    """One query, the middle frame, per person and camera if another camera sees the person."""
    people, cameras = frames.people, frames.cameras
    queries = []
    for person, camera in np.unique(np.stack([people, cameras]), axis=1).T:
        mine = people == person
        if (cameras[mine] != camera).any():
            rows = np.flatnonzero(mine & (cameras == camera))
            queries.append(rows[len(rows) // 2])
    chosen = np.array(queries)
    query = features[chosen], features
    return evaluate_rank(*query, people[chosen], people, cameras[chosen], cameras).mAP


def train(
    frames: Frames, row: str, method: str, seed: int, epochs: int, iters: int, name: str
) -> dict:
    options, by_tracklet = ROWS[row]
    label, groups = labeler(frames, options), frames.tracklets if by_tracklet else None
    paddle.seed(seed)
    network = Network(method, name, frames.pixels.shape[1:3])
    step_size = max(1, round(epochs * 0.625))
    schedule = paddle.optimizer.lr.StepDecay(network.learning_rate, step_size, gamma=0.1)
    decay = paddle.regularizer.L2Decay(5e-4)
    trained = [one for one in network.parameters() if not one.stop_gradient]
    optimizer = paddle.optimizer.Adam(schedule, parameters=trained, weight_decay=decay)
    rng = np.random.default_rng(seed)
    with paddle.no_grad():  # batch-norm statistics of a network that was never trained
        for _ in range(WARM_UP):
            rows = rng.integers(0, len(frames.pixels), CLUSTERS * INSTANCES)
            network.neck(network.backbone(augmented(frames.pixels[rows], rng)))
    started, labeling = time.perf_counter(), 0.0
    for epoch in range(1, epochs + 1):
        features = features_of(network, frames.pixels)
        begun = time.perf_counter()
        result = label(features)
        labeling += time.perf_counter() - begun
        if result.num_clusters:
            network.head.start_epoch(epoch, iters, epochs)
            network.head.reset_memory(features, result.labels, result.centroids, (seed, epoch))
            identities = IdentityTable.build(result.labels, None, groups)
            for rows in batches(identities, iters, rng):
                labels = paddle.to_tensor(result.labels[rows][:, None])
                output = network(augmented(frames.pixels[rows], rng), labels)
                loss = F.cross_entropy(output["logits"], output["row_labels"])
                if method == "ISE":
                    names = ("features", "supports", "labels", "support_labels")
                    loss += 0.1 * label_preserving_loss(*(output[name] for name in names))
                loss.backward()
                optimizer.step()
                optimizer.clear_grad()
        schedule.step()
    return {
        "mAP": mean_ap(frames, features_of(network, frames.pixels)),
        "F1": pair_f1(result.labels, frames.people),
        "clusters": result.num_clusters,
        "minutes": (time.perf_counter() - started) / 60,
        "labeling": labeling / epochs,
    }


def batches(identities: IdentityTable, iters: int, rng: np.random.Generator):
    clusters, done = len(identities.counts), 0
    size = min(CLUSTERS, clusters)
    while True:
        blocks = identities.draw_blocks(rng.permutation(clusters), INSTANCES, rng)
        for first in range(0, clusters - size + 1, size):
            if done == iters:
                return
            done += 1
            yield blocks[first : first + size].ravel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--methods", nargs="*", default=["ISE", "Cluster Contrast"])
    parser.add_argument("--network", default="convolutions", choices=list(NETWORKS))
    parser.add_argument("--image-root", type=Path, default=Path("dataset/tracklets"))
    parser.add_argument("--camera-gap", type=float, default=1.0)
    parser.add_argument("--light-gap", type=float, default=1.0)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--iters", type=int, default=50)
    parser.add_argument("--short", action="store_true", help="6 epochs of 25 steps")
    parser.add_argument("--out", type=Path, default=Path("output/tracklets.json"))
    args = parser.parse_args()
    if args.short:
        args.epochs, args.iters = 6, 25
    gaps = {"camera_gap": args.camera_gap, "light_gap": args.light_gap}
    make_tracklets(args.image_root, num_test_ids=0, **gaps)
    frames = Frames.read(args.image_root, HEIGHT)
    results: dict[str, list[dict]] = {}
    for seed in range(1, args.seeds + 1):
        for method in args.methods:
            for row in args.rows:
                run = train(frames, row, method, seed, args.epochs, args.iters, args.network)
                results.setdefault(f"{method}: {row}", []).append(run)
                print(seed, method, row, {key: round(value, 3) for key, value in run.items()})
                sys.stdout.flush()
                args.out.parent.mkdir(parents=True, exist_ok=True)
                args.out.write_text(json.dumps(results, indent=1))
    lines = []
    for name, runs in results.items():
        values = {key: [run[key] for run in runs] for key in runs[0]}
        lines.append(
            {
                "labels": name,
                "mAP": f"{np.mean(values['mAP']):.3f} ± {np.std(values['mAP']):.3f}",
                "pair F1": f"{np.mean(values['F1']):.2f}",
                "clusters": f"{np.mean(values['clusters']):.0f}",
                "labeling, s an epoch": f"{np.mean(values['labeling']):.2f}",
            }
        )
    print(table(lines))


if __name__ == "__main__":
    main()
