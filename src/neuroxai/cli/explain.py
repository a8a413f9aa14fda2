"""``neuroxai explain``: attribution maps for a case."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from neuroxai.cli import checks, options
from neuroxai.cli.case import background_of, distinct_targets, read_one_case
from neuroxai.cli.output import Output
from neuroxai.cli.progress import one_bar
from neuroxai.cli.tables import print_report
from neuroxai.core.layers.labels import with_grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuroxai.models.model import Model
    from neuroxai.reports.explain import CaseReport


def explain(
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
    method: options.Methods = None,
    layer: options.Layer = None,
    layer_grid: options.LayerGrid = None,
    baseline: options.Baseline = None,
    parameter: options.Parameters = None,
    device: options.Device = "auto",
    memory: options.Memory = None,
    precision: options.Precision = "fp32",
    seed: options.Seed = 0,
    out: options.Out = None,
    split_modalities: options.SplitModalities = False,
    background: options.Background = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Explain a network's output with attribution maps.

    Research use only, not for clinical use.
    """
    asked = checks.requested_methods(method, with_grid(layer, layer_grid), parameter)
    requests = checks.with_baseline(asked, baseline)
    checks.check_run(device, memory, precision)
    scale_name = checks.check_question(within, scale)
    checks.check_case(case, file, layout)
    network = checks.check_network(model, weights, card)
    checks.check_inputs(case, file, layout, network, within, resample_to=resample_to)

    from neuroxai.core.engine.allocator import tune_allocator
    from neuroxai.core.target.contrast import parse_question
    from neuroxai.files.folder import Results, refuse_other_case
    from neuroxai.files.names import results_folder
    from neuroxai.methods import make_method
    from neuroxai.models.loading import load_model
    from neuroxai.reports.explain import CaseReport
    from neuroxai.reports.findings import findings
    from neuroxai.workflows.preparation import outputs_of
    from neuroxai.workflows.session import open

    started = time.perf_counter()
    if memory is None:  # kept memory would exceed the limit
        tune_allocator()
    methods = [make_method(name, parameters) for name, parameters in requests.items()]
    checks.check_hardware(device, precision)
    loaded = load_model(model, weights=weights, card=card, trust=trust, output=output_key)
    outputs = outputs_of(loaded)
    names = dict.fromkeys(target or _default_targets(loaded))
    targets, notes = distinct_targets((parse_question(name, outputs) for name in names), outputs)
    study = read_one_case(case, file, layout, loaded, strict=strict, resample_to=resample_to)
    shown = background_of(study, background)
    folder = results_folder(out, study.name)
    refuse_other_case(folder, "summary.json", study.name)
    with Results(folder) as results:
        report = CaseReport(
            results,
            warnings=[*study.warnings, *notes],
            background=shown,
            split_modalities=split_modalities,
        )
        stopped: KeyboardInterrupt | None = None
        try:
            with one_bar(quiet=quiet) as progress, open(
                loaded, study, slice_index=slice_index, device=device, memory=memory,
                precision=precision, progress=progress,
            ) as session:  # fmt: skip
                # One target at a time: its maps are written and released before the next are made.
                for explanations in session.explain_each(
                    methods, targets, within=within, scale=scale_name, seed=seed
                ):
                    report.add(explanations)
        except KeyboardInterrupt as stop:
            if not report.targets:
                raise
            stopped = stop
            results.drop_unfinished()
        seconds = time.perf_counter() - started
        summary = report.finish(seconds=seconds, interrupted=stopped is not None)
    found = findings(report, loaded.card)
    Output(quiet, as_json).finish(
        "explain", results, summary=summary, warnings=report.warnings, findings=found,
        show=lambda: print_report(report, found),
    )  # fmt: skip
    if stopped is not None:
        stopped.add_note(_kept(report, [each.name for each in targets]))
        raise stopped


def _kept(report: CaseReport, targets: Sequence[str]) -> str:
    """Return which maps of an interrupted run are kept, and which were not computed."""
    kept = [f"{name}: {', '.join(each.methods)}" for name, each in report.targets.items()]
    missing = [
        f"{name}: {', '.join(each.unfinished)}"
        for name, each in report.targets.items()
        if each.unfinished
    ]
    missing += [f"{name}: all methods" for name in targets[len(report.targets) :]]
    return (
        f"kept in {report.results.folder}: {'; '.join(kept)}. Not computed: "
        f"{'; '.join(missing) or 'nothing'}"
    )


def _default_targets(model: Model) -> list[str]:
    return list(model.card.regions)[:1] or ["predicted"]
