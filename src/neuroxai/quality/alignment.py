r"""Position of each sequence against the others: shifted, turned, mirrored, or something else.

Edges are in the same place in all sequences of one brain, whatever the contrast. The gradient
:math:`g` of an image gives the tensor

.. math:: T = \frac{g g^\top}{|g|^2 + \epsilon^2},

whose part without trace does not depend on the sign of the contrast. Each sequence's tensors are
correlated with the sum of the others' over all shifts up to 20 mm, for the whole brain and for its
octants.

References
----------
Haber, Modersitzki 2006, doi:10.1007/11866763_89 (normalized gradient fields)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroxai.data.case_quality import Alarm, Finding
from neuroxai.quality.coarse import CannotTellError, CoarseCase, Image, Sequence, bounding_box
from neuroxai.quality.extent import require_brain

_SHIFT_MM = 2.0
"""Shift of the whole brain; registered cases reach 1.1 mm."""
_OCTANT_MM = 1.5
"""Median shift of the octants; registered cases reach 1.1 mm, a turn by 5° starts at 1.9 mm."""
_MIRROR = 1.0
"""Peak of the mirrored over that of the image; right cases reach 0.5, mirrored ones start at 2."""
_SIMILAR = 0.12
"""Peak of the correlation; sequences of one brain start at 0.4, noise in its outline has 0.05."""
_REACH_MM = 20.0
_GRID_MM = 4.0
_SCALE_MM = 2.0  # standard deviation of the smoothing
_RIM_MM = 6.0  # the outline of a brain is symmetric and common to all; edges inside are compared
_PAIRS = tuple(itertools.combinations_with_replacement(range(3), 2))
_DIAGONAL = (0, 3, 5)  # of these pairs


@dataclass(frozen=True)
class Position:
    """Position of one sequence against the sum of the others.

    Attributes
    ----------
    similarity
        Largest correlation over all shifts.
    shift_mm
        Length of the best shift of the whole brain.
    octant_mm
        Median length of the best shifts of the octants.
    mirrored
        Largest correlation of the mirror image, over :attr:`similarity`.
    """

    similarity: float
    shift_mm: float
    octant_mm: float
    mirrored: float

    @property
    def excess(self) -> float:
        """Largest ratio of a figure to its limit; above 1, there is an alarm."""
        return max(
            self.shift_mm / _SHIFT_MM,
            self.octant_mm / _OCTANT_MM,
            self.mirrored / _MIRROR,
            _SIMILAR / max(self.similarity, 1e-9),
        )


def alignment(scan: CoarseCase) -> Iterator[Finding]:
    """Find sequences that are shifted, turned, mirrored or of another brain than the others."""
    require_brain(scan)
    if len(scan.sequences) < 3:
        raise CannotTellError("needs three sequences, to name the one that differs")
    tensors, spacing = _tensors(scan)
    while len(tensors) >= 3:
        found = positions(tensors, spacing)
        worst = max(found, key=lambda name: found[name].excess)
        if found[worst].excess <= 1:
            return
        yield judge(worst, found[worst])
        # The others were compared with this one too; compare them again without it.
        del tensors[worst]


def judge(name: str, found: Position) -> Alarm:
    """Return the alarm of a sequence whose position exceeds a limit."""
    if found.mirrored > _MIRROR and found.similarity * found.mirrored > _SIMILAR:
        return Alarm(
            "alignment", (name,), "left and right are swapped against the other sequences",
            "correlation of the mirror image over that of the image", found.mirrored, _MIRROR, "",
            "correct the orientation of the file",
        )  # fmt: skip
    if found.similarity < _SIMILAR:
        return Alarm(
            "alignment", (name,), "does not show the same anatomy as the other sequences",
            "correlation of the edges", found.similarity, _SIMILAR, "",
            "check that the file is a scan of the same patient",
        )  # fmt: skip
    if found.shift_mm > _SHIFT_MM:
        return Alarm(
            "alignment", (name,), "is shifted against the other sequences", "shift",
            found.shift_mm, _SHIFT_MM, "mm", "register the sequences to each other",
        )  # fmt: skip
    return Alarm(
        "alignment", (name,), "is turned or deformed against the other sequences, or of another "
        "patient", "median shift of eight parts of the brain", found.octant_mm, _OCTANT_MM, "mm",
        "register the sequences to each other",
    )  # fmt: skip


def positions(tensors: dict[str, Image], spacing: tuple[float, ...]) -> dict[str, Position]:
    """Return the position of each sequence against the others."""
    total = np.sum(list(tensors.values()), axis=0)
    return {name: _position(own, total - own, spacing) for name, own in tensors.items()}


def _tensors(scan: CoarseCase) -> tuple[dict[str, Image], tuple[float, ...]]:
    """Return ``(6, X, Y, Z)`` tensors of each sequence on a grid of about 4 mm, and its spacing."""
    masks = [each.mask for each in scan.sequences.values()]
    box = bounding_box(np.any(masks, axis=0), margin=2)
    steps = [max(1, round(_GRID_MM / mm)) for mm in scan.spacing]
    spacing = tuple(mm * step for mm, step in zip(scan.spacing, steps, strict=True))
    every = tuple(slice(None, None, step) for step in steps)
    sigmas = [_SCALE_MM / mm for mm in scan.spacing]
    found = {
        name: _tensor(sequence, box, every, sigmas, spacing)
        for name, sequence in scan.sequences.items()
    }
    return found, spacing


def _tensor(
    sequence: Sequence,
    box: tuple[slice, ...],
    every: tuple[slice, ...],
    sigmas: list[float],
    spacing: tuple[float, ...],
) -> Image:
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    mask = sequence.mask[box]
    weight = gaussian_filter(mask.astype(np.float32), sigmas, truncate=3)[every]
    image = (sequence.image[box] - np.float32(sequence.background)) * mask
    # Divided by the smoothed mask, so that the outline leaves no gradient.
    smooth = gaussian_filter(image, sigmas, truncate=3)[every] / np.maximum(weight, 1e-3)
    gradient = np.stack([np.gradient(smooth, mm, axis=axis) for axis, mm in enumerate(spacing)])
    depth = distance_transform_edt(np.pad(mask[every], 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    inside = depth > _RIM_MM
    square = (gradient**2).sum(axis=0)
    edges = square[inside & (square > 0)]
    if not edges.size:
        raise CannotTellError(f"needs edges inside the brain; {sequence.name} has none")
    tensor = np.stack([
        gradient[i] * gradient[j] * np.float32(1 if i == j else np.sqrt(2)) for i, j in _PAIRS
    ]) / (square + np.float32(np.median(edges)))  # fmt: skip
    # Without its trace, so that the strength of edges, which is similar in all heads, is left out.
    tensor[list(_DIAGONAL)] -= tensor[list(_DIAGONAL)].mean(axis=0)
    result: Image = tensor * inside
    return result


def _position(own: Image, others: Image, spacing: tuple[float, ...]) -> Position:
    peak, shift = best_shift(own, others, spacing)
    mirror = own[:, ::-1].copy()
    mirror[[1, 2]] *= -1  # the tensor's entries xy and xz change their sign
    mirrored, _ = best_shift(mirror, others, spacing)
    halves = [(slice(0, n // 2), slice(n // 2, n)) for n in own.shape[1:]]
    lengths = [
        np.linalg.norm(best_shift(own[:, *part], others[:, *part], spacing)[1])
        for part in itertools.product(*halves)
    ]
    return Position(
        peak,
        float(np.linalg.norm(shift)),
        float(np.median(lengths)),
        mirrored / max(peak, 1e-9),
    )


def best_shift(
    one: Image, other: Image, spacing: tuple[float, ...]
) -> tuple[float, NDArray[np.float64]]:
    """Return the largest correlation of two fields ``(C, X, Y, Z)`` over shifts, and the shift.

    Examples
    --------
    >>> field = np.random.default_rng(0).random((1, 12, 13, 14)).astype(np.float32) - 0.5
    >>> peak, shift = best_shift(field, np.roll(field, 2, axis=1), (4.0, 4.0, 4.0))
    >>> shift.round().astype(int).tolist()
    [-8, 0, 0]
    """
    from scipy import fft

    reach = [max(1, round(_REACH_MM / mm)) for mm in spacing]
    size = [fft.next_fast_len(n + r, real=True) for n, r in zip(one.shape[1:], reach, strict=True)]
    axes = (1, 2, 3)
    spectrum = (fft.rfftn(one, size, axes) * fft.rfftn(other, size, axes).conj()).sum(axis=0)
    values = fft.irfftn(spectrum, size)
    index = [np.r_[-r : r + 1] for r in reach]
    near = values[np.ix_(*index)]
    energy = float(np.sqrt((one.astype(np.float64) ** 2).sum() * (other**2).sum(dtype=np.float64)))
    top = np.unravel_index(int(near.argmax()), near.shape)
    shift = np.array([
        (place - r + _vertex(near, top, axis)) * mm
        for axis, (place, r, mm) in enumerate(zip(top, reach, spacing, strict=True))
    ])  # fmt: skip
    return float(near[top]) / max(energy, 1e-9), shift


def _vertex(values: Image, top: tuple[np.intp, ...], axis: int) -> float:
    """Return the vertex of the parabola through the peak and its neighbors along an axis."""
    place = int(top[axis])
    if not 0 < place < values.shape[axis] - 1:
        return 0.0
    below, middle, above = (
        float(values[(*top[:axis], place + step, *top[axis + 1 :])]) for step in (-1, 0, 1)
    )
    curve = below - 2 * middle + above
    return 0.5 * (below - above) / curve if curve < 0 else 0.0
