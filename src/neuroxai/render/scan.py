"""What is drawn: a scan and its heat maps, as they are, on one RAS+ grid."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import OutputError, suggestion
from neuroxai.render.colors import LABELS


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan on a RAS+ grid: X from the patient's left to right, Y back to front, Z feet to head.

    Attributes
    ----------
    name
        The case's name.
    modalities
        Name to ``(X, Y, Z)``, in the order of the rows; all of one shape.
    spacing
        Voxel size in mm along X, Y, Z.
    prediction, truth
        ``(X, Y, Z)`` indices into ``classes``, or None.
    classes
        What they mean; those of brain tumors: background, NCR, ED, ET, RC.
    slice_only
        For a 2D network the one axial slice that it saw; arrays may then have ``Z = 1``.
    """

    name: str
    modalities: Mapping[str, NDArray[Any]]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    prediction: NDArray[Any] | None = None
    truth: NDArray[Any] | None = None
    classes: tuple[str, ...] = LABELS
    slice_only: int | None = None
    laterality_known: bool = True
    """Whether it is known which side of the patient is where; then sides are lettered."""
    target_mask: NDArray[Any] | None = None
    """``(X, Y, Z)`` bool, the part of the image that the target was asked of; None for all."""
    target_mask_name: str = ""
    """What that part is."""
    obliquity: float = 0.0
    """By how many degrees the scan's axes lie off the body's, where that is worth a word."""

    def legend(self, indices: Collection[int]) -> dict[int, str]:
        """Return the names of the classes that are shown, by their index."""
        return {index: self.classes[index] for index in sorted(indices)}


@dataclass(frozen=True, eq=False)
class HeatMap:
    """One method's attributions on the scan's grid, as they are: nothing clipped, nothing scaled.

    Attributes
    ----------
    method, title
        The CLI's word and the name for people.
    values
        ``(C, X, Y, Z)`` with one channel for each of ``channels``, or ``(1, X, Y, Z)`` for a CAM.
    signed
        Whether the sign has a meaning: a diverging colormap, or a sequential one.
    channels
        Modality of each channel; ``("",)`` for a map that belongs to all of them.
    """

    method: str
    title: str
    values: NDArray[Any]
    signed: bool
    channels: tuple[str, ...] = ("",)

    @property
    def shared(self) -> bool:
        """Whether one map belongs to all modalities, as with Grad-CAM."""
        return self.channels == ("",)

    def volume(self, modality: str) -> NDArray[Any]:
        """Return ``(X, Y, Z)`` for a modality; a modality fed to several channels is summed.

        The sum is the chain rule: copies of one image act through all of their channels.
        """
        if self.shared:
            first: NDArray[Any] = self.values[0]
            return first
        mine = [v for v, name in zip(self.values, self.channels, strict=True) if name == modality]
        total: NDArray[Any] = mine[0] if len(mine) == 1 else np.sum(mine, axis=0)
        return total


def depth(scan: Scan) -> int:
    """Return the number of axial slices, as far as a scan of one slice tells it."""
    slices = int(next(iter(scan.modalities.values())).shape[2])
    return max(slices, (scan.slice_only or 0) + 1) if slices == 1 else slices


def check(scan: Scan, maps: Sequence[HeatMap]) -> None:
    """Refuse what does not fit together, by name."""
    if not scan.modalities:
        raise OutputError(f"{scan.name}: there is no modality to draw")
    name, first = next(iter(scan.modalities.items()))
    shape = first.shape
    if len(shape) != 3 or 0 in shape or len(scan.spacing) != 3 or min(scan.spacing) <= 0:
        raise OutputError(
            f"{scan.name}: {name} has shape {shape} and spacing {scan.spacing}; "
            "drawing needs (X, Y, Z) and three sizes in mm above zero"
        )
    for what, volume in (
        *scan.modalities.items(),
        ("prediction", scan.prediction),
        ("truth", scan.truth),
        ("what was asked", scan.target_mask),
    ):
        if volume is not None and not _fits(volume.shape, shape, scan):
            raise OutputError(f"{scan.name}: {what} has shape {volume.shape}, {name} has {shape}")
    if scan.slice_only is not None and not 0 <= scan.slice_only < depth(scan):
        raise OutputError(
            f"{scan.name}: slice {scan.slice_only} is outside the grid {shape}; "
            f"expected 0 to {depth(scan) - 1}"
        )
    for what, labels in (("prediction", scan.prediction), ("truth", scan.truth)):
        if labels is not None and not np.isin(labels, range(len(LABELS))).all():
            raise OutputError(
                f"{scan.name}: {what} holds values that are no class index, 0 to {len(LABELS) - 1}"
            )
    for heat in maps:
        if heat.values.ndim != 4 or not _fits(heat.values.shape[1:], shape, scan):
            raise OutputError(
                f"{scan.name}: the map of {heat.method} has shape {heat.values.shape}, "
                f"expected (C, X, Y, Z) on the scan's grid {shape}"
            )
        if len(heat.channels) != heat.values.shape[0]:
            raise OutputError(
                f"{scan.name}: the map of {heat.method} has {heat.values.shape[0]} channels "
                f"and {len(heat.channels)} channel names"
            )
        for channel in heat.channels:
            if not heat.shared and channel not in scan.modalities:
                raise OutputError(
                    f"{scan.name}: the map of {heat.method} names the modality {channel!r}, "
                    f"which the scan lacks; {suggestion(channel, scan.modalities)}"
                )


def _fits(shape: tuple[int, ...], grid: tuple[int, ...], scan: Scan) -> bool:
    """Whether an array lies on the grid, or is the one slice of it that was seen."""
    return shape == grid or (scan.slice_only is not None and shape == (*grid[:2], 1))
