"""What looking into a network leaves on disk: figures, maps, and the numbers of every layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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
from neuroxai.files.atomic import write_json
from neuroxai.files.folder import Results, describe_dataset
from neuroxai.files.names import sidecar, slug
from neuroxai.inspection.filters import LayerFilters
from neuroxai.inspection.information_flow import TargetFlow
from neuroxai.inspection.relevance_mass import relevance_mass
from neuroxai.patient.patient_map import PatientMap
from neuroxai.patient.regions import REGION_ORDER
from neuroxai.render.contact_sheet import FilterPicture, draw_filters
from neuroxai.render.figures import axial_slice
from neuroxai.render.flow import FlowPanel, draw_flow
from neuroxai.render.scan import Scan
from neuroxai.reports.explain import format_score, peak_memory_mb, scan_of
from neuroxai.workflows.inspect import Inspection

FEW = 0.001
"""Of a map's evidence: less of it for the target than this is at the level of rounding."""


class InspectionReport:
    """Writes an inspection into a folder.

    Parameters
    ----------
    inspection
        What happened inside the network.
    results
        The folder for all files.

    Attributes
    ----------
    rows
        Target to each layer's numbers, in the order data flows.
    figures, sheets
        Target to its figure; layer to the pages of its filters.
    """

    def __init__(self, inspection: Inspection, results: Results) -> None:
        self.inspection = inspection
        self.results = results
        self.figures: dict[str, Path] = {}
        self.sheets: dict[str, list[Path]] = {}
        self.rows: dict[str, list[dict[str, Any]]] = {}

    @property
    def stem(self) -> str:
        """The case's name as a word of file names."""
        return slug(self.inspection.case.name)

    @cached_property
    def scan(self) -> Scan:
        """The case as it is drawn."""
        seen = self.inspection
        return scan_of(seen.case, seen.prepared.placement, seen.prediction)

    def write_flow(self, target: TargetFlow, *, nifti: bool = False) -> Path:
        """Draw one target's flow, measure it, and on request write every layer's map."""
        seen = self.inspection
        index = axial_slice(self.scan, [], target.name)[0]
        self.rows[target.name] = []
        panels = []
        for layer in seen.flow.layers:
            if layer.name not in target.maps:
                panels.append(_without_map(seen.number(layer), layer, target))
                continue
            shown = seen.patient_map(target, layer)
            shares = relevance_mass(shown.explanation.values[0, 0], seen.regions.masks)
            panels.append(self._panel(shown, layer, index, shares))
            self.rows[target.name].append(_row(seen, target, layer, shares))
            if nifti:
                path = shown.save(self.results.folder)
                self.results.add(path, sidecar(path))
        figure = self.results.folder / f"{self.stem}_label-{slug(target.name)}_flow.png"
        modality = shown_modality(self.scan)
        draw_flow(
            self.scan, panels, target.name, figure, modality=modality, facts=self._facts(target)
        )
        self.results.add(figure)
        self.figures[target.name] = figure
        return figure

    def write_filters(self, found: LayerFilters, *, nifti: bool = False) -> list[Path]:
        """Draw a layer's filters for every target, and on request write them all as one NIfTI."""
        seen = self.inspection
        affine = seen.layer_affine(found.layer)
        values = found.activations[0].float().numpy()
        cells = values[..., None] if values.ndim == 3 else values
        upright = Placement.fit(cells.shape[1:], affine)
        drawn = upright.reorient(cells)
        pages: list[Path] = []
        part = f"desc-filters-{slug(found.layer.name)}"
        for target, importance in found.importance.items():
            index = axial_slice(self.scan, [], target)[0]
            through = seen.cell_at(upright, index)
            pictures = [
                FilterPicture(k, drawn[k, :, :, through], float(importance[0, k]))
                for k in found.ranked(target)
            ]
            pages += draw_filters(
                pictures,
                self.results.folder / f"{self.stem}_label-{slug(target)}_{part}",
                title=f"{seen.case.name}  ·  target {target}  ·  filters of {found.layer.name}",
                pixel=(upright.spacing[0], upright.spacing[1]),
                facts={
                    "model": seen.model["name"],
                    "filters": str(len(cells)),
                    "grid": "×".join(str(n) for n in found.layer.shape[1:]),
                },
                notes=[f"Axial cell {through} (of {cells.shape[3]}, from 0 at the feet)."],
                laterality_known=seen.case.laterality_known,
            )
        self.results.add(*pages)
        self.sheets[found.layer.name] = pages
        if nifti:
            self._save_filters(found, cells, affine, part)
        return pages

    def _save_filters(
        self,
        found: LayerFilters,
        cells: NDArray[np.float32],
        affine: NDArray[np.float64],
        part: str,
    ) -> None:
        path = self.results.folder / f"{self.stem}_{part}_statmap.nii.gz"
        describe_dataset(self.results.folder)
        write_nifti(
            path, np.moveaxis(cells, 0, -1), affine,
            description=f"Filters of {found.layer.name}; {NOT_FOR_CLINICAL_USE}",
        )  # fmt: skip
        beside = write_json(
            sidecar(path),
            {
                "case": self.inspection.case.name,
                "file": path.name,
                "layer": found.layer.name,
                "layer_shape": list(found.layer.shape),
                "grid": "the layer's own, placed in the patient's world",
                "importance": {
                    target: [float(v) for v in values[0]]
                    for target, values in found.importance.items()
                },
                "importance_is": "activation times gradient, summed over the layer's grid: what "
                "the filter adds to the target to first order",
                "model": self.inspection.model,
                "use": NOT_FOR_CLINICAL_USE,
            },
        )
        self.results.add(path, beside)

    def finish(self, *, seconds: float) -> Path:
        """Write ``flow.json`` with the numbers of every layer and target."""
        seen = self.inspection
        describe_dataset(self.results.folder)
        content = {
            "case": seen.case.name,
            "model": seen.model,
            "regions_from": seen.regions.source,
            "shares": "of the evidence for (positive) and against (negative) the target, summed "
            "over the volume, how much lies in each region; volume is the region's share of the "
            "volume, which a map blind to the region would have; positive_fraction is how much of "
            f"all evidence is for the target: below {FEW:g} its shares are those of rounding",
            "layers": [
                {
                    "number": seen.number(layer), "name": layer.name, "kind": layer.kind,
                    "shape": list(layer.shape),
                }
                for layer in seen.flow.layers
            ],
            "targets": {
                target.name: {
                    "target": dict(target.target),
                    "score": target.score[0],
                    "layers": self.rows.get(target.name, []),
                    "independent_layers": list(target.independent_layers),
                    "cancelled": list(target.cancelled),
                    "notes": list(target.notes),
                }
                for target in seen.flow.targets
            },
            "volume": region_volumes(seen),
            "never_ran": list(seen.flow.never_ran),
            "not_shown": dict(seen.flow.not_shown),
            "prediction": seen.prediction.describe(),
            "passes": {"forward": seen.flow.forward, "backward": seen.flow.backward},
            "flow_seconds": round(seen.flow.seconds, 3),
            "seconds": round(seconds, 3),
            "peak_memory_mb": peak_memory_mb(),
            "provenance": {
                "input_sha256": seen.input_sha256,
                "versions": versions(),
            },
            "warnings": list(seen.warnings),
            "use": NOT_FOR_CLINICAL_USE,
        }  # fmt: skip
        return self.results.add(write_json(self.results.folder / "flow.json", content))

    def _panel(
        self, shown: PatientMap, layer: Layer, index: int, shares: Mapping[str, Any]
    ) -> FlowPanel:
        seen = self.inspection
        volume = shown.placement.upright.reorient(shown.volume()[0])
        picture: NDArray[Any] = np.ascontiguousarray(volume[:, :, index])
        lines: tuple[str, ...] = ("no evidence for it",)
        positive = evidence_of(shares)
        if positive is not None:
            tumor = [f"{n} {_percent(positive[n])}" for n in REGION_ORDER if n in positive]
            part = f"for it {_percent(shares['positive_fraction'])}"
            lines = (part, " ".join(tumor[:-2]), " ".join(tumor[-2:]))
        return FlowPanel(seen.number(layer), layer.name, layer.shape, picture, lines)

    def _facts(self, target: TargetFlow) -> dict[str, str]:
        seen = self.inspection
        facts = {
            format_score(target.target, seen.prediction): f"{target.score[0]:.4g}",
            "model": seen.model["name"],
            "regions from": seen.regions.source or "nowhere",
        }
        volume = region_volumes(seen)
        facts["share of the volume"] = ", ".join(
            f"{name} {_percent(volume[name])}" for name in REGION_ORDER if name in volume
        )
        if seen.flow.never_ran:
            facts["never ran"] = ", ".join(seen.flow.never_ran)
        return facts


