# SPDX-License-Identifier: Apache-2.0
"""``synthetic``: Generate a data set of drawn pedestrians in the layout of Market-1501."""

import argparse

from ppcls_ise.synthetic import Parameters, make_synthetic
from ppcls_ise.utils.progress import progress_bar


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="folder to create")
    for name, help_text in (
        ("seed", "same seed, same images"),
        ("num_train_ids", "identities in bounding_box_train"),
        ("num_test_ids", "identities in query and bounding_box_test"),
        ("images_per_id", "images of each identity, over all cameras"),
        ("num_cameras", "cameras, 2 to 9"),
        ("height", "height of the crops in pixels"),
        ("width", "width of the crops in pixels"),
        ("camera_gap", "how far light, color and scenes of the cameras are apart, 0 to 5"),
        ("distractor_share", "distractors, relative to the gallery"),
        ("junk_share", "junk images, relative to the gallery"),
    ):
        default = getattr(Parameters, name)
        flag = "--" + name.replace("_", "-")
        text = f"{help_text} (default: {default})"
        parser.add_argument(flag, type=type(default), default=default, help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace a generated data set")


def command(args: argparse.Namespace) -> str:
    options = vars(args)
    with progress_bar("drawing people", "image") as progress:
        counts = make_synthetic(options.pop("out"), **options, progress=progress)
    state = "already there" if counts.reused else "written"
    return (
        f"{counts.total} images {state}: {counts.train} train, {counts.query} query, "
        f"{counts.gallery} gallery ({counts.distractors} distractors, {counts.junk} junk)"
    )
