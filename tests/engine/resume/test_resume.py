# SPDX-License-Identifier: Apache-2.0
"""Stopped and continued, a run ends as if nothing had happened; and what is said when it cannot."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import ppcls_ise
from ppcls_ise.engine.resume.state_files import StateFolder, read_state_file
from ppcls_ise.errors import ConfigError, DataError, DivergenceError, WeightsError
from ppcls_ise.utils import array_files
from ppcls_ise.utils.stop_requests import stop_requests
from ppcls_ise.weights.loading import read_progress
from tests.conftest import REPOSITORY, SYNTHETIC, lite_overrides, options
from tests.engine.resume.kills import SETTINGS
from tests.engine.resume.kills import digest as digest_of_files
from tests.engine.test_engine import SMALL_NET, copy_of, digest, engine_of, log_of, train

METHODS = {
    "ISE": [],
    "static": ["Global.to_static=True"],
    "HHCL": ["Arch.Head.version=2", "Arch.Head.num_instances=4"],
    "CSA": ["Optimizer.lr={'name': 'Cosine', 'learning_rate': 0.001, 'warmup_epoch': 1}"],
}


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


class Killed(BaseException):
    """Ends a run in this process at a chosen step, without any farewell."""


def overrides_of(root: Path, output: Path, **more) -> list[str]:
    return lite_overrides(root, output, **{**SETTINGS, "Global__epochs": 2, **more})


def start(overrides, *, stop=None, config=SYNTHETIC):
    """Train until ``stop`` = (epoch, steps done), or to the end."""
    engine = engine_of(overrides, config=config)
    before_step = engine.checkpoints.before_step

    def watched(step: int) -> None:
        before_step(step)
        if (engine.checkpoints._epoch, step) == stop:
            raise Killed

    engine.checkpoints.before_step = watched
    if stop:
        with pytest.raises(Killed):
            engine.train()
    else:
        engine.train()
    return engine


def states(output: Path) -> list[Path]:
    return StateFolder(output / "RecModel" / "resume").paths()


def latest(output: Path) -> str:
    return f"Global.checkpoints={output / 'RecModel' / 'latest'}"


@pytest.mark.parametrize("method", METHODS)
def test_resumed_is_straight(lite_set, tmp_path, method):
    name = method if method in ("HHCL", "CSA") else "ISE"
    config = REPOSITORY / "configs" / f"{name}_synthetic.yaml"
    straight, stopped = (
        [*overrides_of(lite_set, tmp_path / output), *METHODS[method]] for output in "ab"
    )
    whole = start(straight, config=config)
    start(stopped, stop=(1, 2), config=config)
    stopped.append(latest(tmp_path / "b"))
    for stop in ((2, 0), (2, 1), None) if method != "static" else (None,):
        engine = start(stopped, stop=stop, config=config)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    final = [read_state_file(states(tmp_path / output)[0]) for output in "ab"]
    records = [state["callbacks"].pop("RunRecord")["rows"] for state in final]
    rows = [without_time(json.loads(record)) for record in records]
    assert rows[0] == rows[1] and '"epoch": 2' in records[0]
    for part in ("model", "optimizers", "meters", "memory", "callbacks", "global_step", "best"):
        assert json.dumps(final[0][part], default=repr) == json.dumps(final[1][part], default=repr)
    assert engine.last_result.mAP == whole.last_result.mAP
    # the epoch line and the averages are those of the whole epoch
    lines = [
        re.findall(r"Avg\](.*)", log_of(tmp_path / "a"))[-1],
        re.findall(r"Avg\](.*)", log_of(tmp_path / "b"))[-1],
    ]
    assert lines[0] == lines[1] and "loss" in lines[0]


def without_time(value):
    """What is kept of a history, but for seconds and memory."""
    if isinstance(value, list):
        return [without_time(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if not key.startswith(("seconds", "peak"))}
    return {key: without_time(item) for key, item in kept.items()}


def test_a_state_holds_all_of_it(lite_set, tmp_path):
    start(overrides_of(lite_set, tmp_path), stop=(2, 2))
    state = read_state_file(states(tmp_path)[0])
    assert (state["epoch"], state["step"], state["global_step"]) == (1, 2, 5)
    assert state["best"] == read_progress(str(tmp_path / "RecModel" / "best_model"))["metric"]
    assert len(state["memory"]) == state["callbacks"]["ClusteringCallback"]["labels"].max() + 1
    assert any("moment1" in name for name in state["optimizers"][0])
    assert state["optimizers"][0]["LR_Scheduler"]["last_epoch"] > 0
    assert any(name.endswith("_mean") for name in state["model"])


def test_nothing_is_saved_within_an_epoch_unless_asked(lite_set, tmp_path):
    start(overrides_of(lite_set, tmp_path, Global__save_step_interval=0), stop=(2, 2))
    assert [read_state_file(path)["step"] for path in states(tmp_path)] == [None]


def test_skipped_steps_read_no_image(lite_set, tmp_path, monkeypatch):
    overrides = overrides_of(lite_set, tmp_path, Global__epochs=1)
    start(overrides, stop=(1, 2))
    engine = engine_of([*overrides, latest(tmp_path)])
    items = []
    read = type(engine.train_dataset).__getitem__

    def counted(self, item):
        if isinstance(item, tuple):
            items.append(item)
        return read(self, item)

    monkeypatch.setattr(type(engine.train_dataset), "__getitem__", counted)
    engine.train()
    assert {draw // 16 for _, draw in items} == {2}


def test_a_worse_model_does_not_replace_the_best(lite_set, tmp_path, monkeypatch):
    from ppcls_ise.engine.engine import UnsupervisedEngine

    figures = {1: 0.5, 2: 0.9, 3: 0.1, 4: 0.8}
    monkeypatch.setattr(UnsupervisedEngine, "evaluate", lambda self, epoch=0: figures[epoch])
    overrides = overrides_of(lite_set, tmp_path, Global__epochs=4)
    start(overrides, stop=(3, 1))
    for exact in (True, False):
        if not exact:
            shutil.rmtree(tmp_path / "RecModel" / "resume")
        start([*overrides, latest(tmp_path)], stop=(4, 1))
        best = read_progress(str(tmp_path / "RecModel" / "best_model"))
        assert (best["metric"], best["epoch"]) == (0.9, 2)


def test_a_torn_state_is_named_and_the_one_before_it_used(lite_set, tmp_path):
    overrides = overrides_of(lite_set, tmp_path / "b")
    start(overrides_of(lite_set, tmp_path / "a"))
    start(overrides, stop=(2, 2))
    newest, before = states(tmp_path / "b")
    newest.write_bytes(newest.read_bytes()[:-100])
    start([*overrides, latest(tmp_path / "b")])
    log = log_of(tmp_path / "b")
    assert f"{newest} is damaged" in log and f"resumed {before}" in log
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


@pytest.mark.parametrize("content", [None, b"", b"cos\nsystem\n(S'touch owned'\ntR."])
def test_a_torn_or_foreign_latest_is_named_and_the_whole_state_used(lite_set, tmp_path, content):
    overrides = overrides_of(lite_set, tmp_path, Global__epochs=1)
    start(overrides)
    (tmp_path / "RecModel" / "latest.pdopt").unlink()
    if content is not None:
        (tmp_path / "RecModel" / "latest.pdopt").write_bytes(content)
    start([*overrides, latest(tmp_path), "Global.epochs=2"])
    log = log_of(tmp_path)
    assert "latest.pdopt" in log and "is whole and is used instead" in log
    assert "[Epoch 2/2]" in log and not Path("owned").exists()


def test_files_of_different_epochs_are_not_resumed(lite_set, tmp_path):
    overrides = overrides_of(lite_set, tmp_path, Global__save_interval=1)
    start(overrides)
    folder = tmp_path / "RecModel"
    shutil.copy(folder / "epoch_1.pdopt", folder / "epoch_2.pdopt")
    with pytest.raises(WeightsError, match=r"epoch_2\.pdopt is not the file"):
        engine_of([*overrides, f"Global.checkpoints={folder / 'epoch_2'}"])


def test_a_checkpoint_of_paddleclas_is_continued_with_the_next_epoch(lite_set, tmp_path):
    start(overrides_of(lite_set, tmp_path / "a"))
    overrides = overrides_of(lite_set, tmp_path / "b")
    start(overrides, stop=(2, 1))
    for path in (tmp_path / "b" / "RecModel").glob("*.sha256"):
        path.unlink()
    shutil.rmtree(tmp_path / "b" / "RecModel" / "resume")
    start([*overrides, latest(tmp_path / "b")])
    assert "comes without an exact state" in log_of(tmp_path / "b")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")  # each epoch clusters anew


def test_another_run_is_never_replaced(lite_set, tmp_path):
    start(overrides_of(lite_set, tmp_path), stop=(1, 1))
    before = {path: path.read_bytes() for path in states(tmp_path)}
    for more in ({}, {"Global__seed": 2}):
        with pytest.raises(ConfigError, match="holds another run") as error:
            start(overrides_of(lite_set, tmp_path, **more))
        for words in (latest(tmp_path), "Global.output_dir", "{run}"):
            assert words in str(error.value)
    assert before == {path: path.read_bytes() for path in states(tmp_path)}


def test_two_starts_at_once(lite_set, tmp_path):
    """Both are ready before one of them begins; the other one is refused and changes nothing."""
    overrides = overrides_of(lite_set, tmp_path, Global__epochs=1)
    first, second = engine_of(overrides), engine_of(overrides)
    before_step = first.checkpoints.before_step
    refused = []

    def other_starts(step: int) -> None:
        before_step(step)
        with pytest.raises(ConfigError, match="another run is writing") as error:
            second.train()
        refused.append(str(error.value))

    first.checkpoints.before_step = other_starts
    first.train()
    assert refused and "Global.output_dir" in refused[0]
    with pytest.raises(ConfigError, match="holds another run"):
        second.train()
    start(overrides_of(lite_set, tmp_path / "b", Global__epochs=1))
    assert digest(tmp_path) == digest(tmp_path / "b")


def test_numbered_folders(lite_set, tmp_path):
    overrides = overrides_of(lite_set, tmp_path / "{run}", Global__epochs=1)
    folders = [start(overrides).run_folder for _ in (1, 2)]
    assert folders == [tmp_path / "run1" / "RecModel", tmp_path / "run2" / "RecModel"]
    resumed = engine_of([*overrides, latest(tmp_path / "run1"), "Global.epochs=2"])
    assert resumed.run_folder == folders[0]
    weights = f"Global.pretrained_model={folders[1] / 'latest'}"
    assert engine_of([*overrides, weights], mode="eval").run_folder == folders[1]
    with pytest.raises(ConfigError, match="only be its last part"):
        engine_of(overrides_of(lite_set, tmp_path / "{run}" / "x"))


@pytest.mark.parametrize(
    "change",
    [
        "Global.seed=9",
        "Clustering.eps=0.7",
        "Arch.Head.temperature=0.1",
        "Arch.Head.memory=hard",
        "DataLoader.Train.sampler.batch_size=8",
        "Loss.Train.1.LPLoss.weight=0.5",
        "Optimizer.regularizer.coeff=0.1",
    ],
)
def test_settings_that_make_it_another_run(interrupted, lite_set, tmp_path, change):
    overrides = [*overrides_of(lite_set, tmp_path), latest(interrupted), change]
    key = change.split("=")[0]
    with pytest.raises(ConfigError, match=rf"{key} was .*, is .*allow_changes=True"):
        engine_of(overrides)


def test_settings_that_may_change(interrupted, lite_set, tmp_path):
    changes = ["Optimizer.lr.learning_rate=0.0001", "Global.epochs=3", "Clustering.batch_size=7"]
    overrides = [*overrides_of(lite_set, tmp_path), latest(interrupted)]
    engine_of(overrides)
    assert "other settings" not in log_of(tmp_path)
    engine_of([*overrides, *changes])
    for change in changes:
        assert f"{change.split('=')[0]} was " in log_of(tmp_path)
    engine_of([*overrides, "Global.seed=9", "Global.allow_changes=True"])
    assert re.search(r"Global\.seed was .*, is 9", log_of(tmp_path))


@pytest.fixture(scope="module")
def interrupted(lite_set, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("interrupted")
    start(overrides_of(lite_set, output), stop=(1, 1))
    return output


def test_images_replaced_under_the_same_names(lite_set, tmp_path):
    root = copy_of(lite_set, tmp_path / "set")
    overrides = overrides_of(root, tmp_path / "run")
    start(overrides, stop=(1, 1))
    first = sorted((root / "bounding_box_train").iterdir())[0]
    os.utime(first, (1, 1))
    engine_of([*overrides, latest(tmp_path / "run")])
    assert "written anew" in log_of(tmp_path / "run")
    first.write_bytes(first.read_bytes() + b" ")
    with pytest.raises(DataError, match="files of the same names"):
        engine_of([*overrides, latest(tmp_path / "run")])


def test_other_images_are_not_continued(lite_set, tmp_path):
    root = copy_of(lite_set, tmp_path / "set")
    start(overrides_of(root, tmp_path / "run"), stop=(1, 1))
    moved = root.rename(tmp_path / "moved")
    overrides = [*overrides_of(moved, tmp_path / "run"), latest(tmp_path / "run")]
    start(overrides, stop=(1, 2))
    sorted((moved / "bounding_box_train").iterdir())[0].unlink()
    with pytest.raises(DataError, match="was trained on other images"):
        engine_of(overrides)


def test_settings_of_checkpoints_are_checked(lite_set, tmp_path):
    for option in ("Global.keep_checkpoints=0", "Global.save_step_interval=-1"):
        with pytest.raises(ConfigError, match=option.split("=")[0]):
            engine_of([*lite_overrides(lite_set, tmp_path), option])


# -- a disk that is full ---------------------------------------------------------------------------


def test_a_full_disk_is_said_and_the_last_state_stays(lite_set, tmp_path, monkeypatch):
    save_file, calls = array_files.save_file, []

    def full_once(arrays, file, header):
        calls.append("resume" in file.parts)
        if calls[-1] and sum(calls) == 3:
            file.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(arrays, file, header)

    monkeypatch.setattr(array_files, "save_file", full_once)
    start(overrides_of(lite_set, tmp_path, Global__epochs=1, DataLoader__Train__sampler__iters=5))
    log = log_of(tmp_path)
    assert re.search(r"resume could not be saved: No space left.*about 1 MB are needed", log)
    assert "000002." in log and "Training goes on" in log
    assert len(states(tmp_path)) == 2 and not list(tmp_path.rglob("*.tmp"))
    for path in states(tmp_path):
        read_state_file(path)


@pytest.mark.parametrize("limit", [600_000, 1_100_000])
def test_a_file_system_that_refuses_large_files(lite_set, tmp_path, limit):
    """The limit is below the optimizer's file, or below our state only."""
    overrides = overrides_of(lite_set, tmp_path)
    start(overrides, stop=(2, 1))
    whole = digest_of_files(tmp_path), states(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(WeightsError, match="could not be saved: File too large"):
            start([*overrides, latest(tmp_path)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert states(tmp_path) == whole[1]
    assert (digest_of_files(tmp_path) == whole[0]) == (limit < 700_000)
    start([*overrides, latest(tmp_path)])
    assert not list(tmp_path.rglob("*.tmp"))


# -- signals ---------------------------------------------------------------------------------------


def test_the_first_signal_is_a_request_and_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for number in (signal.SIGINT, signal.SIGTERM):
        with stop_requests() as request:
            assert request.signal_number == 0
            for _ in range(3):  # as Paddle's launcher repeats it
                os.kill(os.getpid(), number)
            assert request.signal_number == number
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    thread = threading.Thread(target=lambda: stop_requests().__enter__())
    thread.start(), thread.join()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_in_an_evaluation_is_heeded_between_its_batches(lite_set, tmp_path, number, code):
    start(overrides_of(lite_set, tmp_path / "a"))
    overrides = overrides_of(lite_set, tmp_path / "b")
    engine = engine_of(overrides)
    evaluate = engine.eval_func

    def interrupted(self, epoch):
        os.kill(os.getpid(), number)
        return evaluate(self, epoch)

    engine.eval_func = interrupted
    with pytest.raises(SystemExit) as ended:
        engine.train()
    assert ended.value.code == code
    state = read_state_file(states(tmp_path / "b")[0])
    assert (state["epoch"], state["step"]) == (0, 3)
    start([*overrides, latest(tmp_path / "b")])
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_a_signal_in_the_warm_up_is_heeded_after_a_batch(lite_set, tmp_path):
    engine = engine_of(overrides_of(lite_set, tmp_path, Clustering__warm_up_batches=50))
    batches = []

    def forward(layer, inputs) -> None:
        batches.append(1)
        if len(batches) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    engine.plain_model.register_forward_pre_hook(forward)
    with pytest.raises(SystemExit) as ended:
        engine.train()
    assert ended.value.code == 130 and len(batches) == 3
    assert "warming the batch-norm statistics with 50 batches of 16 images" in log_of(tmp_path)


def tool(overrides: list[str]) -> subprocess.Popen:
    """The training tool, in a process group of its own."""
    command = [sys.executable, str(REPOSITORY / "tools" / "train.py"), "-c", str(SYNTHETIC)]
    command += options([*overrides, "Global.print_batch_step=1"])
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


GROUP_SIGNALS = """
import os, signal, sys, time
from pathlib import Path
from tests.engine.resume.test_resume import SYNTHETIC, engine_of, overrides_of
import ppcls_ise

ppcls_ise.register()
root, out, place, number = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
os.setsid()
more = {"DataLoader__Train__loader__num_workers": 2, "DataLoader__Train__sampler__iters": 9}
for part in ("Query", "Gallery"):
    more[f"DataLoader__Eval__{part}__loader__num_workers"] = 2
engine = engine_of(overrides_of(root, out, **more, Clustering__batch_size=8))
seen = []

def at(where):
    if where == place:
        seen.append(where)
        if len(seen) == 2:
            for _ in range(5):
                os.killpg(0, number)
                time.sleep(0.05)

losses_read, extract = engine.losses_read, engine.checkpoints.between_batches
engine.losses_read = lambda values: (at("training"), losses_read(values))
def between():
    at("evaluation" if engine.checkpoints._steps_to_keep else "clustering")
    extract()
engine.checkpoints.between_batches = between
engine.train()
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["training", "clustering", "evaluation"])
def test_a_signal_to_the_whole_group(lite_set, tmp_path, place):
    """As schedulers and `timeout` send it: the loader's workers get it too."""
    command = [sys.executable, "-c", GROUP_SIGNALS, str(lite_set), str(tmp_path), place, "15"]
    done = subprocess.run(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 75, done.stdout
    assert "stopped by signal 15" in done.stdout and "Traceback" not in done.stdout
    steps = [read_state_file(path)["step"] for path in states(tmp_path)]
    assert steps[:1] == {"training": [2], "clustering": [], "evaluation": [9]}[place]


@pytest.mark.slow
def test_asked_to_stop_the_tool_saves_and_says_so_and_is_continued(lite_set, tmp_path):
    more = {"DataLoader__Train__sampler__iters": 30, "Global__save_step_interval": 0}
    more |= {"DataLoader__Train__loader__num_workers": 2, "Global__epochs": 1}
    overrides = overrides_of(lite_set, tmp_path / "b", **more)
    run = tool(overrides)
    heard = ""
    while "Iter: 3/" not in heard:
        heard += (line := run.stdout.readline())
        assert line, heard
    os.killpg(run.pid, signal.SIGTERM)
    said, _ = run.communicate(timeout=100)
    assert run.returncode == 75, said
    assert "stopped by signal 15" in said and latest(tmp_path / "b") in said
    run = tool([*overrides, latest(tmp_path / "b")])
    said, _ = run.communicate(timeout=100)
    assert run.returncode == 0 and re.search(r"resumed .*: 0 epochs and \d+ steps done", said), said
    start(overrides_of(lite_set, tmp_path / "a", **more))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_run_leaves_no_worker_behind(lite_set, tmp_path):
    more = {"DataLoader__Train__sampler__iters": 50, "DataLoader__Train__loader__num_workers": 2}
    run = tool(overrides_of(lite_set, tmp_path, **more))
    heard = ""
    while "Iter: 3/" not in heard:
        heard += (line := run.stdout.readline())
        assert line, heard
    run.kill()
    run.communicate(timeout=60)  # ends when nobody holds the pipe, so when the workers are gone


def launched(overrides: list[str], log: Path) -> subprocess.Popen:
    """Two processes of the training tool (CPU, gloo)."""
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node=2"]
    command += ["--backend=gloo", f"--log_dir={log}", str(REPOSITORY / "tools" / "train.py")]
    command += ["-c", str(SYNTHETIC), *options([*overrides, "Global.print_batch_step=1"])]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # off in background jobs
    )


def wait_for(words: str, log: Path, run: subprocess.Popen) -> None:
    while not log.exists() or words not in log.read_text():
        time.sleep(0.1)
        assert run.poll() is None or words in log.read_text(), log.read_text()[-3000:]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_two_processes_stop_together_and_go_on(lite_set, tmp_path, number):
    """A step takes more than a tenth of a second, and the launcher repeats its signal."""
    more = {"DataLoader__Train__sampler__batch_size": 8, "DataLoader__Train__sampler__iters": 12}
    more["DataLoader__Train__dataset__transform_ops__0__ResizeImage__size"] = "[128,256]"
    more |= {"Global__epochs": 1, "Global__save_step_interval": 0, "Arch__bn_group_size": 8}
    runs = [overrides_of(lite_set, tmp_path / name, **more) for name in "ab"]
    assert launched(runs[0], tmp_path / "log_a").wait(timeout=200) == 0
    run = launched(runs[1], tmp_path / "log_b")
    wait_for("Iter: 3/", tmp_path / "log_b" / "workerlog.0", run)
    run.send_signal(number)  # the launcher makes SIGTERM of both, and may be gone before them
    run.wait(timeout=100)
    deadline = time.monotonic() + 100
    log = tmp_path / "log_b" / "workerlog.0"
    while "stopped by signal 15" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    (state,) = states(tmp_path / "b")
    assert 3 <= read_state_file(state)["step"] < 12
    assert "stopped by signal 15" in log.read_text()
    runs[1].append(latest(tmp_path / "b"))
    assert launched(runs[1], tmp_path / "log_c").wait(timeout=200) == 0
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


# -- divergence ------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_ends_the_run(lite_set, tmp_path):
    overrides = overrides_of(lite_set, tmp_path, Optimizer__lr__learning_rate=1e30)
    with pytest.raises(DivergenceError) as error:
        start(overrides)
    message = str(error.value)
    assert re.search(r"is (nan|inf).* at step \d of epoch 1|weights are not finite", message)
    for words in ("last good checkpoint", "no checkpoint of this run", "Optimizer.lr"):
        assert words in message or words != "Optimizer.lr" and "checkpoint" in message
    for path in states(tmp_path):
        assert all(np.isfinite(value).all() for value in read_state_file(path)["model"].values())


def test_weights_that_are_not_finite_are_not_saved(lite_set, tmp_path):
    overrides = overrides_of(lite_set, tmp_path)
    start(overrides, stop=(2, 1))
    engine = engine_of([*overrides, latest(tmp_path)])
    whole = digest(tmp_path), states(tmp_path)
    after_steps = engine.checkpoints.after_steps

    def spoil() -> None:
        weight = engine.plain_model.neck.feat_bn.weight
        weight.set_value(weight * float("nan"))
        after_steps()

    engine.checkpoints.after_steps = spoil
    engine.eval_func = lambda engine, epoch: 1.0
    with pytest.raises(DivergenceError, match=r"neck\.feat_bn\.weight.*not saved.*last good") as e:
        engine.train()
    assert str(states(tmp_path)[0]) in str(e.value)
    assert digest(tmp_path) == whole[0]
    for path in states(tmp_path):
        assert all(np.isfinite(value).all() for value in read_state_file(path)["model"].values())


def test_features_that_are_not_finite_name_the_checkpoint(lite_set, tmp_path):
    overrides = overrides_of(lite_set, tmp_path)
    start(overrides, stop=(2, 0))
    engine = engine_of([*overrides, latest(tmp_path)])
    restore = engine.checkpoints._restore

    def spoil() -> dict:
        told = restore()
        weight = engine.plain_model.neck.feat_bn.weight
        weight.set_value(weight * float("nan"))
        return told

    engine.checkpoints._restore = spoil
    with pytest.raises(DivergenceError, match="features are not finite.*last good checkpoint is"):
        engine.train()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"Clustering__eps": 0.99, "Clustering__k1": 60}, "COLLAPSE: one cluster holds 100 %"),
        ({"Clustering__min_samples": 80}, "COLLAPSE: 100 % of the images are outliers"),
        ({}, None),
    ],
)
def test_a_collapse_is_in_the_epoch_line(lite_set, tmp_path, setting, words):
    train(overrides_of(lite_set, tmp_path, **{"Global__epochs": 1, **setting}))
    (line,) = [line for line in log_of(tmp_path).splitlines() if ": [Epoch 1/1]" in line]
    assert ("WARNING" in line) == ("COLLAPSE" in line) == (words is not None)
    assert words is None or words in line


