"""Chance level of a map's share in a place: what maps that know nothing of the network reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.box import bounding_box
from neuroxai.core.errors import MethodError
from neuroxai.inspection.relevance_mass import relevance_mass

NOT_ABOVE_CHANCE = "not above chance"
"""Mark of a map in findings, tables and figures."""

LEVEL = 0.05
"""Largest share of other positions that may hold as much; the usual level of a test."""

MARGIN = 1.1
"""Factor by which a share must exceed that of an uninformative map: a share within a tenth of it
cannot be told from it, because the edge of the place is known to about a voxel."""

_FEWEST = 19
"""Fewest positions to compare with: 1 of 20 is the level of 5 %."""

_OVERLAP = 0.1
"""Largest share of a position that may overlap with the place."""

_IN_BRAIN = 0.95
"""Share of a position that has to be in the brain, unless less of the place itself is."""

_ROUNDING = 1e-9
"""Rounding of sums by Fourier transforms in float64, relative to the total, with a margin."""


@dataclass(frozen=True)
class Chance:
    """A map's share in a place, and what uninformative maps have there.

    Attributes
    ----------
    share
        Share of the map's absolute values in the place.
    level
        The largest share of an uninformative map.
    reference
        The map that has it: ``uniform in the brain``, ``brightness of FLAIR`` or ``edges of T1ce``.
    positions
        Number of other positions in the brain with which the place was compared.
    as_much
        Share of these positions that hold at least as much of the map as the place; None if there
        are fewer than 19.
    above
        Whether the share is above chance: more than 1.1 times ``level``, and not reached at more
        than 5 % of the other positions.
    """

    share: float
    level: float
    reference: str
    positions: int
    as_much: float | None
    above: bool

    def describe(self) -> dict[str, Any]:
        """Return the values, ready for JSON."""
        return asdict(self)

    def reason(self) -> str:
        """Return the figures that decide, in words.

        Examples
        --------
        >>> Chance(0.031, 0.048, "brightness of FLAIR", 200, 0.0, False).reason()
        '3.1% of the map is where the target is averaged; 4.8% for the brightness of FLAIR'
        >>> Chance(0.06, 0.04, "uniform in the brain", 200, 0.1, False).reason()
        '6.0% of the map is where the target is averaged; as much is at 10% of other positions'
        """
        held = f"{self.share:.1%} of the map is where the target is averaged"
        if self.share <= MARGIN * self.level or self.as_much is None:
            return f"{held}; {self.level:.1%} for {describe_reference(self.reference)}"
        return f"{held}; as much is at {self.as_much:.0%} of other positions"


def format_chance(chance: Chance | None) -> str:
    """Format a map's share and, in brackets, that of uninformative maps, in percent.

    Examples
    --------
    >>> format_chance(Chance(0.031, 0.048, "brightness of FLAIR", 200, 0.0, False))
    '3 (5) not above chance'
    """
    if chance is None:
        return ""
    mark = "" if chance.above else f" {NOT_ABOVE_CHANCE}"
    return f"{100 * chance.share:.0f} ({100 * chance.level:.0f}){mark}"


def describe_reference(reference: str) -> str:
    """Return an uninformative map in words.

    Examples
    --------
    >>> describe_reference("edges of T1ce"), describe_reference("uniform in the brain")
    ('the edges of T1ce', 'a map uniform in the brain')
    """
    return f"a map {reference}" if reference.startswith("uniform") else f"the {reference}"


class ChanceLevel:
    r"""Compares maps in a place with maps that depend on the scan only, not on the network.

    A share in the place is above chance if both hold:

    1. It is more than 1.1 times the share of every uninformative map: uniform in the brain, the
       brightness of each modality :math:`|x_c - a_c|` with air :math:`a_c`, and its edges
       :math:`\|\nabla x_c\|`. A mixture of these maps has no larger share than the largest.
    2. At most 5 % of the other positions in the brain hold as much. A position is the place itself,
       shifted by whole voxels, at least 95 % in the brain (or as far as the place itself is),
       overlapping with it by at most a tenth. With fewer than 19 positions only the first condition
       is tested.

    Above chance means that the map is where the target was averaged more than an image without a
    network would be. It does not mean that the map is right.

    Parameters
    ----------
    place, brain
        ``(*S)`` bool.
    scan
        The network's input, ``(C, *S)``.
    names
        The modality of each channel.
    air
        The value of air in each channel.

    Examples
    --------
    >>> brain = torch.ones(12, 10, 9, dtype=torch.bool)
    >>> place = torch.zeros_like(brain)
    >>> place[2:4, 3:5, 5:7] = True
    >>> chance = ChanceLevel(place, brain, torch.zeros(1, 12, 10, 9), ["FLAIR"], (0.0,))
    >>> found = chance.compare(place.float()[None] + 0.01)
    >>> found.above, found.reference, round(found.share, 3), round(found.level, 4)
    (True, 'uniform in the brain', 0.43, 0.0074)
    >>> chance.compare(brain.float()[None]).above
    False
    """

    def __init__(
        self, place: Tensor, brain: Tensor, scan: Tensor, names: Sequence[str],
        air: Sequence[float],
    ) -> None:  # fmt: skip
        shapes = {tuple(brain.shape), tuple(scan.shape[1:])}
        if shapes != {tuple(place.shape)} or not len(names) == len(air) == len(scan):
            raise MethodError(
                f"the brain and the scan have shapes {tuple(brain.shape)} and "
                f"{tuple(scan.shape)}, and there are {len(names)} names and {len(air)} values of "
                f"air; expected those of the place, {tuple(place.shape)}, and one a channel"
            )
        self._place, self._brain = place, brain
        self._scan, self._names, self._air = scan, names, air

    @cached_property
    def reference(self) -> tuple[float, str]:
        """The largest share of an uninformative map in the place, and its name."""
        shares = {"uniform in the brain": _share(self._brain.double(), self._place)}
        for name, channel, air in zip(self._names, self._scan, self._air, strict=True):
            signal = channel.double() - air
            shares[f"brightness of {name}"] = _share(signal.abs(), self._place)
            shares[f"edges of {name}"] = _share(_edges(signal), self._place)
        best = max(shares, key=shares.__getitem__)
        return shares[best], best

    def compare(self, values: Tensor) -> Chance | None:
        """Compare a map ``(C, *S)``; None if it is zero, NaN or infinite, or the place is empty."""
        if not bool(torch.isfinite(values).all()) or not bool(self._place.any()):
            return None
        mass = relevance_mass(values, {"place": self._place})
        if mass.all is None:
            return None
        share = mass.all["place"]
        held = self._elsewhere(values.double().abs().sum(dim=0), share)
        level, reference = self.reference
        as_much = float(held.double().mean()) if len(held) >= _FEWEST else None
        above = share > MARGIN * level and (as_much is None or as_much <= LEVEL)
        return Chance(share, level, reference, len(held), as_much, above)

    def _elsewhere(self, mass: Tensor, share: float) -> Tensor:
        """Return whether each other position holds as much of the map as the place."""
        if not self._positions.any():
            return torch.zeros(0, dtype=torch.bool)
        total = mass.sum()
        held = self._correlate(mass[self._box])[self._positions] / total
        return held >= share - _ROUNDING

    @cached_property
    def _box(self) -> tuple[slice, ...]:
        return bounding_box((self._brain | self._place).numpy())

    @cached_property
    def _shape(self) -> Tensor:
        """The place alone, within its bounding box."""
        return self._place[bounding_box(self._place.numpy())].double()

    @cached_property
    def _spectrum(self) -> Tensor:
        spectrum: Tensor = torch.fft.rfftn(self._shape, s=self._place[self._box].shape).conj()
        return spectrum

    @cached_property
    def _positions(self) -> Tensor:
        """Where the corner of the place's bounding box may be, within the brain's."""
        count = self._shape.sum()
        inside = self._correlate(self._brain[self._box].double()) / count
        overlap = self._correlate(self._place[self._box].double()) / count
        own = float(self._brain[self._place].double().mean())
        return (inside >= min(own, _IN_BRAIN) - _ROUNDING) & (overlap <= _OVERLAP + _ROUNDING)

    def _correlate(self, values: Tensor) -> Tensor:
        """Return the sum of values in the place at each of its positions in the box."""
        size = values.shape
        sums = torch.fft.irfftn(torch.fft.rfftn(values) * self._spectrum, s=size)
        # Positions beyond these would wrap around.
        fits = (slice(0, n - k + 1) for n, k in zip(size, self._shape.shape, strict=True))
        positions: Tensor = sums[tuple(fits)]
        return positions


def _share(mass: Tensor, place: Tensor) -> float:
    total = float(mass.sum())
    return float(mass[place].sum()) / total if total else 0.0


def _edges(values: Tensor) -> Tensor:
    """Return the norm of the differences between neighbors, per voxel."""
    usable = [axis for axis, size in enumerate(values.shape) if size > 1]
    if not usable:
        return torch.zeros_like(values)
    steps = torch.stack([torch.gradient(values, dim=axis)[0] for axis in usable])
    return steps.square().sum(dim=0).sqrt()
