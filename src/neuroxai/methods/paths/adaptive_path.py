"""The mean gradient along a path, with nodes where the error is largest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import zip_longest
from typing import Protocol

import torch
from torch import Tensor

from neuroxai.methods.paths.straight_path import Rows


class Path(Protocol):
    """The interface of :class:`~neuroxai.methods.paths.straight_path.StraightPath`."""

    difference: Tensor
    free_memory: int | None

    def gradients(self, rows: Rows) -> Iterator[Tensor]:
        """Yield the gradients at rows of positions."""
        ...

    def scores(self, rows: Rows) -> list[list[float]]:
        """Return the scores at rows of positions."""
        ...

    def slopes(self, gradients: Sequence[Tensor]) -> list[list[float]]:
        """Return the score's slope along the path for the gradients of each row."""
        ...


INITIAL_INTERVALS = 3
"""Intervals at the beginning, and one more if the number of nodes would not come out even."""

INTERVALS_PER_ROUND = 4
"""Largest number of intervals split in one round, which share a batch."""

_SIMILAR = 0.5
"""Error relative to the largest one from which an interval is split in the same round."""

_EXACT = 1e-4
"""Sum of the intervals' errors relative to the score's change at which refinement ends."""

_SHORTEST = 1e-6
"""Length of an interval below which it is not split: rounding dominates its scores."""

_KEPT_BYTES = 2**29
"""Memory for gradients of intervals that may be split, 512 MiB."""

_TINY = 1e-300
"""Change of the score that counts as none."""


@dataclass(frozen=True)
class Limits:
    """When refinement ends.

    Attributes
    ----------
    count
        Number of gradients along each sample's path.
    tolerance
        Completeness gap above which further gradients are computed; None for no further ones.
    most
        Largest number of gradients in that case.
    """

    count: int
    tolerance: float | None = None
    most: int = 1024


@dataclass(frozen=True)
class Integral:
    """The integral of the gradient along a path.

    Attributes
    ----------
    mean
        The mean gradient over the path, ``(B, C, *S)``.
    nodes
        Number of gradients along each sample's path.
    interval_gap
        Per sample, the sum of the intervals' absolute errors relative to the score's change; None
        if the score does not change. Unlike in the completeness gap, errors do not cancel.
    travelled
        Per sample, the sum of the absolute contributions of the intervals.
    """

    mean: Tensor
    nodes: tuple[int, ...]
    interval_gap: tuple[float | None, ...]
    travelled: tuple[float, ...]


