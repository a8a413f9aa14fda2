"""The way a case goes through a network in the memory there is: at once, in blocks, in windows."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from neuroxai.core.engine.fast_path import run_fast
from neuroxai.core.engine.footprint import Footprint, footprint
from neuroxai.core.engine.memory import available_memory, format_size, is_out_of_memory
from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.engine.untouched import untouched
from neuroxai.core.errors import ModelError
from neuroxai.core.layers.activation_recorder import differentiate
from neuroxai.core.probe.checkpointing import checkpointed, is_sound
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.sliding_window import SlidingWindow
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.probe.windows import Windows
from neuroxai.core.spatial import spatial_shape
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Target

T = TypeVar("T")

SHARE = 0.8
"""Of what the machine has left, how much is taken if nobody says."""

GENEROUS = 8_000
"""Bytes per voxel that no network known here takes; with so many to spare nothing is predicted."""

LEAST_WINDOW = 32
"""The smallest edge of a window, and what every edge is a multiple of."""

_OVERLAP = 0.5
_SPREAD = 0.125


@dataclass(frozen=True, eq=False)
class Strategy:
    """One way through a network.

    Attributes
    ----------
    name
        ``whole``, ``checkpointed`` or ``windows``.
    needs
        Bytes it is expected to take; None if nothing is known.
    windows
        How the image is cut, where it is.
    check
        Tells whether it gives the network's own answer and gradient, where that is to be found
        out before it is gone.
    """

    name: str
    needs: int | None = None
    windows: Windows | None = None
    check: Callable[[], bool] | None = None

    def is_sound(self) -> bool:
        """Whether its answer and gradient are the network's own."""
        return self.check is None or self.check()

    def said(self) -> str:
        """Return the way in words."""
        needs = "" if self.needs is None else f", about {format_size(self.needs)}"
        if self.windows is not None:
            return f"windows of {'×'.join(map(str, self.windows.size))} voxels{needs}"
        return {"whole": "the whole image at once",
                "checkpointed": "blocks of the network run twice"}[self.name] + needs  # fmt: skip


@dataclass(frozen=True, eq=False)
class MemoryPlan:
    """Which ways there are, from the fastest to the leanest.

    Attributes
    ----------
    budget
        Bytes that may be taken; None where nobody knows.
    ways
        Those that fit, or the leanest, and behind it what is left if memory runs out all the same.
    passed_over
        Faster ones that do not fit.
    measured
        Whether anything was predicted; if not, there may be more ways.
    """

    budget: int | None
    ways: tuple[Strategy, ...]
    rejected: tuple[Strategy, ...] = ()
    measured: bool = True

    def describe(self, way: Strategy) -> dict[str, Any]:
        """Return the plan and what was done, ready for JSON."""
        return {
            "way": way.name,
            "predicted_mb": None if way.needs is None else round(way.needs / 1e6),
            "budget_mb": None if self.budget is None else round(self.budget / 1e6),
        }

    def notes(self, way: Strategy) -> tuple[str, ...]:
        """Return what somebody must know of a way that is not the first choice."""
        if way.name == "whole":
            return ()
        allowed = "" if self.budget is None else f" ({format_size(self.budget)} allowed)"
        first = (*self.rejected, *self.ways)[0]
        instead = f" instead of {first.said()}" if first is not way else ""
        note = f"memory{allowed}: {way.said()}{instead}"
        if way.name == "windows":
            note += (
                "; the maps are of the answer that is put together from the windows, which is not "
                "the network's answer to the whole image"
            )
        return (note,)


def plan_memory(
    network: nn.Module,
    x: Tensor,
    outputs: Outputs,
    budget: int | None = None,
    *,
    always: bool = True,
    gradient: bool = True,
) -> MemoryPlan:
    """Return the ways that ``x`` can go through a network in ``budget`` bytes.

    Parameters
    ----------
    network
        Any module; it is left as found.
    x
        ``(B, C, *S)``.
    outputs
        Which of the network's outputs counts.
    budget
        Bytes; by default 80 % of what the device has left.
    always
        Predict even where there is memory in plenty.
    gradient
        Whether a gradient is asked for, or the answer alone, which keeps no layer.
    """
    if budget is None:
        left = available_memory(x.device)
        budget = None if left is None else int(SHARE * left)
    plenty = budget is not None and GENEROUS * x.shape[0] * prod(spatial_shape(x)) <= budget
    if plenty and not always:
        return MemoryPlan(budget, (Strategy("whole"),), measured=False)
    found = _Measured(network, outputs, gradient)
    whole = footprint(found.take, x)
    ways = [Strategy("whole", _bytes(whole, x))]
    lean = None if plenty or not gradient else footprint(partial(found.take, twice=True), x)
    if gradient and (lean is None or whole is None or lean.per_voxel < whole.per_voxel):
        ways.append(Strategy("checkpointed", _bytes(lean, x), check=partial(found.is_sound, x)))
    if found.segments and whole is not None:
        ways += _in_windows(whole, x, found.channels)
    if budget is None:
        return MemoryPlan(budget, tuple(ways))
    first = _first_that_fits(ways, budget)
    if not ways[first].is_sound():
        del ways[first]
        first = _first_that_fits(ways, budget)
    return MemoryPlan(budget, tuple(ways[first:]), tuple(ways[:first]))


