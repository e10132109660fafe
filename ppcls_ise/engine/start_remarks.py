# SPDX-License-Identifier: Apache-2.0
"""What is said of images and time before the first step of a run."""

import paddle.distributed as dist

from ppcls_ise import compat
from ppcls_ise.config.clustering import ClusteringOptions
from ppcls_ise.data import ReIDDataset
from ppcls_ise.engine.callback import Callback, TrainingEngine
from ppcls_ise.engine.odd_crops import describe, look_at
from ppcls_ise.engine.run_time import hours_left, in_words, is_long
from ppcls_ise.errors import shown
from ppcls_ise.utils.progress import progress_bar

ODD_IMAGES = "odd_images.txt"
_MOSTLY = 0.5


class StartRemarks(Callback):
    """Once, by process 0: looks at the images and, on a processor, estimates the time.

    Args:
        options: of the clustering.
    """

    def __init__(self, options: ClusteringOptions) -> None:
        self._options = options
        self._said = False

    def on_epoch_begin(self, engine: TrainingEngine, epoch: int) -> bool:
        if not self._said and dist.get_rank() == 0:
            view = engine.train_dataset.view(self._options.transform_ops)
            if epoch == 1:
                look_at_images(engine, view)
            if engine.config["Global"]["device"] == "cpu":
                say_hours(engine, view, self._options.interval, epoch)
        self._said = True
        return True


def look_at_images(engine: TrainingEngine, view: ReIDDataset) -> None:
    """Warn of images that look like no crops of people, and list them in the run's folder."""
    image_shape = view.blank().shape
    with progress_bar("looking at the images", "image") as progress:
        look = look_at(view.images, image_shape, progress)
    _, height, width = image_shape
    if look.exchanged(image_shape):
        compat.logger().warning(
            f"the images are taller than wide, but the network gets them {height} high and "
            f"{width} wide: are height and width of Global.image_shape exchanged? It is "
            "[3, height, width], and ResizeImage.size [width, height]"
        )
        return
    if not look.oddities:
        return
    lines = [f"{kind}\t{shown(view.images[row])}" for row, kind in look.oddities.items()]
    text = (
        f"{describe(look, len(view))}. They are used like all others; take them out if they are "
        f"none. All of them: {engine.write_list(ODD_IMAGES, lines)}"
    )
    if look.share_of_odd_shapes > _MOSTLY:
        line = "!" * 80
        text = (
            f"\n{line}\nMOST IMAGES ARE NO CROPS OF PEOPLE by their shape (the network wants "
            f"{width} x {height}, width x height).\nTraining learns nothing of people from whole "
            "frames: cut every person out with a detector or tracker\nfirst, and point "
            f"Global.image_root to the folder of crops.\n{text}\n{line}"
        )
    compat.logger().warning(text)


def say_hours(engine: TrainingEngine, view: ReIDDataset, interval: int, epoch: int) -> None:
    """Log how long the run will take on this processor."""
    hours = hours_left(engine, view.blank().shape, view, interval, epoch)
    sampler = engine.train_sampler
    text = (
        f"about {in_words(hours)} on this processor ({engine.epochs - epoch + 1} epochs of "
        f"{len(sampler)} steps of {sampler.batch_size} images; measured on a few images)"
    )
    if is_long(hours):
        compat.logger().warning(
            f"THIS RUN WILL TAKE {text}. `-c ISE_folder_cpu` is made for processors; or train on a "
            "card (Global.device=gpu), or lower Global.epochs, DataLoader.Train.sampler.iters or "
            "the size of the network"
        )
    else:
        compat.logger().info(f"this run will take {text}")
