"""Input of the figures: a scan and its heat maps on one RAS+ grid."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import OutputError, suggestion
from neuroxai.render.colors import LABELS, Kind


@dataclass(frozen=True, eq=False)
class Scan:
    """Scan on a RAS+ grid: X from left to right, Y posterior to anterior, Z inferior to superior.

    Attributes
    ----------
    name
        Case name.
    modalities
        Modality name to volume ``(X, Y, Z)``, in the order of the figure rows; all of one shape.
    spacing
        Voxel size in mm along X, Y, Z.
    prediction, truth
        ``(X, Y, Z)`` indices into ``classes``, or None.
    classes
        Class names; by default those of brain tumors: background, NCR, ED, ET, RC.
    slice_only
        For a 2D network, the axial slice of its input; arrays may then have ``Z = 1``.
    """

    name: str
    modalities: Mapping[str, NDArray[Any]]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    prediction: NDArray[Any] | None = None
    truth: NDArray[Any] | None = None
    classes: tuple[str, ...] = LABELS
    slice_only: int | None = None
    laterality_known: bool = True
    """Whether left and right of the patient are known; only then are sides labeled."""
    target_mask: NDArray[Any] | None = None
    """``(X, Y, Z)`` bool, the mask that the target is restricted to; None if unrestricted."""
    target_mask_name: str = ""
    """Name of the mask, for example ``lesion 2``."""
    obliquity: float = 0.0
    """Angle in degrees between scan axes and body axes; 0 if it is small."""
    network_spacing: tuple[float, float, float] | None = None
    """Voxel size of the network's grid in mm along X, Y, Z; None if unknown."""

    def legend(self, indices: Collection[int]) -> dict[int, str]:
        """Return the names of the given class indices."""
        return {index: self.classes[index] for index in sorted(indices)}


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Attributions of one method on the grid of the scan, neither clipped nor scaled.

    Attributes
    ----------
    method, title
        Name on the command line, and display name.
    values
        ``(C, X, Y, Z)`` with one channel per entry of ``channels``; ``(1, X, Y, Z)`` for a class
        activation map.
    kind
        Meaning of the values, which chooses the colors.
    channels
        Modality of each channel; ``("",)`` for a map shared by all modalities.
    unit
        Unit of the values, for the color bar.
    quantity
        What a value is; the notes explain the color of a ``gradient``.
    shares
        Modality to its share of the absolute values of the map; empty if unknown.
    mark
        Text drawn across every panel of the map, for example that it is not above chance.
    where_only
        Whether the map is zero outside the target's mask whatever the network has learned.
    """

    method: str
    title: str
    values: NDArray[Any]
    kind: Kind
    channels: tuple[str, ...] = ("",)
    unit: str = ""
    quantity: str = ""
    shares: Mapping[str, float] = field(default_factory=dict)
    mark: str = ""
    where_only: bool = False

    @property
    def shared(self) -> bool:
        """Whether the map is shared by all modalities, as for Grad-CAM."""
        return self.channels == ("",)

    def volume(self, modality: str) -> NDArray[Any]:
        """Return the map ``(X, Y, Z)`` of a modality, summed over its channels.

        By the chain rule, the attribution of an image that is copied to several channels is the
        sum over these channels.
        """
        if self.shared:
            first: NDArray[Any] = self.values[0]
            return first
        own = [v for v, name in zip(self.values, self.channels, strict=True) if name == modality]
        total: NDArray[Any] = own[0] if len(own) == 1 else np.sum(own, axis=0)
        return total


def depth(scan: Scan) -> int:
    """Return the number of axial slices; for a single slice, a lower bound from its index."""
    slices = int(next(iter(scan.modalities.values())).shape[2])
    return max(slices, (scan.slice_only or 0) + 1) if slices == 1 else slices


def check(scan: Scan, maps: Sequence[HeatMap]) -> None:
    """Check shapes, labels and channel names of a scan and its maps.

    Raises
    ------
    OutputError
        Naming the case and the array that does not fit.
    """
    if not scan.modalities:
        raise OutputError(f"{scan.name}: no modality to draw; give at least one volume")
    name, first = next(iter(scan.modalities.items()))
    shape = first.shape
    if len(shape) != 3 or 0 in shape or len(scan.spacing) != 3 or min(scan.spacing) <= 0:
        raise OutputError(
            f"{scan.name}: {name} has shape {shape} and spacing {scan.spacing}, "
            "expected (X, Y, Z) and three positive sizes in mm"
        )
    for what, volume in (
        *scan.modalities.items(),
        ("prediction", scan.prediction),
        ("truth", scan.truth),
        ("target mask", scan.target_mask),
    ):
        if volume is not None and not _fits(volume.shape, shape, scan):
            raise OutputError(
                f"{scan.name}: {what} has shape {volume.shape}, expected {shape} as {name}"
            )
    if scan.slice_only is not None and not 0 <= scan.slice_only < depth(scan):
        raise OutputError(
            f"{scan.name}: slice {scan.slice_only} is outside of the grid {shape}; "
            f"expected 0 to {depth(scan) - 1}"
        )
    for what, labels in (("prediction", scan.prediction), ("truth", scan.truth)):
        if labels is not None and not np.isin(labels, range(len(LABELS))).all():
            raise OutputError(
                f"{scan.name}: {what} contains invalid class indices; "
                f"expected 0 to {len(LABELS) - 1}"
            )
    for heat in maps:
        if heat.values.ndim != 4 or not _fits(heat.values.shape[1:], shape, scan):
            raise OutputError(
                f"{scan.name}: the map of {heat.method} has shape {heat.values.shape}, "
                f"expected (C, X, Y, Z) on the grid of the scan, {shape}"
            )
        if len(heat.channels) != heat.values.shape[0]:
            raise OutputError(
                f"{scan.name}: the map of {heat.method} has {heat.values.shape[0]} channels "
                f"and {len(heat.channels)} channel names"
            )
        for channel in heat.channels:
            if not heat.shared and channel not in scan.modalities:
                raise OutputError(
                    f"{scan.name}: the map of {heat.method} has the channel {channel!r}, which is "
                    f"not a modality of the scan; {suggestion(channel, scan.modalities)}"
                )


def _fits(shape: tuple[int, ...], grid: tuple[int, ...], scan: Scan) -> bool:
    """Return whether an array has the size of the grid, or of the single slice of a 2D network."""
    return shape == grid or (scan.slice_only is not None and shape == (*grid[:2], 1))
