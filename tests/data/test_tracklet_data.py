# SPDX-License-Identifier: Apache-2.0
"""Tracklets of folders and of MARS: names, tables, order, numbers, thinning."""

import csv
import logging
import shutil

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from ppcls_ise.data import MARS, IdentitySampler, ImageRecord, UnlabeledFolder, number_alike
from ppcls_ise.data.tracklets import in_order, number_tracklets, thin
from ppcls_ise.errors import ConfigError, DataError
from ppcls_ise.synthetic import make_tracklets
from tests.data.test_folder import inner_names, tree


def names_of_rows(dataset):
    return [
        None if number < 0 else dataset.tracklet_names[number] for number in dataset.tracklet_ids
    ]


# -- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "tracklets", "cameras"),
    [
        (
            ["cam3_track0117_frame000042.jpg", "cam10_track0117_frame000001.jpg"],
            ["0117 (camera 3)", "0117 (camera 10)"],
            [0, 1],
        ),
        (["day1/CAM1-Track2-7.png", "day2/cam1-track3-8.png"], ["2", "3"], [0, 0]),
        (["camera_1/track_5/frame_9.jpg", "camera_1/track_6/1.jpg"], ["5", "6"], [0, 0]),
        (["hall_track1_f3.jpg", "yard/track2_4.jpg"], ["1", "2"], None),
        (
            ["0001/0001C1T0002F003.jpg", "00-1C6T0001F001.jpg"],
            ["0001C1T0002", "00-1C6T0001"],
            [0, 1],
        ),
    ],
)
def test_known_forms_are_recognized(tmp_path, names, tracklets, cameras):
    root = tree(tmp_path, *names)
    dataset = UnlabeledFolder(root)
    rows = [names.index(name) for name in inner_names(dataset, root)]
    assert names_of_rows(dataset) == [tracklets[row] for row in rows]
    assert dataset.tracklet_ids.dtype == np.int64
    if cameras is None:
        assert dataset.camids is None
    else:
        assert dataset.camids.tolist() == [cameras[row] for row in rows]
    without = UnlabeledFolder(root, tracklet_pattern=None)
    assert without.tracklet_ids is None and without.tracklet_names is None
    assert without.camids is None


@pytest.mark.parametrize(
    "names",
    [
        ["cam1_track2_frame3.jpg", "stray.jpg"],
        ["cam1_track2_frame3.jpg", "track2_frame3.jpg"],  # a camera in some of them only
        ["0002_c1s1_000451_03.jpg"],
        ["cam1/track/x.jpg"],
        ["soundtrack_5.jpg.jpg"],
    ],
)
def test_one_other_name_and_nothing_is_recognized(tmp_path, names):
    dataset = UnlabeledFolder(tree(tmp_path, *names))
    assert dataset.tracklet_ids is None and dataset.camids is None


def test_a_camera_rule_wins_over_the_form(tmp_path):
    root = tree(tmp_path, "a/cam1_track1_frame1.jpg", "a/cam2_track1_frame1.jpg")
    dataset = UnlabeledFolder(root, camera_from_folder=True)
    assert dataset.camids.tolist() == [0, 0] and dataset.tracklet_ids.tolist() == [0, 0]
    assert dataset.camera_names == ["a"]


def test_a_pattern_may_have_several_groups(tmp_path):
    root = tree(tmp_path, "a-x7_1.jpg", "a-x7_2.jpg", "b-x7_1.jpg")
    dataset = UnlabeledFolder(root, tracklet_pattern=r"^(\w)-x(\d+)")
    assert dataset.tracklet_ids.tolist() == [0, 0, 1]
    assert dataset.tracklet_names == ["a/7", "b/7"]


