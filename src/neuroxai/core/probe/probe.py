"""The interface between explanation methods and a network."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any, Self

import torch
from torch import Tensor, nn

from neuroxai.core.engine.cell_positions import CellPositions
from neuroxai.core.engine.converted_weights import ConvertedWeights
from neuroxai.core.engine.fast_path import run_fast
from neuroxai.core.engine.network_state import NetworkState
from neuroxai.core.engine.random_state import RandomState
from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.engine.untouched import untouched
from neuroxai.core.errors import MethodError
from neuroxai.core.layers.labels import without_grid
from neuroxai.core.layers.layers import Layer, check_names, layer_grid
from neuroxai.core.layers.positions import cropped_positions
from neuroxai.core.layers.reduction import MEAN_GRADIENT_WEIGHTS, LayerReduction
from neuroxai.core.probe.answers import Answers, Passes, PassResult
from neuroxai.core.probe.binding import Binding
from neuroxai.core.probe.independence import TOLERANCE_16_BITS, is_unchanged_in_batch
from neuroxai.core.probe.network_facts import NetworkFacts, SecondPass
from neuroxai.core.probe.one_pass import PassSetup
from neuroxai.core.probe.requests import InputGradient, LayerMap, Request
from neuroxai.core.rules.backward_rule import PLAIN, BackwardRule
from neuroxai.core.spatial import resample_to, spatial_shape
from neuroxai.core.target.bound_target import BoundTarget
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Target

BATCH_VOXELS = 2 * 96**3
"""Voxels in a batch of path nodes or noisy copies, two images of 96³: small images share a batch,
large ones pass one by one, whose convolutions fill a device already."""

_REPEATED = 1e-5
"""Change of the output, relative to its largest value, that is rounding if a pass is repeated."""


class Probe(ABC):
    """A network and a target, as explanation methods see them.

    At the explained point every request is answered once. Those announced in :meth:`at` share one
    forward pass and one backward pass per backward rule.

    Parameters
    ----------
    network
        Any module; its parameters are frozen for the duration, and everything is restored.
    target
        What is explained.
    outputs
        What the output channels mean.
    background_value
        The value of air on the input scale, per modality; for the ``black`` baseline.
    settings
        How passes are computed, for example in which precision.

    Attributes
    ----------
    weights
        Converted weights that passes share; None while the network is not frozen.
    passes
        The passes through the network so far.
    before_pass
        Called before each pass. It may raise an exception, to stop.
    on_gradient
        Called with the number of samples whose input gradient was computed, for progress; with a
        part of them after each window.
    on_output
        Called in the same way for samples whose output was computed without a gradient.
    left_right_axis
        Spatial axis of the input that runs between the patient's left and right; None if unknown.
    checkpointed
        Whether to trade time for memory; see :mod:`neuroxai.core.probe.checkpointing`.
    facts
        What passes found out about the network; probes of one network may share it.
    budget, needs
        Bytes that passes may use, and that one at the explained point is expected to; None if
        unknown.
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
        self.before_pass: Callable[[], None] = lambda: None
        self.on_gradient: Callable[[float], None] = lambda samples: None
        self.on_output: Callable[[float], None] = lambda samples: None
        self.left_right_axis: int | None = None
        self.facts = NetworkFacts()
        self.budget: int | None = None
        self.needs: int | None = None
        self._binding = Binding(target, self.outputs)
        self._point: Tensor | None = None
        self._requests: frozenset[Request] = frozenset()
        self._activations: dict[BackwardRule, frozenset[str]] = {}
        self._answers: Answers | None = None
        self._kept: NetworkState | None = None
        self._random: RandomState | None = None

    @abstractmethod
    def visit_targets(
        self, x: Tensor, requests: Collection[Request], bindings: Sequence[Binding]
    ) -> list[Answers]:
        """Answer all requests at ``x`` for each target, from the same forward passes.

        Parameters
        ----------
        x
            The input, ``(B, C, *S)``.
        requests
            What is requested for each target.
        bindings
            The targets, which are bound at the first output.
        """

    def visit(self, x: Tensor, requests: Collection[Request]) -> Answers:
        """Answer all requests at ``x``; the target is bound at the first output."""
        (answers,) = self.visit_targets(x, requests, [self._binding])
        return answers

    @abstractmethod
    def run(self, x: Tensor) -> Tensor:
        """Return the model output of ``x``, without a graph."""

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the network for several passes, which share converted weights; then restore it."""
        with untouched(self.network, self.settings):
            attributes = NetworkState(self.network, weights=False)
            self._kept, self._random = attributes, RandomState(self.network)
            self.weights = ConvertedWeights()
            try:
                yield
            finally:
                self.weights = self._kept = self._random = None
                self.facts.keeps_state |= attributes.is_changed()

    @contextmanager
    def at(
        self, x: Tensor, requests: Collection[Request] = (), known: Answers | None = None
    ) -> Iterator[None]:
        """Context manager that makes ``x`` ``(B, C, *S)`` the explained point.

        The network is frozen within and restored on leaving, after an exception too.

        Parameters
        ----------
        x
            The explained point.
        requests
            What will be requested there; the first request computes all of them.
        known
            The answers, if passes that are shared with other targets have computed them.
        """
        layers = {request.layer for request in requests if isinstance(request, LayerMap)}
        check_names(self.network, sorted(layers))
        with self.frozen():
            # A network that keeps state is restored between passes: the explained point, which its
            # other passes build on, comes first again.
            known = None if self.facts.keeps_state else known
            self._point, self._requests, self._answers = x, frozenset(requests), known
            self._activations.clear()
            try:
                yield
            finally:
                self._point, self._requests, self._answers = None, frozenset(), None
                self._binding = Binding(self._binding.target, self.outputs)

    def for_target(self, binding: Binding) -> Self:
        """Return a probe of the same network for another target, which is bound already."""
        probe = copy.copy(self)
        probe._binding, probe._activations = binding, {}
        return probe

    def for_network(self, network: nn.Module, target: Target) -> Self:
        """Return a probe of another network and target, with the same settings and outputs.

        The layout of outputs, the precision, cancellation and the budget of memory are kept; what
        is known of the first network is not.
        """
        probe = copy.copy(self)
        probe.network, probe.facts, probe.passes = network, NetworkFacts(), Passes()
        probe._binding, probe._activations = Binding(target, self.outputs), {}
        probe._point, probe._requests, probe._answers = None, frozenset(), None
        probe.weights = probe._kept = probe._random = None
        return probe

    @property
    def explained(self) -> Tensor | None:
        """The explained point, None outside :meth:`at`."""
        return self._point

    @property
    def target(self) -> BoundTarget:
        """The target, bound at the explained point."""
        return self.bind(self._known().output)

    def compare_passes(self, x: Tensor, output: Tensor) -> None:
        """Run a second pass at ``x`` and compare its output, once for a network.

        A network whose pass drew no random number and left nothing in the network answers the same
        again, and is not run.
        """
        if self.facts.is_compared or self._kept is None or self._random is None:
            return
        self.facts.is_compared = True
        if not (self._random.is_changed() or self._kept.is_changed()):
            return
        again = self.run(x)
        single = self.settings.precision == "fp32" and x.dtype in (torch.float32, torch.float64)
        least = (_REPEATED if single else TOLERANCE_16_BITS) * output.abs().max()
        if again.shape == output.shape and bool((again - output).abs().max() > least):
            self.facts.second_output = again

    def second_pass(self) -> SecondPass | None:
        """Return how a second pass at the explained point differs from the first; None if not."""
        again = self.facts.second_output
        output = self._known().output
        if again is None or again.shape != output.shape:
            return None
        change = (again - output).abs().max() / output.abs().max()
        scores = tuple(float(s) for s in self.target.score(again))
        return SecondPass(scores, float(change))

    def output(self) -> Tensor:
        """Return the model output at the explained point."""
        return self._known().output

    def output_at(self, x: Tensor) -> Tensor:
        """Return the model output of another image than the explained point."""
        output = self.run(x)
        self.on_output(len(x))
        return output

    def output_in_place(self, x: Tensor) -> Tensor:
        """Return the model output of another image where the target's mask is; any value elsewhere.

        What depends on the place of the target alone is computed from less than the whole image
        where the network sees it in windows.
        """
        return self.output_at(x)

    def score(self, x: Tensor) -> Tensor:
        """Return the target's value ``(B,)`` of ``x``."""
        if x is self._point:
            return self._known().score
        return self.target.score(self.output_in_place(x))

    def gradient(self, x: Tensor, rule: BackwardRule = PLAIN) -> Tensor:
        """Return ``dS/dx``, ``(B, C, *S)``, under a backward rule.

        Raises
        ------
        MethodError
            If the target does not depend on the input, or the rule is void on the network.
        """
        request = InputGradient(rule)
        answers = self._answered(x, request)
        known = self._activations.get(rule, frozenset())
        self._activations[rule] = known | answers.activations
        return answers.gradient(request)

    def notes(self, rule: BackwardRule) -> tuple[str, ...]:
        """Return what a reader must know of the gradients under a rule so far."""
        return rule.notes(self._activations.get(rule, frozenset()))

    def layer_map(
        self, x: Tensor, layer: str, reduction: LayerReduction = MEAN_GRADIENT_WEIGHTS
    ) -> tuple[Layer, Tensor]:
        """Return a layer and its map ``(B, 1, *S_layer)``.

        Raises
        ------
        LayerError
            If the layer does not exist or never ran, or the target does not depend on it.
        """
        request = LayerMap(layer, reduction)
        return self._answered(x, request).layer_map(request)

    def bind(self, output: Tensor) -> BoundTarget:
        """Return the target, bound at the first output of the explained point."""
        return self._binding.bind(output)

    def layer_grid(self, x: Tensor) -> tuple[int, ...]:
        """Return the grid that layer maps are interpolated to before they are cropped to ``x``."""
        return layer_grid(self.network, spatial_shape(x))

    def place(self, values: Tensor, layer: Layer, x: Tensor) -> Tensor:
        """Interpolate a layer's map ``(B, C, *S_layer)`` to ``x``; zero where it has no cells."""
        positions = self.positions(layer, x)
        if positions is None:
            return resample_to(values, self.layer_grid(x), spatial_shape(x)).contiguous()
        return positions.place(values, spatial_shape(x)).contiguous()

    def positions(self, layer: Layer, x: Tensor) -> CellPositions | None:
        """Return the positions of a layer's cells if they cover a part of ``x``; None if all."""
        name = without_grid(layer.name).removesuffix("#1").replace(".*.", ".0.", 1)
        key = name, spatial_shape(x)
        if key not in self.facts.positions:
            plain = replace(layer, name=name)
            found = cropped_positions(self.network, x, partial(self.outputs.select, x=x), [plain])
            self.facts.positions[key] = found.get(name)
        return self.facts.positions[key]

    def cell_size(self, x: Tensor, layer: Layer) -> tuple[float, ...]:
        """Return the edges of a layer's cell in voxels of the network's grid."""
        if (positions := self.positions(layer, x)) is not None:
            return positions.scale
        return tuple(n / c for n, c in zip(self.layer_grid(x), layer.shape[1:], strict=True))

    def describe(self) -> dict[str, Any]:
        """Return how the image is divided, for the provenance; empty if it is not."""
        return {}

    def batch_size(self, x: Tensor) -> int:
        """Return how many copies of ``x`` pass through the network in one batch.

        It is one if memory does not allow more, if the samples of a batch affect each other, as in
        a batch norm without running statistics, or if the network fails on more.
        """
        fits = BATCH_VOXELS // (x.shape[0] * prod(spatial_shape(x)))
        if self.budget is not None and self.needs:
            fits = min(fits, self.budget // self.needs)
        return fits if fits > 1 and self.has_independent_samples() else 1

    def free_memory(self, x: Tensor) -> int | None:
        """Return the bytes left by a batch of copies of ``x``; None if unknown."""
        if self.budget is None or not self.needs:
            return None
        return max(0, self.budget - self.needs * self.batch_size(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return the selected output of one forward pass, and count it."""
        self.before_pass()
        self.passes += Passes(forward=1)
        return run_fast(self.network, x, self.answer, self.settings, self.weights)

    def answer(self, x: Tensor) -> Tensor:
        """Return the selected output of one forward pass without counting it."""
        # A copy, because a network may work in place on its input.
        return self.outputs.run(self.network, x.clone(), self.settings.precision)

    def has_independent_samples(self) -> bool:
        """Return whether the samples of a batch do not affect each other; tested once."""
        if self.facts.samples_are_independent is None and self._point is not None:
            self.facts.samples_are_independent = self._is_unchanged_in_batch(self._point)
        return bool(self.facts.samples_are_independent)

    def _is_unchanged_in_batch(self, point: Tensor) -> bool:
        """Return whether a second image in the batch leaves the output of the point unchanged."""
        alone = self._known().output
        return is_unchanged_in_batch(self.network, self.run, point, alone, self.settings)

    def _answered(self, x: Tensor, request: Request) -> Answers:
        """Return answers that include a request, from known ones where possible."""
        known = self._known()  # this binds the target at the explained point
        if x is not self._point:
            return self.visit(x, [request])
        if request not in known:
            known.merge(self.visit(x, [request]))
        return known

    def _known(self) -> Answers:
        """Return the answers at the explained point, computing the announced ones first."""
        if self._point is None:
            raise MethodError("no point is explained: call within 'with probe.at(x, requests)'")
        if self._answers is None:
            self._answers = self.visit(self._point, self._requests)
            self.compare_passes(self._point, self._answers.output)
        return self._answers

    def _setup(self, bindings: Sequence[Binding]) -> PassSetup:
        targets = tuple(binding.bind for binding in bindings)
        return PassSetup(
            self.network, self.answer, targets, self.facts.copied, self.checkpointed,
            self.settings, self.weights,
        )  # fmt: skip

    def _count(self, result: PassResult) -> list[Answers]:
        """Add a pass's counts and findings to the probe's."""
        self.passes += result.passes
        self.facts.copied |= result.overwritten
        if result.passes.gradients:
            self.on_gradient(result.passes.gradients)
        return list(result.answers)
