"""The choice of a strategy that fits a memory budget, and the fallback when memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import prod
from typing import TypeVar

import torch
from torch import Tensor, nn

from neuroxai.core.engine.allocator import return_freed_memory
from neuroxai.core.engine.fast_path import run_fast
from neuroxai.core.engine.footprint import Footprint, footprint
from neuroxai.core.engine.memory import available_memory, format_size, is_out_of_memory
from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.engine.untouched import untouched
from neuroxai.core.errors import ModelError
from neuroxai.core.layers.activation_recorder import differentiate
from neuroxai.core.probe.checkpointing import checkpointed, is_sound
from neuroxai.core.probe.network_facts import NetworkFacts
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.sliding_window import SlidingWindow
from neuroxai.core.probe.strategy import MemoryUse, Strategy
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.probe.windows import Windows
from neuroxai.core.spatial import spatial_shape
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Target

T = TypeVar("T")

SHARE = 0.8
"""Default budget as a share of the available memory; the rest is for maps and files."""

AMPLE = 8_000
"""Bytes per voxel above which nothing is measured: four times the most in decision 18."""

TYPICAL = 2_000
"""Bytes per voxel assumed for a batch if nothing was measured: the most in decision 18."""

LEAST_WINDOW = 32
"""The smallest edge of a window in voxels; every edge is a multiple of it."""

_OVERLAP = 0.5
_GAUSSIAN_SIGMA = 0.125
"""MONAI's default for Gaussian windows, in edges of a window."""


@dataclass(frozen=True, eq=False)
class MemoryPlan:
    """The strategies for one network and image, from the fastest to the one of least memory.

    Attributes
    ----------
    budget
        Allowed memory in bytes; None if unknown.
    strategies
        The first one that fits the budget, and those to fall back to if memory runs out. If none
        fits, the one of least memory.
    rejected
        Faster strategies that do not fit, or that ran out of memory.
    measured
        Whether memory was measured. If not, only the first strategy is known.
    """

    budget: int | None
    strategies: tuple[Strategy, ...]
    rejected: tuple[Strategy, ...] = ()
    measured: bool = True

    def use(self, strategy: Strategy) -> MemoryUse:
        """Return a strategy and its memory next to the budget."""
        return MemoryUse(strategy.name, strategy.bytes_needed, self.budget)

    def notes(self, strategy: Strategy) -> tuple[str, ...]:
        """Return warnings for a strategy that is not the whole image at once."""
        if strategy.name == "whole":
            return ()
        allowed = "" if self.budget is None else f" ({format_size(self.budget)} allowed)"
        first = (*self.rejected, *self.strategies)[0]
        instead = f" instead of {first.describe()}" if first is not strategy else ""
        note = f"memory{allowed}: {strategy.describe()}{instead}"
        if strategy.name == "windows":
            note += (
                "; the maps explain the output blended from the windows, which differs from the "
                "network's output for the whole image"
            )
        return (note,)

    def without(self, failed: Strategy) -> MemoryPlan:
        """Return the plan after a strategy ran out of memory: sound strategies that are left."""
        rest = list(self.strategies)
        if failed in rest:
            del rest[: rest.index(failed) + 1]
        while rest and not rest[0].is_sound():
            del rest[0]
        return replace(self, strategies=tuple(rest), rejected=(*self.rejected, failed))


