"""The figures of an evaluation with their intervals, as tables beside those of the paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.accuracy.classification import (
    Calibration,
    area_under_curve,
    calibration,
    confusion,
    one_against_rest,
)
from neuroxai.accuracy.interval import (
    bootstrap_interval,
    has_width,
    proportion_interval,
    wilson_interval,
)
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.workflows.evaluate import Evaluation, GradedCase, SegmentedCase

Indices = NDArray[np.int_]
Flags = NDArray[np.bool_]

FEW = 10
"""Fewer patients than this, and the interval of a mean is far from 95 % (decision 21)."""

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
INTERVALS = (
    "Wilson's of proportions of cases, else 2,000 bootstrap draws of whole patients (of a "
    "proportion that no draw changes, Wilson's with the number of patients); where a figure has "
    "none, it is not defined"
)


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
    """Return, for each region, mean Dice and mean and median HD95 with bootstrap intervals.

    Over all cases, where empty in truth and answer counts as 1 and 0 mm; and, with
    ``_where_present``, over those alone whose truth has the region.
    """
    figures: dict[str, dict[str, Figure]] = {}
    for name in found.regions:
        present = [case for case in found.segmented if case.regions[name].true_ml > 0]
        figures[name] = {
            "dice": _over_cases(np.mean, found.segmented, name, "dice"),
            "hausdorff95_mm": _over_cases(np.mean, found.segmented, name, "hausdorff95_mm"),
            "hausdorff95_median_mm": _over_cases(
                np.median, found.segmented, name, "hausdorff95_mm"
            ),
            "dice_where_present": _over_cases(np.mean, present, name, "dice"),
            "hausdorff95_where_present_mm": _over_cases(np.mean, present, name, "hausdorff95_mm"),
            "hausdorff95_median_where_present_mm": _over_cases(
                np.median, present, name, "hausdorff95_mm"
            ),
        }
    return figures


def cases_with_region(found: Evaluation) -> dict[str, int]:
    """Return in how many cases the truth has each region."""
    return {
        name: sum(case.regions[name].true_ml > 0 for case in found.segmented)
        for name in found.regions
    }


def cautions(found: Evaluation) -> list[str]:
    """Return what is to be said of intervals that come from few patients, a sentence each."""
    cases = found.segmented or found.graded
    whose = {"": {case.patient for case in cases}}
    if len(whose[""]) >= FEW:
        whose = {
            f"{name}: ": {c.patient for c in found.segmented if c.regions[name].true_ml > 0}
            for name in found.regions
        } | {
            f"{name}: ": {case.patient for case in found.graded if case.truth == index}
            for index, name in enumerate(found.classes)
        }
    kind = "picture" if found.pictures else "patient"
    return [
        f"{of}{len(them)} {kind}{'s' if len(them) > 1 else ''} only: intervals drawn from so few "
        f"(fewer than {FEW}) are too narrow"
        for of, them in whose.items()
        if 0 < len(them) < FEW
    ]


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
    probabilities = np.concatenate(rows)
    winner = probabilities.argmax(axis=1)
    owners = [case.patient for case, r in zip(cases, rows, strict=True) for _ in r]
    _, groups = _patients(owners)
    table = confusion(truth, winner, len(classes))
    alone = unit == "case" and len(groups) == len(cases)

    def interval(right: Flags, counted: Flags) -> tuple[float, float]:
        hits = np.array([int((right & counted)[rows].sum()) for rows in groups])
        counts = np.array([int(counted[rows].sum()) for rows in groups])
        if alone and counted.any():
            return wilson_interval(int(hits.sum()), int(counts.sum()))
        return proportion_interval(hits, counts)

    def area(index: int) -> Figure:
        return _if_varied(
            _figure(
                lambda drawn: area_under_curve(truth[drawn] == index, probabilities[drawn, index]),
                groups,
            )
        )

    there, hit = np.unique(truth), winner == truth
    of_class = {name: one_against_rest(table, k) for k, name in enumerate(classes)}

    def balanced(drawn: Indices) -> float:
        """Return the mean over all classes there are; NaN of a draw that lacks one."""
        counts = np.bincount(truth[drawn], minlength=len(classes))[there]
        if len(there) < 2 or not counts.all():
            return math.nan
        hits = np.bincount(truth[drawn][hit[drawn]], minlength=len(classes))[there]
        return float((hits / counts).mean())

    return GradingFigures(
        unit,
        len(truth),
        Figure(float(hit.mean()), *interval(hit, np.full(len(truth), True))),
        _if_varied(_figure(balanced, groups)),
        {
            name: Figure(each.sensitivity, *interval(winner == k, truth == k))
            for k, (name, each) in enumerate(of_class.items())
        },
        {
            name: Figure(each.specificity, *interval(winner != k, truth != k))
            for k, (name, each) in enumerate(of_class.items())
        },
        {name: area(k) for k, name in enumerate(classes)},
        table,
        calibration(truth, probabilities),
        truth,
        probabilities,
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


def _if_varied(figure: Figure) -> Figure:
    """Return a figure without its interval where all draws gave the same: it knows no doubt."""
    return figure if has_width(figure.low, figure.high) else Figure(figure.value)


def _over_cases(
    statistic: Callable[..., Any], cases: Sequence[SegmentedCase], region: str, measure: str
) -> Figure:
    if not cases:
        return Figure(math.nan)
    values = np.array([getattr(case.regions[region], measure) for case in cases], float)
    _, groups = _patients([case.patient for case in cases])
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
    yield f"- Intervals are of 95 %: {INTERVALS}."
    for caution in cautions(found):
        yield f"- **{caution}.**"


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
    yield from _where_present(found, [name for name in order if name in figures])
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


def _where_present(found: Evaluation, order: Sequence[str]) -> Iterator[str]:
    figures, having = segmentation_figures(found), cases_with_region(found)
    yield "Empty in both, truth and answer, counts as 1, as in the BraTS challenge, and raises the"
    yield "mean of a region that many cases lack. Over the cases alone that have the region:"
    yield ""
    yield "| region | cases that have it | Dice % | HD95 mm, mean | HD95 mm, median |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name in order:
        cells = (
            f"{having[name]} of {len(found.segmented)}",
            figures[name]["dice_where_present"].percent(),
            figures[name]["hausdorff95_where_present_mm"].plain(1),
            figures[name]["hausdorff95_median_where_present_mm"].plain(1),
        )
        yield f"| {name} | {' | '.join(cells)} |"


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
