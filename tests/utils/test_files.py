# SPDX-License-Identifier: Apache-2.0
import errno
import os
import signal

import pytest
from filelock import Timeout

from ppcls_ise.errors import ConfigError
from ppcls_ise.utils import threads
from ppcls_ise.utils.files import locked, replacing, require_replaceable, scratch_beside


def test_a_file_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "new" / "list.txt"
    with replacing(target) as scratch:
        scratch.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"
    assert os.listdir(target.parent) == ["list.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "list.txt"
    target.write_text("old")
    with pytest.raises(KeyError), replacing(target) as scratch:
        scratch.write_text("half")
        raise KeyError
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["list.txt"]


@pytest.mark.parametrize(
    ("content", "cores"), [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("", 8)]
)
def test_cores_are_those_of_the_container(tmp_path, monkeypatch, content, cores):
    quota = tmp_path / "cpu.max"
    quota.write_text(content)
    monkeypatch.setattr(threads, "_QUOTA", quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert threads.core_count() == cores


def test_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left") as error, replacing(tmp_path / "a.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(tmp_path / "a.csv")
    with pytest.raises(OSError) as error, replacing(tmp_path / "a.csv") as scratch:
        scratch.with_suffix(".missing").read_text()  # another file keeps its own name
    assert error.value.filename.endswith(".missing")


@pytest.mark.parametrize("name", ["x" * 250, "\u00e4" * 120])
def test_long_names_leave_room_for_the_scratch_file_and_the_lock(tmp_path, name):
    with locked(tmp_path / name), replacing(tmp_path / name) as scratch:
        scratch.write_text("here")
    assert (tmp_path / name).read_text() == "here"


def test_a_lock_is_held_by_one(tmp_path):
    with locked(tmp_path / "a"), pytest.raises(Timeout), locked(tmp_path / "a"):
        pass
    with locked(tmp_path / "a"):
        pass


def test_places_that_cannot_be_written_are_known_before(tmp_path):
    require_replaceable(tmp_path / "new" / "a.csv", "--csv")
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "a.csv", "a\0b/c"):
        with pytest.raises(ConfigError, match="--csv"):
            require_replaceable(path, "--csv")


def test_a_scratch_file_that_a_killed_process_left_goes_with_the_next(tmp_path):
    target = tmp_path / ("x" * 250 + ".npz")  # a suffix would make the name too long
    child = os.fork()
    if not child:
        with replacing(target) as scratch:
            scratch.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = os.listdir(tmp_path)
    assert left.endswith(".tmp")
    with replacing(tmp_path / "another"):
        (tmp_path / "another").write_text("")
        scratch_beside(tmp_path / "another").write_text("")
        assert left in os.listdir(tmp_path)
    with replacing(target) as scratch:
        scratch.write_text("whole")
    assert sorted(os.listdir(tmp_path)) == sorted(["another", target.name])


def test_a_scratch_file_in_use_stays(tmp_path):
    target = tmp_path / "list.txt"
    start, done = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        with replacing(target) as scratch:
            scratch.write_text("slow")
            os.write(start[1], b".")
            os.read(done[0], 1)
        os._exit(0)
    os.read(start[0], 1)
    with replacing(target) as scratch:
        scratch.write_text("fast")
    os.write(done[1], b".")
    assert os.waitpid(child, 0)[1] == 0
    assert target.read_text() == "slow" and os.listdir(tmp_path) == ["list.txt"]


def test_one_process_has_a_lock_and_the_end_of_it_frees_it(tmp_path):
    target = tmp_path / "new" / "gallery.npz"
    started = os.pipe()
    child = os.fork()
    if not child:
        with locked(target):
            os.write(started[1], b".")
            signal.pause()
    os.read(started[0], 1)
    with pytest.raises(Timeout), locked(target):
        pass
    os.kill(child, signal.SIGKILL)
    with locked(target, wait=60):
        os.waitpid(child, 0)
