# SPDX-License-Identifier: Apache-2.0
"""``search query``: who is like these images, on the terminal, as a table and as pages."""

import os
from collections.abc import Iterator, Sequence

import numpy as np

from ppcls_ise import compat
from ppcls_ise.data.identity_labels import PSEUDO, read_labels
from ppcls_ise.errors import ConfigError, DataError, shown
from ppcls_ise.retrieval.calibration import Calibration, shown_score
from ppcls_ise.retrieval.gallery_images import GalleryImage, rows_like
from ppcls_ise.retrieval.gallery_search import GallerySearch, Match
from ppcls_ise.utils.files import sha256_of
from ppcls_ise.utils.tables import cell, write_csv
from ppcls_ise.visualization.search_page import Known, page_names, search_pages

_SHOWN_QUERIES = 3
# Below it, two features are not those of the same file.
_COPY_SCORE = 0.999
_MANY_BYTES = 50_000_000


def ranked(
    gallery: GallerySearch,
    queries: Sequence[GalleryImage],
    features: np.ndarray,
    count: int,
    *,
    without_self: bool,
    without: Sequence[str] = (),
) -> list[list[Match]]:
    """Ranked lists of Q queries.

    Args:
        gallery: to search.
        queries: Q images with absolute paths.
        features: [Q, D] of them.
        count: matches per query.
        without_self: leave out the query's own file, under whatever name: its path, a link to it,
            or the same bytes.
        without: "camera", "tracklet": leave out images that share it; see `rows_like`.

    Raises:
        DataError: ``without`` names what the gallery or a query does not know.
    """
    for key in without:
        _require_names(key, gallery.images, "the gallery's images")
        _require_names(key, queries, "the queries")
    extra = 1 if without_self else 0
    keys = list(without)

    def search(rows: Sequence[int], wanted: int) -> list[list[Match]]:
        images = [queries[i] for i in rows]
        exclude = rows_like(gallery.images, images, keys) if keys else None
        return gallery.search(features[rows], wanted, exclude=exclude)

    results = search(range(len(queries)), count + extra)
    if not without_self:
        return results
    for i, query in enumerate(queries):
        wanted, found = count + extra, results[i]
        while True:
            kept = [match for match in found if not _is_copy(query.path, match)]
            if len(kept) >= count or len(found) < wanted:
                break
            wanted *= 2  # many copies
            (found,) = search([i], wanted)
        results[i] = kept[:count]
    return results


def _require_names(key: str, images: Sequence[GalleryImage], whose: str) -> None:
    unknown = [image.path for image in images if not getattr(image, key)]
    if len(unknown) == len(images) or (unknown and key == "camera"):
        raise DataError(
            f"--exclude-same-{key}: {whose} have no {key}, for instance {shown(unknown[0])}: name "
            f"them by --{key}-pattern or --table, here and in search build"
        )


def _is_copy(query: str, match: Match) -> bool:
    if query == match.path:
        return True
    if match.score < _COPY_SCORE:
        return False
    try:
        if os.path.samefile(query, match.path):
            return True
        sizes = os.path.getsize(query), os.path.getsize(match.path)
        return sizes[0] == sizes[1] and sha256_of(query) == sha256_of(match.path)
    except OSError:  # one of them is gone
        return False


def known_of(images: Sequence[GalleryImage], labels: str | None) -> dict[str, Known]:
    """What is known of images, by path; people by ``labels`` (``names`` or a CSV file).

    Raises:
        ConfigError, DataError: ``labels`` cannot be used.
    """
    people: list[str | None] = [None] * len(images)
    if labels == PSEUDO:
        raise ConfigError("--labels of a query are names or a CSV file: clusters are not known")
    if labels is not None:
        paths = [image.path for image in images]
        found = read_labels(labels, np.zeros((0, 1), np.float32), paths).identities
        people = [str(number) if number >= 0 else None for number in found]
    return {
        image.path: Known(person, image.camera or None)
        for image, person in zip(images, people, strict=True)
    }


def write_pages(
    path: str,
    queries: Sequence[str],
    results: Sequence[Sequence[Match]],
    calibration: Calibration | None,
    known: dict[str, Known],
) -> str:
    """Write `search_pages`; a warning before it where they are large. Returns what to print."""
    count = max(map(len, results), default=0)
    files = page_names(path, len(queries), count)
    if len(files) > 1:
        thumbnails = sum(len(matches) + 1 for matches in results)
        compat.logger().warning(
            f"{len(queries)} queries with up to {count} matches are {thumbnails} images: "
            f"{len(files)} pages, {shown(files[0])} to {shown(files[-1].name)}, of some 7 MB each. "
            "Fewer --images or a smaller --count make them fewer"
        )
    size = search_pages(path, queries, results, calibration=calibration, known=known)
    more = f" and {len(files) - 1} more pages" if len(files) > 1 else ""
    return f"{len(queries)} queries: {shown(path)}{more} ({size / 1e6:.1f} MB)"


def write_matches(
    path: str,
    queries: Sequence[str],
    results: Sequence[Sequence[Match]],
    calibration: Calibration | None,
) -> str:
    """Write a line per match; returns what to print."""
    rows = [
        [
            cell(query),
            rank,
            cell(match.path),
            shown_score(match.score, 6),
            int(calibration.accepts(match.score)) if calibration else "",
        ]
        for query, matches in zip(queries, results, strict=True)
        for rank, match in enumerate(matches, 1)
    ]
    write_csv(path, ["query", "rank", "path", "score", "same_person"], rows, newline="\r\n")
    return f"{len(queries)} queries: {shown(path)}"


def lines_of(
    queries: Sequence[str],
    results: Sequence[Sequence[Match]],
    calibration: Calibration | None,
    *,
    all_of_them: bool,
) -> Iterator[str]:
    """Ranked lists for the terminal."""
    shown_queries = len(queries) if all_of_them else _SHOWN_QUERIES
    for query, matches in list(zip(queries, results, strict=True))[:shown_queries]:
        yield shown(query)
        for rank, match in enumerate(matches, 1):
            yield f"{rank:4d}  {shown_score(match.score):>6}  {shown(match.path)}"
        if not matches:
            yield "      no image is left after what was excluded"
        elif calibration is None:
            yield "      best: no threshold yet (search calibrate)"
        else:
            yield f"      best: {calibration.verdict(matches[0].score)}"
