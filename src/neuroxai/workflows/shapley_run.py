"""The Shapley values of modalities, from passes that all targets share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.errors import MethodError
from neuroxai.core.explanation import versions
from neuroxai.core.probe.memory_plan import MemoryPlanner
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.shared_point import SharedPoint, share_point
from neuroxai.core.probe.strategy import Strategy
from neuroxai.core.target.target import Target
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.methods.perturbation.shapley import MOST_PLAYERS, every_coalition, shapley_values
from neuroxai.methods.perturbation.value_names import UNITS, check_value
from neuroxai.methods.perturbation.values import value_function
from neuroxai.methods.remover_names import check_remover
from neuroxai.methods.removers import Remover, RemoverLike
from neuroxai.workflows.control import Control
from neuroxai.workflows.question import place_notes

CITATION = "arXiv:2203.06487"
"""Jin et al. 2022, who compare maps of multimodal images with modality Shapley values."""

Players = Mapping[str, Sequence[int]]
"""Name of a modality to its channels."""


def players_of(names: Iterable[str]) -> dict[str, list[int]]:
    """Return the channels of each modality, from the modality of each channel.

    Examples
    --------
    >>> players_of(("T1", "FLAIR", "T1"))
    {'T1': [0, 2], 'FLAIR': [1]}
    """
    found: dict[str, list[int]] = {}
    for channel, name in enumerate(names):
        found.setdefault(name, []).append(channel)
    return found


@dataclass(frozen=True, eq=False)
class ModalityShapley:
    r"""The Shapley values of the modalities for one target.

    The value :math:`v(S)` of a set of modalities is that of the network on the image in which the
    others are removed. The Shapley values are signed, and add up to v(all) − v(none).

    Attributes
    ----------
    modalities
        Their names.
    coalitions
        ``(B, 2^M)``, the value of each set of modalities; modality i is in the sets whose number
        has bit i.
    target
        Description of the bound target.
    remover, value
        What takes the place of a removed modality, and what is measured.
    notes
        Sentences for the reader.
    provenance
        Seed, device, versions, hashes of the network and the input.
    """

    modalities: tuple[str, ...]
    coalitions: Tensor
    target: Mapping[str, Any]
    remover: str
    value: str
    notes: tuple[str, ...]
    provenance: Mapping[str, Any]

    def __repr__(self) -> str:
        each = zip(self.modalities, self.values[0].tolist(), strict=True)
        shown = ", ".join(f"{name} {value:+.3g}" for name, value in each)
        return f"<Modality Shapley values of {self.target['name']}: {shown}>"

    @cached_property
    def values(self) -> Tensor:
        """The Shapley values, ``(B, M)``."""
        return shapley_values(self.coalitions.T).T

    @property
    def full(self) -> Tensor:
        """The value ``(B,)`` with all modalities."""
        return self.coalitions[:, -1]

    @property
    def none(self) -> Tensor:
        """The value ``(B,)`` without any modality."""
        return self.coalitions[:, 0]

    @property
    def shares(self) -> Tensor:
        r"""The shares :math:`|\phi_i| / \sum_j |\phi_j|`, ``(B, M)``; zero if all are zero."""
        size = self.values.abs()
        return size / size.sum(dim=1, keepdim=True).clamp(min=1e-300)

    @property
    def units(self) -> str:
        """The unit of the values."""
        scale = str(self.target.get("scale", "target"))
        return UNITS[self.value].replace("the target", f"the target ({scale})")

    def describe(self) -> dict[str, Any]:
        """Return everything as plain values for JSON, with one entry per sample in each list."""
        return {
            "target": dict(self.target),
            "modalities": list(self.modalities),
            "values": self.values.tolist(),
            "shares": self.shares.tolist(),
            "full": self.full.tolist(),
            "none": self.none.tolist(),
            "coalitions": self.coalitions.tolist(),
            "remover": self.remover,
            "value": self.value,
            "units": self.units,
            "notes": list(self.notes),
            "provenance": dict(self.provenance),
            "use": NOT_FOR_CLINICAL_USE,
        }


@dataclass(eq=False)
class ShapleyRun:
    """Evaluates all sets of modalities, for all targets at once.

    Attributes
    ----------
    planner
        Chooses how the network is run on the input.
    targets
        What is explained.
    players
        The modalities and their channels.
    control
        Progress and cancellation.
    remover, value
        See :class:`~neuroxai.methods.removers.Remover` and
        :func:`~neuroxai.methods.perturbation.values.value_function`.
    seed, precision, background_value, left_right_axis, input_sha256
        As for :class:`~neuroxai.workflows.explanation_run.ExplanationRun`.
    """

    planner: MemoryPlanner
    targets: Sequence[Target]
    players: Players
    control: Control
    remover: RemoverLike = "auto"
    value: str = "target"
    seed: int = 0
    precision: str = "fp32"
    background_value: tuple[float, ...] | None = None
    left_right_axis: int | None = None
    input_sha256: str | None = None

    def __post_init__(self) -> None:
        """Check the names, and that all sets can be evaluated."""
        if isinstance(self.remover, str):
            check_remover("modality Shapley values", self.remover)
        check_value("modality Shapley values", self.value)
        if len(self.players) > MOST_PLAYERS:
            raise MethodError(
                f"modality Shapley values of {len(self.players)} modalities take "
                f"2^{len(self.players)} passes, expected at most {MOST_PLAYERS} modalities: use "
                "kernel_shap with features='modalities'"
            )

    def results(self) -> dict[str, ModalityShapley]:
        """Return the Shapley values by the name of the target.

        Raises
        ------
        NeuroXAIError
            If the value cannot be computed for the network's output.
        CancelledError
            If the run was cancelled.
        """
        self.control.start((2 ** len(self.players) - 1) * len(self.planner.x))
        found, strategy = self.planner.run(self._attempt, gradient=False)
        notes = self.planner.plan(gradient=False).notes(strategy)
        return {name: replace(each, notes=(*each.notes, *notes)) for name, each in found.items()}

    def _attempt(self, strategy: Strategy) -> dict[str, ModalityShapley]:
        self.control.enter("modality Shapley values")
        probe = self._probe(strategy)
        points = share_point(probe, self.planner.x, (), self.targets)
        first = points[0]
        with first.entered(), torch.no_grad():
            remover = Remover(self.remover, first.probe, first.x, self.seed)
            values = self._values(points, remover)
        found = [
            self._result(target, point, coalitions, remover.name)
            for target, point, coalitions in zip(self.targets, points, values, strict=True)
        ]
        return {str(each.target["name"]): each for each in found}

    def _values(self, points: Sequence[SharedPoint], remover: Remover) -> list[Tensor]:
        """Return the value ``(B, 2^M)`` of every set of modalities, for each target."""
        x, probe = points[0].x, points[0].probe
        functions = [
            value_function(self.value, p.probe.bind(p.answers.output), p.answers.output)
            for p in points
        ]
        coalitions = every_coalition(len(self.players)).to(x.device)
        channels = coalitions.new_zeros(len(coalitions), x.shape[1])
        for player, of_player in enumerate(self.players.values()):
            channels[:, list(of_player)] = coalitions[:, player, None]
        rows = iter(~channels[:-1])
        found: list[list[Tensor]] = [[] for _ in points]
        while together := list(islice(rows, probe.batch_size(x))):
            removed = torch.stack(together).repeat_interleave(len(x), dim=0)
            shape = (len(removed), x.shape[1], *[1] * (x.dim() - 2))
            everywhere = removed.reshape(shape).expand(-1, -1, *x.shape[2:])
            output = probe.output_at(remover(everywhere))
            for values, function in zip(found, functions, strict=True):
                values.append(function(output).double().reshape(len(together), len(x)))
        full = [f(p.answers.output).double()[None] for f, p in zip(functions, points, strict=True)]
        return [
            torch.cat([*values, last]).T.cpu() for values, last in zip(found, full, strict=True)
        ]

    def _result(
        self, target: Target, point: SharedPoint, coalitions: Tensor, remover: str
    ) -> ModalityShapley:
        bound = point.probe.bind(point.answers.output)
        notes = place_notes(target, self.planner.outputs, point.answers.output)
        return ModalityShapley(
            tuple(self.players), coalitions, bound.description, remover, self.value,
            (*bound.notes, *notes),
            {
                "seed": self.seed,
                "device": str(point.x.device),
                "precision": self.precision,
                "versions": versions(),
                "input_sha256": self.input_sha256,
                "citation": CITATION,
                **point.probe.describe(),
            },
        )  # fmt: skip

    def _probe(self, strategy: Strategy) -> Probe:
        settings = PassSettings(self.precision)
        probe = self.planner.probe(strategy, self.targets[0], self.background_value, settings)
        probe.before_pass = self.control.check
        probe.on_output = self.control.advance
        probe.left_right_axis = self.left_right_axis
        return probe
