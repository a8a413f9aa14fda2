"""Integrated gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from neuroxai.core.errors import suggestion
from neuroxai.core.explanation import Attribution, Quantity
from neuroxai.core.probe.probe import Probe
from neuroxai.methods.base import Method, require
from neuroxai.methods.paths.adaptive_path import Limits, integrate
from neuroxai.methods.paths.baseline_names import AUTO
from neuroxai.methods.paths.baselines import Baseline, check_baseline
from neuroxai.methods.paths.completeness import completeness, path_excess, worst
from neuroxai.methods.paths.path_notes import path_notes, path_warnings
from neuroxai.methods.paths.path_start import path_start, start_passes
from neuroxai.methods.paths.straight_path import StraightPath
from neuroxai.methods.zero_maps import gradient_reason, has_gradient

Ends = tuple[Tensor, Tensor]

RULES = ("midpoint", "gauss_legendre", "left", "right", "trapezoid", "adaptive")

MAX_NODES = 1024
"""Number of nodes at which refinement towards a tolerance ends."""

_ROUGH_TOLERANCE, _ROUGH_NODES = 0.05, 288
"""Tolerance and largest number of nodes where ``auto`` leaves zero, as such a path is often rough.
A smooth one needs no more nodes. Guided integrated gradients have no such rule: their path depends
on the number of steps, so that a second run would not continue the first."""

_NESTING = {"midpoint": 3, "left": 2, "right": 2}
"""Factor by which the nodes of a rule grow so that the old ones are among the new ones."""


def quadrature(rule: str, n: int) -> tuple[list[float], list[float]]:
    """Return the nodes on [0, 1] of a rule with fixed nodes, and their weights, which sum to one.

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
                f"unknown rule {rule!r}: {suggestion(rule, RULES)}",
            )
    return nodes.tolist(), weights.tolist()