def _without_map(number: int, layer: Layer, target: TargetFlow) -> FlowPanel:
    panel = FlowPanel(number, layer.name, layer.shape, None, ("",))
    if layer.name not in target.cancelled:
        return panel
    return dataclasses.replace(panel, missing="cancels out: see\nthe norm behind")


def shown_modality(scan: Scan) -> str:
    """Return the modality a figure of layers is drawn on: FLAIR, else the last one."""
    return "FLAIR" if "FLAIR" in scan.modalities else list(scan.modalities)[-1]


def _row(
    seen: Inspection, target: TargetFlow, layer: Layer, shares: Mapping[str, Any]
) -> dict[str, Any]:
    values = target.maps[layer.name]
    return {
        "number": seen.number(layer),
        "layer": layer.name,
        "shape": list(layer.shape),
        "positive": shares["positive"],
        "negative": shares["negative"],
        "positive_fraction": shares["positive_fraction"],
        "smallest": float(values.min()),
        "largest": float(values.max()),
    }


def evidence_of(shares: Mapping[str, Any]) -> Mapping[str, float] | None:
    """Return where a map's evidence for the target lies; None where there is no more than rounding.

    Examples
    --------
    >>> evidence_of({"positive": {"WT": 0.75}, "positive_fraction": 0.5})
    {'WT': 0.75}
    >>> evidence_of({"positive": {"WT": 1.0}, "positive_fraction": 0.00014})
    """
    fraction = shares["positive_fraction"]
    found: Mapping[str, float] | None = shares["positive"]
    return None if fraction is None or fraction < FEW else found


def region_volumes(seen: Inspection) -> dict[str, float]:
    """Return each region's share of the network's volume."""
    return {name: int(mask.sum()) / mask.numel() for name, mask in seen.regions.masks.items()}


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.095 or share == 0 else f"{share:.1%}"
