# SPDX-License-Identifier: Apache-2.0
import numpy as np
import paddle
import pytest

from ppcls_ise.heads import ClusterContrastHead
from ppcls_ise.losses import cluster_contrast_loss


def test_gradient_uses_the_memory_before_the_update(unit_rows):
    generator = np.random.default_rng(4)
    prototypes, rows = unit_rows(generator, 5, 8), unit_rows(generator, 6, 8)
    labels = generator.integers(0, 5, 6)
    head = ClusterContrastHead(0.2, 0.05, "hard")
    head.memory.reset(prototypes)
    features = paddle.to_tensor(rows, stop_gradient=False)
    output = head(features, paddle.to_tensor(labels).unsqueeze(1))
    cluster_contrast_loss(output["logits"], output["row_labels"]).backward()
    # closed form: (1 / (R tau)) sum_c (p_rc - [c = y]) m_c, then the Jacobian of N
    logits = rows @ prototypes.T / 0.05
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(6), labels] -= 1
    wanted = p @ prototypes / (6 * 0.05)
    wanted -= (wanted * rows).sum(axis=1, keepdims=True) * rows
    np.testing.assert_allclose(features.grad.numpy(), wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("rule", ["hard", "mean"])
def test_only_the_batch_is_compared_and_remembered(unit_rows, rule):
    generator = np.random.default_rng(4)
    prototypes = unit_rows(generator, 5, 8)
    head = ClusterContrastHead(0.2, 0.05, rule)
    head.memory.reset(prototypes)
    features = paddle.to_tensor(unit_rows(generator, 6, 8), stop_gradient=False)
    output = head(features, paddle.to_tensor([[0], [0], [3], [3], [3], [0]]))
    assert output["logits"].shape == [6, 5]
    assert "supports" not in output
    cluster_contrast_loss(output["logits"], output["row_labels"]).backward()
    changed = (head.memory.prototypes.numpy() != prototypes).any(axis=1)
    assert np.flatnonzero(changed).tolist() == [0, 3]
