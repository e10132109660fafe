# SPDX-License-Identifier: Apache-2.0
"""What a step costs beside arithmetic: waits for the device, and Python's work per row."""

import gc
import sys

import numpy as np
import paddle
import pytest

from ppcls_ise.heads import ClusterContrastHead, CSAHead, HybridHead, PLIHead
from ppcls_ise.losses import AggregationLoss, ClusterContrastLoss, HybridContrastLoss, LPLoss

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
    "CSA": (
        lambda rule: CSAHead(8, num_heads=2, attention_dim=4),
        [ClusterContrastLoss(), AggregationLoss()],
    ),
    "CSA without HPS": (
        lambda rule: CSAHead(8, memory=rule, num_heads=2, attention_dim=4),
        [ClusterContrastLoss(), AggregationLoss()],
    ),
}
# Labels to the host; index arrays to the device.
EXPECTED = ["to host by numpy", "to device by to_tensor"]


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
def test_transfers_do_not_depend_on_rows_or_clusters(transfers, method, rule):
    for identities, instances, clusters in ((2, 2, 5), (16, 2, 50), (4, 32, 300)):
        step = make_step(method, rule, identities, instances, clusters)
        with transfers() as found:
            step()
        assert found == EXPECTED


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
