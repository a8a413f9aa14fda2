"""Tables and notes that commands print at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from neuroxai.cli.console import plain

if TYPE_CHECKING:
    from neuroxai.reports.explain import CaseReport
    from neuroxai.reports.inspect import InspectionReport
    from neuroxai.workflows.dissect import Dissected
    from neuroxai.workflows.evaluate import Evaluation


def print_report(report: CaseReport, memory: Mapping[str, Any]) -> None:
    """Print each method's time and completeness gap, and where the files are."""
    from rich.table import Table

    from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
    from neuroxai.patient.regions import format_share

    console = plain()
    table = Table()
    places = _places(report)
    table.add_column("Target")
    table.add_column("Method", no_wrap=True)
    for name in ("Time", "Gap", *(f"{place} %" for place in places)):
        table.add_column(name, justify="right", no_wrap=True)
    notes: list[str] = []
    for target, entry in report.targets.items():
        table.add_row(target, "(shared passes)", f"{entry['shared_seconds']:.1f} s")
        for method, row in entry["methods"].items():
            gap = row["completeness_gap"]
            table.add_row(
                target,
                method,
                f"{row['seconds']:.1f} s",
                "" if gap is None else f"{gap:.2%}",
                *(format_share(row["evidence"], place) for place in places),
            )
            layer = [f"layer {row['layer']}"] if row["layer"] else []
            notes += [f"{target}, {method}: {note}" for note in (*layer, *row["notes"])]
        for method, reason in entry["refused"].items():
            table.add_row(target, method)
            notes.append(f"{target}, {method}: no map: {reason}")
    console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True)
    console.print("Gap: completeness gap of path methods, 0 % is exact.")
    if places:
        console.print(
            f"{', '.join(places)}: how much of the map lies there, both signs together; in "
            "brackets how much of the volume does, what a map that knows nothing would reach.",
            soft_wrap=True,
        )
    console.print(_format_memory(memory), soft_wrap=True)
    for warning in report.warnings:
        console.print(f"Warning: {warning}", soft_wrap=True)
    console.print(f"Written: {report.results}", soft_wrap=True)
    console.print(NOT_FOR_CLINICAL_USE)


def _places(report: CaseReport) -> list[str]:
    """Return where it is shown how much of a map lies; all regions are in the summary."""
    from neuroxai.patient.regions import ASKED

    known = [
        row["evidence"]["volume"]
        for entry in report.targets.values()
        for row in entry["methods"].values()
        if row["evidence"] is not None
    ]
    shown = ("brain", "WT", ASKED)
    return [place for place in shown if any(place in each for each in known)]


def _format_memory(memory: Mapping[str, Any]) -> str:
    from neuroxai.reports.explain import peak_memory_mb

    expected = "unknown" if memory["predicted_mb"] is None else f"{memory['predicted_mb']:,} MB"
    allowed = "unknown" if memory["budget_mb"] is None else f"{memory['budget_mb']:,} MB"
    return (
        f"Memory: {expected} expected of a pass ({memory['way']}), {allowed} allowed; "
        f"the process took {peak_memory_mb():,} MB at its peak."
    )


def print_flow(report: InspectionReport, notes: Sequence[str] = ()) -> None:
    """Print where each target's evidence lies, layer by layer, and where the files are."""
    from rich import box
    from rich.table import Table

    from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
    from neuroxai.patient.regions import REGION_ORDER
    from neuroxai.reports.inspect import FEW, evidence_of, region_volumes

    console = plain()
    seen = report.inspection
    # What is not in the brain is outside: a column less, and names fit beside each other.
    regions = [name for name in REGION_ORDER if name in seen.regions.masks and name != "outside"]
    volume = region_volumes(seen)
    for target in seen.flow.targets:
        title = f"{target.name}: where the evidence for it lies, in percent"
        table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
        table.add_column("Layer", overflow="fold")
        table.add_column("Filters", justify="right", no_wrap=True, min_width=7)
        table.add_column("Grid", no_wrap=True)
        table.add_column("For", justify="right", no_wrap=True, min_width=len("100.0"))
        for region in regions:
            width = max(len(region), len("100.0"))
            table.add_column(region, justify="right", no_wrap=True, min_width=width)
        for row in report.rows[target.name]:
            found = evidence_of(row) or {}
            table.add_row(
                f"L{row['number']} {row['layer']}",
                str(row["shape"][0]),
                "×".join(map(str, row["shape"][1:])),
                _format_fraction(row["positive_fraction"]),
                *(f"{100 * found[region]:.1f}" if found else "–" for region in regions),
            )
        shares = (f"{100 * volume[region]:.1f}" for region in regions)
        table.add_row("(share of the volume)", "", "", "", *shares)
        console.print(table)
        console.print(
            "For: how much of the layer's evidence, both signs together, is for the target, in "
            f"percent. –: less than {FEW:.1%}, which rounding alone may be: no evidence for it. "
            "What is not in the brain lies outside.",
            soft_wrap=True,
        )
        if target.independent_layers:
            console.print(
                f"{target.name} does not depend on: {', '.join(target.independent_layers)}"
            )
    for name in seen.flow.never_ran:
        console.print(f"Never ran: {name}")
    for name, reason in seen.flow.not_shown.items():
        console.print(f"Not shown: {name}: {reason}", soft_wrap=True)
    for warning in (*notes, *seen.warnings):
        console.print(f"Warning: {warning}", soft_wrap=True)
    console.print(f"Written: {report.results}", soft_wrap=True)
    console.print(NOT_FOR_CLINICAL_USE)


def _format_fraction(fraction: float | None) -> str:
    """Return how much of a layer's evidence is for the target, in percent."""
    from neuroxai.reports.inspect import FEW

    if fraction is None:
        return "–"
    return f"<{100 * FEW:g}" if 0 < fraction < FEW else f"{100 * fraction:.1f}"


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
