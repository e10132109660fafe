# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import paddle
import pytest

from ppcls_ise.heads import PLIHead, generate_support_samples, pli_degree
from ppcls_ise.heads.pli_head import nearest_others
from ppcls_ise.layers import FrozenBiasBatchNorm1D, group_batch_norms
from ppcls_ise.losses import cluster_contrast_loss, label_preserving_loss
from tests.conftest import read_reference, reference_files


def slow_supports(features, labels, centroids, degree, topk):
    """ISE (4), one support at a time, in float64."""
    features, centroids = features.astype(np.float64), centroids.astype(np.float64)
    supports, names, neighbors = [], [], []
    for feature, label in zip(features, labels, strict=True):
        ranked = [c for c in np.argsort(-(centroids @ feature)) if c != label][:topk]
        neighbors.append(ranked)
        for other in ranked:
            support = feature + 0.5 * degree * (centroids[other] - centroids[label])
            supports.append(support / np.linalg.norm(support))
            names.append(label)
    return np.array(supports), np.array(names), np.array(neighbors)


def test_degree():
    assert pli_degree(0.0) == 0.0
    assert pli_degree(1.0) == pytest.approx(0.5)
    assert pli_degree(0.5, 2.0) == pytest.approx(math.log(1 + (math.e - 1) / 2))


@pytest.mark.parametrize("topk", [1, 3])
def test_supports(unit_rows, topk):
    generator = np.random.default_rng(2)
    features, centroids = unit_rows(generator, 8, 16), unit_rows(generator, 6, 16)
    labels = generator.integers(0, 6, 8)
    ours = generate_support_samples(
        *map(paddle.to_tensor, (features, labels, centroids)), degree=0.3, topk=topk
    )
    for got, wanted in zip(
        ours, slow_supports(features, labels, centroids, 0.3, topk), strict=True
    ):
        np.testing.assert_allclose(got.numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize(("clusters", "topk"), [(1, 1), (1, 3), (2, 3), (3, 2)])
def test_fewer_clusters_than_asked_for(unit_rows, clusters, topk):
    generator = np.random.default_rng(2)
    features = paddle.to_tensor(unit_rows(generator, 4, 5))
    centroids = paddle.to_tensor(unit_rows(generator, clusters, 5))
    labels = paddle.to_tensor(np.arange(4) % clusters)
    supports, names, neighbors = generate_support_samples(
        features, labels, centroids, degree=0.5, topk=topk
    )
    assert supports.shape == [4 * topk, 5]
    assert neighbors.shape == [4, topk]
    filled = (neighbors == labels.unsqueeze(1)).numpy().reshape(-1)
    assert filled.sum() == 4 * max(0, topk - (clusters - 1))
    copies = np.repeat(features.numpy(), topk, axis=0)
    np.testing.assert_allclose(supports.numpy()[filled], copies[filled], atol=1e-6)


def make_head(prototypes, **options):
    head = PLIHead(momentum=0.2, temperature=0.05, memory="hard", **options)
    head.memory.reset(prototypes)
    head.train()
    return head


def slow_neighbors(similarity, labels, topk):
    """One row at a time; the own label where no other column is left."""
    found = []
    for row, label in zip(similarity, labels, strict=True):
        others = [c for c in np.argsort(-row, kind="stable") if c != label]
        found.append((others + [label] * topk)[:topk])
    return np.array(found)


@pytest.mark.parametrize("topk", [1, 2, 3, 5])
@pytest.mark.parametrize("clusters", [1, 2, 3, 4, 9])
def test_nearest_others(clusters, topk):
    generator = np.random.default_rng(clusters)
    similarity = generator.standard_normal((30, clusters)).astype(np.float32).round(1)  # ties
    given = similarity.copy()
    labels = generator.integers(0, clusters, 30)
    tensor = paddle.to_tensor(similarity)
    ours = nearest_others(tensor, paddle.to_tensor(labels), topk).numpy()
    np.testing.assert_array_equal(ours, slow_neighbors(similarity, labels, topk))
    np.testing.assert_array_equal(tensor.numpy(), given)


@pytest.mark.parametrize(
    ("clusters", "topk", "case"),
    [(7, 1, ""), (7, 3, ""), (2, 3, ""), (1, 2, ""), (6, 2, "twins"), (5, 2, "zero"), (5, 1, "t0")],
)
def test_logits_and_gradient_as_by_explicit_supports(unit_rows, clusters, topk, case):
    """The shared products against one product per row, with gradients by Paddle."""
    generator = np.random.default_rng(topk)
    prototypes, rows = unit_rows(generator, clusters, 9), unit_rows(generator, 12, 9)
    if case == "twins":
        prototypes[1::2] = prototypes[::2]
        rows[6:] = rows[:6]
    if case == "zero":
        rows[3] = 0
    labels = np.arange(12) % clusters
    head = make_head(prototypes, topk=topk)
    head.start_epoch(1 if case == "t0" else 6, 1, 10)
    memory = paddle.to_tensor(prototypes)
    weights = paddle.to_tensor(generator.standard_normal((12 * (1 + topk), clusters)), "float32")
    ours, theirs = (paddle.to_tensor(rows, stop_gradient=False) for _ in range(2))

    unit = paddle.nn.functional.normalize(theirs, axis=1, epsilon=1e-12)
    supports = generate_support_samples(unit, paddle.to_tensor(labels), memory, head.degree, topk)[
        0
    ]
    wanted = paddle.matmul(paddle.concat([unit, supports]), memory, transpose_y=True) / 0.05
    output = head(ours, paddle.to_tensor(labels))
    np.testing.assert_allclose(output["supports"].numpy(), supports.numpy(), atol=1e-6)
    np.testing.assert_allclose(output["logits"].numpy(), wanted.numpy(), atol=2e-5)
    (wanted * weights).sum().backward()
    (output["logits"] * weights).sum().backward()
    real = np.linalg.norm(rows, axis=1) > 0
    scale = np.abs(theirs.grad.numpy()[real]).max()
    np.testing.assert_allclose(
        ours.grad.numpy()[real], theirs.grad.numpy()[real], atol=1e-5 * scale
    )
    assert np.isfinite(ours.grad.numpy()).all()


def test_memory_changes_in_the_backward_pass_only(unit_rows):
    generator = np.random.default_rng(4)
    prototypes = unit_rows(generator, 5, 8)
    head = make_head(prototypes)
    features = paddle.to_tensor(unit_rows(generator, 6, 8), stop_gradient=False)
    labels = paddle.to_tensor(generator.integers(0, 5, (6, 3)))
    output = head(features, labels)
    np.testing.assert_array_equal(head.memory.prototypes.numpy(), prototypes)
    cluster_contrast_loss(output["logits"], output["row_labels"]).backward()
    changed = (head.memory.prototypes.numpy() != prototypes).any(axis=1)
    assert set(np.flatnonzero(changed)) == set(labels.numpy()[:, 0])


def test_progress_counts_steps_over_all_epochs(unit_rows):
    generator = np.random.default_rng(4)
    head = make_head(unit_rows(generator, 5, 8))
    head.start_epoch(2, iters=10, epochs=4)
    assert head.degree == pytest.approx(pli_degree(0.25))
    features = paddle.to_tensor(unit_rows(generator, 4, 8))
    head(features, paddle.to_tensor([[0], [1], [2], [3]]))
    assert head.degree == pytest.approx(pli_degree(11 / 40))


def test_evaluation_returns_unit_rows_without_labels():
    head = PLIHead()
    head.eval()
    rows = head(paddle.to_tensor([[3.0, 4.0], [0.0, 0.0]])).numpy()
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 0.0]], atol=1e-7)


