# SPDX-License-Identifier: Apache-2.0
"""Keys and configurations of PaddleClas's own, as its users bring them along."""

import pytest
import yaml

import ppcls_ise
from ppcls_ise import compat
from ppcls_ise.compat.signatures import accepted_keys
from ppcls_ise.config.overrides import get_config
from ppcls_ise.errors import ConfigError
from tests.conftest import REPOSITORY, SYNTHETIC

MARKET = str(REPOSITORY / "configs" / "ISE_market.yaml")
CPU = ["Global.device=cpu"]


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("ResNet50_last_stage_stride1", {"pretrained", "stem_act", "class_num", "lr_mult_list"}),
        ("ResNet50", {"stem_act", "stride_list", "data_format", "return_stages"}),
        ("ViT_base_patch16_224", {"img_size", "drop_rate", "class_num"}),
        ("SwinTransformer_tiny_patch4_window7_224", {"img_size", "ape"}),
    ],
)
def test_what_a_factory_hands_on_is_found(name, keys):
    assert keys <= accepted_keys(compat.lookup("backbone", name)).keys()


def test_what_a_factory_sets_itself_is_not_open():
    factory = compat.lookup("backbone", "ResNet50")
    assert not {"config", "stages_pattern", "version", "kargs"} & accepted_keys(factory).keys()


class _Base:
    def __init__(self, size=1, **rest):
        self.depth = rest.get("depth", 3)


class _Network(_Base):
    def __init__(self, kind, **options):
        super().__init__(size=2, **options)


def _factory(pretrained=False, **kwargs):
    arguments = dict(width=1, **kwargs)
    return _Network("a", **arguments)


def test_keys_are_followed_through_bases_dictionaries_and_positions():
    assert set(accepted_keys(_factory)) == {"pretrained", "depth"}
    assert set(accepted_keys(_Network)) == {"kind", "depth"}


@pytest.mark.parametrize("value", ["None", "relu"])
def test_stem_act_is_read(value):
    config = get_config(MARKET, [*CPU, f"Arch.Backbone.stem_act={value}"])
    assert "stem_act" in config["Arch"]["Backbone"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("EMA={decay: 0.9}", ["EMA is a key of PaddleClas's", "second network"]),
        ("Slim={prune: {name: fpgm}}", ["Slim", "other tensors"]),
        ("Infer={infer_imgs: x}", ["Infer", "ppcls-ise infer"]),
        ("Global.update_freq=2", ["Global.update_freq", "backward"]),
        ("Global.use_dali=True", ["Global.use_dali", "pseudo-labels"]),
        ("Global.re_ranking=True", ["Metric.Eval.0.ReIDMetric.re_ranking"]),
        ("Global.feature_normalize=False", ["feature_normalize", "cosine"]),
        ("Global.retrieval_feature_from=backbone", ["retrieval_feature_from", "neck"]),
        ("Global.sim_block_size=64", ["sim_block_size"]),
        ("Global.iter_per_epoch=10", ["DataLoader.Train.sampler.iters"]),
        ("Arch.head_feature_from=backbone", ["head_feature_from"]),
        ("AMP={use_amp: true, use_promote: true}", ["AMP.use_promote"]),
        ("DataLoader.Train.dataset.batch_transform_ops=[]", ["batch_transform_ops", "mix"]),
        ("Arch.class_num=3", ["Arch.class_num", "labels"]),
    ],
)
def test_what_only_paddleclas_supports_is_said_to_be_so(override, words):
    with pytest.raises(ConfigError) as error:
        get_config(str(SYNTHETIC), [*CPU, override])
    assert all(word in str(error.value) for word in [*words, "does not support"])


@pytest.mark.parametrize(
    "override",
    ["EMA=null", "Global.update_freq=1", "Global.re_ranking=False", "Global.use_dali=False"],
)
def test_a_key_that_asks_for_nothing_is_let_be(override):
    get_config(str(SYNTHETIC), [*CPU, override])


def test_what_paddleclas_reads_beyond_the_list_is_found_in_its_source():
    assert compat.keys.unsupported("Global.eval_mode")
    assert compat.keys.unsupported("Global.nothing_of_that_kind") is None
    assert compat.keys.unsupported("Arch.epochs") is None


def supervised(tmp_path, **loaders) -> str:
    """A configuration in the form of PaddleClas's supervised recipes, which the plugin cannot
    train."""
    config = yaml.safe_load((REPOSITORY / "configs" / "ISE_market_infer.yaml").read_text())
    config["Arch"]["Head"] = {"name": "FC", "embedding_size": 2048, "class_num": 751}
    config["Loss"] = {"Train": [{"SupConLoss": {"weight": 1.0, "views": 2}}], "Eval": None}
    config["Optimizer"] = {"name": "Momentum", "lr": {"name": "Cosine"}}
    config["DataLoader"]["Train"] = {
        "dataset": {"name": "Market1501", "transform_ops": [{"RandomCrop": {"size": [128, 256]}}]},
        "sampler": {"name": "PKSampler", "batch_size": 16, "sample_per_id": 4},
        "loader": {"num_workers": 6},
    }
    for side, name in loaders.items():
        config["DataLoader"]["Eval"][side]["dataset"]["name"] = name
    file = tmp_path / "supervised.yaml"
    file.write_text(yaml.safe_dump(config))
    return str(file)


