"""The figures of an evaluation with their intervals, as tables beside those of the paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.explanation import NOT_FOR_CLINICAL_USE
from neuroxai.evaluator import Evaluation, GradedCase
from neuroxai.scores.classification import (
    Calibration,
    area_under_curve,
    calibration,
    confusion,
    one_against_rest,
)
from neuroxai.scores.interval import bootstrap_interval, wilson_interval

Indices = NDArray[np.int_]

PAPER = "Zeineldin et al. 2022, doi:10.1007/s11548-022-02619-x"
PAPER_TABLE_2 = (
    ("Ge et al. 2018, 2D CNN", 90.87),
    ("Ge et al. 2020, GAN", 88.82),
    ("Mzoughi et al. 2020, 3D CNN", 96.49),
    ("Ahuja et al. 2020, VGG", 99.30),
    ("Dixit and Nanda 2021, IWOA-RBNN", 96.0),
    ("Zeineldin et al. 2022, ResNet-50", 98.62),
)
"""Accuracy in percent, as the paper prints it."""
PAPER_TABLE_3 = (
    ("DeepSeg 2D", None, None, 84.10),
    ("DeepSeg 3D", 82.50, 84.73, 90.05),
    ("Ilhan et al. 2022, U-Net", None, None, 88.0),
    ("nnU-Net", 79.45, 85.24, 91.19),
    ("CASPIANET++", 81.08, 87.60, 91.20),
    ("Zeineldin et al. 2022, DeepSeg 3D", 84.10, 87.33, 92.0),
)
"""Dice of ET, TC and WT in percent, as the paper prints it (its 0.88 is 88)."""
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Figure:
    """One number with its 95 % interval; NaN where it is not defined."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def percent(self) -> str:
        """Return it in percent, with its interval."""
        return self._shown(100, 1)

    def plain(self, digits: int = 3) -> str:
        """Return it as it is, with its interval."""
        return self._shown(1, digits)

    def to_dict(self) -> dict[str, float | None]:
        """Return plain numbers; None where one is not defined."""
        numbers = {"value": self.value, "low_95": self.low, "high_95": self.high}
        return {k: None if math.isnan(v) else round(v, 6) for k, v in numbers.items()}

    def _shown(self, scale: float, digits: int) -> str:
        if math.isnan(self.value):
            return "not defined"
        value = f"{scale * self.value:.{digits}f}"
        if math.isnan(self.low):
            return value
        return f"{value} ({scale * self.low:.{digits}f} to {scale * self.high:.{digits}f})"


@lru_cache(maxsize=2)
def segmentation_figures(found: Evaluation) -> dict[str, dict[str, Figure]]:
    """Return, for each region, mean Dice and mean and median HD95 with bootstrap intervals."""
    _, groups = _patients([case.patient for case in found.segmented])
    figures: dict[str, dict[str, Figure]] = {}
    for name in found.regions:
        scores = np.array([case.regions[name].dice for case in found.segmented])
        far = np.array([case.regions[name].hausdorff95_mm for case in found.segmented])
        figures[name] = {
            "dice": _over_patients(np.mean, scores, groups),
            "hausdorff95_mm": _over_patients(np.mean, far, groups),
            "hausdorff95_median_mm": _over_patients(np.median, far, groups),
        }
    return figures


@dataclass(frozen=True, eq=False)
class GradingFigures:
    """What is measured of a classifier, for each patient's case or for each slice."""

    unit: str
    count: int
    accuracy: Figure
    balanced: Figure
    sensitivity: dict[str, Figure]
    specificity: dict[str, Figure]
    area: dict[str, Figure]
    table: Indices
    calibration: Calibration
    truth: Indices
    probabilities: NDArray[np.float64]


@lru_cache(maxsize=2)
def grading_figures(found: Evaluation) -> list[GradingFigures]:
    """Return the figures per case (mean over its slices) and per slice."""
    cases = found.graded
    whole = [case.together[None] for case in cases]
    every = [case.probabilities for case in cases]
    return [
        _grading("case", cases, whole, found.classes),
        _grading("slice", cases, every, found.classes),
    ]


