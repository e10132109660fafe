# SPDX-License-Identifier: Apache-2.0
"""A CPU computes nothing in half precision, so these look at the level that operations are at."""

from contextlib import contextmanager

import numpy as np
import paddle
import pytest

from ppcls_ise.heads import ClusterContrastHead, CSAHead, HybridHead, PLIHead
from ppcls_ise.layers import GeMPooling
from ppcls_ise.layers.precision import float32, in_float32
from ppcls_ise.losses import (
    AggregationLoss,
    ClusterContrastLoss,
    HybridContrastLoss,
    LPLoss,
    aggregation_loss,
    cluster_contrast_loss,
    hybrid_contrast_loss,
    instance_contrast_loss,
    label_preserving_loss,
)

LEVELS = paddle.base.core.AmpLevel
PRODUCTS = ("matmul", "bmm", "gather", "gather_nd", "exp", "log", "concat")
METHODS = {
    "ISE": (lambda: PLIHead(), [ClusterContrastLoss(), LPLoss()]),
    "LP only": (lambda: PLIHead(support_in_memory=False), [ClusterContrastLoss(), LPLoss()]),
    "Cluster Contrast": (lambda: ClusterContrastHead(), [ClusterContrastLoss()]),
    "HHCL": (lambda: HybridHead(), [HybridContrastLoss(label_smoothing=True)]),
    "HHCL version 2": (lambda: HybridHead(2, num_instances=2), [HybridContrastLoss()]),
    "CSA": (
        lambda: CSAHead(num_features=8, num_heads=2, attention_dim=4),
        [ClusterContrastLoss(), AggregationLoss()],
    ),
}


def level():
    return paddle.base.framework._dygraph_tracer()._amp_level


@contextmanager
def mixed_precision(wanted):
    """What `auto_cast` does to the tracer on a card; on a CPU it does not."""
    tracer = paddle.base.framework._dygraph_tracer()
    before = tracer._amp_level, tracer._amp_dtype
    tracer._amp_level, tracer._amp_dtype = wanted, "bfloat16"
    try:
        yield
    finally:
        tracer._amp_level, tracer._amp_dtype = before


@pytest.fixture
def levels(monkeypatch):
    """The levels at which operations were called."""
    seen = []

    def recording(name, original):
        def call(*args, **options):
            seen.append((name, level()))
            return original(*args, **options)

        return call

    for name in PRODUCTS:
        monkeypatch.setattr(paddle, name, recording(name, getattr(paddle, name)))
        if hasattr(paddle.Tensor, name):
            method = getattr(paddle.Tensor, name)
            monkeypatch.setattr(paddle.Tensor, name, recording(name, method))
    cross_entropy = paddle.nn.functional.cross_entropy
    monkeypatch.setattr(
        paddle.nn.functional, "cross_entropy", recording("cross_entropy", cross_entropy)
    )
    return seen


def off(seen):
    return bool(seen) and all(at == LEVELS.O0 for _, at in seen)


@pytest.mark.parametrize("wanted", [LEVELS.O1, LEVELS.O2])
@pytest.mark.parametrize("method", METHODS)
def test_heads_and_losses_compute_in_float32(method, wanted, levels):
    make, losses = METHODS[method]
    generator = np.random.default_rng(0)
    head = make()
    prototypes = generator.standard_normal((101, 8)).astype(np.float32)
    head.reset_memory(prototypes, np.arange(101), prototypes, (0,))
    labels = paddle.to_tensor(np.repeat([3, 8, 55], 2))
    rows = generator.standard_normal((6, 8)).astype(np.float16)
    features = paddle.to_tensor(rows, stop_gradient=False)
    with mixed_precision(wanted):
        output = head(features, labels)
        assert off(levels), levels
        for loss in losses:
            levels.clear()
            (value,) = loss({"logits": output}, labels).values()
            assert off(levels), (loss, levels)
            assert value.dtype == paddle.float32
        assert level() == wanted


def halves(*shape):
    return paddle.rand(shape).astype("float16")


LABELS = paddle.to_tensor(np.array([0, 0, 1, 1]))
FUNCTIONS = {
    "cluster_contrast": lambda: cluster_contrast_loss(halves(4, 3), LABELS),
    "label_preserving": lambda: label_preserving_loss(
        halves(4, 5), halves(4, 5), labels=LABELS, support_labels=LABELS
    ),
    "aggregation": lambda: aggregation_loss(halves(3, 5), halves(3, 5)),
    "hybrid": lambda: hybrid_contrast_loss(halves(4, 3), mean_logits=halves(4, 3), labels=LABELS),
    "instance": lambda: instance_contrast_loss(halves(4, 3), halves(4, 2, 3), LABELS),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_loss_functions_take_half_precision_and_answer_in_float32(name, levels):
    with mixed_precision(LEVELS.O2):
        value = FUNCTIONS[name]()
    assert value.dtype == paddle.float32 and np.isfinite(float(value))
    assert off(levels), levels


def test_gem_pooling_survives_values_whose_cubes_do_not_fit():
    pooling = GeMPooling()
    values = paddle.full([1, 2, 3, 3], 100.0, "float16")
    np.testing.assert_allclose(pooling(values).numpy(), [[100.0, 100.0]], rtol=1e-3)


def test_recorder_sees_an_unguarded_loss(levels):
    with mixed_precision(LEVELS.O1):
        paddle.matmul(paddle.ones([1, 2]), paddle.ones([2, 1]))
    assert not off(levels)


def test_context_leaves_other_values_alone_and_ends_on_errors():
    with mixed_precision(LEVELS.O1):
        with pytest.raises(RuntimeError, match="inside"), float32() as full:
            assert level() == LEVELS.O0
            assert full(paddle.ones([1], "float64")).dtype == paddle.float64
            assert full(paddle.ones([1], "bfloat16")).dtype == paddle.float32
            assert full(0.5) == 0.5
            raise RuntimeError("inside")
        assert level() == LEVELS.O1


def test_decorator_passes_arguments_on():
    @in_float32
    def function(first, *, second):
        return first.dtype, second

    assert function(paddle.ones([1], "float16"), second=[1]) == (paddle.float32, [1])
