"""Integrated gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from neuroxai.core.errors import suggestion
from neuroxai.core.explanation import Attribution
from neuroxai.core.probe import Probe
from neuroxai.methods.adaptive_path import adaptive_nodes
from neuroxai.methods.base import Method, require
from neuroxai.methods.baselines import AUTO, check_baseline, path_start
from neuroxai.methods.completeness import completeness, worst

RULES = ("midpoint", "gauss_legendre", "left", "right", "trapezoid", "adaptive")

MAX_NODES = 1024
"""Where refinement towards a tolerance ends."""

_ROUGH_TOLERANCE, _ROUGH_NODES = 0.05, 288

_NESTS = {"midpoint": 3, "left": 2, "right": 2}
"""By how much the nodes of a rule grow so that those before are among those after."""


def quadrature(rule: str, n: int) -> tuple[list[float], list[float]]:
    """Return the nodes on [0, 1] and the weights, which add up to one.

    Examples
    --------
    >>> quadrature("midpoint", 2)
    ([0.25, 0.75], [0.5, 0.5])
    >>> quadrature("trapezoid", 3)
    ([0.0, 0.5, 1.0], [0.25, 0.5, 0.25])
    """
    steps = np.arange(n)
    weights = np.full(n, 1 / n)
    match rule:
        case "midpoint":
            nodes = (steps + 0.5) / n
        case "left":
            nodes = steps / n
        case "right":
            nodes = (steps + 1) / n
        case "trapezoid":
            nodes = steps / (n - 1)
            weights = np.full(n, 1 / (n - 1))
            weights[[0, -1]] /= 2
        case "gauss_legendre":
            nodes, weights = np.polynomial.legendre.leggauss(n)
            nodes, weights = (nodes + 1) / 2, weights / 2
        case _:
            require(
                False,
                "integrated_gradients",
                f"rule {rule!r} is unknown: {suggestion(rule, RULES)}",
            )
    return nodes.tolist(), weights.tolist()


@dataclass(frozen=True)
class IntegratedGradients(Method):
    r"""Gradients along the straight path from a baseline to the input (arXiv:1703.01365).

    .. math:: (x_i - x'_i) \int_0^1 \frac{\partial S(x' + \alpha (x - x'))}{\partial x_i} d\alpha

    (Sundararajan et al. 2017; eq. 4 of the paper), of shape ``(B, C, *S)``. Adds up to
    ``S(x) − S(x')`` but for the completeness gap, which every explanation carries.

    Parameters
    ----------
    steps
        Nodes of the quadrature.
    rule
        ``midpoint`` (default: along the path a trained ReLU network is rough, and high-order
        rules do worse), ``gauss_legendre``, ``left``, ``right``, ``trapezoid``, or ``adaptive``:
        nodes where the target changes, for as many forward passes more (see
        :func:`~neuroxai.methods.adaptive_path.adaptive_nodes`); for paths that do everything near
        one end.
    baseline
        ``auto`` (the paper's ``zero``, or ``blur`` where a path from zero says nothing; see
        :func:`~neuroxai.methods.baselines.path_start`), ``zero``, ``black``, ``blur``, ``mean``,
        ``noise`` or a tensor; see :func:`~neuroxai.methods.baselines.baseline_image`.
    tolerance
        Adds nodes until the completeness gap is under it, up to 1024: three times as many for the
        midpoint rule, whose nodes then hold the former ones, twice as many for the others. Where
        ``auto`` chose ``blur``, whose path is rough, it is 5 % unless told, and the nodes end at
        288.

    Examples
    --------
    >>> from neuroxai.core.target import Class
    >>> from neuroxai.core.whole_volume import WholeVolume
    >>> network = torch.nn.Conv2d(1, 2, 1)
    >>> x = torch.rand(1, 1, 2, 5)
    >>> explanation = IntegratedGradients(steps=4).explain(WholeVolume(network, Class(0)), x)
    >>> explanation.diagnostics["completeness_gap"][0] < 1e-4
    True
    """

    name: ClassVar[str] = "integrated_gradients"
    title: ClassVar[str] = "Integrated gradients"
    units: ClassVar[str] = "target; adds up to its change from baseline to input"
    citation: ClassVar[str] = "arXiv:1703.01365"

    steps: int = 32
    rule: str = "midpoint"
    baseline: str | Tensor = AUTO
    tolerance: float | None = None

    def __post_init__(self) -> None:
        check_baseline(self.name, self.baseline)
        require(
            self.rule in RULES,
            self.name,
            f"rule {self.rule!r} is unknown: {suggestion(self.rule, RULES)}",
        )
        least = 2 if self.rule == "trapezoid" else 1
        require(self.steps >= least, self.name, f"steps is {self.steps}, expected at least {least}")
        require(
            self.tolerance is None or self.tolerance > 0,
            self.name,
            f"tolerance is {self.tolerance}, expected a positive fraction, e.g. 0.01",
        )

    @property
    def gradients(self) -> int:
        """One per node."""
        return self.steps

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Integrate, and refine until the tolerance is met."""
        start = path_start(self.baseline, probe, x, generator)
        tolerance, most = self.tolerance, MAX_NODES
        if tolerance is None and start.jumped:
            tolerance, most = _ROUGH_TOLERANCE, max(_ROUGH_NODES, self.steps)
        nodes, factor = self.steps, _NESTS.get(self.rule, 2)
        mean = self._mean_gradient(probe, x, start.image, nodes)
        while True:
            values = (x - start.image) * mean
            diagnostics = completeness(values, probe.score(x), start.score)
            gap = worst(diagnostics["completeness_gap"])
            if tolerance is None or gap <= tolerance or factor * nodes > most:
                break
            mean = self._refined(probe, x, start.image, nodes, mean)
            nodes *= factor
        diagnostics["nodes"] = nodes
        diagnostics["baselines"] = list(start.names)
        notes = list(start.notes)
        if tolerance is not None and gap > tolerance:
            notes.append(
                f"the completeness gap stays at {gap:.1%} with {nodes} nodes, "
                f"over the tolerance of {tolerance:.1%}"
            )
        return Attribution(values, diagnostics, tuple(notes))

    def _refined(
        self, probe: Probe, x: Tensor, baseline: Tensor, nodes: int, mean: Tensor
    ) -> Tensor:
        """Return the mean over more nodes; where the rule nests, only new ones are asked."""
        factor = _NESTS.get(self.rule)
        if factor is None:
            return self._mean_gradient(probe, x, baseline, 2 * nodes)
        known = {"midpoint": factor // 2, "left": 0, "right": factor - 1}[self.rule]
        positions, weights = quadrature(self.rule, factor * nodes)
        new = [k for k in range(factor * nodes) if k % factor != known]
        more = self._weighted(
            probe, x, baseline, [positions[k] for k in new], [weights[k] for k in new]
        )
        return more + mean / factor

    def _mean_gradient(self, probe: Probe, x: Tensor, baseline: Tensor, nodes: int) -> Tensor:
        """Return the weighted mean of the gradients at the path's nodes."""
        if self.rule != "adaptive":
            return self._weighted(probe, x, baseline, *quadrature(self.rule, nodes))
        difference = x - baseline

        def score(positions: Sequence[float]) -> list[Tensor]:
            return [probe.score(baseline + alpha * difference) for alpha in positions]

        return self._weighted(probe, x, baseline, *adaptive_nodes(score, nodes))

    def _weighted(
        self,
        probe: Probe,
        x: Tensor,
        baseline: Tensor,
        positions: Sequence[float],
        weights: Sequence[float],
    ) -> Tensor:
        difference = x - baseline
        mean = torch.zeros_like(x)
        batch = probe.batch(x)
        for start in range(0, len(positions), batch):
            some = positions[start : start + batch]
            points = torch.cat([baseline + alpha * difference for alpha in some])
            gradients = probe.gradient(points).split(x.shape[0])
            for weight, gradient in zip(weights[start : start + batch], gradients, strict=True):
                mean += weight * gradient
        return mean
