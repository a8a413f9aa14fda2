"""Modality Shapley values of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuroxai.core.target.scale import OutputScale
from neuroxai.methods.removers import RemoverLike
from neuroxai.workflows.question import RestrictionLike, TargetsLike, as_targets, every_lesion
from neuroxai.workflows.shapley_run import ModalityShapley, ShapleyRun, players_of

if TYPE_CHECKING:
    from neuroxai.workflows.base_session import BaseSession


def modality_shapley(
    session: BaseSession[Any],
    targets: TargetsLike = None,
    *,
    remover: RemoverLike = "auto",
    value: str = "target",
    within: RestrictionLike | None = None,
    scale: OutputScale | None = None,
    seed: int = 0,
) -> dict[str, ModalityShapley]:
    """Compute the exact Shapley values of the modalities, from all sets of them.

    Parameters
    ----------
    targets
        A target or several, as for :meth:`explain`; by default each region, and each class that
        is neither a region nor the background; of a classifier, the predicted class.
    remover
        What takes the place of a modality that is removed, see
        :class:`~neuroxai.methods.removers.Remover`.
    value
        ``target``, ``dice`` or ``volume``, see
        :func:`~neuroxai.methods.perturbation.values.value_function`.
    within, scale, seed
        As for :meth:`explain`.

    Returns
    -------
    dict
        The Shapley values by the name of the target, whose place is fixed at the full input.

    Raises
    ------
    NeuroXAIError
        If there are more than 8 modalities, or a parameter does not suit the network.
    CancelledError
        If the session was cancelled.
    """
    names = session.modality_names or tuple(map(str, range(session.x.shape[1])))
    outputs = session.outputs
    named = every_lesion(outputs) if targets is None else as_targets(targets, outputs)
    run = ShapleyRun(
        session._planner, session._question(named, within, scale), players_of(names),
        session._control, remover, value, seed, session.precision, session.background_value,
        session.left_right_axis, session.input_sha256,
    )  # fmt: skip
    with session._running():
        return run.results()
