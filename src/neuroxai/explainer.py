"""The one hall where a case, a network, a target and the methods meet."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroxai.core.answers import Asks
from neuroxai.core.errors import (
    LayerError,
    MethodError,
    ModelError,
    NoMapError,
    TargetError,
    suggestion,
)
from neuroxai.core.explanation import Explanation, network_hash
from neuroxai.core.probe import Probe
from neuroxai.core.restriction import Mask, Restriction
from neuroxai.core.restriction import Prediction as PredictedRegion
from neuroxai.core.sliding_window import SlidingWindow
from neuroxai.core.target import Class, Outputs, Predicted, Region, Target, named_target
from neuroxai.core.whole_volume import WholeVolume
from neuroxai.data.case import CLASSES, Case
from neuroxai.data.preprocessing import Prepared, Preprocessing
from neuroxai.lesion import Lesion
from neuroxai.methods import make_methods
from neuroxai.methods.base import Method
from neuroxai.models.loading import DEFAULT_MODEL, load_model
from neuroxai.models.model import Model
from neuroxai.network_fault import network_faults
from neuroxai.patient_map import PatientMap
from neuroxai.prediction import Prediction, read_output

Within = Restriction | NDArray[Any] | Tensor | str
OnMethod = Callable[[Method], None]
OnGradient = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Explanations(Mapping[str, Any]):
    """The maps of one target, by the method's word.

    Attributes
    ----------
    maps
        :class:`~neuroxai.patient_map.PatientMap` for a case, ``Explanation`` for a tensor.
    refused
        Method to the reason why it gives no map here.
    prediction
        What the network says of the case; None for a tensor.
    output
        The model output at the explained point.
    shared_seconds
        What the passes took that the gradient, the guided gradient and all layer maps share; it
        is in none of the methods' own times.
    warnings
        What is odd about the case but safe to use.
    """

    maps: Mapping[str, PatientMap | Explanation]
    refused: Mapping[str, str]
    output: Tensor
    shared_seconds: float = 0.0
    prediction: Prediction | None = None
    warnings: tuple[str, ...] = ()

    def __getitem__(self, method: str) -> Any:
        if method in self.refused:
            raise NoMapError(f"{method} gave no map: {self.refused[method]}")
        if method not in self.maps:
            raise NoMapError(f"there is no map of {method!r}: {suggestion(method, self.maps)}")
        return self.maps[method]

    def __iter__(self) -> Iterator[str]:
        return iter(self.maps)

    def __len__(self) -> int:
        return len(self.maps)

    def explanation(self, method: str) -> Explanation:
        """Return a method's explanation on the network's grid."""
        found = self[method]
        explanation: Explanation = found.explanation if isinstance(found, PatientMap) else found
        return explanation


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
    x = _moved(x, network)
    question = as_target(target, outputs)
    if within is not None:
        question = _restricted(question, within, outputs, subject, prepared)
    air = prepared.air if prepared is not None else None
    probe = _probe(model, network, question, outputs, air)
    probe.passes.on_gradient = watcher.on_gradient
    explanations: dict[str, Explanation] = {}
    refused: dict[str, str] = {}
    asks = reduce(or_, (method.asks for method in made), Asks())
    blamed = network_faults(model, x) if isinstance(model, Model) else nullcontext()
    with blamed, probe.at(x, asks):
        started = time.perf_counter()
        output = probe.output()
        shared_seconds = time.perf_counter() - started
        for method in made:
            watcher.on_method(method)
            try:
                explanations[method.name] = method.explain(probe, x, seed=seed)
            except (MethodError, LayerError) as error:
                if len(made) == 1:
                    raise
                refused[method.name] = str(error)
    if not explanations:
        raise MethodError("; ".join(refused.values()))
    if prepared is None or not isinstance(model, Model) or not isinstance(subject, Case):
        return Explanations(explanations, refused, output.cpu(), shared_seconds)
    identity = describe_model(model)
    maps = {
        name: PatientMap(
            explanation,
            subject,
            prepared.placement,
            model.card.modalities if explanation.values.shape[1] > 1 else ("all",),
            identity,
        )
        for name, explanation in explanations.items()
    }
    prediction = read_output(output, outputs, subject, prepared.placement)
    warnings = (*subject.warnings, *prepared.warnings, *model.notes)
    return Explanations(maps, refused, output.cpu(), shared_seconds, prediction, warnings)


def predict(
    model: Model, case: Case, *, slice_index: int | None = None, device: str = "auto"
) -> Prediction:
    """Return what a network says of a case, on the patient's own grid."""
    prepared = prepare(model, case, slice_index, device)
    outputs = outputs_of(model)
    network = model.network.to(choose_device(device)).eval()
    x = _moved(prepared.x, network)
    probe = _probe(model, network, as_target(None, outputs), outputs, None)
    with network_faults(model, x):
        output = probe.run(x)
    return read_output(output, outputs, case, prepared.placement)


