"""Numbers of a sequence that no magnitude image has: spikes, windows, z-scores, labels, CT."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neuroxai.data.case_quality import Alarm, Finding
from neuroxai.data.pictures import GRAY
from neuroxai.quality.coarse import CannotTellError, CoarseCase, Sequence

_SPIKE = 20.0
"""(max - median) / (99.9th percentile - median); MR images reach 5."""
_AT_MAXIMUM = 0.3
"""Percent of the foreground with exactly the largest value; MR images have single voxels there."""
_BELOW_ZERO = 25.0
"""Percent of the foreground below zero; resampling leaves a few percent, a z-score half."""
_NEGATIVE_AIR = 0.01  # of the range of values; the air of magnitude images is not below zero
_DISTINCT = 64
"""Distinct values in the foreground; label maps have a few, MR images hundreds."""
_AIR_HU = -900.0
"""Hounsfield units close to those of air, -1000."""


def numbers(scan: CoarseCase) -> Iterator[Finding]:
    """Find sequences with numbers that no magnitude image has."""
    if set(scan.sequences) == {GRAY}:
        raise CannotTellError("needs the values of a scan; a picture has those of a display")
    for sequence in scan.sequences.values():
        if not sequence.values.size:
            yield Alarm(
                "numbers", (sequence.name,), "the image is constant", "foreground", 0, 1, "voxels",
                "export the file again",
            )  # fmt: skip
            continue
        yield from _of_one(sequence)


def _of_one(sequence: Sequence) -> Iterator[Finding]:
    name, values = (sequence.name,), sequence.values.astype(np.float64)
    smallest, largest, wrong = _range(sequence)
    if wrong:
        yield Alarm(
            "numbers", name, "has NaN or infinite values", "such voxels", wrong, 0, "",
            "export the file again",
        )  # fmt: skip
    if smallest < _AIR_HU:
        yield Alarm(
            "numbers", name, "looks like a CT, with Hounsfield units", "smallest value", smallest,
            _AIR_HU, "", "give the MR sequence",
        )  # fmt: skip
        return
    distinct = np.unique(values).size
    if distinct < _DISTINCT:
        yield Alarm(
            "numbers", name, "looks like a label map or a mask", "distinct values", distinct,
            _DISTINCT, "", "give the image itself",
        )  # fmt: skip
        return
    median, high = np.quantile(values, (0.5, 0.999))
    ratio = (largest - median) / max(high - median, np.finfo(np.float32).tiny)
    if ratio > _SPIKE:
        yield Alarm(
            "numbers", name, "has single voxels far above all others",
            "largest over 99.9th percentile, both from the median", ratio, _SPIKE, "",
            "set these voxels to the value of their neighbors",
        )  # fmt: skip
    at_maximum = 100 * float((sequence.native == np.float32(largest)).sum())
    at_maximum /= max(sequence.foreground_voxels, 1)
    if at_maximum > _AT_MAXIMUM:
        yield Alarm(
            "numbers", name, "is cut off at its largest value, as by a display window or 8 bits",
            "foreground at the maximum", at_maximum, _AT_MAXIMUM, "%",
            "give the image before windowing",
        )  # fmt: skip
    below = 100 * float((values < 0).mean())
    if sequence.background < -_NEGATIVE_AIR * (high - sequence.background):
        yield Alarm(
            "numbers", name, "is already normalized, with air below zero", "value of air",
            sequence.background, 0, "",
            "give the image as the scanner wrote it, unless the network expects this",
        )  # fmt: skip
    elif below > _BELOW_ZERO:
        yield Alarm(
            "numbers", name, "is already normalized", "foreground below zero", below, _BELOW_ZERO,
            "%", "give the image as the scanner wrote it, unless the network expects this",
        )  # fmt: skip


def _range(sequence: Sequence) -> tuple[float, float, int]:
    """Return the smallest and the largest finite value, and the number of other voxels."""
    low, high = float(sequence.native.min()), float(sequence.native.max())
    if np.isfinite(low) and np.isfinite(high):
        return low, high, 0
    finite = np.isfinite(sequence.native)
    known = sequence.native[finite]
    return float(known.min()), float(known.max()), int(finite.size - finite.sum())
