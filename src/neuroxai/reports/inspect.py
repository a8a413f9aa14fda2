"""The files of an inspected case: figures, maps, and the numbers of every layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.explanation import versions
from neuroxai.core.layers.layers import Layer
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.data.nifti import write_nifti
from neuroxai.data.placement import Placement
from neuroxai.data.quantization import quantize
from neuroxai.files.atomic import write_json
from neuroxai.files.folder import Results, describe_dataset
from neuroxai.files.names import bids_stem, sidecar
from neuroxai.inspection.filters import LayerFilters
from neuroxai.inspection.information_flow import TargetFlow
from neuroxai.inspection.relevance_mass import RelevanceMass, relevance_mass
from neuroxai.patient.inspection import Inspection
from neuroxai.patient.patient_map import PatientMap
from neuroxai.patient.regions import REGION_ORDER
from neuroxai.render.contact_sheet import FilterPicture, draw_filters
from neuroxai.render.flow import FlowPanel, draw_flow
from neuroxai.render.focus import axial_slice
from neuroxai.render.scan import Scan
from neuroxai.reports.explain import format_score, peak_memory_mb
from neuroxai.reports.pictures import alarm_fact, scan_of

NOISE_FRACTION = 0.001
"""Positive fraction below which a layer's evidence is rounding error (float32, sums over 1e6)."""
"""Positive fraction below which a layer's evidence for a target counts as rounding error.

Rounding left 0.00014 in a map that is otherwise negative."""


@dataclass(frozen=True)
class LayerRow:
    """The numbers of one layer's map for one target.

    Attributes
    ----------
    number
        The layer's position in the information flow, from 1.
    layer, shape
        The layer's name, and ``(C, *S)`` of its output.
    mass
        Share of the evidence in each region.
    smallest, largest
        Range of the map.
    """

    number: int
    layer: str
    shape: tuple[int, ...]
    mass: RelevanceMass
    smallest: float
    largest: float

    def describe(self) -> dict[str, Any]:
        """Return the numbers, ready for JSON."""
        return {
            "number": self.number,
            "layer": self.layer,
            "shape": list(self.shape),
            "positive": self.mass.positive,
            "negative": self.mass.negative,
            "positive_fraction": self.mass.positive_fraction,
            "smallest": self.smallest,
            "largest": self.largest,
        }