def _grading(
    unit: str,
    cases: Sequence[GradedCase],
    rows: Sequence[NDArray[np.float64]],
    classes: Sequence[str],
) -> GradingFigures:
    truth = np.concatenate([np.full(len(r), c.truth) for c, r in zip(cases, rows, strict=True)])
    chances = np.concatenate(rows)
    winner = chances.argmax(axis=1)
    owners = [case.patient for case, r in zip(cases, rows, strict=True) for _ in r]
    _, groups = _patients(owners)
    table = confusion(truth, winner, len(classes))
    alone = unit == "case" and len(groups) == len(cases)

    def share(index: int, kind: str) -> Figure:
        counts = one_against_rest(table, index)
        hits, others = (
            (counts.true_positive, counts.false_negative)
            if kind == "sensitivity"
            else (counts.true_negative, counts.false_positive)
        )
        if alone and hits + others:
            return Figure(hits / (hits + others), *wilson_interval(hits, hits + others))

        def of(drawn: Indices) -> float:
            counted = confusion(truth[drawn], winner[drawn], len(classes))
            return float(getattr(one_against_rest(counted, index), kind))

        return _figure(of, groups)

    def area(index: int) -> Figure:
        return _figure(
            lambda drawn: area_under_curve(truth[drawn] == index, chances[drawn, index]), groups
        )

    def balanced(drawn: Indices) -> float:
        recalls = [(winner[drawn] == k)[truth[drawn] == k] for k in np.unique(truth[drawn])]
        return float(np.mean([recall.mean() for recall in recalls]))

    hits = int((winner == truth).sum())
    accuracy = (
        Figure(hits / len(truth), *wilson_interval(hits, len(truth)))
        if alone
        else _figure(lambda drawn: float((winner[drawn] == truth[drawn]).mean()), groups)
    )
    return GradingFigures(
        unit,
        len(truth),
        accuracy,
        _figure(balanced, groups),
        {name: share(k, "sensitivity") for k, name in enumerate(classes)},
        {name: share(k, "specificity") for k, name in enumerate(classes)},
        {name: area(k) for k, name in enumerate(classes)},
        table,
        calibration(truth, chances),
        truth,
        chances,
    )


def _patients(owners: Sequence[str]) -> tuple[list[str], list[Indices]]:
    """Return the patients, and the rows that belong to each."""
    names = list(dict.fromkeys(owners))
    owner = np.array(owners)
    return names, [np.flatnonzero(owner == name) for name in names]


def _figure(statistic: Callable[[Indices], float], groups: Sequence[Indices]) -> Figure:
    """Return a figure of all rows, its interval by drawing whole patients."""

    def of_patients(drawn: Indices) -> float:
        return statistic(np.concatenate([groups[patient] for patient in drawn]))

    everyone = np.arange(len(groups))
    return Figure(of_patients(everyone), *bootstrap_interval(of_patients, len(groups)))


def _over_patients(
    statistic: Callable[..., Any], values: NDArray[np.float64], groups: Sequence[Indices]
) -> Figure:
    return _figure(lambda drawn: float(statistic(values[drawn])), groups)


def markdown(found: Evaluation) -> str:
    """Return the whole evaluation as a Markdown page, beside the paper's figures."""
    parts = _segmentation_page(found) if found.segmented else _grading_page(found)
    return "\n".join([*_head(found), *parts, *_foot(found)]) + "\n"


def _head(found: Evaluation) -> Iterator[str]:
    cases = found.segmented or found.graded
    patients = len({case.patient for case in cases})
    counted = f"{len(cases)} of {patients} patients"
    if found.pictures:
        counted = (
            f"{len(cases)} pictures that carry no patient, each counted as one: where a patient "
            "has several, intervals are too narrow and a random split flatters"
        )
    yield f"# {found.model['name']} on {found.data}"
    yield ""
    yield f"**{NOT_FOR_CLINICAL_USE}**"
    yield ""
    yield f"- Network: {found.model['name']}, weights {found.model['weights_sha256'][:12]}"
    yield f"- Cases: {counted}; {found.data}"
    flips = "the mean over all mirror images" if found.settings.flips else "none"
    yield f"- Test-time flips: {flips}"
    if found.segmented:
        least = found.settings.smallest_enhancement_mm3
        small = f"less than {least:g} mm³ in all is called necrosis" if least else "kept"
        yield f"- Small enhancement: {small}"
    yield "- Intervals are of 95 %: Wilson's of proportions of cases, else of 2,000 bootstrap draws"
    yield "  of whole patients."


