# SPDX-License-Identifier: Apache-2.0
"""Search results as HTML pages that open from disk and need nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ppcls_ise.data.images import ImageReadError
from ppcls_ise.retrieval.calibration import Calibration, shown_score
from ppcls_ise.retrieval.gallery_search import Match
from ppcls_ise.utils.files import replacing
from ppcls_ise.visualization.pages import link, render
from ppcls_ise.visualization.thumbnails import jpeg_uri

# The pages load nothing and run nothing, whatever a file name may contain.
_TEMPLATE = "search_page.html"
_SIDE, _QUALITY = 192, 80  # pixels of a thumbnail
# Of one page, some 7 kB each: about 7 MB.
IMAGES_PER_PAGE = 1000


class Known(NamedTuple):
    """What is known of an image: its person and its camera, None where they are not known."""

    identity: str | None = None
    camera: str | None = None


def page_names(path: str | Path, queries: int, count: int) -> list[Path]:
    """The files of `search_pages`: ``path``, and as many of ``<stem>-2.html`` … as it takes to have
    at most `IMAGES_PER_PAGE` images on each."""
    path = Path(path)
    pages = -(-queries // _queries_per_page(count))
    more = [path.with_name(f"{path.stem}-{n}{path.suffix}") for n in range(2, pages + 1)]
    return [path, *more]


def search_pages(
    path: str | Path,
    queries: Sequence[str],
    results: Sequence[Sequence[Match]],
    *,
    calibration: Calibration | None = None,
    known: Mapping[str, Known] | None = None,
    title: str = "Gallery search",
) -> int:
    """Write the ranked gallery images of every query, best first, with scores and verdicts.

    Thumbnails are part of the pages, and lead to the images themselves. Green and red stand for
    people that are known to be the query's or not, and for nothing else; a score that reaches the
    threshold has a thick border. An image that cannot be read any more is shown by its name and the
    reason.

    Args:
        path: HTML file, written atomically; with many queries, the first of `page_names`.
        queries: Q image paths.
        results: Q lists, see `GallerySearch.search`.
        calibration: of the gallery.
        known: what is known of images, by path.
        title: of the pages.

    Returns:
        Bytes of all pages.

    Raises:
        OSError: they cannot be written there.
    """
    files = page_names(path, len(queries), max(map(len, results), default=0))
    step = _queries_per_page(max(map(len, results), default=0))
    size = 0
    for number, file in enumerate(files):
        first, last = number * step, min((number + 1) * step, len(queries))
        values = {
            "title": title,
            "summary": _summary(calibration),
            "colored": any(about.identity is not None for about in (known or {}).values()),
            "calibrated": calibration is not None,
            "pages": [file.name for file in files],
            "page": number,
            "total": len(queries),
            "places": {i: files[i // step].name for i in (first - 1, last) if i < len(queries)},
            "sections": [
                _section(i, queries[i], results[i], calibration, known or {})
                for i in range(first, last)
            ],
        }
        with replacing(file) as scratch:
            scratch.write_text(render(_TEMPLATE, values), encoding="utf-8")
        size += file.stat().st_size
    return size


def _queries_per_page(count: int) -> int:
    return max(1, IMAGES_PER_PAGE // (count + 1))


def _summary(calibration: Calibration | None) -> str:
    if calibration is None:
        return "Scores are cosines. No threshold has been calibrated (ppcls-ise search calibrate)."
    return (
        f"Scores are cosines. From {calibration.threshold:.3f} on (thick border) an image is taken "
        f"for the same person. On {calibration.different_pairs} pairs of different people and "
        f"{calibration.same_pairs} of the same person (by {calibration.source}), this threshold "
        f"accepted {calibration.false_accept:.2%} of the first and rejected "
        f"{calibration.false_reject:.2%} of the second."
        + (f" {calibration.caution}." if calibration.caution else "")
    )


def _section(
    number: int,
    query: str,
    matches: Sequence[Match],
    calibration: Calibration | None,
    known: Mapping[str, Known],
) -> dict[str, Any]:
    own = known.get(query, Known())
    cells = []
    for rank, match in enumerate(matches, 1):
        about = known.get(match.path, Known())
        kind = ""
        if own.identity is not None and about.identity is not None:
            kind = "right" if own.identity == about.identity else "wrong"
        accepted = calibration is not None and calibration.accepts(match.score)
        cells.append(
            {
                **_picture(match.path, about),
                "kind": f"{kind} accepted" if accepted else kind,
                "rank": rank,
                "score": shown_score(match.score),
                "words": {"right": "same person", "wrong": "another person", "": ""}[kind],
            }
        )
    verdict = calibration.verdict(matches[0].score) if calibration and matches else ""
    return {
        "number": number,
        "query": _picture(query, own),
        "matches": cells,
        "verdict": verdict,
    }


def _picture(path: str, about: Known) -> dict[str, Any]:
    picture, problem = "", ""
    try:
        picture = jpeg_uri(path, height=_SIDE, width=_SIDE, quality=_QUALITY)
    except ImageReadError as error:
        problem = str(error)
    return {
        "path": path,
        "name": Path(path).name,
        "link": link(path),
        "picture": picture,
        "problem": problem,
        "camera": about.camera,
        "identity": about.identity,
    }