def integrate(path: Path, ends: tuple[Tensor, Tensor], limits: Limits) -> Integral:
    r"""Return the mean gradient over a straight path, with nodes where the error is largest.

    Each interval :math:`[a, b]` has a gradient g at its middle and scores at its ends, which give
    its error :math:`g \cdot (x - x')\,(b - a) - (S(b) - S(a))`. The interval with the largest error
    is split into thirds, of which the middle one keeps the gradient: this takes two more gradients
    and two more forward passes. Each sample of a batch has its own nodes, independent of the rest.

    Parameters
    ----------
    path
        From the baseline to the input, ``(B, C, *S)``.
    ends
        The scores ``(B,)`` at both ends.
    limits
        When refinement ends.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> from neuroxai.methods.paths.straight_path import StraightPath
    >>> x, network = torch.rand(1, 1, 2, 5), torch.nn.Conv2d(1, 2, 1)
    >>> probe = WholeVolume(torch.nn.Sequential(network, torch.nn.Sigmoid()), Class(0))
    >>> with probe.at(x):
    ...     path = StraightPath(probe, 0 * x, x)
    ...     found = integrate(path, (probe.score(0 * x), probe.score(x)), Limits(25))
    >>> found.interval_gap[0] < 0.001
    True
    """
    first = min(INITIAL_INTERVALS + (limits.count - INITIAL_INTERVALS) % 2, limits.count)
    edges = [k / first for k in range(first + 1)]
    samples = len(path.difference)
    low, high = (each.double().tolist() for each in ends)
    at_edges = [low, *path.scores([[edge] * samples for edge in edges[1:-1]]), high]
    gradients = list(path.gradients([[(k + 0.5) / first] * samples for k in range(first)]))
    slopes = path.slopes(gradients)
    free = path.free_memory
    kept = _KEPT_BYTES if free is None else min(_KEPT_BYTES, free // samples)
    paths = [_SamplePath(torch.zeros_like(each), limits, kept) for each in path.difference]
    for b, each in enumerate(paths):
        each.begin(
            edges,
            [s[b] for s in at_edges],
            [(s[b], g[b]) for s, g in zip(slopes, gradients, strict=True)],
        )
    while any(chosen := [each.choose() for each in paths]):
        splits = list(zip(paths, chosen, strict=True))
        at_thirds = path.scores(_rows(each.thirds(split) for each, split in splits))
        gradients = list(path.gradients(_rows(each.middles(split) for each, split in splits)))
        slopes = path.slopes(gradients)
        for b, (each, split) in enumerate(splits):
            each.split(
                split,
                [s[b] for s in at_thirds],
                [(s[b], g[b]) for s, g in zip(slopes, gradients, strict=True)],
            )
    return Integral(
        torch.stack([each.mean for each in paths]),
        tuple(each.nodes for each in paths),
        tuple(each.gap(each.total_error) for each in paths),
        tuple(each.travelled for each in paths),
    )


def _rows(positions: Iterable[list[float]]) -> list[list[float]]:
    """Return the samples' positions as rows; shorter lists are filled up."""
    return [list(row) for row in zip_longest(*positions, fillvalue=0.5)]


_Node = tuple[float, Tensor]
"""The score's slope along the path, and the gradient ``(C, *S)``."""


@dataclass(eq=False)
class _Interval:
    """An interval of one sample's path: ends, scores there, and the slope at the middle."""

    ends: tuple[float, float]
    scores: tuple[float, float]
    slope: float
    gradient: Tensor | None

    @property
    def length(self) -> float:
        return self.ends[1] - self.ends[0]

    @property
    def middle(self) -> float:
        return (self.ends[0] + self.ends[1]) / 2

    @property
    def thirds(self) -> tuple[float, float]:
        return self.ends[0] + self.length / 3, self.ends[1] - self.length / 3

    @property
    def error(self) -> float:
        return self.slope * self.length - (self.scores[1] - self.scores[0])


class _SamplePath:
    """One sample's path; ``mean`` accumulates its gradients, of which ``kept`` bytes are kept."""

    def __init__(self, mean: Tensor, limits: Limits, kept: int) -> None:
        self.mean, self.nodes = mean, 0
        self._limits, self._kept = limits, kept
        self._intervals: list[_Interval] = []
        self._change = 0.0

    def begin(self, edges: list[float], scores: list[float], nodes: list[_Node]) -> None:
        """Add the first, equal intervals."""
        self._change = scores[-1] - scores[0]
        for k, node in enumerate(nodes):
            self._add((edges[k], edges[k + 1]), (scores[k], scores[k + 1]), node)
        self._release()

    @property
    def total_error(self) -> float:
        """The sum of the intervals' absolute errors."""
        return sum(abs(interval.error) for interval in self._intervals)

    @property
    def travelled(self) -> float:
        """The sum of the intervals' absolute contributions."""
        return sum(abs(interval.slope * interval.length) for interval in self._intervals)

    def gap(self, error: float) -> float | None:
        """Return an error relative to the score's change."""
        return abs(error / self._change) if abs(self._change) > _TINY else None

    def choose(self) -> list[_Interval]:
        """Return the intervals to split next: the one with the largest error, and similar ones."""
        limit, tolerance = self._limits.count, self._limits.tolerance
        if tolerance is not None:
            whole = self.gap(sum(interval.error for interval in self._intervals))
            if whole is not None and whole > tolerance:
                limit = max(limit, self._limits.most)
        if self.total_error <= min(_EXACT, tolerance or _EXACT) * abs(self._change):
            return []
        long = (interval for interval in self._intervals if interval.length >= _SHORTEST)
        worst = nlargest(INTERVALS_PER_ROUND, long, key=lambda interval: abs(interval.error))
        chosen: list[_Interval] = []
        left = limit - self.nodes
        for interval in worst:
            left -= 2 if interval.gradient is not None else 3
            if left < 0 or abs(interval.error) < _SIMILAR * abs(worst[0].error):
                break
            chosen.append(interval)
        return chosen

    def thirds(self, chosen: list[_Interval]) -> list[float]:
        """Return the positions of the scores that splitting needs."""
        return [position for interval in chosen for position in interval.thirds]

    def middles(self, chosen: list[_Interval]) -> list[float]:
        """Return the positions of the gradients that splitting needs, with released ones again."""
        found: list[float] = []
        for interval in chosen:
            low, high = interval.thirds
            found += [(interval.ends[0] + low) / 2, (high + interval.ends[1]) / 2]
            found += [interval.middle] if interval.gradient is None else []
        return found

    def split(self, chosen: list[_Interval], scores: list[float], nodes: list[_Node]) -> None:
        """Split intervals into thirds, given scores at :meth:`thirds` and nodes at `middles`."""
        at_thirds, at_middles = iter(scores), iter(nodes)
        for interval in chosen:
            low, high = interval.thirds
            at_low, at_high = next(at_thirds), next(at_thirds)
            left, right = next(at_middles), next(at_middles)
            middle = interval.gradient
            if middle is None:
                middle = next(at_middles)[1]
                self.nodes += 1
            self.mean.add_(middle, alpha=(high - low) - interval.length)
            self._add((interval.ends[0], low), (interval.scores[0], at_low), left)
            self._add((high, interval.ends[1]), (at_high, interval.scores[1]), right)
            interval.ends, interval.scores = (low, high), (at_low, at_high)
            interval.gradient = middle
        self._release()

    def _add(self, ends: tuple[float, float], scores: tuple[float, float], node: _Node) -> None:
        slope, gradient = node
        self.mean.add_(gradient, alpha=ends[1] - ends[0])
        self._intervals.append(_Interval(ends, scores, slope, gradient))
        self.nodes += 1

    def _release(self) -> None:
        """Keep the gradients of the intervals with the largest errors, as many as memory allows."""
        self._intervals.sort(key=lambda interval: -abs(interval.error))
        kept = max(INTERVALS_PER_ROUND, self._kept // max(1, self.mean.nbytes))
        for interval in self._intervals[kept:]:
            interval.gradient = None
        for interval in self._intervals[:kept]:
            gradient = interval.gradient
            if gradient is not None and gradient.untyped_storage().nbytes() > gradient.nbytes:
                interval.gradient = gradient.clone()  # a view would keep the whole batch