@dataclass(eq=False)
class MemoryPlanner:
    """Plans memory once for each kind of pass, and falls back when memory runs out.

    Attributes
    ----------
    network
        Any module; it is left as found.
    x
        The image, ``(B, C, *S)``.
    outputs
        Selects the network's output.
    budget
        Allowed memory in bytes; by default 80 % of what is available.
    windows
        The windows of a network that is made for windows; else None.
    """

    network: nn.Module
    x: Tensor
    outputs: Outputs
    budget: int | None = None
    windows: Windows | None = None
    _plans: dict[bool, MemoryPlan] = field(default_factory=dict)
    _facts: NetworkFacts = field(default_factory=NetworkFacts)

    def __post_init__(self) -> None:
        tight = self.budget is not None and AMPLE * _voxels(self.x) > self.budget
        if tight and self.x.device.type == "cpu":
            return_freed_memory()

    @cached_property
    def allowed(self) -> int | None:
        """The budget in bytes, or the default; None if the available memory is unknown."""
        return self.budget if self.budget is not None else _default_budget(self.x)

    def plan(self, *, gradient: bool = True, measure: bool = False) -> MemoryPlan:
        """Return the plan for passes with or without a gradient.

        Memory is measured, by passes over a small image, if it may be short; else only on request.
        """
        known = self._plans.get(gradient)
        if known is None or (measure and not known.measured):
            known = self._plans[gradient] = self._make(gradient, measure=measure)
        return known

    def run(self, attempt: Callable[[Strategy], T], *, gradient: bool = True) -> tuple[T, Strategy]:
        """Return the result of the first strategy that does not run out of memory.

        Later calls start with the strategy that worked.

        Raises
        ------
        ModelError
            If memory runs out with the last strategy.
        """
        while True:
            plan = self.plan(gradient=gradient)
            strategy = plan.strategies[0]
            try:
                return attempt(strategy), strategy
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the handler, whose traceback holds the tensors of the failed pass.
            gc.collect()
            rest = self._after_shortage(plan, strategy, gradient)
            if not rest.strategies:
                raise ModelError(
                    f"memory ran out, at last with {strategy.describe()}: free memory, or use "
                    "a smaller image"
                )
            self._plans[gradient] = rest

    def probe(
        self,
        strategy: Strategy,
        target: Target,
        background_value: tuple[float, ...] | None = None,
        settings: PassSettings | None = None,
    ) -> Probe:
        """Return a strategy's probe of a target; see :class:`~neuroxai.core.probe.probe.Probe`."""
        windows = self.windows or strategy.windows
        probe: Probe = (
            WholeVolume(
                self.network, target, self.outputs,
                background_value=background_value, settings=settings,
            )
            if windows is None
            else SlidingWindow(
                self.network, target, self.outputs,
                windows=windows, background_value=background_value, settings=settings,
            )
        )  # fmt: skip
        probe.checkpointed = strategy.name == "checkpointed"
        probe.facts = self._facts
        probe.budget = self.allowed
        probe.needs = strategy.bytes_needed or TYPICAL * _voxels(self.x)
        return probe

    def targets_at_once(self, strategy: Strategy, gradients: int) -> int:
        """Return how many targets may share passes, given the memory of their answers.

        Each target holds its input gradients, and up to the size of the input for its layer maps.
        """
        if self.allowed is None:
            return 1
        needed = strategy.bytes_needed or TYPICAL * _voxels(self.x)
        per_target = self.x.nbytes * (gradients + 1)
        return max(1, (self.allowed - needed) // per_target)

    def _after_shortage(self, plan: MemoryPlan, failed: Strategy, gradient: bool) -> MemoryPlan:
        if plan.measured:
            return plan.without(failed)
        measured = self._make(gradient, measure=True)
        same = [each for each in measured.strategies if each.name == failed.name]
        return measured.without(same[0]) if same else measured

    def _make(self, gradient: bool, *, measure: bool) -> MemoryPlan:
        if self.windows is None:
            return plan_memory(
                self.network, self.x, self.outputs, self.allowed, measure=measure, gradient=gradient
            )
        window = self.x.new_zeros((*self.x.shape[:2], *self.windows.size))
        plan = plan_memory(
            self.network, window, self.outputs, self.allowed, measure=measure, gradient=gradient
        )
        own = tuple(each for each in plan.strategies if each.windows is None)
        return replace(plan, strategies=own or (Strategy("whole"),))


def plan_memory(
    network: nn.Module,
    x: Tensor,
    outputs: Outputs,
    budget: int | None = None,
    *,
    measure: bool = True,
    gradient: bool = True,
) -> MemoryPlan:
    """Return the strategies to run a network on ``x`` in ``budget`` bytes.

    Parameters
    ----------
    network
        Any module; it is left as found.
    x
        The image, ``(B, C, *S)``.
    outputs
        Selects the network's output.
    budget
        Allowed memory in bytes; by default 80 % of what is available.
    measure
        Measure memory even if it is ample.
    gradient
        Whether a gradient is computed, or the output alone, which keeps no activations.
    """
    if budget is None:
        budget = _default_budget(x)
    ample = budget is not None and AMPLE * _voxels(x) <= budget
    if ample and not measure:
        return MemoryPlan(budget, (Strategy("whole"),), measured=False)
    trial = _Trial(network, outputs, gradient)
    whole = footprint(trial.run, x)
    strategies = [Strategy("whole", _bytes(whole, x))]
    lean = None if ample or not gradient else footprint(partial(trial.run, blocks=True), x)
    if gradient and (lean is None or whole is None or lean.per_voxel < whole.per_voxel):
        strategies.append(
            Strategy("checkpointed", _bytes(lean, x), check=partial(trial.is_sound, x))
        )
    if trial.segments and whole is not None:
        strategies += _windows(whole, x, trial.channels)
    if budget is None:
        return MemoryPlan(budget, tuple(strategies))
    first = _first_that_fits(strategies, budget)
    if not strategies[first].is_sound():
        del strategies[first]
        first = _first_that_fits(strategies, budget)
    return MemoryPlan(budget, tuple(strategies[first:]), tuple(strategies[:first]))


def _default_budget(x: Tensor) -> int | None:
    left = available_memory(x.device)
    return None if left is None else int(SHARE * left)


def _first_that_fits(strategies: Sequence[Strategy], budget: int) -> int:
    fits = [each.bytes_needed is None or each.bytes_needed <= budget for each in strategies]
    return fits.index(True) if True in fits else len(strategies) - 1


def _bytes(found: Footprint | None, x: Tensor) -> int | None:
    return None if found is None else found.of(x)


def _voxels(x: Tensor) -> int:
    return x.shape[0] * prod(spatial_shape(x))


class _Trial:
    """Passes over a small image, to measure memory and to learn the output's shape."""

    def __init__(self, network: nn.Module, outputs: Outputs, gradient: bool) -> None:
        self._network, self._outputs, self._gradient = network, outputs, gradient
        self.segments, self.channels = False, 0

    def is_sound(self, x: Tensor) -> bool:
        """Whether checkpointed blocks give the same output and gradient."""

        def output_and_gradient(part: Tensor) -> tuple[Tensor, Tensor]:
            leaf = part.detach().clone().requires_grad_()
            output = self._outputs.run(self._network, leaf.clone())
            (gradient,) = torch.autograd.grad(output.sum(), leaf)
            return output.detach(), gradient

        with untouched(self._network), torch.enable_grad():
            return is_sound(output_and_gradient, self._network, x)

    def run(self, x: Tensor, *, blocks: bool = False) -> None:
        """Run one pass, with ``blocks`` checkpointed."""
        with untouched(self._network), torch.set_grad_enabled(self._gradient):
            run_fast(self._network, x, lambda x: self._pass(x, blocks))

    def _pass(self, x: Tensor, blocks: bool) -> None:
        leaf = x.detach().clone().requires_grad_(self._gradient)
        with checkpointed(self._network) if blocks else nullcontext():
            output = self._outputs.run(self._network, leaf)
            if self._gradient:
                differentiate(output.sum(), [leaf])
        self.segments = spatial_shape(output) == spatial_shape(x)
        self.channels = output.shape[1]


def _windows(whole: Footprint, x: Tensor, channels: int) -> Iterator[Strategy]:
    """Yield strategies with smaller and smaller windows: the longest edge is halved."""
    size = list(spatial_shape(x))
    # In addition to one window: scan, gradient, output, its gradient, and the windows' weights.
    volumes = 4 * _voxels(x) * (3 * x.shape[1] + 3 * channels + 2)
    while max(size) > LEAST_WINDOW:
        longest = size.index(max(size))
        size[longest] = max(-(-size[longest] // 2 // LEAST_WINDOW), 1) * LEAST_WINDOW
        needed = int(whole.per_voxel * x.shape[0] * prod(size)) + volumes
        yield Strategy("windows", needed, Windows(tuple(size), _gaussian(size), _OVERLAP))


def _gaussian(size: Sequence[int]) -> Tensor:
    """Return Gaussian weights ``(*size)``, at least one thousandth."""
    weights = torch.ones(())
    for length in size:
        places = torch.arange(length) - (length - 1) / 2
        along = torch.exp(-0.5 * (places / (_GAUSSIAN_SIGMA * length)) ** 2)
        weights = weights[..., None] * along
    return weights.clamp(min=1e-3)
