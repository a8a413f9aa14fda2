"""Guided integrated gradients."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from neuroxai.core.explanation import Attribution, Quantity
from neuroxai.core.probe.probe import Probe
from neuroxai.methods.base import Method, require
from neuroxai.methods.paths.baseline_names import AUTO
from neuroxai.methods.paths.baselines import Baseline, check_baseline
from neuroxai.methods.paths.completeness import completeness, path_excess
from neuroxai.methods.paths.path_notes import path_notes, path_warnings
from neuroxai.methods.paths.path_start import path_start, start_passes
from neuroxai.methods.zero_maps import gradient_reason, has_gradient

_NEGLIGIBLE = 1e-9
"""Fraction of the remaining distance below which a step is complete."""


@dataclass(frozen=True)
class GuidedIntegratedGradients(Method):
    r"""Integrated gradients along a path of low sensitivity (arXiv:2106.09788).

    At every step, the features with the smallest :math:`|\partial S / \partial x_i|` among those
    that have not reached the input move towards it, within a corridor around the straight path,
    until the step's share of the L1 distance is covered (Kapishnikov et al. 2021; eqs. 5-7 of the
    paper). The map has the shape ``(B, C, *S)``.

    Eq. 7 gives a feature that has arrived an infinite score. Features that equal the baseline from
    the start, such as the zero background of a skull-stripped scan, are left out of the quantile.
    Otherwise they would use up the fraction, and the path would collapse into the straight one.

    Parameters
    ----------
    steps
        Number of gradients along the path; the authors' default is 200.
    fraction
        Fraction of the moving features that move together.
    max_distance
        Half width of the corridor as a fraction of the path. With 1 there is no corridor; 0 gives
        integrated gradients with the left rule.
    baseline
        See :class:`~neuroxai.methods.integrated_gradients.IntegratedGradients`.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network = torch.nn.Conv2d(1, 2, 1)
    >>> x = torch.rand(1, 1, 2, 5)
    >>> method = GuidedIntegratedGradients(steps=10)
    >>> explanation = method.explain(WholeVolume(network, Class(0)), x)
    >>> explanation.diagnostics["completeness_gap"][0] < 1e-4
    True
    """

    name: ClassVar[str] = "guided_integrated_gradients"
    title: ClassVar[str] = "Guided integrated gradients"
    units: ClassVar[str] = "target per voxel; the sum is its change from baseline to input"
    citation: ClassVar[str] = "arXiv:2106.09788"

    steps: int = 200
    fraction: float = 0.25
    max_distance: float = 0.02
    baseline: Baseline = AUTO

    def __post_init__(self) -> None:
        super().__post_init__()
        check_baseline(self.name, self.baseline)
        require(self.steps >= 1, self.name, f"steps is {self.steps}, expected at least 1")
        require(
            0 < self.fraction <= 1,
            self.name,
            f"fraction is {self.fraction}, expected a number above 0 and up to 1",
        )
        require(
            0 <= self.max_distance <= 1,
            self.name,
            f"max_distance is {self.max_distance}, expected a number from 0 to 1",
        )

    @property
    def quantity(self) -> Quantity:
        """An amount: the map sums to a change of the target."""
        return "amount"

    @property
    def gradients(self) -> int:
        """One per step."""
        return self.steps

    @property
    def forwards(self) -> int:
        """Those that choose the baseline."""
        return start_passes(self.baseline)

    def zero_reason(self, probe: Probe, x: Tensor, sample: int) -> str:
        """Return why the map is zero: the gradient, or the path, which has no length."""
        if has_gradient(probe, x, sample):
            return (
                "the map is exactly zero because the image equals its baseline wherever the "
                "gradients along the path are not zero: choose another baseline"
            )
        return gradient_reason(probe, x, sample, self.title)

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Follow each sample's own path; the gradients of a batch are computed together."""
        start = path_start(self.baseline, probe, x, generator)
        paths = [
            _Path(b, i, self.fraction, self.max_distance)
            for b, i in zip(start.image, x, strict=True)
        ]
        for step in range(self.steps):
            point = torch.stack([path.point() for path in paths])
            for path, gradient in zip(paths, probe.gradient(point), strict=True):
                path.advance(gradient, (step + 1) / self.steps)
        values = torch.stack([path.attribution() for path in paths])
        found = completeness(values, start.at_x, start.score)
        found["path_excess"] = path_excess([path.travelled() for path in paths], found)
        found["moving_features"] = [path.features for path in paths]
        found |= start.diagnostics
        notes = (*path_notes(found), *_rounding(probe.settings.precision))
        return Attribution(values, found, notes, warnings=path_warnings(found))


