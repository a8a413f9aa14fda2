"""The information flow through a network on a case, in one call."""

from __future__ import annotations

from collections.abc import Sequence

from neuroxai.core.target.scale import OutputScale
from neuroxai.data.case import Case
from neuroxai.models.model import Model
from neuroxai.patient.inspection import Inspection
from neuroxai.workflows.question import RestrictionLike, TargetsLike
from neuroxai.workflows.session import open


def inspect(
    model: Model,
    case: Case,
    targets: TargetsLike = None,
    *,
    filters_of: Sequence[str] = (),
    within: RestrictionLike | None = None,
    scale: OutputScale | None = None,
    slice_index: int | None = None,
    device: str = "auto",
) -> Inspection:
    """Compute the class activation map of every layer of a network on a case.

    Short for :meth:`Session.inspect <neuroxai.workflows.session.Session.inspect>`, with the
    parameters of :func:`~neuroxai.workflows.session.open`.

    Parameters
    ----------
    model
        A loaded model; it is left as it was found.
    case
        The study.
    targets
        The targets; every region and every class by default.
    filters_of
        Layers whose filters are returned, by name or as ``L3``.
    within, scale
        See :meth:`Session.explain <neuroxai.workflows.base_session.BaseSession.explain>`.
    slice_index
        The axial slice for a 2D network.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises
    ------
    NeuroXAIError
        If a target or a layer does not exist, or the network fails on the case.
    """
    session = open(model, case, slice_index=slice_index, device=device)
    return session.inspect(targets, filters_of=filters_of, within=within, scale=scale)
