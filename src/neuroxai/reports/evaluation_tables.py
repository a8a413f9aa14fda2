"""Markdown page of an evaluation, with the tables of the paper for comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.reports.evaluation_scores import (
    cases_with_region,
    cautions,
    grading_scores,
    segmentation_scores,
)
from neuroxai.workflows.evaluate import Evaluation

PAPER = "Zeineldin et al. 2022, doi:10.1007/s11548-022-02619-x"
PAPER_TABLE_2 = (
    ("Ge et al. 2018, 2D CNN", 90.87),
    ("Ge et al. 2020, GAN", 88.82),
    ("Mzoughi et al. 2020, 3D CNN", 96.49),
    ("Ahuja et al. 2020, VGG", 99.30),
    ("Dixit and Nanda 2021, IWOA-RBNN", 96.0),
    ("Zeineldin et al. 2022, ResNet-50", 98.62),
)
"""Accuracy in percent, as reported in the paper."""
PAPER_TABLE_3 = (
    ("DeepSeg 2D", None, None, 84.10),
    ("DeepSeg 3D", 82.50, 84.73, 90.05),
    ("Ilhan et al. 2022, U-Net", None, None, 88.0),
    ("nnU-Net", 79.45, 85.24, 91.19),
    ("CASPIANET++", 81.08, 87.60, 91.20),
    ("Zeineldin et al. 2022, DeepSeg 3D", 84.10, 87.33, 92.0),
)
"""Dice of ET, TC and WT in percent, as reported in the paper (its 0.88 is 88)."""
NOT_MEASURED = "not measured"
INTERVALS = (
    "Wilson score intervals for proportions of cases; otherwise percentile bootstrap over patients "
    "with 2,000 resamples (for proportions that are equal in all resamples, Wilson's interval with "
    "the number of patients); none where the bootstrap is not defined"
)


def markdown(evaluation: Evaluation) -> str:
    """Whole evaluation as a Markdown page, next to the results reported in the paper."""
    page = _segmentation_page if evaluation.segmented else _grading_page
    lines = [*_head(evaluation), *page(evaluation), *_foot(evaluation)]
    return "\n".join(lines) + "\n"


def _head(evaluation: Evaluation) -> Iterator[str]:
    cases = evaluation.segmented or evaluation.graded
    patients = len({case.patient for case in cases})
    counted = f"{len(cases)} of {patients} patients"
    if evaluation.pictures:
        counted = (
            f"{len(cases)} pictures without patient names, each counted as one patient: if a "
            "patient has several, intervals are too narrow and a random split is optimistic"
        )
    yield f"# {evaluation.model['name']} on {evaluation.data}"
    yield ""
    yield f"**{NOT_FOR_CLINICAL_USE}**"
    yield ""
    weights = evaluation.model["weights_sha256"][:12]
    yield f"- Network: {evaluation.model['name']}, weights {weights}"
    yield f"- Cases: {counted}; {evaluation.data}"
    flips = "mean over all mirror images" if evaluation.settings.flips else "none"
    yield f"- Test-time flips: {flips}"
    if evaluation.segmented:
        least = evaluation.settings.smallest_enhancement_mm3
        small = f"less than {least:g} mm³ in total is relabeled as necrosis" if least else "kept"
        yield f"- Small enhancement: {small}"
    yield f"- 95 % intervals: {INTERVALS}."
    for caution in cautions(evaluation):
        yield f"- **{caution[0].upper()}{caution[1:]}.**"


def _foot(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.left_out:
        yield ""
        yield "## Excluded cases"
        yield ""
        for name, reason in evaluation.left_out.items():
            yield f"- {name} {reason}"


def _segmentation_page(evaluation: Evaluation) -> Iterator[str]:
    scores = segmentation_scores(evaluation)
    order = ("ET", "TC", "WT")
    known = [name for name in order if name in scores]
    yield ""
    yield "## Dice in percent, as in Table 3 of the paper"
    yield ""
    yield "| network | data | cases | ET | TC | WT |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    ours = " | ".join(
        scores[name]["dice"].percent() if name in scores else "not predicted" for name in order
    )
    name = evaluation.model["name"]
    yield f"| **{name}** | {evaluation.data} | {len(evaluation.segmented)} | {ours} |"
    if evaluation.data != "brats2021":
        yield f"| {name} | brats2021 | | {' | '.join([NOT_MEASURED] * 3)} |"
    for name, *values in PAPER_TABLE_3:
        cells = " | ".join("not reported" if v is None else f"{v:.2f}" for v in values)
        yield f"| {name} (reported) | BraTS validation | | {cells} |"
    yield ""
    yield f"Reported: {PAPER}, on the challenge's validation cases, whose truth is not public."
    yield "Training cases held out by a split are a different test set, so the rows are not"
    yield "directly comparable."
    yield ""
    yield from _where_present(evaluation, known)
    yield ""
    yield "## Surface distance, HD95 in mm"
    yield ""
    yield "| region | mean | median |"
    yield "| --- | ---: | ---: |"
    for name in known:
        mean = scores[name]["hausdorff95_mm"].plain(1)
        median = scores[name]["hausdorff95_median_mm"].plain(1)
        yield f"| {name} | {mean} | {median} |"
    yield ""
    yield "The paper reports no distances. If truth and prediction are both empty, HD95 is 0 mm; if"
    yield "one of them is empty, it is the diagonal of the scan."


def _where_present(evaluation: Evaluation, order: Sequence[str]) -> Iterator[str]:
    scores, present = segmentation_scores(evaluation), cases_with_region(evaluation)
    yield "A region that is empty in both truth and prediction scores Dice 1, as in the BraTS"
    yield "challenge, which raises the mean of regions that many cases lack. Over the cases that"
    yield "have the region:"
    yield ""
    yield "| region | cases with the region | Dice % | HD95 mm, mean | HD95 mm, median |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name in order:
        cells = (
            f"{present[name]} of {len(evaluation.segmented)}",
            scores[name]["dice_where_present"].percent(),
            scores[name]["hausdorff95_where_present_mm"].plain(1),
            scores[name]["hausdorff95_median_where_present_mm"].plain(1),
        )
        yield f"| {name} | {' | '.join(cells)} |"


def _grading_page(evaluation: Evaluation) -> Iterator[str]:
    per_case, per_slice = grading_scores(evaluation)
    pages = [per_case] if evaluation.pictures else [per_case, per_slice]
    grades = set(evaluation.classes) == {"LGG", "HGG"}
    yield ""
    yield "## Accuracy in percent" + (", as in Table 2 of the paper" if grades else "")
    yield ""
    yield "| network | data | count | accuracy |"
    yield "| --- | --- | ---: | ---: |"
    for page in pages:
        name = f"**{evaluation.model['name']}**, per {page.unit}"
        yield f"| {name} | {evaluation.data} | {page.count} | {page.accuracy.percent()} |"
    if grades:
        yield from _reported_grading(evaluation)
    for page in pages:
        yield ""
        yield f"## Per {page.unit}"
        yield ""
        yield f"- Balanced accuracy in percent: {page.balanced_accuracy.percent()}"
        yield f"- Expected calibration error: {page.calibration.error:.3f}"
        yield f"- Brier score: {page.calibration.brier:.3f}"
        yield ""
        yield "| class | sensitivity % | specificity % | area under the ROC curve |"
        yield "| --- | ---: | ---: | ---: |"
        for name in evaluation.classes:
            cells = (page.sensitivity[name].percent(), page.specificity[name].percent())
            yield f"| {name} | {' | '.join(cells)} | {page.roc_auc[name].plain()} |"
        yield ""
        yield f"| truth \\ prediction | {' | '.join(evaluation.classes)} |"
        yield f"| --- |{' ---: |' * len(evaluation.classes)}"
        for name, row in zip(evaluation.classes, page.confusion, strict=True):
            yield f"| {name} | {' | '.join(map(str, row))} |"


def _reported_grading(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.data != "brats2019":
        yield f"| {evaluation.model['name']} | brats2019 | | {NOT_MEASURED} |"
    for name, value in PAPER_TABLE_2:
        yield f"| {name} (reported) | see the paper | | {value:.2f} |"
    yield ""
    yield f"Reported: {PAPER}; it does not state whether slices or patients were counted."
