# SPDX-License-Identifier: Apache-2.0
import numpy as np
import paddle
import pytest

from ppcls_ise.losses import cluster_contrast_loss


def test_formula():
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((5, 7)) * 10
    labels = generator.integers(0, 7, 5)
    wanted = np.mean(
        [np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, labels, strict=True)]
    )
    loss = cluster_contrast_loss(paddle.to_tensor(logits), paddle.to_tensor(labels))
    assert loss.shape == []
    assert float(loss) == pytest.approx(wanted, rel=1e-12)


def test_a_row_may_count_more_than_64():
    """Paddle's own cross-entropy stops there on a CPU; if it does not any more, use it again."""
    logits, labels = paddle.to_tensor([[0.0, 200.0]]), paddle.to_tensor([0])
    assert float(cluster_contrast_loss(logits, labels)) == pytest.approx(200.0)
    assert float(paddle.nn.functional.cross_entropy(logits, labels)) == pytest.approx(64.0)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_gradient(scale):
    generator = np.random.default_rng(1)
    values = generator.standard_normal((5, 7)) * scale
    labels = generator.integers(0, 7, 5)
    logits = paddle.to_tensor(values, stop_gradient=False)
    (3.0 * cluster_contrast_loss(logits, paddle.to_tensor(labels))).backward()
    p = np.exp(values - values.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(5), labels] -= 1
    np.testing.assert_allclose(logits.grad.numpy(), 3.0 * p / 5, atol=1e-12)
    np.testing.assert_array_equal(logits.numpy(), values)
