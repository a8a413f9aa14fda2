"""The extent of the foreground: a head with its skull, a cut field of view, other anatomy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neuroxai.data.case_quality import Alarm, Finding
from neuroxai.quality.coarse import CannotTellError, CoarseCase, Mask, bounding_box

_SMALL_L, _LARGE_L = 0.8, 2.2
"""Liters; brains of adults have 1.3 to 1.8 l with their CSF, heads 2.8 to 3.3 l."""
_DARK_BAND = 5.0
"""Percent of the band below the surface that is dark; 3 % at most in stripped brains."""
_DARK = 0.25  # of the median in the depth
_BAND_MM, _DEEP_MM = (4.0, 20.0), 25.0
_OVERLAP = 0.90  # Dice of a foreground with that of all
_CUT = 0.20  # outermost slice over the largest; whole brains reach 0.09, a quarter cut off 0.27


def volume(scan: CoarseCase) -> Iterator[Finding]:
    """Find a foreground that is larger or smaller than a brain, in any sequence or in common."""
    scan.require_volume()
    sizes: dict[tuple[str, ...], float] = {
        (name,): _liters(scan, each.mask) for name, each in scan.sequences.items()
    }
    sizes[()] = _liters(scan, scan.brain)
    large = {names: size for names, size in sizes.items() if size > _LARGE_L}
    small = {names: size for names, size in sizes.items() if size < _SMALL_L}
    if large:
        yield Alarm(
            "volume", _together(large, scan), "the foreground is larger than a brain, as of a head "
            "with its skull", "volume", max(large.values()), _LARGE_L, "l",
            "remove the skull with a skull-stripping program",
        )  # fmt: skip
    if small:
        yield Alarm(
            "volume", _together(small, scan), "the foreground is smaller than an adult's brain",
            "volume", min(small.values()), _SMALL_L, "l",
            "give the whole brain of an adult, and check the voxel size in the header",
        )  # fmt: skip


def dark_band(scan: CoarseCase) -> Iterator[Finding]:
    """Find a dark band between the surface and the brain: the bone of a skull left in places."""
    require_brain(scan)
    near = (scan.depth > _BAND_MM[0]) & (scan.depth < _BAND_MM[1])
    center = scan.depth > _DEEP_MM
    if not center.any():
        raise CannotTellError(f"needs a brain deeper than {_DEEP_MM:g} mm")
    for name, sequence in scan.sequences.items():
        away = np.abs(sequence.image - np.float32(sequence.background))
        dark = 100 * float((away[near] < _DARK * np.median(away[center])).mean())
        if dark > _DARK_BAND:
            yield Alarm(
                "skull", (name,), "a dark band lies below the surface, as of bone, or of a cavity "
                "at the surface", "share of the band", dark, _DARK_BAND, "%",
                "look for remnants of the skull and remove them",
            )  # fmt: skip


def same_extent(scan: CoarseCase) -> Iterator[Finding]:
    """Find sequences whose foreground is another one than that of the others."""
    scan.require_volume()
    if len(scan.sequences) < 2:
        raise CannotTellError("needs several sequences")
    for name, sequence in scan.sequences.items():
        both = float((sequence.mask & scan.brain).sum())
        overlap = 2 * both / max(float(sequence.mask.sum() + scan.brain.sum()), 1)
        if overlap < _OVERLAP:
            yield Alarm(
                "extent", (name,), "covers a different part of the head from the other "
                "sequences, as if cut, shifted or not stripped", "Dice of the foregrounds", overlap,
                _OVERLAP,
                "", "process all sequences of a case in the same way",
            )  # fmt: skip


def cut(scan: CoarseCase) -> Iterator[Finding]:
    """Find a foreground that ends in a plane: a brain cut by the field of view."""
    require_brain(scan)
    found: dict[str, float] = {}
    for name, sequence in scan.sequences.items():
        if sequence.mask.any():
            found[name] = max(_ends(sequence.mask))
    worst = {name: share for name, share in found.items() if share > _CUT}
    if worst:
        names = () if len(worst) == len(found) else tuple(worst)
        yield Alarm(
            "field of view", names, "the brain ends in a plane, as if cut by the field of view",
            "outermost slice over the largest", max(worst.values()), _CUT, "",
            "give a scan of the whole brain",
        )  # fmt: skip


def require_brain(scan: CoarseCase) -> None:
    """Raise :class:`CannotTellError` unless the common foreground has the size of a brain."""
    scan.require_volume()
    liters = _liters(scan, scan.brain)
    if not _SMALL_L <= liters <= _LARGE_L:
        raise CannotTellError(
            f"needs a stripped brain; the foreground has {liters:.2g} l instead of {_SMALL_L:g} to "
            f"{_LARGE_L:g} l"
        )


def _liters(scan: CoarseCase, mask: Mask) -> float:
    return float(mask.sum()) * scan.voxel_ml / 1000


def _together(sizes: dict[tuple[str, ...], float], scan: CoarseCase) -> tuple[str, ...]:
    """Return the sequences; none if all of them are meant, or only what they have in common."""
    names = tuple(name for several in sizes for name in several)
    return () if len(names) in (0, len(scan.sequences)) else names


def _ends(mask: Mask) -> Iterator[float]:
    """Yield the area of both outermost slices over the largest, along each axis."""
    box = mask[bounding_box(mask)]
    for axis in range(3):
        areas = box.sum(axis=tuple(other for other in range(3) if other != axis))
        yield float(areas[0] / areas.max())
        yield float(areas[-1] / areas.max())
