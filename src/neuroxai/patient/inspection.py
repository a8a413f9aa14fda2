"""The layers' maps of one case, and their positions in the patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from neuroxai.core.explanation import Explanation, tensor_hash, versions
from neuroxai.core.layers.layers import Layer
from neuroxai.core.spatial import resample_to, spatial_shape
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.data.case import Case
from neuroxai.data.placement import Placement
from neuroxai.data.preparation import Prepared
from neuroxai.inspection.filters import LayerFilters
from neuroxai.inspection.information_flow import InformationFlow, TargetFlow
from neuroxai.patient.patient_map import PatientMap
from neuroxai.patient.prediction import Prediction
from neuroxai.patient.regions import Regions


@dataclass(frozen=True, eq=False)
class Inspection:
    """The information flow through a network on one case.

    Attributes
    ----------
    case, prepared
        The study, and the network input.
    flow
        Every layer's map for every target.
    prediction
        The network's answer.
    regions
        The brain and the tumor's regions on the network's grid.
    model
        Name and hashes of the network.
    grid
        The grid that layers' maps are resampled to, before they are cropped to the input's grid.
    filters
        The filters of the requested layers.
    model_notes
        Known differences between the loaded network and its original.
    """

    case: Case
    prepared: Prepared
    flow: InformationFlow
    prediction: Prediction
    regions: Regions = field(repr=False)
    model: Mapping[str, str]
    grid: tuple[int, ...]
    filters: tuple[LayerFilters, ...] = ()
    model_notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        targets = ", ".join(target.name for target in self.flow.targets)
        return (
            f"<Inspection of {self.case.name}: {targets}; {len(self.flow.layers)} layers. "
            f"{NOT_FOR_CLINICAL_USE}>"
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the case, its preparation, the network and its answer."""
        return (
            *self.case.warnings, *self.prepared.warnings, *self.model_notes,
            *self.prediction.warnings,
        )  # fmt: skip

    @cached_property
    def input_sha256(self) -> str:
        """Hash of the network input."""
        return tensor_hash(self.prepared.x)

    def map_of(self, target: TargetFlow, layer: Layer) -> Tensor:
        """Return a layer's signed map on the network's input grid, ``(*S)``."""
        values = target.maps[layer.name].float()
        positions = self.flow.positions.get(layer.name)
        if positions is not None:
            return positions.place(values, spatial_shape(self.prepared.x))[0, 0]
        return resample_to(values, self.grid, spatial_shape(self.prepared.x))[0, 0]

    def number(self, layer: Layer) -> int:
        """Return a layer's position in the information flow, from 1."""
        return self.flow.layers.index(layer) + 1

    def layer_affine(self, layer: Layer) -> NDArray[np.float64]:
        """Return the affine of a layer's own grid in the patient's world, in mm.

        A cell of the layer covers equally many voxels of the input, and shares their center; behind
        convolutions without padding, the cells cover a part of the input.
        """
        size = np.array([*layer.shape[1:], 1][:3], dtype=float)
        whole = np.array([*self.grid, 1][:3], dtype=float)
        scale = whole / size
        cells = np.diag([*scale, 1.0])
        cells[:3, 3] = (scale - 1) / 2
        positions = self.flow.positions.get(layer.name)
        if positions is not None:
            axes = range(len(positions.scale))
            cells[axes, axes], cells[axes, 3] = positions.scale, positions.first
        affine: NDArray[np.float64] = self.prepared.placement.network_affine @ cells
        return affine

    def cell_at(self, cells: Placement, index: int) -> int:
        """Return the axial index of the cell, turned to RAS+, that holds the scan's slice."""
        scan = self.prepared.placement.upright.reoriented_affine
        along = np.linalg.solve(cells.reoriented_affine, scan)[2]
        nearest = int(np.floor(along[2] * index + along[3] + 0.5))
        return min(max(nearest, 0), cells.reoriented_shape[2] - 1)

    def patient_map(self, target: TargetFlow, layer: Layer) -> PatientMap:
        """Return a layer's map on the patient's own grid, ready to be saved."""
        explanation = Explanation(
            values=self.map_of(target, layer)[None, None],
            method="information_flow",
            title=f"Class activation map of {layer.name}",
            signed=True,
            units="arbitrary unit; activation times gradient",
            parameters={},
            target=target.target,
            score=target.score,
            layer=layer.name,
            diagnostics={"layer_shape": list(layer.shape), "number": self.number(layer)},
            notes=target.notes,
            provenance={"input_sha256": self.input_sha256, "versions": versions()},
            seconds=self.flow.seconds,
            quantity="activation",
        )
        part = f"L{self.number(layer):02d}-{layer.name}"
        return PatientMap(
            explanation, self.case, self.prepared.placement, ("all",), self.model, part,
            self.regions,
        )  # fmt: skip
