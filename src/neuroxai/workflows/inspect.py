"""The hall where a case, a network and its inner layers meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from neuroxai.core.explanation import Explanation, tensor_hash, versions
from neuroxai.core.layers.layers import Layer, layer_grid
from neuroxai.core.spatial import resample_to, spatial_shape
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Class, Region, Target
from neuroxai.data.case import Case
from neuroxai.data.placement import Placement
from neuroxai.data.preparation import Prepared
from neuroxai.inspection.filters import LayerFilters, filters
from neuroxai.inspection.information_flow import InformationFlow, TargetFlow, information_flow
from neuroxai.models.model import Model
from neuroxai.patient.patient_map import PatientMap
from neuroxai.patient.prediction import Prediction, read_output
from neuroxai.patient.regions import Regions
from neuroxai.workflows.explain import choose_device, describe_model, outputs_of, prepare
from neuroxai.workflows.network_fault import network_faults
from neuroxai.workflows.question import as_target


@dataclass(frozen=True, eq=False)
class Inspection:
    """What happened inside a network on one case.

    Attributes
    ----------
    case, prepared
        The study, and how the network saw it.
    flow
        Every layer's map for every target.
    prediction
        What the network says of the case.
    regions
        Where evidence may lie, on the network's grid.
    model
        Name and hashes of the network.
    grid
        The grid that layers' maps are laid on before they are cut to the input's.
    filters
        The filters of the layers that were chosen.
    """

    case: Case
    prepared: Prepared
    flow: InformationFlow
    prediction: Prediction
    regions: Regions = field(repr=False)
    model: dict[str, str]
    grid: tuple[int, ...]
    filters: tuple[LayerFilters, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd but safe to use: about the case, how it was prepared, and the answer."""
        return (*self.case.warnings, *self.prepared.warnings, *self.prediction.warnings)

    @cached_property
    def input_sha256(self) -> str:
        """Hash of what the network was given."""
        return tensor_hash(self.prepared.x)

    def map_of(self, target: TargetFlow, layer: Layer) -> Tensor:
        """Return a layer's signed map on the network's input grid, ``(*S)``."""
        values = target.maps[layer.name].float()
        return resample_to(values, self.grid, spatial_shape(self.prepared.x))[0, 0]

    def number(self, layer: Layer) -> int:
        """Return a layer's place in the flow, from 1."""
        return self.flow.layers.index(layer) + 1

    def layer_affine(self, layer: Layer) -> NDArray[np.float64]:
        """Return the affine of a layer's own grid in the patient's world, in mm.

        A layer's cell covers as many of the input's voxels as fit its grid, and its center is
        theirs.
        """
        size = np.array([*layer.shape[1:], 1][:3], dtype=float)
        whole = np.array([*self.grid, 1][:3], dtype=float)
        scale = whole / size
        cells = np.diag([*scale, 1.0])
        cells[:3, 3] = (scale - 1) / 2
        affine: NDArray[np.float64] = self.prepared.placement.network_affine @ cells
        return affine

    def cell_at(self, cells: Placement, index: int) -> int:
        """Return the axial cell, of cells turned to RAS+, that holds the scan's slice ``index``."""
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
            units="activation times gradient, arbitrary",
            parameters={},
            target=target.target,
            score=target.score,
            layer=layer.name,
            diagnostics={"layer_shape": list(layer.shape), "number": self.number(layer)},
            notes=target.notes,
            provenance={"input_sha256": self.input_sha256, "versions": versions()},
            seconds=self.flow.seconds,
        )
        part = f"L{self.number(layer):02d}-{layer.name}"
        return PatientMap(
            explanation, self.case, self.prepared.placement, ("all",), self.model, part,
            self.regions,
        )  # fmt: skip


def inspect(
    model: Model,
    case: Case,
    targets: Sequence[Target | str | int] | None = None,
    *,
    filters_of: Sequence[str] = (),
    slice_index: int | None = None,
    device: str = "auto",
) -> Inspection:
    """Look into every layer of a network while it decides on a case.

    Parameters
    ----------
    model
        A loaded checkpoint.
    case
        The study.
    targets
        What is asked; every region and every class by default.
    filters_of
        Layers whose every filter is to be seen, by name or as ``L3``.
    slice_index
        The axial slice for a 2D network.
    device
        ``auto``, ``cpu``, ``cuda``.

    Raises
    ------
    NeuroXAIError
        In one sentence, if something does not fit.
    """
    network = model.network.to(choose_device(device))
    outputs = outputs_of(model)
    prepared = prepare(model, case, slice_index, device, at_once=True)
    x = prepared.x.to(next(network.parameters()).device)
    asked = [as_target(target, outputs) for target in targets or every_target(outputs)]
    with network_faults(model, x):
        flow = information_flow(network, x, asked, outputs)
        seen = filters(network, x, asked, filters_of, outputs) if filters_of else []
    answer = read_output(flow.output, outputs, case, prepared.placement)
    prediction = replace(answer, warnings=(*model.notes, *answer.warnings))
    regions = Regions(case, prepared.placement, prediction.labels if prediction.of_tumors else None)
    return Inspection(
        case, prepared, flow, prediction, regions, describe_model(model),
        layer_grid(network, spatial_shape(x)), tuple(seen),
    )  # fmt: skip


def every_target(outputs: Outputs) -> list[Target]:
    """Return each region, and each class that is not a region of its own.

    Examples
    --------
    >>> outputs = Outputs(("background", "ED", "ET"), {"WT": ("ED", "ET"), "ET": ("ET",)})
    >>> [target.name for target in every_target(outputs)]
    ['WT', 'ET', 'background', 'ED']
    """
    alone = {members[0] for members in outputs.regions.values() if len(members) == 1}
    regions: list[Target] = [Region(name) for name in outputs.regions]
    return [*regions, *(Class(name) for name in outputs.names if name not in alone)]
