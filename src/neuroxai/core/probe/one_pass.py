"""One forward pass and the backward passes taken from it: everything asked, answered at once."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from neuroxai.core.engine.converted_weights import ConvertedWeights
from neuroxai.core.engine.fast_path import run_fast
from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.errors import LayerError, MethodError
from neuroxai.core.layers.auto_layer import auto_layer, layer_by_default, ways_to
from neuroxai.core.layers.layers import AUTO, Layer, LayerHooks
from neuroxai.core.layers.layout import OnGrid
from neuroxai.core.layers.watch import Reducer, Watch, cam, differentiate, severed
from neuroxai.core.probe.answers import Answers, Asks, Passes
from neuroxai.core.probe.checkpointing import checkpointed
from neuroxai.core.rules.guided import GuidedRule
from neuroxai.core.rules.rectifiers import out_of_sight
from neuroxai.core.target.outputs import Outputs


class Scored(Protocol):
    """Makes the scalar of an output that is differentiated."""

    def score(self, output: Tensor) -> Tensor:
        """Return ``(B,)`` of an output."""
        ...


class Host(Protocol):
    """On whose behalf a pass is taken.

    Attributes
    ----------
    network, outputs
        What is run, and which of its outputs counts.
    passes
        What was spent so far; counted up.
    copied
        Layers whose output is overwritten in place, and is copied; found out on the way.
    extended
        Activations that the guided rule was extended to.
    checkpointed
        Whether only the inputs of blocks are kept, and the blocks run again.
    settings, weights
        The settings of the pass, and converted weights to reuse.
    """

    network: nn.Module
    outputs: Outputs
    passes: Passes
    copied: set[str]
    extended: tuple[str, ...]
    checkpointed: bool
    settings: PassSettings
    weights: ConvertedWeights | None

    def answer(self, x: Tensor) -> Tensor:
        """Return the selected output of the network in the precision of the settings."""
        ...

    def bind(self, output: Tensor) -> Scored:
        """Return what is differentiated."""
        ...


def one_pass(host: Host, x: Tensor, asks: Asks, reduce: Reducer = cam) -> Answers:
    """Answer everything asked about ``x`` from one forward pass."""
    passes = host.passes
    spent = passes.forward, passes.backward, passes.gradients

    def work(x: Tensor) -> Answers:
        passes.forward, passes.backward, passes.gradients = spent
        return _taken(host, x, asks, reduce)

    return run_fast(host.network, x, work, host.settings, host.weights)


def _taken(host: Host, x: Tensor, asks: Asks, reduce: Reducer) -> Answers:
    if not host.checkpointed:
        return _walked(host, x, asks, reduce)
    if AUTO not in asks.layers:
        with checkpointed(host.network, asks.layers):
            return _walked(host, x, asks, reduce)
    # Which blocks are spared has to be known before the pass.
    try:
        chosen = _auto(host, x)
    except LayerError as error:
        rest = replace(asks, layers=asks.layers - {AUTO})
        answers = _taken(host, x, rest, reduce)
        answers.refused[AUTO] = error
        return answers
    answers = _taken(host, x, replace(asks, layers=asks.layers - {AUTO} | {chosen}), reduce)
    if chosen in answers.maps:
        answers.maps[AUTO] = answers.maps[chosen]
    elif chosen in answers.refused:
        answers.refused[AUTO] = answers.refused[chosen]
    return answers


def _auto(host: Host, x: Tensor) -> str:
    """Return the layer that Grad-CAM looks at by default, from a pass without a graph."""
    host.passes.forward += 1
    return layer_by_default(host.network, x, host.answer)


def _walked(host: Host, x: Tensor, asks: Asks, reduce: Reducer) -> Answers:
    walk = _Walk(host, x, asks, reduce)
    try:
        answers = walk.run()
    except CheckpointError:
        # A graph that begins at a layer inside a block does not fit what is made of the block when
        # it runs again; one that begins at the input does.
        walk = _Walk(host, x, asks, reduce, from_input=True)
        answers = walk.run()
    if walk.overwritten:
        # An in-place layer wrote over an activation that was to be kept: once more, with a
        # copy of it, now that it is known which one.
        host.copied |= walk.overwritten
        answers = _Walk(host, x, asks, reduce, from_input=walk.from_input).run()
    return answers


class _Walk:
    """One forward pass and the backward passes taken from it."""

    def __init__(
        self, host: Host, x: Tensor, asks: Asks, reduce: Reducer, *, from_input: bool = False
    ) -> None:
        self.from_input = from_input
        self._host = host
        self._asks = asks
        self._reduce = reduce
        self._rule = GuidedRule()
        self._needs_input = asks.gradient or asks.guided
        self._x = x.detach()
        if self._needs_input or from_input:
            self._x.requires_grad_()
        self._ran: list[Layer] = []
        self._nodes: dict[str, Any] = {}
        self._watch = Watch(host.copied)
        self._wanted: dict[str, str] = {}
        self.overwritten: set[str] = set()

    def run(self) -> Answers:
        differentiates = self._needs_input or bool(self._asks.layers)
        with torch.set_grad_enabled(differentiates):
            output = self._forward()
            bound = self._host.bind(output)
            score = bound.score(output)
            total = score.sum()
        answers = Answers(output.detach(), score.detach())
        if not differentiates:
            return answers
        self._choose_layers(answers, output)
        if self.overwritten:
            return answers
        if not score.requires_grad:
            answers.refused |= {"gradient": _detached(), "guided": _detached()}
            answers.refused.update((name, self._apart(name)) for name in self._wanted)
            return answers
        if self._asks.guided and (refusal := self._unguided()):
            answers.refused["guided"] = refusal
        guided = self._asks.guided and "guided" not in answers.refused
        if self._asks.gradient or self._wanted:
            self._plain_backward(total, answers, retain_graph=guided)
        if guided:
            self._host.extended = self._rule.extended
            self._guided_backward(total, answers)
        return answers

    def _unguided(self) -> MethodError | None:
        """Return why the guided rule cannot be kept."""
        network = self._host.network
        hidden = out_of_sight(network)
        if hidden is not None:
            return MethodError(
                "guided backpropagation is void on this network: the rectifiers inside "
                f"{hidden or type(network).__name__!r}, a TorchScript module, cannot be reached; "
                "explain the network that it was made from, or use vanilla_gradient"
            )
        if not self._rule.seen:
            return MethodError(
                "guided backpropagation is void on this network: "
                f"{type(network).__name__} has no rectifier (ReLU or the like), so "
                "the map would equal the plain gradient; use vanilla_gradient"
            )
        return None

    def _forward(self) -> Tensor:
        host = self._host
        with ExitStack() as stack:
            if self._asks.guided:
                stack.enter_context(self._rule.watching())
            if self._asks.layers:
                names = sorted(self._asks.layers)
                dims = self._x.dim() - 2
                stack.enter_context(LayerHooks(host.network, names, self._meet, dims))
            host.passes.forward += 1
            return host.answer(self._x)

    def _meet(self, layer: Layer, output: Tensor, on_grid: OnGrid | None) -> Tensor | None:
        """Keep hold of a layer's output; called in the order the data flows."""
        plain = layer.name.partition("#")[0]
        self._ran.append(layer)
        named = {layer.name, plain} & self._asks.layers
        if layer.name == plain and f"{plain}#1" in self._asks.layers:
            named |= {f"{plain}#1"}
        if not named and AUTO not in self._asks.layers:
            return None
        for name in named:
            self._wanted[name] = layer.name  # a module's last call answers to its plain name
        passed_on = self._watch.hold(layer, output, on_grid)
        if AUTO in self._asks.layers:
            self._nodes[layer.name] = (output if passed_on is None else passed_on).grad_fn
        return passed_on

    def _choose_layers(self, answers: Answers, output: Tensor) -> None:
        for name in sorted(self._asks.layers):
            try:
                if name == AUTO:
                    ways = ways_to(output, self._host.network, self._nodes)
                    chosen = auto_layer(
                        self._host.network, self._ran, classifier=output.dim() == 2, ways=ways
                    )
                    self._wanted[AUTO] = chosen.name
                elif name not in self._wanted:
                    raise LayerError(
                        f"layer {name!r} never ran in the forward pass: name one that does"
                    )
                shape = self._watch.layers[self._wanted[name]].shape
                if len(shape) != self._x.dim() - 1:
                    del self._wanted[name]
                    raise LayerError(
                        f"layer {name!r} gives {shape} per sample, expected (channels, *space) "
                        f"with {self._x.dim() - 2} axes of space: name a layer that keeps them"
                    )
            except LayerError as error:
                answers.refused[name] = error
        self._watch.keep_only(set(self._wanted.values()))
        self.overwritten = self._watch.overwritten()

    def _plain_backward(self, total: Tensor, answers: Answers, *, retain_graph: bool) -> None:
        self._host.passes.backward += 1
        inputs = [self._x] if self._asks.gradient else []
        gradients, reduced = self._watch.backward(
            total, inputs, self._reduce, retain_graph=retain_graph
        )
        if self._asks.gradient:
            answers.gradient = self._arrived(gradients[0])
            if answers.gradient is None:
                answers.refused["gradient"] = _detached()
        for name, label in self._wanted.items():
            if label in self._watch.cancelled:
                answers.refused[name] = _cancelled(label)
            elif label in reduced:
                answers.maps[name] = (self._watch.layers[label], reduced[label])
            else:
                answers.refused[name] = self._apart(label)

    def _apart(self, label: str) -> LayerError:
        """Return why no gradient came to a layer."""
        if label in self._watch.severed:
            return severed(label)
        return LayerError(f"the target does not depend on layer {label!r}: name a layer on its way")

    def _guided_backward(self, total: Tensor, answers: Answers) -> None:
        self._host.passes.backward += 1
        with self._rule.in_force():
            (guided,) = differentiate(total, [self._x])
        answers.guided = self._arrived(guided)
        if answers.guided is None:
            answers.refused["guided"] = _detached()

    def _arrived(self, gradient: Tensor | None) -> Tensor | None:
        """Count an input gradient; a target that ignores the input has a zero one, not none."""
        passes = self._host.passes
        passes.gradients += self._x.shape[0]
        passes.on_gradient(self._x.shape[0])
        return None if gradient is None else gradient.detach().contiguous()


def _detached() -> MethodError:
    return MethodError(
        "the target does not depend on the input in any differentiable way: the network detaches "
        "its input, has layers without gradients (quantized ones), or returns a constant"
    )


def _cancelled(label: str) -> LayerError:
    return LayerError(
        f"the gradients at layer {label!r} cancel out over the image, its map would be rounding "
        "noise: what follows takes the mean away, as an instance norm does; name the norm or the "
        "activation behind it"
    )
