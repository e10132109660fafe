# SPDX-License-Identifier: Apache-2.0
"""``ppcls-ise synthetic``: images, or tracklets."""

import pytest

from ppcls_ise.cli.main import main
from ppcls_ise.data import MARS

FEW = ["--num-train-ids", "2", "--num-test-ids", "2", "--num-cameras", "2"]
SMALL = [*FEW, "--height", "24", "--width", "12"]


def test_tracklets(tmp_path, capsys):
    out = str(tmp_path / "set")
    arguments = ["synthetic", "--tracklets", "--out", out, "--mean-length", "3", *SMALL]
    main(arguments=arguments)
    said = capsys.readouterr().out
    train = MARS(out)
    assert f"{len(train)} in {len(train.tracklet_names)} tracklets for training" in said
    main(arguments=arguments)
    assert "already there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tracklets", "--images-per-id", "4"], "--images-per-id is an option without"),
        (["--mean-length", "4"], "--mean-length is an option of --tracklets"),
        (["--tracklets", "--slips", "2"], r"slips must be in \[0, 1\]"),
    ],
)
def test_options_of_the_other_kind(tmp_path, arguments, words):
    with pytest.raises(SystemExit, match=words):
        main(arguments=["synthetic", "--out", str(tmp_path / "set"), *SMALL, *arguments])


def test_images_as_ever(tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "set"), "--images-per-id", "4", *SMALL]
    main(arguments=["synthetic", *arguments])
    assert "8 train, " in capsys.readouterr().out
