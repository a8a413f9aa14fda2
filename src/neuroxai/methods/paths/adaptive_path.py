"""The integral along a path, with gradients where they tell most: the worst interval in thirds."""

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
    """What is asked of a path; see :class:`~neuroxai.methods.paths.straight_path.StraightPath`."""

    difference: Tensor
    spare: int | None

    def gradients(self, rows: Rows) -> Iterator[Tensor]:
        """Yield gradients at rows of positions."""
        ...

    def scores(self, rows: Rows) -> list[list[float]]:
        """Return scores at rows of positions."""
        ...

    def slopes(self, gradients: Sequence[Tensor]) -> list[list[float]]:
        """Return the score's slope along the path, of one gradient of each row."""
        ...


FIRST = 3
"""Intervals to begin with, and one more where the count would not come out even."""

AT_ONCE = 4
"""Intervals that are cut in one round, at most."""

_NEARLY = 0.5
"""An interval is cut beside the worst one if its error is at least so much of that one's."""

_EXACT = 1e-4
"""Where the intervals' errors add up to less of the score's change, none is cut."""

_SHORTEST = 1e-6
_KEPT_BYTES = 2**29
_TINY = 1e-300


@dataclass(frozen=True)
class Limits:
    """How long to go on.

    Attributes
    ----------
    count
        Gradients along each sample's path.
    tolerance
        If given, more are asked until the path's gap is under it.
    most
        Then never more than this.
    """

    count: int
    tolerance: float | None = None
    most: int = 1024


@dataclass(frozen=True)
class Integral:
    """What came of it.

    Attributes
    ----------
    mean
        The gradient's mean over the path, ``(B, C, *S)``.
    nodes
        Gradients that were asked along each sample's path.
    interval_gap
        Per sample, the intervals' own gaps added up, as a share of the score's change; None where
        the score does not change. They cannot cancel, as what is in the completeness gap does.
    """

    mean: Tensor
    nodes: tuple[int, ...]
    interval_gap: tuple[float | None, ...]


def integrate(path: Path, ends: tuple[Tensor, Tensor], limits: Limits) -> Integral:
    r"""Return the gradient's mean over a straight path, with nodes where equal steps would err.

    Each interval :math:`[a, b]` has a gradient g at its middle and scores at its ends, so that its
    own error :math:`g \cdot (x - x')\,(b - a) - (S(b) - S(a))` is known. The one that is farthest
    off is cut into thirds, of which the middle one keeps its gradient: two gradients more, and two
    forward passes. Every sample of a batch has its own path, whatever is beside it.

    Parameters
    ----------
    path
        From the baseline to the input, ``(B, C, *S)``.
    ends
        The scores ``(B,)`` at both.
    limits
        How long to go on.

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
    first = min(FIRST + (limits.count - FIRST) % 2, limits.count)
    edges = [k / first for k in range(first + 1)]
    samples = len(path.difference)
    low, high = (each.double().tolist() for each in ends)
    at_edges = [low, *path.scores([[edge] * samples for edge in edges[1:-1]]), high]
    asked = list(path.gradients([[(k + 0.5) / first] * samples for k in range(first)]))
    slopes = path.slopes(asked)
    kept = _KEPT_BYTES if path.spare is None else min(_KEPT_BYTES, path.spare // samples)
    walks = [_Walk(torch.zeros_like(each), limits, kept) for each in path.difference]
    for b, walk in enumerate(walks):
        walk.begin(
            edges,
            [s[b] for s in at_edges],
            [(s[b], g[b]) for s, g in zip(slopes, asked, strict=True)],
        )
    while any(cuts := [walk.choose() for walk in walks]):
        together = list(zip(walks, cuts, strict=True))
        at_thirds = path.scores(_rows(walk.thirds(cut) for walk, cut in together))
        asked = list(path.gradients(_rows(walk.middles(cut) for walk, cut in together)))
        slopes = path.slopes(asked)
        for b, (walk, cut) in enumerate(together):
            walk.cut(
                cut,
                [s[b] for s in at_thirds],
                [(s[b], g[b]) for s, g in zip(slopes, asked, strict=True)],
            )
    return Integral(
        torch.stack([walk.mean for walk in walks]),
        tuple(walk.asked for walk in walks),
        tuple(walk.gap(walk.errors) for walk in walks),
    )


def _rows(positions: Iterable[list[float]]) -> list[list[float]]:
    """Return one row for each place in the samples' lists; shorter ones are filled up."""
    return [list(row) for row in zip_longest(*positions, fillvalue=0.5)]