def test_folders_are_tracklets_and_one_name_in_two_cameras_is_two(tmp_path, caplog):
    root = tree(tmp_path, "c1/7/a.jpg", "c1/7/b.jpg", "c2/7/a.jpg", "c2/8/a.jpg")
    with caplog.at_level(logging.INFO, logger="ppcls"):
        dataset = UnlabeledFolder(root, tracklet_from_folder=True, camera_pattern=r"^c(\d)")
    assert dataset.tracklet_ids.tolist() == [0, 0, 1, 2]
    assert dataset.tracklet_names == ["7 (camera 1)", "7 (camera 2)", "8"]
    assert "3 tracklets (median 1 frames, shortest 1, longest 2)" in caplog.text
    assert "frames per camera: 1 2, 2 2" in caplog.text
    assert "1 names of tracklets occur in several cameras" in caplog.text
    blind = UnlabeledFolder(root, tracklet_from_folder=True)
    assert blind.tracklet_ids.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"tracklet_pattern": r"t(\d+)"}, r"tracklet_pattern.*finds no tracklet.*b_none\.jpg"),
        ({"identity_pattern": r"t(\d+)"}, r"identity_pattern.*finds no identity.*b_none\.jpg"),
        ({"tracklet_from_folder": True}, r"tracklet_from_folder.*tracklet_pattern"),
        ({"tracklet_pattern": "("}, "tracklet_pattern"),
        ({"tracklet_pattern": "t"}, "no group"),
        ({"tracklet_pattern": "(t)", "tracklet_from_folder": True}, "exclude each other"),
        ({"frame_step": 2}, "need tracklets"),
        ({"frame_step": 0}, "frame_step has to be at least 1"),
        ({"max_per_tracklet": 0}, "max_per_tracklet has to be at least 1"),
        ({"table": "nowhere.csv"}, "no file nowhere.csv"),
    ],
)
def test_rules_that_cannot_work_name_key_and_file(tmp_path, rule, words):
    with pytest.raises((ConfigError, DataError), match=words):
        UnlabeledFolder(tree(tmp_path, "a_t3.jpg", "b_none.jpg"), **rule)


def test_identities_are_information_and_numbered_alike_where_asked(tmp_path):
    one = UnlabeledFolder(tree(tmp_path / "q", "7_a.jpg", "10_a.jpg"), identity_pattern=r"^(\d+)")
    two = UnlabeledFolder(tree(tmp_path / "g", "10_a.jpg", "2_b.jpg"), identity_pattern=r"^(\d+)")
    one.pseudo_labels = np.array([4, 5])
    assert one[0][1].tolist()[0] == 4
    assert one.pids.tolist() == [1, 0] and two.pids.tolist() == [1, 0]
    number_alike(one, two)
    assert one.pids.tolist() == [2, 1] and two.pids.tolist() == [2, 0]
    assert one.identity_names == two.identity_names == ["2", "7", "10"]
    one.require_unchanged()
    assert one.identity_names == ["2", "7", "10"] and one.camids is None


# -- tables -----------------------------------------------------------------------------------


