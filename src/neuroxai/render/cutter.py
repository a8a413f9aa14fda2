"""Panels of a figure: scan, maps, labels and outlines, cut in the same planes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuroxai.render.colors import color_limits, gray_window, label_layer
from neuroxai.render.focus import outlines_of
from neuroxai.render.montage import Block, Column, Outline, Panel, Row
from neuroxai.render.planes import NO_LETTERS, Plane, brain_box, crop
from neuroxai.render.scan import HeatMap, Scan
from neuroxai.render.sheet import Line
from neuroxai.render.specks import without_specks


class Cut(NamedTuple):
    """Row of a figure: its label, the modality, the plane, and the position of the slice."""

    label: str
    modality: str
    plane: Plane
    position: int


class Cutter:
    """Cuts scan, maps, labels and outlines in the same planes, cropped to the brain.

    Attributes
    ----------
    lines, classes
        Outlines and classes that the panels show.
    specks
        Whether parts or holes are too small to be outlined.
    """

    def __init__(self, scan: Scan, target: str) -> None:
        self._scan = scan
        self._box = brain_box(scan.modalities.values(), scan.spacing)
        self._outlines = outlines_of(scan, target)
        self.lines: dict[str, Line] = {}
        self.classes: set[int] = set()
        self.specks = False

    def block(self, cuts: Sequence[Cut], columns: Sequence[Column], heading: str = "") -> Block:
        """Return a block with one row per cut."""
        spacing, known = self._scan.spacing, self._scan.laterality_known
        rows = []
        for cut in cuts:
            high, wide = self.gray(cut).shape
            extent = (wide * spacing[cut.plane.across], high * spacing[cut.plane.up])
            rows.append(Row(cut.label, extent, cut.plane.letters if known else NO_LETTERS))
        return Block(rows, columns, heading)

    def cut(self, volume: NDArray[Any], cut: Cut) -> NDArray[Any]:
        """Return a slice of a volume, with rows from the top."""
        index = 0 if volume.shape[cut.plane.through] == 1 else cut.position
        return cut.plane.cut(volume[crop(self._box, cut.plane)], index)

    def gray(self, cut: Cut) -> NDArray[np.float64]:
        """Return a slice of the scan in 0…1."""
        volume = self._scan.modalities[cut.modality]
        low, high = gray_window(volume, float(volume[0, 0, 0]))
        shade = (self.cut(volume, cut).astype(np.float64) - low) / (high - low)
        return np.nan_to_num(shade, nan=0.0)

    def scan(self, cuts: Sequence[Cut]) -> Column:
        """Return the column of the scan."""
        return Column("Scan", [Panel(gray=self.gray(cut)) for cut in cuts])

    def outlines(self, cut: Cut) -> list[Outline]:
        """Return the outlines in a slice, and keep them for the legend."""
        found = []
        for name, (mask, line) in self._outlines.items():
            whole = self.cut(mask, cut).astype(bool)
            if whole.any():
                pixel_mm2 = float(
                    np.prod(self._scan.spacing) / self._scan.spacing[cut.plane.through]
                )
                part = without_specks(whole, pixel_mm2)
                self.specks |= bool((part != whole).any())
                self.lines[name] = line
                found.append(Outline(part, line))
        return found

    def labels(self, cuts: Sequence[Cut]) -> list[Column]:
        """Return the columns of prediction and ground truth."""
        columns = []
        named = (("Prediction", self._scan.prediction), ("Truth", self._scan.truth))
        for title, labels in named:
            if labels is None:
                continue
            layers = [self.cut(labels, cut) for cut in cuts]
            self.classes.update(int(v) for layer in layers for v in np.unique(layer) if v)
            panels = [
                Panel(gray=self.gray(cut), labels=label_layer(layer))
                for cut, layer in zip(cuts, layers, strict=True)
            ]
            columns.append(Column(title, panels))
        return columns

    def heat(self, heat: HeatMap, cuts: Sequence[Cut], *, name_share: bool = False) -> Column:
        """Return the column of a map with a common color scale, or with a remark if it has none.

        ``name_share`` writes the share of the modality into the title instead of each panel.
        """
        whole = heat.shares.get(cuts[0].modality)
        part = f"{whole:.0%} in {cuts[0].modality}" if name_share and whole is not None else ""
        if remark := _remark(heat, cuts):
            return Column(heat.title, [self._remark(cut, remark) for cut in cuts])
        shown = [self.cut(heat.volume(cut.modality), cut) for cut in cuts]
        flat = np.concatenate([picture.ravel() for picture in shown])
        panels = []
        for cut, picture in zip(cuts, shown, strict=True):
            share = None if name_share else heat.shares.get(cut.modality)
            corner = "" if share is None else f"{share:.0%}"
            panels.append(
                Panel(
                    gray=self.gray(cut), heat=picture, outlines=self.outlines(cut),
                    corner=corner, mark=heat.mark,
                )
                if picture.any()
                else self._remark(cut, "zero in\nthis slice")
            )  # fmt: skip
        limits = color_limits(flat, heat.kind) if flat.any() else None
        return Column(heat.title, panels, limits, heat.unit, part)

    def _remark(self, cut: Cut, remark: str) -> Panel:
        return Panel(gray=self.gray(cut), remark=remark)


def _remark(heat: HeatMap, cuts: Sequence[Cut]) -> str:
    """Return why a map cannot be drawn; empty if it can."""
    bad = int(heat.values.size - np.isfinite(heat.values).sum())
    if bad:
        return f"not finite:\n{bad} of\n{heat.values.size} values"
    if not heat.values.any():
        return "all zero"
    if not heat.shared and cuts[0].modality not in heat.channels:
        return f"{cuts[0].modality} is not\nan input of\nthe network"
    return ""
