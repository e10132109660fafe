# SPDX-License-Identifier: Apache-2.0
"""Instance-batch norm against loops over the halves, in both modes, with gradients."""

import numpy as np
import paddle
import pytest

from ppcls_ise.errors import ConfigError
from ppcls_ise.layers import IBN
from tests.conftest import numeric_gradient


def slow(x: np.ndarray, state: dict[str, np.ndarray], *, training: bool) -> np.ndarray:
    """Channel by channel, float64."""
    half, out = x.shape[1] // 2, np.empty(x.shape)
    for c in range(x.shape[1]):
        part = "IN" if c < half else "BN"
        i = c if c < half else c - half
        weight = state[f"{part}.{'scale' if c < half else 'weight'}"][i]
        for b in range(len(x)):
            values = x[b, c] if c < half else x[:, c]
            mean, variance = values.mean(), values.var()
            if c >= half and not training:
                mean, variance = state["BN._mean"][i], state["BN._variance"][i]
            out[b, c] = (x[b, c] - mean) / np.sqrt(variance + 1e-5) * weight
        out[:, c] += state[f"{part}.bias"][i]
    return out


@pytest.mark.parametrize("channels", [2, 5])
@pytest.mark.parametrize("training", [True, False])
def test_it_equals_the_loops(channels, training):
    generator = np.random.default_rng(channels)
    layer = IBN(channels)
    for value in layer.state_dict().values():
        value.set_value(generator.uniform(0.5, 2.0, value.shape).astype(np.float32))
    state = {name: value.numpy().astype(np.float64) for name, value in layer.state_dict().items()}
    layer.train() if training else layer.eval()
    x = generator.standard_normal((3, channels, 4, 2)) + 2.0
    cotangent = generator.standard_normal(x.shape)
    inputs = paddle.to_tensor(x.astype(np.float32), stop_gradient=False)
    out = layer(inputs)
    np.testing.assert_allclose(out.numpy(), slow(x, state, training=training), atol=2e-5)
    (out * paddle.to_tensor(cotangent.astype(np.float32))).sum().backward()
    expected = numeric_gradient(
        lambda values: (slow(values, state, training=training) * cotangent).sum(), x
    )
    np.testing.assert_allclose(inputs.grad.numpy(), expected, atol=5e-4)


def test_one_channel_cannot_be_split():
    with pytest.raises(ConfigError, match="needs 2"):
        IBN(1)
