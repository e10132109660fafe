# SPDX-License-Identifier: Apache-2.0
"""The table of docs/en/backbones.md: one image through each backbone, stopped and pooled."""

import re

import paddle
import pytest

import ppcls_ise
from ppcls_ise import compat
from ppcls_ise.config import get_config
from ppcls_ise.engine import UnsupervisedEngine
from ppcls_ise.errors import ConfigError
from ppcls_ise.necks import ReIDNeck
from tests.conftest import REPOSITORY, SYNTHETIC

PAGE = REPOSITORY / "docs" / "en" / "backbones.md"


def rows():
    """(backbone, stop layer, pooling, channels) of the page's table."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 4 and cells[3].isdecimal():
            for name in re.findall(r"`(\w+)`", cells[0]):
                for pooling, cell in (("none", cells[1]), ("gem", cells[2])):
                    if cell != "–":
                        yield name, cell.strip("`"), pooling, int(cells[3])


def test_table_is_read():
    assert len({name for name, *_ in rows()}) == 10


@pytest.mark.parametrize(("name", "layer", "pooling", "channels"), rows())
def test_stopped_backbone_gives_features(name, layer, pooling, channels):
    ppcls_ise.register()
    factory = compat.lookup("backbone", name)
    if factory is None:
        pytest.skip(f"this PaddleClas has no {name}")
    backbone = factory()
    assert backbone.stop_after(layer)
    neck = ReIDNeck(channels, pooling)
    backbone.eval()
    neck.eval()
    with paddle.no_grad():
        features = neck(backbone(paddle.ones([1, 3, 64, 32])))
    assert features.shape == [1, channels]
    assert bool(paddle.isfinite(features).all())


def engine_of(tmp_path, *overrides):
    ppcls_ise.register()
    config = get_config(
        str(SYNTHETIC),
        [f"Global.output_dir={tmp_path}", f"Global.image_root={tmp_path}", *overrides],
    )
    return UnsupervisedEngine(config, mode="export")


def test_unknown_stop_layer_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="ResNet18 has no layer 'avgpool'.*avg_pool"):
        engine_of(
            tmp_path,
            "Arch.Backbone={name: ResNet18}",
            "Arch.BackboneStopLayer.name=avgpool",
        )


def test_backbone_that_cannot_be_stopped_is_refused(tmp_path):
    # PaddleClas's vision transformers, and ours, are no such layers.
    with pytest.raises(ConfigError, match="BackboneStopLayer: PlainConvNet cannot be stopped"):
        engine_of(tmp_path, "Arch.BackboneStopLayer.name=avg_pool")


@pytest.mark.parametrize("shape", [[2, 16], [2, 16, 1, 1]])
@pytest.mark.parametrize("pooling", ["gem", "avg"])
def test_pooling_twice_is_refused(shape, pooling):
    with pytest.raises(ConfigError, match="has pooled already.*BackboneStopLayer"):
        ReIDNeck(16, pooling)(paddle.ones(shape))
