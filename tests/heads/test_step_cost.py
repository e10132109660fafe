# SPDX-License-Identifier: Apache-2.0
"""What a step costs beside arithmetic: waits for the device, and Python's work per row."""

import gc
import sys

import numpy as np
import paddle
import pytest

from ppcls_ise.heads import ClusterContrastHead, HybridHead, PLIHead
from ppcls_ise.losses import ClusterContrastLoss, HybridContrastLoss, LPLoss

# Reading a tensor's values, and operations whose result's size depends on values.
WAITING = ("numpy", "item", "tolist", "__array__", "__bool__", "__float__", "__int__", "__index__")
VALUE_SIZED = ("nonzero", "unique", "masked_select")
HEADS = {
    "ISE": (lambda rule: PLIHead(memory=rule), [ClusterContrastLoss(), LPLoss()]),
    "ISE K=3": (lambda rule: PLIHead(memory=rule, topk=3), [ClusterContrastLoss(), LPLoss()]),
    "LP only": (
        lambda rule: PLIHead(memory=rule, support_in_memory=False),
        [ClusterContrastLoss(), LPLoss()],
    ),
    "Cluster Contrast": (lambda rule: ClusterContrastHead(memory=rule), [ClusterContrastLoss()]),
    "HHCL": (lambda rule: HybridHead(), [HybridContrastLoss()]),
    "HHCL version 2": (lambda rule: HybridHead(2, num_instances=2), [HybridContrastLoss()]),
}
# The labels, once in the head; the label-preserving loss reads its own and the supports'.
WAITS = {"ISE": 3, "ISE K=3": 3, "LP only": 3, "Cluster Contrast": 1}
WAITS |= {"HHCL": 1, "HHCL version 2": 1}


def make_step(method, rule, identities, instances, clusters):
    generator = np.random.default_rng(0)
    make, losses = HEADS[method]
    head = make(rule)
    images = generator.standard_normal((clusters, 8)).astype(np.float32)
    head.reset_memory(images, np.arange(clusters), images, (0,))
    head.train()
    labels = np.repeat(generator.permutation(clusters)[:identities], instances)
    rows = generator.standard_normal((len(labels), 8)).astype(np.float32)
    features = paddle.to_tensor(rows, stop_gradient=False)
    labels = paddle.to_tensor(labels)

    def step():
        output = {"logits": head(features, labels)}
        sum(v for loss in losses for v in loss(output, labels).values()).backward()

    step()  # the first one fills caches
    return step


@pytest.mark.parametrize("rule", ["hard", "mean"])
@pytest.mark.parametrize("method", HEADS)
def test_waits_do_not_depend_on_rows_or_clusters(monkeypatch, method, rule):
    counts = []
    for identities, instances, clusters in ((2, 2, 5), (16, 2, 50), (4, 32, 300)):
        step = make_step(method, rule, identities, instances, clusters)
        calls = []

        def counted(name, original, calls=calls):
            def call(*args, **more):
                calls.append(name)
                return original(*args, **more)

            return call

        with monkeypatch.context() as patch:
            for name in WAITING + VALUE_SIZED:
                patch.setattr(paddle.Tensor, name, counted(name, getattr(paddle.Tensor, name)))
            for name in VALUE_SIZED:
                patch.setattr(paddle, name, counted(name, getattr(paddle, name)))
            step()
        counts.append(calls)
    assert counts == [["numpy"] * WAITS[method]] * 3


def calls_of(step):
    calls = []

    def note(frame, event, argument):
        if event in ("call", "c_call"):
            calls.append(event)

    gc.disable()
    sys.setprofile(note)
    try:
        step()
    finally:
        sys.setprofile(None)
        gc.enable()
    return len(calls)


@pytest.mark.parametrize("rule", ["hard", "mean"])
@pytest.mark.parametrize("method", HEADS)
def test_calls_do_not_depend_on_rows_or_clusters(method, rule):
    """Four times the identities: the same number of calls of Python and C functions."""
    few = calls_of(make_step(method, rule, 4, 4, 20))
    assert calls_of(make_step(method, rule, 16, 4, 20)) == few
    assert calls_of(make_step(method, rule, 4, 4, 200)) == few
    if rule == "hard" or method.startswith("HHCL"):
        assert calls_of(make_step(method, rule, 4, 16, 20)) == few
