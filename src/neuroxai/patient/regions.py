"""Where a map's evidence lies on a patient: in the brain, in the tumor's regions, outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroxai.data.case import REGIONS, Case, region
from neuroxai.data.placement import Placement
from neuroxai.inspection.relevance_mass import relevance_mass

REGION_ORDER = (*REGIONS, "brain", "outside")
"""In which order a figure and a table name them."""

ASKED = "within"
"""The region that a target was restricted to."""


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of a case on a network's grid; made when first asked for.

    Attributes
    ----------
    case, placement
        The study, and the way to the network's grid.
    predicted
        Labels on the patient's grid, as our class indices; they stand in where the case has no
        truth, and None where the network does not segment tumors.
    """

    case: Case
    placement: Placement
    predicted: NDArray[np.uint8] | None = None

    @property
    def source(self) -> str | None:
        """Where the tumor's regions come from: ``truth``, ``prediction``, or None for neither."""
        if self.case.truth is not None:
            return "truth"
        return None if self.predicted is None else "prediction"

    @cached_property
    def masks(self) -> dict[str, Tensor]:
        """Name to ``(*S)``: WT, TC and ET where they are known, the brain, and what is outside."""
        labels = self.predicted if self.case.truth is None else self.case.truth
        masks: dict[str, NDArray[np.bool_]] = {}
        if labels is not None:
            here = self.placement.to_network(labels)
            masks = {name: region(here, name) for name in REGIONS}
        brain = self.placement.to_network(self.case.brain().astype(np.uint8)) > 0
        masks |= {"brain": brain, "outside": ~brain}
        return {name: torch.from_numpy(np.ascontiguousarray(m)) for name, m in masks.items()}

    def evidence(self, values: Tensor, asked: Tensor | None = None) -> dict[str, Any] | None:
        """Return how much of a map ``(C, *S)`` lies in each region, all channels together.

        Where the target was ``asked`` of a part alone, ``(*S)`` bool, that is the region
        :data:`ASKED`.

        Returns
        -------
        dict or None
            The result of :func:`~neuroxai.inspection.relevance_mass.relevance_mass`, and
            ``regions_from``; None for a map that is not finite.
        """
        if not bool(torch.isfinite(values).all()):
            return None
        masks = self.masks if asked is None else {**self.masks, ASKED: asked}
        return {"regions_from": self.source, **relevance_mass(values, masks)}


def format_share(evidence: Mapping[str, Any] | None, place: str) -> str:
    """Return a region's share of a map, and in brackets of the volume, in percent.

    Examples
    --------
    >>> format_share({"all": {"WT": 0.79}, "volume": {"WT": 0.031}}, "WT")
    '79 (3)'
    """
    if evidence is None or evidence["all"] is None or place not in evidence["all"]:
        return ""
    return f"{100 * evidence['all'][place]:.0f} ({100 * evidence['volume'][place]:.0f})"