class InspectionReport:
    """Writes an inspection into a folder.

    Parameters
    ----------
    inspection
        The maps of every layer on one case.
    results
        The folder for all files.
    background
        Modality that the maps are drawn on; None to choose it by the target.

    Attributes
    ----------
    rows
        Target name to the numbers of each layer, in the order of the information flow.
    figures
        Target name to its figure.
    sheets
        Layer name to the pages of its filters.
    """

    def __init__(
        self, inspection: Inspection, results: Results, background: str | None = None
    ) -> None:
        self.inspection = inspection
        self.background = background
        self.results = results
        self.figures: dict[str, Path] = {}
        self.sheets: dict[str, list[Path]] = {}
        self.rows: dict[str, list[LayerRow]] = {}

    def _stem(self, suffix: str = "", **entities: str) -> str:
        return bids_stem(self.inspection.case.name, suffix, **entities)

    @cached_property
    def scan(self) -> Scan:
        """The case, ready to be drawn."""
        inspection = self.inspection
        return scan_of(inspection.case, inspection.prepared.placement, inspection.prediction)

    def write_flow(self, target: TargetFlow, *, nifti: bool = False) -> Path:
        """Draw the information flow of one target, and return the figure.

        Parameters
        ----------
        target
            The target's maps.
        nifti
            Also write every layer's map as NIfTI.
        """
        inspection = self.inspection
        index = axial_slice(self.scan, [], target.name)[0]
        self.rows[target.name] = []
        panels = []
        for layer in inspection.flow.layers:
            if layer.name not in target.maps:
                panels.append(_without_map(inspection.number(layer), layer, target))
                continue
            shown = inspection.patient_map(target, layer)
            row = self._row(target, layer, shown)
            panels.append(self._panel(shown, layer, index, row.mass))
            self.rows[target.name].append(row)
            if nifti:
                path = shown.save(self.results.folder)
                self.results.add(path, sidecar(path))
        figure = self.results.folder / f"{self._stem(label=target.name)}_flow.png"
        draw_flow(
            self.scan, panels, target.name, figure,
            modality=self.background, facts=self._facts(target),
        )  # fmt: skip
        self.results.add(figure)
        self.figures[target.name] = figure
        return figure

    def write_filters(self, found: LayerFilters, *, nifti: bool = False) -> list[Path]:
        """Draw a layer's filters for every target, and return the pages.

        Parameters
        ----------
        found
            The layer's filters.
        nifti
            Also write all filters as one NIfTI.
        """
        inspection = self.inspection
        affine = inspection.layer_affine(found.layer)
        values = found.activations[0].float().numpy()
        cells = values[..., None] if values.ndim == 3 else values
        upright = Placement.fit(cells.shape[1:], affine)
        drawn = upright.reorient(cells)
        pages: list[Path] = []
        part = f"filters {found.layer.name}"
        for target, importance in found.importance.items():
            index = axial_slice(self.scan, [], target)[0]
            axial = inspection.cell_at(upright, index)
            pictures = [
                FilterPicture(k, drawn[k, :, :, axial], float(importance[0, k]))
                for k in found.ranked(target)
            ]
            pages += draw_filters(
                pictures,
                self.results.folder / self._stem(label=target, desc=part),
                title=f"{inspection.case.name}  ·  target {target}  ·  "
                f"filters of {found.layer.name}",
                pixel=(upright.spacing[0], upright.spacing[1]),
                facts={
                    "model": inspection.model["name"],
                    "filters": str(len(cells)),
                    "grid": "×".join(str(n) for n in found.layer.shape[1:]),
                },
                notes=[f"Axial cell {axial} (of {cells.shape[3]}, counted from 0 at the feet)."],
                laterality_known=inspection.case.laterality_known,
            )
        self.results.add(*pages)
        self.sheets[found.layer.name] = pages
        if nifti:
            self._save_filters(found, cells, affine, part)
        return pages

    def finish(self, *, seconds: float) -> Path:
        """Write ``flow.json`` with the numbers of every layer and target, and return its path.

        Parameters
        ----------
        seconds
            Time of the whole run.
        """
        inspection = self.inspection
        flow = inspection.flow
        describe_dataset(self.results.folder)
        content = {
            "case": inspection.case.name,
            "quality": inspection.case.describe_quality(),
            "model": inspection.model,
            "regions_from": inspection.regions.source,
            "shares": "positive and negative: each region's share of the evidence for and against "
            "the target, summed over the volume; volume: the region's share of the volume, which "
            "is the value expected of an uninformative map; positive_fraction: share of the "
            "evidence for the target in all evidence. If it is below "
            f"{NOISE_FRACTION:g}, the positive shares are rounding error",
            "layers": [
                {
                    "number": inspection.number(layer), "name": layer.name, "kind": layer.kind,
                    "shape": list(layer.shape),
                }
                for layer in flow.layers
            ],
            "targets": {target.name: self._describe(target) for target in flow.targets},
            "volume": region_volumes(inspection),
            "never_ran": list(flow.never_ran),
            "not_shown": dict(flow.not_shown),
            "prediction": inspection.prediction.describe(),
            "passes": {"forward": flow.forward, "backward": flow.backward},
            "flow_seconds": round(flow.seconds, 3),
            "seconds": round(seconds, 3),
            "peak_memory_mb": peak_memory_mb(),
            "provenance": {
                "input_sha256": inspection.input_sha256,
                "versions": versions(),
            },
            "warnings": list(inspection.warnings),
            "use": NOT_FOR_CLINICAL_USE,
        }  # fmt: skip
        return self.results.add(write_json(self.results.folder / "flow.json", content))

    def _describe(self, target: TargetFlow) -> dict[str, Any]:
        return {
            "target": dict(target.target),
            "score": target.score[0],
            "layers": [row.describe() for row in self.rows.get(target.name, [])],
            "independent_layers": list(target.independent_layers),
            "cancelled": list(target.cancelled),
            "notes": list(target.notes),
        }

    def _row(self, target: TargetFlow, layer: Layer, shown: PatientMap) -> LayerRow:
        values = target.maps[layer.name]
        mass = relevance_mass(shown.values[0, 0], self.inspection.regions.masks)
        return LayerRow(
            self.inspection.number(layer), layer.name, layer.shape, mass,
            float(values.min()), float(values.max()),
        )  # fmt: skip

    def _save_filters(
        self,
        found: LayerFilters,
        cells: NDArray[np.float32],
        affine: NDArray[np.float64],
        part: str,
    ) -> None:
        path = self.results.folder / f"{self._stem('statmap', desc=part)}.nii.gz"
        describe_dataset(self.results.folder)
        stored = quantize(cells)
        write_nifti(
            path, np.moveaxis(stored.data, 0, -1), affine,
            description=f"Filters of {found.layer.name}; {NOT_FOR_CLINICAL_USE}",
            step=stored.step,
        )  # fmt: skip
        content = {
            "case": self.inspection.case.name,
            "file": path.name,
            "layer": found.layer.name,
            "precision": stored.describe(),
            "layer_shape": list(found.layer.shape),
            "grid": "the layer's own grid, with its affine in the patient's world",
            "importance": {
                target: [float(v) for v in values[0]] for target, values in found.importance.items()
            },
            "importance_is": "activation times gradient, summed over the layer's grid: a filter's "
            "first-order contribution to the target",
            "model": self.inspection.model,
            "use": NOT_FOR_CLINICAL_USE,
        }
        self.results.add(path, write_json(sidecar(path), content))

    def _panel(self, shown: PatientMap, layer: Layer, index: int, mass: RelevanceMass) -> FlowPanel:
        volume = shown.placement.upright.reorient(shown.volume()[0])
        picture: NDArray[Any] = np.ascontiguousarray(volume[:, :, index])
        lines: tuple[str, ...] = ("nothing for the target",)
        positive = evidence_of(mass)
        if positive is not None and mass.positive_fraction is not None:
            tumor = [f"{n} {_percent(positive[n])}" for n in REGION_ORDER if n in positive]
            part = f"for the target {_percent(mass.positive_fraction)}"
            lines = (part, " ".join(tumor[:-2]), " ".join(tumor[-2:]))
        return FlowPanel(self.inspection.number(layer), layer.name, layer.shape, picture, lines)

    def _facts(self, target: TargetFlow) -> dict[str, str]:
        inspection = self.inspection
        facts = alarm_fact(inspection.case) | {
            format_score(target.target, inspection.prediction): f"{target.score[0]:.4g}",
            "model": inspection.model["name"],
            "regions from": inspection.regions.source or "nowhere",
        }
        volume = region_volumes(inspection)
        facts["share of the volume"] = ", ".join(
            f"{name} {_percent(volume[name])}" for name in REGION_ORDER if name in volume
        )
        if inspection.flow.never_ran:
            facts["never ran"] = ", ".join(inspection.flow.never_ran)
        return facts


def evidence_of(mass: RelevanceMass) -> Mapping[str, float] | None:
    """Return the regions' shares of the evidence for a target; None if it is rounding error.

    Examples
    --------
    >>> evidence_of(RelevanceMass({"WT": 0.75}, None, None, {}, positive_fraction=0.5))
    {'WT': 0.75}
    >>> evidence_of(RelevanceMass({"WT": 1.0}, None, None, {}, positive_fraction=0.00014))
    """
    fraction = mass.positive_fraction
    return None if fraction is None or fraction < NOISE_FRACTION else mass.positive


def region_volumes(inspection: Inspection) -> dict[str, float]:
    """Return each region's share of the network's volume."""
    return {name: int(mask.sum()) / mask.numel() for name, mask in inspection.regions.masks.items()}


def _without_map(number: int, layer: Layer, target: TargetFlow) -> FlowPanel:
    panel = FlowPanel(number, layer.name, layer.shape, None, ("",))
    if layer.name not in target.cancelled:
        return panel
    return dataclasses.replace(panel, missing="cancels out: see\nthe norm behind")


def _percent(share: float) -> str:
    """Format a share with one decimal if it is below 10 %."""
    return f"{share:.0%}" if share >= 0.095 or share == 0 else f"{share:.1%}"
