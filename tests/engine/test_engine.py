# SPDX-License-Identifier: Apache-2.0
"""The engine in one process: what an epoch does, and every limit that has to be handled."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

import ppcls_ise
from ppcls_ise.errors import ConfigError, DataError, WeightsError
from tests.conftest import REPOSITORY, SYNTHETIC, lite_overrides

FOLDER = REPOSITORY / "configs" / "ISE_folder.yaml"
SMALL_NET = [
    "Global.device=cpu",
    "Arch.Backbone={'name': 'PlainConvNet', 'channels': [8, 16]}",
    "Arch.BackboneStopLayer=None",
    "Arch.Neck.num_features=16",
    "Arch.Neck.pooling=gem",
    "Arch.bn_group_size=8",
    "DataLoader.Train.loader.num_workers=0",
    "DataLoader.Train.dataset.transform_ops.0.ResizeImage.size=[16,32]",
    "Clustering.transform_ops.0.ResizeImage.size=[16,32]",
]


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


def engine_of(overrides, *, config=SYNTHETIC, mode="train"):
    from ppcls_ise.config.overrides import get_config
    from ppcls_ise.engine.engine import UnsupervisedEngine

    return UnsupervisedEngine(get_config(str(config), overrides), mode=mode)


def train(overrides, **options):
    engine = engine_of(overrides, **options)
    engine.train()
    return engine


def log_of(output: Path) -> str:
    return (output / "RecModel" / "train.log").read_text(encoding="utf-8")


def digest(output: Path, name: str = "latest") -> str:
    """Hash of the weights; the file itself holds names that count up within a process."""
    from ppcls_ise.weights.loading import read_state

    state = read_state(output / "RecModel" / f"{name}.pdparams")
    total = hashlib.sha256()
    for key in sorted(state):
        total.update(key.encode() + state[key].tobytes())
    return total.hexdigest()


def copy_of(lite_set: Path, target: Path) -> Path:
    shutil.copytree(lite_set, target)
    return target


def crops(folder: Path, count: int, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for i in range(count):
        person = generator.integers(0, 256, (4, 2, 3), dtype=np.uint8) if i % 4 == 0 else person  # noqa: F821
        noise = generator.integers(-9, 10, (32, 16, 3))
        pixels = np.clip(np.kron(person, np.ones((8, 8, 1))) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"crop {i:03d}.png")
    return folder


def test_an_epoch_clusters_trains_evaluates_and_saves(lite_set, tmp_path):
    engine = train(lite_overrides(lite_set, tmp_path, Global__save_interval=1))
    folder = tmp_path / "RecModel"
    for name in ("latest", "best_model", "epoch_1", "epoch_2"):
        for suffix in ("pdparams", "pdopt", "pdstates"):
            assert (folder / f"{name}.{suffix}").is_file()
    log = log_of(tmp_path)
    assert "warming the batch-norm statistics with 4 batches of 16 images" in log
    for epoch in (1, 2):
        assert f"[Cluster][Epoch {epoch}/2] " in log
        assert f"[Epoch {epoch}/2] " in log
        assert f"[Eval][Epoch {epoch}] mAP " in log
    for word in ("% outliers", "median", "largest", "features", "jaccard", "NMI", "ARI", "pair F1"):
        assert word in log
    for word in ("ClusterContrastLoss", "LPLoss", "lambda", "| lr "):
        assert word in log
    assert engine.last_result.ranks.num_valid_queries > 0
    assert 0.0 < engine.last_result.mAP <= 1.0
    # one prototype per cluster, unit rows, and the schedule is at its end
    prototypes = engine.head.memory.prototypes.numpy()
    np.testing.assert_allclose(np.linalg.norm(prototypes, axis=1), 1.0, atol=1e-5)
    assert len(prototypes) == engine.train_dataset.pseudo_labels.max() + 1
    assert engine.head.degree == pytest.approx(0.5)


def test_evaluation_of_a_checkpoint_repeats_the_training_runs_figures(lite_set, tmp_path):
    overrides = lite_overrides(lite_set, tmp_path)
    trained = train(overrides).last_result
    weights = tmp_path / "RecModel" / "latest"
    engine = engine_of([*overrides, f"Global.pretrained_model={weights}"], mode="eval")
    engine.eval()
    assert engine.last_result.mAP == trained.mAP
    np.testing.assert_array_equal(engine.last_result.ranks.cmc, trained.ranks.cmc)
    table = engine.last_result.table()
    for word in ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10", "queries", "gallery", "skipped"):
        assert word in table


def test_same_seed_same_weights_and_other_seeds_differ(lite_set, tmp_path):
    for name, seed, workers in (("a", 1, 0), ("b", 1, 0), ("c", 1, 2), ("d", 2, 0)):
        more = {"Global__seed": seed, "DataLoader__Train__loader__num_workers": workers}
        train(lite_overrides(lite_set, tmp_path / name, Global__eval_during_train=False, **more))
    first, *others = (digest(tmp_path / name) for name in "abcd")
    assert [first == other for other in others] == [True, True, False]


def test_identities_in_file_names_are_never_used(lite_set, tmp_path):
    """Every training image gets an identity of its own, in an order that keeps the list's."""
    scrambled = copy_of(lite_set, tmp_path / "scrambled")
    for i, path in enumerate(sorted((scrambled / "bounding_box_train").iterdir())):
        path.rename(path.with_name(f"{i + 1:04d}_{path.name.split('_', 1)[1]}"))
    for root, output in ((lite_set, "a"), (scrambled, "b")):
        train(lite_overrides(root, tmp_path / output, Global__eval_during_train=False))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_an_unreadable_training_image_is_quarantined(lite_set, tmp_path):
    broken = copy_of(lite_set, tmp_path / "set")
    victims = sorted((broken / "bounding_box_train").iterdir())[3:6:2]
    for victim in victims:
        victim.write_bytes(victim.read_bytes()[:100])
    output = tmp_path / "run"
    engine = train(lite_overrides(broken, output))
    listed = (output / "RecModel" / "quarantine.txt").read_text().splitlines()
    assert listed == [str(victim) for victim in victims]
    assert str(victims[0]) in log_of(output) and "left out (never replaced)" in log_of(output)
    labels = engine.train_dataset.pseudo_labels
    assert labels[[3, 5]].tolist() == [-1, -1]


