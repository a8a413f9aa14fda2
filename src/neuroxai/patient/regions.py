"""Relevance mass of a map in the brain, in the tumor's regions and outside the brain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroxai.data.case import REGIONS, Case, region
from neuroxai.data.placement import Placement
from neuroxai.inspection.relevance_mass import RelevanceMass, relevance_mass

REGION_ORDER = (*REGIONS, "brain", "outside")
"""The order of regions in figures and tables."""

WITHIN = "within"
"""Name of the region that a target was restricted to."""


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of a case on the network's grid, computed on first use.

    Attributes
    ----------
    case, placement
        The study, and the mapping to the network's grid.
    predicted
        Masks ``(I, J, K)`` of the predicted regions on the patient's grid, used if the case has no
        truth. None if the network does not segment tumors.
    """

    case: Case
    placement: Placement
    predicted: Mapping[str, NDArray[np.bool_]] | None = None

    @property
    def source(self) -> str | None:
        """Source of the tumor's regions: ``truth``, ``prediction``, or None if there is neither."""
        if self.case.truth is not None:
            return "truth"
        return None if self.predicted is None else "prediction"

    @cached_property
    def masks(self) -> dict[str, Tensor]:
        """Region name to ``(*S)`` bool: WT, TC and ET if known, ``brain`` and ``outside``."""
        masks: dict[str, NDArray[np.bool_]] = {}
        if self.case.truth is not None:
            on_grid = self.placement.to_network(self.case.truth)
            masks = {name: region(on_grid, name) for name in REGIONS}
        elif self.predicted is not None:
            masks = {
                name: self.placement.to_network(mask.astype(np.uint8)) > 0
                for name, mask in self.predicted.items()
            }
        brain = self.placement.to_network(self.case.brain().astype(np.uint8)) > 0
        masks |= {"brain": brain, "outside": ~brain}
        return {name: torch.from_numpy(np.ascontiguousarray(m)) for name, m in masks.items()}

    def evidence(self, values: Tensor, within: Tensor | None = None) -> RelevanceMass | None:
        """Compute the relevance mass of a map in each region, all channels together.

        Parameters
        ----------
        values
            The map, ``(C, *S)``.
        within
            ``(*S)`` bool, the part of the grid that the target was restricted to. It is added as
            the region :data:`WITHIN`.

        Returns
        -------
        RelevanceMass or None
            None for a map with NaN or infinite values.
        """
        if not bool(torch.isfinite(values).all()):
            return None
        masks = self.masks if within is None else {**self.masks, WITHIN: within}
        return relevance_mass(values, masks)


def format_share(evidence: RelevanceMass | None, place: str) -> str:
    """Format a region's share of a map and, in brackets, of the volume, in percent.

    Examples
    --------
    >>> mass = RelevanceMass(None, None, {"WT": 0.79}, {"WT": 0.031}, None)
    >>> format_share(mass, "WT")
    '79 (3)'
    """
    if evidence is None or evidence.all is None or place not in evidence.all:
        return ""
    return f"{_percent(evidence.all, place)} ({_percent(evidence.volume, place)})"


def _percent(shares: Mapping[str, float], place: str) -> str:
    return f"{100 * shares[place]:.0f}"
