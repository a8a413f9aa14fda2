"""The straight path from a baseline to the input, with scores and gradients along it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from neuroxai.core.probe.probe import Probe

Rows = Sequence[Sequence[float]]
"""Rows of positions from 0 to 1, each with one position per sample."""


class StraightPath:
    """Scores and gradients along the straight path, computed in batches.

    Parameters
    ----------
    probe
        The network and target.
    start, end
        ``(B, C, *S)``.

    Attributes
    ----------
    difference
        ``end - start``.
    free_memory
        Bytes available next to the passes; None if unknown.
    """

    def __init__(self, probe: Probe, start: Tensor, end: Tensor) -> None:
        self.difference = end - start
        self._probe, self._start, self._batch = probe, start, probe.batch_size(end)
        self.free_memory = probe.free_memory(end)

    def gradients(self, rows: Rows) -> Iterator[Tensor]:
        """Yield the gradients ``(B, C, *S)`` at each row."""
        for points in self._points(rows):
            yield from self._probe.gradient(points).split(len(self._start))

    def scores(self, rows: Rows) -> list[list[float]]:
        """Return the scores of each row, one per sample."""
        found = [self._probe.score(points) for points in self._points(rows)]
        if not found:
            return []
        scores: list[list[float]] = torch.cat(found).double().reshape(len(rows), -1).tolist()
        return scores

    def slopes(self, gradients: Sequence[Tensor]) -> list[list[float]]:
        """Return the score's slope along the path for the gradients of each row."""
        products = [(each * self.difference).flatten(1) for each in gradients]
        found = torch.stack([product.sum(dim=1, dtype=torch.float64) for product in products])
        slopes: list[list[float]] = found.tolist()
        return slopes

    def mean_gradient(
        self, positions: Sequence[float], weights: Sequence[float]
    ) -> tuple[Tensor, list[float]]:
        """Return the weighted sum of the gradients at positions common to all samples.

        With it comes, per sample, the sum of the absolute contributions of the positions.
        """
        mean = torch.zeros_like(self._start)
        travelled = [0.0] * len(self._start)
        rows = [[position] * len(self._start) for position in positions]
        for weight, gradient in zip(weights, self.gradients(rows), strict=True):
            mean += weight * gradient
            (slopes,) = self.slopes([gradient])
            travelled = [t + abs(weight * s) for t, s in zip(travelled, slopes, strict=True)]
        return mean, travelled

    def _points(self, rows: Rows) -> Iterator[Tensor]:
        alphas = torch.tensor(rows, dtype=self._start.dtype, device=self._start.device)
        shape = (len(rows), len(self._start), *[1] * (self._start.dim() - 1))
        for some in alphas.reshape(shape).split(self._batch) if rows else ():
            yield torch.cat([self._start + alpha * self.difference for alpha in some])
