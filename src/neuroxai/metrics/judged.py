"""A map as metrics judge it: its values, the input, and what else is known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from neuroxai.core.air import foreground
from neuroxai.core.errors import MetricError
from neuroxai.core.explanation import Explanation
from neuroxai.core.probe.probe import Probe
from neuroxai.core.spatial import spatial_shape
from neuroxai.methods.base import Method

Evidence = Literal["positive", "absolute"]
"""Which values of a map count as evidence: those above zero, or all by their size."""


@dataclass(frozen=True, eq=False)
class Judged:
    """A map and what is needed to judge it.

    Attributes
    ----------
    values
        The map, ``(B, C, *S)`` or ``(B, 1, *S)``.
    x
        The input that was explained, ``(B, C, *S)``.
    probe
        The network and the target, for metrics that run the network; None without one.
    mask
        ``(B, *S)`` bool, where the evidence is known to be, for metrics of localization.
    brain
        ``(B, *S)`` bool, the voxels that a map may use. By default what is not air in any
        modality; the whole image if nothing is air.
    method
        How the map was computed, for metrics that compute it again; None for a map of another tool.
    spacing
        Edges of a voxel in mm; 1 by default.
    evidence
        ``positive`` values alone or ``absolute`` ones. By default absolute for gradients, whose
        sign is that of a change and not of evidence, and positive for all other maps.
    importances
        Modality importance ``(B, C)`` that is known otherwise, for example modality Shapley values.
    networks
        Networks of the same outputs, trained from other seeds.
    seed
        Seed of everything that a metric draws.

    Examples
    --------
    >>> judged = Judged(torch.tensor([[[[1.0, -2.0], [3.0, 0.0]]]]), torch.ones(1, 1, 2, 2))
    >>> judged.importance
    tensor([[[1., 0.],
             [3., 0.]]], dtype=torch.float64)
    """

    values: Tensor
    x: Tensor
    probe: Probe | None = None
    mask: Tensor | None = None
    brain: Tensor | None = None
    method: Method | None = None
    spacing: tuple[float, ...] | None = None
    evidence: Evidence | None = None
    importances: Tensor | None = None
    networks: tuple[nn.Module, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        x, values = self.x, self.values
        if tuple(values.shape) not in {tuple(x.shape), (x.shape[0], 1, *x.shape[2:])}:
            raise MetricError(
                f"the map has shape {tuple(values.shape)}, expected that of the input, "
                f"{tuple(x.shape)}, or one channel of it"
            )
        if not bool(torch.isfinite(values).all()):
            raise MetricError("the map contains NaN or infinity, expected finite values")
        for name in ("mask", "brain"):
            given: Tensor | None = getattr(self, name)
            if given is not None and tuple(given.shape) != (x.shape[0], *x.shape[2:]):
                raise MetricError(
                    f"the {name} has shape {tuple(given.shape)}, expected "
                    f"{(x.shape[0], *x.shape[2:])}, one value per voxel and sample"
                )
        if self.spacing is not None and len(self.spacing) != x.dim() - 2:
            raise MetricError(
                f"spacing has {len(self.spacing)} values, expected one per axis, {x.dim() - 2}"
            )
        if self.importances is not None and self.importances.shape != x.shape[:2]:
            raise MetricError(
                f"importances have shape {tuple(self.importances.shape)}, expected one value per "
                f"sample and modality, {tuple(x.shape[:2])}"
            )

    @classmethod
    def of(
        cls,
        explanation: Explanation,
        x: Tensor,
        *,
        probe: Probe | None = None,
        mask: Tensor | None = None,
        method: Method | None = None,
        spacing: tuple[float, ...] | None = None,
    ) -> Judged:
        """Return an explanation of ``x`` as metrics judge it."""
        evidence: Evidence = "absolute" if explanation.quantity == "gradient" else "positive"
        return cls(
            explanation.values, x, probe=probe, mask=mask, method=method, spacing=spacing,
            evidence=evidence, seed=int(explanation.provenance.get("seed", 0)),
        )  # fmt: skip

    @cached_property
    def parts(self) -> Tensor:
        """Evidence of each channel, ``(B, C, *S)`` float64, none negative."""
        values = self.values.detach().cpu().double()
        return values.abs() if self.evidence == "absolute" else values.clamp(min=0)

    @cached_property
    def importance(self) -> Tensor:
        """Evidence at each voxel, summed over channels: ``(B, *S)`` float64, none negative."""
        return self.parts.sum(dim=1)

    @cached_property
    def domain(self) -> Tensor:
        """The voxels that a map may use, ``(B, *S)`` bool on the CPU; see :attr:`brain`."""
        if self.brain is not None:
            return self.brain.cpu().bool()
        inside = foreground(self.x).any(dim=1).cpu()
        empty = ~inside.flatten(1).any(dim=1)
        inside[empty] = True
        return inside

    @property
    def place(self) -> Tensor:
        """The mask, ``(B, *S)`` bool on the CPU.

        Raises
        ------
        MetricError
            If there is none, or it is empty.
        """
        if self.mask is None:
            raise MetricError("the metric needs a mask of the evidence: give mask=")
        mask = self.mask.cpu().bool()
        if not bool(mask.flatten(1).any(dim=1).all()):
            raise MetricError("the mask is empty, expected at least one voxel in each sample")
        return mask

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in ml; of a pixel in cm²."""
        edges = self.edges
        return prod(edges) / (1000 if len(edges) == 3 else 100)

    @property
    def edges(self) -> tuple[float, ...]:
        """Edges of a voxel in mm."""
        return self.spacing or (1.0,) * len(spatial_shape(self.x))

    def asked(self) -> Probe:
        """Return the probe, or raise if the metric has no network to ask."""
        if self.probe is None:
            raise MetricError("the metric runs the network: give the network that was explained")
        return self.probe

    def way(self) -> Method:
        """Return the method, or raise if the map cannot be computed again."""
        if self.method is None:
            raise MetricError(
                "the metric computes the map again: give the method that made it, which a map of "
                "another tool does not have"
            )
        return self.method