def test_an_unreadable_image_stops_an_evaluation(lite_set, tmp_path):
    broken = copy_of(lite_set, tmp_path / "set")
    victim = sorted((broken / "bounding_box_test").iterdir())[2]
    victim.write_bytes(b"")
    engine = engine_of(lite_overrides(broken, tmp_path / "run"), mode="eval")
    with pytest.raises(DataError, match=victim.name):
        engine.eval()


def test_all_outliers_skip_the_epoch_and_keep_the_schedule(lite_set, tmp_path):
    overrides = lite_overrides(
        lite_set, tmp_path, Clustering__min_samples=80, Optimizer__lr__step_size=1
    )
    engine = engine_of(overrides)
    before = {
        k: v.numpy().copy() for k, v in engine.model.named_parameters() if not v.stop_gradient
    }
    engine.train()
    log = log_of(tmp_path)
    assert "no cluster was found" in log and "Raise Clustering.eps" in log
    assert "100.0 % outliers" in log and "no step taken" in log
    for name, value in engine.model.named_parameters():
        if name in before:
            np.testing.assert_array_equal(value.numpy(), before[name])
    assert "the weights are those that the run began with" in log
    first = engine.config["Optimizer"]["lr"]["learning_rate"]
    assert engine.lr_sch[0].get_lr() == pytest.approx(first * 0.01)


def test_one_cluster_trains(lite_set, tmp_path):
    engine = train(
        lite_overrides(
            lite_set, tmp_path, Clustering__eps=0.99, Clustering__k1=200, Clustering__min_samples=1
        )
    )
    assert engine.clustering.result.num_clusters == 1
    log = log_of(tmp_path)
    assert "in one cluster" in log and "lower Clustering.eps" in log
    assert "nan" not in log.lower()


def test_interval_keeps_labels_and_memory_in_between(lite_set, tmp_path):
    train(lite_overrides(lite_set, tmp_path, Global__epochs=3, Clustering__interval=2))
    log = log_of(tmp_path)
    assert [f"[Cluster][Epoch {e}/3]" in log for e in (1, 2, 3)] == [True, False, True]


def test_camera_aware_clustering_uses_cameras_and_needs_them(lite_set, tmp_path):
    overrides = lite_overrides(lite_set, tmp_path / "a", Clustering__camera_aware=True)
    plain = train(lite_overrides(lite_set, tmp_path / "b")).clustering.result
    aware = train([*overrides, "Clustering.k1_inter=6"]).clustering.result
    assert aware.num_clusters > 0
    assert not np.array_equal(aware.labels, plain.labels)


