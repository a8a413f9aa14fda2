"""Tables and notes that commands print at the end."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from neuroxai.cli.console import plain

if TYPE_CHECKING:
    from neuroxai.patient.prediction import Prediction
    from neuroxai.reports.explain import CaseReport
    from neuroxai.reports.inspect import InspectionReport
    from neuroxai.workflows.dissect import Dissected
    from neuroxai.workflows.evaluate import Evaluation


_LESIONS_SHOWN = 5
"""Lesions of a region in the printed table; the summary has more."""


def print_findings(findings: Sequence[str]) -> None:
    """Print the findings in words, one line each."""
    console = plain()
    for line in findings:
        console.print(line, soft_wrap=True)


def print_lesions(prediction: Prediction | None, regions: Collection[str] | None = None) -> None:
    """Print the lesions of regions, by default of all, with the numbers that --within takes."""
    from rich import box
    from rich.table import Table

    lesions = None if prediction is None else prediction.lesions
    if lesions is None or not lesions.counts:
        return
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("Region")
    table.add_column("--within", no_wrap=True)
    table.add_column("ml", justify="right", no_wrap=True)
    table.add_column("Place")
    for name, count in lesions.counts.items():
        if regions is not None and name not in regions:
            continue
        shown = [each for each in lesions.found if each.region == name][:_LESIONS_SHOWN]
        for lesion in shown:
            ml = f"{lesion.ml:.2f}" if lesion.ml >= 0.005 else "<0.01"
            table.add_row(name, f"lesion:{lesion.number}", ml, lesion.place)
        if count > len(shown):
            table.add_row(name, f"{count - len(shown)} smaller ones")
    if table.row_count:
        plain().print(table)


def print_report(report: CaseReport, findings: Sequence[str] = ()) -> None:
    """Print the findings, each method's figures in a table, and the folder of the files."""
    from rich import box
    from rich.table import Table

    from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
    from neuroxai.inspection.chance import format_chance
    from neuroxai.patient.regions import format_share

    print_findings(findings)
    print_lesions(report.prediction, report.targets)
    console = plain()
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    places = _places(report)
    table.add_column("Target", overflow="fold", min_width=len("Target"))
    table.add_column("Method", no_wrap=True)
    rows = [row for entry in report.targets.values() for row in entry.methods.values()]
    paths = any(row.completeness_gap is not None for row in rows)
    asked = any(row.chance is not None for row in rows)
    shares = [f"{place} %" for place in (*places, *(["within"] if asked else []))]
    for name in ("Time", *(["Gap"] if paths else []), *shares):
        table.add_column(name, justify="right", no_wrap=True)
    notes: list[str] = []
    for target, entry in report.targets.items():
        for method, row in entry.methods.items():
            gap = "" if row.completeness_gap is None else f"{row.completeness_gap:.2%}"
            table.add_row(
                target,
                method,
                f"{row.seconds:.1f} s",
                *([gap] if paths else []),
                *(format_share(row.evidence, place) for place in places),
                *(
                    [format_chance(row.chance).replace(" not", "\nnot").replace(" ch", "\nch")]
                    if asked
                    else []
                ),  # on lines of its own: the column stays narrow
            )
            layer = [f"layer {row.layer}"] if row.layer else []
            notes += [f"{target}, {method}: {note}" for note in (*layer, *row.notes)]
        for method, reason in entry.refused.items():
            table.add_row(target, method)
            notes.append(f"{target}, {method}: no map: {reason}")
    console.print(table)
    _print_modalities(report)
    for note in notes:
        console.print(note, soft_wrap=True)
    console.print(
        f"Time: without the passes that all methods share, {report.shared_seconds:.1f} s.",
        soft_wrap=True,
    )
    if paths:
        console.print(
            "Gap: completeness gap of path methods; a small gap is necessary for a correct map, "
            "not sufficient.",
            soft_wrap=True,
        )
    if places:
        console.print(
            f"{', '.join(places)}: share of the map there, both signs together; in brackets: share "
            "of the volume.",
            soft_wrap=True,
        )
    if asked:
        console.print(
            "within: share of the map where the target is averaged; in brackets: the largest share "
            "of a map that knows nothing of the network (uniform in the brain, brightness or edges "
            "of a modality).",
            soft_wrap=True,
        )
    for line in _format_memory(report):
        console.print(line, soft_wrap=True)
    for warning in report.warnings:
        console.print(f"Warning: {warning}", soft_wrap=True)
    console.print(_format_size(report), soft_wrap=True)
    console.print(f"Written: {report.results}", soft_wrap=True)
    console.print(NOT_FOR_CLINICAL_USE)


