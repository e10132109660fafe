# SPDX-License-Identifier: Apache-2.0
"""``search``: Search a gallery of images.

    search build people.gallery --model FOLDER --images FOLDER
    search query people.gallery --model FOLDER --images IMAGE --html results.html

The model is a folder of `export`, or a checkpoint (-c CONFIG
-o Global.pretrained_model=WEIGHTS).
"""

import argparse
import csv
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import Timeout

from ppcls_ise.cli.inference_options import add_arguments, make_extractor, read_overrides
from ppcls_ise.clustering.row_set import unit_rows
from ppcls_ise.data.identity_labels import read_labels
from ppcls_ise.data.image_list import list_images
from ppcls_ise.deploy.extractor import Extractor
from ppcls_ise.deploy.feature_files import cell, extract_files, load_features
from ppcls_ise.errors import ConfigError, DataError, shown
from ppcls_ise.registry import register
from ppcls_ise.retrieval.calibration import Calibration, calibrate, shown_score
from ppcls_ise.retrieval.gallery_images import tracklet_numbers
from ppcls_ise.retrieval.gallery_search import GallerySearch, Match
from ppcls_ise.utils.files import locked, replacing, require_replaceable
from ppcls_ise.visualization.search_page import contact_sheet

_SHOWN_QUERIES = 3
_WAIT = 60.0  # seconds for another command to finish with the gallery


