# SPDX-License-Identifier: Apache-2.0
"""``synthetic``: Generate a data set of drawn pedestrians in the layout of Market-1501, or
(--tracklets) tracklets in the layout of MARS."""

import argparse
from typing import Any

from ppcls_ise.errors import ConfigError
from ppcls_ise.synthetic import Parameters, TrackletParameters, make_synthetic, make_tracklets
from ppcls_ise.utils.progress import progress_bar

_OPTIONS = {
    "seed": "same seed, same images",
    "num_train_ids": "identities for training",
    "num_test_ids": "identities for the test",
    "num_cameras": "cameras, 2 to 9",
    "height": "height of the crops in pixels",
    "width": "width of the crops in pixels",
    "camera_gap": "how far light, color and scenes of the cameras are apart, 0 to 5",
    "images_per_id": "images of each identity, over all cameras",
    "distractor_share": "distractors, relative to the gallery",
    "junk_share": "junk images, relative to the gallery",
    "mean_length": "frames of a tracklet, 2 to 60",
    "light_gap": "how far the light of two tracklets is apart, 0 to 5",
    "look_alikes": "share of people in the clothes of somebody else",
    "slips": "share of training tracklets in which the tracker slips to another person",
    "occlusion": "share of tracklets in which something comes between",
    "crossing": "share of tracklets in which somebody else walks through",
    "repeated": "share of frames that repeat the one before",
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="folder to create")
    parser.add_argument(
        "--tracklets", action="store_true", help="tracklets in the layout of MARS, not images"
    )
    for name, help_text in _OPTIONS.items():
        defaults = [getattr(kind, name, None) for kind in (Parameters, TrackletParameters)]
        known = [value for value in defaults if value is not None]
        note = (
            f"default: {', with --tracklets '.join(str(value) for value in dict.fromkeys(known))}"
        )
        if len(known) == 1:
            note += f", {'with' if defaults[0] is None else 'without'} --tracklets only"
        kind = type(known[0])
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=f"{help_text} ({note})")
    parser.add_argument("--overwrite", action="store_true", help="replace a generated data set")


def command(args: argparse.Namespace) -> str:
    given = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    kind = TrackletParameters if args.tracklets else Parameters
    if foreign := [name for name in given if not hasattr(kind, name)]:
        raise ConfigError(
            f"--{foreign[0].replace('_', '-')} is an option "
            f"{'without' if args.tracklets else 'of'} --tracklets"
        )
    with progress_bar("drawing people", "image") as progress:
        more = {"overwrite": args.overwrite, "progress": progress}
        report = _tracklets if args.tracklets else _images
        return report(args.out, given, more)


def _images(out: str, given: dict[str, Any], more: dict[str, Any]) -> str:
    made = make_synthetic(out, **given, **more)
    return (
        f"{made.total} images {_state(made.reused)}: {made.train} train, {made.query} query, "
        f"{made.gallery} gallery ({made.distractors} distractors, {made.junk} junk)"
    )


def _tracklets(out: str, given: dict[str, Any], more: dict[str, Any]) -> str:
    made = make_tracklets(out, **given, **more)
    return (
        f"{made.total} images {_state(made.reused)}: {made.train} in {made.train_tracklets} "
        f"tracklets for training ({made.slips} of them mix people), {made.test} in "
        f"{made.test_tracklets} for the test"
    )


def _state(reused: bool) -> str:
    return "already there" if reused else "written"
