# SPDX-License-Identifier: Apache-2.0
"""PyTorch checkpoints: the name map without PyTorch, the files where it is installed."""

import importlib.util
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import paddle
import pytest

import ppcls_ise
from ppcls_ise.errors import WeightsError
from ppcls_ise.weights.conversion import convert, from_torch, read_torch, to_torch, write_torch
from ppcls_ise.weights.loading import load_into, read_state, write_state
from ppcls_ise.weights.rec_model_layout import rec_model_layout
from tests.conftest import read_reference, reference_files, run_tool
from tests.engine.test_resnet50 import assert_close, forward, rec_model, regenerated

HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed (extra torch)")
FILES = reference_files("resnet50_[!i]*.npz")


def their_state(*, gem: bool = False) -> dict[str, np.ndarray]:
    """A state_dict of the right names and shapes, in PyTorch's order, counters included."""
    generator = np.random.default_rng(1)
    state: dict[str, np.ndarray] = {}
    for tensor in rec_model_layout(gem=gem):
        state[tensor.torch_name] = generator.standard_normal(tensor.shape, dtype=np.float32)
        if tensor.torch_name.endswith("running_var"):
            counter = tensor.torch_name.replace("running_var", "num_batches_tracked")
            state[counter] = np.zeros((), np.int64)
    return state


def same_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return list(a) == list(b) and all(
        (a[n].dtype, a[n].shape, a[n].tobytes()) == (b[n].dtype, b[n].shape, b[n].tobytes())
        for n in a
    )


# -- names, without PyTorch -------------------------------------------------------------------


def test_the_layout_is_that_of_the_recipes():
    by_torch = {t.torch_name: t for t in rec_model_layout(gem=True)}
    for theirs, ours, shape in (
        ("base.0.weight", "backbone.stem.0.conv.weight", (64, 3, 7, 7)),
        ("base.1.running_var", "backbone.stem.0.bn._variance", (64,)),
        ("base.4.0.conv1.weight", "backbone.blocks.0.conv0.conv.weight", (64, 64, 1, 1)),
        ("base.4.0.downsample.0.weight", "backbone.blocks.0.short.conv.weight", (256, 64, 1, 1)),
        ("base.5.0.conv1.weight", "backbone.blocks.3.conv0.conv.weight", (128, 256, 1, 1)),
        ("base.6.5.bn2.running_mean", "backbone.blocks.12.conv1.bn._mean", (256,)),
        ("base.7.0.conv2.weight", "backbone.blocks.13.conv1.conv.weight", (512, 512, 3, 3)),
        ("base.7.0.downsample.1.bias", "backbone.blocks.13.short.bn.bias", (2048,)),
        ("base.7.2.conv3.weight", "backbone.blocks.15.conv2.conv.weight", (2048, 512, 1, 1)),
        ("gap.p", "neck.pooling.p", (1,)),
        ("feat_bn.running_var", "neck.feat_bn._variance", (2048,)),
    ):
        assert (by_torch[theirs].name, by_torch[theirs].shape) == (ours, shape)
    assert len(rec_model_layout()) == 269 and len(by_torch) == 270
    assert len({t.name for t in by_torch.values()}) == 270