def configure(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    parts = {}
    for name, function in (
        ("build", build),
        ("add", add),
        ("remove", remove),
        ("calibrate", calibrate_gallery),
        ("query", query),
    ):
        parts[name] = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        parts[name].set_defaults(function=function)
        parts[name].add_argument("gallery", help="the gallery's file")
    for name in ("build", "add", "query"):
        add_arguments(parts[name])
        parts[name].add_argument("--skip-unreadable", action="store_true")
    parts["remove"].add_argument("paths", nargs="+", help="images, or folders of images")
    options = parts["calibrate"]
    options.add_argument("--labels", required=True, help="names, pseudo, or a CSV file")
    options.add_argument("--features", help=".npz of ppcls-ise infer; default: the gallery's own")
    options.add_argument("--false-accept", type=float, default=0.01, help="default: 0.01")
    options.add_argument("--eps", type=float, default=0.5, help="of the clustering for pseudo")
    options = parts["query"]
    options.add_argument("--count", type=int, default=10, help="images per query (default: 10)")
    options.add_argument("--csv", help="file for the ranked lists")
    options.add_argument("--html", help="file for the ranked images")


def command(args: argparse.Namespace) -> str:
    register()
    return args.function(args)


def build(args: argparse.Namespace) -> str:
    """A new gallery of all images; an existing file of that name is replaced."""
    require_replaceable(args.gallery, "the gallery's file")
    extractor, paths, features = _extract(args)
    with _alone(args.gallery):
        return _add(GallerySearch(model=extractor.fingerprint), paths, features, args.gallery)


def add(args: argparse.Namespace) -> str:
    """More images; those that are in the gallery already are replaced."""
    model = _gallery(args.gallery).model
    require_replaceable(args.gallery, "the gallery's file")
    extractor, paths, features = _extract(args, model)
    with _alone(args.gallery):  # from here on, what others added meanwhile is in it
        gallery = _gallery(args.gallery)
        gallery.require_model(extractor.fingerprint)
        return _add(gallery, paths, features, args.gallery)


def remove(args: argparse.Namespace) -> str:
    """Images and folders of images, which need not exist any more."""
    _gallery(args.gallery)
    with _alone(args.gallery):
        gallery = _gallery(args.gallery)
        gone: set[str] = set()
        for given in args.paths:
            path = os.path.abspath(given)
            found = [p for p in gallery.paths if p == path or p.startswith(path.rstrip("/") + "/")]
            if not found:
                raise DataError(f"{shown(path)} is not in the gallery, nor is an image below it")
            gone |= set(found)
        gallery.remove(gone)
        gallery.save(args.gallery)
        return f"{len(gone)} images removed: {_describe(gallery, args.gallery)}"


def calibrate_gallery(args: argparse.Namespace) -> str:
    """Choose the threshold for "same person" and keep it in the gallery."""
    _gallery(args.gallery)
    with _alone(args.gallery):
        gallery = _gallery(args.gallery)
        features, paths = gallery.features, gallery.paths
        tracklets = tracklet_numbers(gallery.images)
        if args.features:
            file = load_features(args.features)
            gallery.require_model(file.model)
            features, paths, tracklets = unit_rows(file.features), file.paths, file.tracklet_ids
        labels = read_labels(args.labels, features, paths, eps=args.eps)
        gallery.calibration = calibrate(
            features,
            labels.identities,
            cameras=labels.cameras,
            tracklets=tracklets,
            max_false_accept=args.false_accept,
            source=labels.source,
        )
        gallery.save(args.gallery)
    chosen = f"threshold {gallery.calibration.threshold:.3f} saved in {shown(args.gallery)}"
    return f"{gallery.calibration.table()}\n{chosen}"


def query(args: argparse.Namespace) -> str:
    """Ranked gallery images of every query, on the terminal, as CSV and as HTML."""
    gallery = _gallery(args.gallery)
    for option in ("csv", "html"):
        if path := getattr(args, option):
            require_replaceable(path, f"--{option}")
    _, paths, features = _extract(args, gallery.model)
    results = gallery.search(features, args.count)
    if args.csv:
        _write_csv(args.csv, paths, results, gallery.calibration)
    if args.html:
        contact_sheet(args.html, paths, results, calibration=gallery.calibration)
    listed = range(len(paths) if not (args.csv or args.html) else min(len(paths), _SHOWN_QUERIES))
    lines = [line for i in listed for line in _lines(paths[i], results[i], gallery.calibration)]
    lines += [f"{len(paths)} queries: {shown(path)}" for path in (args.csv, args.html) if path]
    return "\n".join(lines)


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """While in it, no other process changes the gallery: what it adds would be lost."""
    try:
        with locked(path, wait=_WAIT):
            yield
    except Timeout as error:
        raise ConfigError(
            f"another process has been changing {shown(path)} for {_WAIT:g} s: wait until it ends"
        ) from error


def _gallery(path: str) -> GallerySearch:
    if not Path(path).is_file():
        raise DataError(f"there is no gallery {shown(path)}: make one with tools/search.py build")
    return GallerySearch.load(path)


def _extract(
    args: argparse.Namespace, model: str | None = None
) -> tuple[Extractor, list[str], np.ndarray]:
    """The extractor, which has to be of the ``model`` with that fingerprint if it is given, and
    paths and features of the images named."""
    read_overrides(args)
    if not args.images:
        raise ConfigError("name the images: --images PATH (PaddleClas: -o Global.infer_imgs=PATH)")
    extractor = make_extractor(args)
    if model is not None:
        GallerySearch(model=model).require_model(extractor.fingerprint)
    images = list_images(args.images)
    features, paths = extract_files(extractor, images, skip_unreadable=args.skip_unreadable)
    return extractor, paths, features


def _add(gallery: GallerySearch, paths: list[str], features: np.ndarray, file: str) -> str:
    replaced = gallery.add([os.path.abspath(path) for path in paths], features)
    gallery.save(file)
    report = f"{len(paths)} images added"
    if replaced:
        report += f" ({replaced} of them were there and are replaced)"
    return f"{report}: {_describe(gallery, file)}"


def _describe(gallery: GallerySearch, path: str) -> str:
    kind = "exact search" if gallery.is_exact else "HNSW search"
    return f"{shown(path)} holds {len(gallery)} images, {kind}"


def _lines(query: str, matches: Sequence[Match], calibration: Calibration | None) -> list[str]:
    lines = [shown(query)]
    for rank, match in enumerate(matches, 1):
        lines.append(f"{rank:4d}  {shown_score(match.score):>6}  {shown(match.path)}")
    best = matches[0].score
    verdict = calibration.verdict(best) if calibration else "no threshold yet (search.py calibrate)"
    return [*lines, f"      best: {verdict}"]


def _write_csv(
    path: str,
    queries: Sequence[str],
    results: Sequence[Sequence[Match]],
    calibration: Calibration | None,
) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["query", "rank", "path", "score", "same_person"])
    for query, matches in zip(queries, results, strict=True):
        for rank, match in enumerate(matches, 1):
            same = int(calibration.accepts(match.score)) if calibration else ""
            writer.writerow(
                [cell(query), rank, cell(match.path), shown_score(match.score, 6), same]
            )
    with replacing(path) as scratch:
        content = text.getvalue().encode("utf-8", "surrogateescape")
        Path(scratch).write_bytes(content)
