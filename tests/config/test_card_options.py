# SPDX-License-Identifier: Apache-2.0
import paddle
import pytest

import ppcls_ise
from ppcls_ise.compat.training_loop import mixed_precision_in
from ppcls_ise.errors import ConfigError
from tests.conftest import SYNTHETIC

AMP = "AMP={'use_amp': True, 'level': '%s', 'dtype': '%s'}"


def check(*overrides):
    from ppcls_ise.config.overrides import get_config

    ppcls_ise.register()
    return get_config(str(SYNTHETIC), list(overrides))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (AMP % ("O1", "half"), "AMP.dtype has to be float16 or bfloat16"),
        (AMP % ("O3", "float16"), "AMP.level O1 or O2"),
        (AMP % ("O2", "bfloat16"), "bfloat16 needs AMP.level=O1"),
        ("Arch.Backbone.data_format=NHWC", "data_format has to be NCHW"),
        ("Global.normalize_on_device=1", "normalize_on_device has to be True or False"),
    ],
)
def test_what_cannot_work_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        check(override)


def test_recipe_for_mixed_precision_is_accepted():
    config = check(AMP % ("O1", "bfloat16"), "Arch.Backbone.data_format=NCHW")
    assert config["AMP"]["dtype"] == "bfloat16"


def test_paddleclas_computes_in_the_wanted_half_precision(monkeypatch):
    seen = []
    auto_cast = lambda enable=True, dtype="float16", **_: seen.append((enable, dtype))  # noqa: E731
    monkeypatch.setattr(paddle.amp, "auto_cast", auto_cast)
    with pytest.raises(KeyError), mixed_precision_in("bfloat16"):
        paddle.amp.auto_cast(level="O1")
        raise KeyError
    paddle.amp.auto_cast(level="O1")
    with mixed_precision_in(None):
        paddle.amp.auto_cast(level="O1")
    assert seen == [(True, "bfloat16"), (True, "float16"), (True, "float16")]
