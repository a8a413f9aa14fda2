"""The base class of methods that fit a value per feature to the values of coalitions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from neuroxai.core.explanation import Attribution, Quantity
from neuroxai.core.probe.probe import Probe
from neuroxai.methods.base import require
from neuroxai.methods.perturbation.base import PerturbationMethod
from neuroxai.methods.perturbation.features import (
    Features,
    FeaturesLike,
    check_features,
    expected_features,
    make_features,
)
from neuroxai.methods.perturbation.shapley import MOST_PLAYERS, every_coalition
from neuroxai.methods.perturbation.tolerance import check_tolerance, tolerance_note

_GROUPS = 10
"""Groups of coalitions that a jackknife leaves out in turn."""

_ROUND = 32
"""Coalitions between two looks at the standard error."""

Fit = Callable[[Tensor, Tensor], Tensor]
"""Returns the values of features ``(K,)`` from coalitions ``(n, K)`` and their values ``(n,)``."""


@dataclass(frozen=True)
class CoalitionMethod(PerturbationMethod):
    """A method that evaluates sets of features, and fits a value for each feature to them.

    Up to 8 features, all sets are evaluated, and nothing is sampled.

    Parameters
    ----------
    features, segments, each_modality
        See :func:`~neuroxai.methods.perturbation.features.make_features`.
    samples
        Number of sets that are drawn for more than 8 features.
    tolerance
        Relative standard error at which sampling stops early.
    """

    features: FeaturesLike = "supervoxels"
    segments: int = 50
    each_modality: bool = False
    samples: int = 256
    tolerance: float | None = None

    def __post_init__(self) -> None:
        """Check the features and the number of sets."""
        super().__post_init__()
        check_features(self.name, self.features, self.segments)
        require(
            self.samples >= 2 and self.samples % 2 == 0, self.name,
            f"samples is {self.samples}, expected an even number of sets, at least 2",
        )  # fmt: skip
        check_tolerance(self.name, self.tolerance)

    @property
    def quantity(self) -> Quantity:
        """A feature's value, divided among its voxels."""
        return "amount"

    def forwards_at(self, x: Tensor) -> int:
        """Return the number of sets, and the one without any feature."""
        count = expected_features(self.features, self.segments, self.each_modality, x)
        return 2**count if count <= MOST_PLAYERS else self.samples + 1

    @abstractmethod
    def draw(self, features: int, count: int, generator: torch.Generator) -> Tensor:
        """Return ``count`` coalitions of more than 8 features, ``(count, K)`` bool."""

    @abstractmethod
    def fit(self, none: float, full: float, *, exact: bool) -> Fit:
        """Return the fit, given the values without and with all features.

        Parameters
        ----------
        none, full
            The values.
        exact
            Whether the coalitions are all there are, rather than drawn.
        """

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Evaluate coalitions, in rounds if there is a tolerance."""
        perturbed = self.perturbed(probe, x, generator)
        features = make_features(self.features, x, self.segments, each_modality=self.each_modality)
        plans = [self._plan(count, generator.initial_seed()) for count in features.counts]
        full = perturbed.unchanged().double()
        (none,) = (each.double() for each in perturbed.values([features.kept(_empty(features, x))]))
        length = max(map(len, plans))
        values = x.new_zeros((0, len(x)), dtype=torch.float64)
        found: list[tuple[Tensor, Tensor]] = []
        for start in range(0, length, length if self.tolerance is None else _ROUND):
            stop = length if self.tolerance is None else min(start + _ROUND, length)
            new = list(perturbed.values(self._masks(features, plans, start, stop, x)))
            values = torch.cat([values, torch.stack(new).double()])
            found = [
                self._fitted(plan[:stop], values[: len(plan), b], float(none[b]), float(full[b]))
                for b, plan in enumerate(plans)
            ]
            error = max(relative_error(phi, errors) for phi, errors in found)
            # From fewer sets than twice the features, the fits of a jackknife are not determined.
            enough = len(values) >= 2 * max(features.counts)
            if self.tolerance is not None and enough and error <= self.tolerance:
                break
        phi = [each.to(x) for each, _ in found]
        errors = [each for _, each in found]
        diagnostics = {
            "remover": perturbed.remover.name,
            "samples": len(values),
            "exact": [count <= MOST_PLAYERS for count in features.counts],
            "relative_standard_error": None if error == float("inf") else error,
            "score_without_features": none.tolist(),
            **features.describe([each.double().cpu() for each in phi], errors),
        }
        notes = tolerance_note(self.tolerance, error, f"{len(values)} sets")
        return Attribution(features.spread(phi), diagnostics, notes)

    def _plan(self, features: int, seed: int) -> Tensor:
        """Return the coalitions of a sample; those of each sample are drawn from the same seed."""
        if features <= MOST_PLAYERS:
            return every_coalition(features)
        require(
            self.samples >= 2 * features, self.name,
            f"{self.samples} samples are too few for {features} features, expected at least "
            f"{2 * features}",
        )  # fmt: skip
        return self.draw(features, self.samples, torch.Generator().manual_seed(seed))

    def _masks(
        self, features: Features, plans: Sequence[Tensor], start: int, stop: int, x: Tensor
    ) -> Iterator[Tensor]:
        """Yield the masks of some coalitions; a sample that has fewer is kept whole meanwhile."""
        for row in range(start, stop):
            presence = torch.ones(len(x), max(features.counts))
            for b, plan in enumerate(plans):
                if row < len(plan):
                    presence[b, : plan.shape[1]] = plan[row].float()
            yield features.kept(presence.to(x))

    def _fitted(
        self, plan: Tensor, values: Tensor, none: float, full: float
    ) -> tuple[Tensor, Tensor]:
        """Return the values of features and their standard errors."""
        coalitions, values = plan[: len(values)].double(), values.cpu()
        exact = plan.shape[1] <= MOST_PLAYERS
        fit = self.fit(none, full, exact=exact)
        if exact and len(coalitions) < 2 ** plan.shape[1]:
            return torch.zeros(plan.shape[1]).double(), torch.full((plan.shape[1],), torch.inf)
        found = fit(coalitions, values)
        if exact:
            return found, torch.zeros_like(found)
        return found, jackknife(fit, coalitions, values)


def jackknife(fit: Fit, coalitions: Tensor, values: Tensor, groups: int = _GROUPS) -> Tensor:
    r"""Return the standard errors ``(K,)`` of a fit, by leaving groups of pairs out.

    .. math:: \sqrt{\frac{G - 1}{G} \sum_g (\phi_{-g} - \bar\phi)^2}

    (Tukey 1958, doi:10.1214/aoms/1177706647).

    Parameters
    ----------
    fit
        The fit.
    coalitions, values
        The coalitions, two of a pair next to each other, and their values.
    groups
        Number of groups.
    """
    pair = torch.arange(len(values)) // 2
    without = [pair % groups != g for g in range(min(groups, int(pair[-1]) + 1))]
    if len(without) < 2:
        return torch.full((coalitions.shape[1],), torch.inf).double()
    fits = torch.stack([fit(coalitions[rows], values[rows]) for rows in without])
    spread = (fits - fits.mean(dim=0)).square().sum(dim=0)
    return (spread * (len(fits) - 1) / len(fits)).sqrt()


def relative_error(values: Tensor, errors: Tensor) -> float:
    """Return the root mean square error over the root mean square value.

    Examples
    --------
    >>> relative_error(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 0.5]))
    0.1
    """
    size = float(values.double().square().sum())
    if size == 0:
        return 0.0
    return sqrt(float(errors.double().square().sum()) / size)


def _empty(features: Features, x: Tensor) -> Tensor:
    return x.new_zeros(len(x), max(features.counts))
