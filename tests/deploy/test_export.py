# SPDX-License-Identifier: Apache-2.0
"""Checkpoint, exported model and inference give the same features; nothing else is exported."""

import csv
import importlib.util
import os
import re
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from PIL import Image

import ppcls_ise
from ppcls_ise.errors import ConfigError, DataError, ExportError, WeightsError
from ppcls_ise.inference.preprocessing import Preprocessing
from ppcls_ise.metrics import evaluate_rank
from tests.conftest import REPOSITORY, SYNTHETIC, options, run_tool

ONNX = all(importlib.util.find_spec(name) for name in ("paddle2onnx", "onnxruntime"))


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


def config_of(overrides, config=SYNTHETIC):
    from ppcls_ise.config.overrides import get_config

    return get_config(str(config), overrides)


def export(overrides, folder, *, config=SYNTHETIC, **flags):
    from ppcls_ise.deploy.export import export_model

    overrides = [*overrides, f"Global.save_inference_dir={folder}"]
    return export_model(config_of(overrides, str(config)), **flags)


@pytest.fixture(scope="module")
def evaluated(lite_checkpoint):
    """Both sides as an evaluation of the checkpoint sees them, and its result."""
    from ppcls_ise.engine.engine import UnsupervisedEngine

    engine = UnsupervisedEngine(config_of(lite_checkpoint), mode="eval")
    sides = engine.query_and_gallery()
    engine.eval()
    datasets = engine.query_dataloader.dataset, engine.gallery_dataloader.dataset
    return sides, [dataset.images for dataset in datasets], engine.last_result


@pytest.mark.slow
def test_from_checkpoint_to_map_by_the_tools(lite_checkpoint, evaluated, lite_set, tmp_path):
    """export_model.py and infer.py with PaddleClas's arguments, from another folder."""
    from ppcls_ise.cli.infer import command as infer

    overrides = [*lite_checkpoint, f"Global.save_inference_dir={tmp_path}/model"]
    done = run_tool("export_model", "-c", str(SYNTHETIC), *options(overrides))
    assert done.returncode == 0, done.stdout
    difference = re.search(r"max \|difference\| (\S+), min cosine (\S+)", done.stdout)
    assert float(difference[1]) < 1e-4 and float(difference[2]) > 0.9999
    assert f"16 crops of {lite_set}/query" in done.stdout
    found = []
    for side in ("query", "bounding_box_test"):
        names = {
            "use_gpu": False,
            "enable_mkldnn": side == "query",
            "cpu_num_threads": 1,
            "inference_model_dir": tmp_path / "model",
            "batch_size": 7,
            "infer_imgs": lite_set / side,
            "enable_benchmark": True,
        }
        arguments = options([f"Global.{name}={value}" for name, value in names.items()])
        arguments += ["--out", str(tmp_path / f"{side}.npz")]
        if side == "query":
            done = run_tool("infer", *arguments)
            assert done.returncode == 0 and "images/s" in done.stdout, done.stdout
        else:
            infer(infer_args(*arguments))
        found.append(dict(np.load(tmp_path / f"{side}.npz", allow_pickle=False)))
    sides, images, result = evaluated
    for side, paths, content in zip(sides, images, found, strict=True):
        # junk is no part of the evaluation's gallery
        rows = [content["paths"].tolist().index(path) for path in paths]
        assert content["paths"].tolist() == sorted(content["paths"].tolist())
        assert content["features"].dtype == np.float32
        np.testing.assert_allclose(content["features"][rows], side[0], atol=1e-4)
        content["features"] = content["features"][rows]
    ranks = evaluate_rank(
        found[0]["features"], found[1]["features"], *sides_of(sides, 1), *sides_of(sides, 2)
    )
    assert round(ranks.mAP, 4) == round(result.mAP, 4)
    assert ranks.cmc[0] == result.ranks.cmc[0]


def sides_of(sides, column):
    return sides[0][column], sides[1][column]


def test_the_exported_folder_says_everything(lite_model):
    content = yaml.safe_load((lite_model / "inference.yml").read_text())
    assert content["Global"]["image_shape"] == [3, 96, 48]  # channels, height, width
    names = [name for op in content["RecPreProcess"]["transform_ops"] for name in op]
    assert names == ["ResizeImage", "NormalizeImage", "ToCHWImage"]
    assert content["Feature"] == {"dimension": 128, "normalized": True}
    assert set(content["Versions"]) == {"ppcls_ise", "paddlepaddle", "paddleclas"}
    assert "inference.pdiparams" in content["Model"]["files"]
    assert str(REPOSITORY) not in (lite_model / "inference.yml").read_text()


