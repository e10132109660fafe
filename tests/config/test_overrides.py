# SPDX-License-Identifier: Apache-2.0
import pytest
import yaml

import ppcls_ise
from ppcls_ise.config.overrides import get_config, parse_value
from ppcls_ise.errors import ConfigError
from tests.conftest import REPOSITORY, SYNTHETIC

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))
CPU = ["Global.device=cpu"]
NESTED = {"name": "SGD", "nesterov": True, "a": [{"b": None}]}


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_known_key_by_key(path):
    config = get_config(str(path), CPU)
    height, width = config["Global"]["image_shape"][1:]
    assert height == 2 * width or path.stem == "ISE_veri776_camera"  # people are upright
    for name, part in config["DataLoader"].get("Eval", {}).items():
        resize = part["dataset"]["transform_ops"][0]["ResizeImage"]
        assert resize["size"] == [width, height], name


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("True", True),
        ("true", True),
        ("False", False),
        ("None", None),
        ("no", False),
        ("On", True),
        ("null", None),
        ("3", 3),
        ("1e-3", 1e-3),
        ("[1, 5]", [1, 5]),
        ("{'a': 1}", {"a": 1}),
        ("a=b", "a=b"),
        ("all", "all"),
        ("10-2", "10-2"),
        ("-1e-3", -1e-3),
        (" 7 ", 7),
        ("007", "007"),
        ("1+2j", "1+2j"),
        ("...", "..."),
        ("b'x'", "b'x'"),
        ("'10'", "10"),
        ('"a, b: c"', "a, b: c"),
        ("/data/a,b:c=d", "/data/a,b:c=d"),
        ("[true, null, 1e-3, x]", [True, None, 1e-3, "x"]),
        ("{name: SGD, nesterov: true, 'a': [{'b': None}]}", NESTED),
        ("f'{1}'", "f'{1}'"),
        ("lambda: 1", "lambda: 1"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("", ""),
    ],
)
def test_override_values_are_literals(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize("text", ["[a-b]", "{1, 2}", "[f(1)]", "{x: __import__('os')}", "[*a]"])
def test_brackets_that_hold_no_literals_are_refused(text):
    with pytest.raises(ConfigError, match="no list or dictionary of literals"):
        parse_value(text)


EVALUATED = "DataLoader.Train.dataset.transform_ops.3.NormalizeImage.scale"


@pytest.mark.parametrize("text", ["__import__('os').getcwd()", "exit()", "9**9", "[1][0]"])
def test_texts_that_paddleclas_would_evaluate_are_refused(text):
    """Its NormalizeImage hands a text to eval."""
    config = yaml.safe_load(SYNTHETIC.read_text())
    ops = config["DataLoader"]["Train"]["dataset"]["transform_ops"]
    assert "NormalizeImage" in ops[3], "the path above is of another operator"
    with pytest.raises(ConfigError, match="NormalizeImage.scale"):
        get_config(str(SYNTHETIC), [f"{EVALUATED}={text}"])
    assert get_config(str(SYNTHETIC), [f"{EVALUATED}=1.0/255.0"])


def test_a_dictionary_is_a_section():
    config = get_config(
        str(SYNTHETIC), ["Optimizer.lr={name: Step, learning_rate: 1e-3, gamma: .1, step_size: 3}"]
    )
    assert config.Optimizer.lr.learning_rate == 1e-3


def test_overrides_reach_lists_sections_and_values_with_equals():
    config = get_config(
        str(SYNTHETIC),
        [
            "Loss.Train.1.LPLoss.weight=0.5",
            "Global.output_dir=out=1",
            "DataLoader.Train.dataset.transform_ops.0.ResizeImage.size=[32,64]",
            "Arch.BackboneStopLayer.name=layers",
        ],
    )
    assert config.Loss["Train"][1]["LPLoss"]["weight"] == 0.5
    assert config.Global.output_dir == "out=1"
    assert config["DataLoader"]["Train"]["dataset"]["transform_ops"][0]["ResizeImage"]["size"] == [
        32,
        64,
    ]
    assert config.Arch.BackboneStopLayer.name == "layers"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("Global.epoch=3", ["Global.epoch", "Global.epochs"]),
        ("Globl.epochs=3", ["Globl", "Global"]),
        ("Clustering.ep=0.3", ["Clustering.ep", "Clustering.eps"]),
        ("Arch.Head.momentun=0.1", ["Arch.Head.momentun", "Arch.Head.momentum"]),
        ("Arch.Neck.pool=gem", ["Arch.Neck.pool", "Arch.Neck.pooling"]),
        ("Arch.Backbone.pretraind=True", ["Arch.Backbone.pretraind", "pretrained"]),
        ("Loss.Train.1.LPLoss.temprature=1", ["temprature", "temperature"]),
        ("Optimizer.lr.gama=0.1", ["Optimizer.lr.gama", "gamma"]),
        ("Optimizer.regularizer.coef=1", ["Optimizer.regularizer.coef", "coeff"]),
        ("DataLoader.Train.sampler.num_instance=4", ["num_instance", "num_instances"]),
        ("DataLoader.Train.dataset.image_rot=x", ["image_rot", "image_root"]),
        ("DataLoader.Train.loader.workers=2", ["workers", "num_workers"]),
        ("DataLoader.Eval.Querry.x=2", ["Querry", "Query"]),
        ("Metric.Eval.0.ReIDMetric.topks=[1]", ["topks", "topk"]),
        ("DataLoader.Train.dataset.transform_ops.2.RandomPadCrop.pad=1", ["pad", "padding"]),
        ("Clustering.transform_ops.0.ResizeImage.sise=5", ["Clustering", "sise", "size"]),
    ],
)
def test_a_key_that_nothing_reads_names_the_nearest(override, words):
    with pytest.raises(ConfigError, match="nothing reads the key") as error:
        get_config(str(SYNTHETIC), [override])
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("Global.device=gpu", ["-o Global.device=cpu"]),
        ("Global.epochs=0", ["Global.epochs"]),
        ("Global.epochs=ten", ["Global.epochs", "'ten'"]),
        ("Global.eval_mode=classification", ["Global.eval_mode"]),
        ("Arch.name=ResNet50", ["RecModel"]),
        ("Arch.Backbone.name=ResNet5000", ["ResNet5000"]),
        ("Loss.Train.7.LPLoss.weight=1", ["list of 2 entries"]),
        ("Global.epochs.more=1", ["has no key"]),
        ("no-equals-sign", ["key.key=value"]),
        ("DataLoader.Train.dataset.name=Market2000", ["Market2000", "Did you mean"]),
        ("Arch.Head.name=PLIHed", ["Arch.Head.name", "PLIHead"]),
        ("Arch.Neck.name=ReIDNek", ["Arch.Neck.name", "ReIDNeck"]),
        ("Arch.Backbone=ResNet50", ["Arch.Backbone"]),
        ("Arch.bn_group_size=abc", ["Arch.bn_group_size"]),
        ("Arch.Head.momentum=abc", ["Arch.Head.momentum", "a number"]),
        ("Arch.Head.topk=1.5", ["Arch.Head.topk", "a whole number"]),
        ("Arch.Neck.num_features=abc", ["Arch.Neck.num_features"]),
        ("Optimizer.name=Adem", ["Adam"]),
        ("Optimizer.lr.learning_rate=abc", ["Optimizer.lr.learning_rate"]),
        ("Clustering.transform_ops.0={'ResizeImg': {}}", ["ResizeImage"]),
        ("Clustering.transform_ops=5", ["Clustering.transform_ops"]),
        ("Global.seed=abc", ["Global.seed"]),
        ("Global.seed=-1", ["Global.seed"]),
        ("Global.device=banana", ["Global.device"]),
        ("Global.epochs=1.5", ["Global.epochs"]),
        ("Global.eval_interval=0", ["Global.eval_interval"]),
        ("Global.eval_during_train=maybe", ["Global.eval_during_train"]),
        ("Global.image_root=5", ["Global.image_root"]),
        ("Global.pretrained_model=5", ["Global.pretrained_model"]),
        ("DataLoader.Train.sampler.iters=abc", ["DataLoader.Train.sampler.iters"]),
        ("DataLoader.Train.sampler.batch_size=2.5", ["DataLoader.Train.sampler.batch_size"]),
        ("DataLoader.Train.sampler.camera_aware=5", ["camera_aware", "True or False"]),
        ("DataLoader.Train.sampler=None", ["DataLoader.Train"]),
        ("DataLoader.Train.loader.num_workers=abc", ["DataLoader.Train.loader.num_workers"]),
        ("DataLoader.Eval.Query.sampler.drop_last=True", ["DataLoader.Eval.Query", "drop_last"]),
        ("Metric.Eval=5", ["Metric.Eval"]),
        ("Loss.Train=5", ["Loss.Train"]),
        ("Loss.Train.0.ClusterContrastLoss=0", ["ClusterContrastLoss"]),
        ("Loss.Train.1.LPLoss.weight=abc", ["LPLoss.weight", "a number"]),
        ("Loss.Train.²={}", ["list of 2 entries"]),
        ("Arch.Neck=5", ["Arch.Neck"]),
        ("Arch.Neck.num_features=1e400", ["Arch.Neck.num_features"]),
        ("Arch.Backbone.channels=[1, x]", ["Arch.Backbone.channels", "whole numbers"]),
        ("Arch.Backbone.name=copy", ["copy"]),
        ("Optimizer=5", ["Optimizer"]),
        ("Optimizer.lr=0", ["Optimizer.lr"]),
        ("Optimizer.lr.learning_rate=-1", ["Optimizer.lr.learning_rate"]),
        ("Optimizer.lr.learning_rate=1e400", ["learning_rate", "finite"]),
        ("Optimizer.lr.step_size=1.5", ["Optimizer.lr.step_size"]),
        ("Optimizer.regularizer.name=L3", ["Optimizer.regularizer.name"]),
        ("Global.image_shape=5", ["Global.image_shape"]),
        ("Clustering.k1=True", ["Clustering.k1", "whole number"]),
        ("Clustering.k1=abc", ["Clustering.k1", "whole number"]),
        ("Clustering.eps=abc", ["Clustering.eps", "a number"]),
        ("DataLoader.Eval.Query.sampler.batch_size=0", ["DataLoader.Eval.Query", "batch_size"]),
        ("Clustering.transform_ops.0.ResizeImage.size=abc", ["Clustering.transform_ops.0"]),
    ],
)
def test_what_cannot_work_says_why(override, words):
    import paddle

    if "gpu" in override and paddle.is_compiled_with_cuda():
        pytest.skip("this Paddle is a GPU build")
    with pytest.raises(ConfigError) as error:
        get_config(str(SYNTHETIC), [override])
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("text", ["", "a: [1", "- 1", "just text"])
def test_a_file_that_is_no_config(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        get_config(str(path))


def test_missing_file():
    with pytest.raises(ConfigError, match="no config file"):
        get_config("nowhere.yaml")


def test_one_image_root_serves_every_data_set(tmp_path):
    config = get_config(
        str(SYNTHETIC), ["Global.image_root=a", "DataLoader.Eval.Query.dataset.image_root=b"]
    )
    loaders = config["DataLoader"]
    roots = [
        part["dataset"]["image_root"]
        for part in (loaders["Train"], loaders["Eval"]["Query"], loaders["Eval"]["Gallery"])
    ]
    assert roots == ["a", "b", "a"]
    content = yaml.safe_load(SYNTHETIC.read_text())
    del content["Global"]["image_root"]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match="Global.image_root"):
        get_config(str(path))


def test_the_weight_of_a_single_loss_would_be_ignored(tmp_path):
    content = yaml.safe_load(SYNTHETIC.read_text())
    content["Loss"]["Train"] = [{"ClusterContrastLoss": {"weight": 0.5}}]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match="ignores the weight"):
        get_config(str(path))
