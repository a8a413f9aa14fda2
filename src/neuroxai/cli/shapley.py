"""``neuroxai shapley``: how much of an answer rests on each modality."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from neuroxai.cli import checks, options
from neuroxai.cli.case import distinct_targets, read_one_case
from neuroxai.cli.console import plain
from neuroxai.cli.output import Output
from neuroxai.cli.progress import one_bar
from neuroxai.cli.tables import print_findings

if TYPE_CHECKING:
    from neuroxai.files.folder import Results
    from neuroxai.workflows.shapley_run import ModalityShapley


def shapley(
    case: options.CasePath = None,
    file: options.File = None,
    model: options.ModelName = options.DEFAULT_MODEL,
    weights: options.WeightsFile = None,
    card: options.CardFile = None,
    trust: options.Trust = False,
    output_key: options.OutputKey = None,
    target: options.Targets = None,
    remover: options.RemoverName = "auto",
    value: options.Value = "target",
    within: options.Within = None,
    scale: options.Scale = "logit",
    slice_index: options.Slice = None,
    layout: options.LayoutName = None,
    resample_to: options.ResampleTo = None,
    device: options.Device = "auto",
    memory: options.Memory = None,
    precision: options.Precision = "fp32",
    seed: options.Seed = 0,
    out: options.Out = None,
    strict: options.Strict = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Compute exact modality Shapley values, per region and class.

    Research use only, not for clinical use.
    """
    from neuroxai.methods.perturbation.value_names import check_value
    from neuroxai.methods.remover_names import check_remover

    checks.check_run(device, memory, precision)
    scale_name = checks.check_question(within, scale)
    check_remover("--remover", remover)
    check_value("--value", value)
    checks.check_case(case, file, layout)
    network = checks.check_network(model, weights, card)
    checks.check_inputs(case, file, layout, network, within, resample_to=resample_to)

    from neuroxai.core.engine.allocator import tune_allocator
    from neuroxai.core.target.contrast import parse_question
    from neuroxai.files.folder import Results, refuse_other_case
    from neuroxai.files.names import results_folder
    from neuroxai.models.loading import load_model
    from neuroxai.reports.findings import describe_alarms, describe_network
    from neuroxai.reports.shapley import SUMMARY, findings, write_shapley
    from neuroxai.workflows.preparation import outputs_of
    from neuroxai.workflows.session import open

    started = time.perf_counter()
    if memory is None:  # kept memory would exceed the limit
        tune_allocator()
    checks.check_hardware(device, precision)
    loaded = load_model(model, weights=weights, card=card, trust=trust, output=output_key)
    outputs = outputs_of(loaded)
    named = (parse_question(name, outputs) for name in dict.fromkeys(target or ()))
    targets, notes = distinct_targets(named, outputs)
    study = read_one_case(case, file, layout, loaded, strict=strict, resample_to=resample_to)
    folder = results_folder(out, study.name)
    refuse_other_case(folder, SUMMARY, study.name)
    with Results(folder) as results:
        with one_bar(quiet=quiet) as progress, open(
            loaded, study, slice_index=slice_index, device=device, memory=memory,
            precision=precision, progress=progress,
        ) as session:  # fmt: skip
            found = session.modality_shapley(
                targets or None, remover=remover, value=value, within=within, scale=scale_name,
                seed=seed,
            )  # fmt: skip
        own = (note for each in found.values() for note in each.notes)
        warnings = list(dict.fromkeys([
            *study.warnings, *session.prepared.warnings, *loaded.notes, *notes, *own,
        ]))  # fmt: skip
        more = {
            "quality": study.describe_quality(),
            "placement": session.prepared.placement.describe(),
            "seconds": round(time.perf_counter() - started, 3),
        }
        summary = write_shapley(results, study.name, found, session.identity, warnings, more)
    sentences = [*describe_alarms(study), describe_network(loaded.card), *findings(found)]
    Output(quiet, as_json).finish(
        "shapley", results, summary=summary, warnings=warnings, findings=sentences,
        show=lambda: _print(found, sentences, warnings, results),
    )  # fmt: skip


def _print(
    found: Mapping[str, ModalityShapley],
    sentences: Sequence[str],
    warnings: Sequence[str],
    results: Results,
) -> None:
    """Print the findings, a table of targets and modalities, and the folder of the files."""
    from rich import box
    from rich.table import Table

    from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE

    print_findings(sentences)
    first = next(iter(found.values()))
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("Target", overflow="fold", min_width=len("Target"))
    for name in (*first.modalities, "Sum", "All", "None"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, each in found.items():
        values = [*each.values[0].tolist(), float(each.values[0].sum())]
        cells = [f"{value:+.3g}" for value in values]
        table.add_row(name, *cells, f"{float(each.full[0]):.3g}", f"{float(each.none[0]):.3g}")
    console = plain()
    console.print(table)
    console.print(
        f"Shapley values: {first.units}; removed modalities: {first.remover}. Their sum is the "
        "value with all modalities minus that with none.",
        soft_wrap=True,
    )
    for warning in warnings:
        console.print(f"Warning: {warning}", soft_wrap=True)
    console.print(f"Written: {results}", soft_wrap=True)
    console.print(NOT_FOR_CLINICAL_USE)
