"""Network dissection: which filter answers to which concept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroxai.core.engine.precision import upcast
from neuroxai.core.engine.untouched import untouched
from neuroxai.core.errors import MethodError
from neuroxai.core.layers.layers import layer_grid
from neuroxai.core.layers.units import Units, find_units, units_met
from neuroxai.core.spatial import spatial_shape, upsample_within

Quantile = float | Literal["matched"]
"""Share of the voxels that count as active; ``matched`` takes as many as the concept has."""

BAU = 0.005
"""The share of Bau et al. 2017."""

_OCTAVES, _PER_OCTAVE = 24, 16
_HALF = _OCTAVES * _PER_OCTAVE
_BINS = 2 * _HALF + 1
_LOWEST = (127 - _OCTAVES // 2) * _PER_OCTAVE
_KEYS = 2**13
_LARGEST = 4.125
"""Where a filter's largest deviation of its first case comes to lie among the bins: in the middle
of one, ten octaves below the last."""
_SAMPLE = 2**12
"""From about how many voxels a filter's middle is told."""
_ROUNDING = 2.0**-20
"""What varies by less, beside its size, does not vary."""
_AT_ONCE = 2**24
"""How many up-sampled values are held at a time."""
_SIDE_BY_SIDE = 4
"""Filters counted at once, at most: counting takes one core each, what leads there takes more."""


@dataclass(frozen=True)
class Match:
    """How well one filter's active voxels and one concept agree over a cohort.

    Attributes
    ----------
    layer, filter
        The convolution and its channel, from 0.
    concept
        The concept's word.
    iou
        Intersection over union of active voxels and concept, summed over the cohort.
    threshold
        The activation from which on a voxel is active, as the filter gives it.
    active
        Share of the voxels that are.
    """

    layer: str
    filter: int
    concept: str
    iou: float
    threshold: float
    active: float