def _format_size(report: CaseReport) -> str:
    """Return the size of the maps, and their precision."""
    rows = [row for entry in report.targets.values() for row in entry.methods.values()]
    files = [report.results.folder / name for row in rows for name in row.files]
    size = sum(file.stat().st_size for file in files) / 1e6
    return (
        f"Maps: {len(files)} file{'s' if len(files) != 1 else ''}, {size:.1f} MB, in steps of "
        "1/32767 of the largest value of each."
    )


def _print_modalities(report: CaseReport) -> None:
    """Print the absolute and the signed share of each modality in each map."""
    from rich import box
    from rich.table import Table

    rows = {
        (target, method): row.modalities
        for target, entry in report.targets.items()
        for method, row in entry.methods.items()
        if len(row.modalities) > 1
    }
    names = sorted({name for shares in rows.values() for name in shares}, key=_modality_order)
    if not names:
        return
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("Target", overflow="fold", min_width=len("Target"))
    table.add_column("Method", no_wrap=True)
    for name in names:
        table.add_column(f"{name} %", justify="right", no_wrap=True)
    for (target, method), shares in rows.items():
        each = (shares.get(name) for name in names)
        table.add_row(
            target, method,
            *(f"{100 * s.absolute:.0f} ({100 * s.signed:+.0f})" if s else "" for s in each),
        )  # fmt: skip
    console = plain()
    console.print(table)
    console.print(
        "Modalities: share of the map, both signs together; in brackets: the sum of its values, "
        "positive for the target and negative against it, in percent of the map.",
        soft_wrap=True,
    )


def _modality_order(name: str) -> tuple[int, str]:
    from neuroxai.core.vocabulary import MODALITIES

    return MODALITIES.index(name) if name in MODALITIES else len(MODALITIES), name


def _places(report: CaseReport) -> list[str]:
    """Return the regions whose shares are printed; the summary has all of them."""
    known = [
        row.evidence.volume
        for entry in report.targets.values()
        for row in entry.methods.values()
        if row.evidence is not None
    ]
    return [place for place in ("brain", "WT") if any(place in each for each in known)]


def _format_memory(report: CaseReport) -> Iterator[str]:
    """Yield the expected memory of the passes, and the peak of the process."""
    from neuroxai.core.engine.memory import format_size
    from neuroxai.reports.explain import peak_memory_mb

    for use in dict.fromkeys(entry.memory for entry in report.targets.values()):
        expected = "not measured" if use.expected_bytes is None else format_size(use.expected_bytes)
        budget = "unknown" if use.budget_bytes is None else format_size(use.budget_bytes)
        yield f"Memory of a pass: {expected} ({use.strategy}), {budget} allowed."
    peak = peak_memory_mb()
    if peak is not None:
        yield f"Peak memory of the process: {peak:,} MB."


def print_flow(
    report: InspectionReport, notes: Sequence[str] = (), findings: Sequence[str] = ()
) -> None:
    """Print the findings, the regions of each layer's evidence, and the folder of the files."""
    from rich import box
    from rich.table import Table

    from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
    from neuroxai.patient.regions import REGION_ORDER
    from neuroxai.reports.inspect import NOISE_FRACTION, evidence_of, region_volumes

    print_findings(findings)
    console = plain()
    inspection = report.inspection
    # "outside" is 1 - "brain"; without it the table fits a narrow terminal.
    masks = inspection.regions.masks
    regions = [name for name in REGION_ORDER if name in masks and name != "outside"]
    volume = region_volumes(inspection)
    for target in inspection.flow.targets:
        title = f"{target.name}: share of the evidence for it in each region, in percent"
        table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
        table.add_column("Layer", overflow="fold")
        table.add_column("Filters", justify="right", no_wrap=True, min_width=7)
        table.add_column("Grid", no_wrap=True)
        table.add_column("For", justify="right", no_wrap=True, min_width=len("100.0"))
        for region in regions:
            width = max(len(region), len("100.0"))
            table.add_column(region, justify="right", no_wrap=True, min_width=width)
        for row in report.rows[target.name]:
            found = evidence_of(row.mass) or {}
            table.add_row(
                f"L{row.number} {row.layer}",
                str(row.shape[0]),
                "×".join(map(str, row.shape[1:])),
                _format_fraction(row.mass.positive_fraction),
                *(f"{100 * found[region]:.1f}" if found else "–" for region in regions),
            )
        shares = (f"{100 * volume[region]:.1f}" for region in regions)
        table.add_row("(share of the volume)", "", "", "", *shares)
        console.print(table)
        console.print(
            "For: share of the evidence for the target in all evidence of the layer, in percent. "
            f"–: less than {NOISE_FRACTION:.1%}, which is within rounding error. The rest of 100 % "
            "is outside the brain.",
            soft_wrap=True,
        )
        if target.independent_layers:
            console.print(
                f"{target.name} does not depend on: {', '.join(target.independent_layers)}"
            )
    for name in inspection.flow.never_ran:
        console.print(f"Never ran: {name}")
    for name, reason in inspection.flow.not_shown.items():
        console.print(f"Not shown: {name}: {reason}", soft_wrap=True)
    for warning in (*notes, *inspection.warnings):
        console.print(f"Warning: {warning}", soft_wrap=True)
    console.print(f"Written: {report.results}", soft_wrap=True)
    console.print(NOT_FOR_CLINICAL_USE)


