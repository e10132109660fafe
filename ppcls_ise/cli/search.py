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
from collections.abc import Sequence
from pathlib import Path

from ppcls_ise.cli.inference_options import add_arguments, make_extractor, read_overrides
from ppcls_ise.clustering.row_set import unit_rows
from ppcls_ise.data.identity_labels import read_labels
from ppcls_ise.data.image_list import list_images
from ppcls_ise.deploy.extractor import Extractor
from ppcls_ise.deploy.feature_files import extract_files, load_features
from ppcls_ise.errors import ConfigError, DataError
from ppcls_ise.registry import register
from ppcls_ise.retrieval.calibration import Calibration, calibrate, shown_score
from ppcls_ise.retrieval.gallery_search import GallerySearch, Match
from ppcls_ise.utils.files import replacing
from ppcls_ise.visualization.search_page import contact_sheet

_SHOWN_QUERIES = 3


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
    extractor = _extractor(args)
    gallery = GallerySearch(model=extractor.fingerprint)
    return _add(gallery, extractor, args)


def add(args: argparse.Namespace) -> str:
    """More images; those that are in the gallery already are replaced."""
    gallery = GallerySearch.load(args.gallery)
    extractor = _extractor(args)
    gallery.require_model(extractor.fingerprint)
    return _add(gallery, extractor, args)


def remove(args: argparse.Namespace) -> str:
    """Images and folders of images, which need not exist any more."""
    gallery = GallerySearch.load(args.gallery)
    gone: set[str] = set()
    for given in args.paths:
        path = os.path.abspath(given)
        found = [p for p in gallery.paths if p == path or p.startswith(path.rstrip("/") + "/")]
        if not found:
            raise DataError(f"{path} is not in the gallery, nor is an image below it")
        gone |= set(found)
    gallery.remove(gone)
    gallery.save(args.gallery)
    return f"{len(gone)} images removed: {_describe(gallery, args.gallery)}"


def calibrate_gallery(args: argparse.Namespace) -> str:
    """Choose the threshold for "same person" and keep it in the gallery."""
    gallery = GallerySearch.load(args.gallery)
    features, paths = gallery.features, gallery.paths
    if args.features:
        features, paths, model = load_features(args.features)
        gallery.require_model(model)
        features = unit_rows(features)
    labels = read_labels(args.labels, features, paths, eps=args.eps)
    gallery.calibration = calibrate(
        features,
        labels.identities,
        cameras=labels.cameras,
        max_false_accept=args.false_accept,
        source=labels.source,
    )
    gallery.save(args.gallery)
    chosen = f"threshold {gallery.calibration.threshold:.3f} saved in {args.gallery}"
    return f"{gallery.calibration.table()}\n{chosen}"


def query(args: argparse.Namespace) -> str:
    """Ranked gallery images of every query, on the terminal, as CSV and as HTML."""
    gallery = GallerySearch.load(args.gallery)
    extractor = _extractor(args)
    gallery.require_model(extractor.fingerprint)
    features, paths = extract_files(
        extractor, list_images(args.images), skip_unreadable=args.skip_unreadable
    )
    results = gallery.search(features, args.count)
    if args.csv:
        _write_csv(args.csv, paths, results, gallery.calibration)
    if args.html:
        contact_sheet(args.html, paths, results, calibration=gallery.calibration)
    shown = range(len(paths) if not (args.csv or args.html) else min(len(paths), _SHOWN_QUERIES))
    lines = [line for i in shown for line in _lines(paths[i], results[i], gallery.calibration)]
    lines += [f"{len(paths)} queries: {path}" for path in (args.csv, args.html) if path]
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode("utf-8")


def _extractor(args: argparse.Namespace) -> Extractor:
    read_overrides(args)
    if not args.images:
        raise ConfigError("name the images: --images PATH (PaddleClas: -o Global.infer_imgs=PATH)")
    return make_extractor(args)


def _add(gallery: GallerySearch, extractor: Extractor, args: argparse.Namespace) -> str:
    paths = [os.path.abspath(path) for path in list_images(args.images)]
    features, paths = extract_files(extractor, paths, skip_unreadable=args.skip_unreadable)
    replaced = gallery.add(paths, features)
    gallery.save(args.gallery)
    report = f"{len(paths)} images added"
    if replaced:
        report += f" ({replaced} of them were there and are replaced)"
    return f"{report}: {_describe(gallery, args.gallery)}"


def _describe(gallery: GallerySearch, path: str) -> str:
    kind = "exact search" if gallery.is_exact else "HNSW search"
    return f"{path} holds {len(gallery)} images, {kind}"


def _lines(query: str, matches: Sequence[Match], calibration: Calibration | None) -> list[str]:
    lines = [query]
    for rank, match in enumerate(matches, 1):
        lines.append(f"{rank:4d}  {shown_score(match.score):>6}  {match.path}")
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
            writer.writerow([query, rank, match.path, f"{match.score:.6f}", same])
    with replacing(path) as scratch:
        content = text.getvalue().encode("utf-8", "surrogateescape")
        Path(scratch).write_bytes(content)
