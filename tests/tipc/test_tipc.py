# SPDX-License-Identifier: Apache-2.0
"""The TIPC scripts: what they read, what they call, and that they tell when a stage fails."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ppcls_ise
from ppcls_ise.config.overrides import get_config
from tests.conftest import REPOSITORY
from tests.engine.test_engine import engine_of

pytestmark = pytest.mark.slow
CONFIGS = sorted((REPOSITORY / "test_tipc" / "configs").glob("*/*_train_*.txt"))
LITE = "lite_train_lite_infer"
ISE = Path("test_tipc/configs/ISE_market/ISE_market_train_infer_python.txt")
# What a line begins with, by its index among the non-empty ones: PaddleClas's runner counts so.
KEYS = {
    1: "model_name", 2: "python", 3: "gpu_list", 4: "-o Global.device", 6: "-o Global.epochs",
    7: "-o Global.output_dir", 9: "-o Global.pretrained_model", 10: "train_model_name",
    14: "trainer", 15: "norm_train", 19: "to_static_train", 23: "eval",
    27: "-o Global.save_inference_dir", 28: "-o Global.pretrained_model", 29: "norm_export",
    36: "infer_model", 37: "infer_export", 39: "inference", 40: "-o Global.use_gpu",
    43: "-o Global.batch_size", 47: "-o Global.infer_imgs", 49: "-o Global.benchmark",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


def read(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]


def bash(script: str, *arguments: str) -> str:
    command = ["bash", "-c", f"source test_tipc/common_func.sh; {script}", "bash", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize(
    ("script", "arguments", "answer"),
    [
        ("func_parser_key", ["-o Global.device:cpu"], "-o Global.device"),
        ("func_parser_value", ["eval:tools/eval.py -o x=[1,*] "], "tools/eval.py -o x=[1,*]"),
        ("func_parser_value", ["-o Global.pretrained_model:"], ""),
        ("func_parser_value", ["##"], ""),
        ("func_parser_value", ["url:https://host/file"], "https"),
        ("func_parser_value_lite", ["a=b=c", "="], "b"),
        ("func_parser_params", ["-o e:lite=2|whole=70", "whole"], "70"),
        ("func_parser_params", ["-o e:lite=2|whole=70", "other"], ""),
        ("func_parser_params", ["-o e:lite=2|whole=70"], ""),
        ("func_set_params", ["-o a", "3"], "-o a=3"),
        ("func_set_params", ["null", "3"], ""),
        ("func_set_params", ["-o a", "null"], ""),
        ("func_set_params", ["-o a", ""], ""),
        ("func_set_amp_params", ["key", "null"], "-o AMP.use_amp=False"),
    ],
)  # fmt: skip
def test_lines_are_read_as_the_format_has_it(script, arguments, answer):
    assert bash(f'{script} "$@"', *arguments).strip() == answer


def test_amp_levels():
    assert "AMP.use_amp=True" in (amp := bash("func_set_amp_params key amp")) and "level=O1" in amp
    assert "level=O2" in bash("func_set_amp_params key fp16")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_is_line_for_line_what_the_runner_reads(path):
    lines = read(path)
    for index, key in KEYS.items():
        assert lines[index].split(":")[0] == key
    for line in lines[1:51]:
        assert line.count(":") <= 1 and "'" not in line
    assert lines[1] == "model_name:RecModel"  # Arch.name: folders of checkpoints are called so
    for index in (15, 23, 29):
        program, *arguments = lines[index].split(":", 1)[1].split()
        assert (REPOSITORY / program).is_file()
        assert arguments[0] == "-c" and set(arguments[2::2]) == {"-o"}
        config = get_config(str(REPOSITORY / arguments[1]), [*arguments[3::2], "Global.device=cpu"])
        assert config["Arch"]["name"] == "RecModel"
        assert config["Global"]["image_root"].startswith("dataset/tipc/")
    assert (REPOSITORY / "deploy" / lines[39].split(":")[1].split()[0]).resolve().is_file()
    assert {entry.split("=")[1] for entry in lines[6].split(":")[1].split("|")} == {"2"}


# -- the runner, with a program in the place of Python that only notes what it is asked to do ------

FAKE_PYTHON = """#!/usr/bin/env bash
if [[ $1 == -c ]]; then echo "${FAKE_GPUS:-0}"; exit; fi
echo "CUDA=${CUDA_VISIBLE_DEVICES:-} $*" >>"$FAKE_LOG"
for word in "$@"; do
    [[ $word != Global.output_dir=* || -n ${FAKE_NO_WEIGHTS:-} ]] || {
        mkdir -p "${word#*=}/RecModel"; echo weights >"${word#*=}/RecModel/latest.pdparams"; }