def test_own_folder_without_cameras_or_identities(tmp_path):
    root = crops(tmp_path / "crops", 40)
    engine = train([*lite_overrides(root, tmp_path / "run"), *SMALL_NET], config=FOLDER)
    assert engine.train_dataset.camids is None and engine.train_dataset.pids is None
    assert engine.clustering.result.num_clusters > 1
    log = log_of(tmp_path / "run")
    assert "40 images, no cameras" in log and "NMI" not in log
    assert (tmp_path / "run" / "RecModel" / "latest.pdparams").is_file()


def test_a_folder_with_one_image(tmp_path):
    root = crops(tmp_path / "crops", 1)
    train([*lite_overrides(root, tmp_path / "run"), *SMALL_NET], config=FOLDER)
    assert "no cluster was found" in log_of(tmp_path / "run")


def test_an_empty_folder_and_a_missing_one(tmp_path):
    (tmp_path / "empty").mkdir()
    for root, word in ((tmp_path / "empty", "no image"), (tmp_path / "none", "not a folder")):
        with pytest.raises(DataError, match=word):
            engine_of([*lite_overrides(root, tmp_path / "run"), *SMALL_NET], config=FOLDER)


@pytest.mark.parametrize("side", ["query", "bounding_box_test"])
def test_an_empty_query_or_gallery(lite_set, tmp_path, side):
    root = copy_of(lite_set, tmp_path / "set")
    for path in (root / side).iterdir():
        path.unlink()
    with pytest.raises(DataError, match=side):
        engine_of(lite_overrides(root, tmp_path / "run"), mode="eval")


def test_a_query_without_a_match_is_named_and_never_counted_as_zero(lite_set, tmp_path):
    root = copy_of(lite_set, tmp_path / "set")
    for path in (root / "bounding_box_test").iterdir():
        if not path.name.startswith("0000"):
            path.unlink()
    engine = engine_of(lite_overrides(root, tmp_path / "run"), mode="eval")
    assert np.isnan(engine.eval())
    first = Path(engine.query_dataloader.dataset.images[0]).name
    log = (tmp_path / "run" / "RecModel" / "eval.log").read_text()
    assert "queries skipped" in log and first in log and "mAP nan" in log
    with pytest.raises(DataError, match="protocol=all"):
        engine.last_result.require_valid_queries()


def test_weights_that_do_not_fit_are_an_error(lite_set, tmp_path):
    path = tmp_path / "other.pdparams"
    paddle.save(paddle.nn.Linear(3, 3).state_dict(), str(path))
    with pytest.raises(WeightsError, match=r"other\.pdparams does not fit"):
        engine_of(
            [*lite_overrides(lite_set, tmp_path / "run"), f"Global.pretrained_model={path}"],
            mode="eval",
        )


def test_pretrained_weights_need_no_warming(lite_set, tmp_path):
    overrides = lite_overrides(lite_set, tmp_path / "a", Global__eval_during_train=False)
    train(overrides)
    weights = tmp_path / "a" / "RecModel" / "latest"
    more = lite_overrides(lite_set, tmp_path / "b", Global__pretrained_model=weights)
    train(more)
    log = log_of(tmp_path / "b")
    assert "tensors loaded" in log and "warming" not in log


def test_resuming_continues_with_the_next_epoch(lite_set, tmp_path):
    train(lite_overrides(lite_set, tmp_path / "a", Global__epochs=1))
    latest = tmp_path / "a" / "RecModel" / "latest"
    engine = train(lite_overrides(lite_set, tmp_path / "b", Global__checkpoints=latest))
    log = log_of(tmp_path / "b")
    assert "[Epoch 2/2]" in log and "[Epoch 1/2]" not in log and "warming" not in log
    assert engine.head.degree == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("Clustering.eps=-0.1", "Clustering.eps"),
        ("Clustering.k1=0", "Clustering.k1"),
        ("Clustering=None", "Clustering"),
        ("Clustering.eps=None", "Clustering.eps"),
        ("Clustering.transform_ops=None", "Clustering.transform_ops"),
        ("Arch.Head={'name': 'FC', 'embedding_size': 128, 'class_num': 3}", "Arch.Head.name"),
        ("DataLoader.Train.sampler={'name': 'BatchSampler', 'batch_size': 4}", "IdentitySampler"),
        ("DataLoader.Train.sampler.batch_size=15", "num_instances"),
        ("DataLoader.Eval.Query=None", "Query"),
        ("Metric=None", "Metric.Eval"),
        ("Arch.Neck=None", "Arch.Neck"),
        ("Loss=None", "Loss"),
        ("Optimizer=None", "Optimizer"),
        ("Metric.Eval.0.ReIDMetric.protocol=market", "protocol"),
    ],
)
def test_settings_that_cannot_work(lite_set, tmp_path, override, words):
    with pytest.raises(ConfigError, match=words):
        engine = engine_of([*lite_overrides(lite_set, tmp_path), override])
        engine.train()


