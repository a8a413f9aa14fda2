"""The one hall where a case, a network, a target and the methods meet."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from neuroxai.core.engine.memory import parse_size
from neuroxai.core.engine.precision import check_precision, upcast
from neuroxai.core.engine.settings import PassSettings, check_device_name
from neuroxai.core.errors import LayerError, MethodError, ModelError
from neuroxai.core.explanation import Explanation, network_hash
from neuroxai.core.probe.deviation import deviation_notes, measure_deviation
from neuroxai.core.probe.memory_plan import (
    MemoryPlan,
    Strategy,
    plan_memory,
    probe_for,
    run_with_fallback,
)
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.requests import Request
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Target
from neuroxai.data.case import Case
from neuroxai.data.preparation import Prepared
from neuroxai.data.preprocessing import Preprocessing
from neuroxai.methods import make_methods
from neuroxai.methods.base import Method, check_input
from neuroxai.models.formats import DEFAULT_MODEL
from neuroxai.models.loading import load_model
from neuroxai.models.model import Model
from neuroxai.patient.explanations import Explanations
from neuroxai.patient.patient_map import PatientMap
from neuroxai.patient.prediction import Prediction, read_output
from neuroxai.patient.regions import Regions
from neuroxai.workflows.network_fault import network_faults
from neuroxai.workflows.question import Within, as_target, place_notes, restricted

_Run = tuple[dict[str, Explanation], dict[str, str], Tensor, float]
OnMethod = Callable[[Method], None]
OnGradient = Callable[[int], None]


@dataclass(frozen=True)
class Watcher:
    """Told what goes on, for a progress bar."""

    on_method: OnMethod = field(default=lambda method: None)
    on_gradient: OnGradient = field(default=lambda samples: None)


def explain(
    model: Model | nn.Module,
    subject: Case | Tensor,
    methods: str | Method | Iterable[str | Method] = "all",
    target: Target | str | int | None = None,
    *,
    layer: str | None = None,
    within: Within | None = None,
    outputs: Outputs | None = None,
    slice_index: int | None = None,
    seed: int = 0,
    device: str = "auto",
    memory: int | str | None = None,
    precision: str = "fp32",
    watcher: Watcher | None = None,
) -> Explanations:
    """Explain a network's answer on a case or a tensor.

    Parameters
    ----------
    model
        A loaded checkpoint, or any module; the network is left as found.
    subject
        A case, or a tensor ``(B, C, H, W)`` or ``(B, C, D, H, W)``.
    methods
        Words from ``METHODS``, ready-made methods, or ``all``.
    target
        A target, a class or region by name, a class by number. Default: a classifier's predicted
        class; a segmenter's first region.
    layer
        For the methods that look into a layer.
    within
        Restrict a segmenter's target: ``"prediction"``, ``"truth"``, ``"lesion:1"``, a mask on
        the case's own grid (on the network's, for a tensor), or a restriction.
    outputs
        What the output channels of a bare module mean.
    slice_index
        The axial slice for a 2D network, counted from the feet; by default the one with the
        largest tumor in the truth, else in what ``deepseg-phantom`` predicts.
    device
        ``auto``, ``cpu``, ``cuda``; a bare module stays where it is.
    memory
        Bytes that a pass may take beside the process itself, or a size such as ``4GB``; by
        default 80 % of what the device has left. Where the whole image does not fit, blocks of the
        network are run twice; where that does not fit either, a segmenter looks through windows,
        and a warning says so.
    precision
        ``fp32``; on request ``tf32`` (NVIDIA GPUs) or ``bf16``. What that does to the gradient and
        the answer is then measured against ``fp32``, by one gradient of each, and said.

    Raises
    ------
    NeuroXAIError
        In one sentence, if something does not fit. If several methods were asked for and one is
        void on this network, it is listed in ``refused`` instead.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    >>> maps = explain(network, torch.rand(2, 1, 8, 6), ["grad_cam", "vanilla_gradient"], 1)
    >>> tuple(maps["grad_cam"].values.shape), list(maps)
    ((2, 1, 8, 6), ['grad_cam', 'vanilla_gradient'])
    """
    made = make_methods(methods, layer)
    watcher = watcher or Watcher()
    if isinstance(model, Model):
        network = model.network.to(choose_device(device))
        outputs = outputs or outputs_of(model)
    else:
        network, outputs = model, outputs or Outputs()
    prepared: Prepared | None = None
    if isinstance(subject, Case):
        if not isinstance(model, Model):
            raise ModelError(
                "a case needs a model with a card, which says modalities and preprocessing: "
                "load one with load_model, or explain the bare module on a tensor"
            )
        prepared = prepare(model, subject, slice_index, device)
        x = prepared.x
    else:
        x = subject
    check_input(x)
    x = upcast(_moved(x, network))
    check_precision(precision, x.device)
    question = as_target(target, outputs)
    if within is not None:
        question = restricted(question, within, outputs, subject, prepared)
    background_value = prepared.background_value if prepared is not None else None
    blamed = network_faults(model, x) if isinstance(model, Model) else nullcontext()
    windows = model.windows if isinstance(model, Model) else None

    def attempt(way: Strategy) -> tuple[_Run, Mapping[str, Any]]:
        def probe(settings: PassSettings) -> Probe:
            return probe_for(
                way, network, question, outputs, background_value, windows, plan.budget, settings
            )

        watched = probe(PassSettings(precision))
        watched.on_gradient = watcher.on_gradient
        found = _run(made, watched, x, seed, watcher)
        return found, {} if precision == "fp32" else measure_deviation(probe, x, precision)

    with blamed:
        plan = _plan(model, network, x, outputs, memory)
        more = partial(plan_memory, network, x, outputs)
        (run, deviation), way, plan = run_with_fallback(plan, more, attempt)
    explanations, refused, output, shared_seconds = run
    if not explanations:
        raise MethodError("; ".join(refused.values()))
    explanations = {name: _deviating(each, deviation) for name, each in explanations.items()}
    run_notes = (
        *place_notes(question, outputs, output), *plan.notes(way), *deviation_notes(deviation)
    )  # fmt: skip
    memory_facts = plan.describe(way)
    if prepared is None or not isinstance(model, Model) or not isinstance(subject, Case):
        return Explanations(
            explanations, refused, output.cpu(), shared_seconds,
            warnings=run_notes, memory=memory_facts, deviation=deviation,
        )  # fmt: skip
    identity = describe_model(model)
    prediction = read_output(output, outputs, subject, prepared.placement)
    regions = Regions(
        subject, prepared.placement, prediction.labels if prediction.of_tumors else None
    )
    maps = {
        name: PatientMap(
            explanation,
            subject,
            prepared.placement,
            ("all",) if explanation.shared else model.card.modalities,
            identity,
            regions=regions,
        )
        for name, explanation in explanations.items()
    }
    warnings = (
        *subject.warnings, *prepared.warnings, *model.notes, *prediction.warnings, *run_notes
    )  # fmt: skip
    return Explanations(
        maps, refused, output.cpu(), shared_seconds, prediction, warnings, memory_facts, deviation
    )


def _deviating(explanation: Explanation, deviation: Mapping[str, Any]) -> Explanation:
    """Return a map that carries how far its arithmetic is from full precision."""
    if not deviation:
        return explanation
    provenance = {**explanation.provenance, "deviation_from_fp32": dict(deviation)}
    return dataclasses.replace(explanation, provenance=provenance)


def _run(methods: Sequence[Method], probe: Probe, x: Tensor, seed: int, watcher: Watcher) -> _Run:
    """Return every method's explanation or refusal, the output, and the shared passes' time."""
    explanations: dict[str, Explanation] = {}
    refused: dict[str, str] = {}
    requests = frozenset[Request]().union(*(method.requests for method in methods))
    with probe.at(x, requests):
        started = time.perf_counter()
        output = probe.output()
        shared_seconds = time.perf_counter() - started
        for method in methods:
            watcher.on_method(method)
            try:
                explanations[method.name] = method.explain(probe, x, seed=seed)
            except (MethodError, LayerError) as error:
                if len(methods) == 1:
                    raise
                refused[method.name] = str(error)
    return explanations, refused, output, shared_seconds


def _plan(
    model: Model | nn.Module,
    network: nn.Module,
    x: Tensor,
    outputs: Outputs,
    memory: int | str | None,
    *,
    gradient: bool = True,
) -> MemoryPlan:
    budget = None if memory is None else parse_size(memory)
    if not isinstance(model, Model):
        always = budget is not None
        return plan_memory(network, x, outputs, budget, always=always, gradient=gradient)
    if model.windows is not None:
        part = x.new_zeros((*x.shape[:2], *model.windows.size))
        plan = plan_memory(network, part, outputs, budget, gradient=gradient)
        return dataclasses.replace(
            plan,
            ways=tuple(way for way in plan.ways if way.windows is None) or (Strategy("whole"),),
        )
    # What is printed beside a map is predicted; a mere answer asks only if memory is short.
    always = x.dim() == 5 and (gradient or budget is not None)
    return plan_memory(network, x, outputs, budget, always=always, gradient=gradient)


def predict(
    model: Model,
    case: Case,
    *,
    slice_index: int | None = None,
    device: str = "auto",
    memory: int | str | None = None,
) -> Prediction:
    """Return what a network says of a case, on the patient's own grid.

    ``memory`` are the bytes that the pass may take, or a size such as ``4GB``. Where the whole
    image does not fit, or memory runs out, a segmenter looks through windows, and says so.
    """
    prepared = prepare(model, case, slice_index, device)
    outputs = outputs_of(model)
    network = model.network.to(choose_device(device))
    x = _moved(prepared.x, network)
    question = as_target(None, outputs)

    def attempt(way: Strategy) -> Tensor:
        probe = probe_for(way, network, question, outputs, None, model.windows)
        with probe.frozen():
            return probe.run(x)

    with network_faults(model, x):
        plan = _plan(model, network, x, outputs, memory, gradient=False)
        more = partial(plan_memory, network, x, outputs, gradient=False)
        output, way, plan = run_with_fallback(plan, more, attempt)
    answer = read_output(output, outputs, case, prepared.placement)
    warnings = (*prepared.warnings, *model.notes, *answer.warnings, *plan.notes(way))
    return dataclasses.replace(answer, warnings=warnings)


def outputs_of(model: Model) -> Outputs:
    """Return what a card says about the output channels."""
    card = model.card
    activation: Literal["softmax", "sigmoid"] = (
        "sigmoid" if card.activation == "sigmoid" else "softmax"
    )
    return Outputs(
        card.classes, card.regions, activation, key=model.output_key,
        smallest_enhancement_mm3=card.smallest_enhancement_mm3,
    )  # fmt: skip


def describe_model(model: Model) -> dict[str, str]:
    """Return a network's name and the hash that pins it."""
    return {
        "name": model.card.name,
        "architecture": model.card.architecture,
        "weights_sha256": model.weights_sha256,
        "state_sha256": network_hash(model.network),
    }


