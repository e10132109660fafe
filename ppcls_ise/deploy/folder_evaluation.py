# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a model on two folders of images whose names or a table say who is shown."""

import os
from typing import Any

import numpy as np

from ppcls_ise import compat
from ppcls_ise.clustering.row_set import unit_rows
from ppcls_ise.data.folder import UnlabeledFolder, number_alike
from ppcls_ise.data.image_record import ImageRecord
from ppcls_ise.deploy.extractor import Extractor
from ppcls_ise.deploy.feature_files import extract_files
from ppcls_ise.engine.evaluated_sets import known_of_both
from ppcls_ise.errors import ConfigError, DataError, shown
from ppcls_ise.metrics import Labels, ReIDMetric, ReIDResult, Side

_SHOWN = 5
_JUNK = "-1"


class _Folder(UnlabeledFolder):
    """Images of the identity -1, the junk of Market-1501, are left out."""

    shares_table = True

    def select(self, records: list[ImageRecord]) -> list[ImageRecord]:
        names = self._names[1] or []
        junk = names.index(_JUNK) if _JUNK in names else None
        kept = [record for record in records if record.pid is None or record.pid != junk]
        if len(kept) < len(records):
            compat.logger().info(
                f"{len(records) - len(kept)} images of identity {_JUNK} (junk) are left out"
            )
        return kept


class FolderEvaluation:
    """Query and gallery folder, and what is known of their images.

    A gallery image that is the query's own file never counts. With cameras, matches are those from
    other cameras (the Market-1501 rule); without, all but those of the query's tracklet.

    Args:
        query: folder.
        gallery: folder; it may be the same.
        **names: how identities, cameras and tracklets are told, see `UnlabeledFolder`.

    Attributes:
        query, gallery: the data sets.
        protocol: in words, which images do not count.

    Raises:
        ConfigError: nothing tells the identities.
        DataError: a folder, or a name in it, cannot be used.
    """

    def __init__(self, query: str, gallery: str, **names: Any) -> None:
        self.query, self.gallery = _Folder(query, **names), _Folder(gallery, **names)
        if self.query.pids is None or self.gallery.pids is None:
            raise ConfigError(
                "an evaluation needs to know who is shown: --identity-pattern REGEX (for "
                "0002_c1s1_000451.jpg: '(-?\\d+)_c'), or --table CSV with the columns path and "
                "identity"
            )
        number_alike(self.query, self.gallery)
        known = known_of_both(self.query, self.gallery)
        self._cameras = all(side.camids is not None for side in known)
        self._tracklets = all(side.tracklet_ids is not None for side in known)
        self.sides = _with_own_files(known, self.query.images, self.gallery.images)

    @property
    def protocol(self) -> str:
        if self._cameras:
            without = "of the query's camera" + (" or tracklet" if self._tracklets else "")
        elif self._tracklets:
            without = "of the query's tracklet (no cameras are known)"
        else:
            return (
                "all images of the same identity count but the query's own file: neither cameras "
                "nor tracklets are known, so frames that follow one another make this easy "
                "(--camera-pattern, --tracklet-pattern)"
            )
        return f"images of the same identity count unless they are {without}"

    def features(self, extractor: Extractor) -> tuple[Side, Side]:
        """Both sides with features of length 1.

        Raises:
            DataError: an image cannot be read.
        """
        found = [
            Side(unit_rows(extract_files(extractor, dataset.images)[0]), *labels)
            for dataset, labels in zip((self.query, self.gallery), self.sides, strict=True)
        ]
        return found[0], found[1]

    def evaluate(self, sides: tuple[Side, Side], **options: Any) -> ReIDResult:
        """Scores of features.

        Args:
            sides: from `features`.
            **options: of `ReIDMetric`: topk, re_ranking, k1, k2, lambda_value.

        Raises:
            DataError: no query has a match.
        """
        protocol = "cross_camera" if self._cameras else "cross_tracklet"
        result = ReIDMetric(protocol=protocol, **options)(*sides)
        ranks = result.ranks
        if not ranks.num_valid_queries:
            raise DataError(
                f"no query has a match in the gallery, so there is nothing to score: "
                f"{self.protocol}. Check what tells the identities "
                f"({', '.join(sorted(set(self.query.identity_names or []))[:_SHOWN])} …)"
            )
        if len(ranks.skipped_queries):
            names = ", ".join(shown(self.query.images[i]) for i in ranks.skipped_queries[:_SHOWN])
            compat.logger().warning(
                f"[Eval] {len(ranks.skipped_queries)} of {ranks.num_queries} queries have no match "
                f"in the gallery and are left out: {names}"
                f"{', …' if len(ranks.skipped_queries) > _SHOWN else ''}"
            )
        return result


def _with_own_files(
    known: tuple[Labels, Labels], query: list[str], gallery: list[str]
) -> tuple[Labels, Labels]:
    """An image in no tracklet becomes one of its own: a file on both sides is the same one."""
    given = [labels.tracklet_ids for labels in known]
    if any(ids is None for ids in given):
        given = [None, None]
    first = 1 + max(-1 if ids is None else int(ids.max(initial=-1)) for ids in given)
    sides = []
    order: dict[str, int] = {}
    for labels, ids, paths in zip(known, given, (query, gallery), strict=True):
        own = np.array(
            [first + order.setdefault(os.path.realpath(path), len(order)) for path in paths]
        )
        ids = own if ids is None else np.where(ids >= 0, ids, own)
        sides.append(labels._replace(tracklet_ids=ids))
    return sides[0], sides[1]