def test_visualdl_scalars_when_asked(lite_set, tmp_path):
    train(lite_overrides(lite_set, tmp_path, Global__use_visualdl=True, Global__epochs=1))
    files = list(tmp_path.rglob("vdlrecords*"))
    assert files
    content = b"".join(file.read_bytes() for file in files)
    for tag in ("clustering/clusters", "clustering/largest", "evaluation/mAP", "training/lr"):
        assert tag.encode() in content
    assert b"loss/loss" in content
    assert b"train_loss" not in content  # PaddleClas's running mean at print steps


def test_re_ranking_is_an_option(lite_set, tmp_path):
    overrides = lite_overrides(lite_set, tmp_path, Clustering__warm_up_batches=0)
    plain = engine_of(overrides, mode="eval")
    plain.eval()
    ranked = engine_of([*overrides, "Metric.Eval.0.ReIDMetric.re_ranking=True"], mode="eval")
    ranked.eval()
    assert 0.0 < ranked.last_result.mAP <= 1.0
    assert ranked.last_result.mAP != plain.last_result.mAP


def test_gem_on_resnet_and_released_names(lite_set, tmp_path):
    """ResNet-50 with a feature map and GeM; the names are those of PaddleClas's RecModel."""
    engine = engine_of(
        [
            *lite_overrides(lite_set, tmp_path),
            "Arch.Backbone={'name': 'ResNet50_last_stage_stride1', 'pretrained': False}",
            "Arch.BackboneStopLayer={'name': 'blocks[15]'}",
            "Arch.Neck.num_features=2048",
            "Arch.bn_group_size=8",
        ]
    )
    names = set(engine.plain_model.state_dict())
    assert {"backbone.stem.0.conv.weight", "backbone.blocks.15.conv2.conv.weight"} <= names
    assert {f"neck.feat_bn.{n}" for n in ("weight", "bias", "_mean", "_variance")} <= names
    engine.plain_model.eval()
    out = engine.plain_model(paddle.rand([1, 3, 64, 32]))
    assert out["backbone"].shape == [1, 2048, 4, 2]  # last stage at stride 1
    assert out["features"].shape == [1, 2048]


def spoil(path: Path, content: bytes | None) -> None:
    path.unlink()
    if content is not None:
        path.write_bytes(content)


@pytest.mark.parametrize("suffix", ["pdparams", "pdopt", "pdstates"])
@pytest.mark.parametrize("content", [None, b"", b"cos\nsystem\n(S'touch owned'\ntR."])
def test_a_checkpoint_that_cannot_be_resumed_is_named(lite_set, tmp_path, suffix, content):
    train(lite_overrides(lite_set, tmp_path / "a", Global__epochs=1, Global__seed=3))
    latest = tmp_path / "a" / "RecModel" / "latest"
    shutil.rmtree(latest.with_name("resume"))
    latest.with_suffix(".sha256").unlink()
    spoil(latest.with_suffix(f".{suffix}"), content)
    with pytest.raises(WeightsError, match=rf"latest\.{suffix}"):
        train(lite_overrides(lite_set, tmp_path / "b", Global__checkpoints=latest))
    assert not Path("owned").exists()


def test_a_checkpoint_of_another_model_is_named(lite_set, tmp_path):
    train(lite_overrides(lite_set, tmp_path / "a", Global__epochs=1))
    overrides = lite_overrides(
        lite_set, tmp_path / "b", Global__checkpoints=tmp_path / "a" / "RecModel" / "latest"
    )
    with pytest.raises(WeightsError, match="is of another model"):
        train([*overrides, "Arch.Backbone.channels=[8,16]", "Arch.Neck.num_features=16"])


def test_a_checkpoint_can_be_evaluated_and_random_weights_are_refused(lite_set, tmp_path):
    trained = train(lite_overrides(lite_set, tmp_path / "a")).last_result
    latest = tmp_path / "a" / "RecModel" / "latest"
    overrides = lite_overrides(lite_set, tmp_path / "b", Global__checkpoints=latest)
    engine = engine_of(overrides, mode="eval")
    engine.require_weights()
    engine.eval()
    assert engine.last_result.mAP == trained.mAP
    with pytest.raises(WeightsError, match="Global.pretrained_model"):
        engine_of(lite_overrides(lite_set, tmp_path / "c"), mode="eval").require_weights()


