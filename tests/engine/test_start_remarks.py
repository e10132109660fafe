# SPDX-License-Identifier: Apache-2.0
"""Before the first step: crops that are no people, the time on a processor, the warm-up."""

import os
import signal

import numpy as np
import paddle
import pytest
from paddle import nn
from PIL import Image, ImageFilter

import ppcls_ise
from ppcls_ise import compat
from ppcls_ise.backbones import PlainConvNet
from ppcls_ise.data.images import image_size, read_image
from ppcls_ise.engine import odd_crops, run_time, start_remarks
from ppcls_ise.engine.odd_crops import far_rows, look_at, odd_size
from ppcls_ise.engine.run_time import in_words, is_long, multiply_adds
from ppcls_ise.engine.warm_up import _weight_of_batches, batches_within
from ppcls_ise.layers import GroupedBatchNorm
from tests.conftest import lite_overrides
from tests.engine.test_engine import FOLDER, SMALL_NET, crops, engine_of, log_of, train


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


def save(path, height, width, *, blur=0.0, seed=0, **options):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3))
    pixels = np.kron(noise, np.ones((16, 16, 1)))[:height, :width].astype(np.uint8)
    image = Image.fromarray(pixels)
    if blur:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    image.save(path, **options)
    return str(path)


# -- images -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "shape", "expected"),
    [
        ((128, 64), (256, 128), ""),
        ((300, 90), (256, 128), ""),
        ((130, 128), (256, 128), ""),
        ((1080, 1920), (256, 128), odd_crops.FRAME),
        ((1920, 1080), (256, 128), odd_crops.FRAME),
        ((500, 900), (256, 128), odd_crops.FRAME),
        ((100, 160), (256, 128), odd_crops.WIDE),
        ((100, 160), (224, 224), ""),  # vehicles lie
        ((700, 100), (256, 128), odd_crops.NARROW),
        ((40, 20), (256, 128), odd_crops.SMALL),
        ((40, 20), (96, 48), ""),
        ((60, 12), (256, 128), odd_crops.SMALL),
    ],
)
def test_sizes(size, shape, expected):
    assert odd_size(*size, (3, *shape)) == expected


def test_images_that_are_no_people_are_counted(tmp_path):
    paths = [save(tmp_path / f"{i:02d}.png", 128, 64, seed=i) for i in range(6)]
    paths.append(save(tmp_path / "06.png", 128, 64, blur=4))
    paths.append(save(tmp_path / "07.png", 720, 1280))
    paths.append(save(tmp_path / "08.png", 60, 90))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned: it stands
    paths.append(save(tmp_path / "09.jpg", 64, 128, exif=exif))
    (tmp_path / "10.png").write_bytes(b"no image")
    paths.append(str(tmp_path / "10.png"))
    Image.new("RGB", (64, 128), (9, 9, 9)).save(tmp_path / "11.png")
    paths.append(str(tmp_path / "11.png"))
    assert image_size(paths[9]) == read_image(paths[9]).shape[:2] == (128, 64)
    seen = []
    look = look_at(paths, (3, 128, 64), lambda done, total: seen.append((done, total)))
    assert look.oddities == {
        6: odd_crops.BLURRED,
        7: odd_crops.FRAME,
        8: odd_crops.WIDE,
        11: odd_crops.EVEN,
    }
    assert look.sizes[10].tolist() == [0, 0] and seen[-1] == (9, 9)
    assert look.share_of_odd_shapes == pytest.approx(2 / 11)
    assert not look.exchanged((3, 128, 64)) and look.exchanged((3, 64, 128))


def test_of_many_images_a_part_is_looked_at(tmp_path, monkeypatch):
    paths = [save(tmp_path / f"{i:02d}.png", 20, 40) for i in range(9)]
    monkeypatch.setattr(odd_crops, "_MOST_HEADERS", 5)
    look = look_at(paths, (3, 128, 64))
    assert look.rows.tolist() == [0, 2, 4, 6, 8] and len(look.oddities) == 5
    assert "5 of 5 images that were looked at (9 in all)" in odd_crops.describe(look, 9)


def test_people_of_the_generator_are_people(lite_set):
    paths = sorted(str(path) for path in (lite_set / "bounding_box_train").glob("*.jpg"))
    assert look_at(paths, (3, 96, 48)).oddities == {}


def test_features_far_from_all_others():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((60, 16)) + 3.0
    values[[7, 41]] = -values[[7, 41]] * rng.uniform(0.5, 2.0, (2, 16))
    values = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    assert far_rows(values).tolist() == [7, 41]
    assert far_rows(values[8:40]).tolist() == []
    assert far_rows(values[:10]).tolist() == []
    assert far_rows(np.ones((30, 4), np.float32) / 2).tolist() == []  # copies of one image


