# SPDX-License-Identifier: Apache-2.0
"""HHCL: its losses by slow oracles, the head in a step, and the synthetic config."""

import numpy as np
import paddle
import pytest

import ppcls_ise
from ppcls_ise.heads.hybrid_head import HybridHead
from ppcls_ise.losses.hybrid_loss import (
    HybridContrastLoss,
    cross_entropy,
    hardest_instance_logits,
    hybrid_contrast_loss,
    instance_contrast_loss,
    smoothed_cross_entropy,
)
from tests.conftest import (
    REPOSITORY,
    lite_overrides,
    numeric_gradient,
    read_reference,
    reference_files,
)


def log_softmax(row):
    shifted = row - row.max()
    return shifted - np.log(np.exp(shifted).sum())


def slow_cross_entropy(logits, labels, smoothing=False):
    """HHCL (10), one row and one class at a time, in float64."""
    clusters = logits.shape[1]
    kappa = clusters // 50
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        target = np.zeros(clusters)
        target[label] = 1.0
        if smoothing:
            target[label] = 0.9
            chosen = np.argsort(-row)[:kappa] if kappa > 1 else range(clusters)
            for c in chosen:
                target[c] += 0.1 / len(chosen)
        total -= (target * log_softmax(row)).sum()
    return total / len(logits)


def slow_hardest(logits, labels):
    """HHCL (7): logits [R, n, C] -> [R, C]."""
    hardest = logits.max(axis=1)
    for r, label in enumerate(labels):
        hardest[r, label] = logits[r, :, label].min()
    return hardest


def slow_loss(version, first, second, labels, weight, convex, smoothing):
    if version == 2:
        second, convex = slow_hardest(second, labels), True
    first, second = (slow_cross_entropy(x, labels, smoothing) for x in (first, second))
    if convex:
        return weight * first + (1 - weight) * second
    return weight * (first + (1 - weight) * second)


@pytest.mark.parametrize("clusters", [1, 7, 99, 100, 160])
def test_label_smoothing(clusters):
    """kappa = 0, 0, 1, 2 and 3."""
    generator = np.random.default_rng(clusters)
    logits = generator.standard_normal((5, clusters)) * 4
    labels = generator.integers(0, clusters, 5)
    labels[0] = logits[0].argmax()  # the true class is among the most probable ones
    leaf = paddle.to_tensor(logits, stop_gradient=False)
    loss = smoothed_cross_entropy(leaf, paddle.to_tensor(labels))
    loss.backward()
    assert loss.shape == []
    assert float(loss) == pytest.approx(slow_cross_entropy(logits, labels, True), abs=1e-12)
    wanted = numeric_gradient(lambda x: slow_cross_entropy(x, labels, True), logits)
    np.testing.assert_allclose(leaf.grad.numpy(), wanted, atol=1e-8)


@pytest.mark.parametrize("clusters", [3, 120])
def test_cross_entropy_is_not_cut_off(clusters):
    """Paddle's own stops at 64 per row on a CPU."""
    logits = np.zeros((2, clusters), np.float32)
    logits[:, 1] = 300.0
    tensors = paddle.to_tensor(logits), paddle.to_tensor([0, 1])
    assert float(cross_entropy(*tensors)) == 150.0
    smoothed = slow_cross_entropy(logits.astype(np.float64), [0, 1], True)
    assert float(smoothed_cross_entropy(*tensors)) == pytest.approx(smoothed, rel=1e-6)


@pytest.mark.parametrize("smoothing", [False, True])
@pytest.mark.parametrize("weight", [0.0, 0.5, 0.8, 1.0])
@pytest.mark.parametrize(("version", "convex"), [(1, False), (1, True), (2, True)])
def test_loss_and_gradients(version, convex, weight, smoothing):
    generator = np.random.default_rng(3)
    first = generator.standard_normal((4, 5)) * 3
    second = generator.standard_normal((4, 5) if version == 1 else (4, 3, 5)) * 3
    labels = generator.integers(0, 5, 4)
    leaves = [paddle.to_tensor(x, stop_gradient=False) for x in (first, second)]
    tensors = *leaves, paddle.to_tensor(labels)
    if version == 1:
        loss = hybrid_contrast_loss(
            *tensors, hard_weight=weight, convex=convex, label_smoothing=smoothing
        )
    else:
        loss = instance_contrast_loss(*tensors, mean_weight=weight, label_smoothing=smoothing)
    loss.backward()
    settings = labels, weight, convex, smoothing
    assert float(loss) == pytest.approx(slow_loss(version, first, second, *settings), rel=1e-9)
    for leaf, wanted in (
        (leaves[0], numeric_gradient(lambda x: slow_loss(version, x, second, *settings), first)),
        (leaves[1], numeric_gradient(lambda x: slow_loss(version, first, x, *settings), second)),
    ):
        np.testing.assert_allclose(leaf.grad.numpy(), wanted, atol=1e-7)


