# SPDX-License-Identifier: Apache-2.0
"""tools/search.py, command by command."""

import csv
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import ppcls_ise
from ppcls_ise.data.identity_labels import read_labels
from ppcls_ise.errors import ConfigError, DataError
from ppcls_ise.retrieval.gallery_search import GallerySearch
from ppcls_ise.utils.files import locked
from tests.conftest import SYNTHETIC


@pytest.fixture
def search(lite_model, tmp_path):
    """search(command, key=value ...): the command's function, called as the tool calls it."""
    ppcls_ise.register()
    from ppcls_ise.cli import search as search_commands

    def call(command, **given):
        values = {
            **dict.fromkeys("config device batch_size threads precision".split()),
            **dict.fromkeys("mkldnn tensorrt onnx".split()),
            "gallery": str(tmp_path / "g.gallery"),
            "model": str(lite_model),
            **{"override": [], "skip_unreadable": False, "images": None, "features": None},
            **{"false_accept": 0.01, "eps": 0.5, "count": 10, "csv": None, "html": None},
            **dict.fromkeys("camera_pattern tracklet_pattern table labels".split()),
            **{"exclude_self": True, "exclude_same_camera": False, "exclude_same_tracklet": False},
        }
        return getattr(search_commands, command)(SimpleNamespace(**(values | given)))

    return call


def test_ranked_as_the_features_say(search, lite_model, lite_set, tmp_path):
    report = search("build", images=str(lite_set / "bounding_box_test"))
    paths = sorted(str(path) for path in (lite_set / "bounding_box_test").iterdir())
    assert f"{len(paths)} images added" in report and "exact search" in report
    out = tmp_path / "r.csv"
    search("query", images=str(lite_set / "query"), count=4, csv=str(out))
    extractor = ppcls_ise.Extractor(lite_model)
    queries = sorted(str(path) for path in (lite_set / "query").iterdir())
    scores = extractor(queries) @ extractor(paths).T
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * len(queries)
    for i, name in enumerate(queries):
        lines = rows[4 * i : 4 * i + 4]
        assert {line["query"] for line in lines} == {name}
        assert [line["rank"] for line in lines] == ["1", "2", "3", "4"]
        found = [float(line["score"]) for line in lines]
        np.testing.assert_allclose(found, np.sort(scores[i])[::-1][:4], atol=1e-5)
        for line, score in zip(lines, found, strict=True):
            assert scores[i, paths.index(line["path"])] == pytest.approx(score, abs=1e-5)
            assert line["same_person"] == ""


def ranked(out):
    """Query -> paths of its matches, best first."""
    found = {}
    with out.open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["query"], []).append(row["path"])
    return found


def test_a_query_does_not_find_itself(search, lite_set, tmp_path):
    folder = tmp_path / "crops"
    folder.mkdir()
    names = sorted((lite_set / "query").iterdir())[:6]
    for name in names:
        shutil.copy(name, folder / name.name)
    own = folder / names[0].name
    for copied in "abc":  # three files with the same bytes
        shutil.copy(own, folder / f"{copied}.jpg")
    search("build", images=str(folder))
    out = tmp_path / "r.csv"
    search("query", images=str(folder), count=3, csv=str(out))
    found = ranked(out)
    assert len(found) == 9 and all(len(matches) == 3 for matches in found.values())
    same = {str(own), *(str(folder / f"{copied}.jpg") for copied in "abc")}
    assert all(not same & set(found[path]) for path in same)
    for path, matches in found.items():
        assert path not in matches
    # Under another name, and through a link, too.
    (tmp_path / "link.jpg").symlink_to(own)
    search("query", images=str(tmp_path / "link.jpg"), count=9, csv=str(out))
    (matches,) = ranked(out).values()
    assert len(matches) == 5 and not same & set(matches)
    search("query", images=str(own), count=3, csv=str(out), exclude_self=False)
    assert ranked(out)[str(own)][0] in same


