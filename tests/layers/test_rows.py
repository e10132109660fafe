# SPDX-License-Identifier: Apache-2.0
import numpy as np
import paddle
import pytest

from ppcls_ise.layers.rows import host_labels, least_similar, members_by_label, unit_rows, upload
from tests.conftest import numeric_gradient


def test_unit_rows_and_their_gradient():
    generator = np.random.default_rng(0)
    rows, weights = generator.standard_normal((2, 5, 7))
    leaf = paddle.to_tensor(rows, stop_gradient=False)
    unit = unit_rows(leaf)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(unit.numpy(), rows / lengths, atol=1e-12)
    (unit * paddle.to_tensor(weights)).sum().backward()
    wanted = numeric_gradient(
        lambda x: (x / np.linalg.norm(x, axis=1, keepdims=True) * weights).sum(), rows
    )
    np.testing.assert_allclose(leaf.grad.numpy(), wanted, atol=1e-8)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e-13, 1e-6, 1e6])
def test_very_short_and_very_long_rows(scale):
    rows = paddle.to_tensor(np.array([[3.0, 4.0]], np.float32) * scale, stop_gradient=False)
    unit = unit_rows(rows)
    wanted = np.array([[0.6, 0.8]]) * min(1.0, 5 * scale / 1e-12)
    np.testing.assert_allclose(unit.numpy(), wanted, atol=1e-6)
    unit.sum().backward()
    assert np.isfinite(rows.grad.numpy()).all()


def test_members_by_label():
    labels = np.array([5, 2, 5, 5, 9, 2])
    names, members, counts = members_by_label(labels)
    assert names.tolist() == [2, 5, 9]
    assert counts.tolist() == [2, 3, 1]
    assert members.tolist() == [[1, 5, 1], [0, 2, 3], [4, 4, 4]]


def test_least_similar_takes_the_first_of_tied_rows():
    rows = paddle.to_tensor([[1.0, 0], [0, 1], [0, 1], [1, 0], [1, 0]])
    labels = np.array([0, 0, 0, 1, 1])
    least = least_similar(rows, *upload(labels, members_by_label(labels)[1]), paddle.eye(2))
    assert least.tolist() == [1, 3]


def test_labels_of_any_kind():
    for values in ([1, 0], np.array([[1], [0]], np.int32), paddle.to_tensor([[1], [0]], "int32")):
        labels = host_labels(values, 2, below=2)
        assert labels.dtype == np.int64
        assert labels.tolist() == [1, 0]
    assert host_labels([], 0, below=2).tolist() == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1, 1], "2 rows need as many labels, got 3"),
        ([0, -1], r"0 \.\. 1 .* got -1 \.\. 0"),
        ([0, 2], r"got 0 \.\. 2"),
    ],
)
def test_labels_that_do_not_fit(values, message):
    with pytest.raises(ValueError, match=message):
        host_labels(paddle.to_tensor(values), 2, below=2)