@pytest.mark.parametrize("gem", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_there_and_back(gem, prefix):
    theirs = {prefix + name: value for name, value in their_state(gem=gem).items()}
    ours, report = from_torch(theirs, source="x")
    assert report.converted == 269 + gem
    assert ("blocks[15]" in str(report)) == gem
    back, report = to_torch(ours, source="y", data_parallel=bool(prefix))
    assert same_bits(back, theirs) and report.converted == 269 + gem
    again, _ = from_torch(back, source="z")
    assert same_bits(again, ours)


def test_what_is_left_out_is_named():
    theirs = their_state() | {"classifier.weight": np.zeros((751, 2048), np.float32)}
    ours, report = from_torch(theirs, source="x")
    assert "1 left out (classifier.weight)" in str(report)
    ours |= {"head.fc.weight": np.zeros((2048, 751)), "head.fc.bias": np.zeros(751)}
    back, report = to_torch(ours, source="y")
    assert report.ignored == ["head.fc.weight", "head.fc.bias"]
    assert not [name for name in back if "fc" in name]


def without(state: dict, word: str) -> dict:
    return {name: value for name, value in state.items() if word not in name}


def with_embedding(state: dict) -> dict:
    return state | {"feat.weight": np.zeros((256, 2048)), "feat.bias": np.zeros(256)}


def renumbered(state: dict) -> dict:
    """The stages follow the max-pooling at once: no ReLU in between."""
    numbers = {"4": "3", "5": "4", "6": "5", "7": "6"}
    return {
        ".".join([p[0], numbers.get(p[1], p[1]), *p[2:]]) if p[0] == "base" else ".".join(p): v
        for p, v in ((name.split("."), value) for name, value in state.items())
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: without(s, "base.7.2.conv2"), ["1 missing (base.7.2.conv2.weight)"]),
        (lambda s: without(s, "feat_bn"), ["4 missing (feat_bn.weight, feat_bn.bias"]),
        (with_embedding, ["2 unexpected (feat.weight, feat.bias)", "--features"]),
        (renumbered, ["missing (base.", "unexpected (base.3.0", "no ReLU"]),
        (
            lambda s: s | {"base.4.0.bn1.IN.weight": np.zeros(32, np.float32)},
            ["IBN-ResNet-50", "base.4.0.bn1.IN.bias"],
        ),
        (
            lambda s: s | {"base.0.weight": np.zeros((64, 3, 3, 3), np.float32)},
            ["1 mismatched (base.0.weight [64, 3, 3, 3] instead of [64, 3, 7, 7])"],
        ),
        (lambda s: {}, ["0 tensors fit", "269 missing", "264 more"]),
        (lambda s: {"conv9.weight": np.zeros(1)}, ["unexpected (conv9.weight)"]),
        (lambda s: s | {"module.feat_bn.bias": np.zeros(2048)}, ["with and without module."]),
    ],
)
def test_another_network_is_an_error_that_names_the_difference(change, words):
    with pytest.raises(WeightsError) as error:
        from_torch(change(their_state()), source="other.pth.tar")
    for word in ["other.pth.tar", *words]:
        assert word in str(error.value)


def test_another_network_of_ours(tmp_path):
    ours, _ = from_torch(their_state(), source="x")
    for changed, word in (
        (without(ours, "blocks.15.conv2.bn"), "4 missing"),
        (ours | {"neck.fc.weight": np.zeros(1)}, "1 unexpected"),
    ):
        with pytest.raises(WeightsError, match=f"y is no state of the ResNet-50.*{word}"):
            to_torch(changed, source="y")


def test_files_whose_names_do_not_fit(tmp_path):
    (tmp_path / "a.pdparams").write_bytes(b"")
    for source, target, word in (
        ("a.pdparams", "b.pdparams", "has to end in"),
        ("a.pdparams", "b.onnx", "has to end in"),
        ("none.pth", "b.pdparams", "there is no checkpoint"),
    ):
        with pytest.raises(WeightsError, match=word):
            convert(tmp_path / source, tmp_path / target)
    result = run_tool("convert_weights", str(tmp_path / "none.pth"), str(tmp_path / "b.pdparams"))
    assert result.returncode == 1 and "error: there is no checkpoint" in result.stdout
    assert "Traceback" not in result.stdout
    assert run_tool("convert_weights", "--help").returncode == 0


# -- files, with PyTorch ----------------------------------------------------------------------


def save_as_trained(state: dict[str, np.ndarray], path: Path, *, zipped: bool = True) -> None:
    """As the training scripts do: data parallel, epoch, and the best mAP as a numpy number."""
    import torch

    tensors = OrderedDict(
        (f"module.{name}", torch.from_numpy(value.copy())) for name, value in state.items()
    )
    content = {"state_dict": tensors, "epoch": 50, "best_mAP": np.float64(0.847)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)