def _first_that_fits(ways: Sequence[Strategy], budget: int) -> int:
    fits = [way.needs is None or way.needs <= budget for way in ways]
    return fits.index(True) if True in fits else len(ways) - 1


def _bytes(found: Footprint | None, x: Tensor) -> int | None:
    return None if found is None else found.of(x)


class _Measured:
    """Takes the passes that are measured, and looks at what comes out."""

    def __init__(self, network: nn.Module, outputs: Outputs, gradient: bool) -> None:
        self._network, self._outputs, self._gradient = network, outputs, gradient
        self.segments, self.channels = False, 0

    def is_sound(self, x: Tensor) -> bool:
        """Whether blocks that are run twice give the same answer and gradient."""

        def both(part: Tensor) -> tuple[Tensor, Tensor]:
            leaf = part.detach().clone().requires_grad_()
            output = self._outputs.answer(self._network, leaf.clone())
            (gradient,) = torch.autograd.grad(output.sum(), leaf)
            return output.detach(), gradient

        with untouched(self._network), torch.enable_grad():
            return is_sound(both, self._network, x)

    def take(self, x: Tensor, *, twice: bool = False) -> None:
        with untouched(self._network), torch.set_grad_enabled(self._gradient):
            run_fast(self._network, x, lambda x: self._pass(x, twice))

    def _pass(self, x: Tensor, twice: bool) -> None:
        leaf = x.detach().clone().requires_grad_(self._gradient)
        with checkpointed(self._network) if twice else nullcontext():
            output = self._outputs.answer(self._network, leaf)
            if self._gradient:
                differentiate(output.sum(), [leaf])
        self.segments = spatial_shape(output) == spatial_shape(x)
        self.channels = output.shape[1]


def _in_windows(whole: Footprint, x: Tensor, channels: int) -> Iterator[Strategy]:
    """Give ever smaller windows: the longest edge is halved until all are small."""
    size = list(spatial_shape(x))
    # Scan, gradient, answer, its gradient, and the windows' weights stay beside one window.
    volumes = 4 * x.shape[0] * prod(size) * (3 * x.shape[1] + 3 * channels + 2)
    while max(size) > LEAST_WINDOW:
        longest = size.index(max(size))
        size[longest] = max(-(-size[longest] // 2 // LEAST_WINDOW), 1) * LEAST_WINDOW
        needs = int(whole.per_voxel * x.shape[0] * prod(size)) + volumes
        yield Strategy("windows", needs, Windows(tuple(size), _gaussian(size), _OVERLAP))


def _gaussian(size: list[int]) -> Tensor:
    """Return weights that fall off towards a window's faces, nowhere under a thousandth."""
    weights = torch.ones(())
    for length in size:
        places = torch.arange(length) - (length - 1) / 2
        along = torch.exp(-0.5 * (places / (_SPREAD * length)) ** 2)
        weights = weights[..., None] * along
    return weights.clamp(min=1e-3)


def run_with_fallback(
    plan: MemoryPlan, more: Callable[[], MemoryPlan], attempt: Callable[[Strategy], T]
) -> tuple[T, Strategy, MemoryPlan]:
    """Return what the first way gives that memory does not run out on, the way, and its plan.

    Parameters
    ----------
    plan
        The ways, in their order.
    more
        Makes a plan with more of them, for one in which nothing was measured.
    attempt
        Goes a way.

    Raises
    ------
    ModelError
        If memory runs out on the last.
    """
    ways = list(plan.ways)
    while True:
        way = ways.pop(0)
        try:
            return attempt(way), way, plan
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if not ways and not plan.measured:
                plan = more()
                ways = list(plan.ways[1:])
            while ways and not ways[0].is_sound():
                del ways[0]
            if not ways:
                raise ModelError(
                    f"memory ran out, at the last with {way.said()}: free memory, or give a "
                    "smaller image"
                ) from error
        gc.collect()  # what the way has left in circles


def probe_for(
    way: Strategy,
    network: nn.Module,
    question: Target,
    outputs: Outputs,
    background_value: tuple[float, ...] | None,
    windows: Windows | None = None,
    budget: int | None = None,
    settings: PassSettings | None = None,
) -> Probe:
    """Return the probe that goes a way.

    ``windows`` are those that the network is meant to look through, whatever the way; of images
    that go through together there are only as many as the ``budget`` allows.
    """
    windows = windows or way.windows
    probe: Probe = (
        WholeVolume(
            network, question, outputs, background_value=background_value, settings=settings
        )
        if windows is None
        else SlidingWindow(
            network,
            question,
            outputs,
            windows=windows,
            background_value=background_value,
            settings=settings,
        )
    )
    probe.checkpointed = way.name == "checkpointed"
    probe.budget, probe.needs = budget, way.needs
    return probe