def test_extractor_takes_paths_arrays_and_checkpoints(lite_model, lite_checkpoint, evaluated):
    (query, _), (paths, _), _ = evaluated
    extractor = ppcls_ise.Extractor(lite_model, batch_size=5)
    features = extractor(paths[:12])
    np.testing.assert_allclose(features, query[0][:12], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    arrays = [np.array(Image.open(path).convert("RGB")) for path in paths[:12]]
    np.testing.assert_array_equal(extractor(arrays), features)
    np.testing.assert_allclose(extractor(arrays[3]), features[3:4], atol=1e-6)
    np.testing.assert_allclose(extractor(paths[3]), features[3:4], atol=1e-6)
    assert extractor([]).shape == (0, 128) == (0, extractor.dimension)
    *overrides, weights = lite_checkpoint
    weights = weights.partition("=")[2]
    direct = ppcls_ise.Extractor(weights, config=SYNTHETIC, overrides=overrides)
    assert direct.fingerprint == extractor.fingerprint
    np.testing.assert_allclose(direct(paths[:12]), features, atol=1e-6)
    for wrong in (arrays[0].astype(np.float32), arrays[0][..., :1], arrays[0][0]):
        with pytest.raises(DataError, match="uint8 array"):
            extractor([wrong])


def test_other_weights_have_another_fingerprint(lite_checkpoint, lite_model, tmp_path):
    overrides = [o for o in lite_checkpoint if "pretrained" not in o]
    report = export(overrides, tmp_path, allow_random_weights=True)
    assert "written to" in report[-1]
    first, second = ppcls_ise.Extractor(lite_model), ppcls_ise.Extractor(tmp_path)
    assert first.fingerprint != second.fingerprint


def test_without_weights_nothing_is_exported(lite_checkpoint, tmp_path):
    overrides = [o for o in lite_checkpoint if "pretrained" not in o]
    with pytest.raises(WeightsError, match="--allow-random-weights"):
        export(overrides, tmp_path)
    # ImageNet weights of the backbone alone are no re-identification model
    with pytest.raises(WeightsError, match="Global.pretrained_model"):
        export([*overrides, "Arch.Backbone.pretrained=True"], tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(WeightsError, match="no weight file"):
        export([*overrides, "Global.pretrained_model=nowhere"], tmp_path)
    with pytest.raises(ConfigError, match="Global.save_inference_dir"):
        export([*lite_checkpoint], "")


def test_features_as_the_neck_gives_them(lite_checkpoint, lite_model, lite_set, tmp_path):
    export(lite_checkpoint, tmp_path, normalize=False)
    paths = sorted((lite_set / "query").iterdir())[:4]
    raw = ppcls_ise.Extractor(tmp_path)
    unit = ppcls_ise.Extractor(lite_model)
    assert (raw.normalized, unit.normalized) == (False, True)
    values = raw(paths)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    assert (abs(norms - 1) > 0.1).all()
    np.testing.assert_allclose(values / norms, unit(paths), atol=1e-5)


def test_a_transposed_image_shape_is_put_right(lite_checkpoint, tmp_path, caplog):
    apart = tmp_path / "apart.yaml"  # an override would act on the transforms too
    written = "image_shape: [3, &height 96, &width 48]"
    text = SYNTHETIC.read_text().replace("Global:\n", "Global:\n  image_shape: [3, 48, 96]\n")
    assert written in text
    text = text.replace(f"  {written}\n", "").replace("[*width, *height]", "[48, 96]")
    apart.write_text(text)
    export(lite_checkpoint, tmp_path, config=apart)
    assert "[3, 48, 96]" in caplog.text and "[3, 96, 48]" in caplog.text
    content = yaml.safe_load((tmp_path / "inference.yml").read_text())
    assert content["Global"]["image_shape"] == [3, 96, 48]


def test_random_pixels_where_there_is_no_data_set(lite_checkpoint, tmp_path):
    report = export([*lite_checkpoint, "Global.image_root=nowhere"], tmp_path)
    assert "crops of random pixels" in report[0]


def test_another_feature_is_an_error(lite_checkpoint, tmp_path, monkeypatch):
    """An export that is wrong by a little leaves nothing, or the one before."""
    from ppcls_ise.deploy import export as module

    class Wrong(module.StaticModel):
        def __call__(self, images):
            return super().__call__(images) + np.float32(2e-3)

    export(lite_checkpoint, tmp_path / "before")
    monkeypatch.setattr(module, "StaticModel", Wrong)
    with pytest.raises(WeightsError, match="other features than the checkpoint"):
        export(lite_checkpoint, tmp_path / "new")
    with pytest.raises(ConfigError, match="no exported model"):
        ppcls_ise.Extractor(tmp_path / "new")
    with pytest.raises(WeightsError, match="other features than the checkpoint"):
        export(lite_checkpoint, tmp_path / "before")
    ppcls_ise.Extractor(tmp_path / "before")


def test_torn_and_mixed_exports_are_refused(lite_model, tmp_path):
    for name in ("inference.pdiparams", "program"):
        folder = tmp_path / name
        shutil.copytree(lite_model, folder)
        victim = folder / name
        if name == "program":
            (victim,) = [p for s in ("json", "pdmodel") for p in folder.glob(f"*.{s}")]
        victim.write_bytes(victim.read_bytes()[:-9])
        with pytest.raises(WeightsError, match="damaged or of another export"):
            ppcls_ise.Extractor(folder)
        victim.unlink()
        with pytest.raises(WeightsError, match="missing"):
            ppcls_ise.Extractor(folder)
    folder = tmp_path / "mixed"
    shutil.copytree(lite_model, folder)
    (folder / ("inference.json" if paddle.__version__[0] == "2" else "inference.pdmodel")).touch()
    with pytest.raises(WeightsError, match="does not know"):
        ppcls_ise.Extractor(folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bicubic", "__import__('os').mkdir('ran')"),
        ("NormalizeImage:", "DoesNotExist:"),
        ("ResizeImage:", "transform:"),
        ("size: [48, 96]", "size: [96, 48]"),
        ("size: [48, 96]", "resize_short: 96"),
        ("interpolation", "interpolations"),
        ("0.485", "0.486"),
        ("0.485", ".nan"),
        ("0.229", "0.0"),
        ("dimension: 128", "dimension: many"),
        ("RecPreProcess:", "Other:"),
        ("inference.pdiparams:", "../inference.pdiparams:"),
        ("Versions:", "Versions: ["),
        ("image_shape", "!!python/object/apply:os.mkdir [ran]\n  image_shape"),
    ],
)
def test_a_tampered_description_is_refused_and_runs_nothing(
    lite_model, tmp_path, monkeypatch, old, new
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    shutil.copytree(lite_model, folder)
    text = (folder / "inference.yml").read_text()
    assert old in text
    (folder / "inference.yml").write_text(text.replace(old, new))
    with pytest.raises((ConfigError, WeightsError)):
        ppcls_ise.Extractor(folder)
    assert not (tmp_path / "ran").exists()


def test_the_folder_alone_is_enough_for_paddleclas(lite_model):
    """Every key that PaddleClas's predictor asks for without a default is in inference.yml."""
    described = yaml.safe_load((lite_model / "inference.yml").read_text())
    places = importlib.util.find_spec("paddleclas").submodule_search_locations
    source = (Path(places[0]) / "deploy" / "utils" / "predictor.py").read_text()
    asked = set(re.findall(r"args\.(\w+)", source)) - {"get", "inference_model_dir"}
    assert asked and asked <= described["Global"].keys()
    assert {"rec_inference_model_dir", "infer_imgs"} <= described["Global"].keys()


@pytest.mark.parametrize(
    ("op", "words"),
    [
        (
            {"NormalizeImage": {"mean": [float("nan")] * 3, "std": [1.0] * 3, "order": ""}},
            "nan",
        ),
        (
            {"NormalizeImage": {"mean": [0.0] * 3, "std": [1.0] * 3, "scale": 0.0, "order": ""}},
            "every image",
        ),
    ],
)
def test_one_feature_for_all_images_is_refused(op, words):
    ops = [{"ResizeImage": {"size": [8, 16]}}, op]
    with pytest.raises(ConfigError, match=words):
        Preprocessing(ops)


def test_random_transforms_are_no_evaluation(lite_checkpoint, tmp_path):
    place = "DataLoader.Eval.Query.dataset.transform_ops.1"
    for op in ("{'RandFlipImage': {'flip_code': 1}}", "{'RandomPadCrop': {'padding': 2}}"):
        with pytest.raises(ConfigError, match="draw at random"):
            export([*lite_checkpoint, f"{place}={op}"], tmp_path)


def test_unreadable_images_are_named_never_silent(lite_model, lite_set, tmp_path, caplog):
    from ppcls_ise.deploy.feature_files import extract_files

    folder = tmp_path / "images"
    shutil.copytree(lite_set / "query", folder)
    paths = sorted(map(str, folder.iterdir()))
    for index in (2, len(paths) - 1):
        (folder / paths[index]).write_bytes(b"broken")
    extractor = ppcls_ise.Extractor(lite_model, batch_size=4)
    with pytest.raises(DataError) as failure:
        extract_files(extractor, paths)
    assert paths[2] in str(failure.value) and "--skip-unreadable" in str(failure.value)
    features, kept = extract_files(extractor, paths, skip_unreadable=True)
    assert kept == [path for i, path in enumerate(paths) if i not in (2, len(paths) - 1)]
    np.testing.assert_allclose(features, extractor(kept), atol=1e-6)
    assert paths[2] in caplog.text and f"2 of {len(paths)} images were left out" in caplog.text
    with pytest.raises(DataError, match="none of 1 images"):
        extract_files(extractor, [paths[2]], skip_unreadable=True)


def infer_args(*arguments):
    import argparse

    from ppcls_ise.cli.infer import configure

    parser = argparse.ArgumentParser()
    configure(parser)
    return parser.parse_args([str(argument) for argument in arguments])


def test_a_list_of_paths_as_csv(lite_model, lite_set, tmp_path, monkeypatch):
    from ppcls_ise.cli.infer import command as infer

    monkeypatch.chdir(lite_set)
    names = sorted(f"query/{path.name}" for path in (lite_set / "query").iterdir())[:5]
    (tmp_path / "list.txt").write_text("\n".join([names[3], "", *names]) + "\r\n")
    out = tmp_path / "new" / "f.csv"
    infer(
        infer_args(
            "--model", lite_model, "--images", tmp_path / "list.txt", "--out", out, "--no-mkldnn"
        )
    )
    with out.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", *map(str, range(128))]
    assert [row[0] for row in rows] == names
    values = np.array([row[1:] for row in rows], dtype=np.float32)
    np.testing.assert_allclose(values, ppcls_ise.Extractor(lite_model)(names), atol=1e-6)


def test_saved_features_come_back(tmp_path):
    from ppcls_ise.deploy.feature_files import load_features, save_features

    features = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    paths = ["a,b.jpg", 'q"\n.jpg', "\udcff.jpg"]
    save_features(tmp_path / "f.npz", features, paths, model="abc")
    values, names, model, *_ = load_features(tmp_path / "f.npz")
    np.testing.assert_array_equal(values, features)
    assert (names, model) == (paths, "abc")
    save_features(tmp_path / "f.csv", features, paths, model="abc")
    with (tmp_path / "f.csv").open(newline="", errors="surrogateescape") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[0] for row in rows] == paths
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], np.float32), features)
    (tmp_path / "g.npz").write_bytes((tmp_path / "f.npz").read_bytes()[:200])
    np.savez(tmp_path / "h.npz", features=np.array([{}], object), paths=paths, model="")
    for name in ("g.npz", "h.npz"):
        with pytest.raises(DataError, match="no .npz of ppcls-ise infer"):
            load_features(tmp_path / name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "Global.use_gpu=maybe"], "Global.use_gpu has to be a bool"),
        (["-o", "Global.batch_size=0"], "batch size"),
        (["-o", "Global.cpu_num_threads=0"], "threads have to be"),
        (["-o", "Global.cpu_threads=2"], "the keys are .*cpu_num_threads"),
        (["-o", "Arch.Neck.pooling=avg"], "without a config"),
        (["-o", "Global.use_fp16=True"], "fp16"),
        (["--tensorrt"], "TensorRT needs a GPU"),
        (["--out", "features.txt"], "--out has to end in .npz or .csv"),
        (["--model", "nowhere"], "nowhere is no folder of an exported model"),
    ],
)
def test_mistakes_on_the_command_line(lite_model, lite_set, arguments, words):
    from ppcls_ise.cli.infer import command as infer

    given = ["--model", lite_model, "--images", lite_set / "query", *arguments]
    with pytest.raises(ConfigError, match=words):
        infer(infer_args(*given))


