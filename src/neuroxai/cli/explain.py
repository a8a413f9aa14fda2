"""``neuroxai explain``: attribution maps for a case."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from neuroxai.cli import checks, options
from neuroxai.cli.case import distinct_targets, read_one_case
from neuroxai.cli.progress import bars
from neuroxai.cli.tables import print_report

if TYPE_CHECKING:
    from neuroxai.methods.base import Method
    from neuroxai.models.model import Model
    from neuroxai.workflows.explain import Watcher


def explain(
    case: options.CasePath = None,
    file: options.File = None,
    model: options.ModelName = options.DEFAULT_MODEL,
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
    precision: options.Precision = "fp32",
    seed: options.Seed = 0,
    out: options.Out = None,
) -> None:
    """Explain a network's output with attribution maps.

    Research use only, not for clinical use.
    """
    requests = checks.requested_methods(method, layer, parameter)
    checks.check_run(device, memory, precision, within)
    checks.check_case(case, file, layout)
    checks.check_inputs(case, file, layout, checks.check_network(model, weights, card))

    from neuroxai.core.engine.allocator import tune_allocator
    from neuroxai.core.target.target import named_target
    from neuroxai.files.folder import Results, refuse_other_case
    from neuroxai.files.names import results_folder
    from neuroxai.methods import make_method
    from neuroxai.models.loading import load_model
    from neuroxai.reports.explain import CaseReport
    from neuroxai.workflows.explain import explain as run
    from neuroxai.workflows.explain import outputs_of

    started = time.perf_counter()
    tune_allocator()
    made = [make_method(name, parameters) for name, parameters in requests.items()]
    checks.check_hardware(device, precision)
    loaded = load_model(model, weights=weights, card=card, trust=trust)
    outputs = outputs_of(loaded)
    words = dict.fromkeys(target or _default_targets(loaded))
    targets, notes = distinct_targets((named_target(word, outputs) for word in words), outputs)
    study = read_one_case(case, file, layout, loaded)
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


def _default_targets(model: Model) -> list[str]:
    return list(model.card.regions)[:1] or ["predicted"]


class _Progress:
    """One bar for all targets; a step is one gradient of the network."""

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
        """Return the callbacks that move the bar while a target is explained."""
        from neuroxai.workflows.explain import Watcher

        return Watcher(
            lambda method: self._bar.update(self._task, description=f"{target}: {method.title}"),
            lambda samples: self._bar.advance(self._task, samples),
        )

    def write(self, target: str) -> None:
        """Show that a target's maps are complete and its files are being written."""
        self._done += 1
        self._bar.update(
            self._task, completed=self._steps * self._done, description=f"{target}: writing"
        )