def _rounding(precision: str) -> tuple[str, ...]:
    if precision == "fp32":
        return ()
    return (
        f"in {precision} the path itself differs, because it depends on the order of the "
        "gradients: the map may differ from that in fp32 more than a single gradient does",
    )


class _Path:
    """One sample's path from baseline to input, over the features that differ.

    The position of a feature is its fraction of the way, from 0 to 1. Nothing waits for the
    device: on a GPU all rounds of a step are queued, on the CPU a step ends early.
    """

    def __init__(self, baseline: Tensor, x: Tensor, fraction: float, max_distance: float) -> None:
        difference = (x - baseline).flatten()
        self._moving = difference.nonzero().flatten()
        self._baseline = baseline
        self._difference = difference[self._moving]
        self._distance = self._difference.abs()
        self._total = self._distance.sum()
        self._position = torch.zeros_like(self._difference)
        self._sum = torch.zeros_like(self._difference)
        self._travelled = torch.zeros((), dtype=torch.float64, device=difference.device)
        self._corridor = max_distance
        self.features = self._moving.numel()
        self._rank = floor(fraction * (self.features - 1)) + 1

    def point(self) -> Tensor:
        """Return the image at the current position, ``(C, *S)``."""
        return self._scatter(self._position * self._difference, self._baseline)

    def attribution(self) -> Tensor:
        """Return the attribution so far, ``(C, *S)``."""
        return self._scatter(self._sum, torch.zeros_like(self._baseline))

    def travelled(self) -> float:
        """Return the sum of the absolute contributions of the steps."""
        return float(self._travelled)

    def _scatter(self, values: Tensor, onto: Tensor) -> Tensor:
        return onto.flatten().index_add(0, self._moving, values).reshape(onto.shape)

    def advance(self, gradient: Tensor, alpha: float) -> None:
        """Move features until the remaining L1 distance is ``1 − alpha`` of the whole."""
        if self.features == 0:
            return
        slopes = gradient.flatten().index_select(0, self._moving)
        lower, upper = max(alpha - self._corridor, 0.0), min(alpha + self._corridor, 1.0)
        position = self._position.clamp(min=lower)
        left = torch.dot(self._distance, 1 - position)
        surplus = left - self._total * (1 - alpha)
        if not self._is_complete(surplus, left):
            position = self._moved(position, slopes.abs(), upper, surplus, left)
        step = (position - self._position).mul_(self._difference).mul_(slopes)
        self._sum += step
        self._travelled += step.sum(dtype=torch.float64).abs()
        self._position = position

    def _moved(
        self, position: Tensor, sensitivity: Tensor, upper: float, surplus: Tensor, left: Tensor
    ) -> Tensor:
        """Move the least sensitive features that can still move, a fraction of all at a time.

        One sort gives the threshold of every round: once the features of a round have reached the
        edge of the corridor, the next ones in the order follow.
        """
        reach = (upper - position).clamp_(min=0)
        ranked = sensitivity.masked_fill(reach == 0, torch.inf)
        order = _sorted(ranked)
        reach *= self._distance
        taken = torch.zeros((), dtype=torch.int64, device=order.device)
        below = torch.full_like(self._total, -torch.inf)
        for _ in range(-(-self.features // self._rank)):
            place = (taken + self._rank - 1).clamp_(max=self.features - 1)
            threshold = order[place]
            chosen = (ranked <= threshold) & (ranked > below) & (ranked < torch.inf)
            reachable = torch.dot(reach, chosen.to(reach.dtype))
            share = (surplus / reachable).nan_to_num_(nan=0.0).clamp_(0, 1)
            position = torch.where(chosen, position + share * (upper - position), position)
            surplus = surplus - share * reachable
            if self._is_complete(surplus, left):
                break
            below = threshold
            taken = torch.searchsorted(order, threshold, right=True)
        return position

    def _is_complete(self, surplus: Tensor, left: Tensor) -> bool:
        """Return whether the step is complete; always False on a GPU, to avoid waiting for it.

        Further rounds then have no effect.
        """
        if surplus.device.type != "cpu":
            return False
        close = max(_NEGLIGIBLE, 8 * torch.finfo(surplus.dtype).eps)
        return float(surplus) <= close * float(left)


def _sorted(values: Tensor) -> Tensor:
    """Return the values in ascending order; NumPy sorts ten times faster than torch on the CPU."""
    if values.device.type != "cpu":
        return values.sort().values
    return torch.from_numpy(np.sort(values.numpy()))
