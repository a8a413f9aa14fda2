"""``neuroxai predict``: a network's prediction for a case."""

from __future__ import annotations

from neuroxai.cli import checks, options
from neuroxai.cli.case import read_one_case
from neuroxai.cli.console import plain
from neuroxai.cli.output import Output
from neuroxai.cli.progress import one_bar
from neuroxai.cli.tables import print_findings, print_lesions


def predict(
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
    flips: options.Flips = False,
    device: options.Device = "auto",
    memory: options.Memory = None,
    seed: options.Seed = 0,
    out: options.Out = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Segment or classify a case, on the scan's own grid.

    Research use only, not for clinical use.
    """
    checks.check_run(device, memory)
    checks.check_case(case, file, layout)
    network = checks.check_network(model, weights, card)
    checks.check_inputs(case, file, layout, network, resample_to=resample_to)

    from neuroxai.core.engine.allocator import tune_allocator
    from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
    from neuroxai.files.atomic import write_json
    from neuroxai.files.folder import Results, refuse_other_case
    from neuroxai.files.names import results_folder
    from neuroxai.models.loading import load_model
    from neuroxai.patient.label_table import label_tables
    from neuroxai.reports.findings import describe_alarms, describe_network, describe_prediction
    from neuroxai.workflows.preparation import mirrored
    from neuroxai.workflows.session import open

    if memory is None:  # kept memory would exceed the limit
        tune_allocator()
    checks.check_hardware(device)
    loaded = load_model(model, weights=weights, card=card, trust=trust, output=output_key)
    loaded = mirrored(loaded) if flips else loaded
    study = read_one_case(case, file, layout, loaded, strict=strict, resample_to=resample_to)
    folder = results_folder(out, study.name)
    refuse_other_case(folder, "prediction.json", study.name)
    with Results(folder) as results:
        with (
            one_bar(quiet=quiet) as progress,
            open(
                loaded, study, slice_index=slice_index, device=device, memory=memory,
                progress=progress,
            ) as session,
        ):  # fmt: skip
            prediction = session.prediction
        labels = prediction.save(results.folder)
        if labels is not None:
            results.add(labels, *label_tables(labels))
        warnings = [*study.warnings, *prediction.warnings]
        content = {
            "case": study.name,
            "quality": study.describe_quality(),
            "model": session.identity,
            **prediction.describe(),
            "warnings": warnings,
            "flips": "all" if flips else "none",
            "seed": seed,
            "use": NOT_FOR_CLINICAL_USE,
        }
        summary = results.add(write_json(results.folder / "prediction.json", content))
    found = [
        *describe_alarms(study),
        describe_network(loaded.card),
        *describe_prediction(prediction),
    ]

    def show() -> None:
        print_findings(found)
        print_lesions(prediction)
        console = plain()
        for warning in warnings:
            console.print(f"Warning: {warning}", soft_wrap=True)
        console.print(f"Written: {results.written[0]}", soft_wrap=True)
        console.print(NOT_FOR_CLINICAL_USE)

    Output(quiet, as_json).finish(
        "predict", results, summary=summary, warnings=warnings, findings=found, show=show
    )
