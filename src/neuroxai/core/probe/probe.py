"""Everything a method may ask of a network, behind one small interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from neuroxai.core.engine.converted_weights import ConvertedWeights
from neuroxai.core.engine.fast_path import run_fast
from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.engine.untouched import untouched
from neuroxai.core.errors import NETWORK_ERRORS, MethodError
from neuroxai.core.layers.layers import Layer, check_names, layer_grid
from neuroxai.core.probe.answers import Answers, Asks, Passes
from neuroxai.core.spatial import spatial_shape
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import BoundTarget, Target

VOXELS_AT_ONCE = 2 * 96**3
"""How many voxels a batch of path nodes or noisy copies may hold."""

_APART, _APART_IN_16_BITS = 1e-3, 0.02
"""Of the largest output, how much it may move with the batch: rounding moves it, too."""


class Probe(ABC):
    """What the methods see of a network and a target.

    At the explained point every question is answered at most once, and all that was announced in
    :meth:`at` from the passes of the first one.

    Parameters
    ----------
    network
        Any module; parameters are frozen for the duration and everything is left as found.
    target
        What is explained.
    outputs
        What the output channels mean.
    air
        What air looks like on the input scale, per modality; for the ``black`` baseline.

    Attributes
    ----------
    passes
        What was spent so far.
    checkpointed
        Set to keep less in memory and take longer; see :mod:`neuroxai.core.probe.checkpointing`.
    extended
        Activations outside the paper that the guided rule was extended to.
    copied
        Layers whose output is overwritten in place, and is copied.
    budget, needs
        Bytes that the passes may take, and that one of the explained point is expected to; None
        where nobody knows.
    """

    def __init__(
        self,
        network: nn.Module,
        target: Target,
        outputs: Outputs | None = None,
        *,
        background_value: tuple[float, ...] | None = None,
        settings: PassSettings | None = None,
    ) -> None:
        self.network = network
        self.settings = settings or PassSettings()
        self.weights: ConvertedWeights | None = None
        self.outputs = outputs or Outputs()
        self.background_value = background_value
        self.passes = Passes()
        self.checkpointed = False
        self.extended: tuple[str, ...] = ()
        self.copied: set[str] = set()
        self.budget: int | None = None
        self.needs: int | None = None
        self._question = target
        self._bound: BoundTarget | None = None
        self._point: Tensor | None = None
        self._asks = Asks()
        self._answers: Answers | None = None
        self._apart: bool | None = None

    @abstractmethod
    def visit(self, x: Tensor, asks: Asks) -> Answers:
        """Answer everything asked about ``x``; the target is bound to the first output."""

    @abstractmethod
    def run(self, x: Tensor) -> Tensor:
        """Return the model output of ``x``, without a graph."""

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the network for several passes, which share converted weights; then restore it."""
        with untouched(self.network, self.settings):
            self.weights = ConvertedWeights()
            try:
                yield
            finally:
                self.weights = None

    @contextmanager
    def at(self, x: Tensor, asks: Asks) -> Iterator[None]:
        """Make ``x`` ``(B, C, *S)`` the explained point; inside, the network is frozen.

        On leaving, the network is as it was found, after an exception too.
        """
        check_names(self.network, sorted(asks.layers))
        with self.frozen():
            self._point, self._asks, self._answers, self._bound = x, asks, None, None
            try:
                yield
            finally:
                self._point, self._asks, self._answers, self._bound = None, Asks(), None, None

    @property
    def explained(self) -> Tensor | None:
        """The explained point, None outside :meth:`at`."""
        return self._point

    @property
    def target(self) -> BoundTarget:
        """The target as it is fixed at the explained point."""
        return self.bind(self._known().output)

    @property
    def rectifiers(self) -> tuple[str, ...]:
        """Activations outside the paper that the guided rule was extended to."""
        return self.extended

    def output(self) -> Tensor:
        """Return the model output at the explained point."""
        return self._known().output

    def score(self, x: Tensor) -> Tensor:
        """Return the target's value ``(B,)`` of ``x``."""
        if x is self._point:
            return self._known().score
        return self.target.score(self.run(x))

    def gradient(self, x: Tensor) -> Tensor:
        """Return ``dS/dx``, ``(B, C, *S)``."""
        if x is not self._point:
            return self._anywhere(x, Asks(gradient=True)).input_gradient()
        known = self._known()
        if known.gradient is None and "gradient" not in known.refused:
            known.take(self.visit(x, Asks(gradient=True)))
        return known.input_gradient()

    def guided_gradient(self, x: Tensor) -> Tensor:
        """Return ``dS/dx`` under the guided rule.

        Raises
        ------
        MethodError
            If the network has no rectifier.
        """
        if x is not self._point:
            return self._anywhere(x, Asks(guided=True)).guided_gradient()
        known = self._known()
        if known.guided is None and "guided" not in known.refused:
            known.take(self.visit(x, Asks(guided=True)))
        return known.guided_gradient()

    def layer_map(self, x: Tensor, name: str) -> tuple[Layer, Tensor]:
        """Return a layer and its signed class activation map ``(B, 1, *S_layer)``.

        Raises
        ------
        LayerError
            If there is no such layer, it never ran, or the target does not depend on it.
        """
        asks = Asks(layers=frozenset([name]))
        if x is not self._point:
            return self._anywhere(x, asks).layer_map(name)
        known = self._known()
        if name not in known.maps and name not in known.refused:
            known.take(self.visit(x, asks))
        return known.layer_map(name)

    def bind(self, output: Tensor) -> BoundTarget:
        """Fix the target at the explained point, at its first output."""
        if self._bound is None:
            self._bound = self._question.bind(self.outputs, output)
        return self._bound

    def layer_grid(self, x: Tensor) -> tuple[int, ...]:
        """Return the grid that layer maps are laid on before they are cut to ``x``'s."""
        return layer_grid(self.network, spatial_shape(x))

    def describe(self) -> dict[str, Any]:
        """Return how the network is run, where that is not in one piece; for the provenance."""
        return {}

    def batch(self, x: Tensor) -> int:
        """Return how many copies of ``x`` go through the network at once.

        It is one if there is no memory for more, if samples that go together see each other, as
        they do in a batch norm that keeps no statistics, or if the network takes no more.
        """
        fits = VOXELS_AT_ONCE // (x.shape[0] * prod(spatial_shape(x)))
        if self.budget is not None and self.needs:
            fits = min(fits, self.budget // self.needs)
        return fits if fits > 1 and self._keeps_apart() else 1

    def spare(self, x: Tensor) -> int | None:
        """Return the bytes that are left beside a pass of ``batch(x)``; None where nobody knows."""
        if self.budget is None or not self.needs:
            return None
        return max(0, self.budget - self.needs * self.batch(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output that counts of one forward pass, which is counted."""
        self.passes.forward += 1
        return run_fast(self.network, x, self.answer, self.settings, self.weights)

    def answer(self, x: Tensor) -> Tensor:
        """Return the selected output of one forward pass, which is not counted."""
        # A copy, because a network may work in place on its input.
        return self.outputs.answer(self.network, x.clone(), self.settings.precision)

    def _keeps_apart(self) -> bool:
        """Whether samples that go through the network together do not see each other."""
        if self._apart is None and self._point is not None:
            self._apart = self._unmoved(self._point)
        return bool(self._apart)

    def _unmoved(self, point: Tensor) -> bool:
        """Whether the answer at the explained point is the same with another image beside."""
        alone = self._known().output
        try:
            both = self.run(torch.cat([point, _unlike(point)]))
        except NETWORK_ERRORS:
            return False  # for one image it went well
        beside = both[: len(point)]
        if len(both) != 2 * len(point) or beside.shape != alone.shape:
            return False
        single = self.settings.precision == "fp32" and point.dtype in (torch.float32, torch.float64)
        moved, largest = (beside - alone).abs().max(), alone.abs().max()
        return bool(moved <= (_APART if single else _APART_IN_16_BITS) * largest)

    def _known(self) -> Answers:
        """Return the answers at the explained point; the first question costs the shared pass."""
        if self._point is None:
            raise MethodError("no point is explained: ask inside 'with probe.at(x, asks)'")
        if self._answers is None:
            self._answers = self.visit(self._point, self._asks)
        return self._answers

    def _anywhere(self, x: Tensor, asks: Asks) -> Answers:
        self._known()  # the target is bound there, not at a point of some path
        return self.visit(x, asks)


def _unlike(x: Tensor) -> Tensor:
    """Return images that differ from ``x`` in all that may be taken over a batch.

    Every channel goes beyond its least and its largest value; mean and spread differ, too.
    """
    axes = tuple(range(2, x.dim()))
    least, largest = x.amin(dim=axes, keepdim=True), x.amax(dim=axes, keepdim=True)
    middle, reach = (least + largest) / 2, largest - least
    return middle + 3 * (x.flip(-1) - middle) + reach / 2 + (reach == 0)