def test_cameras_and_tracklets_are_left_out(search, lite_set, tmp_path):
    images = str(lite_set / "bounding_box_test")
    search("build", images=images)
    with pytest.raises(DataError, match="have no camera, .*--camera-pattern"):
        search("query", images=images, exclude_same_camera=True)
    pattern = {"camera_pattern": r"_c(\d+)"}
    search("build", images=images, **pattern)
    out, page = tmp_path / "r.csv", tmp_path / "r.html"
    with pytest.raises(DataError, match="the queries have no camera"):
        search("query", images=str(lite_set / "query"), exclude_same_camera=True)

    def camera(path):
        return Path(path).name.split("_")[1][:2]

    for given in ({"images": images}, {"images": str(lite_set / "query"), **pattern}):
        more = {"exclude_same_camera": True, "labels": "names", "html": str(page)}
        search("query", csv=str(out), **given, **more)
        for query, matches in ranked(out).items():
            assert matches and camera(query) not in {camera(path) for path in matches}
    text = page.read_text()
    assert 'class="right' in text and 'class="wrong' in text and "camera 1<" in text

    # The first two images are a tracklet, and the rest are in none.
    paths = sorted((lite_set / "bounding_box_test").iterdir())
    table = tmp_path / "t.csv"
    lines = [f"{path.name},{'t' if i < 2 else ''}" for i, path in enumerate(paths)]
    table.write_text("\n".join(["path,tracklet", *lines]) + "\n")
    search("build", images=images, table=str(table))
    search("query", images=images, count=len(paths), csv=str(out), exclude_same_tracklet=True)
    found = ranked(out)
    assert str(paths[1]) not in found[str(paths[0])]
    assert str(paths[1]) in found[str(paths[2])] and str(paths[3]) in found[str(paths[2])]
    with pytest.raises(ConfigError, match="clusters are not known"):
        search("query", images=images, labels="pseudo")


def test_add_and_remove(search, lite_set, tmp_path):
    search("build", images=str(lite_set / "query"))
    count = len(list((lite_set / "query").iterdir()))
    more = tmp_path / "more"
    (more / "sub").mkdir(parents=True)
    source = sorted((lite_set / "bounding_box_test").iterdir())[0]
    for name in ("a.jpg", "sub/b.jpg", "sub/c.jpg"):
        shutil.copy(source, more / name)
    search("add", images=str(more))
    report = search("add", images=str(more / "sub"))
    assert (
        f"2 of them were there and are replaced): {tmp_path}/g.gallery holds {count + 3}" in report
    )
    shutil.rmtree(more)  # what is removed need not exist any more
    report = search("remove", paths=[str(more / "sub"), str(more / "a.jpg")])
    assert report.startswith("3 images removed") and f"holds {count} images" in report
    with pytest.raises(DataError, match="not in the gallery, nor"):
        search("remove", paths=[str(more)])
    # a folder is not a prefix of a name
    with pytest.raises(DataError, match="nor is an image below"):
        search("remove", paths=[str(lite_set / "quer")])


def test_another_model_is_refused(search, lite_checkpoint, lite_set, tmp_path):
    from ppcls_ise.config.overrides import get_config
    from ppcls_ise.deploy.export import export_model

    search("build", images=str(lite_set / "query"))
    before = (tmp_path / "g.gallery").read_bytes()
    overrides = [o for o in lite_checkpoint if "pretrained" not in o]
    overrides.append(f"Global.save_inference_dir={tmp_path / 'other'}")
    export_model(get_config(str(SYNTHETIC), overrides), allow_random_weights=True)
    for command in ("add", "query"):
        with pytest.raises(DataError, match="made with another model.*build the gallery again"):
            search(command, images=str(lite_set / "query"), model=str(tmp_path / "other"))
    assert (tmp_path / "g.gallery").read_bytes() == before


