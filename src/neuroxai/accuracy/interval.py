"""How far a figure can be trusted: 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959964
RESAMPLES = 2000

Statistic = Callable[[NDArray[np.int_]], float]
"""A figure of some of the patients, given by their indices; each may be there more than once."""


def wilson_interval(hits: float, count: int, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a proportion of ``hits`` in ``count``.

    References
    ----------
    Wilson 1927, doi:10.1080/01621459.1927.10502953.

    Examples
    --------
    >>> [round(bound, 3) for bound in wilson_interval(9, 10)]
    [0.596, 0.982]
    """
    if count == 0:
        return 0.0, 1.0
    share, scale = hits / count, 1 + z**2 / count
    middle = (share + z**2 / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap_interval(
    statistic: Statistic, count: int, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return the percentile bootstrap's 95 % interval of a figure of ``count`` patients.

    Patients are drawn with replacement, never their slices or visits, which are not independent of
    each other. Draws of which the figure is not defined (NaN) are left out; with fewer than two
    patients, or no draw left, the interval is NaN.

    References
    ----------
    Efron 1979, doi:10.1214/aos/1176344552.

    Examples
    --------
    >>> values = np.array([0.2, 0.4, 0.6, 0.8])
    >>> low, high = bootstrap_interval(lambda drawn: float(values[drawn].mean()), 4)
    >>> 0.2 <= low < 0.5 < high <= 0.8
    True
    """
    if count < 2:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    drawn = [statistic(generator.integers(count, size=count)) for _ in range(resamples)]
    defined = np.array(drawn)[~np.isnan(drawn)]
    if not defined.size:
        return math.nan, math.nan
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def proportion_interval(
    hits: NDArray[np.int_],
    counts: NDArray[np.int_],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Return the 95 % interval of a proportion of which each patient has several.

    Bootstrapped over patients. Where every draw is the same, as when all are right, that knows of
    no doubt, and Wilson's interval is taken with the number of patients as the count.

    Parameters
    ----------
    hits, counts
        ``(N,)``, of each patient's slices or visits, those that are hits, and all.

    Examples
    --------
    >>> low, high = proportion_interval(np.array([8, 8, 8, 8]), np.array([8, 8, 8, 8]))
    >>> (low, high) == wilson_interval(4, 4)
    True
    """

    def share(drawn: NDArray[np.int_]) -> float:
        count = int(counts[drawn].sum())
        return int(hits[drawn].sum()) / count if count else math.nan

    patients = int((counts > 0).sum())
    if not patients:
        return math.nan, math.nan
    low, high = bootstrap_interval(share, len(counts), seed=seed, resamples=resamples)
    if has_width(low, high):
        return low, high
    return wilson_interval(patients * float(hits.sum()) / float(counts.sum()), patients)


def has_width(low: float, high: float) -> bool:
    """Return whether an interval says anything: NaN and one of two equal ends do not.

    Examples
    --------
    >>> has_width(0.9, 1.0), has_width(1.0, 1.0), has_width(math.nan, math.nan)
    (True, False, False)
    """
    return high - low > 1e-9
