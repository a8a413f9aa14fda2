"""``neuroxai measure``: metrics of the maps of a case."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from neuroxai.cli import checks, options
from neuroxai.cli.case import distinct_targets, read_one_case
from neuroxai.cli.console import plain
from neuroxai.cli.output import Output
from neuroxai.cli.pairs import parse_parameters, parse_paths
from neuroxai.cli.panels import method_option
from neuroxai.cli.progress import one_bar
from neuroxai.core.layers.labels import with_grid

if TYPE_CHECKING:
    from neuroxai.metrics.base import Metric
    from neuroxai.workflows.measurement import Measurements

DEFAULT_METRICS = (
    "deletion", "faithfulness_correlation", "relevance_mass_accuracy", "auroc", "emprt",
    "random_class", "sparseness",
)  # fmt: skip
"""One or two of the families that need nothing but the network, or a truth where there is one."""

Metrics = Annotated[
    list[str] | None,
    method_option(
        "--metric", metavar="NAME",
        help="Metric, or all; repeatable. See 'neuroxai metrics'. Default: "
        f"{', '.join(DEFAULT_METRICS)}.",
    ),
]  # fmt: skip
Maps = Annotated[
    list[str] | None,
    method_option(
        "--map", metavar="NAME=PATH",
        help="Map of another tool: a NIfTI file on the scan's grid, 3D, or 4D with one volume per "
        "modality; repeatable.",
    ),
]  # fmt: skip
Mask = Annotated[
    str | None,
    method_option(
        "--mask", metavar="PLACE",
        help="Where the evidence is known to be: truth, or the file of a mask on the scan's grid; "
        "default: the truth, if there is one.",
    ),
]  # fmt: skip
Trivial = Annotated[
    bool,
    method_option(
        "--trivial/--no-trivial",
        help="Also measure maps that know nothing of the network: brightness, edges, noise.",
    ),
]


def measure(
    case: options.CasePath = None,
    file: options.File = None,
    model: options.ModelName = options.DEFAULT_MODEL,
    weights: options.WeightsFile = None,
    card: options.CardFile = None,
    trust: options.Trust = False,
    output_key: options.OutputKey = None,
    method: options.Methods = None,
    metric: Metrics = None,
    map_: Maps = None,
    mask: Mask = None,
    trivial: Trivial = True,
    target: options.Targets = None,
    layer: options.Layer = None,
    layer_grid: options.LayerGrid = None,
    within: options.Within = None,
    scale: options.Scale = "logit",
    slice_index: options.Slice = None,
    parameter: options.Parameters = None,
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
    """Measure how good maps are: faithfulness, localization, dependence on the network.

    Research use only, not for clinical use.
    """
    maps = parse_paths(map_, "--map", "other=map.nii.gz")
    own, of_metrics = _split(parameter)
    requests = (
        checks.requested_methods(method, with_grid(layer, layer_grid), own)
        if method or not maps
        else {}
    )
    checks.check_run(device, memory, precision)
    scale_name = checks.check_question(within, scale)
    checks.check_case(case, file, layout)
    network = checks.check_network(model, weights, card)
    checks.check_inputs(case, file, layout, network, within, resample_to=resample_to)
    metrics = _metrics(metric, of_metrics)

    from neuroxai.core.target.contrast import parse_question
    from neuroxai.files.folder import Results, refuse_other_case
    from neuroxai.files.names import results_folder
    from neuroxai.methods import make_method
    from neuroxai.models.loading import load_model
    from neuroxai.reports.measure import write_measurements
    from neuroxai.workflows.preparation import outputs_of
    from neuroxai.workflows.session import open

    started = time.perf_counter()
    methods = [make_method(name, parameters) for name, parameters in requests.items()]
    checks.check_hardware(device, precision)
    loaded = load_model(model, weights=weights, card=card, trust=trust, output=output_key)
    outputs = outputs_of(loaded)
    names = dict.fromkeys(target or list(loaded.card.regions)[:1] or ["predicted"])
    targets, notes = distinct_targets((parse_question(name, outputs) for name in names), outputs)
    study = read_one_case(case, file, layout, loaded, strict=strict, resample_to=resample_to)
    folder = results_folder(out, study.name)
    refuse_other_case(folder, "metrics.json", study.name)
    with Results(folder) as results:
        with one_bar(quiet=quiet) as progress, open(
            loaded, study, slice_index=slice_index, device=device, memory=memory,
            precision=precision, progress=progress,
        ) as session:  # fmt: skip
            measured = [
                session.measure(
                    methods, metrics, each, maps=maps, mask=mask, within=within, scale=scale_name,
                    trivial=trivial, seed=seed,
                )
                for each in targets
            ]  # fmt: skip
        write_measurements(study.name, measured, results)
        summary = results.folder / "metrics.json"
    seconds = time.perf_counter() - started
    Output(quiet, as_json).finish(
        "measure", results, summary=summary, warnings=[*study.warnings, *notes],
        show=lambda: _print(measured, [*study.warnings, *notes], seconds, str(results.folder)),
    )  # fmt: skip


def _split(pairs: list[str] | None) -> tuple[list[str], list[str]]:
    """Return the parameters of methods and those of metrics."""
    from neuroxai.metrics.table import METRICS

    of_metrics = [pair for pair in pairs or [] if pair.partition(".")[0] in METRICS]
    return [pair for pair in pairs or [] if pair not in of_metrics], of_metrics


def _metrics(names: list[str] | None, parameters: list[str]) -> list[Metric]:
    """Return the requested metrics with their parameters."""
    from neuroxai.core.errors import MetricError
    from neuroxai.metrics.table import METRICS, make_metric

    wanted = list(METRICS) if names and "all" in names else list(names or DEFAULT_METRICS)
    given = parse_parameters(parameters)
    for name in given:
        if name not in wanted:
            raise MetricError(f"--set {name}: the metric is not requested; add --metric {name}")
    return [make_metric(name, given.get(name)) for name in dict.fromkeys(wanted)]


def _print(measured: list[Measurements], warnings: list[str], seconds: float, folder: str) -> None:
    """Print one table per target, and what the values can and cannot tell."""
    from rich.table import Table

    from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
    from neuroxai.metrics.table import METRICS
    from neuroxai.workflows.measurement import mean_value

    console = plain()
    for each in measured:
        names = list(dict.fromkeys(name for row in each.values() for name in row))
        table = Table(title=f"Target {each.target['name']}", title_justify="left")
        table.add_column("Map", no_wrap=True)
        for name in names:
            arrow = {True: " ↑", False: " ↓", None: ""}[METRICS[name].higher_is_better]
            table.add_column(METRICS[name].title + arrow, justify="right", overflow="fold")
        for row, (label, found) in enumerate(each.items()):
            if label in each.trivial and row and list(each)[row - 1] not in each.trivial:
                table.add_section()
            cells = []
            for name in names:
                value = mean_value(found.get(name))
                beaten = label not in each.trivial and each.beaten_by(label, METRICS[name])
                cells.append("" if value is None else f"{value:.3g}{'*' if beaten else ''}")
            table.add_row(each.titles[label], *cells)
        console.print(table)
        for label in each:
            losses = _losses(each, label)
            if losses:
                console.print(f"* {each.titles[label]}: {losses}.", soft_wrap=True)
        for label, why in each.refused.items():
            console.print(f"No map of {label}: {why}", soft_wrap=True)
        for name, why in each.missing.items():
            console.print(f"Not measured, {name}: {why}", soft_wrap=True)
    legend = "↑ higher is better, ↓ lower is better."
    console.print(
        f"{legend} Below the line: maps that know nothing of the network.", soft_wrap=True
    )
    for warning in warnings:
        console.print(f"Warning: {warning}", soft_wrap=True)
    console.print(f"Results in {folder} ({seconds:.0f} s). {NOT_FOR_CLINICAL_USE}", soft_wrap=True)


def _losses(measured: Measurements, label: str) -> str:
    """Return which trivial maps do as well as a map, by metric."""
    from neuroxai.metrics.table import METRICS

    if label in measured.trivial:
        return ""
    losses = {
        METRICS[name].title: measured.beaten_by(label, METRICS[name]) for name in measured[label]
    }
    found = [f"{title} is no better than {', '.join(o)}" for title, o in losses.items() if o]
    return "; ".join(found)