def test_sections_that_a_mode_does_not_build_are_not_looked_at(tmp_path):
    path = supervised(tmp_path)
    with pytest.raises(ConfigError):
        get_config(path, CPU)
    assert "Train" not in get_config(path, CPU, mode="eval")["DataLoader"]
    get_config(supervised(tmp_path, Query="Market1501"), CPU, mode="export")


def test_a_supervised_recipe_is_exported(tmp_path):
    from ppcls_ise.deploy.export import export_model

    overrides = [
        "Arch.Backbone={name: PlainConvNet, channels: [8]}",
        "Arch.BackboneStopLayer=null",
        "Arch.Neck={name: ReIDNeck, num_features: 8, pooling: avg}",
        "Arch.Head.embedding_size=8",
    ]
    overrides += [f"Global.save_inference_dir={tmp_path}", f"Global.output_dir={tmp_path}"]
    path = supervised(tmp_path, Query="Market1501", Gallery="Market1501")
    config = get_config(path, [*CPU, *overrides], mode="export")
    assert "random pixels" in export_model(config, allow_random_weights=True)[0]


def test_a_backbone_is_what_is_compared_without_a_neck(tmp_path):
    override = "Global.retrieval_feature_from=backbone"
    get_config(supervised(tmp_path), [*CPU, override, "Arch.Neck=null"], mode="eval")
    with pytest.raises(ConfigError, match="leave out Arch.Neck"):
        get_config(supervised(tmp_path), [*CPU, override], mode="eval")


@pytest.mark.parametrize("side", ["Query", "Gallery"])
@pytest.mark.parametrize("name", ["Market1501", "MSMT17"])
def test_paddleclas_data_sets_name_the_ones_to_take(tmp_path, side, name):
    with pytest.raises(ConfigError, match=rf"{side}\.dataset\.name=Unsupervised{name}$"):
        get_config(supervised(tmp_path, **{side: name}), CPU, mode="eval")


def test_paddleclas_metrics_name_the_one_to_take(tmp_path):
    override = "Metric.Eval=[{Recallk: {topk: [1, 5]}}, {mAP: {}}]"
    with pytest.raises(
        ConfigError, match=r"begin with ReIDMetric, not Recallk.*ReIDMetric: \{topk"
    ):
        get_config(supervised(tmp_path), [*CPU, override], mode="eval")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["Global.seed=4294967296"], "Global.seed"),
        (["Global.output_dir="], "Global.output_dir is empty"),
        (["Global.output_dir=a\0b"], "Global.output_dir"),
        (["Clustering.eps=0.99999999"], "Clustering.eps"),
        (["Optimizer.name=Momentum"], "Optimizer needs Optimizer.momentum"),
        (["Optimizer.name=AdamW"], "Optimizer.weight_decay"),
        (["Optimizer.clip_norm=much"], "Optimizer.clip_norm has to be a number"),
        (["Metric.Eval.0.ReIDMetric.lambda_value=5"], "lambda_value"),
        (["Metric.Eval.0.ReIDMetric.k1=0"], "k1"),
        (["Metric.Eval=[{NoMetric: {}}]"], "Did you mean"),
        (["Arch.Neck={name: ReIDNeck}"], "Arch.Neck.num_features"),
    ],
)
def test_values_that_ended_in_a_traceback(overrides, words):
    with pytest.raises(ConfigError, match=words):
        config = get_config(str(SYNTHETIC), [*CPU, *overrides])
        compat.load("ppcls.metric").build_metrics(config["Metric"]["Eval"])
        ppcls_ise.config.ClusteringOptions(**config["Clustering"])


@pytest.mark.parametrize(
    "overrides",
    [
        ["Optimizer.regularizer=null"],
        ["Optimizer={name: SGD, lr: {name: Constant, learning_rate: 0.1}}"],
        ["Optimizer.name=Momentum", "Optimizer.momentum=0.9"],
        ["Optimizer.name=AdamW", "Optimizer.regularizer=null", "Optimizer.weight_decay=0.01"],
    ],
)
def test_every_optimizer_is_built_and_steps(overrides):
    import paddle

    compat.load("ppcls.utils.logger").init_logger()  # as the engine does
    config = get_config(str(SYNTHETIC), [*CPU, *overrides])
    layer = paddle.nn.Linear(2, 1)
    build = compat.load("ppcls.optimizer").build_optimizer
    optimizers, _ = build(config["Optimizer"], 2, 3, [layer])
    before = layer.weight.numpy()
    layer(paddle.ones([1, 2])).backward()
    optimizers[0].step()
    assert (layer.weight.numpy() != before).any()


def test_no_pooling_is_a_value_in_every_spelling():
    for text in ("none", "None", "null"):
        config = get_config(str(SYNTHETIC), [*CPU, f"Arch.Neck.pooling={text}"])
        neck = ppcls_ise.necks.ReIDNeck(num_features=4, pooling=config["Arch"]["Neck"]["pooling"])
        assert neck.pooling_name == "none"


def test_the_profiler_is_refused_where_paddle_has_none():
    with pytest.raises(ConfigError, match="-p batch_range"):
        get_config(str(SYNTHETIC), CPU, profiler_options="batch_range")
