"""Confidence intervals of 95 %: Wilson's for proportions, and the bootstrap over patients."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int_]

RESAMPLES = 2000
"""Efron and Tibshirani 1993, chapter 19: percentiles need 1,000 or more."""

_AT_ONCE = 2**20
"""Weights held at a time, 8 MB; larger batches were not faster."""

Statistic = Callable[[Array], Array]
"""Weights ``(R, N)`` to values ``(R,)``: how often each of R resamples holds each observation."""


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson score interval of a binomial proportion; ``(0, 1)`` without trials.

    References
    ----------
    Wilson 1927, doi:10.1080/01621459.1927.10502953.

    Examples
    --------
    >>> [round(bound, 3) for bound in wilson_interval(9, 10)]
    [0.596, 0.982]
    """
    from scipy.stats import binomtest

    if trials == 0:
        return 0.0, 1.0
    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(
    statistic: Statistic, patients: Indices, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic, resampling whole patients.

    Slices and visits of one patient are not independent, so patients are drawn with replacement
    and bring all their observations. Resamples in which the statistic is undefined (NaN) are left
    out. With fewer than two patients, or no resample left, the interval is NaN.

    Parameters
    ----------
    statistic
        Maps weights ``(R, N)`` to values ``(R,)``: the statistic of R resamples, given how often
        each of them holds each of the N observations.
    patients
        ``(N,)``, the patient of each observation, numbered from 0.
    seed
        Seed of the resampling.
    resamples
        Number of resamples.

    References
    ----------
    Efron 1979, doi:10.1214/aos/1176344552.

    Examples
    --------
    >>> values = np.array([0.2, 0.4, 0.6, 0.8])
    >>> def mean(weights):
    ...     return weights @ values / weights.sum(axis=1)
    >>> low, high = bootstrap_interval(mean, np.arange(4))
    >>> 0.2 <= low < 0.5 < high <= 0.8
    True
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    count = int(patients.max(initial=-1)) + 1
    if count < 2:
        return math.nan, math.nan

    def resampled(drawn: Indices, axis: int) -> Array:
        times = _times_drawn(drawn, count)
        return statistic(times[:, patients])

    with warnings.catch_warnings():
        # SciPy warns of resamples that are NaN; those are left out below.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            (np.arange(count),),
            resampled,
            n_resamples=resamples,
            batch=max(1, _AT_ONCE // len(patients)),
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    values = found.bootstrap_distribution
    defined = values[~np.isnan(values)]
    if not defined.size:
        return math.nan, math.nan
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def _times_drawn(drawn: Indices, count: int) -> Array:
    """Count how often each of ``count`` patients occurs in each row of ``drawn (R, count)``."""
    rows = count * np.arange(len(drawn))[:, None]
    times = np.bincount((drawn + rows).ravel(), minlength=len(drawn) * count)
    return times.reshape(len(drawn), count).astype(float)


def proportion_interval(
    hits: Indices, counts: Indices, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Interval of a proportion with several observations per patient.

    Bootstrap over patients. If all resamples agree, for example because every observation is a
    hit, the bootstrap would claim certainty. Wilson's interval with the number of patients as the
    number of trials is returned instead; a number of successes that is not whole is rounded down
    for the lower bound and up for the upper one.

    Parameters
    ----------
    hits, counts
        ``(P,)``, hits and observations of each patient.
    seed, resamples
        As for :func:`bootstrap_interval`.

    Examples
    --------
    >>> low, high = proportion_interval(np.array([8, 8, 8, 8]), np.array([8, 8, 8, 8]))
    >>> (low, high) == wilson_interval(4, 4)
    True
    """

    def proportion(weights: Array) -> Array:
        total = weights @ counts
        undefined = np.full(len(total), math.nan)
        share: Array = np.divide(weights @ hits, total, out=undefined, where=total > 0)
        return share

    patients = int((counts > 0).sum())
    if not patients:
        return math.nan, math.nan
    low, high = bootstrap_interval(
        proportion, np.arange(len(counts)), seed=seed, resamples=resamples
    )
    if has_width(low, high):
        return low, high
    fewest, rest = divmod(patients * int(hits.sum()), int(counts.sum()))
    most = fewest + (rest > 0)
    return wilson_interval(fewest, patients)[0], wilson_interval(most, patients)[1]


def has_width(low: float, high: float) -> bool:
    """Whether an interval is defined and longer than rounding error.

    Examples
    --------
    >>> has_width(0.9, 1.0), has_width(1.0, 1.0), has_width(math.nan, math.nan)
    (True, False, False)
    """
    return high - low > 1e-9