def _format_fraction(fraction: float | None) -> str:
    """Format the share of the evidence for the target in a layer's evidence, in percent."""
    from neuroxai.reports.inspect import NOISE_FRACTION

    if fraction is None:
        return "–"
    return (
        f"<{100 * NOISE_FRACTION:g}" if 0 < fraction < NOISE_FRACTION else f"{100 * fraction:.1f}"
    )


def print_dissection(found: Dissected) -> None:
    """Print the best filter of each concept, its IoU and chance level, and its ablation."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = plain()
    count = len(found.cases)
    title = f"Best filter per concept, {count} case{'s' if count > 1 else ''}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("Concept", "Filter"):
        table.add_column(heading, overflow="fold")
    regions = tuple(found.effects[0].dice) if found.effects else ()
    for heading in ("IoU", "Chance", "Share", *(f"{region} off" for region in regions)):
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
    explicit: bool | None = None
    for concept in found.concepts:
        finding = found.best_filter(concept)
        if finding.explicit is not explicit:
            explicit = finding.explicit
            table.add_row(Text("explicit" if explicit else "implicit", style="italic"))
        match, effect = finding.match, found.best_effect(concept)
        dice = effect.dice if effect is not None else {}
        table.add_row(
            concept,
            f"{match.layer} #{match.filter}",
            f"{match.iou:.2f}",
            f"{finding.control_best:.2f}",
            f"{found.shares[concept]:.1%}",
            *(f"{dice[region]:+.2f}" if region in dice else "" for region in regions),
        )
    console.print(table)
    if found.tissues_from:
        console.print(f"CSF, GM and WM: {', '.join(found.tissues_from)}.")
    console.print(
        "Implicit: not labeled in training. Chance: IoU of the best filter of the same layer with "
        "shuffled weights. Off: change of a region's Dice when the filter is ablated, a causal "
        "effect; an IoU is a correlation."
    )


def print_evaluation(found: Evaluation) -> None:
    """Print the scores with their confidence intervals."""
    from rich import box
    from rich.table import Table

    from neuroxai.reports.evaluation_scores import cautions, grading_scores, segmentation_scores

    cases = len(found.segmented or found.graded)
    title = f"{found.model['name']} on {found.data}, {cases} case{'s' if cases > 1 else ''}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("")
    notes: list[str] = []
    if found.segmented:
        for heading in ("Dice %", "HD95 mm", "median"):
            table.add_column(heading, justify="right")
        notes += _format_missing(found)
        for name, figures in segmentation_scores(found).items():
            table.add_row(
                name,
                figures["dice"].percent(),
                figures["hausdorff95_mm"].plain(1),
                figures["hausdorff95_median_mm"].plain(1),
            )
    else:
        of_cases, of_slices = grading_scores(found)
        for unit in (of_cases,) if found.pictures else (of_cases, of_slices):
            accuracy = unit.accuracy.percent()
            notes.append(f"Accuracy per {unit.unit}: {accuracy} % of {unit.count}.")
        for heading in ("Sensitivity %", "Specificity %", "Area"):
            table.add_column(heading, justify="right", no_wrap=True)
        for name in found.classes:
            table.add_row(
                name,
                of_cases.sensitivity[name].percent(),
                of_cases.specificity[name].percent(),
                of_cases.roc_auc[name].plain(2),
            )
    console = plain()
    console.print(table)
    for note in (*notes, *(f"Caution: {caution}." for caution in cautions(found))):
        console.print(note, soft_wrap=True)
    if found.left_out:
        name, reason = next(iter(found.left_out.items()))
        console.print(f"Excluded cases: {len(found.left_out)}, for example {name}: {reason}.")


def _format_missing(found: Evaluation) -> list[str]:
    """Return notes on regions that are absent in some cases, with the Dice of the others."""
    from neuroxai.reports.evaluation_scores import cases_with_region, segmentation_scores

    figures = segmentation_scores(found)
    notes = [
        f"{name}: present in {count} of {len(found.segmented)} cases; mean Dice of those "
        f"{figures[name]['dice_where_present'].percent()}."
        for name, count in cases_with_region(found).items()
        if count < len(found.segmented)
    ]
    if notes:
        notes.append(
            "A region absent in both truth and prediction counts as Dice 1 and 0 mm, as in BraTS."
        )
    return notes