def test_a_model_and_images_have_to_be_named(lite_model, lite_set):
    from ppcls_ise.cli.infer import command as infer

    with pytest.raises(ConfigError, match="name the images"):
        infer(infer_args("--model", lite_model))
    with pytest.raises(ConfigError, match="name the model"):
        infer(infer_args("--images", lite_set / "query"))
    with pytest.raises(DataError, match="there is no folder, image or list nowhere"):
        infer(infer_args("--model", lite_model, "--images", "nowhere"))


@pytest.mark.skipif(not ONNX, reason="paddle2onnx and onnxruntime (extra onnx) are not installed")
def test_onnx_gives_the_same_features(lite_checkpoint, lite_set, lite_model, tmp_path):
    from ppcls_ise.inference.onnx_model import OnnxModel

    report = export(lite_checkpoint, tmp_path, onnx=True)
    assert "the ONNX model against the checkpoint" in report[1]
    images = np.random.default_rng(0).standard_normal((3, 3, 96, 48)).astype(np.float32)
    network = OnnxModel(tmp_path / "inference.onnx")
    np.testing.assert_allclose(
        network(images), ppcls_ise.Extractor(tmp_path)._network(images), atol=1e-5
    )
    paths = sorted((lite_set / "query").iterdir())[:3]
    by_onnx = ppcls_ise.Extractor(tmp_path, use_onnx=True)(paths)
    np.testing.assert_allclose(by_onnx, ppcls_ise.Extractor(tmp_path)(paths), atol=1e-5)