@needs_torch
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_converted_checkpoint_gives_the_reference_features(file, zipped, tmp_path):
    """Checkpoint -> tool -> .pdparams -> PaddleClas's model -> features, and back by the tool."""
    weights = regenerated(file)
    theirs, ours = tmp_path / "model_best.pth.tar", tmp_path / "model.pdparams"
    save_as_trained(weights, theirs, zipped=zipped)
    result = run_tool("convert_weights", str(theirs), str(ours))
    assert result.returncode == 0, result.stdout
    gem = "gap.p" in weights
    assert f"{269 + gem} tensors converted" in result.stdout
    assert sorted(os.listdir(tmp_path)) == [ours.name, theirs.name]

    reference = read_reference(file)
    for load in (read_state, paddle.load):
        model = rec_model(gem=gem)
        if load is read_state:
            load_into(model, load(ours), source=str(ours))
        else:  # as PaddleClas itself loads
            missing, unexpected = model.set_state_dict(load(str(ours)))
            assert not missing and not unexpected
        model.eval()
        out = forward(model, reference["images"])
        for name in ("gap", "bn", "feat"):
            assert_close(name, out[name], reference)

    back = tmp_path / "back.pth"
    result = run_tool("convert_weights", str(ours), str(back))
    assert result.returncode == 0, result.stdout
    returned = read_torch(back)
    assert set(returned) == set(weights)
    assert all(returned[name].tobytes() == value.tobytes() for name, value in weights.items())
    assert all(returned[name].dtype == value.dtype for name, value in weights.items())


@pytest.mark.parametrize("gem", [False, True])
def test_files_there_and_back_in_both_spellings(gem, tmp_path):
    theirs = their_state(gem=gem)
    for name, prefix in (("a.pt", ""), ("b.pth", "module.")):
        ours, back = tmp_path / "w.pdparams", tmp_path / "back.pth.tar"
        write_torch(tmp_path / name, {prefix + n: v for n, v in theirs.items()})
        convert(tmp_path / name, ours)
        convert(ours, back, data_parallel=bool(prefix))
        assert same_bits(read_torch(back), {prefix + n: v for n, v in theirs.items()})


@needs_torch
def test_a_plain_state_dict_and_other_number_types(tmp_path):
    import torch

    theirs = their_state()
    path = tmp_path / "a.pth"
    tensors = {name: torch.from_numpy(value.copy()) for name, value in theirs.items()}
    torch.save(tensors, path)
    assert same_bits(read_torch(path), theirs)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        cast = {n: v.to(dtype) if v.is_floating_point() else v for n, v in tensors.items()}
        torch.save(cast, path)
        ours, _ = from_torch(read_torch(path), source="x")
        assert {value.dtype for value in ours.values()} == {np.dtype("float32")}
        expected = tensors["base.0.weight"].to(dtype).float().numpy()
        np.testing.assert_array_equal(ours["backbone.stem.0.conv.weight"], expected)


@needs_torch
def test_a_number_of_either_numpy_is_passed_over(tmp_path):
    """The best mAP in a checkpoint that another numpy wrote; PyTorch alone refuses it."""
    import torch

    path = tmp_path / "a.pth"
    content = {"state_dict": {"a": torch.ones(2)}, "best_mAP": np.float64(0.5)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    data = path.read_bytes()
    for old, new in ((b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")):
        path.write_bytes(data.replace(old, new))
        np.testing.assert_array_equal(read_torch(path)["a"], np.ones(2))


def test_a_failed_conversion_leaves_the_target_alone(tmp_path):
    target = tmp_path / "w.pdparams"
    target.write_bytes(b"kept")
    write_torch(tmp_path / "a.pth", without(their_state(), "base.5"))
    with pytest.raises(WeightsError, match="missing"):
        convert(tmp_path / "a.pth", target)
    assert target.read_bytes() == b"kept"
    assert sorted(os.listdir(tmp_path)) == ["a.pth", "w.pdparams"]


def test_a_converted_file_serves_the_engine(tmp_path):
    """The config's own neck, and PaddleClas's, take it."""
    write_torch(tmp_path / "a.pth", their_state())
    convert(tmp_path / "a.pth", tmp_path / "w.pdparams")
    ppcls_ise.register()
    report = load_into(rec_model(gem=False), read_state(tmp_path / "w.pdparams"), source="w")
    assert str(report) == "269 tensors loaded"


def test_what_is_written_is_what_paddle_reads(tmp_path):
    ours, _ = from_torch(their_state(gem=True), source="x")
    write_state(tmp_path / "w.pdparams", ours)
    model = rec_model(gem=True)
    missing, unexpected = model.set_state_dict(paddle.load(str(tmp_path / "w.pdparams")))
    assert not missing and not unexpected
    for name, value in model.state_dict().items():
        assert value.numpy().tobytes() == ours[name].tobytes()
