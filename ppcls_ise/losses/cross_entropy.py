# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy without a bound, plain and smoothed."""

from typing import Any

import paddle
from paddle.autograd import PyLayer

from ppcls_ise.layers.precision import in_float32

_SMOOTHING = 0.1
_CLASSES_PER_TARGET = 50


@in_float32
def cross_entropy(logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
    """``CE(z, y) = mean over rows of (log sum_c exp z_c - z_y)``.

    Paddle's own ``cross_entropy`` and ``log_softmax`` cut ``z - max z`` off at -64 on a CPU, so
    that no row counts more than 64. A low temperature, or rows that are not unit, reach that.

    Three passes over [R, C] write anything, one of them in place.

    Args:
        logits: ``z`` [R, C].
        labels: [R] int64.

    Returns:
        Scalar (0-D).
    """
    return _CrossEntropy.apply(logits, labels)


class _CrossEntropy(PyLayer):
    @staticmethod
    def forward(ctx: Any, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        shifted = _shifted(logits)
        wanted = _at_labels(shifted, labels)
        exponentials = shifted.exp_()
        total = exponentials.sum(axis=1)
        ctx.save_for_backward(exponentials, total, labels)
        return (paddle.log(total) - wanted).mean()

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor, None]:
        """``(softmax(z) - onehot(y)) / R``"""
        exponentials, total, labels = ctx.saved_tensor()
        scale = gradient / total.shape[0]
        result = exponentials * (scale / total).unsqueeze(1)
        own = (_at_labels(result, labels) - scale).unsqueeze(1)
        result.put_along_axis_(labels.reshape([-1, 1]), own, 1)
        return result, None


@in_float32
def smoothed_cross_entropy(logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
    """Cross-entropy with the label smoothing of HHCL's ``--smooth`` (HHCL (10)).

    With epsilon = 0.1 and kappa = floor(C / 50)::

        target = (1 - epsilon) onehot + epsilon / C                               kappa <= 1
        target = (1 - epsilon) onehot + epsilon / kappa on the kappa most probable classes, else
        loss   = mean over rows of -sum_c target_c log softmax(z)_c

    The most probable classes may include the true one. Source: HHCL, released code, where the
    value of ``--smooth`` is only a switch.

    Args:
        logits: ``z`` [R, C].
        labels: [R] int64.

    Returns:
        Scalar (0-D).
    """
    logits = _shifted(logits)
    kappa = logits.shape[1] // _CLASSES_PER_TARGET
    if kappa <= 1:
        spread = logits
    else:
        # Only the choice comes from topk; the gradient flows through the gathered logits.
        top = paddle.topk(logits.detach(), kappa, axis=1)[1]
        spread = paddle.take_along_axis(logits, top, axis=1)
    # sum_c target_c z_c; the targets of a row sum to 1
    wanted = (1.0 - _SMOOTHING) * _at_labels(logits, labels) + _SMOOTHING * spread.mean(axis=1)
    return (_log_partition(logits) - wanted).mean()


def _shifted(logits: paddle.Tensor) -> paddle.Tensor:
    """``z - max z`` per row: the loss is the same, and small ones keep their digits."""
    return logits - logits.detach().max(axis=1, keepdim=True)


def _log_partition(logits: paddle.Tensor) -> paddle.Tensor:
    """``log sum_c exp z_rc`` of `_shifted` logits, [R]."""
    return paddle.log(paddle.exp(logits).sum(axis=1))


def _at_labels(logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
    """``z_{r, y_r}``, [R]."""
    rows = paddle.arange(logits.shape[0], dtype=labels.dtype)
    return paddle.gather_nd(logits, paddle.stack([rows, labels.reshape([-1])], axis=1))