class Dissection:
    r"""Counts, over any number of cases, how filters' activations fall on concepts.

    For filter k and concept c,

    .. math:: \mathrm{IoU}_{k,c} = \frac{\sum_x |M_k(x) \cap L_c(x)|}{\sum_x |M_k(x) \cup L_c(x)|},
              \quad M_k(x) = \{v : A_k(x)_v \ge T_k\}

    with the activation :math:`A_k` up-sampled linearly to the image and the threshold
    :math:`T_k` its top quantile over the whole cohort (Bau et al. 2017, arXiv:1704.05796). Bau's
    quantile is 0.005; a concept that fills more of the image can never be matched at it, so the
    quantile may also be the concept's own share (``matched``), at which a perfect detector of any
    concept scores 1. Where not that many voxels rise above the filter's lowest value (a rectified
    filter is zero in all others), those that do are active: all voxels would agree with any
    concept by its share. A filter that never rises is nowhere active, and scores 0.

    The activations of each filter are counted in bins around its middle, of at most 6 % of the way
    from there, so one pass over the cohort is enough for every threshold, and memory does not grow
    with it. The middle is zero for a rectified filter and the median for others; it and the bins'
    scale are fixed by the first case in which the filter varies, so scale and offset of a filter
    say nothing. Beyond 1000 times that case's largest deviation values are no longer told apart.

    Parameters
    ----------
    network
        Any module; it is left as found.
    concepts
        The concepts' words.

    References
    ----------
    Bau et al. 2017, arXiv:1704.05796 (network dissection).

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.Conv2d(2, 2, 1))
    >>> with torch.no_grad():
    ...     _ = network[0].weight.copy_(torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1))
    >>> x = torch.zeros(1, 1, 6, 5); x[0, 0, 2:4, 1:3] = 3.0
    >>> dissection = Dissection(network, ["square"])
    >>> dissection.add(x, {"square": x[0, 0] > 0})
    >>> best = max(dissection.matches(), key=lambda match: match.iou)
    >>> best.layer, best.filter, best.iou
    ('0', 0, 1.0)
    """

    def __init__(self, network: nn.Module, concepts: Sequence[str]) -> None:
        if not concepts or len(set(concepts)) < len(concepts):
            raise MethodError(f"dissection needs concepts that differ, got {list(concepts)}")
        self.concepts = tuple(concepts)
        self.cases = 0
        self.voxels = 0
        self._network = network
        self._units: dict[str, Units] = {}
        # (filters, bins, concepts and, last, all voxels)
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._scales: dict[str, _Scales] = {}
        self._sizes = np.zeros(len(concepts), np.int64)

    @property
    def units(self) -> tuple[Units, ...]:
        """The units that were seen, in the order data flows."""
        return tuple(self._units.values())

    def add(
        self, x: Tensor, masks: Mapping[str, Tensor], within: tuple[slice, ...] | None = None
    ) -> None:
        """Count one case.

        Parameters
        ----------
        x
            ``(1, C, *S)``.
        masks
            Every concept's ``(*S)`` bool.
        within
            The box of voxels that count at all; air far from the brain would otherwise decide what
            the top quantile is. Everywhere, by default.

        Raises
        ------
        MethodError
            If a mask is missing or has another shape than the image.
        """
        shape = spatial_shape(x)
        if x.shape[0] != 1:
            raise MethodError(f"dissection counts one case at a time, got a batch of {x.shape[0]}")
        for name in self.concepts:
            if name not in masks or tuple(masks[name].shape) != shape:
                found = tuple(masks[name].shape) if name in masks else "none"
                raise MethodError(f"concept {name} has the mask {found}, expected {shape}")
        box = within or tuple(slice(0, count) for count in shape)
        stacked = torch.stack([masks[name].cpu()[box].flatten() for name in self.concepts])
        # Voxels with the same concepts are counted together.
        groups, group = _grouped(stacked)
        membership = np.concatenate(
            [groups.t().numpy().astype(np.int64), np.ones((groups.shape[1], 1), np.int64)], axis=1
        )
        # A network's units are the same for every case.
        units = self.units or find_units(self._network, x)
        grid = layer_grid(self._network, shape)

        def visit(unit: Units, output: Tensor) -> None:
            counts = self._counts.get(unit.layer)
            if counts is None:
                counts = np.zeros((unit.count, _BINS, len(self.concepts) + 1), np.int64)
                self._counts[unit.layer] = counts
                self._scales[unit.layer] = _Scales(unit)
                self._units[unit.layer] = unit
            if not bool(torch.isfinite(output).all()):
                raise MethodError(
                    f"layer {unit.layer!r} gives values that are not finite, which answer to no "
                    "concept"
                )
            step = max(1, _AT_ONCE // int(np.prod(grid)))
            for first in range(0, unit.count, step):
                # The box lies in the image, which begins where the layers' grid does.
                values = upsample_within(output[:, first : first + step].float(), grid, box)
                flat = values.cpu()[0].flatten(1)
                found = threads.map(tally, flat, *self._scales[unit.layer].fit(flat, first))
                for number, (bins, tallies) in enumerate(found, start=first):
                    np.add.at(counts[number], bins, tallies @ membership)

        def tally(
            values: Tensor, middle: Tensor, scale: Tensor
        ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            joint = _keys((values - middle).mul_(scale)).mul_(groups.shape[1]).add_(group)
            table = torch.bincount(joint, minlength=_KEYS * groups.shape[1])
            tallies = table.reshape(_KEYS, -1).numpy()
            used = np.flatnonzero(tallies.any(axis=1))
            return (_BIN_OF_KEY if float(middle) == 0 else _ROUND_BIN_OF_KEY)[used], tallies[used]

        with (
            untouched(self._network),
            torch.no_grad(),
            ThreadPoolExecutor(min(_SIDE_BY_SIDE, torch.get_num_threads())) as threads,
            units_met(self._network, units, visit),
        ):
            self._network(upcast(x).clone())
        self._sizes += stacked.sum(dim=1).numpy()
        self.voxels += int(stacked.shape[1])
        self.cases += 1

    def matches(self, quantile: Quantile = "matched") -> Iterator[Match]:
        """Yield every filter with every concept that occurs in the cohort.

        Parameters
        ----------
        quantile
            A share between 0 and 1, or ``matched``.

        Raises
        ------
        MethodError
            If no case was counted, or the quantile is out of range.
        """
        if not self.cases:
            raise MethodError("no case was counted: add at least one")
        if quantile != "matched" and not 0 < float(quantile) < 1:
            raise MethodError(f"quantile is {quantile!r}, expected a share in (0, 1) or 'matched'")
        for layer, counts in self._counts.items():
            from_top = counts[:, ::-1].cumsum(axis=1)
            scales = self._scales[layer]
            for number in range(len(counts)):
                for place, concept in enumerate(self.concepts):
                    size = int(self._sizes[place])
                    if not size:
                        continue
                    wanted = size if quantile == "matched" else float(quantile) * self.voxels
                    active = from_top[number, :, -1]
                    last = int(np.searchsorted(active, max(wanted, 1)))
                    if active[last] == self.voxels and last:
                        last -= 1  # without the lowest values: that all are active says nothing
                    both = int(from_top[number, last, place])
                    union = int(active[last]) + size - both
                    yield Match(
                        layer, number, concept, both / union,
                        scales.threshold(number, _BINS - 1 - last),
                        int(active[last]) / self.voxels,
                    )  # fmt: skip

    def share(self, concept: str) -> float:
        """Return how much of the counted voxels a concept fills."""
        return float(self._sizes[self.concepts.index(concept)]) / max(self.voxels, 1)


class _Scales:
    """Where the bins of a layer's filters lie: around the middle of each, as wide as it varies."""

    def __init__(self, unit: Units) -> None:
        self._rectified = unit.rectified
        self._middle = torch.full((unit.count,), torch.nan)
        self._scale = torch.zeros(unit.count)  # zero as long as a filter has not varied

    def fit(self, values: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Return middle and scale of the filters from ``first`` on, fixed by ``(filters, voxels)``.

        What is fixed already stays.
        """
        part = slice(first, first + len(values))
        middle, scale = self._middle[part], self._scale[part]
        if bool((scale > 0).all()):
            return middle, scale
        low, high = values.aminmax(dim=1)
        found = values[:, :: max(1, values.shape[1] // _SAMPLE)].median(dim=1).values
        if self._rectified:
            # One that is on everywhere is like any other.
            found = torch.where(low > 0, found, torch.zeros_like(found))
        middle.copy_(torch.where(middle.isnan(), found, middle))
        largest = torch.maximum(high - middle, middle - low)
        varies = largest > _ROUNDING * torch.maximum(high.abs(), low.abs())
        fitting = (_LARGEST / largest).clamp(max=2.0**126)
        scale.copy_(torch.where((scale == 0) & varies, fitting, scale))
        return middle, scale

    def threshold(self, number: int, place: int) -> float:
        """Return the lowest value of one filter's bin."""
        middle, scale = float(self._middle[number]), float(self._scale[number])
        if not middle and place == _HALF + 1:
            return float(np.finfo(np.float32).tiny)  # all that is above zero
        if place in (_HALF, _HALF + 1) and middle:  # the middle's bin has taken its neighbors in
            place += 1 if place > _HALF else -1
        return middle + _edge(place) / (scale or 1.0)


def _grouped(stacked: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sets of concepts that occur, ``(concepts, sets)``, and each voxel's, int32."""
    if len(stacked) > 62:
        groups, group = torch.unique(stacked, dim=1, return_inverse=True)
        return groups, group.to(torch.int32)
    # One whole number for each voxel: quicker to sort than columns.
    places = torch.arange(len(stacked))[:, None]
    codes, group = torch.unique((stacked.long() << places).sum(dim=0), return_inverse=True)
    return (codes >> places) & 1, group.to(torch.int32)


def _keys(values: Tensor) -> Tensor:
    """Return the upper bits of each float32: sign, exponent, four bits of the mantissa."""
    return (values.contiguous().view(torch.int32) >> 19) & (_KEYS - 1)


def _bins_of_keys() -> NDArray[np.int64]:
    """Return the bin of every key; bins rise with the value, and zero has one of its own.

    The bins are at most 6 % wide, over 24 octaves around one.
    """
    keys = np.arange(_KEYS)
    size = keys % (_KEYS // 2)
    rank = np.clip(size - _LOWEST, 0, _HALF - 1) + 1
    return _HALF + np.where(size == 0, 0, rank * np.where(keys < _KEYS // 2, 1, -1))


_BIN_OF_KEY = _bins_of_keys()
_ROUND_BIN_OF_KEY = np.where(np.abs(_BIN_OF_KEY - _HALF) <= 1, _HALF, _BIN_OF_KEY)
"""The same where zero is a level that rounding may have missed."""


def _edge(number: int) -> float:
    """Return the lowest value of a bin."""
    rank = number - _HALF
    if rank > 0:
        lowest = np.int32((rank - 1 + _LOWEST) << 19) if rank > 1 else np.int32(1)
        return float(lowest.view(np.float32))
    return 0.0 if rank == 0 else -float(np.int32((_LOWEST - rank) << 19).view(np.float32))