def test_training_without_labels_is_an_error(unit_rows):
    with pytest.raises(ValueError, match="pseudo-labels"):
        make_head(unit_rows(np.random.default_rng(0), 2, 3))(paddle.ones([2, 3]))


@pytest.mark.parametrize("file", reference_files("pli_*.npz"))
def test_reference_supports(file):
    data = read_reference(file)
    tensors = [paddle.to_tensor(data[name]) for name in ("feats", "labels", "centroids")]
    steps = int(data["epochs"]) * int(data["iters"])
    for q, (epoch, iteration) in enumerate(zip(data["epoch"], data["iteration"], strict=True)):
        progress = (int(epoch) * int(data["iters"]) + int(iteration)) / steps
        degree = pli_degree(progress, float(data["base_lambda"]))
        assert degree == pytest.approx(float(data["cur_lambda"][q]), abs=1e-7)
        supports, names, neighbors = generate_support_samples(
            *tensors, degree, topk=int(data["topk"])
        )
        np.testing.assert_array_equal(neighbors.numpy(), data["nearest_index"])
        np.testing.assert_array_equal(names.numpy(), data["support_labels"])
        np.testing.assert_allclose(supports.numpy(), data["supports_f64"][q], atol=1e-6)


def ise_losses(output, temperature):
    contrast = cluster_contrast_loss(output["logits"], output["row_labels"])
    preserving = label_preserving_loss(
        output["features"],
        output["supports"],
        output["labels"],
        output["support_labels"],
        temperature,
    )
    return contrast, preserving


def head_of(data):
    rule = "hard" if str(data["sample_type"]) == "hard" else "mean"
    head = PLIHead(
        momentum=float(data["momentum"]),
        temperature=float(data["temp"]),
        memory=rule,
        topk=int(data["topk"]),
        base_lambda=float(data["base_lambda"]),
    )
    head.train()
    head.memory.reset(data["memory_init"])
    return head