def test_a_broken_query_image_is_found_before_an_epoch_is_spent(lite_set, tmp_path):
    root = copy_of(lite_set, tmp_path / "set")
    victim = sorted((root / "query").iterdir())[1]
    victim.write_bytes(b"no image")
    with pytest.raises(DataError, match=victim.name):
        engine_of(lite_overrides(root, tmp_path / "run"))


def test_no_readable_training_image(lite_set, tmp_path):
    root = copy_of(lite_set, tmp_path / "set")
    for path in (root / "bounding_box_train").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the training images can be read"):
        train(lite_overrides(root, tmp_path / "run"))


@pytest.mark.parametrize(
    "amp",
    [
        {"use_amp": False},
        {"use_amp": True, "level": "O1"},
        {"use_amp": True, "level": "O2", "use_fp16_test": True},
    ],
    ids=str,
)
def test_mixed_precision_runs(lite_set, tmp_path, amp):
    """On a CPU it changes nothing; what can be shown is that every part accepts it."""
    engine = train([*lite_overrides(lite_set, tmp_path, Global__epochs=1), f"AMP={amp}"])
    assert np.isfinite(engine.last_result.mAP)
    assert ("AMP" in engine.config) == amp["use_amp"]


@pytest.mark.slow
def test_static_backbone_computes_the_same(lite_set, tmp_path):
    results = [
        train(
            lite_overrides(
                lite_set, tmp_path / str(static), Global__epochs=1, Global__to_static=static
            )
        ).last_result
        for static in (False, True)
    ]
    assert results[0].mAP == pytest.approx(results[1].mAP, abs=1e-4)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("Metric.Eval=[{'Recallk': {'topk': [1, 5]}}]", "Metric.Eval has to begin with ReIDMetric"),
        ("Metric.Eval=[{'mAP': None}]", "Metric.Eval has to begin with ReIDMetric"),
        ("Arch.use_sync_bn=True", "bn_group_size"),
    ],
)
def test_what_only_the_end_would_notice_is_said_before_the_first_epoch(
    lite_set, tmp_path, override, words
):
    for mode in ("train", "eval"):
        with pytest.raises(ConfigError, match=words):
            engine_of([*lite_overrides(lite_set, tmp_path), override], mode=mode)


def test_missing_cameras_are_noticed_before_anything_is_computed(tmp_path):
    root = crops(tmp_path / "crops", 8)
    overrides = lite_overrides(root, tmp_path / "run", Clustering__camera_aware=True)
    with pytest.raises(ConfigError, match="camera_pattern"):
        engine_of([*overrides, *SMALL_NET], config=FOLDER)


def test_a_config_object_serves_several_engines(lite_set, tmp_path):
    from ppcls_ise import compat
    from ppcls_ise.config.overrides import check_config, get_config
    from ppcls_ise.engine.engine import UnsupervisedEngine

    overrides = [*lite_overrides(lite_set, tmp_path), "AMP={'use_amp': False}"]
    config = get_config(str(SYNTHETIC), overrides)
    before = compat.copy_of(config)
    folders = {UnsupervisedEngine(config, mode="eval").run_folder for _ in range(2)}
    assert folders == {tmp_path / "RecModel"} and config == before
    del config["Global"]["keep_checkpoints"], config["Global"]["eval_mode"]
    config["Arch"]["BackboneStopLayer"] = None
    before = compat.copy_of(config)
    assert check_config(config)["Global"]["keep_checkpoints"] == 2
    assert config == before


def test_an_image_with_an_unparsable_name_is_left_out(lite_set, tmp_path):
    root = copy_of(lite_set, tmp_path / "set")
    engine = engine_of(lite_overrides(root, tmp_path / "run", Global__epochs=1))
    folder = root / "bounding_box_train"
    shutil.copy(next(folder.iterdir()), folder / "holiday.jpg")
    engine.train()
    log = log_of(tmp_path / "run")
    assert "holiday.jpg" in log and "goes on without it" in log


def test_paddleclas_own_engine_is_told_to_use_ours(lite_set, tmp_path):
    from ppcls_ise import compat
    from ppcls_ise.config.overrides import get_config

    config = get_config(str(SYNTHETIC), lite_overrides(lite_set, tmp_path))
    with pytest.raises(ConfigError, match=r"tools/train\.py"):
        compat.engine_class()(config, mode="train").train()