def test_a_table_tells_everything(tmp_path):
    root = tree(tmp_path / "root", "x/1.jpg", "x/2.jpg", "3.jpg")
    table = tmp_path / "t.csv"
    table.write_text(
        "\ufeffpath, tracklet,camera,identity\n"
        f"x/1.jpg,a,east,Z\n{root}/x/2.jpg,a,west,Y\n./3.jpg,,west,Y\n",
        encoding="utf-8",
    )
    dataset = UnlabeledFolder(root, table=str(table))
    assert inner_names(dataset, root) == ["3.jpg", "x/1.jpg", "x/2.jpg"]
    assert dataset.tracklet_ids.tolist() == [-1, 0, 1]
    assert dataset.camids.tolist() == [1, 0, 1] and dataset.camera_names == ["east", "west"]
    assert dataset.pids.tolist() == [0, 1, 0] and dataset.identity_names == ["Y", "Z"]
    with pytest.raises(ConfigError, match="camera_pattern and table exclude each other"):
        UnlabeledFolder(root, table=str(table), camera_pattern="(.)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "header path"),
        ("file,tracklet\na.jpg,1\n", "header path"),
        ("path\na.jpg\nb.jpg\n", "one of the columns camera, tracklet, identity"),
        ("path,track\na.jpg,1\nb.jpg,1\n", "nothing reads the column 'track'"),
        ("path,camera\na.jpg,1\nb.jpg,\n", "line 3 has no camera"),
        ("path,camera\na.jpg,1\n", r"has no line for b\.jpg"),
        ("path,camera\na.jpg,1\n./a.jpg,1\nb.jpg,1\n", r"line 3 names a\.jpg again"),
        ("path,camera\na.jpg,1\nb.jpg,1\nc.jpg,1\n", r"there is no image c\.jpg"),
        ("path,camera,camera\na.jpg,1,1\n", "2 columns camera"),
        ("path,camera\na.jpg\n", "line 2 has 1 cells"),
    ],
)
def test_tables_that_do_not_fit_the_folder(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        UnlabeledFolder(tree(tmp_path / "root", "a.jpg", "b.jpg"), table=str(tmp_path / "t.csv"))


# -- order, numbers, thinning -----------------------------------------------------------------


def test_frames_of_a_tracklet_are_in_the_order_of_time(tmp_path):
    names = [f"track1_frame{n}.jpg" for n in (9, 10, 100)] + ["track10_frame2.jpg"]
    root = tree(tmp_path, *names)
    dataset = UnlabeledFolder(root)
    assert inner_names(dataset, root) == [
        "track10_frame2.jpg",
        "track1_frame9.jpg",
        "track1_frame10.jpg",
        "track1_frame100.jpg",
    ]
    assert dataset.tracklet_ids.tolist() == [0, 1, 1, 1]
    plain = UnlabeledFolder(root, tracklet_pattern=None)
    assert plain.images == sorted(plain.images)


def slow_numbers(records):
    """Every record's tracklet as (camera, name), numbered as they come."""
    seen = []
    for record in records:
        key = (record.camid, record.tracklet)
        if record.tracklet is not None and key not in seen:
            seen.append(key)
    return [-1 if r.tracklet is None else seen.index((r.camid, r.tracklet)) for r in records]


def slow_thin(records, step, most):
    kept = []
    for record in records:
        if record.tracklet is None:
            kept.append(record)
            continue
        mates = [r for r in records if r[2:] == record[2:]]
        chosen = [r for i, r in enumerate(mates) if i % step == 0]
        if most == 1 and len(chosen) > 1:
            chosen = [chosen[len(chosen) // 2]]
        elif most is not None and len(chosen) > most:
            chosen = [chosen[round(i * (len(chosen) - 1) / (most - 1))] for i in range(most)]
        if record in chosen:
            kept.append(record)
    return kept


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("step", "most"), [(1, None), (3, None), (1, 4), (2, 1), (5, 2)])
def test_numbers_and_thinning_against_slow_ones(seed, step, most):
    rng = np.random.default_rng(seed)
    records = [
        ImageRecord(f"/x/{i}", None, int(rng.integers(2)), rng.choice([None, "a", "b", "c"]))
        for i in range(60)
    ]
    records = in_order(records)
    assert number_tracklets(records)[0].tolist() == slow_numbers(records)
    assert thin(records, frame_step=step, max_per_tracklet=most) == slow_thin(records, step, most)


def test_thinning_is_said_and_new_files_alone_are_new(tmp_path, caplog):
    root = tree(tmp_path, *(f"track{t}_frame{n:02d}.jpg" for t in (1, 2) for n in range(10)))
    with caplog.at_level(logging.INFO, logger="ppcls"):
        dataset = UnlabeledFolder(root, frame_step=2, max_per_tracklet=3)
    assert inner_names(dataset, root) == [
        f"track{t}_frame{n}.jpg" for t in (1, 2) for n in ("00", "04", "08")
    ]
    assert "14 of 20 images are left out (frame_step, max_per_tracklet)" in caplog.text
    dataset.require_unchanged()
    assert "added" not in caplog.text
    tree(tmp_path, "track1_frame50.jpg")
    dataset.require_unchanged()
    assert "1 images were added" in caplog.text and "track1_frame50.jpg" in caplog.text


def test_a_batch_takes_other_tracklets_first(tmp_path):
    root = tree(tmp_path, *(f"track{t}_frame{n}.jpg" for t in (1, 2) for n in range(6)))
    dataset = UnlabeledFolder(root)
    dataset.pseudo_labels = np.zeros(12, np.int64)
    for batch in IdentitySampler(dataset, 4, 4, 5):
        anchor, *others = (dataset.tracklet_ids[index] for index, _ in batch)
        assert all(other != anchor for other in others)


# -- MARS -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mars(tmp_path_factory):
    out = tmp_path_factory.mktemp("mars") / "set"
    make_tracklets(
        out, 3, num_train_ids=3, num_test_ids=3, num_cameras=3, mean_length=3, height=24, width=12
    )
    return out


def test_mars(mars, caplog):
    with caplog.at_level(logging.INFO, logger="ppcls"):
        train, query, gallery = (
            MARS(str(mars), split) for split in ("bounding_box_train", "query", "bounding_box_test")
        )
    files = {p.name: p for part in ("bbox_train", "bbox_test") for p in mars.glob(f"{part}/*/*")}
    assert sorted(train.images) == sorted(
        str(path) for path in files.values() if path.parts[-3] == "bbox_train"
    )
    assert train.training and not query.training
    tests = [*query.images, *gallery.images]
    assert len(set(tests)) == len(tests) == len(files) - len(train)
    # One tracklet of every test person and camera is the query: the first.
    pairs = {(p, c) for p, c in zip(query.pids.tolist(), query.camids.tolist(), strict=True)}
    assert len(pairs) == len(query.tracklet_names)
    for dataset in (train, query, gallery):
        for path, pid, camera, number in zip(
            dataset.images, dataset.pids, dataset.camids, dataset.tracklet_ids, strict=True
        ):
            assert dataset.tracklet_names[number] == path.rpartition("/")[2].partition("F")[0]
            assert f"{pid:04d}C{camera + 1}T" in path
    assert f"{len(train.tracklet_names)} tracklets (median" in caplog.text
    one = MARS(str(mars.parent / "set"), "query", max_per_tracklet=1)
    assert len(one) == len(query.tracklet_names)


def test_mars_junk_and_distractors(mars, tmp_path):
    root = tmp_path / "MARS"
    shutil.copytree(mars, root)
    for pid in ("00-1", "0000"):
        (root / "bbox_test" / pid).mkdir()
        name = f"{pid}C1T0001F001.jpg"
        shutil.copy(next(mars.glob("bbox_test/*/*")), root / "bbox_test" / pid / name)
        with open(root / "info" / "test_name.txt", "a") as file:
            file.write(f"{name}\n")
    lines = (root / "info" / "test_name.txt").read_text().split()
    path = root / "info" / "tracks_test_info.mat"
    tracks = loadmat(path)["track_test_info"]
    count = len(lines)
    more = np.array([[count - 1, count - 1, -1, 1], [count, count, 0, 1]])
    savemat(path, {"track_test_info": np.vstack([tracks, more])})
    gallery = MARS(str(tmp_path), "bounding_box_test")
    assert 0 in gallery.pids and -1 not in gallery.pids
    assert len(gallery) == len(MARS(str(mars), "bounding_box_test")) + 1


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda root: (root / "info/test_name.txt").unlink(), "test_name.txt"),
        (lambda root: (root / "info/query_IDX.mat").write_bytes(b"x" * 200), "query_IDX.mat"),
        (lambda root: (root / "info/query_IDX.mat").unlink(), "query_IDX.mat"),
        (lambda root: savemat(root / "info/query_IDX.mat", {"y": [1]}), "no matrix query_IDX"),
        (
            lambda root: savemat(root / "info/query_IDX.mat", {"query_IDX": [1000]}),
            "counts from 1000 to 1000",
        ),
        (
            lambda root: savemat(root / "info/query_IDX.mat", {"query_IDX": [1.5]}),
            "not whole",
        ),
        (
            lambda root: savemat(root / "info/tracks_test_info.mat", {"track_test_info": [1]}),
            "instead of rows",
        ),
        (
            lambda root: savemat(
                root / "info/tracks_test_info.mat", {"track_test_info": [[1, 1, 77, 1]]}
            ),
            "to identity 77",
        ),
    ],
)
def test_lists_of_mars_that_do_not_fit(mars, tmp_path, break_it, words):
    root = tmp_path / "set"
    shutil.copytree(mars, root)
    if "identity 77" in words:
        savemat(root / "info/query_IDX.mat", {"query_IDX": [1]})
    break_it(root)
    with pytest.raises(DataError, match=words):
        MARS(str(root), "query")


def test_other_names_in_mars(mars, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(mars, root)
    shutil.copy(next(root.glob("bbox_train/*/*")), root / "bbox_train" / "x.jpg")
    with pytest.raises(DataError, match=r"x\.jpg is not like 0001C1T0002F003"):
        MARS(str(root))
    with pytest.raises(DataError, match="found no 'bbox_train'"):
        MARS(str(tmp_path / "nowhere"))


def test_the_generated_slips_are_in_the_training_set(mars):
    """What a reader of ``slips.csv`` needs: its paths are those of the data set."""
    with open(mars / "info" / "slips.csv", encoding="utf-8") as file:
        listed = {str(mars / row["image"]) for row in csv.DictReader(file)}
    assert listed <= set(MARS(str(mars)).images)
