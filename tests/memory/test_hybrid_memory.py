# SPDX-License-Identifier: Apache-2.0
import numpy as np
import paddle
import pytest

from ppcls_ise.losses.hybrid_loss import hybrid_contrast_loss, instance_contrast_loss
from ppcls_ise.memory.hybrid_memory import HybridMemory, InstanceMemory, draw_members
from tests.conftest import read_reference, reference_files


def slow_move(row, towards, momentum):
    moved = momentum * row + (1 - momentum) * towards
    return moved / np.linalg.norm(moved)


def slow_update(memory, rows, labels, momentum, clusters, slots):
    """HHCL (4), HHCL (5) (``slots`` 0) and HHCL (9) in the reference's layout, in float64."""
    memory, rows = memory.astype(np.float64), rows.astype(np.float64)
    for label in sorted(set(labels.tolist())):
        mine = [row for row, name in zip(rows, labels, strict=True) if name == label]
        mean = sum(mine) / len(mine)
        if slots:
            for j, row in enumerate(mine):
                memory[label + (1 + j % slots) * clusters] = row
            memory[label] = slow_move(memory[label], mean, momentum)
        else:
            hardest = mine[int(np.argmin([row @ memory[label] for row in mine]))]
            memory[label] = slow_move(memory[label], hardest, momentum)
            memory[label + clusters] = slow_move(memory[label + clusters], mean, momentum)
    return memory


def memory_of(version, momentum=0.1, temperature=0.05, num_instances=4):
    if version == 1:
        return HybridMemory(momentum, temperature)
    return InstanceMemory(momentum, temperature, num_instances)


@pytest.mark.parametrize("scale", [(1, 1), (0.5, 4)])
@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("version", [1, 2])
def test_update(unit_rows, version, momentum, scale):
    generator = np.random.default_rng(5)
    start = unit_rows(generator, 9 * (2 if version == 1 else 5), 8)
    rows = unit_rows(generator, 20, 8) * generator.uniform(*scale, (20, 1)).astype(np.float32)
    labels = generator.integers(0, 6, 20)  # clusters 6, 7 and 8 are absent
    labels[:7] = 2  # more than the slots of version 2
    memory = memory_of(version, momentum)
    memory.restore(start)
    memory.update(paddle.to_tensor(rows), paddle.to_tensor(labels))
    after = memory.rows.numpy()
    wanted = slow_update(start, rows, labels, momentum, 9, 0 if version == 1 else 4)
    np.testing.assert_allclose(after, wanted, atol=1e-6)
    absent = ~np.isin(np.arange(len(start)) % 9, labels)
    np.testing.assert_array_equal(after[absent], start[absent])


@pytest.mark.parametrize("version", [1, 2])
def test_several_updates_follow_one_another(unit_rows, version):
    generator = np.random.default_rng(8)
    wanted = unit_rows(generator, 6 * (2 if version == 1 else 5), 8)
    memory = memory_of(version, 0.3)
    memory.restore(wanted)
    for _ in range(4):
        rows, labels = unit_rows(generator, 12, 8), generator.integers(0, 6, 12)
        memory.update(paddle.to_tensor(rows), paddle.to_tensor(labels))
        wanted = slow_update(wanted, rows, labels, 0.3, 6, 0 if version == 1 else 4)
    np.testing.assert_allclose(memory.rows.numpy(), wanted, atol=1e-5)


def test_hard_prototypes_take_the_first_of_tied_rows():
    memory = memory_of(1, 0.5)
    memory.reset(np.array([[1.0, 0.0, 0.0]], np.float32))
    rows = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], np.float32)
    memory.update(paddle.to_tensor(rows), paddle.to_tensor([0, 0]))
    np.testing.assert_allclose(memory.hard_prototypes.numpy(), [[0.5**0.5, 0.5**0.5, 0]], atol=1e-6)
    np.testing.assert_allclose(
        memory.prototypes.numpy(), np.array([[1, 0.5, 0.5]]) / 1.5**0.5, atol=1e-6
    )


def test_slots_fill_up_in_batch_order_and_the_last_rows_stay():
    memory = memory_of(2, num_instances=3)
    memory.restore(np.zeros((2 * 4, 1), np.float32) - 1)
    rows = np.arange(1, 9, dtype=np.float32)[:, None]
    labels = np.array([0, 1, 0, 0, 0, 1, 0, 0])  # label 0: rows 1 3 4 5 7 8, label 1: rows 2 6
    memory.update(paddle.to_tensor(rows), paddle.to_tensor(labels))
    np.testing.assert_array_equal(memory.slots.numpy()[:, :, 0], [[5, 2], [7, 6], [8, -1]])
    memory.update(paddle.to_tensor(rows[:1] * 100), paddle.to_tensor([1]))
    np.testing.assert_array_equal(memory.slots.numpy()[:, :, 0], [[5, 100], [7, 6], [8, -1]])


@pytest.mark.parametrize("momentum", [0.0, 0.2])
@pytest.mark.parametrize("version", [1, 2])
def test_zero_rows_leave_no_nan(version, momentum):
    memory = memory_of(version, momentum)
    memory.restore(np.tile(np.eye(3, dtype=np.float32), (2 if version == 1 else 5, 1)))
    memory.update(paddle.zeros([2, 3]), paddle.to_tensor([1, 1]))
    assert np.isfinite(memory.rows.numpy()).all()
    if momentum:
        np.testing.assert_allclose(memory.prototypes.numpy(), np.eye(3), atol=1e-6)


