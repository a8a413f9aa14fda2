"""``neuroxai inspect``: information flow through the layers of a network."""

from __future__ import annotations

import time
from typing import Annotated

from neuroxai.cli import checks, options
from neuroxai.cli.case import background_of, distinct_targets, read_one_case
from neuroxai.cli.output import Output
from neuroxai.cli.panels import result_option
from neuroxai.cli.progress import one_bar
from neuroxai.cli.tables import print_flow

Nifti = Annotated[bool, result_option("--nifti", help="Also write every map as NIfTI.")]

Filters = Annotated[
    list[str] | None,
    result_option(
        "--filters",
        metavar="LAYER",
        help="Draw all filters of a layer, for example L3; repeatable.",
    ),
]


def inspect(
    case: options.CasePath = None,
    file: options.File = None,
    layout: options.LayoutName = None,
    resample_to: options.ResampleTo = None,
    slice_index: options.Slice = None,
    strict: options.Strict = False,
    model: options.ModelName = options.DEFAULT_MODEL,
    weights: options.WeightsFile = None,
    card: options.CardFile = None,
    trust: options.Trust = False,
    output_key: options.OutputKey = None,
    target: options.Targets = None,
    within: options.Within = None,
    scale: options.Scale = "logit",
    filters: Filters = None,
    device: options.Device = "auto",
    memory: options.Memory = None,
    out: options.Out = None,
    nifti: Nifti = False,
    background: options.Background = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Show which parts of the scan each layer of a network uses.

    Research use only, not for clinical use.
    """
    checks.check_run(device, memory)
    asked = checks.check_question(within, scale)
    checks.check_case(case, file, layout)
    network = checks.check_network(model, weights, card)
    checks.check_inputs(case, file, layout, network, within, resample_to=resample_to)

    from neuroxai.core.engine.allocator import tune_allocator
    from neuroxai.core.target.contrast import parse_question
    from neuroxai.files.folder import Results, refuse_other_case
    from neuroxai.files.names import results_folder
    from neuroxai.models.loading import load_model
    from neuroxai.reports.findings import describe_alarms, describe_network, describe_prediction
    from neuroxai.reports.inspect import InspectionReport
    from neuroxai.workflows.preparation import outputs_of
    from neuroxai.workflows.question import every_target
    from neuroxai.workflows.session import open

    started = time.perf_counter()
    if memory is None:  # kept memory would exceed the limit
        tune_allocator()
    checks.check_hardware(device)
    loaded = load_model(model, weights=weights, card=card, trust=trust, output=output_key)
    outputs = outputs_of(loaded)
    named = [parse_question(each, outputs) for each in target] if target else every_target(outputs)
    targets, notes = distinct_targets(named, outputs)
    study = read_one_case(case, file, layout, loaded, strict=strict, resample_to=resample_to)
    shown = background_of(study, background)
    folder = results_folder(out, study.name)
    refuse_other_case(folder, "flow.json", study.name)
    with Results(folder) as results, one_bar(quiet=quiet) as progress:
        with open(
            loaded, study, slice_index=slice_index, device=device, memory=memory, progress=progress
        ) as session:
            inspection = session.inspect(
                targets, filters_of=filters or (), within=within, scale=asked
            )
        report = InspectionReport(inspection, results, shown)
        drawings = len(inspection.flow.targets) + len(inspection.filters)
        for number, flow in enumerate(inspection.flow.targets):
            progress(f"{flow.name}: drawing", number, drawings)
            report.write_flow(flow, nifti=nifti)
        for number, layer in enumerate(inspection.filters, start=len(inspection.flow.targets)):
            progress(f"{layer.layer.name}: drawing filters", number, drawings)
            report.write_filters(layer, nifti=nifti)
        summary = report.finish(seconds=time.perf_counter() - started)
        progress("Drawing finished", drawings, drawings)
    found = [
        *describe_alarms(study),
        describe_network(loaded.card),
        *describe_prediction(inspection.prediction),
    ]
    Output(quiet, as_json).finish(
        "inspect", results, summary=summary, warnings=[*inspection.warnings, *notes],
        findings=found, show=lambda: print_flow(report, notes, found),
    )  # fmt: skip
