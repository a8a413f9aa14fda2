"""A session: a model opened on a case, prepared once and used many times."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, final, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.errors import ModelError
from neuroxai.core.layers.layers import layer_grid
from neuroxai.core.probe.strategy import Strategy
from neuroxai.core.progress import Report
from neuroxai.core.spatial import spatial_shape
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.scale import OutputScale
from neuroxai.core.target.target import Target
from neuroxai.data.case import Case
from neuroxai.data.preparation import Prepared
from neuroxai.inspection.filters import filters
from neuroxai.inspection.information_flow import information_flow
from neuroxai.models.formats import DEFAULT_MODEL
from neuroxai.models.loading import load_model
from neuroxai.models.model import Model
from neuroxai.patient.explanations import Explanations
from neuroxai.patient.inspection import Inspection
from neuroxai.patient.patient_map import PatientMap
from neuroxai.patient.prediction import Prediction, check_output_grid
from neuroxai.workflows.answer import Answer
from neuroxai.workflows.base_session import BaseSession, SessionOptions
from neuroxai.workflows.control import Cancel
from neuroxai.workflows.device import choose_device
from neuroxai.workflows.explanation_run import TargetResult
from neuroxai.workflows.measure import MapLike, case_facts, evidence_mask, map_on_network_grid
from neuroxai.workflows.measurement import Facts
from neuroxai.workflows.network_fault import network_faults
from neuroxai.workflows.preparation import (
    describe_model,
    needs_predicted_slice,
    outputs_of,
    prepare,
    prepare_slice,
)
from neuroxai.workflows.question import (
    RestrictionLike,
    TargetsLike,
    as_target,
    as_targets,
    every_target,
    restrict_targets,
)
from neuroxai.workflows.tensor_input import Network, Subject, TensorInput
from neuroxai.workflows.tensor_session import TensorSession

INFORMATION_FLOW = "information flow"
"""The stage that :meth:`Session.inspect` reports."""


@final
class Session(BaseSession[PatientMap]):
    """A model on a case; made by :func:`open`.

    The case is prepared, memory is planned, and network and input are hashed once. As a context
    manager a session keeps the network on its device; without one, each call moves it there and
    back. A session is for one thread at a time.

    Attributes
    ----------
    model, case
        The network with its card, and the study.
    prepared
        The network input of the case.
    """

    def __init__(
        self,
        model: Model,
        case: Case,
        prepared: Prepared,
        *,
        device: torch.device | None,
        options: SessionOptions,
    ) -> None:
        super().__init__(
            model.network, prepared.x, outputs_of(model),
            device=device, options=options, windows=model.windows,
        )  # fmt: skip
        self.model, self.case, self.prepared = model, case, prepared
        self.background_value = prepared.background_value
        self.modality_names = model.card.modalities
        self.left_right_axis = prepared.placement.left_right_axis if case.laterality_known else None
        self._answers: dict[tuple[int, ...] | None, Answer] = {}

    def __repr__(self) -> str:
        return f"<Session: {self.model.card.name} on {self.case.name}, input {tuple(self.x.shape)}>"

    @cached_property
    def identity(self) -> dict[str, str]:
        """Name and hashes of the network."""
        return describe_model(self.model)

    @cached_property
    def prediction(self) -> Prediction:
        """The network's prediction on the patient's grid, computed once."""
        answer = next(iter(self._answers.values()), None) or self._predict()
        warnings = (
            *self.prepared.warnings, *self.model.notes, *answer.prediction.warnings, *answer.notes,
        )  # fmt: skip
        return dataclasses.replace(answer.prediction, warnings=warnings)

    def inspect(
        self,
        targets: TargetsLike = None,
        *,
        filters_of: Sequence[str] = (),
        within: RestrictionLike | None = None,
        scale: OutputScale | None = None,
    ) -> Inspection:
        """Compute the class activation map of every layer.

        Parameters
        ----------
        targets
            A target or several, as for :meth:`explain`; every region and class by default.
        filters_of
            Layers whose filters are returned, by name or as ``L3``.
        within, scale
            See :meth:`explain`.

        Raises
        ------
        NeuroXAIError
            If a target or a layer does not exist, or the network fails on the case.
        CancelledError
            If the session was cancelled.
        """
        named = every_target(self.outputs) if targets is None else as_targets(targets, self.outputs)
        prepared = self.whole
        if within is not None:  # on the grid of the whole image
            named = restrict_targets(named, within, self.outputs, self.case, prepared)
        resolved = self._question(named, None, scale)
        x = prepared.x.to(self.x.device)
        self._control.start(1 + bool(filters_of))
        with self._running():
            self._control.enter(INFORMATION_FLOW)
            flow = information_flow(self.network, x, resolved, self.outputs)
            self._control.advance(1)
            found = (
                filters(self.network, x, resolved, filters_of, self.outputs) if filters_of else []
            )
        if prepared is self.prepared:
            answer = self._read(flow.output, Strategy("whole"))
        else:
            answer = Answer.read(flow.output, self.outputs, self.case, prepared)
        return Inspection(
            self.case, prepared, flow, answer.prediction, answer.regions, self.identity,
            layer_grid(self.network, spatial_shape(x)), tuple(found), self.model.notes,
        )  # fmt: skip

    @cached_property
    def whole(self) -> Prepared:
        """The network input for a pass over the whole image, also of a model made for windows."""
        if self.model.windows is None:
            return self.prepared
        return prepare(self.model, self.case, self.prepared.placement.slice_index, whole=True)

    def read(self, output: Tensor) -> Prediction:
        """Return the answer that an output of :attr:`whole` gives for the case."""
        return Answer.read(output, self.outputs, self.case, self.whole).prediction

    def _predict(self) -> Answer:
        def attempt(strategy: Strategy) -> Tensor:
            probe = self._planner.probe(strategy, target, settings=PassSettings(self.precision))
            probe.before_pass, probe.on_output = self._control.check, self._control.advance
            with probe.frozen():
                return probe.output_at(self.x)

        target = as_target(None, self.outputs)
        self._control.start(1)
        self._control.enter("prediction")
        with self._running():
            output, strategy = self._planner.run(attempt, gradient=False)
        self._control.reach(1)
        return self._read(output, strategy, self._planner.plan(gradient=False).notes(strategy))

    def _read(self, output: Tensor, strategy: Strategy, notes: tuple[str, ...] = ()) -> Answer:
        """Return the answer to the case; the outputs of one strategy are the same and read once."""
        key = None if strategy.windows is None else strategy.windows.size
        if key not in self._answers:
            answer = Answer.read(output, self.outputs, self.case, self.prepared)
            self._answers[key] = dataclasses.replace(answer, notes=notes)
        return self._answers[key]

    def _explanations(self, result: TargetResult) -> Explanations[PatientMap]:
        memory_notes = self._planner.plan().notes(result.strategy)
        answer = self._read(result.output, result.strategy, memory_notes)
        modalities = self.model.card.modalities
        first = next(iter(result.explanations.values()))
        level = answer.chance_level(first.within, self.prepared, modalities)
        maps = {
            name: PatientMap(
                explanation,
                self.case,
                self.prepared.placement,
                ("all",) if explanation.shared else modalities,
                self.identity,
                regions=answer.regions,
                chance_level=level,
            )
            for name, explanation in result.explanations.items()
        }
        warnings = (
            *self.case.warnings, *self.prepared.warnings, *self.model.notes,
            *answer.prediction.warnings, *result.notes,
        )  # fmt: skip
        return Explanations(
            maps, result.refused, result.output, result.memory, result.shared_seconds,
            answer.prediction, warnings, result.deviation, result.unfinished,
        )  # fmt: skip

    def _check_output(self, output: Tensor) -> None:
        check_output_grid(output, self.prepared.placement.grid, self.case.name, self.outputs)

    def _restrict(self, targets: Sequence[Target], within: RestrictionLike) -> list[Target]:
        return restrict_targets(targets, within, self.outputs, self.case, self.prepared)

    def _facts(self, target: Target, mask: RestrictionLike | None) -> Facts:
        evidence = evidence_mask(mask, target, self.outputs, self.x, self.case, self.prepared)
        return case_facts(self.case, self.prepared, self.model.card.modalities, evidence)

    def _map(self, given: MapLike) -> Tensor:
        return map_on_network_grid(given, self.x, self.case, self.prepared)

    def _faults(self) -> AbstractContextManager[None]:
        return network_faults(self.model, self.x)


@overload
def open(
    model: Model,
    subject: Case,
    *,
    inputs: None = None,
    explain_input: None = None,
    outputs: None = None,
    slice_index: int | None = None,
    device: str = "auto",
    memory: int | str | None = None,
    precision: str = "fp32",
    progress: Report | None = None,
    cancel: Cancel | None = None,
) -> Session: ...
@overload
def open(
    model: Model | Network,
    subject: Subject,
    *,
    inputs: Any = None,
    explain_input: str | None = None,
    outputs: Outputs | None = None,
    slice_index: None = None,
    device: str = "auto",
    memory: int | str | None = None,
    precision: str = "fp32",
    progress: Report | None = None,
    cancel: Cancel | None = None,
) -> TensorSession: ...
def open(
    model: Model | Network,
    subject: Case | Subject,
    *,
    inputs: Any = None,
    explain_input: str | None = None,
    outputs: Outputs | None = None,
    slice_index: int | None = None,
    device: str = "auto",
    memory: int | str | None = None,
    precision: str = "fp32",
    progress: Report | None = None,
    cancel: Cancel | None = None,
) -> Session | TensorSession:
    """Open a model on a case, or a network on a tensor, to use it several times.

    Parameters
    ----------
    model
        A loaded model; or any module or function, for a tensor. It is left as it was found:
        weights, flags, hooks, random state, and its device. The layers of a function are those of
        the modules that it refers to.
    subject
        A case, or a tensor ``(B, C, H, W)`` or ``(B, C, D, H, W)``. A NumPy array is converted to
        the type of the network's weights, with a note. For a network of several inputs, a tuple is
        its arguments, a list its only argument, and a dict its named arguments, or its only one if
        the keys are not names of parameters.
    inputs
        Further arguments of a network, which stay fixed: a tuple, or a dict by name, of tensors,
        dicts or lists.
    explain_input
        The input to explain, by the name of its parameter, with a dot and the key of a dict or
        list; by default the first image. The others stay fixed.
    outputs
        The names of a module's output channels. A loaded model has them in its card.
    slice_index
        The axial slice for a 2D network, counted from the feet. By default the slice with the
        largest tumor in the truth, or in the prediction of ``deepseg-phantom``.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:1``. ``auto`` leaves a module where it is.
    memory
        Memory that a pass may take in addition to the process itself, in bytes or as ``4GB``; by
        default 80 % of what is available. If the whole image does not fit, blocks of the network
        are checkpointed; if that does not fit either, a segmenter runs on windows, with a warning.
    precision
        ``fp32``, ``tf32`` (NVIDIA GPUs) or ``bf16``. The deviation of a reduced precision from
        ``fp32`` is measured by one gradient of each, and reported.
    progress
        Called with the stage, the steps done, and all steps.
    cancel
        A function that returns whether to cancel, or an event. It is checked before each pass
        through the network and before each method; the work then stops with ``CancelledError``.

    Raises
    ------
    NeuroXAIError
        If a parameter does not suit the model or the case.

    Examples
    --------
    >>> from neuroxai.data.phantom import make_phantom
    >>> model, case = load_model("deepseg-phantom"), make_phantom(7, spacing=3.0).case
    >>> with open(model, case) as session:
    ...     maps = session.explain("grad_cam", ["WT", "ET"])
    >>> list(maps), list(session.prediction.regions)
    (['WT', 'ET'], ['WT', 'TC', 'ET'])
    """
    options = SessionOptions(memory, precision, progress, cancel)
    if isinstance(subject, Case):
        if inputs is not None or explain_input is not None:
            raise ModelError("inputs= and explain_input= are for a network on tensors, not a case")
        if not isinstance(model, Model):
            raise ModelError(
                "a case needs a model with a card, which has its modalities and preprocessing: "
                "load one with load_model, or explain the module on a tensor"
            )
        place = choose_device(device)
        prepared = _prepare(model, subject, slice_index, device)
        return Session(model, subject, prepared, device=place, options=options)
    network = model.network if isinstance(model, Model) else model
    given = TensorInput.read(network, subject, inputs, explain_input)
    if isinstance(model, Model):
        return TensorSession(
            given, outputs or outputs_of(model),
            device=choose_device(device), options=options, windows=model.windows,
        )  # fmt: skip
    own = None if device == "auto" else choose_device(device)
    return TensorSession(given, outputs or Outputs(), device=own, options=options)


def _prepare(model: Model, case: Case, slice_index: int | None, device: str) -> Prepared:
    """Return the network input; a slice for a 2D network may need a predicted tumor."""
    if slice_index is not None or not needs_predicted_slice(model, case):
        return prepare(model, case, slice_index)
    labels = open(load_model(DEFAULT_MODEL), case, device=device).prediction.labels
    tumor: NDArray[np.bool_] | None = None if labels is None else labels != 0
    return prepare_slice(model, case, tumor, DEFAULT_MODEL)
