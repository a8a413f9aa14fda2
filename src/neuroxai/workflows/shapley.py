"""Modality Shapley values, in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from neuroxai.core.progress import Report
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.scale import OutputScale
from neuroxai.data.case import Case
from neuroxai.methods.removers import RemoverLike
from neuroxai.models.model import Model
from neuroxai.workflows.question import RestrictionLike, TargetsLike
from neuroxai.workflows.session import Session, open
from neuroxai.workflows.shapley_run import ModalityShapley
from neuroxai.workflows.tensor_input import Network, Subject
from neuroxai.workflows.tensor_session import TensorSession


def modality_shapley(
    model: Model | Network,
    subject: Case | Subject,
    targets: TargetsLike = None,
    *,
    remover: RemoverLike = "auto",
    value: str = "target",
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
) -> dict[str, ModalityShapley]:
    """Return how much of each target rests on each modality, as exact Shapley values.

    All sets of M modalities are evaluated, in 2^M passes for all targets together. The values of a
    target are signed, and add up to its value for the image minus that without any modality. Short
    for opening a session and :meth:`Session.modality_shapley
    <neuroxai.workflows.shapley_session.modality_shapley>`.

    Raises
    ------
    NeuroXAIError
        If there are more than 8 modalities, or a parameter does not suit the network or the input.

    Examples
    --------
    >>> import torch
    >>> def network(x):
    ...     return x.mean((2, 3)) @ torch.tensor([[2.0], [-1.0]])
    >>> found = modality_shapley(network, torch.ones(1, 2, 8, 6), 0, remover="zero")
    >>> found["0"].modalities, found["0"].values.tolist()
    (('0', '1'), [[2.0, -1.0]])
    """
    open_either = cast("Callable[..., Session | TensorSession]", open)
    session = open_either(
        model, subject, inputs=inputs, explain_input=explain_input, outputs=outputs,
        slice_index=slice_index, device=device, memory=memory, precision=precision,
        progress=progress,
    )  # fmt: skip
    return session.modality_shapley(
        targets, remover=remover, value=value, within=within, scale=scale, seed=seed
    )
