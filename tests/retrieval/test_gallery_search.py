# SPDX-License-Identifier: Apache-2.0
"""The gallery against a sorted matrix of cosines, and its file against everything."""

import json
import os
import pickle

import numpy as np
import pytest

from ppcls_ise.errors import DataError
from ppcls_ise.retrieval.gallery_images import GalleryImage, images_of, rows_like
from ppcls_ise.retrieval.gallery_search import KIND, GallerySearch
from ppcls_ise.utils import array_files
from ppcls_ise.utils.array_files import read_tree, write_tree

DIM = 8


def rows(count, seed=0, dim=DIM):
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def names(count, first=0):
    return [f"/crops/{i}.jpg" for i in range(first, first + count)]


def gallery_of(count, *, exact_limit=1000, seed=0, dim=DIM):
    gallery = GallerySearch(model="a" * 64, exact_limit=exact_limit)
    gallery.add(names(count), rows(count, seed, dim))
    return gallery


def oracle(stored, queries, count):
    """Paths and cosines by sorting everything."""
    paths = list(stored)
    unit = [stored[path] / max(np.linalg.norm(stored[path]), 1e-12) for path in paths]
    results = []
    for query in queries:
        query = query / max(np.linalg.norm(query), 1e-12)
        scored = sorted(((-float(np.dot(query, u)), i) for i, u in enumerate(unit)))
        results.append([(paths[i], -score) for score, i in scored[:count]])
    return results


def assert_same(found, expected):
    for matches, wanted in zip(found, expected, strict=True):
        assert [match.path for match in matches] == [path for path, _ in wanted]
        np.testing.assert_allclose(
            [match.score for match in matches], [score for _, score in wanted], atol=1e-5
        )


@pytest.mark.parametrize("count", [1, 3, 50])
def test_exact_search_is_the_sorted_matrix(count):
    stored = dict(zip(names(40), rows(40), strict=True))
    gallery = gallery_of(40)
    queries = rows(7, seed=1) * 30
    assert gallery.is_exact
    assert_same(gallery.search(queries, count), oracle(stored, queries, count))


def test_duplicates_and_zero_rows():
    gallery = GallerySearch()
    features = np.array([[1, 0], [0, 0], [2, 0], [0, 3]], np.float32)
    gallery.add(["a", "b", "c", "d"], features)
    found = gallery.search(np.array([[5, 0], [0, 0]], np.float32), 4)
    assert [match.path for match in found[0]] == ["a", "c", "b", "d"]
    assert [match.score for match in found[0]] == [1, 1, 0, 0]
    assert [match.score for match in found[1]] == [0, 0, 0, 0]


@pytest.mark.parametrize("limit", [1000, 20])
def test_random_additions_and_removals(limit):
    """Whatever was done before, a search sees what is there, and a saved gallery is the same."""
    generator = np.random.default_rng(3)
    gallery, stored, first = GallerySearch(exact_limit=limit), {}, 0
    for step in range(25):
        new = names(int(generator.integers(1, 12)), first)
        again = [p for p in stored if generator.random() < 0.1]
        features = rows(len(new) + len(again), seed=step)
        assert gallery.add(new + again, features) == len(again)
        first += len(new)
        for path in again:
            del stored[path]
        stored |= dict(zip(new + again, features, strict=True))
        gone = [path for path in stored if generator.random() < 0.15]
        gallery.remove(gone)
        for path in gone:
            del stored[path]
        assert gallery.paths == list(stored)
        assert gallery.is_exact or len(stored) > limit
        if stored:
            queries = rows(4, seed=1000 + step)
            found = gallery.search(queries, 5)
            assert_same(found, oracle(stored, queries, 5))
    assert gallery.is_exact == (limit == 1000)


def test_a_graph_finds_what_an_exact_search_finds():
    features, queries = rows(3000, dim=32), rows(200, seed=9, dim=32)
    approximate = GallerySearch(exact_limit=100)
    approximate.add(names(3000), features)
    exact = GallerySearch()
    exact.add(names(3000), features)
    gone = names(500, 1000)
    for gallery in (approximate, exact):
        gallery.remove(gone)
    assert not approximate.is_exact and len(approximate) == 2500
    pairs = zip(approximate.search(queries, 10), exact.search(queries, 10), strict=True)
    shared = [len({m.path for m in a} & {m.path for m in b}) / 10 for a, b in pairs]
    assert np.mean(shared) > 0.98
    assert all(m.path not in set(gone) for found in approximate.search(queries, 50) for m in found)


def test_a_graph_of_copies_still_gives_full_lists():
    """Rows that a graph cannot reach are found by looking at all of them."""
    gallery = GallerySearch(exact_limit=10)
    gallery.add(names(60), np.ones((60, 4), np.float32))
    gallery.remove(names(12))
    found = gallery.search(np.ones((1, 4), np.float32), 48)[0]
    assert sorted(match.path for match in found) == sorted(names(48, 12))


