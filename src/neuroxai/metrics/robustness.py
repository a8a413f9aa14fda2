"""Whether a map stays the same where it should: under noise, another seed, another network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neuroxai.core.probe.probe import Probe
from neuroxai.core.spatial import channel_range, per_sample
from neuroxai.metrics.again import map_again, same_question
from neuroxai.metrics.agreement import map_agreement
from neuroxai.metrics.base import OWN, Measured, Metric, require
from neuroxai.metrics.judged import Judged


@dataclass(frozen=True)
class _Noisy(Metric):
    """Base of metrics that compare the map with those of slightly changed inputs."""

    family: ClassVar[str] = "robustness"
    higher_is_better: ClassVar[bool | None] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    radius: float = 0.02
    samples: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.radius > 0, self.name, f"radius is {self.radius}, expected above 0")
        require(self.samples >= 1, self.name, f"samples is {self.samples}, expected at least 1")

    def changes(self, judged: Judged) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``|Φ(x + δ) − Φ(x)|`` and ``|δ|``, each ``(B,)``, of each changed input."""
        probe, x = same_question(judged), judged.x
        width = per_sample(self.radius * channel_range(x), x)
        generator = torch.Generator().manual_seed(judged.seed)
        for _ in range(self.samples):
            step = (2 * torch.rand(x.shape, generator=generator).to(x) - 1) * width
            values = map_again(judged, probe, x + step)
            yield _norm(values - judged.values.double()), _norm(step)


@dataclass(frozen=True)
class MaxSensitivity(_Noisy):
    r"""Largest relative change of the map under small noise (arXiv:1901.09392).

    .. math:: \max_\delta \frac{|\Phi(x + \delta) - \Phi(x)|}{|\Phi(x)|}

    with δ uniform within ``radius`` of each modality's range, on either side of zero. Lower is
    better. The classes and the place of the target stay those at ``x``.

    Parameters
    ----------
    radius
        Largest change, as a fraction of each modality's range.
    samples
        Changed inputs.
    """

    name: ClassVar[str] = "max_sensitivity"
    title: ClassVar[str] = "Max sensitivity"
    citation: ClassVar[str] = "arXiv:1901.09392"

    def measure(self, judged: Judged) -> Measured:
        """Compute the map of each changed input."""
        changes = torch.stack([change for change, _ in self.changes(judged)])
        return Measured(changes.amax(dim=0) / _norm(judged.values.double()))


@dataclass(frozen=True)
class AverageSensitivity(_Noisy):
    r"""Mean relative change of the map under small noise (arXiv:1901.09392).

    As :class:`MaxSensitivity`, with the mean over the changed inputs.
    """

    name: ClassVar[str] = "average_sensitivity"
    title: ClassVar[str] = "Average sensitivity"
    citation: ClassVar[str] = "arXiv:1901.09392"

    def measure(self, judged: Judged) -> Measured:
        """Compute the map of each changed input."""
        changes = torch.stack([change for change, _ in self.changes(judged)])
        return Measured(changes.mean(dim=0) / _norm(judged.values.double()))


@dataclass(frozen=True)
class LocalLipschitz(_Noisy):
    r"""Largest change of the map per change of the input (arXiv:1806.08049).

    .. math:: \max_\delta \frac{|\Phi(x + \delta) - \Phi(x)|}{|\delta|}

    In units of the map per unit of the network's input, so values of two methods compare only if
    their maps have the same unit. Parameters are those of :class:`MaxSensitivity`.
    """

    name: ClassVar[str] = "local_lipschitz"
    title: ClassVar[str] = "Local Lipschitz estimate"
    citation: ClassVar[str] = "arXiv:1806.08049"

    def measure(self, judged: Judged) -> Measured:
        """Compute the map of each changed input."""
        ratios = torch.stack([change / size for change, size in self.changes(judged)])
        return Measured(ratios.amax(dim=0))


@dataclass(frozen=True)
class SeedAgreement(Metric):
    r"""Rank correlation of the map with that of another seed, over the brain.

    1 for a method that draws nothing. See :func:`~neuroxai.metrics.agreement.map_agreement`.
    """

    name: ClassVar[str] = "seed_agreement"
    title: ClassVar[str] = "Agreement over seeds"
    family: ClassVar[str] = "robustness"
    citation: ClassVar[str] = OWN
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def measure(self, judged: Judged) -> Measured:
        """Compute the map of the next seed."""
        values = map_again(judged, same_question(judged), seed=judged.seed + 1)
        return Measured(map_agreement(judged.values, values, judged.domain))


@dataclass(frozen=True)
class BaselineAgreement(Metric):
    r"""Rank correlation of a path method's maps from two baselines, over the brain.

    Parameters
    ----------
    first, second
        Names of baselines, see :func:`~neuroxai.methods.paths.baselines.baseline_image`.
    """

    name: ClassVar[str] = "baseline_agreement"
    title: ClassVar[str] = "Agreement over baselines"
    family: ClassVar[str] = "robustness"
    citation: ClassVar[str] = OWN
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    first: str = "brain"
    second: str = "blur"

    def measure(self, judged: Judged) -> Measured:
        """Compute the map from either baseline."""
        method = judged.way()
        if not hasattr(method, "baseline"):
            note = f"{method.title} has no baseline"
            return Measured([float("nan")] * len(judged.x), notes=(note,))
        probe, found = same_question(judged), []
        for baseline in (self.first, self.second):
            chosen: Any = method
            made = replace(chosen, baseline=baseline)
            found.append(made.explain(probe, judged.x, seed=judged.seed).values.double())
        return Measured(map_agreement(found[0], found[1], judged.domain))


@dataclass(frozen=True)
class NetworkAgreement(Metric):
    r"""Mean rank correlation with the maps of networks trained from other seeds, over the brain.

    Networks that answer the same for the same reasons have similar maps; a method whose maps differ
    more than the networks do cannot be relied on.
    """

    name: ClassVar[str] = "network_agreement"
    title: ClassVar[str] = "Agreement over networks"
    family: ClassVar[str] = "robustness"
    citation: ClassVar[str] = OWN
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def measure(self, judged: Judged) -> Measured:
        """Compute the map of each other network."""
        if not judged.networks:
            note = "no network from another seed was given (networks=)"
            return Measured([float("nan")] * len(judged.x), notes=(note,))
        maps = [self._map(judged, network) for network in judged.networks]
        found = [map_agreement(judged.values, values, judged.domain) for values in maps]
        values = torch.tensor(found, dtype=torch.float64)
        return Measured(values.mean(dim=0), details={"each": found})

    @staticmethod
    def _map(judged: Judged, network: nn.Module) -> Tensor:
        probe: Probe = same_question(judged, network)
        return map_again(judged, probe)


def _norm(values: Tensor) -> Tensor:
    found: Tensor = values.double().flatten(1).norm(dim=1)
    return found
