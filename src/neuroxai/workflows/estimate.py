"""An estimate of the time and memory of an explanation, before it is computed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.engine.converted_weights import ConvertedWeights
from neuroxai.core.engine.fast_path import run_fast
from neuroxai.core.engine.footprint import center_crop
from neuroxai.core.engine.memory import format_size
from neuroxai.core.engine.untouched import untouched
from neuroxai.core.errors import NETWORK_ERRORS
from neuroxai.core.layers.activation_recorder import differentiate
from neuroxai.core.probe.memory_plan import MemoryPlanner
from neuroxai.core.probe.requests import InputGradient, LayerMap
from neuroxai.core.probe.strategy import MemoryUse
from neuroxai.core.rules.backward_rule import PLAIN
from neuroxai.core.spatial import spatial_shape
from neuroxai.methods.base import Method

_PART = 1 / 2
"""Of each axis: an eighth of a volume is timed, large enough to be as fast as the whole."""

_CHECKPOINTED = 1.56
"""Time of a gradient with checkpointed blocks over one without, as measured on DeepSeg at 128³."""


@dataclass(frozen=True)
class Estimate:
    """The expected time and memory of an explanation.

    The additional steps of path methods that refine towards a tolerance are not included, as their
    number depends on the case.

    Attributes
    ----------
    seconds
        Expected time.
    memory
        Strategy, expected memory of a pass, and budget.
    gradients
        Number of input gradients.
    gradient_seconds
        Time of one of them.
    """

    seconds: float
    memory: MemoryUse
    gradients: int
    gradient_seconds: float

    @property
    def fits(self) -> bool:
        """Whether the expected memory is within the budget; True if either is unknown."""
        needed, budget = self.memory.expected_bytes, self.memory.budget_bytes
        return needed is None or budget is None or needed <= budget

    def __str__(self) -> str:
        memory = self.memory.expected_bytes
        size = "unknown memory" if memory is None else format_size(memory)
        return f"about {self.seconds:.0f} s and {size} ({self.memory.strategy})"

    def describe(self) -> dict[str, Any]:
        """Return the estimate, ready for JSON."""
        return {
            "seconds": round(self.seconds, 3),
            "gradients": self.gradients,
            "gradient_seconds": round(self.gradient_seconds, 4),
            **self.memory.describe(),
        }


@dataclass(frozen=True)
class PassSeconds:
    """The time of one forward pass, and of one backward pass to the input."""

    forward: float
    backward: float

    @property
    def gradient(self) -> float:
        """Time of one input gradient."""
        return self.forward + self.backward


def time_passes(planner: MemoryPlanner) -> PassSeconds:
    """Time a forward and a backward pass over a part of the image, and scale it to the whole.

    The part is a window if the network runs on windows, else the middle of the image; or the whole
    image if the network takes no smaller one.
    """
    windows = planner.windows or planner.plan(measure=True).strategies[0].windows
    if windows is not None:
        shape = spatial_shape(planner.x)
        window = planner.x.new_zeros((*planner.x.shape[:2], *windows.size))
        return _scaled(_time(planner, window), len(windows.place(shape)))
    part = center_crop(planner.x, _PART)
    try:
        found = _time(planner, part)
    except NETWORK_ERRORS:
        return _time(planner, planner.x)
    return _scaled(found, planner.x[:, 0].numel() / part[:, 0].numel())


def estimate(
    planner: MemoryPlanner, passes: PassSeconds, methods: Sequence[Method], targets: int
) -> Estimate:
    """Return the expected time and memory of explaining some targets.

    Parameters
    ----------
    planner
        Chooses how the network is run.
    passes
        Time of its passes; see :func:`time_passes`.
    methods
        What is computed.
    targets
        The number of targets.
    """
    plan = planner.plan(measure=True)
    strategy = plan.strategies[0]
    slower = _CHECKPOINTED if strategy.name == "checkpointed" else 1.0
    requests = {each for method in methods for each in method.requests}
    rules = {each.rule for each in requests if isinstance(each, InputGradient)}
    maps = [each for each in requests if isinstance(each, LayerMap)]
    if maps:
        rules.add(PLAIN)
    on_windows = planner.windows is not None or strategy.windows is not None
    # Windows take a pass for the blended output, and one for the blended maps of layers.
    forward = 1 + (1 + bool(maps) if on_windows else 0)
    later = sum(max(0, method.gradients - len(_gradients(method))) for method in methods)
    seconds = forward * passes.forward + targets * slower * (
        len(rules) * passes.backward
        + later * passes.gradient
        + sum(method.forwards_at(planner.x) for method in methods) * passes.forward
    )
    shared = sum(isinstance(each, InputGradient) for each in requests)
    return Estimate(
        seconds, plan.use(strategy), targets * (shared + later), slower * passes.gradient
    )


def _gradients(method: Method) -> list[InputGradient]:
    """Return the gradients of a method that are computed by the shared passes."""
    return [each for each in method.requests if isinstance(each, InputGradient)]


def _scaled(passes: PassSeconds, factor: float) -> PassSeconds:
    return PassSeconds(factor * passes.forward, factor * passes.backward)


def _time(planner: MemoryPlanner, x: Tensor) -> PassSeconds:
    """Time the second of two passes: the first one allocates memory and converts weights."""

    def work(x: Tensor) -> PassSeconds:
        leaf = x.detach().clone().requires_grad_()
        started = _now(x)
        output = planner.outputs.run(planner.network, leaf)
        reached = _now(x)
        differentiate(output.sum(), [leaf])
        return PassSeconds(reached - started, _now(x) - reached)

    weights = ConvertedWeights()
    with untouched(planner.network), torch.enable_grad():
        run_fast(planner.network, x, work, weights=weights)
        return run_fast(planner.network, x, work, weights=weights)


def _now(x: Tensor) -> float:
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return time.perf_counter()