def choose_device(word: str) -> torch.device:
    """Return the device meant by ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises
    ------
    ModelError
        If there is no such device.
    """
    check_device_name(word)
    if word == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(word)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {word!r} is not available: use auto or cpu")
    return device


def prepare(
    model: Model,
    case: Case,
    slice_index: int | None,
    device: str = "auto",
    *,
    at_once: bool = False,
) -> Prepared:
    """Return a case as the model takes it; choose a slice for a 2D network.

    ``at_once`` is for those who send the whole image through a network that is meant to look
    through windows: it is padded to what the network can divide, and a warning says so.
    """
    recipe = Preprocessing.from_dict(model.card.preprocessing)
    if model.windows is not None and not at_once:
        recipe = recipe.replace(divisor=model.windows.divisor)
    elif model.windows is not None:
        prepared = recipe.prepare(case)
        note = (
            f"{case.name}: seen at once, while the network's answers are put together from windows "
            f"of {'×'.join(map(str, model.windows.size))} voxels"
        )
        return dataclasses.replace(prepared, warnings=(*prepared.warnings, note))
    chosen = slice_index is not None or case.truth is not None or not case.laterality_known
    if recipe.plane is None or chosen:
        return recipe.prepare(case, slice_index)
    segmenter = load_model(DEFAULT_MODEL)
    labels = predict(segmenter, case, device=device).labels
    prepared = recipe.prepare(case, mask=labels != 0 if labels is not None else None)
    note = f"{case.name}: the slice was chosen by the tumor that {DEFAULT_MODEL} predicts"
    return dataclasses.replace(prepared, warnings=(*prepared.warnings, note))


def _moved(x: Tensor, network: nn.Module) -> Tensor:
    parameter = next(network.parameters(), None)
    return x if parameter is None else x.to(parameter.device)


__all__ = [
    "Explanations",
    "Watcher",
    "choose_device",
    "describe_model",
    "explain",
    "outputs_of",
    "predict",
    "prepare",
]