def test_released_weights_are_one_half_and_a_quarter():
    logits = paddle.to_tensor([[2.0, 0.0]])
    label = paddle.to_tensor([1])
    term = float(paddle.nn.functional.cross_entropy(logits, label))
    assert float(hybrid_contrast_loss(logits, logits, label)) == pytest.approx(0.75 * term)
    assert float(hybrid_contrast_loss(logits, logits, label, convex=True)) == pytest.approx(term)


def test_tied_slots_pass_the_gradient_to_one():
    logits = paddle.to_tensor(np.ones((1, 3, 2)), stop_gradient=False)
    hardest = hardest_instance_logits(logits, paddle.to_tensor([1]))
    hardest.sum().backward()
    np.testing.assert_array_equal(hardest.numpy(), [[1, 1]])
    np.testing.assert_array_equal(logits.grad.numpy(), [[[1, 1], [0, 0], [0, 0]]])


def random_state(unit_rows, version, clusters=5, rows=6):
    """A head in training with a memory of its own, its memory's rows, features and labels."""
    generator = np.random.default_rng(4)
    head = HybridHead(version, num_instances=3)
    head.memory.restore(unit_rows(generator, clusters * (2 if version == 1 else 4), 8))
    head.train()
    features = unit_rows(generator, rows, 8)
    return head, head.memory.rows.numpy(), features, generator.integers(0, clusters, rows)


@pytest.mark.parametrize("version", [1, 2])
def test_memory_changes_in_the_backward_pass_only(unit_rows, version):
    head, before, features, labels = random_state(unit_rows, version)
    leaf = paddle.to_tensor(features, stop_gradient=False)
    output = head(leaf, paddle.to_tensor(np.stack([labels, labels * 0], axis=1)))
    (loss,) = HybridContrastLoss()({"logits": output}, None).values()
    np.testing.assert_array_equal(head.memory.rows.numpy(), before)
    loss.backward()
    after = head.memory.rows.numpy()
    changed = (after != before).any(axis=1)
    assert set(np.flatnonzero(changed) % 5) == set(labels)
    # one update, not one per term of the loss
    twin = random_state(unit_rows, version)[0].memory
    twin.update(paddle.to_tensor(features), paddle.to_tensor(labels))
    np.testing.assert_allclose(after, twin.rows.numpy(), atol=1e-6)


