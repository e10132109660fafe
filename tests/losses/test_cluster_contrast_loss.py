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