@pytest.mark.parametrize("limit", [1000, 20])
def test_saved_and_loaded(tmp_path, limit):
    gallery = gallery_of(50, exact_limit=limit)
    gallery.remove(names(4, 10))
    gallery.save(tmp_path / "g.gallery")
    loaded = GallerySearch.load(tmp_path / "g.gallery")
    queries = rows(5, seed=2)
    assert loaded.search(queries) == gallery.search(queries)
    assert (loaded.paths, loaded.model, loaded.is_exact) == (
        gallery.paths,
        gallery.model,
        gallery.is_exact,
    )
    np.testing.assert_array_equal(loaded.features, gallery.features)
    for other in (gallery, loaded):
        other.add(["new"], rows(1, seed=5))
        other.remove(names(2))
    if limit == 1000:
        assert loaded.search(queries) == gallery.search(queries)
    assert len(loaded) == 45


def test_odd_names_survive(tmp_path):
    odd = ['a"b', "<script>", "new\nline", "tab\t", "\udcff\udcfe", "人.jpg", "", " "]
    gallery = GallerySearch()
    gallery.add(odd, rows(len(odd)))
    gallery.save(tmp_path / "g")
    assert GallerySearch.load(tmp_path / "g").paths == odd


def test_emptied_and_filled_again(tmp_path):
    gallery = gallery_of(3)
    gallery.remove(names(3))
    assert len(gallery) == 0 and gallery.features.shape == (0, DIM)
    with pytest.raises(DataError, match="gallery is empty"):
        gallery.search(rows(1))
    gallery.save(tmp_path / "g")
    gallery = GallerySearch.load(tmp_path / "g")
    with pytest.raises(DataError, match="another model"):
        gallery.add(["a"], rows(1, dim=5))
    gallery.add(["a"], rows(1))
    assert gallery.search(rows(1))[0][0].path == "a"


def test_mistakes_change_nothing():
    gallery = gallery_of(5)
    bad = rows(2)
    bad[1, 3] = np.nan
    for paths, features, words in (
        (["x", "x"], rows(2), "1 of them different"),
        (["x"], rows(2), "as many different paths"),
        (["x"], rows(1, dim=3), "another model"),
        (["x", "y"], bad, "NaN"),
        (["x"], rows(1)[0], "matrix"),
    ):
        with pytest.raises(DataError, match=words):
            gallery.add(paths, features)
    with pytest.raises(DataError, match="not in the gallery: nowhere"):
        gallery.remove([names(1)[0], "nowhere"])
    for features, count in ((rows(1, dim=3), 1), (rows(1), 0)):
        with pytest.raises(DataError):
            gallery.search(features, count)
    assert gallery.paths == names(5)
    with pytest.raises(DataError, match="without features"):
        GallerySearch().save("never")