def _probe(
    model: Model | nn.Module,
    network: nn.Module,
    question: Target,
    outputs: Outputs,
    air: tuple[float, ...] | None,
) -> Probe:
    windows = model.windows if isinstance(model, Model) else None
    if windows is None:
        return WholeVolume(network, question, outputs, air=air)
    return SlidingWindow(network, question, outputs, windows=windows, air=air)


def outputs_of(model: Model) -> Outputs:
    """Return what a card says about the output channels."""
    card = model.card
    activation: Literal["softmax", "sigmoid"] = (
        "sigmoid" if card.activation == "sigmoid" else "softmax"
    )
    return Outputs(card.classes, card.regions, activation, key=model.output_key)


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
    if word == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(word)
    except RuntimeError:
        raise ModelError(f"device {word!r} is unknown: use auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {word!r} is not here: use auto or cpu")
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
        recipe = dataclasses.replace(recipe, divisor=1)
    elif model.windows is not None:
        prepared = recipe.prepare(case)
        note = (
            f"{case.name}: seen at once, while the network's answers are put together from windows "
            f"of {'×'.join(map(str, model.windows.size))} voxels"
        )
        return dataclasses.replace(prepared, warnings=(*prepared.warnings, note))
    if recipe.plane is None or slice_index is not None or case.truth is not None:
        return recipe.prepare(case, slice_index)
    segmenter = load_model(DEFAULT_MODEL)
    labels = predict(segmenter, case, device=device).labels
    prepared = recipe.prepare(case, mask=labels != 0 if labels is not None else None)
    note = f"{case.name}: the slice was chosen by the tumor that {DEFAULT_MODEL} predicts"
    return dataclasses.replace(prepared, warnings=(*prepared.warnings, note))


def _moved(x: Tensor, network: nn.Module) -> Tensor:
    parameter = next(network.parameters(), None)
    return x if parameter is None else x.to(parameter.device)


def as_target(target: Target | str | int | None, outputs: Outputs) -> Target:
    """Return what a target, a word, a number, or nothing means for a network."""
    if isinstance(target, Target):
        return target
    if isinstance(target, int):
        return Class(target)
    if isinstance(target, str):
        return named_target(target, outputs)
    return Region(next(iter(outputs.regions))) if outputs.regions else Predicted()


def _restricted(
    question: Target,
    within: Within,
    outputs: Outputs,
    subject: Case | Tensor,
    prepared: Prepared | None,
) -> Target:
    return dataclasses.replace(  # type: ignore[type-var]
        question, within=_restriction(question, within, outputs, subject, prepared)
    )


def _restriction(
    question: Target,
    within: Within,
    outputs: Outputs,
    subject: Case | Tensor,
    prepared: Prepared | None,
) -> Restriction:
    if isinstance(within, Restriction):
        return within
    if isinstance(within, str):
        kind, _, number = within.partition(":")
        if within == "prediction":
            return PredictedRegion()
        if kind == "lesion" and (number or "1").isdigit():
            return Lesion(int(number or 1))
        if within == "truth":
            return _truth(question, outputs, subject, prepared)
        raise TargetError(
            f"within={within!r} is unknown: {suggestion(within, ('prediction', 'truth', 'lesion'))}"
        )
    if prepared is None:
        return Mask(torch.as_tensor(within))
    values = prepared.placement.to_network(np.asarray(within))
    return Mask(torch.from_numpy(values), "given mask")


def _truth(
    question: Target, outputs: Outputs, subject: Case | Tensor, prepared: Prepared | None
) -> Restriction:
    if not isinstance(subject, Case) or subject.truth is None or prepared is None:
        raise TargetError("within='truth' needs a case with a label file, and this has none")
    names = outputs.names
    channels = question.channels(outputs, torch.zeros(1, len(names), 1, 1))[0].tolist()
    members = [CLASSES.index(names[c]) for c in channels if names[c] in CLASSES]
    values = prepared.placement.to_network(np.isin(subject.truth, members).astype(np.uint8))
    return Mask(torch.from_numpy(values), "truth")


__all__ = [
    "Explanations",
    "Watcher",
    "as_target",
    "choose_device",
    "describe_model",
    "explain",
    "outputs_of",
    "predict",
    "prepare",
]
