# SPDX-License-Identifier: Apache-2.0
import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls_ise.errors import ConfigError
from ppcls_ise.layers import FrozenBiasBatchNorm1D, GroupedBatchNorm, group_batch_norms


def slow_normalize(x, weight, bias, group):
    """Each group by its own biased statistics, one channel at a time."""
    out = np.empty_like(x)
    for start in range(0, len(x), group):
        rows = slice(start, start + group)
        for c in range(x.shape[1]):
            values = x[rows, c]
            out[rows, c] = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
            out[rows, c] = out[rows, c] * weight[c] + bias[c]
    return out


@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 3, 2), (14, 5)])
@pytest.mark.parametrize("group", [4, 12, 64])
def test_groups(shape, group):
    generator = np.random.default_rng(0)
    x = generator.standard_normal(shape).astype(np.float32) * 3 + 1
    source = (nn.BatchNorm1D if len(shape) == 2 else nn.BatchNorm2D)(shape[1], momentum=0.9)
    source.weight.set_value(generator.standard_normal(shape[1]).astype(np.float32))
    source.bias.set_value(generator.standard_normal(shape[1]).astype(np.float32))
    layer = GroupedBatchNorm(source, group)
    layer.train()
    ours = layer(paddle.to_tensor(x)).numpy()
    wanted = slow_normalize(x, source.weight.numpy(), source.bias.numpy(), group)
    np.testing.assert_allclose(ours, wanted, atol=2e-5)
    first = np.moveaxis(x[:group], 1, -1).reshape(-1, shape[1])
    np.testing.assert_allclose(layer._mean.numpy(), 0.1 * first.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(
        layer._variance.numpy(), 0.9 + 0.1 * first.var(axis=0, ddof=1), rtol=1e-5
    )


def test_one_process_with_groups_equals_several_without():
    """Gradients too: the sum over groups is what data parallelism computes."""
    generator = np.random.default_rng(1)
    x = generator.standard_normal((8, 3)).astype(np.float32)
    weights = paddle.to_tensor(generator.standard_normal((8, 3)).astype(np.float32))
    whole = paddle.to_tensor(x, stop_gradient=False)
    (GroupedBatchNorm(nn.BatchNorm1D(3), 4)(whole) * weights).sum().backward()
    for part in (slice(0, 4), slice(4, 8)):
        alone = paddle.to_tensor(x[part], stop_gradient=False)
        (nn.BatchNorm1D(3)(alone) * weights[part]).sum().backward()
        np.testing.assert_allclose(whole.grad.numpy()[part], alone.grad.numpy(), atol=1e-6)


def test_evaluation_uses_the_running_statistics():
    layer = GroupedBatchNorm(nn.BatchNorm1D(2), 2)
    layer._mean.set_value(np.array([1.0, 2.0], np.float32))
    layer.eval()
    x = np.array([[1.0, 2.0], [3.0, 2.0]], np.float32)
    np.testing.assert_allclose(layer(paddle.to_tensor(x)).numpy(), [[0, 0], [2, 0]], atol=1e-4)


def test_weights_keep_their_names_and_their_parameters():
    model = nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4), nn.Sequential(nn.BatchNorm(4)))
    before, parameters = list(model.state_dict()), [id(p) for p in model.parameters()]
    assert group_batch_norms(model, 8) == 2
    assert list(model.state_dict()) == before
    assert [id(p) for p in model.parameters()] == parameters


def test_group_of_one_is_refused():
    with pytest.raises(ValueError, match="bn_group_size"):
        GroupedBatchNorm(nn.BatchNorm1D(2), 1)


def test_frozen_bias_does_not_freeze_the_weight():
    """It does in Paddle's own layer; should this fail, `differentiable` is no longer needed."""
    x = paddle.rand([6, 3])
    own, grouped, paddles = FrozenBiasBatchNorm1D(3), FrozenBiasBatchNorm1D(3), nn.BatchNorm1D(3)
    paddles.bias.stop_gradient = True
    for layer in (own, GroupedBatchNorm(grouped, 3), paddles):
        (layer(x) * paddle.rand([6, 3])).sum().backward()
    assert own.weight.grad is not None and own.bias.grad is None
    assert grouped.weight.grad is not None and grouped.bias.grad is None
    assert paddles.weight.grad is None


@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 3, 2)])
def test_training_waits_for_the_device_nowhere(shape, transfers):
    layer = GroupedBatchNorm((nn.BatchNorm1D if len(shape) == 2 else nn.BatchNorm2D)(5), 4)
    x = paddle.rand(shape)
    x.stop_gradient = False
    with transfers() as found:
        layer(x).sum().backward()
    assert not found


def test_one_group_is_not_copied(monkeypatch):
    monkeypatch.setattr(paddle, "split", None)
    monkeypatch.setattr(paddle, "concat", None)
    GroupedBatchNorm(nn.BatchNorm1D(3), 4)(paddle.rand([4, 3]))


def test_statistics_of_half_precision_rows_are_taken_in_float32():
    layer = GroupedBatchNorm(nn.BatchNorm1D(1), 4)
    with paddle.no_grad():
        layer._update_running_statistics(paddle.full([4, 1], 60000.0, "float16"))
    np.testing.assert_allclose(layer._mean.numpy(), 0.1 * np.float32(np.float16(60000.0)))
    assert layer._variance.numpy() == np.float32(0.9)


def test_running_statistics_stay_the_same_tensors():
    """Optimizer, checkpoints and distributed runs hold on to them."""
    source = nn.BatchNorm1D(3)
    layer, before = GroupedBatchNorm(source, 2), source._mean
    layer(paddle.rand([4, 3]))
    assert layer._mean is before and (before.numpy() != 0).all()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.SyncBatchNorm(3), "Arch.use_sync_bn"),
        (nn.BatchNorm2D(3, data_format="NHWC"), "NHWC"),
        (nn.Linear(3, 3), "no batch norm"),
    ],
)
def test_layers_that_cannot_be_grouped_are_refused(layer, message):
    with pytest.raises(ConfigError, match=message):
        group_batch_norms(nn.Sequential(nn.Sequential(layer)), 4)