def test_reset_starts_both_prototypes_from_the_centroids(unit_rows):
    centroids = paddle.to_tensor(unit_rows(np.random.default_rng(0), 3, 4))
    before = centroids.numpy()
    memory = memory_of(1)
    memory.reset(centroids)
    np.testing.assert_array_equal(memory.rows.numpy(), np.concatenate([before, before]))
    rows = paddle.to_tensor(unit_rows(np.random.default_rng(1), 2, 4))
    memory.update(rows, paddle.to_tensor([0, 0]))
    assert (memory.hard_prototypes.numpy()[0] != memory.prototypes.numpy()[0]).any()
    np.testing.assert_array_equal(centroids.numpy(), before)
    assert memory.prototypes.stop_gradient and memory.hard_prototypes.stop_gradient


def test_reset_draws_the_slots_from_each_clusters_images(unit_rows):
    generator = np.random.default_rng(0)
    features, centroids = unit_rows(generator, 30, 4), unit_rows(generator, 3, 4)
    labels = generator.integers(-1, 2, 30)
    labels[7] = 2  # a cluster of one image
    drawn = []
    for seed in (1, 1, 2):
        memory = memory_of(2)
        memory.reset(centroids, features, labels, np.random.default_rng((seed, 5)))
        drawn.append(memory.slots.numpy())
    np.testing.assert_array_equal(memory.prototypes.numpy(), centroids)
    assert drawn[0].shape == (4, 3, 4)
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    for cluster in range(3):
        members = {row.tobytes() for row in features[labels == cluster]}
        assert {row.tobytes() for row in drawn[0][:, cluster]} <= members
    np.testing.assert_array_equal(drawn[0][:, 2], np.tile(features[7], (4, 1)))


def test_draws_are_uniform_with_replacement():
    labels = np.array([1, -1, 0, 1, 1, 0, -1])
    chosen = draw_members(labels, 2, 6000, np.random.default_rng(0))
    for cluster in range(2):
        images, counts = np.unique(chosen[:, cluster], return_counts=True)
        np.testing.assert_array_equal(images, np.flatnonzero(labels == cluster))
        np.testing.assert_allclose(counts / 6000, 1 / len(images), atol=0.03)


@pytest.mark.parametrize(
    ("labels", "clusters", "word"),
    [([0, 2], 3, r"without an image: \[1\]"), ([], 1, r"\[0\]"), ([0, 1], 1, "out of range")],
)
def test_labels_that_do_not_fit_are_an_error(labels, clusters, word):
    with pytest.raises(ValueError, match=word):
        draw_members(np.array(labels, np.int64), clusters, 2, np.random.default_rng(0))


def test_bad_use_says_what_to_change():
    for version in (1, 2):
        with pytest.raises(ValueError, match="momentum"):
            memory_of(version, 1.1)
        with pytest.raises(RuntimeError, match="reset"):
            _ = memory_of(version).rows
    with pytest.raises(ValueError, match=r"Arch\.Head\.num_instances"):
        memory_of(2, num_instances=0)
    with pytest.raises(ValueError, match=r"Arch\.Head\.version"):
        memory_of(2).reset(np.eye(3, dtype=np.float32))
    with pytest.raises(ValueError, match="multiple of 5 rows, got 6"):
        memory_of(2).restore(np.zeros((6, 3), np.float32))


def reference_memory(data):
    version = {"CMhybrid": 1, "CMhybrid_v2": 2}[str(data["mode"])]
    memory = memory_of(
        version, float(data["momentum"]), float(data["temp"]), int(data["num_instances"])
    )
    memory.restore(data["memory_init"])
    assert len(memory.prototypes) == int(data["num_clusters"])
    return memory, version


@pytest.mark.parametrize("file", reference_files("memory_hybrid_*.npz"))
def test_reference(file):
    """Loss and its terms, gradient and memory of the released code, rows used as given."""
    data = read_reference(file)
    memory, version = reference_memory(data)
    inputs = paddle.to_tensor(data["inputs"], stop_gradient=False)
    targets = paddle.to_tensor(data["targets"])
    logits = memory.logits_of_unit_rows(inputs)

    def loss_of(weight):
        if version == 1:
            return hybrid_contrast_loss(*logits, targets, hard_weight=weight)
        return instance_contrast_loss(*logits, targets, mean_weight=weight)

    loss = loss_of(float(data["hard_weight"]))
    assert float(loss) == pytest.approx(float(data["loss_f64"]), rel=1e-5)
    first = "ce_hard" if version == 1 else "ce_mean"
    assert float(loss_of(1.0)) == pytest.approx(float(data[first]), rel=1e-5)
    if version == 2:
        assert float(loss_of(0.0)) == pytest.approx(float(data["ce_instance"]), rel=1e-5)
    loss.backward()
    memory.update(inputs, targets)
    for ours, name in (
        (inputs.grad.numpy(), "grad_inputs_f64"),
        (memory.rows.numpy(), "memory_after_f64"),
    ):
        np.testing.assert_allclose(ours, data[name], atol=1e-5 * np.abs(data[name]).max())