def _foot(found: Evaluation) -> Iterator[str]:
    if found.left_out:
        yield ""
        yield "## Left out"
        yield ""
        for name, reason in found.left_out.items():
            yield f"- {name} {reason}"


def _segmentation_page(found: Evaluation) -> Iterator[str]:
    figures = segmentation_figures(found)
    order = ("ET", "TC", "WT")
    yield ""
    yield "## Dice in percent, as in Table 3 of the paper"
    yield ""
    yield "| network | data | cases | ET | TC | WT |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    ours = " | ".join(
        figures[name]["dice"].percent() if name in figures else "not answered" for name in order
    )
    yield f"| **{found.model['name']}** | {found.data} | {len(found.segmented)} | {ours} |"
    if found.data != "brats2021":
        yield f"| {found.model['name']} | brats2021 | | {' | '.join([NOT_MEASURED] * 3)} |"
    for name, *values in PAPER_TABLE_3:
        shown = " | ".join("not printed" if v is None else f"{v:.2f}" for v in values)
        yield f"| {name} (printed) | BraTS validation | | {shown} |"
    yield ""
    yield f"Printed: {PAPER}, on the challenge's own validation cases, whose truth is not public."
    yield "A split of the training cases is another set: the lines cannot be compared to a percent."
    yield ""
    yield "## Distance of the surfaces, HD95 in mm"
    yield ""
    yield "| region | mean | median |"
    yield "| --- | ---: | ---: |"
    for name in (each for each in order if each in figures):
        far = figures[name]["hausdorff95_mm"].plain(1)
        middle = figures[name]["hausdorff95_median_mm"].plain(1)
        yield f"| {name} | {far} | {middle} |"
    yield ""
    yield "The paper prints no distances. Empty both: 0 mm; empty on one side: the scan's diagonal."


def _grading_page(found: Evaluation) -> Iterator[str]:
    per_case, per_slice = grading_figures(found)
    pages = [per_case] if found.pictures else [per_case, per_slice]
    grades = set(found.classes) == {"LGG", "HGG"}
    yield ""
    yield "## Accuracy in percent" + (", as in Table 2 of the paper" if grades else "")
    yield ""
    yield "| network | data | count | accuracy |"
    yield "| --- | --- | ---: | ---: |"
    for page in pages:
        name = f"**{found.model['name']}**, per {page.unit}"
        yield f"| {name} | {found.data} | {page.count} | {page.accuracy.percent()} |"
    if grades:
        yield from _printed_grading(found)
    for page in pages:
        yield ""
        yield f"## Per {page.unit}"
        yield ""
        yield f"- Balanced accuracy in percent: {page.balanced.percent()}"
        yield f"- Expected calibration error: {page.calibration.error:.3f}"
        yield f"- Brier score: {page.calibration.brier:.3f}"
        yield ""
        yield "| class | sensitivity % | specificity % | area under the ROC curve |"
        yield "| --- | ---: | ---: | ---: |"
        for name in found.classes:
            cells = (page.sensitivity[name].percent(), page.specificity[name].percent())
            yield f"| {name} | {' | '.join(cells)} | {page.area[name].plain()} |"
        yield ""
        yield f"| truth \\ answer | {' | '.join(found.classes)} |"
        yield f"| --- |{' ---: |' * len(found.classes)}"
        for name, row in zip(found.classes, page.table, strict=True):
            yield f"| {name} | {' | '.join(map(str, row))} |"


def _printed_grading(found: Evaluation) -> Iterator[str]:
    if found.data != "brats2019":
        yield f"| {found.model['name']} | brats2019 | | {NOT_MEASURED} |"
    for name, value in PAPER_TABLE_2:
        yield f"| {name} (printed) | as printed | | {value:.2f} |"
    yield ""
    yield f"Printed: {PAPER}; it does not say whether slices or patients were counted."
