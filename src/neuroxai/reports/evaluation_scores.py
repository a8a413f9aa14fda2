"""Scores of an evaluation with 95 % confidence intervals over patients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from neuroxai.accuracy.classification import (
    Calibration,
    calibration,
    confusion_matrix,
    one_vs_rest,
    weighted_roc_auc,
)
from neuroxai.accuracy.interval import (
    Statistic,
    bootstrap_interval,
    has_width,
    proportion_interval,
    wilson_interval,
)
from neuroxai.workflows.evaluate import Evaluation, GradedCase, SegmentedCase

Array = NDArray[np.float64]
Indices = NDArray[np.int_]
Flags = NDArray[np.bool_]

FEW = 10
"""Below this number of patients, 95 % bootstrap intervals of a mean Dice cover the truth in 88 %
of cohorts or fewer (decision 21)."""


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % confidence interval; NaN where undefined."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def percent(self) -> str:
        """Format in percent, with the interval."""
        return self._format(100, 1)

    def plain(self, digits: int = 3) -> str:
        """Format without scaling, with the interval."""
        return self._format(1, digits)

    def to_dict(self) -> dict[str, float | None]:
        """Value and bounds for JSON; None where undefined."""
        numbers = {"value": self.value, "low_95": self.low, "high_95": self.high}
        return {k: None if math.isnan(v) else round(v, 6) for k, v in numbers.items()}

    def _format(self, scale: float, digits: int) -> str:
        if math.isnan(self.value):
            return "not defined"
        value = f"{scale * self.value:.{digits}f}"
        if math.isnan(self.low):
            return value
        return f"{value} ({scale * self.low:.{digits}f} to {scale * self.high:.{digits}f})"


@lru_cache(maxsize=2)
def segmentation_scores(evaluation: Evaluation) -> dict[str, dict[str, Estimate]]:
    """Mean Dice, mean HD95 and median HD95 of each region.

    Over all cases, where a region that is empty in both truth and prediction scores Dice 1 and
    0 mm; and, with ``_where_present`` in the name, over the cases whose truth has the region.
    """
    scores: dict[str, dict[str, Estimate]] = {}
    for name in evaluation.regions:
        every = evaluation.segmented
        present = [case for case in every if case.regions[name].true_ml > 0]
        scores[name] = {
            "dice": _over_cases(_mean, every, name, "dice"),
            "hausdorff95_mm": _over_cases(_mean, every, name, "hausdorff95_mm"),
            "hausdorff95_median_mm": _over_cases(_median, every, name, "hausdorff95_mm"),
            "dice_where_present": _over_cases(_mean, present, name, "dice"),
            "hausdorff95_where_present_mm": _over_cases(_mean, present, name, "hausdorff95_mm"),
            "hausdorff95_median_where_present_mm": _over_cases(
                _median, present, name, "hausdorff95_mm"
            ),
        }
    return scores


def cases_with_region(evaluation: Evaluation) -> dict[str, int]:
    """Count the cases whose truth has each region."""
    return {
        name: sum(case.regions[name].true_ml > 0 for case in evaluation.segmented)
        for name in evaluation.regions
    }


def cautions(evaluation: Evaluation) -> list[str]:
    """One sentence for each set of cases with too few patients for bootstrap intervals."""
    cases = evaluation.segmented or evaluation.graded
    patients = {"": {case.patient for case in cases}}
    if len(patients[""]) >= FEW:
        patients = {
            f"{name}: ": {c.patient for c in evaluation.segmented if c.regions[name].true_ml > 0}
            for name in evaluation.regions
        } | {
            f"{name}: ": {case.patient for case in evaluation.graded if case.truth == index}
            for index, name in enumerate(evaluation.classes)
        }
    kind = "picture" if evaluation.pictures else "patient"
    return [
        f"{prefix}only {len(names)} {kind}{'s' if len(names) > 1 else ''}; intervals from fewer "
        f"than {FEW} {kind}s are too narrow"
        for prefix, names in patients.items()
        if 0 < len(names) < FEW
    ]


@dataclass(frozen=True, eq=False)
class GradingScores:
    """Scores of a classifier, per case or per slice.

    Attributes
    ----------
    unit
        ``case`` or ``slice``.
    count
        Number of predictions.
    accuracy, balanced_accuracy
        Over all classes.
    sensitivity, specificity, roc_auc
        Class name to the score of this class against the rest.
    confusion
        ``(K, K)``, rows are true classes.
    calibration
        Reliability diagram and calibration scores.
    truth, probabilities
        ``(N,)`` and ``(N, K)``.
    """

    unit: str
    count: int
    accuracy: Estimate
    balanced_accuracy: Estimate
    sensitivity: dict[str, Estimate]
    specificity: dict[str, Estimate]
    roc_auc: dict[str, Estimate]
    confusion: Indices
    calibration: Calibration
    truth: Indices
    probabilities: Array


@lru_cache(maxsize=2)
def grading_scores(evaluation: Evaluation) -> list[GradingScores]:
    """Scores per case (mean probabilities of its slices) and per slice."""
    cases = evaluation.graded
    per_case = [case.together[None] for case in cases]
    per_slice = [case.probabilities for case in cases]
    return [
        _grading("case", cases, per_case, evaluation.classes),
        _grading("slice", cases, per_slice, evaluation.classes),
    ]


def _grading(
    unit: str, cases: Sequence[GradedCase], rows: Sequence[Array], classes: Sequence[str]
) -> GradingScores:
    truth = np.concatenate([np.full(len(r), c.truth) for c, r in zip(cases, rows, strict=True)])
    probabilities = np.concatenate(rows)
    predicted = probabilities.argmax(axis=1)
    patients = _numbered([c.patient for c, r in zip(cases, rows, strict=True) for _ in r])
    matrix = confusion_matrix(truth, predicted, len(classes))
    # Wilson's interval assumes independent trials: one prediction for each patient.
    independent = unit == "case" and len(np.unique(patients)) == len(cases)

    def proportion(value: float, hit: Flags, counted: Flags) -> Estimate:
        hits = np.bincount(patients, hit & counted).astype(int)
        counts = np.bincount(patients, counted).astype(int)
        if independent and counted.any():
            return Estimate(value, *wilson_interval(int(hits.sum()), int(counts.sum())))
        return Estimate(value, *proportion_interval(hits, counts))

    correct = predicted == truth
    one_class = {name: one_vs_rest(matrix, k) for k, name in enumerate(classes)}
    return GradingScores(
        unit,
        len(truth),
        proportion(float(correct.mean()), correct, np.full(len(truth), True)),
        _unless_constant(_estimate(_balanced_accuracy(truth, correct), patients)),
        {
            name: proportion(counts.sensitivity, predicted == k, truth == k)
            for k, (name, counts) in enumerate(one_class.items())
        },
        {
            name: proportion(counts.specificity, predicted != k, truth != k)
            for k, (name, counts) in enumerate(one_class.items())
        },
        {
            name: _unless_constant(_estimate(_roc_auc(truth == k, probabilities[:, k]), patients))
            for k, name in enumerate(classes)
        },
        matrix,
        calibration(truth, probabilities),
        truth,
        probabilities,
    )


def _numbered(patients: Sequence[str]) -> Indices:
    """Index of each patient, from 0 in the order of first appearance."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(patients))}
    return np.array([numbers[name] for name in patients], dtype=int)