@pytest.mark.parametrize("file", reference_files("ise_step*.npz"))
def test_reference_step(file):
    """One whole ISE step: losses, the gradient through the supports, the memory afterwards."""
    data = read_reference(file)
    head = head_of(data)
    head.start_epoch(int(data["epoch"]) + 1, int(data["iters"]), int(data["epochs"]))
    assert head.degree == pytest.approx(float(data["cur_lambda"]), abs=1e-7)
    features = paddle.to_tensor(data["f_out"], stop_gradient=False)
    output = head(features, paddle.to_tensor(data["labels"]).unsqueeze(1))
    contrast, preserving = ise_losses(output, float(data["temp_lp"]))
    total = float(data["loss_weight"]) * contrast + float(data["lp_loss_weight"]) * preserving
    total.backward()
    for ours, name in ((contrast, "loss_cc"), (preserving, "loss_lp"), (total, "loss_total")):
        assert float(ours) == pytest.approx(float(data[f"{name}_f64"]), rel=1e-5)
    # f_out is a leaf of unit rows, but the head normalizes its input once more: the gradient with
    # respect to f_out differs by the radial part, which N's Jacobian removes.
    wanted = data["grad_f_out_f64"]
    rows = data["f_out"].astype(np.float64)
    wanted = wanted - (wanted * rows).sum(axis=1, keepdims=True) * rows
    np.testing.assert_allclose(features.grad.numpy(), wanted, atol=1e-5 * np.abs(wanted).max())
    np.testing.assert_allclose(head.memory.prototypes.numpy(), data["memory_after_f64"], atol=1e-5)


@pytest.mark.parametrize("file", reference_files("trajectory_*.npz"))
def test_reference_trajectory(file):
    """Training steps of a small encoder with the plugin's head, losses, grouped batch norm and
    neck convention, and Paddle's Adam with coupled L2 decay, as the configs set it up."""
    data = read_reference(file)
    encoder = Encoder(data)
    head = head_of(data)
    optimizer = paddle.optimizer.Adam(
        learning_rate=float(data["lr"]),
        weight_decay=paddle.regularizer.L2Decay(float(data["weight_decay"])),
        parameters=encoder.parameters(),
    )
    iters, epochs = int(data["iters"]), int(data["epochs"])
    for q, (inputs, labels) in enumerate(zip(data["inputs"], data["labels"], strict=True)):
        if q % iters == 0:
            head.start_epoch(int(data["start_epoch"]) + q // iters + 1, iters, epochs)
        output = head(encoder(paddle.to_tensor(inputs)), paddle.to_tensor(labels).unsqueeze(1))
        contrast, preserving = ise_losses(output, float(data["temp_lp"]))
        total = float(data["loss_weight"]) * contrast + float(data["lp_loss_weight"]) * preserving
        total.backward()
        optimizer.step()
        optimizer.clear_grad()
        for ours, name in ((contrast, "loss_cc"), (preserving, "loss_lp"), (total, "loss_total")):
            assert float(ours) == pytest.approx(float(data[name][q]), rel=1e-4)
    for name, values in encoder.state().items():
        np.testing.assert_allclose(values, data[f"final_{name}"], atol=1e-5, err_msg=name)
    np.testing.assert_allclose(head.memory.prototypes.numpy(), data["memory_final"], atol=1e-4)


class Encoder(paddle.nn.Layer):
    """fc1 - bn1 - ReLU - fc2 - feat_bn with a frozen bias, from the file's weights."""

    def __init__(self, data):
        super().__init__()
        for layer in ("fc1", "fc2"):
            weight = data[f"init_{layer}_weight"].T
            linear = paddle.nn.Linear(*weight.shape, bias_attr=False)
            linear.weight.set_value(weight)
            setattr(self, layer, linear)
        for layer in ("bn1", "feat_bn"):
            kind = paddle.nn.BatchNorm1D if layer == "bn1" else FrozenBiasBatchNorm1D
            norm = kind(len(data[f"init_{layer}_weight"]), momentum=0.9)
            for ours, theirs in BN_NAMES.items():
                getattr(norm, ours).set_value(data[f"init_{layer}_{theirs}"])
            setattr(self, layer, norm)
        group_batch_norms(self, data["inputs"].shape[1])

    def forward(self, inputs):
        hidden = paddle.nn.functional.relu(self.bn1(self.fc1(inputs)))
        return self.feat_bn(self.fc2(hidden))

    def state(self):
        values = {
            f"{layer}_weight": getattr(self, layer).weight.numpy().T for layer in ("fc1", "fc2")
        }
        for layer in ("bn1", "feat_bn"):
            for ours, theirs in BN_NAMES.items():
                values[f"{layer}_{theirs}"] = getattr(getattr(self, layer), ours).numpy()
        return values


BN_NAMES = {
    "weight": "weight",
    "bias": "bias",
    "_mean": "running_mean",
    "_variance": "running_var",
}
