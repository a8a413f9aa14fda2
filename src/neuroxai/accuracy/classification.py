"""How well probabilities tell the classes apart, and whether they mean what they say."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import ModelError

Array = NDArray[np.float64]
Labels = NDArray[np.int_]

BINS = 10
"""Of a calibration, each as wide as the others."""


@dataclass(frozen=True)
class OneAgainstRest:
    """One class against all others, as counts."""

    true_positive: int
    false_negative: int
    true_negative: int
    false_positive: int

    @property
    def sensitivity(self) -> float:
        """Share of the class that is found; NaN if there is none."""
        return _share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float:
        """Share of the others that are left alone; NaN if there are none."""
        return _share(self.true_negative, self.true_negative + self.false_positive)


def confusion(truth: Labels, found: Labels, classes: int) -> Labels:
    """Return how often each class (rows) was called each class (columns), ``(K, K)``.

    Examples
    --------
    >>> confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
    [[1, 0], [1, 1]]
    """
    counts: Labels = np.bincount(truth * classes + found, minlength=classes**2)
    return counts.reshape(classes, classes)


def one_against_rest(table: Labels, index: int) -> OneAgainstRest:
    """Return the counts of one class from a confusion table ``(K, K)``."""
    hit = int(table[index, index])
    missed = int(table[index].sum()) - hit
    wrong = int(table[:, index].sum()) - hit
    return OneAgainstRest(hit, missed, int(table.sum()) - hit - missed - wrong, wrong)


def area_under_curve(positive: NDArray[np.bool_], score: Array) -> float:
    """Return the area under the ROC curve; NaN where only one of the two kinds is there.

    The chance that a positive scores above a negative, a tie counting half (Hanley, McNeil 1982,
    doi:10.1148/radiology.143.1.7063747), from the sum of the positives' ranks.

    Raises
    ------
    ModelError
        If a score is NaN or infinite.

    Examples
    --------
    >>> area_under_curve(np.array([False, True, True]), np.array([0.2, 0.2, 0.7]))
    0.75
    """
    from scipy.stats import rankdata

    _refuse_no_numbers(score)
    n = int(positive.sum())
    m = positive.size - n
    if not n or not m:
        return math.nan
    ranks = float(rankdata(score)[positive].sum())
    return (ranks - n * (n + 1) / 2) / (n * m)


def roc_curve(positive: NDArray[np.bool_], score: Array) -> tuple[Array, Array]:
    """Return 1 − specificity and sensitivity at every threshold, from the strictest on.

    Raises
    ------
    ModelError
        If a score is NaN or infinite.

    Examples
    --------
    >>> [x.tolist() for x in roc_curve(np.array([False, True]), np.array([0.2, 0.7]))]
    [[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
    """
    _refuse_no_numbers(score)
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), score.size - 1)
    true_positive = np.cumsum(positive[order])[ends] / positive.sum()
    false_positive = np.cumsum(~positive[order])[ends] / (~positive).sum()
    return np.append(0.0, false_positive), np.append(0.0, true_positive)


@dataclass(frozen=True, eq=False)
class Calibration:
    r"""Whether the answers are right as often as they are sure.

    Attributes
    ----------
    sure, right, count
        Per bin of the winning class's probability: its mean, the share of right answers, and how
        many answers; NaN for a bin without any.
    error
        :math:`\sum_b \frac{n_b}{n} |\mathrm{right}_b - \mathrm{sure}_b|`, the expected calibration
        error (Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602).
    brier
        Mean squared difference between probabilities and truth, summed over the classes (Brier
        1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2).
    """

    sure: Array
    right: Array
    count: Labels
    error: float
    brier: float


def calibration(truth: Labels, probabilities: Array, bins: int = BINS) -> Calibration:
    """Measure how far probabilities ``(N, K)`` can be taken at their word.

    Raises
    ------
    ModelError
        If a probability is NaN or infinite.

    Examples
    --------
    >>> sure = np.array([[0.9, 0.1], [0.9, 0.1]])
    >>> round(calibration(np.array([0, 1]), sure).error, 3)
    0.4
    """
    _refuse_no_numbers(probabilities)
    winner = probabilities.argmax(axis=1)
    chance = probabilities[np.arange(len(truth)), winner]
    hit = (winner == truth).astype(float)
    place = np.minimum((chance * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        sure = np.bincount(place, chance, bins) / count
        right = np.bincount(place, hit, bins) / count
    filled = count > 0
    gaps = np.abs(right - sure)[filled] * count[filled]
    one_hot = np.eye(probabilities.shape[1])[truth]
    return Calibration(
        sure,
        right,
        count,
        float(gaps.sum() / len(truth)),
        float(((probabilities - one_hot) ** 2).sum(axis=1).mean()),
    )


def _refuse_no_numbers(answers: Array) -> None:
    """Refuse answers ``(N,)`` or ``(N, K)`` that no threshold and no bin can hold."""
    if np.isfinite(answers).all():
        return
    count = sum(not np.isfinite(answer).all() for answer in answers)
    raise ModelError(
        f"{count} of {len(answers)} answers {'is' if count == 1 else 'are'} NaN or infinite, "
        "expected probabilities: check the network's weights, or leave these cases out"
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
