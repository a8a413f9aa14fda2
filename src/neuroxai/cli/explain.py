"""``neuroxai explain``: why did the network say so."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from neuroxai.cli import options
from neuroxai.cli.console import plain
from neuroxai.cli.progress import bars

if TYPE_CHECKING:
    from neuroxai.methods.base import Method
    from neuroxai.models.model import Model
    from neuroxai.reports.explain import CaseReport
    from neuroxai.workflows.explain import Watcher


def explain(
    case: options.CasePath = None,
    file: options.File = None,
    model: options.ModelName = "deepseg-phantom",
    weights: options.WeightsFile = None,
    card: options.CardFile = None,
    trust: options.Trust = False,
    method: options.Methods = None,
    target: options.Targets = None,
    layer: options.Layer = None,
    within: options.Within = None,
    slice_index: options.Slice = None,
    parameter: options.Parameters = None,
    layout: options.LayoutName = None,
    device: options.Device = "auto",
    memory: options.Memory = None,
    precision: options.Arithmetic = "fp32",
    seed: options.Seed = 0,
    out: options.Out = None,
) -> None:
    """Explain a network's answer with maps on the patient's own scan. Not for clinical use."""
    from neuroxai.core.engine.allocator import tune_allocator
    from neuroxai.core.target.target import named_target
    from neuroxai.files.folder import Results, refuse_other_case, results_folder
    from neuroxai.models.loading import load_model
    from neuroxai.reports.explain import CaseReport
    from neuroxai.workflows.explain import explain as run
    from neuroxai.workflows.explain import outputs_of

    started = time.perf_counter()
    tune_allocator()
    made = _methods(method or ["all"], layer, parameter)
    options.check_case(case, file, layout)
    options.check_run(device, memory, precision, within)
    loaded = load_model(model, weights=weights, card=card, trust=trust)
    outputs = outputs_of(loaded)
    words = dict.fromkeys(target or _default_targets(loaded))
    targets, notes = options.distinct_targets(
        (named_target(word, outputs) for word in words), outputs
    )
    study = options.read_one_case(case, file, layout, loaded)
    progress = _Progress(made, len(targets))
    folder = results_folder(out, study.name)
    refuse_other_case(folder, "summary.json", study.name)
    with Results(folder) as results:
        report = CaseReport(results, warnings=notes)
        with progress:
            for question in targets:
                watcher = progress.watch(question.name)
                explanations = run(
                    loaded, study, made, question, within=within, slice_index=slice_index,
                    seed=seed, device=device, memory=memory, precision=precision, watcher=watcher,
                )  # fmt: skip
                progress.write(question.name)
                report.add(explanations)
        report.finish(explanations, seconds=time.perf_counter() - started)
    print_report(report, explanations.memory)


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


def _methods(words: list[str], layer: str | None, parameters: list[str] | None) -> list[Method]:
    from neuroxai.core.errors import MethodError
    from neuroxai.methods import make_method, make_methods

    wanted = make_methods("all" if "all" in words else words, layer)
    given = options.parse_parameters(parameters)
    for name in given:
        if name not in [method.name for method in wanted]:
            make_method(name)
            raise MethodError(f"--set {name}: the method {name} is not asked for, add --method")
        own = given[name].get("layer", layer)
        if layer and own != layer:
            raise MethodError(
                f"--layer {layer!r} and --set {name}.layer={own!r} disagree: give one of them"
            )
    layered = {"layer": layer} if layer else {}
    return [
        make_method(m.name, {**(layered if hasattr(m, "layer") else {}), **given[m.name]})
        if m.name in given
        else m
        for m in wanted
    ]


def _default_targets(model: Model) -> list[str]:
    return list(model.card.regions)[:1] or ["predicted"]


class _Progress:
    """One bar over all targets; a step is one gradient of the network."""

    def __init__(self, methods: list[Method], targets: int) -> None:
        self._bar = bars()
        self._steps = sum(max(1, method.gradients) for method in methods)
        self._targets = targets
        self._done = 0

    def __enter__(self) -> _Progress:
        self._bar.start()
        self._task = self._bar.add_task("Starting", total=self._steps * self._targets)
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def watch(self, target: str) -> Watcher:
        from neuroxai.workflows.explain import Watcher

        return Watcher(
            lambda method: self._bar.update(self._task, description=f"{target}: {method.title}"),
            lambda samples: self._bar.advance(self._task, samples),
        )

    def write(self, target: str) -> None:
        self._done += 1
        self._bar.update(
            self._task, completed=self._steps * self._done, description=f"{target}: writing"
        )