def test_onnx_wants_a_file_a_folder_and_a_cpu(lite_model):
    with pytest.raises(ConfigError, match="onnx"):  # the package or the file
        ppcls_ise.Extractor(lite_model, use_onnx=True)
    for more in ({"config": SYNTHETIC}, {"device": "gpu"}):
        with pytest.raises(ConfigError, match="ONNX is for a CPU"):
            ppcls_ise.Extractor(lite_model, use_onnx=True, **more)


@pytest.mark.skipif(ONNX, reason="paddle2onnx is installed")
def test_onnx_names_the_extra(lite_checkpoint, tmp_path):
    with pytest.raises(ConfigError, match=r"ppcls_ise\[onnx\]"):
        export(lite_checkpoint, tmp_path, onnx=True)
    assert not list(tmp_path.iterdir())


# -- an export over an older one -------------------------------------------------------------------


def files_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("moment", ["save_static_model", "compare", "InferenceFile"])
def test_a_failed_export_leaves_the_one_before(
    lite_checkpoint, lite_model, tmp_path, monkeypatch, moment
):
    from ppcls_ise.deploy import export as module

    folder = tmp_path / "model"
    shutil.copytree(lite_model, folder)
    before = files_of(folder)

    def fail(*arguments, **options):
        raise KeyError(moment)

    monkeypatch.setattr(module, moment, fail)
    with pytest.raises(KeyError, match=moment):
        export(lite_checkpoint, folder)
    assert files_of(folder) == before
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []


def test_a_killed_export_leaves_the_one_before(lite_checkpoint, lite_model, tmp_path):
    from ppcls_ise.deploy import export as module

    folder = tmp_path / "model"
    shutil.copytree(lite_model, folder)
    (folder / "inference.onnx").write_text("of the export before")
    before = files_of(folder)
    child = os.fork()
    if not child:
        with module._replacing_model(folder) as scratch:
            (scratch / "inference.json").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert files_of(folder) == before
    export(lite_checkpoint, folder)
    assert set(files_of(folder)) == set(before) - {"inference.onnx"}
    assert all(path.is_file() for path in folder.iterdir())


@pytest.mark.parametrize("limit", [4096, 30_000])
def test_a_disk_that_does_not_take_the_model_is_said(lite_checkpoint, tmp_path, limit):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises((ExportError, OSError), match="could not be written whole|too large"):
            export(lite_checkpoint, tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "model").iterdir()) == []


def test_the_threads_of_the_process_stay_as_they_were(lite_model):
    from threadpoolctl import ThreadpoolController

    from ppcls_ise.inference.static_model import StaticModel

    def threads() -> list[int]:
        pools = ThreadpoolController().info()
        return [i["num_threads"] for i in pools if i["prefix"].startswith(("libiomp", "libomp"))]

    paddle.base.core.set_num_threads(3)
    try:
        assert threads() == [3]
        StaticModel(lite_model, threads=2)(np.zeros((2, 3, 96, 48), np.float32))
        assert threads() == [3]
    finally:
        paddle.base.core.set_num_threads(1)