def test_features_of_another_model_are_refused():
    gallery = gallery_of(2)
    gallery.require_model("a" * 64)
    with pytest.raises(DataError, match="another model.*build"):
        gallery.require_model("b" * 64)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "g"
    gallery_of(3).save(path)
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(array_files, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        gallery_of(9).save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["g"]


@pytest.mark.parametrize("limit", [1000, 20])
def test_no_damaged_file_is_taken(tmp_path, limit):
    path = tmp_path / "g"
    gallery_of(40, exact_limit=limit).save(path)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        place = int(generator.integers(len(whole)))
        kind = generator.integers(4)
        if kind == 0:
            damaged[place] ^= int(generator.integers(1, 256))
        elif kind == 1:
            del damaged[place:]
        elif kind == 2:
            del damaged[place : place + int(generator.integers(1, 50))]
        else:
            damaged[place:place] = generator.bytes(7)
        path.write_bytes(damaged)
        with pytest.raises(DataError):
            GallerySearch.load(path)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", pickle.dumps({"a": 1})])
def test_no_foreign_file_is_taken(tmp_path, content):
    (tmp_path / "g").write_bytes(content)
    with pytest.raises(DataError, match="no gallery"):
        GallerySearch.load(tmp_path / "g")
    with pytest.raises(FileNotFoundError):
        GallerySearch.load(tmp_path / "none")


def test_no_code_runs_from_a_gallery_with_a_right_checksum(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    tree = _tree(tmp_path, 20)
    payload = np.frombuffer(pickle.dumps(Payload()), np.uint8)
    write_tree(tmp_path / "g", tree | {"features": payload, "model": Payload.__name__}, kind=KIND)
    with pytest.raises(DataError):
        GallerySearch.load(tmp_path / "g")
    assert not (tmp_path / "ran").exists()


def test_crafted_numbers_with_a_right_checksum_never_reach_faiss(tmp_path):
    """Every array and fact, changed at random: an error, or a gallery that can be searched."""
    tree = _tree(tmp_path, 20)
    generator = np.random.default_rng(1)
    refused = 0
    for _ in range(150):
        changed = {**tree, "graph": dict(tree["graph"])}
        places = [(changed, "features"), (changed, "alive")]
        places += [(changed["graph"], name) for name in changed["graph"]]
        table, name = places[int(generator.integers(len(places)))]
        array = table[name].copy()
        kind = generator.integers(5)
        if kind == 0:
            array.flat[int(generator.integers(array.size))] = generator.integers(-5, 1 << 40)
            table[name] = array
        elif kind == 1:
            table[name] = array[:-1]
        elif kind == 2:
            table[name] = array.astype(np.float64)
        elif kind == 3:
            del table[name]
        else:
            table[name] = generator.permutation(array)
        write_tree(tmp_path / "g", changed, kind=KIND)
        try:
            GallerySearch.load(tmp_path / "g").search(rows(3), 30)
        except DataError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    "change",
    [
        {"paths": ["a"]},
        {"paths": ["a"] * 40},
        {"paths": [1] * 40},
        {"cameras": [1] * 40},
        {"tracklets": ["1"]},
        {"exact_limit": "9"},
        {"model": None},
        {"calibration": {"threshold": 1}},
        {"calibration": []},
    ],
)
def test_crafted_facts(tmp_path, change):
    write_tree(tmp_path / "g", _tree(tmp_path, 1000) | change, kind=KIND)
    with pytest.raises(DataError, match="no gallery that can be used"):
        GallerySearch.load(tmp_path / "g")


def test_a_gallery_of_the_first_version_is_named(tmp_path):
    (tmp_path / "g").write_bytes(b"ppcls_ise gallery 1 " + b"0" * 64 + b"\nPK\x03\x04")
    with pytest.raises(DataError, match=r"version 0\.1.*search build"):
        GallerySearch.load(tmp_path / "g")


def _tree(folder, limit):
    gallery_of(40, exact_limit=limit).save(folder / "g")
    tree = read_tree(folder / "g", kind=KIND, error=DataError)
    facts = {key: value for key, value in tree.items() if key in ("model", "paths", "exact_limit")}
    assert json.loads(json.dumps(facts)) == facts
    return tree


@pytest.mark.parametrize("limit", [1000, 100])
@pytest.mark.parametrize("queries", [1, 30])  # faiss multiplies many queries in another way
def test_equal_scores_are_cut_in_the_order_of_the_gallery(limit, queries):
    stored = np.concatenate([rows(60, seed=1), np.repeat(rows(1, seed=2), 140, axis=0)])
    order = np.random.default_rng(0).permutation(len(stored))
    gallery = GallerySearch(exact_limit=limit)
    gallery.add(names(len(stored)), stored[order])
    copies = [name for name, row in zip(names(len(stored)), order, strict=True) if row >= 60]
    for result in gallery.search(np.repeat(stored[-1:], queries, axis=0), 7):
        assert [match.path for match in result] == copies[:7]
        assert len({match.score for match in result}) == 1


@pytest.mark.parametrize("limit", [1000, 20])
@pytest.mark.parametrize(
    "keys", [["path"], ["camera"], ["tracklet"], ["path", "camera", "tracklet"], []]
)
def test_results_do_without_the_own_image_camera_and_tracklet(limit, keys, tmp_path):
    """Against sorting what is left, after removals and after a file."""
    stored = rows(60, seed=1)
    cameras = ["", *(f"c{i % 3}" for i in range(59))]
    tracklets = [*(f"t{i // 7}" for i in range(50)), *[""] * 10]
    gallery = GallerySearch(exact_limit=limit)
    gallery.add(names(60), stored, cameras=cameras, tracklets=tracklets)
    gallery.remove(names(5, 20))
    gallery.save(tmp_path / "g")
    gallery = GallerySearch.load(tmp_path / "g")
    left = [i for i in range(60) if not 20 <= i < 25]
    assert gallery.images == [GalleryImage(names(60)[i], cameras[i], tracklets[i]) for i in left]
    columns = {"path": names(60), "camera": cameras, "tracklet": tracklets}
    queries = images_of(names(60), cameras, tracklets)
    found = gallery.search(stored, 50, exclude=rows_like(gallery.images, queries, keys))
    for query, matches in enumerate(found):
        kept = {
            names(60)[i]: stored[i]
            for i in left
            if not any(c[i] and c[i] == c[query] for c in (columns[key] for key in keys))
        }
        assert_same([matches], oracle(kept, stored[query : query + 1], 50))


def test_everything_left_out_leaves_nothing():
    gallery = gallery_of(3)
    everything = [np.arange(3), np.array([2, 0, 2]), np.zeros(0, np.int64)]
    found = gallery.search(rows(3), 2, exclude=everything)
    assert [len(matches) for matches in found] == [0, 1, 2]
    assert found[1][0].path == names(3)[1]
    with pytest.raises(ValueError, match="zip"):
        gallery.search(rows(3), 2, exclude=everything[:2])


def test_a_gallery_without_cameras_and_tracklets_is_read(tmp_path):
    """As they were written before both were known."""
    tree = _tree(tmp_path, 1000)
    del tree["cameras"], tree["tracklets"]
    write_tree(tmp_path / "g", tree, kind=KIND)
    gallery = GallerySearch.load(tmp_path / "g")
    assert gallery.images == images_of(gallery.paths)
    gallery.add(["new"], rows(1), tracklets=["7"])
    assert gallery.images[-1] == GalleryImage("new", "", "7")
    with pytest.raises(DataError, match="1 images need as many tracklets, got 2"):
        gallery.add(["other"], rows(1), tracklets=["7", "8"])
