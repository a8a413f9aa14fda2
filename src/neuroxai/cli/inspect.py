"""``neuroxai inspect``: what happens inside the network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from neuroxai.cli import options
from neuroxai.cli.console import plain
from neuroxai.cli.progress import bars

if TYPE_CHECKING:
    from neuroxai.reports.inspect import InspectionReport

Nifti = Annotated[bool, typer.Option("--nifti", help="Write every map as NIfTI too.")]

Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filters", metavar="LAYER", help="Show every filter of a layer, e.g. L3; repeatable."
    ),
]


def inspect(
    case: options.CasePath = None,
    file: options.File = None,
    model: options.ModelName = "deepseg-phantom",
    weights: options.WeightsFile = None,
    card: options.CardFile = None,
    trust: options.Trust = False,
    target: options.Targets = None,
    filters: Filters = None,
    nifti: Nifti = False,
    slice_index: options.Slice = None,
    layout: options.LayoutName = None,
    device: options.Device = "auto",
    out: options.Out = None,
) -> None:
    """Follow the information through a network's layers. Not for clinical use."""
    from neuroxai.core.engine.allocator import tune_allocator
    from neuroxai.core.target.target import named_target
    from neuroxai.files.folder import Results, refuse_other_case, results_folder
    from neuroxai.models.loading import load_model
    from neuroxai.reports.inspect import InspectionReport
    from neuroxai.workflows.explain import outputs_of
    from neuroxai.workflows.inspect import every_target
    from neuroxai.workflows.inspect import inspect as run

    started = time.perf_counter()
    tune_allocator()
    options.check_case(case, file, layout)
    options.check_run(device)
    loaded = load_model(model, weights=weights, card=card, trust=trust)
    outputs = outputs_of(loaded)
    asked = [named_target(each, outputs) for each in target] if target else every_target(outputs)
    targets, notes = options.distinct_targets(asked, outputs)
    study = options.read_one_case(case, file, layout, loaded)
    folder = results_folder(out, study.name)
    refuse_other_case(folder, "flow.json", study.name)
    with Results(folder) as results, bars() as bar:
        task = bar.add_task(f"{study.name}: one forward pass", total=len(targets) + 1)
        inspection = run(
            loaded, study, targets,
            filters_of=filters or (), slice_index=slice_index, device=device,
        )  # fmt: skip
        report = InspectionReport(inspection, results)
        for flow in inspection.flow.targets:
            bar.update(task, description=f"{flow.name}: drawing", advance=1)
            report.write_flow(flow, nifti=nifti)
        for found in inspection.filters:
            bar.update(task, description=f"{found.layer.name}: drawing filters")
            report.write_filters(found, nifti=nifti)
        report.finish(seconds=time.perf_counter() - started)
        bar.update(task, advance=1)
    print_flow(report, notes)


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
        if target.beside:
            console.print(f"{target.name} does not depend on: {', '.join(target.beside)}")
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
