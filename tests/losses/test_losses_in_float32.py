# SPDX-License-Identifier: Apache-2.0
"""Losses are float32, without a bound, whatever the precision of the network is."""

import numpy as np
import paddle
import pytest

from ppcls_ise.losses import (
    aggregation_loss,
    cluster_contrast_loss,
    hybrid_contrast_loss,
    instance_contrast_loss,
    label_preserving_loss,
)

LABELS = paddle.to_tensor([0, 0, 1, 1])


def rows(seed: int, *shape: int) -> paddle.Tensor:
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    return paddle.to_tensor(values).astype("bfloat16")


CASES = {
    "aggregation": (aggregation_loss, [rows(0, 4, 8), rows(1, 4, 8)]),
    "cluster": (cluster_contrast_loss, [rows(0, 4, 8), LABELS]),
    "hybrid": (hybrid_contrast_loss, [rows(0, 4, 8), rows(1, 4, 8), LABELS]),
    "instances": (instance_contrast_loss, [rows(0, 4, 8), rows(1, 4, 3, 8), LABELS]),
    "label-preserving": (label_preserving_loss, [rows(0, 4, 8), rows(1, 4, 8), LABELS, LABELS]),
}


@pytest.mark.parametrize("name", CASES)
def test_short_inputs_are_computed_in_float32(name, monkeypatch):
    loss, inputs = CASES[name]
    states = []
    auto_cast = paddle.amp.auto_cast
    monkeypatch.setattr(
        paddle.amp, "auto_cast", lambda **options: states.append(options) or auto_cast(**options)
    )
    found = loss(*inputs)
    long = [x.astype("float32") if x.dtype == paddle.bfloat16 else x for x in inputs]
    assert found.dtype == paddle.float32
    assert float(found) == float(loss(*long))
    assert states[0] == {"enable": False}


def test_the_aggregation_loss_has_no_bound():
    """Paddle's own cross-entropy stops at 64 on a CPU."""
    first = paddle.to_tensor([[1.0, 0.0], [0.0, 1.0]])
    second = paddle.to_tensor([[0.0, 1.0], [1.0, 0.0]])
    assert float(aggregation_loss(first, second, 0.01)) == pytest.approx(100.0)