# -- kills -----------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.slow
def test_killed_twenty_times_the_weights_are_those_of_an_uninterrupted_run(lite_set, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.resume.kills", str(lite_set), str(tmp_path), "20"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert sum(result["kills"].values()) >= 20
    assert all(result["same_weights"]) and result["kills"]["random time"]


@pytest.mark.slow
def test_the_state_of_another_optimizer_is_refused(lite_set, tmp_path):
    overrides = [*lite_overrides(lite_set, tmp_path / "a", Global__epochs=1), *SMALL_NET]
    overrides.append("Global.eval_during_train=False")
    train(overrides)
    others = [
        ["Optimizer.name=Momentum", "Optimizer.momentum=0.9"],
        ["Optimizer={name: SGD, lr: {name: Constant, learning_rate: 0.01}}"],
    ]
    for other in others:
        options = [*overrides, *other, "Global.epochs=2"]
        options.append(f"Global.output_dir={tmp_path / other[0].split('=')[1][:3]}")
        train([*options, "Global.epochs=1"])  # every optimizer trains
        with pytest.raises(ConfigError, match="Optimizer.name was Adam"):
            train([*options, latest(tmp_path / "a")])
        with pytest.raises(WeightsError, match="optimizer"):
            train([*options, latest(tmp_path / "a"), "Global.allow_changes=True"])
    with pytest.raises(WeightsError, match=r"folder of a run.*latest$"):
        train([*overrides, f"Global.checkpoints={tmp_path / 'a'}"])