def test_thresholds_of_names_clusters_and_tables(search, lite_model, lite_set, tmp_path):
    search("build", images=str(lite_set / "bounding_box_test"))
    by_names = search("calibrate_gallery", labels="names")
    chosen = GallerySearch.load(tmp_path / "g.gallery").calibration
    assert f"threshold {chosen.threshold:.3f} saved" in by_names
    assert chosen.false_accept <= 0.01 and chosen.source == "file names"
    table = tmp_path / "labels.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "identity", "camera"])
        for path in sorted((lite_set / "bounding_box_test").iterdir()):
            person, camera = path.name.split("_")[0], path.name.split("_")[1][:2]
            if int(person) > 0:
                writer.writerow([path, person, camera])
    search("calibrate_gallery", labels=str(table))
    again = GallerySearch.load(tmp_path / "g.gallery").calibration
    assert (again.threshold, again.rows, again.same_pairs) == (
        chosen.threshold,
        chosen.rows,
        chosen.same_pairs,
    )
    assert "labels.csv" in again.source
    # the features of other images, by tools/infer.py
    from ppcls_ise.deploy.feature_files import save_features

    extractor = ppcls_ise.Extractor(lite_model)
    paths = sorted(str(path) for path in (lite_set / "bounding_box_train").iterdir())
    save_features(tmp_path / "f.npz", extractor(paths), paths, model=extractor.fingerprint)
    search("calibrate_gallery", labels="names", features=str(tmp_path / "f.npz"))
    trained = GallerySearch.load(tmp_path / "g.gallery").calibration
    assert trained.same_pairs != chosen.same_pairs
    save_features(tmp_path / "f.npz", extractor(paths), paths, model="other")
    with pytest.raises(DataError, match="another model"):
        search("calibrate_gallery", labels="names", features=str(tmp_path / "f.npz"))
    report = search("query", images=paths[0], count=1)
    assert f"reaches {trained.threshold:.3f}: same person" in report or "is below" in report
    with pytest.raises(ConfigError, match="name the images"):
        search("query")


def test_pseudo_labels_are_clusters(unit_rows):
    generator = np.random.default_rng(0)
    centers = unit_rows(generator, 5, 16)
    features = np.repeat(centers, 8, axis=0) + 0.02 * unit_rows(generator, 40, 16)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = read_labels("pseudo", features, [str(i) for i in range(40)])
    assert len(set(labels.identities[labels.identities >= 0])) == 5
    assert "too good" in labels.source and labels.cameras is None
    for count, word in ((40, "raise"), (8, "lower")):
        rows, eps = (unit_rows(generator, 40, 16), 0.05) if count == 40 else (features[:8], 0.9)
        with pytest.raises(DataError, match=f"{word} --eps"):
            read_labels("pseudo", rows, ["x"] * count, eps=eps)


def test_additions_at_the_same_time_are_all_kept(search, lite_set, tmp_path, monkeypatch):
    from ppcls_ise.cli import search as search_commands

    search("build", images=str(lite_set / "query"))
    before = len(GallerySearch.load(tmp_path / "g.gallery"))
    images = sorted((lite_set / "bounding_box_test").glob("*.jpg"))[:2]
    extract = search_commands.extract_files

    def while_somebody_adds(extractor, paths, **options):
        if list(paths) == [str(images[0])]:
            search("add", images=str(images[1]))
        return extract(extractor, paths, **options)

    monkeypatch.setattr(search_commands, "extract_files", while_somebody_adds)
    search("add", images=str(images[0]))
    after = GallerySearch.load(tmp_path / "g.gallery").paths
    assert len(after) == before + 2 and {str(image) for image in images} <= set(after)

    monkeypatch.setattr(search_commands, "_WAIT", 0.0)
    with locked(tmp_path / "g.gallery"):
        for command in (
            lambda: search("add", images=str(images[0])),
            lambda: search("remove", paths=[str(images[0])]),
            lambda: search("calibrate_gallery", labels="names"),
            lambda: search("build", images=str(images[0])),
        ):
            with pytest.raises(ConfigError, match="another process"):
                command()
    assert GallerySearch.load(tmp_path / "g.gallery").paths == after