_Asked = tuple[float, Tensor]
"""The score's slope along the path, and the gradient ``(C, *S)``."""


@dataclass(eq=False)
class _Interval:
    """A part of one sample's path: its ends, their scores, and the slope in its middle."""

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


class _Walk:
    """One sample's path; ``mean`` adds up its gradients as they come, ``kept`` bytes stay."""

    def __init__(self, mean: Tensor, limits: Limits, kept: int) -> None:
        self.mean, self.asked = mean, 0
        self._limits, self._kept = limits, kept
        self._intervals: list[_Interval] = []
        self._change = 0.0

    def begin(self, edges: list[float], scores: list[float], asked: list[_Asked]) -> None:
        """Take the first, equal intervals."""
        self._change = scores[-1] - scores[0]
        for k, each in enumerate(asked):
            self._take((edges[k], edges[k + 1]), (scores[k], scores[k + 1]), each)
        self._settle()

    @property
    def errors(self) -> float:
        """The intervals' errors without signs."""
        return sum(abs(interval.error) for interval in self._intervals)

    def gap(self, error: float) -> float | None:
        """Return an error as a share of the score's change."""
        return abs(error / self._change) if abs(self._change) > _TINY else None

    def choose(self) -> list[_Interval]:
        """Return which intervals to cut now: the worst, and those that are nearly as bad."""
        limit, tolerance = self._limits.count, self._limits.tolerance
        if tolerance is not None:
            whole = self.gap(sum(interval.error for interval in self._intervals))
            if whole is not None and whole > tolerance:
                limit = max(limit, self._limits.most)
        if self.errors <= min(_EXACT, tolerance or _EXACT) * abs(self._change):
            return []
        long = (interval for interval in self._intervals if interval.length >= _SHORTEST)
        worst = nlargest(AT_ONCE, long, key=lambda interval: abs(interval.error))
        chosen: list[_Interval] = []
        left = limit - self.asked
        for interval in worst:
            left -= 2 if interval.gradient is not None else 3
            if left < 0 or abs(interval.error) < _NEARLY * abs(worst[0].error):
                break
            chosen.append(interval)
        return chosen

    def thirds(self, chosen: list[_Interval]) -> list[float]:
        """Return where scores are asked to cut these."""
        return [position for interval in chosen for position in interval.thirds]

    def middles(self, chosen: list[_Interval]) -> list[float]:
        """Return where gradients are asked to cut these; what was not kept is asked again."""
        found: list[float] = []
        for interval in chosen:
            low, high = interval.thirds
            found += [(interval.ends[0] + low) / 2, (high + interval.ends[1]) / 2]
            found += [interval.middle] if interval.gradient is None else []
        return found

    def cut(self, chosen: list[_Interval], scores: list[float], asked: list[_Asked]) -> None:
        """Cut intervals into thirds, by what was asked for it."""
        at_thirds, gradients = iter(scores), iter(asked)
        for interval in chosen:
            low, high = interval.thirds
            at_low, at_high = next(at_thirds), next(at_thirds)
            left, right = next(gradients), next(gradients)
            middle = interval.gradient
            if middle is None:
                middle = next(gradients)[1]
                self.asked += 1
            self.mean.add_(middle, alpha=(high - low) - interval.length)
            self._take((interval.ends[0], low), (interval.scores[0], at_low), left)
            self._take((high, interval.ends[1]), (at_high, interval.scores[1]), right)
            interval.ends, interval.scores = (low, high), (at_low, at_high)
            interval.gradient = middle
        self._settle()

    def _take(self, ends: tuple[float, float], scores: tuple[float, float], asked: _Asked) -> None:
        slope, gradient = asked
        self.mean.add_(gradient, alpha=ends[1] - ends[0])
        self._intervals.append(_Interval(ends, scores, slope, gradient))
        self.asked += 1

    def _settle(self) -> None:
        """Keep the gradients of the intervals that are farthest off, as many as are worth it."""
        self._intervals.sort(key=lambda interval: -abs(interval.error))
        kept = max(AT_ONCE, self._kept // max(1, self.mean.nbytes))
        for interval in self._intervals[kept:]:
            interval.gradient = None
        for interval in self._intervals[:kept]:
            held = interval.gradient
            if held is not None and held.untyped_storage().nbytes() > held.nbytes:
                interval.gradient = held.clone()  # or a whole batch would be kept with it
