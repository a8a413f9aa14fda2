"""The explained point of several targets, whose requests share forward passes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor

from neuroxai.core.layers.layers import check_names
from neuroxai.core.probe.answers import Answers
from neuroxai.core.probe.binding import Binding
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.requests import LayerMap, Request
from neuroxai.core.target.target import Target


@dataclass(frozen=True, eq=False)
class SharedPoint:
    """The explained point, as one of several targets sees it.

    Attributes
    ----------
    probe
        The probe of the target.
    x
        The explained point, ``(B, C, *S)``.
    requests, answers
        What was requested there, and the answers.
    """

    probe: Probe
    x: Tensor
    requests: frozenset[Request]
    answers: Answers

    def entered(self) -> AbstractContextManager[None]:
        """Return the context manager in which methods explain the point with the probe."""
        return self.probe.at(self.x, self.requests, self.answers)


def share_point(
    probe: Probe, x: Tensor, requests: Collection[Request], targets: Sequence[Target]
) -> list[SharedPoint]:
    """Answer the same requests for several targets from one forward pass.

    Windows take up to three sweeps instead, whatever the number of targets.

    Parameters
    ----------
    probe
        Runs the network. Its own target is not used.
    x
        The point, ``(B, C, *S)``.
    requests
        What is requested for each target.
    targets
        The targets; each is bound at the output for ``x``.

    Returns
    -------
    list of SharedPoint
        One for each target.

    Examples
    --------
    >>> import torch
    >>> from neuroxai.core.probe.requests import InputGradient
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> from neuroxai.core.target.target import Class
    >>> probe, x = WholeVolume(torch.nn.Conv2d(1, 3, 1), Class(0)), torch.rand(1, 1, 2, 5)
    >>> points = share_point(probe, x, [InputGradient()], [Class(0), Class(2)])
    >>> with points[1].entered():
    ...     tuple(points[1].probe.gradient(x).shape)
    (1, 1, 2, 5)
    >>> probe.passes.forward, probe.passes.backward
    (1, 2)
    """
    wanted = frozenset(requests)
    layers = {each.layer for each in wanted if isinstance(each, LayerMap)}
    check_names(probe.network, sorted(layers))
    bindings = [Binding(target, probe.outputs) for target in targets]
    with probe.frozen():
        answers = probe.visit_targets(x, wanted, bindings)
        probe.compare_passes(x, answers[0].output)
    return [
        SharedPoint(probe.for_target(binding), x, wanted, found)
        for binding, found in zip(bindings, answers, strict=True)
    ]