def _estimate(statistic: Statistic, patients: Indices) -> Estimate:
    """Evaluate a statistic on all observations, with its bootstrap interval over patients."""
    value = float(statistic(np.ones((1, len(patients))))[0])
    return Estimate(value, *bootstrap_interval(statistic, patients))


def _unless_constant(estimate: Estimate) -> Estimate:
    """Drop an interval without width: a bootstrap of equal values would claim certainty."""
    return estimate if has_width(estimate.low, estimate.high) else Estimate(estimate.value)


def _over_cases(
    kind: Callable[[Array], Statistic], cases: Sequence[SegmentedCase], region: str, measure: str
) -> Estimate:
    if not cases:
        return Estimate(math.nan)
    values = np.array([getattr(case.regions[region], measure) for case in cases], float)
    return _estimate(kind(values), _numbered([case.patient for case in cases]))


def _mean(values: Array) -> Statistic:
    """Weighted mean of ``values (N,)``."""
    return lambda weights: weights @ values / weights.sum(axis=1)


def _median(values: Array) -> Statistic:
    """Median of ``values (N,)``, each repeated according to its weight."""
    order = np.argsort(values)
    ordered = values[order]

    def median(weights: Array) -> Array:
        upto = weights[:, order].cumsum(axis=1)
        count = upto[:, -1:]
        # Ranks of the middle pair, counted from 1; equal if the count is odd.
        ranks = np.floor((count + 1) / 2), np.floor(count / 2) + 1
        lower, upper = (ordered[(upto < rank).sum(axis=1)] for rank in ranks)
        middle: Array = (lower + upper) / 2
        return middle

    return median


def _balanced_accuracy(truth: Indices, correct: Flags) -> Statistic:
    """Mean recall of the classes in ``truth``; NaN for resamples that lack one of them."""
    present = np.unique(truth)
    members = (truth[:, None] == present).astype(float)
    hits = members * correct[:, None]

    def balanced(weights: Array) -> Array:
        counts = weights @ members
        defined = (counts > 0).all(axis=1) & (len(present) > 1)
        recall = (weights @ hits) / np.where(counts > 0, counts, 1)
        return np.where(defined, recall.mean(axis=1), math.nan)

    return balanced


def _roc_auc(positive: Flags, score: Array) -> Statistic:
    return lambda weights: weighted_roc_auc(positive, score, weights)
