# SPDX-License-Identifier: Apache-2.0
import os

import pytest

from ppcls_ise.utils import threads
from ppcls_ise.utils.files import replacing


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