@dataclass(frozen=True, eq=False)
class _Integral:
    """Mean gradient, nodes, the sum of their absolute contributions per sample, and the rest."""

    mean: Tensor
    nodes: int
    travelled: Sequence[float]
    described: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class IntegratedGradients(Method):
    r"""Gradients along the straight path from a baseline to the input (arXiv:1703.01365).

    .. math:: (x_i - x'_i) \int_0^1 \frac{\partial S(x' + \alpha (x - x'))}{\partial x_i} d\alpha

    (Sundararajan et al. 2017; eq. 4 of the paper), of shape ``(B, C, *S)``. The sum of the map is
    ``S(x) − S(x')`` up to the completeness gap, which every explanation reports.

    Parameters
    ----------
    steps
        Number of quadrature nodes.
    rule
        ``adaptive`` (default) places nodes where equal steps have the largest error, for about as
        many additional forward passes (see
        :func:`~neuroxai.methods.paths.adaptive_path.integrate`); it uses fewer nodes than ``steps``
        if the score is linear along the path. The others are ``midpoint``, ``gauss_legendre``,
        ``left``, ``right`` and ``trapezoid``. The gradient of a trained ReLU network is rough along
        the path, so high-order rules are no better than equal steps.
    baseline
        ``auto`` (the paper's ``zero``, or another one if the score jumps near zero or the target is
        still predicted there; see :func:`~neuroxai.methods.paths.path_start.path_start`), ``zero``,
        ``black``, ``blur``, ``mean``, ``brain``, ``mirror``, ``noise``, a number, an array or a
        tensor; see :func:`~neuroxai.methods.paths.baselines.baseline_image`.
    tolerance
        Completeness gap below which no more nodes are added, up to 1024 nodes. Each refinement of
        the midpoint rule has three times as many nodes, which include the previous ones; of the
        other rules, twice as many. If ``auto`` left ``zero``, the path is often rough, and the
        default is 5 %, with at most 288 nodes.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network = torch.nn.Conv2d(1, 2, 1)
    >>> x = torch.rand(1, 1, 2, 5)
    >>> explanation = IntegratedGradients(steps=4).explain(WholeVolume(network, Class(0)), x)
    >>> explanation.diagnostics["completeness_gap"][0] < 1e-4
    True
    """

    name: ClassVar[str] = "integrated_gradients"
    title: ClassVar[str] = "Integrated gradients"
    units: ClassVar[str] = "target per voxel; the sum is its change from baseline to input"
    citation: ClassVar[str] = "arXiv:1703.01365"

    steps: int = 25
    rule: str = "adaptive"
    baseline: Baseline = AUTO
    tolerance: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_baseline(self.name, self.baseline)
        require(
            self.rule in RULES,
            self.name,
            f"unknown rule {self.rule!r}: {suggestion(self.rule, RULES)}",
        )
        least = 2 if self.rule == "trapezoid" else 1
        require(self.steps >= least, self.name, f"steps is {self.steps}, expected at least {least}")
        require(
            self.tolerance is None or self.tolerance > 0,
            self.name,
            f"tolerance is {self.tolerance}, expected a positive fraction, e.g. 0.01",
        )

    @property
    def quantity(self) -> Quantity:
        """An amount: the map sums to a change of the target."""
        return "amount"

    @property
    def gradients(self) -> int:
        """At most one per node."""
        return self.steps

    @property
    def forwards(self) -> int:
        """About one per node, to place adaptive nodes, and those that choose the baseline."""
        return (self.steps if self.rule == "adaptive" else 0) + start_passes(self.baseline)

    def zero_reason(self, probe: Probe, x: Tensor, sample: int) -> str:
        """Return why the map is zero: the gradient, or the path, which has no length."""
        if has_gradient(probe, x, sample):
            return (
                "the map is exactly zero because the image equals its baseline wherever the "
                "gradients along the path are not zero: choose another baseline"
            )
        return gradient_reason(probe, x, sample, self.title)

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Integrate, and refine until the tolerance is met."""
        start = path_start(self.baseline, probe, x, generator)
        tolerance, most = self.tolerance, MAX_NODES
        if tolerance is None and start.moved:
            tolerance, most = _ROUGH_TOLERANCE, max(_ROUGH_NODES, self.steps)
        path = StraightPath(probe, start.image, x)
        ends = start.score, start.at_x
        limits = Limits(self.steps, tolerance, most)
        integral = (self._adaptive if self.rule == "adaptive" else self._even)(path, ends, limits)
        values = path.difference * integral.mean
        found = completeness(values, ends[1], ends[0])
        found["path_excess"] = path_excess(integral.travelled, found)
        found |= {"nodes": integral.nodes, **integral.described, **start.diagnostics}
        if tolerance is not None:
            found["tolerance"] = tolerance
        if start.moved and self.tolerance is None and integral.nodes > self.steps:
            found["refined_from"] = self.steps
        return Attribution(values, found, path_notes(found), warnings=path_warnings(found))

    def _adaptive(self, path: StraightPath, ends: Ends, limits: Limits) -> _Integral:
        """Integrate with adaptive nodes."""
        found = integrate(path, ends, limits)
        described = {"interval_gap": list(found.interval_gap)}
        return _Integral(found.mean, max(found.nodes), found.travelled, described)

    def _even(self, path: StraightPath, ends: Ends, limits: Limits) -> _Integral:
        """Integrate by a rule with fixed nodes, refined to the tolerance."""
        nodes, factor = limits.count, _NESTING.get(self.rule, 2)
        mean, travelled = path.mean_gradient(*quadrature(self.rule, nodes))
        while limits.tolerance is not None and factor * nodes <= limits.most:
            gaps = completeness(path.difference * mean, ends[1], ends[0])["completeness_gap"]
            if worst(gaps) <= limits.tolerance:
                break
            mean, travelled = self._refined(path, nodes, mean, travelled)
            nodes *= factor
        return _Integral(mean, nodes, travelled)

    def _refined(
        self, path: StraightPath, nodes: int, mean: Tensor, travelled: Sequence[float]
    ) -> tuple[Tensor, list[float]]:
        """Return the mean over more nodes; of a nesting rule only the new ones are computed."""
        factor = _NESTING.get(self.rule)
        if factor is None:
            return path.mean_gradient(*quadrature(self.rule, 2 * nodes))
        known = {"midpoint": factor // 2, "left": 0, "right": factor - 1}[self.rule]
        positions, weights = quadrature(self.rule, factor * nodes)
        new = [k for k in range(factor * nodes) if k % factor != known]
        more, added = path.mean_gradient([positions[k] for k in new], [weights[k] for k in new])
        sums = [a + t / factor for a, t in zip(added, travelled, strict=True)]
        return more + mean / factor, sums
