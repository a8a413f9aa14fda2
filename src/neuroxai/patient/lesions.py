"""Lesions: connected components of a predicted region, with their volume and place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroxai.core.errors import TargetError
from neuroxai.core.target.lesion import RankedComponents, ranked_components
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.predicted_mask import predicted_mask
from neuroxai.core.target.target import Target
from neuroxai.data.placement import Placement
from neuroxai.patient.location import Location, locate
from neuroxai.patient.regions import Regions

MOST_LISTED = 20
"""Lesions listed for each region: more are fragments of a poor segmentation."""


def label_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Label the connected components of a mask; return the labels and their count.

    Voxels that share a face, an edge or a corner are connected (26 neighbors in 3D, 8 in 2D).

    Examples
    --------
    >>> labels, count = label_components(np.eye(3, dtype=bool))
    >>> count
    1
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3,) * mask.ndim, dtype=bool))
    return labels, int(count)


@dataclass(frozen=True)
class FoundLesion:
    """One lesion.

    Attributes
    ----------
    region
        The region or class that it is a component of.
    number
        Its rank by volume, as in ``lesion:2``.
    ml
        Its volume on the scan's grid, which the volume of its region is counted on too.
    place
        Where it is, in words.
    location
        Where in the brain it is; None if it is outside the brain, or left and right are unknown.
    """

    region: str
    number: int
    ml: float
    place: str
    location: Location | None

    def describe(self) -> dict[str, Any]:
        """Return the lesion, ready for JSON."""
        return {
            "region": self.region,
            "number": self.number,
            "ml": self.ml,
            "place": self.place,
            "location": None if self.location is None else self.location.describe(),
        }


@dataclass(frozen=True, eq=False)
class Lesions:
    """The lesions of each predicted region, as ``within="lesion:N"`` numbers them.

    They are components on the network's grid, the largest first.

    Attributes
    ----------
    masks
        Region or class to where it is predicted, ``(*S)`` bool on the network's grid.
    regions
        The case, its placement and its brain.
    on_scan
        Region or class to where it is predicted, ``(I, J, K)`` bool on the scan's grid.
    """

    masks: Mapping[str, Tensor]
    regions: Regions
    on_scan: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        output: Tensor,
        outputs: Outputs,
        targets: Sequence[Target],
        regions: Regions,
        on_scan: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> Lesions:
        """Return the lesions of a segmenter's output ``(1, K, *S)``.

        Parameters
        ----------
        output, outputs
            The output, and the meaning of its channels.
        targets
            The regions and classes whose lesions are listed.
        regions
            The case, its placement and its brain.
        on_scan
            Region or class to its mask ``(I, J, K)`` on the scan's grid, for the volumes; those of
            others are counted on the network's grid.
        """
        masks: dict[str, Tensor] = {}
        for target in targets:
            bound = target.bind(outputs, output)
            try:
                mask = predicted_mask(bound.outputs, bound.channels, output)[0]
            except TargetError:  # a single channel that may be a logit or a probability
                continue
            covered = outputs.covered(output)
            masks[target.name] = (mask if covered is None else covered.embed(mask)).cpu()
        return cls(masks, regions, on_scan or {})

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of lesions of each region."""
        return {name: len(found.sizes) for name, found in self._components.items()}

    @cached_property
    def found(self) -> tuple[FoundLesion, ...]:
        """The largest lesions of each region."""
        return tuple(self._find())

    @cached_property
    def _components(self) -> dict[str, RankedComponents]:
        return {name: ranked_components(label_components, m) for name, m in self.masks.items()}

    def _find(self) -> Iterator[FoundLesion]:
        case, placement = self.regions.case, self.regions.placement
        for name, components in self._components.items():
            volumes = self._volumes_ml(name, components)[:MOST_LISTED]
            for number, ml in enumerate(volumes, start=1):
                location = None
                if case.laterality_known:
                    mask = torch.from_numpy(components.mask(number)).float()[None]
                    location = locate(mask, self.regions.masks["brain"], placement)
                unknown = "outside the brain" if case.laterality_known else "unknown"
                place = unknown if location is None else f"{location.side}: {location}"
                yield FoundLesion(name, number, ml, place, location)

    def _volumes_ml(self, name: str, components: RankedComponents) -> list[float]:
        """Return the volume of each component, which add up to that of the region."""
        placement = self.regions.placement
        mask = self.on_scan.get(name)
        if mask is None or components.labels.ndim != 3 or not components.sizes:
            voxel_ml = abs(float(np.linalg.det(placement.network_affine[:3, :3]))) / 1000
            return [size * voxel_ml for size in components.sizes]
        counts = np.bincount(_nearest(components, mask, placement), minlength=len(components.sizes))
        voxel_ml = float(np.prod(self.regions.case.spacing)) / 1000
        return [count * voxel_ml for count in counts.tolist()]

    def describe(self) -> dict[str, Any]:
        """Return the lesions, ready for JSON."""
        return {
            "counts": dict(self.counts),
            "largest": [lesion.describe() for lesion in self.found],
        }


def _nearest(
    components: RankedComponents, mask: NDArray[np.bool_], placement: Placement
) -> NDArray[np.intp]:
    """Return, for each voxel of a mask on the scan's grid, the rank of the component next to it.

    Ranks count from 0. Interpolation moves a region's surface by less than a voxel of the network,
    so most voxels are in a component and the others next to one.
    """
    from scipy.spatial import cKDTree

    affine = np.linalg.solve(placement.network_affine, placement.affine)
    points = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    inside = np.rint(points).astype(np.intp).clip(0, np.array(components.labels.shape) - 1)
    labels = components.labels[tuple(inside.T)]
    if (lost := labels == 0).any():
        voxels = np.argwhere(components.labels)
        mm = np.asarray(placement.spacing)
        _, at = cKDTree(voxels * mm).query(points[lost] * mm)
        labels[lost] = components.labels[tuple(voxels[at].T)]
    rank = np.empty(len(components.order) + 1, np.intp)
    rank[list(components.order)] = np.arange(len(components.order))
    found: NDArray[np.intp] = rank[labels]
    return found
