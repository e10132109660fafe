# SPDX-License-Identifier: Apache-2.0
"""Search results as one HTML file that opens from disk and needs nothing else."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from string import Template

from PIL import Image

from ppcls_ise.data.images import ImageReadError, read_image
from ppcls_ise.retrieval.calibration import Calibration, shown_score
from ppcls_ise.retrieval.gallery_search import Match
from ppcls_ise.utils.files import replacing

_HEIGHT, _WIDTH = 192, 192
_QUALITY = 85
# The file loads nothing and runs nothing, whatever a file name may contain.
_PAGE = Path(__file__).with_suffix(".html")


def contact_sheet(
    path: str | Path,
    queries: Sequence[str],
    results: Sequence[Sequence[Match]],
    *,
    calibration: Calibration | None = None,
    title: str = "Gallery search",
) -> None:
    """Write the ranked gallery images of every query, best first, with scores and verdicts.

    Thumbnails are part of the file. An image that cannot be read any more is shown by its name
    and the reason.

    Args:
        path: HTML file, written atomically.
        queries: Q image paths.
        results: Q lists, see `GallerySearch.search`.
        calibration: for green and red borders; without it borders are gray.
        title: of the page.

    Raises:
        OSError: it cannot be written there.
    """
    sections = [
        _section(query, matches, calibration)
        for query, matches in zip(queries, results, strict=True)
    ]
    page = Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title=_text(title), summary=_text(_summary(calibration)), sections="\n".join(sections)
    )
    with replacing(path) as scratch:
        scratch.write_text(page, encoding="utf-8")


def _summary(calibration: Calibration | None) -> str:
    if calibration is None:
        return "Scores are cosines. No threshold has been calibrated (search.py calibrate)."
    return (
        f"Scores are cosines. Green: {calibration.threshold:.3f} or more, taken for the same "
        f"person. On {calibration.different_pairs} pairs of different people and "
        f"{calibration.same_pairs} of the same person (by {calibration.source}), this threshold "
        f"accepted {calibration.false_accept:.2%} of the first and rejected "
        f"{calibration.false_reject:.2%} of the second."
    )


def _section(query: str, matches: Sequence[Match], calibration: Calibration | None) -> str:
    cells = [_figure(query, "query", "query")]
    for rank, match in enumerate(matches, 1):
        kind, words = "unknown", ""
        if calibration is not None:
            same = calibration.accepts(match.score)
            kind, words = ("same", ", same") if same else ("other", ", below")
        heading = f"{rank}: {shown_score(match.score)}{words}"
        cells.append(_figure(match.path, kind, heading))
    row = '<div class="row">\n' + "\n".join(cells) + "\n</div>"
    verdict = calibration.verdict(matches[0].score) if calibration and matches else ""
    best = f"\n<p>Best match: {_text(verdict)}.</p>" if verdict else ""
    return f"<section>\n{row}{best}\n</section>"


def _figure(path: str, kind: str, heading: str) -> str:
    name = _text(Path(path).name)
    try:
        picture = f'<img alt="{name}" src="{_thumbnail(path)}">'
    except ImageReadError as error:
        picture = f'<div class="missing">{_text(str(error))}</div>'
    return (
        f'<figure class="{kind}" title="{_text(path)}">{picture}'
        f"<figcaption><b>{_text(heading)}</b>\n{name}</figcaption></figure>"
    )


def _thumbnail(path: str) -> str:
    """The image as a data URI, reduced to at most 192 pixels a side."""
    image = Image.fromarray(read_image(path))
    image.thumbnail((_WIDTH, _HEIGHT))
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _text(text: str) -> str:
    """``text`` for HTML content and attributes, whatever bytes a file name is made of."""
    readable = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return html.escape(readable, quote=True)
