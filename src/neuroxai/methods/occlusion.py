"""Occlusion."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.explanation import Attribution
from neuroxai.core.probe.probe import Probe
from neuroxai.core.spatial import spatial_shape
from neuroxai.methods.base import require
from neuroxai.methods.perturbation.base import PerturbationMethod
from neuroxai.methods.removers import has_space

_PARTS = 6
"""Boxes per axis by default: 216 passes in 3D, whose boxes of a brain of 180 mm are 30 mm wide."""

Box = tuple[slice, ...]
Edges = tuple[int, ...]


@dataclass(frozen=True)
class Occlusion(PerturbationMethod):
    r"""The change of the target if a box is removed (arXiv:1311.2901).

    .. math:: M(v) = \frac{1}{|\{B \ni v\}|} \sum_{B \ni v} \big(S(x) - S(x_{\setminus B})\big)

    (Zeiler and Fergus 2014), the mean over all boxes that contain the voxel, ``(B, 1, *S)``, or
    ``(B, C, *S)`` with ``each_modality``. Positive where the image supports the target. Boxes at
    the end of an axis are cut off. Nothing is sampled, so the map has no standard error.

    Parameters
    ----------
    box
        Edges of a box in voxels of the network's grid: a number, or ``16x16x8``. By default a sixth
        of each axis.
    stride
        Steps between boxes, as ``box``. By default the box's edges, so that boxes do not overlap.
    each_modality
        Whether a box is removed from one modality at a time.
    remover, value
        See :class:`~neuroxai.methods.perturbation.base.PerturbationMethod`.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1, bias=False))
    >>> _ = torch.nn.init.ones_(network[1].weight)
    >>> x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> method = Occlusion(box="1x2", remover="zero")
    >>> method.explain(WholeVolume(network, Class(0)), x).values.tolist()
    [[[[3.0, 3.0], [7.0, 7.0]]]]
    """

    name: ClassVar[str] = "occlusion"
    title: ClassVar[str] = "Occlusion"
    citation: ClassVar[str] = "arXiv:1311.2901"
    units: ClassVar[str] = "change of the target"

    box: int | str | None = None
    stride: int | str | None = None
    each_modality: bool = False

    def __post_init__(self) -> None:
        """Check the edges and steps."""
        super().__post_init__()
        for word in ("box", "stride"):
            edges = _edges(getattr(self, word))
            require(
                edges is None or (len(edges) > 0 and min(edges) > 0), self.name,
                f"{word} is {getattr(self, word)!r}, expected a number of voxels of at least 1, or "
                "one for each axis, such as 16x16x8",
            )  # fmt: skip

    def forwards_at(self, x: Tensor) -> int:
        """Return the number of boxes."""
        starts = self._starts(spatial_shape(x))
        return prod(map(len, starts)) * (x.shape[1] if self._divides_channels(x) else 1)

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Remove one box after the other."""
        perturbed = self.perturbed(probe, x, generator)
        full = perturbed.unchanged()
        size = spatial_shape(x)
        channels = x.shape[1] if self._divides_channels(x) else 1
        total = x.new_zeros(len(x), channels, *size)
        count = x.new_zeros(1, 1, *size)
        places = [(c, box) for c in range(channels) for box in self._boxes(size)]

        def masks() -> Iterator[Tensor]:
            for channel, box in places:
                kept = x.new_ones(1, channels, *size)
                kept[0, channel][box] = 0
                yield kept

        for (channel, box), value in zip(places, perturbed.values(masks()), strict=True):
            change = (full - value).reshape(-1, *[1] * len(size))
            total[:, channel][slice(None), *box] += change.to(total)
            if channel == 0:
                count[0, 0][box] += 1
        diagnostics = {
            "remover": perturbed.remover.name,
            "box": list(self._box(size)),
            "stride": list(self._stride(size)),
            "boxes": len(places),
        }
        # A stride larger than the box leaves gaps, of which nothing is known.
        return Attribution(total / count.clamp(min=1), diagnostics, self._notes(count))

    def _divides_channels(self, x: Tensor) -> bool:
        return self.each_modality or not has_space(x)

    def _notes(self, count: Tensor) -> tuple[str, ...]:
        gaps = float((count == 0).float().mean())
        if not gaps:
            return ()
        return (
            f"the stride is larger than the box, so {gaps:.0%} of the voxels were never removed "
            "and are zero",
        )

    def _box(self, size: Edges) -> Edges:
        edges = _edges(self.box) or tuple(-(-n // _PARTS) for n in size)
        return tuple(map(min, self._per_axis("box", edges, size), size))

    def _stride(self, size: Edges) -> Edges:
        steps = _edges(self.stride)
        return self._box(size) if steps is None else self._per_axis("stride", steps, size)

    def _per_axis(self, word: str, edges: Edges, size: Edges) -> Edges:
        edges = edges * len(size) if len(edges) == 1 else edges
        require(
            len(edges) == len(size), self.name,
            f"{word} is {getattr(self, word)!r}, but the input has {len(size)} spatial axes",
        )  # fmt: skip
        return edges

    def _starts(self, size: Edges) -> list[range]:
        """Return where boxes start; the last one reaches the end of its axis."""
        return [
            range(0, -(-(n - box) // step) * step + 1, step)
            for n, box, step in zip(size, self._box(size), self._stride(size), strict=True)
        ]

    def _boxes(self, size: Edges) -> Iterator[Box]:
        edges = self._box(size)
        for corner in itertools.product(*self._starts(size)):
            yield tuple(slice(a, a + edge) for a, edge in zip(corner, edges, strict=True))


def _edges(given: int | str | None) -> Edges | None:
    """Return edges as numbers, none if they are no whole numbers.

    Examples
    --------
    >>> _edges(3), _edges("16x8"), _edges("16x"), _edges(None)
    ((3,), (16, 8), (), None)
    """
    if given is None:
        return None
    parts = str(given).lower().split("x")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()
