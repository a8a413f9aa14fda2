"""SmoothGrad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from neuroxai.core.errors import suggestion
from neuroxai.core.explanation import Attribution, Quantity
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.requests import LayerMap
from neuroxai.core.spatial import channel_range, per_sample
from neuroxai.methods.base import Method, require
from neuroxai.methods.paths.path_notes import (
    describes_path,
    path_notes,
    path_warnings,
    worst_of_copies,
)
from neuroxai.methods.perturbation.base import PerturbationMethod
from neuroxai.methods.standard_error import RunningMean
from neuroxai.methods.vanilla_gradient import VanillaGradient

AGGREGATIONS = ("mean", "squared", "variance")

MIN_SAMPLES = 4
"""Samples from which the standard error is reliable enough to stop early."""


@dataclass(frozen=True)
class SmoothGrad(Method):
    r"""The mean map of a gradient method over noisy copies of the input (arXiv:1706.03825).

    .. math:: \frac{1}{n} \sum_{k=1}^{n} M_c\big(x + g_k\big), \quad g_k \sim N(0, \sigma^2)

    (Smilkov et al. 2017; eq. 8 of the paper), of shape ``(B, C, *S)``. The standard deviation of
    the noise is a fraction of each modality's range.

    Parameters
    ----------
    samples
        Number of noisy copies.
    noise
        σ as a fraction of ``max(x) − min(x)``, per sample and modality.
    aggregation
        ``mean``; ``squared``, the mean of the squared maps; or ``variance``, that of the maps over
        the copies (Adebayo et al. 2018, arXiv:1810.03307).
    of
        The method whose maps ``M_c`` are averaged.
    tolerance
        Relative standard error at which sampling stops early.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network = torch.nn.Conv2d(1, 2, 1, bias=False)
    >>> x = torch.rand(1, 1, 2, 5)
    >>> explanation = SmoothGrad(samples=3).explain(WholeVolume(network, Class(0)), x)
    >>> torch.allclose(explanation.values.sum(), network.weight[0].sum())
    True
    """

    name: ClassVar[str] = "smoothgrad"
    title: ClassVar[str] = "SmoothGrad"
    citation: ClassVar[str] = "arXiv:1706.03825"

    samples: int = 16
    noise: float = 0.15
    aggregation: str = "mean"
    of: Method = field(default_factory=VanillaGradient)
    tolerance: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.samples >= 1, self.name, f"samples is {self.samples}, expected at least 1")
        require(self.noise >= 0, self.name, f"noise is {self.noise}, expected at least 0")
        require(
            self.tolerance is None or self.tolerance > 0,
            self.name,
            f"tolerance is {self.tolerance}, expected a number above 0",
        )
        require(
            self.aggregation in AGGREGATIONS,
            self.name,
            f"unknown aggregation {self.aggregation!r}: "
            f"{suggestion(self.aggregation, AGGREGATIONS)}",
        )
        require(
            not isinstance(self.of, PerturbationMethod),
            self.name,
            f"of is {self.of.name}, which removes parts of the image and has no gradient to "
            "smooth: expected a method that is based on gradients",
        )
        require(
            self.aggregation != "variance" or self.samples >= 2,
            self.name,
            "the variance needs at least 2 samples",
        )

    @property
    def quantity(self) -> Quantity:
        """That of the inner maps for their mean; moments of amounts do not add up."""
        return self.of.quantity if self.aggregation == "mean" else "gradient"

    @property
    def map_signed(self) -> bool:
        """Whether the mean of the inner maps has a sign; squares and variances have none."""
        return self.aggregation == "mean" and self.of.map_signed

    @property
    def map_units(self) -> str:
        """That of the inner maps for their mean, else its square."""
        units = self.of.map_units
        return units if self.aggregation == "mean" else f"square of {units.partition(';')[0]}"

    @property
    def gradients(self) -> int:
        """Those of the inner method for every copy."""
        return self.samples * max(1, self.of.gradients)

    @property
    def forwards(self) -> int:
        """Those of the inner method for every copy, whose target a path method needs too."""
        return self.samples * (self.of.forwards + bool(self.of.forwards))

    def zero_reason(self, probe: Probe, x: Tensor, sample: int) -> str:
        """Return the reason of the inner method, or that all copies have the same map."""
        if self.aggregation == "variance":
            return "the map is exactly zero because the maps of all noisy copies are the same"
        return self.of.zero_reason(probe, x, sample)

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Average the inner method's maps."""
        sigma = per_sample(self.noise * channel_range(x), x)
        running = RunningMean()
        inner: Attribution | None = None
        notes: dict[str, None] = {}
        paths: list[Mapping[str, Any]] = []
        done, error = 0, float("inf")
        while done < self.samples and not self._is_precise(done, error):
            copies = min(probe.batch_size(x), self.samples - done) if self._shares_batches else 1
            noisy = torch.cat([x + sigma * _normal(x, generator) for _ in range(copies)])
            inner = self.of.attribute(probe, noisy, generator)
            of_path = describes_path(inner.diagnostics)
            paths += [inner.diagnostics] if of_path else []
            own = path_notes(inner.diagnostics) if of_path else ()
            notes.update(dict.fromkeys(note for note in inner.notes if note not in own))
            for drawn in inner.values.split(x.shape[0]):
                values = drawn**2 if self.aggregation == "squared" else drawn
                running.add(values)
            done, error = running.count, running.relative_standard_error
        values = running.mean
        if self.aggregation == "variance":
            values = running.spread / (done - 1)
        diagnostics: dict[str, Any] = {
            "samples": done,
            "relative_standard_error": error if done > 1 else None,
            "sigma": sigma.reshape(x.shape[0], -1).tolist(),
        }
        if self.tolerance is not None and error > self.tolerance:
            sentence = (
                f"the relative standard error is {error:.1%} after {done} samples, above the "
                f"tolerance of {self.tolerance:.1%}"
            )
            notes[sentence] = None
        layer = inner.layer if inner is not None else None
        if not paths:
            return Attribution(values, diagnostics, tuple(notes), layer)
        of_paths = worst_of_copies(paths)
        return Attribution(
            values, of_paths | diagnostics, (*notes, *path_notes(of_paths)), layer,
            path_warnings(of_paths),
        )  # fmt: skip

    @property
    def _shares_batches(self) -> bool:
        """Whether copies share a batch. Not for paths and layers, whose notes are per sample."""
        return self.of.gradients == 1 and not any(
            isinstance(request, LayerMap) for request in self.of.requests
        )

    def _is_precise(self, done: int, error: float) -> bool:
        return self.tolerance is not None and done >= MIN_SAMPLES and error <= self.tolerance


def _normal(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return normal noise, drawn on the CPU so that it is the same on every device."""
    return torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x)
