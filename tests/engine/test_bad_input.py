# SPDX-License-Identifier: Apache-2.0
"""Input that a run meets and has to name: files that change, odd names, senseless features."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

import ppcls_ise
from ppcls_ise import compat
from ppcls_ise.data import MarketStyleDataset, UnlabeledFolder
from ppcls_ise.data.file_stamps import copies
from ppcls_ise.engine import Callback
from ppcls_ise.errors import ConfigError, DataError, WeightsError
from ppcls_ise.utils.files import require_writable
from tests.conftest import lite_overrides, without_rights
from tests.engine.test_engine import FOLDER, SMALL_NET, crops, engine_of, log_of, train


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


def small(root: Path, output: Path, *more: str) -> list[str]:
    return [*lite_overrides(root, output, Clustering__eps=0.9), *SMALL_NET, *more]


class Disturb(Callback):
    """Does something to the files after the first epoch."""

    def __init__(self, act) -> None:
        self.act = act

    def on_epoch_end(self, engine, epoch) -> None:
        if epoch == 1:
            self.act()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def replace_by_another(path: Path) -> None:
    status = path.stat()
    shutil.copy(path.with_name("crop 000.png"), path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


@pytest.mark.parametrize(
    ("act", "word"),
    [(Path.unlink, "removed"), (truncate, "changed"), (replace_by_another, "changed")],
)
def test_a_file_that_changes_between_epochs_ends_the_run(tmp_path, act, word):
    root = crops(tmp_path / "crops", 20)
    victim = root / "crop 007.png"
    engine = engine_of(small(root, tmp_path / "run"), config=FOLDER)
    engine.callbacks.append(Disturb(lambda: act(victim)))
    with pytest.raises(DataError, match=rf"1 of 20 images.*crop 007\.png was {word}"):
        engine.train()
    assert "[Epoch 1/2]" in log_of(tmp_path / "run")


def test_files_that_are_added_between_epochs_are_left_out_and_named(tmp_path):
    root = crops(tmp_path / "crops", 20)
    engine = engine_of(small(root, tmp_path / "run"), config=FOLDER)
    engine.callbacks.append(
        Disturb(lambda: shutil.copy(root / "crop 001.png", root / "new\none.png"))
    )
    engine.train()
    assert len(engine.train_dataset) == 20
    log = log_of(tmp_path / "run")
    assert "1 images were added" in log and "new\\none.png" in log


def test_evaluation_images_may_not_change_either(lite_set, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(lite_set, root)
    engine = engine_of(lite_overrides(root, tmp_path / "run"), mode="eval")
    engine.eval()
    victim = sorted((root / "query").iterdir())[1]
    victim.unlink()
    with pytest.raises(DataError, match=f"{victim.name} was removed"):
        engine.eval()


def test_a_listed_file_may_stay_missing_but_not_appear(tmp_path):
    class Listed(MarketStyleDataset):
        def find_records(self):
            return [self.record(str(tmp_path / "0001_c1.png"), 1, 1)]

    dataset = Listed(str(tmp_path))
    dataset.require_unchanged()
    Image.new("RGB", (2, 4)).save(tmp_path / "0001_c1.png")
    with pytest.raises(DataError, match=r"0001_c1\.png was added"):
        dataset.require_unchanged()


def test_names_that_are_no_text_and_broken_images_among_them(tmp_path):
    """Every image takes part or is listed, one line each."""
    root = crops(tmp_path / "crops", 12)
    names = ["Jürgen 人.png", "line\nbreak.png", "\udcff.png", "\x1b[31m.png"]
    for name in names:
        shutil.copy(root / "crop 001.png", root / name)
    (root / "bad\nname \udcfe.png").write_bytes(b"")
    (root / "loop.png").symlink_to(root / "loop.png")
    engine = train(small(root, tmp_path / "run"), config=FOLDER)
    assert len(engine.train_dataset) == 18
    listed = (tmp_path / "run" / "RecModel" / "quarantine.txt").read_text("utf-8").splitlines()
    assert listed == [f"{root}/bad\\nname \\udcfe.png", f"{root}/loop.png"]
    assert "bad\\nname \\udcfe.png" in log_of(tmp_path / "run")


def test_a_training_set_of_nothing_but_broken_images(tmp_path):
    root = crops(tmp_path / "crops", 3)
    for path in root.iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the training images.*crop 000\.png"):
        train(small(root, tmp_path / "run"), config=FOLDER)


def test_copies_are_named(tmp_path):
    root = crops(tmp_path / "crops", 12)
    shutil.copy(root / "crop 003.png", root / "a copy.png")
    train(small(root, tmp_path / "run", "Global.epochs=1"), config=FOLDER)
    assert "1 of 13 images are byte for byte copies of another one, which counts them twice: " in (
        log := log_of(tmp_path / "run")
    )
    assert f"{root}/crop 003.png = {root}/a copy.png" in log


def test_copies_are_found_by_content(tmp_path):
    contents = {"a": b"12", "b": b"21", "c": b"12", "d": b"", "e": b"", "f": b"12", "g": b"123"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in [*contents, "missing"]]
    found = {Path(a).name: Path(b).name for a, b in copies(paths).items()}
    assert found == {"c": "a", "f": "a", "e": "d"}


def test_lists_longer_than_the_data_set_are_named(tmp_path):
    root = crops(tmp_path / "crops", 12)
    train(small(root, tmp_path / "run", "Clustering.k1=13", "Clustering.k2=12"), config=FOLDER)
    log = log_of(tmp_path / "run")
    assert log.count("Clustering.k1 is 13, but there are only 12 images") == 1
    assert "Clustering.k2 is" not in log


def test_features_that_are_all_equal_are_said(tmp_path):
    root = crops(tmp_path / "crops", 12)
    engine = engine_of(
        small(root, tmp_path / "run", "Global.epochs=1", "Clustering.warm_up_batches=0"),
        config=FOLDER,
    )
    for value in engine.plain_model.backbone.parameters():
        value.set_value(paddle.zeros_like(value))
    engine.train()
    assert "all 12 images have the same feature" in log_of(tmp_path / "run")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_end_the_run_with_the_image(tmp_path, value):
    root = crops(tmp_path / "crops", 12)
    overrides = small(root, tmp_path / "run", "Clustering.warm_up_batches=0")
    engine = engine_of(overrides, config=FOLDER)
    weight = engine.plain_model.neck.feat_bn.weight  # before it, ReLU would make 0 of NaN
    weight.set_value(paddle.full_like(weight, value))
    with pytest.raises(DataError, match=r"12 of 12 features are not finite.*crop 000\.png"):
        engine.train()


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_an_output_folder_that_cannot_be_made(lite_set, tmp_path, mode):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(ConfigError, match="Global.output_dir: nothing can be written") as error:
            engine_of(lite_overrides(lite_set, output), mode=mode)
        assert str(output) in str(error.value)


def test_an_output_folder_that_may_not_be_written():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        if os.geteuid():
            os.chmod(folder, 0o555)
        with without_rights(), pytest.raises(ConfigError, match="Permission denied"):
            require_writable(Path(folder) / "run", "Global.output_dir")
        os.chmod(folder, 0o755)


def test_a_folder_that_may_not_be_listed():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        crops(Path(folder) / "inner", 2)
        os.chmod(Path(folder) / "inner", 0)
        with without_rights(), pytest.raises(DataError, match=r"cannot list .*inner: Permission"):
            UnlabeledFolder(folder)


def test_paddleclas_unpickles_nothing(tmp_path):
    """Its own loaders refuse a file that asks for code, and never run it."""
    victim = tmp_path / "victim"
    command = f"c__builtin__\nopen\n(V{victim}\nVw\ntR.".encode()
    for suffix in ("pdparams", "pdopt", "pdstates"):
        (tmp_path / f"bad.{suffix}").write_bytes(b"\x80\x02" + command)
    save_load = compat.load("ppcls.utils.save_load")
    layer = paddle.nn.Linear(2, 2)
    with pytest.raises(WeightsError, match="bad"):
        save_load.load_dygraph_pretrain(layer, str(tmp_path / "bad"))
    with pytest.raises(WeightsError, match="bad"):
        options = {"checkpoints": str(tmp_path / "bad")}
        save_load.init_model(options, layer, [paddle.optimizer.SGD(parameters=[])], layer)
    assert not victim.exists()
    paddle.save(layer.state_dict(), str(tmp_path / "good.pdparams"))
    other = paddle.nn.Linear(2, 2)
    save_load.load_dygraph_pretrain(other, str(tmp_path / "good"))
    np.testing.assert_array_equal(other.weight.numpy(), layer.weight.numpy())
