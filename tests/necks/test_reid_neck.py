# SPDX-License-Identifier: Apache-2.0
import numpy as np
import paddle
import pytest

from ppcls_ise.layers import gem_pooling
from ppcls_ise.necks import ReIDNeck


def test_gem_formula():
    x = np.random.default_rng(0).uniform(-1, 2, (2, 3, 4, 5))
    wanted = (np.maximum(x, 1e-6) ** 2.5).mean(axis=(2, 3)) ** (1 / 2.5)
    ours = gem_pooling(paddle.to_tensor(x), paddle.to_tensor([2.5], dtype="float64"))
    np.testing.assert_allclose(ours.numpy(), wanted, rtol=1e-10)


@pytest.mark.parametrize("pooling", ["none", "avg", "gem"])
def test_bias_is_frozen_at_zero(pooling):
    neck = ReIDNeck(6, pooling)
    trainable = {name for name, p in neck.named_parameters() if not p.stop_gradient}
    assert trainable == {"feat_bn.weight"} | ({"pooling.p"} if pooling == "gem" else set())
    optimizer = paddle.optimizer.Adam(
        0.1, parameters=neck.parameters(), weight_decay=paddle.regularizer.L2Decay(0.1)
    )
    shape = [4, 6] if pooling == "none" else [4, 6, 2, 3]
    (neck(paddle.rand(shape)) * paddle.rand([4, 6])).sum().backward()
    optimizer.step()
    assert not neck.feat_bn.bias.numpy().any()
    assert (neck.feat_bn.weight.numpy() != 1.0).any()


def test_wrong_width_names_the_key():
    with pytest.raises(ValueError, match="Arch.Neck.num_features"):
        ReIDNeck(8)(paddle.rand([2, 6, 2, 3]))
    with pytest.raises(ValueError, match="Arch.Neck.pooling"):
        ReIDNeck(8, "max")
