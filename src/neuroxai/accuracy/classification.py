"""Classification metrics: confusion matrix, ROC curve and its area, calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import ModelError

Array = NDArray[np.float64]
Labels = NDArray[np.int_]
Flags = NDArray[np.bool_]

BINS = 10
"""Bins of a reliability diagram. Guo et al. 2017 (arXiv:1706.04599) use 15 on test sets that are
larger than a cohort of patients."""


@dataclass(frozen=True)
class OneVsRest:
    """Confusion counts of one class against all others."""

    true_positive: int
    false_negative: int
    true_negative: int
    false_positive: int

    @property
    def sensitivity(self) -> float:
        """True positive rate; NaN without positives."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float:
        """True negative rate; NaN without negatives."""
        return _ratio(self.true_negative, self.true_negative + self.false_positive)


def confusion_matrix(truth: Labels, predicted: Labels, classes: int) -> Labels:
    """Confusion matrix ``(K, K)``: rows are true classes, columns predicted ones.

    Examples
    --------
    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
    [[1, 0], [1, 1]]
    """
    counts: Labels = np.bincount(truth * classes + predicted, minlength=classes**2)
    return counts.reshape(classes, classes)


def one_vs_rest(matrix: Labels, index: int) -> OneVsRest:
    """Confusion counts of class ``index`` from a confusion matrix ``(K, K)``."""
    true_positive = int(matrix[index, index])
    false_negative = int(matrix[index].sum()) - true_positive
    false_positive = int(matrix[:, index].sum()) - true_positive
    true_negative = int(matrix.sum()) - true_positive - false_negative - false_positive
    return OneVsRest(true_positive, false_negative, true_negative, false_positive)


def roc_auc(positive: Flags, score: Array) -> float:
    """Area under the ROC curve; NaN if all samples belong to one class.

    The probability that a positive sample scores above a negative one, ties counting one half
    (Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747).

    Raises
    ------
    ModelError
        If a score is NaN or infinite.

    Examples
    --------
    >>> roc_auc(np.array([False, True, True]), np.array([0.2, 0.2, 0.7]))
    0.75
    """
    return float(weighted_roc_auc(positive, score, np.ones((1, len(score))))[0])


def weighted_roc_auc(positive: Flags, score: Array, weights: Array) -> Array:
    """Areas under the ROC curve ``(R,)`` for R rows of sample weights ``(R, N)``.

    Raises
    ------
    ModelError
        If a score is NaN or infinite.

    Examples
    --------
    >>> weights = np.array([[1.0, 1.0, 1.0], [3.0, 1.0, 0.0]])
    >>> weighted_roc_auc(np.array([False, True, True]), np.array([0.2, 0.2, 0.7]), weights)
    array([0.75, 0.5 ])
    """
    _check_finite(score)
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(score[negatives])]
    # Weight of the negatives below each rank; a tied negative counts one half.
    below = np.zeros((len(weights), len(negatives) + 1))
    np.cumsum(weights[:, negatives], axis=1, out=below[:, 1:])
    lower, upper = (
        np.searchsorted(score[negatives], score[positive], side) for side in ("left", "right")
    )
    weights_positive = weights[:, positive]
    ordered = (weights_positive * (below[:, lower] + below[:, upper])).sum(axis=1) / 2
    pairs = weights_positive.sum(axis=1) * below[:, -1]
    areas: Array = np.divide(ordered, pairs, out=np.full(len(pairs), math.nan), where=pairs > 0)
    return areas


def roc_curve(positive: Flags, score: Array) -> tuple[Array, Array]:
    """ROC curve: false and true positive rates, from the highest threshold to the lowest.

    Raises
    ------
    ModelError
        If a score is NaN or infinite.

    Examples
    --------
    >>> [x.tolist() for x in roc_curve(np.array([False, True]), np.array([0.2, 0.7]))]
    [[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
    """
    _check_finite(score)
    order = np.argsort(-score, kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(score[order])), score.size - 1)
    true_positive = np.cumsum(positive[order])[last_of_ties] / positive.sum()
    false_positive = np.cumsum(~positive[order])[last_of_ties] / (~positive).sum()
    return np.append(0.0, false_positive), np.append(0.0, true_positive)


@dataclass(frozen=True, eq=False)
class Calibration:
    r"""Reliability diagram and calibration scores.

    Attributes
    ----------
    confidence, accuracy, count
        Per bin of the predicted class's probability: its mean, the fraction of correct
        predictions, and the number of predictions. NaN in empty bins.
    error
        :math:`\sum_b \frac{n_b}{n} |\mathrm{accuracy}_b - \mathrm{confidence}_b|`, the expected
        calibration error (Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602).
    brier
        Mean squared difference between probabilities and one-hot truth, summed over classes
        (Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2).
    """

    confidence: Array
    accuracy: Array
    count: Labels
    error: float
    brier: float


def calibration(truth: Labels, probabilities: Array, bins: int = BINS) -> Calibration:
    """Calibration of class probabilities ``(N, K)``.

    Raises
    ------
    ModelError
        If a probability is NaN or infinite.

    Examples
    --------
    >>> probabilities = np.array([[0.9, 0.1], [0.9, 0.1]])
    >>> round(calibration(np.array([0, 1]), probabilities).error, 3)
    0.4
    """
    _check_finite(probabilities)
    predicted = probabilities.argmax(axis=1)
    highest = probabilities[np.arange(len(truth)), predicted]
    correct = (predicted == truth).astype(float)
    bin_index = np.minimum((highest * bins).astype(int), bins - 1)
    count = np.bincount(bin_index, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(bin_index, highest, bins) / count
        accuracy = np.bincount(bin_index, correct, bins) / count
    filled = count > 0
    gaps = np.abs(accuracy - confidence)[filled] * count[filled]
    one_hot = np.eye(probabilities.shape[1])[truth]
    return Calibration(
        confidence,
        accuracy,
        count,
        float(gaps.sum() / len(truth)),
        float(((probabilities - one_hot) ** 2).sum(axis=1).mean()),
    )


def _check_finite(predictions: Array) -> None:
    """Raise if predictions ``(N,)`` or ``(N, K)`` contain NaN or infinity."""
    if np.isfinite(predictions).all():
        return
    count = sum(not np.isfinite(each).all() for each in predictions)
    raise ModelError(
        f"{count} of {len(predictions)} predictions {'is' if count == 1 else 'are'} NaN or "
        "infinite, expected probabilities; check the network's weights, or leave these cases out"
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