def test_whole_frames_are_said_loudly_before_training(tmp_path):
    root = tmp_path / "frames"
    root.mkdir()
    for i in range(8):
        save(root / f"{i}.png", 120, 200, seed=i)
    small = [*lite_overrides(root, tmp_path / "run", Global__epochs=1), *SMALL_NET]
    train(small, config=FOLDER)
    log = log_of(tmp_path / "run")
    assert "MOST IMAGES ARE NO CROPS OF PEOPLE" in log and "8 wider than tall" in log
    assert log.index("MOST IMAGES") < log.index("warming the batch-norm")
    listed = (tmp_path / "run" / "RecModel" / "odd_images.txt").read_text().splitlines()
    assert len(listed) == 8 and listed[0].startswith("wider than tall\t")
    assert "this run will take about " in log


def test_exchanged_height_and_width_are_noticed_by_the_images(tmp_path):
    root = crops(tmp_path / "crops", 12)
    small = [*lite_overrides(root, tmp_path / "run", Global__epochs=1), *SMALL_NET]
    small = [value.replace("[16,32]", "[32,16]") for value in small]
    train(small, config=FOLDER)
    log = log_of(tmp_path / "run")
    assert "16 high and 32 wide: are height and width of Global.image_shape exchanged?" in log
    assert "MOST IMAGES" not in log


# -- time -------------------------------------------------------------------------------------


def test_multiplications_by_hand():
    network = PlainConvNet([4, 8])
    assert multiply_adds(network, [3, 16, 8]) == 3 * 4 * 9 * 8 * 4 + 4 * 8 * 9 * 4 * 2
    grouped = nn.Sequential(nn.Conv2D(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(6, 5))
    assert multiply_adds(grouped, [4, 3, 3]) == (4 // 2) * 6 * 9 + 6 * 5


def test_measuring_changes_nothing():
    network = nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4))
    network.train()
    network[1].eval()
    before = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    assert run_time.seconds_per_image(network, [3, 8, 8], 4) > 0
    after = network.state_dict()
    assert all((after[name].numpy() == value).all() for name, value in before.items())
    assert network[0].training and not network[1].training


@pytest.mark.parametrize(
    ("hours", "words"),
    [(0.001, "1 minute"), (0.5, "30 minutes"), (1.4, "84 minutes"), (5, "5 hours"), (60, "2 days")],
)
def test_hours_in_words(hours, words):
    assert in_words(hours) == words
    assert is_long(hours) == (hours > 12)


def test_a_run_of_days_says_so(tmp_path, monkeypatch):
    root = crops(tmp_path / "crops", 12)
    engine = engine_of([*lite_overrides(root, tmp_path / "run"), *SMALL_NET], config=FOLDER)
    monkeypatch.setattr(run_time, "seconds_per_image", lambda *args: 1000.0)
    view = engine.train_dataset.view(None)
    # 2 epochs of 3 steps of 16 images, each 3 passes, and 12 images once per epoch
    hours = run_time.hours_left(engine, [3, 32, 16], view, 1, 1)
    assert hours == pytest.approx(2 * (3 * 16 * 3 + 12) * 1000 / 3600, rel=1e-2)
    start_remarks.say_hours(engine, view, 1, 2)
    log = log_of(tmp_path / "run")
    assert "THIS RUN WILL TAKE about 43 hours on this processor (1 epochs of 3 steps" in log
    assert "ISE_folder_cpu" in log


# -- warm-up ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "work", "expected"),
    [(40, 1e9, 40), (40, 1e12, 5), (40, 1e13, 4), (2, 1e13, 2), (40, 0, 40)],
)
def test_large_networks_get_fewer_batches(wanted, work, expected):
    assert batches_within(wanted, work) == expected


@pytest.mark.parametrize("grouped", [False, True])
def test_one_batch_can_count_as_several(grouped):
    """The same batch once with the weight of three is that batch three times."""
    means = []
    for times, passes in ((1.0, 3), (3.0, 1)):
        layer = nn.BatchNorm2D(2)
        layer = GroupedBatchNorm(layer, 2) if grouped else layer
        network = nn.Sequential(layer)
        x = paddle.to_tensor(np.arange(64, dtype=np.float32).reshape(4, 2, 4, 2))
        with _weight_of_batches(network, times):
            for _ in range(passes):
                network(x)
        means.append(np.concatenate([layer._mean.numpy(), layer._variance.numpy()]))
        assert getattr(layer, "momentum" if grouped else "_momentum") == 0.9
    np.testing.assert_allclose(*means, rtol=1e-5)


def test_a_signal_ends_the_warm_up_at_once(lite_set, tmp_path):
    engine = engine_of(lite_overrides(lite_set, tmp_path))
    parts = []

    def forward(layer, inputs, output) -> None:
        parts.append(type(layer).__name__)
        if engine.plain_model.backbone.training and len(parts) > 10:
            os.kill(os.getpid(), signal.SIGINT)
            parts.append("alive")

    for layer in engine.plain_model.backbone.layers:
        layer.register_forward_post_hook(forward)
    compat.logger()
    with pytest.raises(SystemExit) as ended:
        engine.train()
    assert ended.value.code == 130
    assert "alive" not in parts  # in the middle of a batch
