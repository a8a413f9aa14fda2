"""Whether a map depends on what the network has learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.metrics.again import (
    map_again,
    other_class,
    randomized,
    same_question,
    weighted_layers,
)
from neuroxai.metrics.agreement import map_agreement
from neuroxai.metrics.base import Measured, Metric, require
from neuroxai.metrics.complexity import entropy
from neuroxai.metrics.judged import Judged

ENTROPIES = ("histogram", "spatial")
"""Entropy of the distribution of values, as in the paper, or of the map over the brain."""


@dataclass(frozen=True)
class EfficientMPRT(Metric):
    r"""Relative rise of a map's entropy when the network is random (arXiv:2401.06465).

    .. math:: \frac{H(\Phi(f_\mathrm{random})) - H(\Phi(f))}{H(\Phi(f))}

    A map that depends on what the network has learned has less entropy than that of a random
    network. Random networks are drawn ``draws`` times and their rises averaged.

    Parameters
    ----------
    draws
        Random networks.
    entropy
        ``histogram``, that of the values in ``bins`` bins, as in the paper; or ``spatial``, that of
        the evidence over the brain, see :class:`~neuroxai.metrics.complexity.Complexity`.
    bins
        Bins of the histogram.

    Notes
    -----
    Two models suffice, and layer by layer the test is confounded by noise (the paper).
    """

    name: ClassVar[str] = "emprt"
    title: ClassVar[str] = "Efficient MPRT"
    family: ClassVar[str] = "randomization"
    citation: ClassVar[str] = "arXiv:2401.06465"
    bounds: ClassVar[tuple[float, float]] = (-1.0, float("inf"))

    draws: int = 1
    entropy: str = "histogram"
    bins: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.draws >= 1, self.name, f"draws is {self.draws}, expected at least 1")
        require(self.bins >= 2, self.name, f"bins is {self.bins}, expected at least 2")
        require(
            self.entropy in ENTROPIES, self.name,
            f"entropy is {self.entropy!r}, expected {' or '.join(ENTROPIES)}",
        )  # fmt: skip

    def measure(self, judged: Judged) -> Measured:
        """Compute the map of each random network, and compare entropies."""
        trained = self._entropies(judged, judged.values)
        rises = []
        for draw in range(self.draws):
            network = randomized(judged.asked().network, judged.seed + draw)
            values = map_again(judged, same_question(judged, network))
            rises.append((self._entropies(judged, values) - trained) / trained)
        drawn = torch.stack(rises)
        return Measured(drawn.mean(dim=0), details={"rises": drawn.tolist()})

    def _entropies(self, judged: Judged, values: Tensor) -> Tensor:
        """Return the entropy of each sample's map, ``(B,)``."""
        found = []
        for sample, inside in zip(values.double(), judged.domain, strict=True):
            if self.entropy == "spatial":
                found.append(entropy(sample.abs().sum(dim=0)[inside]))
            else:
                found.append(histogram_entropy(sample[:, inside].flatten(), self.bins))
        return torch.tensor(found, dtype=torch.float64)


@dataclass(frozen=True)
class MPRT(Metric):
    r"""Mean similarity to the maps of a network that is randomized layer by layer (arXiv:1810.03292).

    .. math:: \frac{1}{L} \sum_{l=1}^{L} \rho\big(\Phi(f), \Phi(f_l)\big)

    with Spearman's ρ over the brain, and ``f_l`` the network whose last ``l`` layers have random
    weights (model parameter randomization test, cascading). Lower is better. Noise of the maps
    confounds it: see :class:`EfficientMPRT`.

    Parameters
    ----------
    steps
        How many of the cascade's networks are used, evenly spaced; the last is random throughout.
    """  # noqa: E501

    name: ClassVar[str] = "mprt"
    title: ClassVar[str] = "MPRT (cascading)"
    family: ClassVar[str] = "randomization"
    citation: ClassVar[str] = "arXiv:1810.03292"
    higher_is_better: ClassVar[bool | None] = False
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    steps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.steps >= 1, self.name, f"steps is {self.steps}, expected at least 1")

    def measure(self, judged: Judged) -> Measured:
        """Randomize from the output to the input, and compare the maps."""
        network = judged.asked().network
        layers = weighted_layers(network)[::-1]
        counts = sorted(
            {round((step + 1) * len(layers) / self.steps) for step in range(self.steps)}
        )
        curve: dict[str, list[float]] = {}
        for count in [count for count in counts if count]:
            drawn = randomized(network, judged.seed, {*layers[:count]})
            values = map_again(judged, same_question(judged, drawn))
            curve[layers[count - 1]] = map_agreement(judged.values, values, judged.domain)
        values = torch.tensor([*curve.values()], dtype=torch.float64).nanmean(dim=0)
        return Measured(values, details={"similarity": curve})


@dataclass(frozen=True)
class RandomClass(Metric):
    r"""Similarity to the map of another class (random logit test, arXiv:1912.09818).

    .. math:: \rho\big(\Phi(f, c), \Phi(f, c')\big)

    with Spearman's ρ over the brain. Lower is better: a map that is the same for every class does
    not answer the question that was asked. Undefined for a network of one class.
    """

    name: ClassVar[str] = "random_class"
    title: ClassVar[str] = "Random class"
    family: ClassVar[str] = "randomization"
    citation: ClassVar[str] = "arXiv:1912.09818"
    higher_is_better: ClassVar[bool | None] = False
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def measure(self, judged: Judged) -> Measured:
        """Compute the map of a class that is drawn among the others."""
        probe, other = other_class(judged)
        if probe is None:
            undefined = [float("nan")] * len(judged.x)
            return Measured(undefined, notes=("the network has only one class",))
        values = map_again(judged, probe)
        found = map_agreement(judged.values, values, judged.domain)
        return Measured(found, details={"class": other})


def histogram_entropy(values: Tensor, bins: int) -> float:
    """Return the entropy of the distribution of values ``(n,)`` in equal bins, in nats."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return float("nan")
    counts = torch.histc(values, bins, low, high).double()
    return entropy(counts)
