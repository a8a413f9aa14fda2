"""All requests at one input, answered from one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from neuroxai.core.engine.converted_weights import ConvertedWeights
from neuroxai.core.engine.fast_path import run_fast
from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.errors import LayerError, MethodError, NeuroXAIError
from neuroxai.core.layers.activation_recorder import (
    ActivationRecorder,
    differentiate,
    no_gradient_error,
)
from neuroxai.core.layers.auto_layer import auto_layer, layer_by_default, output_paths
from neuroxai.core.layers.labels import (
    call_label,
    format_grid,
    grid_of,
    is_auto,
    stands_for,
    with_grid,
)
from neuroxai.core.layers.layers import Layer, LayerHooks
from neuroxai.core.layers.layout import Rearrange
from neuroxai.core.layers.reduction import ChannelWeightedReduction, LayerReduction
from neuroxai.core.layers.token_blocks import Recorded, last_blocks
from neuroxai.core.probe.answers import Answers, Passes, PassResult
from neuroxai.core.probe.checkpointing import checkpointed
from neuroxai.core.probe.requests import InputGradient, LayerMap, Request
from neuroxai.core.rules.backward_rule import PLAIN
from neuroxai.core.rules.rule_hooks import RuleHooks


class Scored(Protocol):
    """A scalar function of the model output, which is differentiated."""

    def score(self, output: Tensor) -> Tensor:
        """Return the score ``(B,)`` of an output."""
        ...


@dataclass(frozen=True, eq=False)
class PassSetup:
    """How a pass is run.

    Attributes
    ----------
    network
        The network.
    answer
        Returns its selected output, in the precision of the settings.
    targets
        What is differentiated: each returns a scalar function, given the output.
    copied
        Labels of layers whose output is overwritten in place; a copy is recorded.
    checkpointed
        Whether only the inputs of blocks are kept, and the blocks run again.
    settings, weights
        The settings of the pass, and converted weights to reuse.
    """

    network: nn.Module
    answer: Callable[[Tensor], Tensor]
    targets: tuple[Callable[[Tensor], Scored], ...]
    copied: frozenset[str] = frozenset()
    checkpointed: bool = False
    settings: PassSettings | None = None
    weights: ConvertedWeights | None = None


def one_pass(setup: PassSetup, x: Tensor, requests: Collection[Request]) -> PassResult:
    """Answer all requests at ``x``, for each target.

    It takes one forward pass, and for each target one backward pass per rule.
    """
    wanted = frozenset(requests)
    return run_fast(
        setup.network, x, lambda x: _run(setup, x, wanted), setup.settings, setup.weights
    )


def _run(setup: PassSetup, x: Tensor, requests: frozenset[Request]) -> PassResult:
    if not setup.checkpointed:
        return _run_once_or_twice(setup, x, requests)
    automatic = [each for each in requests if isinstance(each, LayerMap) and is_auto(each.layer)]
    if not automatic:
        layers = {each.layer for each in requests if isinstance(each, LayerMap)}
        with checkpointed(setup.network, layers):
            return _run_once_or_twice(setup, x, requests)
    # The blocks that run only once have to be known before the pass.
    found = Passes(forward=1)
    try:
        # Passes without a graph of the whole image.
        layer = layer_by_default(setup.network, x, setup.answer, automatic[0].layer)
    except LayerError as error:
        result = _run(setup, x, requests.difference(automatic))
        for answers in result.answers:
            answers.refused |= dict.fromkeys(automatic, error)
        return replace(result, passes=found + result.passes)
    named = {
        request: replace(request, layer=with_grid(layer, grid_of(request.layer)) or layer)
        for request in automatic
    }
    result = _run(setup, x, requests.difference(automatic).union(named.values()))
    for answers in result.answers:
        for request, same in named.items():
            if same in answers.maps:
                answers.maps[request] = answers.maps[same]
            elif same in answers.refused:
                answers.refused[request] = answers.refused[same]
    return replace(result, passes=found + result.passes)


def _run_once_or_twice(setup: PassSetup, x: Tensor, requests: frozenset[Request]) -> PassResult:
    run = _Run(setup, x, requests)
    try:
        answers = run.answer()
    except CheckpointError:
        # A graph that begins at a layer inside a block does not match the block's second run;
        # one that begins at the input does.
        run = _Run(setup, x, requests, from_input=True)
        answers = run.answer()
    overwritten = frozenset(run.overwritten)
    if not overwritten:
        return PassResult(answers, run.passes)
    # An in-place layer overwrote a recorded activation: run again and record a copy of it.
    setup = replace(setup, copied=setup.copied | overwritten)
    again = _Run(setup, x, requests, from_input=run.from_input)
    answers = again.answer()
    return PassResult(answers, run.passes + again.passes, overwritten)


class _Run:
    """One forward pass, and the backward passes of each target from it."""

    def __init__(
        self, setup: PassSetup, x: Tensor, requests: frozenset[Request], *, from_input: bool = False
    ) -> None:
        self.from_input = from_input
        self.passes = Passes()
        self.overwritten: set[str] = set()
        self._setup = setup
        self._gradients = sorted(
            (each for each in requests if isinstance(each, InputGradient)),
            key=lambda each: each.rule != PLAIN,
        )
        self._maps = [each for each in requests if isinstance(each, LayerMap)]
        self._names = {each.layer for each in self._maps}
        self._automatic = any(map(is_auto, self._names))
        self._hooks = RuleHooks([each.rule for each in self._gradients])
        self._recorder = ActivationRecorder(setup.copied)
        self._x = x.detach()
        if self._gradients or from_input:
            self._x.requires_grad_()
        self._output = self._x
        self._ran: list[Layer] = []
        self._graph: dict[str, Recorded] = {}
        self._unplaced: Mapping[str, int] = {}
        self._labels: dict[str, str] = {}
        """Requested layer name to the label of the call it stands for."""

    def answer(self) -> tuple[Answers, ...]:
        """Return the answers for each target."""
        differentiates = bool(self._gradients or self._maps)
        with torch.set_grad_enabled(differentiates):
            output = self._output = self._forward()
            scores = [target(output).score(output) for target in self._setup.targets]
            totals = [score.sum() for score in scores]
        found = tuple(Answers(output.detach(), score.detach()) for score in scores)
        if not differentiates:
            return found
        refused = self._choose_layers(output)
        if self.overwritten:
            return found
        self._hooks.inspect(output)
        for number, (total, answers) in enumerate(zip(totals, found, strict=True), start=1):
            answers.refused |= refused
            self._answer(total, answers, last=number == len(found))
        return found

    def _answer(self, total: Tensor, answers: Answers, *, last: bool) -> None:
        """Run one target's backward passes; the ``last`` one releases the graph."""
        if not total.requires_grad:
            answers.refused |= dict.fromkeys(self._gradients, _independent_of_input())
            answers.refused |= {
                request: self._independent_of(self._labels[request.layer])
                for request in self._maps
                if request.layer in self._labels
            }
            return
        rules = [each for each in self._gradients if each.rule != PLAIN]
        if len(rules) < len(self._gradients) or self._labels:
            self._plain_backward(total, answers, retain_graph=bool(rules) or not last)
        for number, request in enumerate(rules, start=1):
            keep = number < len(rules) or not last
            self._backward_under(request, total, answers, retain_graph=keep)
        answers.activations = frozenset(self._hooks.seen.activations)

    def _forward(self) -> Tensor:
        setup = self._setup
        with ExitStack() as stack:
            if any(request.rule != PLAIN for request in self._gradients):
                stack.enter_context(self._hooks)
            if self._names:
                dims = self._x.dim() - 2
                hooks = LayerHooks(setup.network, sorted(self._names), self._record, dims)
                self._unplaced = stack.enter_context(hooks).unplaced
            self.passes += Passes(forward=1)
            return setup.answer(self._x)

    def _record(self, layer: Layer, output: Tensor, rearrange: Rearrange | None) -> Tensor | None:
        """Record a requested layer; called in the order the data flows."""
        self._ran.append(layer)
        named = [name for name in self._names if stands_for(name, layer.name)]
        if not named and not self._automatic:
            return None
        for name in named:
            self._labels[name] = layer.name  # a plain name stands for the module's last call
        continued = self._recorder.record(layer, output, rearrange)
        if self._automatic:
            values = output if continued is None else continued
            if values.requires_grad:
                self._graph[layer.name] = Recorded.of(values, rearrange)
        return continued

    def _choose_layers(self, output: Tensor) -> dict[Request, NeuroXAIError]:
        """Find the calls that the requested names stand for; return those without one, and why."""
        refused: dict[Request, NeuroXAIError] = {}
        for name in sorted(self._names):
            try:
                self._choose_layer(name, output)
            except LayerError as error:
                refused |= {each: error for each in self._maps if each.layer == name}
        self._recorder.keep_only(set(self._labels.values()))
        self.overwritten = self._recorder.overwritten()
        return refused

    def _choose_layer(self, name: str, output: Tensor) -> None:
        """Find the call that a requested name stands for, and check its shape."""
        if is_auto(name):
            network = self._setup.network
            nodes = {label: each.edge.node for label, each in self._graph.items()}
            chosen = auto_layer(
                network, self._ran, classifier=output.dim() == 2,
                paths=output_paths(output, network, nodes),
                blocks=lambda: last_blocks(output, self._ran, self._graph),
                unplaced=self._unplaced, dims=self._x.dim() - 2,
            )  # fmt: skip
            self._labels[name] = chosen.name
        elif name not in self._labels:
            raise LayerError(f"layer {name!r} never ran in the forward pass: name one that does")
        shape, grid = self._recorder.layers[self._labels[name]].shape, grid_of(name)
        if is_auto(name) and grid not in (None, shape[1:]):
            raise LayerError(
                f"the default layer {self._labels.pop(name)!r} has the grid "
                f"{format_grid(shape[1:])}: leave the layer grid out, or name a layer"
            )
        if len(shape) != self._x.dim() - 1:
            del self._labels[name]
            raise LayerError(
                f"layer {name!r} gives {shape} per sample, expected (channels, *space) "
                f"with {self._x.dim() - 2} axes of space: name a layer that keeps them"
            )

    def _plain_backward(self, total: Tensor, answers: Answers, *, retain_graph: bool) -> None:
        self.passes += Passes(backward=1)
        plain = InputGradient()
        inputs = [self._x] if plain in self._gradients else []
        gradients, reduced = self._recorder.backward(
            total, inputs, self._reductions(), retain_graph=retain_graph
        )
        if inputs:
            self._add_gradient(plain, gradients[0], answers)
        for request in self._maps:
            if request.layer not in self._labels:
                continue
            label = self._labels[request.layer]
            if label in self._recorder.cancelled and isinstance(
                request.reduction, ChannelWeightedReduction
            ):
                answers.refused[request] = _cancelled(label)
            elif label in reduced:
                layer = self._recorder.layers[label]
                called = call_label(label, [each.name for each in self._ran])
                layer = replace(layer, name=with_grid(called, grid_of(request.layer)) or called)
                answers.maps[request] = (layer, reduced[label][request.reduction])
            else:
                answers.refused[request] = self._independent_of(label)

    def _reductions(self) -> dict[str, set[LayerReduction]]:
        found: dict[str, set[LayerReduction]] = {}
        for request in self._maps:
            if request.layer in self._labels:
                found.setdefault(self._labels[request.layer], set()).add(request.reduction)
        return found

    def _independent_of(self, label: str) -> LayerError:
        """Return the error for a layer that no gradient reached."""
        if label in self._recorder.without_gradients:
            return no_gradient_error(label)
        return LayerError(
            f"the target does not depend on layer {label!r}: name a layer the output depends on"
        )

    def _backward_under(
        self, request: InputGradient, total: Tensor, answers: Answers, *, retain_graph: bool
    ) -> None:
        self.passes += Passes(backward=1)
        rule, (at_output,) = request.rule, differentiate(total, [self._output], retain_graph=True)
        gradient = None
        if at_output is not None:
            start = rule.start(self._output.detach(), at_output)
            with self._hooks.in_force(rule):
                (gradient,) = differentiate(
                    self._output, [self._x], start, retain_graph=retain_graph
                )
        # Checkpointed blocks show their calls in the backward pass alone.
        refusal = self._hooks.refusal(rule) or rule.refusal(self._setup.network, self._hooks.seen)
        if refusal is not None:
            answers.refused[request] = MethodError(refusal)
            return
        self._add_gradient(request, gradient, answers)

    def _add_gradient(
        self, request: InputGradient, gradient: Tensor | None, answers: Answers
    ) -> None:
        self.passes += Passes(gradients=self._x.shape[0])
        if gradient is None:
            answers.refused[request] = _independent_of_input()
        else:
            answers.gradients[request] = gradient.detach().contiguous()


def _independent_of_input() -> MethodError:
    return MethodError(
        "the target does not depend on the input in any differentiable way: the network detaches "
        "its input, has layers without gradients (quantized ones), or returns a constant"
    )


def _cancelled(label: str) -> LayerError:
    return LayerError(
        f"the gradients at layer {label!r} cancel out over the image, so its map would be rounding "
        "noise: the next layer subtracts the mean, as an instance norm does; name the norm or the "
        "activation after it"
    )
