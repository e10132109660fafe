# SPDX-License-Identifier: Apache-2.0
"""From which score on are two images of the same person? Counted on pairs with known answers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ppcls_ise.clustering.row_set import row_norms
from ppcls_ise.errors import DataError

_STEPS = 1000  # thresholds are multiples of 1 / _STEPS
_THRESHOLDS = (np.arange(2 * _STEPS + 2) - _STEPS) / _STEPS  # the last one is reached by nothing
_BLOCK_VALUES = 1 << 24
_LEAST_RATE = 1e-15  # fewer than one of all pairs there can be
_UNKNOWN = -1
_UNIT_TOLERANCE = 1e-3
_SHOWN_RATES = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)
# How a source begins that judges features by clusters of themselves.
PSEUDO_LABELS = "pseudo-labels"


@dataclass(frozen=True)
class Calibration:
    """A threshold and what it did on the pairs that it was chosen on.

    Attributes:
        threshold: a pair is accepted as the same person from this cosine on; a multiple of 0.001.
        false_accept: share of the pairs of different people that it accepts.
        false_reject: share of the pairs of the same person that it does not.
        different_pairs, same_pairs: how many there were.
        source: where the identities came from, in words.
        rows: (threshold, false_accept, false_reject) of other thresholds, ascending.
    """

    threshold: float
    false_accept: float
    false_reject: float
    different_pairs: int
    same_pairs: int
    source: str
    rows: tuple[tuple[float, float, float], ...]

    def accepts(self, score: float) -> bool:
        return bool(np.float32(score) >= np.float32(self.threshold))

    @property
    def caution(self) -> str:
        """What to know about the rates, "" if nothing speaks against them."""
        if not self.source.startswith(PSEUDO_LABELS):
            return ""
        return (
            "The threshold was chosen on pseudo-labels, which were made from the same features: "
            "expect more errors than these"
        )

    def verdict(self, score: float) -> str:
        """In words: same person or not, and how far that can be trusted."""
        shown = shown_score(score)
        if self.accepts(score):
            words = (
                f"score {shown} reaches {self.threshold:.3f}: same person. At that threshold "
                f"{_share(self.false_accept, self.different_pairs)} pairs of different people "
                "were accepted too"
            )
        else:
            words = (
                f"score {shown} is below {self.threshold:.3f}: not shown to be the same person. At "
                f"that threshold {_share(self.false_reject, self.same_pairs)} pairs of the same "
                "person were rejected too"
            )
        return f"{words}. {self.caution}" if self.caution else words

    def table(self) -> str:
        """False accepts and false rejects by threshold, the chosen one marked."""
        lines = [
            f"{self.same_pairs} pairs of the same person and {self.different_pairs} of different "
            f"people, by {self.source}",
            "threshold | false accept | false reject",
            "----------+--------------+-------------",
        ]
        for threshold, accept, reject in self.rows:
            mark = "  <- chosen" if threshold == self.threshold else ""
            lines.append(f"{threshold:9.3f} | {accept:12.5f} | {reject:12.5f}{mark}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> "Calibration":
        """The inverse of `to_json`.

        Raises:
            ValueError: it is something else.
        """
        try:
            rows = tuple((float(t), float(a), float(r)) for t, a, r in values["rows"])
            numbers = {name: float(values[name]) for name in cls._floats()}
            result = cls(
                **numbers,
                different_pairs=int(values["different_pairs"]),
                same_pairs=int(values["same_pairs"]),
                source=str(values["source"]),
                rows=rows,
            )
        except (TypeError, KeyError, OverflowError) as error:
            raise ValueError(f"this is no calibration: {error}") from error
        if not np.isfinite([list(numbers.values())]).all():
            raise ValueError("a calibration is not finite")
        for rate in (result.false_accept, result.false_reject):
            if rate and not _LEAST_RATE <= rate <= 1:
                raise ValueError(f"a calibration has the rate {rate}")
        return result

    @staticmethod
    def _floats() -> tuple[str, ...]:
        return "threshold", "false_accept", "false_reject"


def shown_score(score: float, decimals: int = 3) -> str:
    """Decimals rounded down: a score below a threshold never reads as equal to it, and the same
    score written with more of them never reads as larger."""
    exact = np.float32(min(max(score, -1.0), 1.0))
    value = round(float(exact), decimals)
    if np.float32(value) > exact:
        value -= 10.0**-decimals
    return f"{value:.{decimals}f}"


def checked_unit_rows(features: np.ndarray) -> np.ndarray:
    """``features`` as float32 [N, D]; all of length 1, or 0.

    Raises:
        DataError: they are not; names the row.
    """
    rows = np.ascontiguousarray(features, dtype=np.float32)
    if rows.ndim != 2 or not rows.shape[1]:
        raise DataError(f"features are a matrix [N, D], got shape {list(rows.shape)}")
    try:
        norms = row_norms(rows)
    except ValueError as error:
        raise DataError(f"{error}. The weights may have diverged.") from error
    bad = np.flatnonzero(np.minimum(norms, abs(norms - 1)) > _UNIT_TOLERANCE)
    if len(bad):
        raise DataError(f"features: row {bad[0]} has length {norms[bad[0]]:.4g}, not 1")
    return rows


def calibrate(
    features: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    *,
    cameras: Sequence[int] | np.ndarray | None = None,
    tracklets: Sequence[int] | np.ndarray | None = None,
    max_false_accept: float = 0.01,
    source: str = "labels",
) -> Calibration:
    """Choose the lowest threshold (a multiple of 0.001) that accepts at most ``max_false_accept``
    of the pairs of different people.

    Every pair of two labeled images counts once; with cameras, pairs from one camera are left out,
    because two crops of one track are easier than what the threshold will be asked. Pseudo-labels
    were made from the same features, so rates counted on them are too good.

    Args:
        features: [N, D] unit rows, or rows of zeros.
        labels: [N] identities; -1 is unknown and takes no part.
        cameras: [N] or None.
        tracklets: [N] numbers, below 0 = in none, or None. Pairs within one do not count: frames
            that follow one another are nearly equal, which no question to a gallery is about.
        max_false_accept: in [0, 1].
        source: where the labels came from, for the report.

    Raises:
        DataError: no pair of the same person, or none of different people; rows that are not
            finite or not of length 1; not one label (and camera) per row.

    O(N^2 D) time, O(N D) memory.
    """
    if not 0 <= max_false_accept <= 1:
        raise DataError(f"a false-accept rate is a share in 0 .. 1, got {max_false_accept}")
    rows, people = checked_unit_rows(features), np.asarray(labels)
    for name, given in (
        ("labels", people),
        ("cameras", cameras),
        ("tracklets", tracklets),
    ):
        if given is not None and len(given) != len(rows):
            raise DataError(f"{len(rows)} features need as many {name}, got {len(given)}")
    known = people != _UNKNOWN
    rows, people = rows[known], people[known]
    cameras = None if cameras is None else np.asarray(cameras)[known]
    tracklets = None if tracklets is None else np.asarray(tracklets)[known]
    same, different = _count_scores(rows, people, cameras, tracklets)
    for name, counts in (("the same person", same), ("different people", different)):
        if not counts.sum():
            where = " from different cameras" if cameras is not None else ""
            where += " in different tracklets" if tracklets is not None else ""
            raise DataError(
                f"there is no pair of {name}{where} among {len(rows)} labeled images, so no "
                "threshold can be chosen: give more labeled images"
            )
    accepts = _from(different) / different.sum()
    rejects = 1 - _from(same) / same.sum()

    def lowest(rate: float) -> int:
        return int(np.argmax(accepts <= rate))

    chosen = lowest(max_false_accept)
    shown = sorted({chosen, *(lowest(rate) for rate in _SHOWN_RATES)})
    table = tuple((float(_THRESHOLDS[i]), float(accepts[i]), float(rejects[i])) for i in shown)
    return Calibration(
        threshold=float(_THRESHOLDS[chosen]),
        false_accept=float(accepts[chosen]),
        false_reject=float(rejects[chosen]),
        different_pairs=int(different.sum()),
        same_pairs=int(same.sum()),
        source=source,
        rows=table,
    )


def _count_scores(
    rows: np.ndarray,
    labels: np.ndarray,
    cameras: np.ndarray | None,
    tracklets: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Histograms over ``_bins`` of the pairs i < j: same person, different people."""
    counts = np.zeros((2, len(_THRESHOLDS)), np.int64)
    numbers = np.arange(len(rows))
    block = max(1, _BLOCK_VALUES // max(1, len(rows)))
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        scores = rows[part] @ rows[start:].T
        pairs = numbers[part, None] < numbers[None, start:]
        if cameras is not None:
            pairs &= cameras[part, None] != cameras[None, start:]
        if tracklets is not None:
            own = tracklets[part, None]
            pairs &= (own != tracklets[None, start:]) | (own < 0)
        match = labels[part, None] == labels[None, start:]
        for place, wanted in enumerate((match, ~match)):
            counts[place] += np.bincount(_bins(scores[pairs & wanted]), minlength=counts.shape[1])
    return counts[0], counts[1]


def _bins(scores: np.ndarray) -> np.ndarray:
    """For each float32 score the number of the highest threshold that it reaches."""
    edges = _THRESHOLDS[:-1].astype(np.float32)
    return np.searchsorted(edges, np.clip(scores, -1, 1), side="right") - 1


def _from(counts: np.ndarray) -> np.ndarray:
    """How many lie in bin i or above."""
    return counts[::-1].cumsum()[::-1]


def _share(rate: float, pairs: int) -> str:
    if not rate:
        return f"none of {pairs}"
    return f"1 in {round(1 / rate)}" if rate <= 0.5 else f"{rate:.0%} of"
