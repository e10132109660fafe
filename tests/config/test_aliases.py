# SPDX-License-Identifier: Apache-2.0
"""What a config writes once, an override changes everywhere."""

import pytest
import yaml

import ppcls_ise
from ppcls_ise.config.aliases import Aliases
from ppcls_ise.config.overrides import get_config
from ppcls_ise.errors import ConfigError
from tests.conftest import SYNTHETIC

CLUSTERING = "Clustering.transform_ops"
TRAIN = "DataLoader.Train.dataset.transform_ops"
QUERY = "DataLoader.Eval.Query.dataset.transform_ops"
GALLERY = "DataLoader.Eval.Gallery.dataset.transform_ops"
EVALUATION = (CLUSTERING, QUERY, GALLERY)


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


def at(config, path):
    for key in path.split("."):
        config = config[int(key) if isinstance(config, list) else key]
    return config


def read(*overrides, path=SYNTHETIC):
    return get_config(str(path), overrides)


def sizes(config):
    return [at(config, f"{ops}.0.ResizeImage.size") for ops in (*EVALUATION, TRAIN)]


@pytest.mark.parametrize("ops", [*EVALUATION, TRAIN])
def test_a_list_that_is_shared(ops):
    config = read(f"{ops}.0.ResizeImage.size=[24, 48]")
    assert sizes(config) == [[24, 48]] * 4
    assert config["Global"]["image_shape"] == [3, 48, 24]


@pytest.mark.parametrize(
    "override",
    [
        "Global.image_shape=[3, 80, 40]",
        "Global.image_shape.1=80",
        f"{QUERY}.0.ResizeImage.size.1=80",
    ],
)
def test_a_number_that_is_shared(override):
    config = read(override, "Global.image_shape.2=40")
    assert sizes(config) == [[40, 80]] * 4
    assert config["Global"]["image_shape"] == [3, 80, 40]


@pytest.mark.parametrize("ops", EVALUATION)
def test_below_a_shared_list(ops):
    config = read(
        f"{ops}.0.ResizeImage.interpolation=bilinear", f"{ops}.1.NormalizeImage.scale=1/255"
    )
    for each in EVALUATION:
        assert at(config, f"{each}.0.ResizeImage.interpolation") == "bilinear"
        assert at(config, f"{each}.1.NormalizeImage.scale") == "1/255"  # a new key
    assert at(config, f"{TRAIN}.0.ResizeImage.interpolation") == "bicubic"
    assert "scale" not in at(config, f"{TRAIN}.3.NormalizeImage")


def test_a_shared_list_as_a_whole():
    one = "[{ResizeImage: {size: [20, 40]}}, {NormalizeImage: {mean: [0.1, 0.2, 0.3], order: ''}}]"
    config = read(f"{GALLERY}={one}")
    lists = [at(config, ops) for ops in EVALUATION]
    assert lists[0] == lists[1] == lists[2] and lists[0][0] == {"ResizeImage": {"size": [20, 40]}}
    assert at(config, f"{TRAIN}.0.ResizeImage.size") == [20, 40]  # what is inside is shared too
    assert at(config, f"{TRAIN}.3.NormalizeImage.mean") == [0.1, 0.2, 0.3]
    assert config["Global"]["image_shape"] == [3, 40, 20]


def test_what_an_override_took_away_is_no_alias_any_more():
    config = read(f"{QUERY}=[{{NormalizeImage: {{order: ''}}}}]", "Global.image_shape=[3, 64, 32]")
    assert at(config, CLUSTERING) == [{"NormalizeImage": {"order": ""}}]
    assert at(config, f"{TRAIN}.0.ResizeImage.size") == [32, 64]


def test_a_section_that_is_shared():
    config = read(
        "DataLoader.Eval.Query.sampler.batch_size=7",
        "DataLoader.Eval.Gallery.loader={num_workers: 0, use_shared_memory: False}",
    )
    loaders = config["DataLoader"]["Eval"]
    assert [loaders[side]["sampler"]["batch_size"] for side in ("Query", "Gallery")] == [7, 7]
    assert loaders["Query"]["loader"] == {"num_workers": 0, "use_shared_memory": False}
    assert config["DataLoader"]["Train"]["loader"]["use_shared_memory"] is True


def test_the_last_override_counts_wherever_it_is_written():
    config = read(f"{QUERY}.0.ResizeImage.size=[1, 2]", f"{TRAIN}.0.ResizeImage.size=[24, 48]")
    assert sizes(config) == [[24, 48]] * 4


def test_places_share_no_list():
    """PaddleClas and callers change their part; the others must not change with it."""
    config = read(f"{QUERY}.1.NormalizeImage.mean=[0.1, 0.1, 0.1]")
    at(config, f"{QUERY}.1.NormalizeImage.mean")[0] = 9.0
    at(config, f"{QUERY}.0.ResizeImage")["size"] = None
    assert at(config, f"{GALLERY}.1.NormalizeImage.mean") == [0.1, 0.1, 0.1]
    assert at(config, f"{CLUSTERING}.0.ResizeImage.size") == [48, 96]


def test_without_anchors_each_place_is_its_own(tmp_path):
    class Apart(yaml.SafeDumper):
        def ignore_aliases(self, data):
            return True

    path = tmp_path / "apart.yaml"
    path.write_text(yaml.dump(yaml.safe_load(SYNTHETIC.read_text()), Dumper=Apart))
    assert "*" not in path.read_text()
    config = read(f"{QUERY}.0.ResizeImage.size=[24, 48]", path=path)
    assert sizes(config) == [[48, 96], [24, 48], [48, 96], [48, 96]]


def test_a_merge_shares_each_of_its_keys(tmp_path):
    path = tmp_path / "merge.yaml"
    path.write_text("a: &a {x: 1, y: [2]}\nb: {<<: *a, x: 3}\nc: *a\n")
    aliases = Aliases(str(path))
    assert sorted(part for part, _ in aliases.of(("a", "y", "0"))) == [
        ("b", "y", "0"),
        ("c", "y", "0"),
    ]
    assert list(aliases.of(("a", "x"))) == [(("c", "x"), ())]
    assert list(aliases.of(("b", "x"))) == []
    assert list(aliases.of(("a", "z", "new"))) == [(("c",), ("z", "new"))]


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "a: &a {b: *a}",
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "\n".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]"
            for old, new in zip("abcdefg", "bcdefgh", strict=True)
        ),
    ],
    ids=["list in itself", "section in itself", "billions"],
)
def test_aliases_without_end(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="aliases"):
        get_config(str(path))


def test_an_error_at_an_alias_names_the_override():
    override = f"{CLUSTERING}.0.ResizeImage.sise=5"
    with pytest.raises(ConfigError, match="nothing reads the key") as error:
        read(override)
    assert f"-o {override}" in str(error.value)
