# SPDX-License-Identifier: Apache-2.0
"""The small network of the demonstrations."""

import paddle
import pytest

from ppcls_ise.backbones import PlainConvNet
from ppcls_ise.errors import ConfigError
from ppcls_ise.layers import IBN


@pytest.mark.parametrize("ibn_layers", [0, 1, 3])
def test_the_first_layers_have_ibn(ibn_layers):
    network = PlainConvNet([4, 6, 8], ibn_layers=ibn_layers)
    norms = [layer for layer in network.layers if isinstance(layer, IBN | paddle.nn.BatchNorm2D)]
    assert [isinstance(norm, IBN) for norm in norms] == [i < ibn_layers for i in range(3)]
    assert list(network(paddle.rand([2, 3, 32, 16])).shape) == [2, 8, 4, 2]


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"channels": []}, "channels"),
        ({"channels": [4, 0]}, "channels"),
        ({"channels": [4], "ibn_layers": 2}, "ibn_layers"),
        ({"channels": [4], "ibn_layers": -1}, "ibn_layers"),
        ({"channels": [1], "ibn_layers": 1}, "IBN"),
    ],
)
def test_values_out_of_range_are_errors(options, key):
    with pytest.raises(ConfigError, match=key):
        PlainConvNet(**options)
