# SPDX-License-Identifier: Apache-2.0
import numpy as np
import paddle
import pytest

from ppcls_ise.losses import cluster_contrast_loss
from ppcls_ise.memory.cluster_memory import ClusterMemory
from tests.conftest import read_reference, reference_files


def slow_update(prototypes, rows, labels, momentum, rule):
    """CC (7) and CC (8), row by row, in float64."""
    memory = prototypes.astype(np.float64)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

    def move(label, row):
        moved = momentum * memory[label] + (1 - momentum) * row
        memory[label] = moved / np.linalg.norm(moved)

    if rule == "mean":
        for row, label in zip(rows, labels, strict=True):
            move(label, row)
    else:
        for label in np.unique(labels):
            mine = rows[labels == label]
            move(label, mine[np.argmin(mine @ memory[label])])
    return memory


@pytest.mark.parametrize("rule", ["hard", "mean"])
@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.9])
def test_update(unit_rows, rule, momentum):
    generator = np.random.default_rng(5)
    prototypes = unit_rows(generator, 9, 8)
    rows = unit_rows(generator, 20, 8) * generator.uniform(0.5, 4, (20, 1)).astype(np.float32)
    labels = generator.integers(0, 6, 20)  # clusters 6, 7 and 8 are absent
    memory = ClusterMemory(momentum, 0.05, rule)
    memory.reset(prototypes)
    memory.update(paddle.to_tensor(rows), paddle.to_tensor(labels))
    after = memory.prototypes.numpy()
    wanted = slow_update(prototypes, rows.astype(np.float64), labels, momentum, rule)
    np.testing.assert_allclose(after, wanted, atol=1e-6)
    absent = np.setdiff1d(np.arange(9), labels)
    np.testing.assert_array_equal(after[absent], prototypes[absent])


def test_hard_takes_the_first_of_tied_rows():
    memory = ClusterMemory(0.5, 0.05, "hard")
    memory.reset(np.array([[1.0, 0.0, 0.0]], np.float32))
    rows = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], np.float32)
    memory.update(paddle.to_tensor(rows), paddle.to_tensor([0, 0]))
    np.testing.assert_allclose(memory.prototypes.numpy()[0], [0.5**0.5, 0.5**0.5, 0.0], atol=1e-6)


def test_zero_row_leaves_no_nan():
    memory = ClusterMemory(0.2, 0.05, "mean")
    memory.reset(np.eye(3, dtype=np.float32))
    memory.update(paddle.zeros([2, 3]), paddle.to_tensor([1, 1]))
    np.testing.assert_allclose(memory.prototypes.numpy(), np.eye(3), atol=1e-6)


def test_reset_does_not_share_the_callers_array():
    centroids = paddle.eye(3)
    memory = ClusterMemory(0.2, 0.05)
    memory.reset(centroids)
    memory.update(paddle.to_tensor([[0.0, 1.0, 0.0]]), paddle.to_tensor([0]))
    np.testing.assert_array_equal(centroids.numpy(), np.eye(3))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((1.1, 0.05), "momentum"), ((-0.1, 0.05), "momentum"), ((0.1, 0.0), "temperature")],
)
def test_bad_parameters(arguments, word):
    with pytest.raises(ValueError, match=word):
        ClusterMemory(*arguments)
    with pytest.raises(ValueError, match="update"):
        ClusterMemory(0.1, 0.05, "median")


def test_empty_memory_says_so():
    with pytest.raises(RuntimeError, match="reset"):
        _ = ClusterMemory(0.1, 0.05).prototypes


@pytest.mark.parametrize("file", reference_files("memory_[ho][ar][ri]*.npz"))
def test_reference(file):
    """Loss, gradient and memory of the released code (its ``ori`` is our ``mean``)."""
    data = read_reference(file)
    rule = "hard" if str(data["sample_type"]) == "hard" else "mean"
    memory = ClusterMemory(float(data["momentum"]), float(data["temp"]), rule)
    memory.reset(data["memory_init"])
    inputs = paddle.to_tensor(data["inputs"], stop_gradient=False)
    targets = paddle.to_tensor(data["targets"])
    loss = cluster_contrast_loss(memory.logits(inputs), targets)
    loss.backward()
    memory.update(inputs, targets)
    assert float(loss) == pytest.approx(float(data["loss_f64"]), rel=1e-5)
    for ours, name in (
        (inputs.grad.numpy(), "grad_inputs_f64"),
        (memory.prototypes.numpy(), "memory_after_f64"),
    ):
        np.testing.assert_allclose(ours, data[name], atol=1e-5 * np.abs(data[name]).max())