def test_names_never_forge_lines_or_formulas(search, lite_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forged = "=HYPERLINK(1)\n\x1b[2Jerror: all is lost.jpg"
    shutil.copy(next((lite_set / "query").glob("*.jpg")), forged)
    Path("list.txt").write_text(f"\ufeff=one\u2028two.jpg\n{forged.splitlines()[0]}.jpg\n")
    for name in ("=one\u2028two.jpg", "=HYPERLINK(1).jpg"):
        shutil.copy(forged, name)
    report = search("build", images=".")
    report += search("query", images=forged)
    report += search("query", images="list.txt", csv="r.csv", exclude_self=False)
    report += search("remove", paths=[forged])
    assert all(c.isprintable() or c == "\n" for c in report)
    assert "\nerror: all" not in report.replace("\x1b", "") and "\\x1b[2Jerror" in report
    with open("r.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["query"] for row in rows} == {"./=one\u2028two.jpg", "./=HYPERLINK(1).jpg"}
    assert all(Path(row["query"]).is_file() for row in rows)
    with pytest.raises(DataError) as error:
        search("remove", paths=["a\nb"])
    assert "\n" not in str(error.value)
    with pytest.raises(DataError) as error:
        search("calibrate_gallery", labels="names")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("option", ["csv", "html"])
def test_places_for_results_are_tried_before_the_work(search, tmp_path, monkeypatch, option):
    from ppcls_ise.cli import search as search_commands

    gallery = GallerySearch(model="m")
    gallery.add(["a"], np.eye(1, 4, dtype=np.float32))
    gallery.save(tmp_path / "g.gallery")
    (tmp_path / "file").touch()
    monkeypatch.setattr(search_commands, "make_extractor", None)
    with pytest.raises(ConfigError, match=f"--{option}: nothing can be written"):
        search("query", images="x", **{option: str(tmp_path / "file" / "r")})
    with pytest.raises(DataError, match="no gallery"):
        search("query", gallery=str(tmp_path / "none"), images="x")


def test_identities_of_names():
    names = ["/x/0002_c1s1_1.jpg", "0002_c3_1.jpg", "-1_c1_1.jpg", "0000_c2_1.jpg"]
    labels = read_labels("names", np.zeros((4, 1)), names)
    assert labels.identities.tolist() == [2, 2, -1, -1]
    assert labels.cameras.tolist() == [1, 3, 1, 2]
    with pytest.raises(DataError, match="crop.jpg does not tell identity"):
        read_labels("names", np.zeros((1, 1)), ["crop.jpg"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "header"),
        ("name,identity\na,1\n", "header"),
        ("path,identity\na,\n", "line 2 is not complete"),
        ("path,identity\nz,1\n", "names none of the 2 images"),
        ("path,identity\na,1\na,2\n", "two identities"),
        ("path,identity,camera\na,1,\n", "line 2 is not complete"),
        ("path,identity,camera\na,1\n", "line 2 has 2 cells, the header 3"),
        ("path,identity,identity\na,1,2\n", "2 columns identity: which counts"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    Path("labels.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        read_labels("labels.csv", np.zeros((2, 1)), ["a", "b"])
    with pytest.raises(ConfigError, match="no file nowhere"):
        read_labels("nowhere", np.zeros((2, 1)), ["a", "b"])


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_spaces_and_a_byte_order_mark_make_no_other_person(tmp_path, monkeypatch, start):
    monkeypatch.chdir(tmp_path)
    Path("labels.csv").write_text(f'{start}path, identity,camera\na," 0061",1\nb,0061, 1\n')
    labels = read_labels("labels.csv", np.zeros((2, 1)), ["a", "b"])
    assert labels.identities.tolist() == [0, 0] and labels.cameras.tolist() == [0, 0]