@pytest.mark.parametrize("smoothing", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_gradient_uses_the_memory_before_the_update(unit_rows, version, smoothing):
    head, before, features, labels = random_state(unit_rows, version)
    leaf = paddle.to_tensor(features * 2.5, stop_gradient=False)  # the head normalizes
    layer = HybridContrastLoss(0.7, convex=True, label_smoothing=smoothing)
    output = head(leaf, paddle.to_tensor(labels).unsqueeze(1))
    (loss,) = layer({"logits": output}, None).values()
    loss.backward()
    memory = before.astype(np.float64)

    def slow(rows):
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        first, second = (rows @ part.T / 0.05 for part in (memory[:5], memory[5:]))
        if version == 2:
            second = second.reshape(len(rows), 3, 5)
        return slow_loss(version, first, second, labels, 0.7, True, smoothing)

    rows = features.astype(np.float64) * 2.5
    assert float(loss) == pytest.approx(slow(rows), rel=1e-5)
    wanted = numeric_gradient(slow, rows)
    np.testing.assert_allclose(leaf.grad.numpy(), wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("version", [1, 2])
def test_one_cluster(unit_rows, version):
    head = HybridHead(version, num_instances=2)
    features = unit_rows(np.random.default_rng(0), 6, 4)
    head.reset_memory(features, np.zeros(6, np.int64), features[:1], (1, 1))
    head.train()
    leaf = paddle.to_tensor(features, stop_gradient=False)
    output = head(leaf, paddle.zeros([6, 1], "int64"))
    (loss,) = HybridContrastLoss(label_smoothing=True)({"logits": output}, None).values()
    loss.backward()
    assert float(loss) == 0.0
    np.testing.assert_allclose(leaf.grad.numpy(), 0.0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(head.memory.prototypes.numpy(), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("version", [1, 2])
def test_reset_depends_on_the_seed_key_alone(unit_rows, version):
    generator = np.random.default_rng(0)
    features, centroids = unit_rows(generator, 40, 4), unit_rows(generator, 3, 4)
    labels = generator.permutation(np.arange(40) % 4 - 1)
    states = []
    for key in ((1, 2), (1, 2), (1, 3)):
        head = HybridHead(version)
        head.reset_memory(features, labels, centroids, key)
        states.append(head.memory.rows.numpy())
    np.testing.assert_array_equal(states[0], states[1])
    assert (states[0] != states[2]).any() == (version == 2)
    assert not head.state_dict()  # neither parameter nor weight


def test_evaluation_returns_unit_rows_without_labels():
    head = HybridHead()
    head.eval()
    rows = head(paddle.to_tensor([[3.0, 4.0], [0.0, 0.0]])).numpy()
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 0.0]], atol=1e-7)


def test_bad_options_name_the_key():
    with pytest.raises(ValueError, match=r"Arch\.Head\.version"):
        HybridHead(3)
    with pytest.raises(ValueError, match="balance"):
        HybridContrastLoss(1.5)


@pytest.mark.parametrize("file", reference_files("memory_hybrid_*.npz"))
def test_reference_step(file):
    """A step through head and loss layer. Only for unit rows: the head normalizes its input (files
    with other rows are for the memory alone, see tests/memory/test_hybrid_memory.py)."""
    data = read_reference(file)
    rows = data["inputs"].astype(np.float64)
    if np.abs(np.linalg.norm(rows, axis=1) - 1).max() > 1e-5:
        pytest.skip("rows are not unit")
    head = HybridHead(
        2 if str(data["mode"]) == "CMhybrid_v2" else 1,
        float(data["momentum"]),
        temperature=float(data["temp"]),
        num_instances=int(data["num_instances"]),
    )
    head.memory.restore(data["memory_init"])
    head.train()
    features = paddle.to_tensor(data["inputs"], stop_gradient=False)
    output = head(features, paddle.to_tensor(data["targets"]).unsqueeze(1))
    layer = HybridContrastLoss(float(data["hard_weight"]))
    (loss,) = layer({"logits": output}, None).values()
    loss.backward()
    assert float(loss) == pytest.approx(float(data["loss_f64"]), rel=1e-5)
    # The inputs are a leaf of unit rows, and the head's normalization removes the radial part.
    wanted = data["grad_inputs_f64"]
    wanted = wanted - (wanted * rows).sum(axis=1, keepdims=True) * rows
    np.testing.assert_allclose(features.grad.numpy(), wanted, atol=1e-5 * np.abs(wanted).max())
    np.testing.assert_allclose(head.memory.rows.numpy(), data["memory_after_f64"], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "epochs", "iters", "eps"), [("market", 60, 200, 0.45), ("msmt17", 60, 400, 0.6)]
)
def test_published_settings(name, epochs, iters, eps):
    ppcls_ise.register()
    from ppcls_ise.config.overrides import get_config

    config = get_config(str(REPOSITORY / "configs" / f"HHCL_{name}.yaml"), ["Global.device=cpu"])
    sampler = config["DataLoader"]["Train"]["sampler"]
    head = {**config["Arch"]["Head"]}
    ((loss_name, loss),) = config["Loss"]["Train"][0].items()
    assert (config["Global"]["epochs"], sampler["iters"]) == (epochs, iters)
    assert config["Clustering"]["eps"] == eps
    assert head.pop("name") == "HybridHead" and loss_name == "HybridContrastLoss"
    assert head == {
        "version": 1,
        "momentum": 0.1,
        "temperature": 0.05,
        "num_instances": sampler["num_instances"],
    }
    assert loss == {"weight": 1.0, "balance": 0.5, "convex": False, "label_smoothing": False}


@pytest.mark.parametrize("version", [1, 2])
def test_training_with_the_synthetic_config(lite_set, tmp_path, version):
    ppcls_ise.register()
    from ppcls_ise.config.overrides import get_config
    from ppcls_ise.engine.engine import UnsupervisedEngine

    overrides = lite_overrides(
        lite_set,
        tmp_path,
        Global__eval_during_train=False,
        Arch__Head__version=version,
        Arch__Head__num_instances=4,
    )
    config = get_config(str(REPOSITORY / "configs" / "HHCL_synthetic.yaml"), overrides)
    engine = UnsupervisedEngine(config)
    engine.train()
    memory = engine.head.memory
    clusters = engine.train_dataset.pseudo_labels.max() + 1
    assert clusters > 1
    assert len(memory.rows) == clusters * (2 if version == 1 else 5)
    np.testing.assert_allclose(np.linalg.norm(memory.rows.numpy(), axis=1), 1.0, atol=1e-5)
    log = (tmp_path / "RecModel" / "train.log").read_text(encoding="utf-8")
    assert log.count("| HybridContrastLoss ") == 2 and "nan" not in log
