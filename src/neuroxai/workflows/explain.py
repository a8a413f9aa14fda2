"""Explanations of one target, in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, overload

from neuroxai.core.explanation import Explanation
from neuroxai.core.layers.labels import GridLike
from neuroxai.core.progress import Report
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.scale import OutputScale
from neuroxai.data.case import Case
from neuroxai.methods.make import MethodsLike
from neuroxai.models.model import Model
from neuroxai.patient.explanations import Explanations
from neuroxai.patient.patient_map import PatientMap
from neuroxai.workflows.network_call import named_inputs
from neuroxai.workflows.question import OneTarget, RestrictionLike, one_target
from neuroxai.workflows.session import Session, open
from neuroxai.workflows.tensor_input import Network, Subject, TensorInput
from neuroxai.workflows.tensor_session import TensorSession


@overload
def explain(
    model: Model,
    subject: Case,
    methods: MethodsLike = "all",
    target: OneTarget | None = None,
    *,
    layer: str | None = None,
    layer_grid: GridLike | None = None,
    within: RestrictionLike | None = None,
    scale: OutputScale | None = None,
    inputs: None = None,
    explain_input: None = None,
    outputs: None = None,
    slice_index: int | None = None,
    seed: int = 0,
    device: str = "auto",
    memory: int | str | None = None,
    precision: str = "fp32",
    progress: Report | None = None,
) -> Explanations[PatientMap]: ...
@overload
def explain(
    model: Model | Network,
    subject: Subject,
    methods: MethodsLike = "all",
    target: OneTarget | None = None,
    *,
    layer: str | None = None,
    layer_grid: GridLike | None = None,
    within: RestrictionLike | None = None,
    scale: OutputScale | None = None,
    inputs: Any = None,
    explain_input: str | None = None,
    outputs: Outputs | None = None,
    slice_index: None = None,
    seed: int = 0,
    device: str = "auto",
    memory: int | str | None = None,
    precision: str = "fp32",
    progress: Report | None = None,
) -> Explanations[Explanation]: ...
def explain(
    model: Model | Network,
    subject: Case | Subject,
    methods: MethodsLike = "all",
    target: OneTarget | None = None,
    *,
    layer: str | None = None,
    layer_grid: GridLike | None = None,
    within: RestrictionLike | None = None,
    scale: OutputScale | None = None,
    inputs: Any = None,
    explain_input: str | None = None,
    outputs: Outputs | None = None,
    slice_index: int | None = None,
    seed: int = 0,
    device: str = "auto",
    memory: int | str | None = None,
    precision: str = "fp32",
    progress: Report | None = None,
) -> Explanations[PatientMap] | Explanations[Explanation]:
    """Explain one target of a network on a case or a tensor.

    Short for opening a session and explaining one target; see
    :func:`~neuroxai.workflows.session.open` for ``model``, ``subject``, ``inputs``,
    ``explain_input``, ``outputs``,
    ``slice_index``, ``device``, ``memory``, ``precision`` and ``progress``, and
    :meth:`Session.explain <neuroxai.workflows.base_session.BaseSession.explain>` for ``methods``,
    ``target``, ``layer``, ``layer_grid``, ``within``, ``scale`` and ``seed``.

    Raises
    ------
    NeuroXAIError
        If a parameter does not suit the network or the input. If one of several methods gives no
        map of this network, it is listed in ``refused`` instead.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    >>> maps = explain(network, torch.rand(2, 1, 8, 6), ["grad_cam", "vanilla_gradient"], 1)
    >>> tuple(maps["grad_cam"].values.shape), list(maps)
    ((2, 1, 8, 6), ['grad_cam', 'vanilla_gradient'])
    """
    open_either = cast("Callable[..., Session | TensorSession]", open)
    session = open_either(
        model, subject, inputs=inputs, explain_input=explain_input, outputs=outputs,
        slice_index=slice_index, device=device, memory=memory,
        precision=precision, progress=progress,
    )  # fmt: skip
    return session.explain(
        methods,
        one_target(target, session.outputs),
        layer=layer,
        layer_grid=layer_grid,
        within=within,
        scale=scale,
        seed=seed,
    )


def explain_inputs(
    model: Model | Network,
    subject: Subject,
    methods: MethodsLike,
    target: OneTarget | None = None,
    *,
    inputs: Any = None,
    outputs: Outputs | None = None,
    seed: int = 0,
) -> dict[str, Explanations[Explanation]]:
    """Explain one target at each floating-point input of a network in turn.

    While one input is explained, the others keep their values, also along a path: the maps of a
    path method add up for each input alone.

    Parameters
    ----------
    model, subject, inputs, outputs
        See :func:`~neuroxai.workflows.session.open`.
    methods, target, seed
        As for :func:`explain`.

    Returns
    -------
    dict
        The explanations by the name of the input, images first.

    Examples
    --------
    >>> import torch
    >>> def risk(scan, age):
    ...     return scan.mean((2, 3)) * age
    >>> maps = explain_inputs(risk, (torch.ones(1, 1, 8, 6), torch.ones(1, 1)), "vanilla_gradient")
    >>> list(maps), float(maps["age"]["vanilla_gradient"].values)
    (['scan', 'age'], 1.0)
    """
    network = model.network if isinstance(model, Model) else model
    names = named_inputs(network, TensorInput.arguments(network, subject, inputs))
    found = {}
    for name in names:
        session = open(model, subject, inputs=inputs, explain_input=name, outputs=outputs)
        found[name] = session.explain(methods, one_target(target, session.outputs), seed=seed)
    return found
