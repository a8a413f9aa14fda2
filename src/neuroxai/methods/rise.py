"""RISE."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.explanation import Attribution
from neuroxai.core.probe.probe import Probe
from neuroxai.core.spatial import spatial_shape, upsample
from neuroxai.methods.base import require
from neuroxai.methods.perturbation.base import PerturbationMethod
from neuroxai.methods.perturbation.tolerance import check_tolerance, tolerance_note
from neuroxai.methods.removers import has_space
from neuroxai.methods.standard_error import RunningMean

_MIN_PAIRS = 8
"""Pairs of masks from which the standard error is reliable enough to stop early."""


@dataclass(frozen=True)
class RISE(PerturbationMethod):
    r"""The target's covariance with random smooth masks, at several scales (arXiv:1806.07421).

    .. math:: M(v) = \frac{1}{n} \sum_{k=1}^{n} \big(S(x \odot m_k) - S(x \odot (1 - m_k))\big)
              \big(m_k(v) - \tfrac{1}{2}\big)

    for masks :math:`m_k` in [0, 1], in pairs that are each other's complement. It equals the map of
    Petsiuk et al. 2018, of the 2 n masks with half of the cells kept, minus the mean score: a voxel
    whose presence makes no difference is zero, and the sign has a meaning. Masks are random cells,
    interpolated linearly and shifted at random, in 2D and 3D, and shared by all modalities:
    ``(B, 1, *S)``. Their scales alternate.

    Parameters
    ----------
    samples
        Number of masks, two for each pair.
    cells
        Cells along the longest axis of the coarsest masks.
    scales
        Number of scales, each with twice the cells of the one before.
    tolerance
        Relative standard error at which sampling stops early.
    remover, value
        See :class:`~neuroxai.methods.perturbation.base.PerturbationMethod`.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1, bias=False))
    >>> first_row = (torch.arange(64) < 8).float()[None]
    >>> network[1].weight = torch.nn.Parameter(first_row)
    >>> found = RISE(remover="zero").explain(WholeVolume(network, Class(0)), torch.ones(1, 1, 8, 8))
    >>> [int(each) for each in found.values[0, 0].sum(dim=1).argsort(descending=True)[:2]]
    [0, 1]
    """

    name: ClassVar[str] = "rise"
    title: ClassVar[str] = "RISE"
    citation: ClassVar[str] = "arXiv:1806.07421"
    units: ClassVar[str] = "change of the target"
    shared: ClassVar[bool] = True

    samples: int = 512
    cells: int = 4
    scales: int = 3
    tolerance: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers of masks, cells and scales."""
        super().__post_init__()
        require(
            self.samples >= 2 and self.samples % 2 == 0, self.name,
            f"samples is {self.samples}, expected an even number of masks, at least 2",
        )  # fmt: skip
        for word in ("cells", "scales"):
            given = getattr(self, word)
            require(given >= 1, self.name, f"{word} is {given}, expected at least 1")
        check_tolerance(self.name, self.tolerance)

    @property
    def forwards(self) -> int:
        """The number of masks."""
        return self.samples

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Average over pairs of masks."""
        require(
            has_space(x), self.name, f"the input has no spatial axes, its shape is {tuple(x.shape)}"
        )
        perturbed = self.perturbed(probe, x, generator)
        running = RunningMean()
        masks = self._masks(x, generator)
        together = max(1, probe.batch_size(x) // 2)
        if self.tolerance is not None:
            together = min(together, _MIN_PAIRS)
        while running.count < self.samples // 2 and not self._is_precise(running):
            left = self.samples // 2 - running.count
            drawn = list(islice(masks, min(together, left)))
            values = list(perturbed.values(each for m in drawn for each in (m, 1 - m)))
            for mask, kept, removed in zip(drawn, values[::2], values[1::2], strict=True):
                change = (kept - removed).reshape(-1, *[1] * (x.dim() - 1))
                running.add((change * (mask - 0.5)).to(x))
        error = running.relative_standard_error
        diagnostics = {
            "remover": perturbed.remover.name,
            "samples": 2 * running.count,
            "relative_standard_error": error if running.count > 1 else None,
        }
        notes = tolerance_note(self.tolerance, error, f"{2 * running.count} masks")
        return Attribution(running.mean, diagnostics, notes)

    def _is_precise(self, running: RunningMean) -> bool:
        enough = self.tolerance is not None and running.count >= _MIN_PAIRS
        return enough and running.relative_standard_error <= (self.tolerance or 0)

    def _masks(self, x: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield masks ``(1, 1, *S)`` of alternating scales."""
        size = spatial_shape(x)
        number = 0
        while True:
            cells = min(self.cells * 2 ** (number % self.scales), max(size))
            yield random_mask(size, cells, generator).to(x)
            number += 1


def random_mask(size: tuple[int, ...], cells: int, generator: torch.Generator) -> Tensor:
    """Return a mask ``(1, 1, *S)`` of cells that are kept with a probability of one half.

    Parameters
    ----------
    size
        The shape of the image.
    cells
        Cells along its longest axis, which sets the edge of a cell for all axes.
    generator
        Draws the cells, and the shift of the mask by up to a cell.
    """
    edge = -(-max(size) // cells)
    grid = [-(-n // edge) + 1 for n in size]
    drawn = (torch.rand((1, 1, *grid), generator=generator) < 0.5).float()
    smooth = upsample(drawn, [n * edge for n in grid])
    starts = torch.randint(edge, (len(size),), generator=generator).tolist()
    cut = tuple(slice(a, a + n) for a, n in zip(starts, size, strict=True))
    return smooth[(slice(None), slice(None), *cut)]
