"""A session of a network on a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import final

import torch

from neuroxai.core.explanation import Explanation
from neuroxai.core.probe.windows import Windows
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Target
from neuroxai.methods.base import Method
from neuroxai.methods.make import MethodsLike
from neuroxai.patient.explanations import Explanations
from neuroxai.workflows.base_session import BaseSession, SessionOptions
from neuroxai.workflows.explanation_run import TargetResult
from neuroxai.workflows.network_fault import network_faults, network_name
from neuroxai.workflows.question import RestrictionLike, restrict_targets
from neuroxai.workflows.tensor_input import TensorInput


@final
class TensorSession(BaseSession[Explanation]):
    """A network on a tensor; made by :func:`open`.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    >>> from neuroxai.workflows.session import open
    >>> session = open(network, torch.rand(2, 1, 8, 6))
    >>> maps = session.explain(["grad_cam", "vanilla_gradient"], [0, 1])
    >>> list(maps), tuple(maps["1"]["grad_cam"].values.shape)
    (['0', '1'], (2, 1, 8, 6))
    """

    def __init__(
        self,
        given: TensorInput,
        outputs: Outputs,
        *,
        device: torch.device | None,
        options: SessionOptions,
        windows: Windows | None = None,
    ) -> None:
        super().__init__(
            given.network, given.x, outputs, device=device, options=options, windows=windows
        )
        self._given = given

    def __repr__(self) -> str:
        return f"<TensorSession: {network_name(self.network)} on {tuple(self.x.shape)}>"

    def _methods(self, methods: MethodsLike, layer: str | None) -> list[Method]:
        return self._given.methods(methods, layer)

    def _explanations(self, result: TargetResult) -> Explanations[Explanation]:
        maps = {name: self._given.describe(each) for name, each in result.explanations.items()}
        return Explanations(
            maps, result.refused, result.output, result.memory, result.shared_seconds,
            warnings=(*self._given.notes, *result.notes), deviation=result.deviation,
            unfinished=result.unfinished,
        )  # fmt: skip

    def _restrict(self, targets: Sequence[Target], within: RestrictionLike) -> list[Target]:
        return restrict_targets(targets, within, self.outputs)

    def _faults(self) -> AbstractContextManager[None]:
        return network_faults(self.network, self.x)
