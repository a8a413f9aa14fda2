"""Network dissection: agreement of filters with concepts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroxai.core.engine.precision import upcast
from neuroxai.core.engine.untouched import untouched
from neuroxai.core.errors import MethodError
from neuroxai.core.layers.layers import Layer, layer_grid
from neuroxai.core.layers.positions import cropped_positions
from neuroxai.core.layers.units import Units, find_units, units_visited
from neuroxai.core.spatial import spatial_shape, upsample_within
from neuroxai.core.target.outputs import Outputs

Counts = NDArray[np.int64]

Quantile = float | Literal["matched"]
"""Fraction of the voxels that count as active; ``matched`` uses the concept's own fraction."""

BAU = 0.005
"""Quantile of Bau et al. 2017."""

# Histogram bins: 16 per octave over 24 octaves of either sign, and one for zero. Bins of a
# sixteenth octave are at most 6 % wide.
_OCTAVES, _PER_OCTAVE = 24, 16
_HALF = _OCTAVES * _PER_OCTAVE
_BINS = 2 * _HALF + 1
_LOWEST = (127 - _OCTAVES // 2) * _PER_OCTAVE
"""Key of the smallest magnitude with a bin of its own; 127 is the exponent bias of float32."""
_KEYS = 2**13
"""Sign, 8 exponent bits and 4 mantissa bits."""
_LARGEST = 4.125
"""Scaled value of a filter's largest deviation in its first case: the center of a bin, ten octaves
below the last one, so that later cases may be 1000 times larger."""
_SAMPLE = 2**12
"""Approximate number of voxels from which the median of a filter is computed."""
_ROUNDING = 2.0**-20
"""Relative range below which a filter counts as constant: eight times float32's epsilon."""
_AT_ONCE = 2**24
"""Upsampled values held at a time, 64 MB."""
_THREADS = 4
"""Limit of threads that count histograms: each uses one core, upsampling uses all of them."""


@dataclass(frozen=True)
class Match:
    """Agreement of one filter with one concept over a cohort.

    Attributes
    ----------
    layer, filter
        Name of the convolution and index of its channel, from 0.
    concept
        Name of the concept.
    iou
        Intersection over union of the filter's active voxels and the concept, summed over cases.
    threshold
        Activation above which a voxel is active.
    active
        Fraction of the voxels that are active.
    """

    layer: str
    filter: int
    concept: str
    iou: float
    threshold: float
    active: float


class Dissection:
    r"""Histograms of filter activations and concepts, accumulated over cases.

    For filter k and concept c,

    .. math:: \mathrm{IoU}_{k,c} = \frac{\sum_x |M_k(x) \cap L_c(x)|}{\sum_x |M_k(x) \cup L_c(x)|},
              \quad M_k(x) = \{v : A_k(x)_v \ge T_k\}

    where the activation :math:`A_k` is upsampled linearly to the image and the threshold
    :math:`T_k` is the top quantile over the whole cohort (Bau et al. 2017, arXiv:1704.05796).
    Bau et al. use the quantile 0.005, at which no concept that fills more of the image can reach
    IoU 1. The default, ``matched``, is the fraction of voxels of the concept itself, at which a
    perfect detector of any concept scores 1. If fewer voxels exceed the filter's lowest value (a
    rectified filter is 0 in all others), only these are active; otherwise all voxels would be, and
    the IoU would be the concept's fraction. A constant filter has no active voxels and scores 0.

    Activations are counted in logarithmic bins, at most 6 % wide, around the center of each
    filter. One pass over the cohort therefore serves every threshold, and memory does not depend
    on the number of cases. The center is 0 for a rectified filter and the median for others.
    Center and scale are set by the first case in which the filter varies, so the result does not
    depend on scale and offset of a filter. Values more than 1000 times larger than the largest
    deviation in that case share one bin.

    Parameters
    ----------
    network
        Any module; it is not changed.
    concepts
        Names of the concepts.

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
            raise MethodError(
                f"dissection needs at least one concept and no duplicates, got {list(concepts)}"
            )
        self.concepts = tuple(concepts)
        self.cases = 0
        self.voxels = 0
        self._network = network
        self._units: dict[str, Units] = {}
        # Layer to (filters, bins, concepts + 1); the last entry counts all voxels.
        self._counts: dict[str, Counts] = {}
        self._scales: dict[str, _BinScales] = {}
        self._sizes = np.zeros(len(concepts), np.int64)

    @property
    def units(self) -> tuple[Units, ...]:
        """Units of the network in the order of execution."""
        return tuple(self._units.values())

    def add(
        self, x: Tensor, masks: Mapping[str, Tensor], within: tuple[slice, ...] | None = None
    ) -> None:
        """Count the activations of one case.

        Parameters
        ----------
        x
            ``(1, C, *S)``.
        masks
            Mask ``(*S)`` bool of every concept.
        within
            Box of the voxels to count; None counts all. Excludes the background, which would
            otherwise dominate the quantiles.

        Raises
        ------
        MethodError
            If a mask is missing or has another shape than the image, or an activation is not
            finite.
        """
        shape = spatial_shape(x)
        box = within or tuple(slice(0, count) for count in shape)
        self._check(x, masks, shape)
        stacked = torch.stack([masks[name].cpu()[box].flatten() for name in self.concepts])
        sets, set_of_voxel = _concept_sets(stacked)
        # (sets, concepts + 1): which concepts each set contains; the last column counts voxels.
        membership = np.concatenate(
            [sets.t().numpy().astype(np.int64), np.ones((sets.shape[1], 1), np.int64)], axis=1
        )
        units = self.units or find_units(self._network, x)  # the same for every case
        grid = layer_grid(self._network, shape)
        ends = [Layer(unit.end, "", unit.shape) for unit in units]
        positions = cropped_positions(self._network, x, Outputs().select, ends)

        def on_image(unit: Units, values: Tensor) -> Tensor:
            # The box refers to the image, which starts at the origin of the layers' grid.
            if unit.end in positions:
                inside: Any = (..., *box)
                placed: Tensor = positions[unit.end].place(values, shape)[inside]
                return placed
            return upsample_within(values, grid, box)

        def count_layer(unit: Units, output: Tensor) -> None:
            if unit.layer not in self._units:
                self._start(unit)
            if not bool(torch.isfinite(output).all()):
                raise MethodError(
                    f"the output of layer {unit.layer!r} contains NaN or infinity, expected finite "
                    "activations; check the network's weights and the image"
                )
            counts, scales = self._counts[unit.layer], self._scales[unit.layer]
            step = max(1, _AT_ONCE // int(np.prod(grid)))
            for first in range(0, unit.count, step):
                values = on_image(unit, output[:, first : first + step].float())
                flat = values.cpu()[0].flatten(1)
                results = threads.map(histogram, flat, *scales.fit(flat, first))
                for number, (bins, joint) in enumerate(results, start=first):
                    np.add.at(counts[number], bins, joint @ membership)

        def histogram(values: Tensor, center: Tensor, scale: Tensor) -> tuple[Counts, Counts]:
            """Bins that occur, and the voxels of each in every set of concepts."""
            keys = _keys((values - center).mul_(scale))
            joint = keys.mul_(sets.shape[1]).add_(set_of_voxel)
            table = torch.bincount(joint, minlength=_KEYS * sets.shape[1])
            rows = table.reshape(_KEYS, -1).numpy()
            used = np.flatnonzero(rows.any(axis=1))
            bin_of_key = _BIN_OF_KEY if float(center) == 0 else _BIN_OF_KEY_AROUND_CENTER
            return bin_of_key[used], rows[used]

        with (
            untouched(self._network),
            torch.no_grad(),
            ThreadPoolExecutor(min(_THREADS, torch.get_num_threads())) as threads,
            units_visited(self._network, units, count_layer),
        ):
            self._network(upcast(x).clone())
        self._sizes += stacked.sum(dim=1).numpy()
        self.voxels += int(stacked.shape[1])
        self.cases += 1

    def matches(self, quantile: Quantile = "matched") -> Iterator[Match]:
        """Compute the match of every filter with every concept that occurs in the cohort.

        Parameters
        ----------
        quantile
            Fraction between 0 and 1, or ``matched``.

        Raises
        ------
        MethodError
            If no case was added, or the quantile is out of range.
        """
        if not self.cases:
            raise MethodError("no case was added to the dissection; call add at least once")
        if quantile != "matched" and not 0 < float(quantile) < 1:
            raise MethodError(
                f"quantile is {quantile!r}, expected a number between 0 and 1, or 'matched'"
            )
        for layer, counts in self._counts.items():
            from_top = counts[:, ::-1].cumsum(axis=1)
            for number in range(len(counts)):
                for place, concept in enumerate(self.concepts):
                    size = int(self._sizes[place])
                    if not size:
                        continue
                    wanted = size if quantile == "matched" else float(quantile) * self.voxels
                    active = from_top[number, :, -1]
                    last = int(np.searchsorted(active, max(wanted, 1)))
                    if active[last] == self.voxels and last:
                        last -= 1  # the lowest values are never active
                    both = int(from_top[number, last, place])
                    union = int(active[last]) + size - both
                    yield Match(
                        layer, number, concept, both / union,
                        self._scales[layer].threshold(number, _BINS - 1 - last),
                        int(active[last]) / self.voxels,
                    )  # fmt: skip

    def fraction(self, concept: str) -> float:
        """Fraction of the counted voxels that belong to a concept."""
        return float(self._sizes[self.concepts.index(concept)]) / max(self.voxels, 1)

    def _check(self, x: Tensor, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> None:
        if x.shape[0] != 1:
            raise MethodError(f"dissection takes one case at a time, got a batch of {x.shape[0]}")
        for name in self.concepts:
            if name not in masks or tuple(masks[name].shape) != shape:
                found = tuple(masks[name].shape) if name in masks else "none"
                raise MethodError(f"the mask of concept {name} is {found}, expected shape {shape}")

    def _start(self, unit: Units) -> None:
        """Allocate the histograms of a layer."""
        shape = (unit.count, _BINS, len(self.concepts) + 1)
        self._counts[unit.layer] = np.zeros(shape, np.int64)
        self._scales[unit.layer] = _BinScales(unit)
        self._units[unit.layer] = unit


class _BinScales:
    """Center and scale of the histogram bins of each filter of a layer."""

    def __init__(self, unit: Units) -> None:
        self._rectified = unit.rectified
        self._center = torch.full((unit.count,), torch.nan)
        self._scale = torch.zeros(unit.count)  # 0 until the filter varies

    def fit(self, values: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Set and return center and scale of the filters from index ``first`` on.

        Only filters without a scale are fitted, to ``values (filters, voxels)``.
        """
        part = slice(first, first + len(values))
        center, scale = self._center[part], self._scale[part]
        if bool((scale > 0).all()):
            return center, scale
        low, high = values.aminmax(dim=1)
        fitted = values[:, :: max(1, values.shape[1] // _SAMPLE)].median(dim=1).values
        if self._rectified:
            # A rectified filter that is nowhere zero is treated like any other.
            fitted = torch.where(low > 0, fitted, torch.zeros_like(fitted))
        center.copy_(torch.where(center.isnan(), fitted, center))
        largest = torch.maximum(high - center, center - low)
        varies = largest > _ROUNDING * torch.maximum(high.abs(), low.abs())
        fitting = (_LARGEST / largest).clamp(max=2.0**126)  # finite in float32
        scale.copy_(torch.where((scale == 0) & varies, fitting, scale))
        return center, scale

    def threshold(self, number: int, place: int) -> float:
        """Lower edge of bin ``place`` of a filter."""
        center, scale = float(self._center[number]), float(self._scale[number])
        if not center and place == _HALF + 1:
            return float(np.finfo(np.float32).tiny)  # everything above zero
        if place in (_HALF, _HALF + 1) and center:  # the center's bin includes its neighbors
            place += 1 if place > _HALF else -1
        return center + _edge(place) / (scale or 1.0)


def _concept_sets(stacked: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct sets of concepts ``(concepts, sets)`` and the set of each voxel (int32).

    Voxels of the same set are counted together.
    """
    if len(stacked) > 62:  # more than fit into the bits of an int64 below
        sets, index = torch.unique(stacked, dim=1, return_inverse=True)
        return sets, index.to(torch.int32)
    # One integer per voxel sorts faster than a column.
    bits = torch.arange(len(stacked))[:, None]
    codes, index = torch.unique((stacked.long() << bits).sum(dim=0), return_inverse=True)
    return (codes >> bits) & 1, index.to(torch.int32)


def _keys(values: Tensor) -> Tensor:
    """Upper 13 bits of each float32: sign, exponent, four bits of the mantissa."""
    return (values.contiguous().view(torch.int32) >> 19) & (_KEYS - 1)


def _bins_of_keys() -> Counts:
    """Bin of every key; bins increase with the value, and zero has its own."""
    keys = np.arange(_KEYS)
    magnitude = keys % (_KEYS // 2)
    rank = np.clip(magnitude - _LOWEST, 0, _HALF - 1) + 1
    return _HALF + np.where(magnitude == 0, 0, rank * np.where(keys < _KEYS // 2, 1, -1))


_BIN_OF_KEY = _bins_of_keys()
_BIN_OF_KEY_AROUND_CENTER = np.where(np.abs(_BIN_OF_KEY - _HALF) <= 1, _HALF, _BIN_OF_KEY)
"""Bins of a filter with a center: values that differ from it by rounding count as equal."""


def _edge(number: int) -> float:
    """Lower edge of a bin, before scaling."""
    rank = number - _HALF
    if rank > 0:
        lowest = np.int32((rank - 1 + _LOWEST) << 19) if rank > 1 else np.int32(1)
        return float(lowest.view(np.float32))
    return 0.0 if rank == 0 else -float(np.int32((_LOWEST - rank) << 19).view(np.float32))