done
echo "ips: 12.5 samples/s, loss: 0.5"
[[ -z ${FAKE_FAILURE:-} || "$*" != *"$FAKE_FAILURE"* ]]
"""


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of what the chains need, so that they write nothing into the repository."""
    root = tmp_path / "a check out"
    leave = shutil.ignore_patterns("output", "__pycache__")
    for name in ("ppcls_ise", "configs", "tools", "test_tipc"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=leave)
    return root


def tipc(root: Path, script: str, *arguments: str, path: Path, **environment: str):
    return subprocess.run(
        ["bash", f"test_tipc/{script}", *map(str, arguments)],
        cwd=root,
        env=os.environ | {"PATH": f"{path}:{os.environ['PATH']}"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def edit(root: Path, **values: str) -> Path:
    """A copy of the ISE config with other values, by the name of the line's index: line3=..."""
    lines = read(root / ISE)
    for name, value in values.items():
        index = int(name.removeprefix("line"))
        lines[index] = f"{lines[index].split(':')[0]}:{value}"
    path = root / ISE.with_name("edited_train_infer_python.txt")
    path.write_text("\n\n".join(lines) + "\r\n", encoding="utf-8")
    return path


@pytest.fixture
def fake(checkout, tmp_path):
    """Run the chain on fake Python: -> result, commands, lines of results_python.log."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python").write_text(FAKE_PYTHON)
    (folder / "python").chmod(0o755)

    def run(mode=LITE, *, environment=None, **values):
        noted = tmp_path / "noted"
        noted.unlink(missing_ok=True)
        done = tipc(
            checkout,
            "test_train_inference_python.sh",
            edit(checkout, **values),
            mode,
            path=folder,
            FAKE_LOG=str(noted),
            **environment or {},
        )
        log = checkout / "test_tipc" / "output" / "ISE_market" / mode / "results_python.log"
        commands = noted.read_text().splitlines() if noted.exists() else []
        return done, commands, log.read_text().splitlines() if log.exists() else []

    return run


def test_all_stages_in_order(fake):
    done, commands, results = fake()
    assert done.returncode == 0, done.stdout
    programs = [re.search(r"(\w+)\.py", command)[1] for command in commands]
    assert programs == 2 * ["train", "eval", "export_model", "infer"]
    assert len(results) == 8
    assert all("Run successfully with command - ISE_market - python" in line for line in results)
    train, evaluate, export, infer = commands[:4]
    folder = f"test_tipc/output/ISE_market/{LITE}/norm_train_gpus_-1_autocast_null_nodes_1"
    for word in (
        "Global.device=cpu", "Global.epochs=2", f"Global.output_dir={folder}",
        "AMP.use_amp=False", "DataLoader.Train.sampler.batch_size=8", "Global.print_mem_info=True",
    ):  # fmt: skip
        assert f"-o {word}" in train
    assert f"-o Global.pretrained_model={folder}/RecModel/latest" in evaluate
    assert f"-o Global.save_inference_dir={folder}" in export
    assert f"-o Global.rec_inference_model_dir=../{folder}" in infer
    assert "Global.to_static=True" in commands[4] and "Global.to_static=True" not in train


@pytest.mark.parametrize(
    ("stage", "successful", "failed"),
    [("train.py", 0, 1), ("eval.py", 3, 1), ("export_model.py", 2, 1), ("infer.py", 3, 1)],
)
def test_a_stage_that_fails_fails_the_chain(fake, stage, successful, failed):
    done, _, results = fake(line14="norm_train", environment={"FAKE_FAILURE": f"tools/{stage}"})
    assert done.returncode == 1
    bad = [line for line in results if "Run failed with command - ISE_market - " in line]
    assert len(bad) == failed and f"tools/{stage}" in bad[0]
    assert len(results) - len(bad) == successful


def test_training_that_leaves_no_weights_has_failed(fake):
    done, commands, results = fake(line14="norm_train", environment={"FAKE_NO_WEIGHTS": "1"})
    assert done.returncode == 1 and len(commands) == 1
    assert "Run failed with command" in results[0]


def test_cards(fake):
    def trains(*, gpus, **values):
        values = {"line14": "norm_train", "line4": "gpu", "line40": "True|False"} | values
        done, commands, _ = fake(environment={"FAKE_GPUS": str(gpus)}, **values)
        assert done.returncode == 0, done.stdout
        return [c for c in commands if "train.py" in c], [c for c in commands if "infer.py" in c]

    (one, two), predictions = trains(gpus=0, line3="0|0,1")
    assert "launch" not in one and "Global.device=cpu" in one
    assert "--nproc_per_node=2 --backend=gloo" in two and "Global.device=cpu" in two
    assert all("Global.use_gpu=False" in p for p in predictions) and len(predictions) == 2
    (one, two), predictions = trains(gpus=2, line3="0|0,1")
    assert one.startswith("CUDA=0 ") and "Global.device=gpu" in one
    assert "--devices=0,1" in two and "gloo" not in two and "Global.device=gpu" in two
    assert sum("Global.use_gpu=True" in p for p in predictions) == 2
    (one,), _ = trains(gpus=2, line3="-1")
    assert "Global.device=cpu" in one and "launch" not in one


def test_modes(fake):
    _, commands, _ = fake("train_amp_infer", line14="norm_train")
    assert "AMP.use_amp=True" in commands[0] and "AMP.level=O1" in commands[0]
    _, commands, _ = fake("whole_train_whole_infer", line6="whole_train_whole_infer=7")
    assert "Global.epochs=7" in commands[0]
    done, commands, results = fake("whole_infer")
    assert done.returncode == 0 and len(results) == len(commands) == 2
    assert "Global.pretrained_model=./inference/tipc/ISE_market/latest" in commands[0]
    done, commands, _ = fake("lite_train")
    assert done.returncode == 2 and not commands and "lite_train_lite_infer" in done.stdout


def test_nothing_to_do_is_a_failure(fake):
    assert fake(line15="null")[0].returncode == 1


def test_benchmark(fake, checkout, tmp_path):
    environment = {"FAKE_LOG": str(tmp_path / "noted"), "path": tmp_path / "bin"}
    log = checkout / "test_tipc/output/ISE_market/benchmark_train"
    setting = "dynamic_bs4_amp_DP_N1C2"
    arguments = (ISE, "benchmark_train", setting)
    done = tipc(checkout, "benchmark_train.sh", *arguments, **environment)
    assert done.returncode == 1 and "no ips" in done.stdout  # fake Python writes no train.log
    command = (tmp_path / "noted").read_text()
    for word in (
        "sampler.batch_size=4",
        "Global.epochs=1",
        "AMP.use_amp=True",
        "--nproc_per_node=2",
    ):
        assert word in command
    assert (log / "results_python.log").is_file()
    for wrong in ("dynamic", "dynamic_bs4_amp_DP_N2C8"):
        done = tipc(checkout, "benchmark_train.sh", ISE, "benchmark_train", wrong, **environment)
        assert done.returncode == 2


def test_onnx_chain(checkout, fake, tmp_path):
    fake()  # makes the folder of fake programs
    shutil.copy(tmp_path / "bin" / "python", tmp_path / "bin" / "paddle2onnx")
    name = "ISE_market_linux_gpu_normal_normal_paddle2onnx_python_linux_cpu.txt"
    log = tmp_path / "noted"

    def run(**more):
        log.unlink(missing_ok=True)
        environment = {"FAKE_LOG": str(log), "path": tmp_path / "bin"} | more
        return tipc(checkout, "test_paddle2onnx.sh", ISE.with_name(name), **environment)

    done = run()
    assert done.returncode == 2 and "prepare.sh" in done.stdout
    folder = checkout / "inference" / "tipc" / "ISE_market"
    folder.mkdir(parents=True)
    (folder / "inference.pdiparams").touch()
    (folder / "inference.json").touch()
    assert run().returncode == 0
    convert, paddle, onnx, compared = log.read_text().splitlines()
    assert "--model_filename=inference.json" in convert and "--opset_version=13" in convert
    assert "use_onnx" not in paddle and "-o Global.use_onnx=True" in onnx
    assert "compare_results.py" in compared
    (folder / "inference.json").rename(folder / "inference.pdmodel")
    done = run(FAKE_FAILURE="Global.use_onnx=True")
    assert done.returncode == 1 and "compare_results" not in log.read_text()
    assert "--model_filename=inference.pdmodel" in log.read_text()
    results = checkout / "test_tipc/output/ISE_market/paddle2onnx_infer/results_paddle2onnx.log"
    assert [" Run failed " in line for line in results.read_text().splitlines()] == [
        False,
        False,
        True,
    ]


def test_real_images_take_the_place_of_generated_ones(checkout, fake, tmp_path):
    del fake  # its Python draws no images; links are what counts here
    real = tmp_path / "real"
    (real / "Market-1501-v15.09.15" / "bounding_box_train").mkdir(parents=True)
    (real / "Market-1501-v15.09.15" / "bounding_box_test").mkdir()
    (real / "MSMT17_V1" / "test").mkdir(parents=True)
    (real / "MSMT17_V1" / "list_train.txt").touch()
    environment = {"FAKE_LOG": str(tmp_path / "noted"), "path": tmp_path / "bin"}
    links = checkout / "dataset" / "tipc"

    def prepare(model, mode, **more):
        config = f"test_tipc/configs/{model}/{model}_train_infer_python.txt"
        done = tipc(checkout, "prepare.sh", config, mode, **environment, **more)
        assert done.returncode == 0, done.stdout
        name = "msmt17" if model == "ISE_msmt17" else "market1501"
        return (links / name).readlink(), (links / f"{name}_infer").readlink(), done.stdout

    lite = links / "lite"
    market = real / "Market-1501-v15.09.15"
    data = {"TIPC_DATA": str(real)}
    assert prepare("HHCL", LITE, **data)[:2] == (lite, lite / "query")
    mode = "lite_train_whole_infer"
    assert prepare("HHCL", mode, **data)[:2] == (lite, market / "bounding_box_test")
    mode = "whole_train_whole_infer"
    assert prepare("HHCL", mode, **data)[:2] == (market, market / "bounding_box_test")
    msmt17 = real / "MSMT17_V1"
    assert prepare("ISE_msmt17", mode, **data)[:2] == (msmt17, msmt17 / "test")
    *found, text = prepare("CSA", mode)
    assert found == [lite, lite / "bounding_box_test"] and "stand in" in text


# -- stored results ------------------------------------------------------------------------------


def compare(stored: Path, found: Path, *arguments: str):
    program = REPOSITORY / "test_tipc" / "compare_results.py"
    command = [sys.executable, program, "--gt_file", stored, "--log_file", found, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("log", "stored", "status"),
    [
        ("mAP 0.5, loss: 1.0 mAP 0.25", {"mAP": 0.26, "loss": 1.0}, 0),
        ("mAP 0.5", {"mAP": 0.6}, 1),
        ("mAP nan", {"mAP": 0.6}, 1),
        ("xmAP 0.5", {"mAP": 0.5}, 1),
        (None, {"mAP": 0.5}, 1),
    ],
)
def test_figures_are_compared(tmp_path, log, stored, status):
    if log:
        (tmp_path / "a.log").write_text(log)
    (tmp_path / "gt.json").write_text(json.dumps({"a.log": stored}))
    done = compare(tmp_path / "gt.json", tmp_path)
    assert done.returncode == status
    assert ("WRONG" in done.stdout) == bool(status)


@pytest.mark.parametrize(
    ("paths", "features", "status"),
    [
        (["a", "b"], [[1.0], [2.001]], 0),
        (["a", "b"], [[1.0], [2.1]], 1),
        (["a", "b"], [[1.0], [np.nan]], 1),
        (["b", "a"], [[1.0], [2.0]], 1),
        (["a"], [[1.0]], 1),
    ],
)
def test_features_are_compared(tmp_path, paths, features, status):
    np.savez(tmp_path / "a.npz", paths=["a", "b"], features=[[1.0], [2.0]])
    np.savez(tmp_path / "b.npz", paths=paths, features=features)
    options = ("--atol", "0.01", "--rtol", "0")
    assert compare(tmp_path / "a.npz", tmp_path / "b.npz", *options).returncode == status


# -- the real chain -------------------------------------------------------------------------------


@pytest.mark.long
def test_ise_from_training_to_prediction(checkout):
    """Training, evaluation, export and prediction; predicted features are the evaluated ones."""
    here = Path(sys.executable).parent
    config = edit(checkout, line14="norm_train")
    prepared = tipc(checkout, "prepare.sh", config, LITE, path=here)
    assert prepared.returncode == 0, prepared.stdout
    done = tipc(checkout, "test_train_inference_python.sh", config, LITE, path=here)
    assert done.returncode == 0, done.stdout
    output = checkout / "test_tipc" / "output" / "ISE_market" / LITE
    results = (output / "results_python.log").read_text().splitlines()
    assert len(results) == 4 and all("Run successfully with command" in line for line in results)
    stored = REPOSITORY / "test_tipc" / "results" / "ISE_market.json"
    compared = compare(stored, output, "--atol", "0.05", "--rtol", "0.2")
    assert compared.returncode == 0, compared.stdout

    weights = output / "norm_train_gpus_-1_autocast_null_nodes_1" / "RecModel" / "latest"
    yaml, *overrides = read(config)[23].split(":", 1)[1].split()[2:]
    overrides = overrides[1::2] + [
        f"Global.image_root={checkout}/dataset/tipc/lite",
        f"Global.pretrained_model={weights}",
        "Global.device=cpu",
    ]
    engine = engine_of(overrides, mode="eval", config=REPOSITORY / yaml)
    query, _ = engine.query_and_gallery()
    with np.load(checkout / "test_tipc" / "output" / "ISE_market_features.npz") as predicted:
        names = [Path(path).name for path in predicted["paths"]]
        assert names == [Path(path).name for path in engine.query_dataloader.dataset.images]
        evaluated = query[0] / np.linalg.norm(query[0], axis=1, keepdims=True)
        np.testing.assert_allclose(predicted["features"], evaluated, atol=1e-4)


@pytest.mark.long
@pytest.mark.skipif("PPCLS_HOME" not in os.environ, reason="needs a checkout of PaddleClas")
def test_ise_under_the_unchanged_scripts_of_paddleclas(checkout):
    here = Path(sys.executable).parent
    checkout = checkout.rename(checkout.with_name("checkout"))  # they quote nothing
    config = edit(checkout, line14="norm_train")
    assert tipc(checkout, "prepare.sh", config, LITE, path=here).returncode == 0
    for name in ("test_train_inference_python.sh", "common_func.sh"):
        shutil.copy(Path(os.environ["PPCLS_HOME"]) / "test_tipc" / name, checkout / "test_tipc")
    done = tipc(checkout, "test_train_inference_python.sh", config, LITE, path=here)
    results = checkout / "test_tipc" / "output" / "RecModel" / LITE / "results_python.log"
    lines = results.read_text().splitlines()
    assert len(lines) == 4, done.stdout
    assert all("Run successfully with command - RecModel - " in line for line in lines), done.stdout
