"""The probe that sends the whole volume through the network at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from neuroxai.core.errors import LayerError, MethodError, NeuroXAIError
from neuroxai.core.guided import GuidedRule
from neuroxai.core.layers import AUTO, Layer, LayerHooks, auto_layer, check_names
from neuroxai.core.probe import Asks, Passes, Probe
from neuroxai.core.target import BoundTarget, Outputs, Target
from neuroxai.core.untouched import untouched
from neuroxai.core.watch import Reducer, Watch, cam


@dataclass(eq=False)
class _Answers:
    """What is known about one input."""

    output: Tensor
    score: Tensor
    gradient: Tensor | None = None
    guided: Tensor | None = None
    maps: dict[str, tuple[Layer, Tensor]] = field(default_factory=dict)
    refused: dict[str, NeuroXAIError] = field(default_factory=dict)
    """What could not be answered, and why; raised only when it is asked for alone."""

    def take(self, more: _Answers) -> None:
        """Add what another pass found out."""
        self.gradient = more.gradient if self.gradient is None else self.gradient
        self.guided = more.guided if self.guided is None else self.guided
        self.maps.update(more.maps)
        self.refused.update(more.refused)

    def guided_gradient(self) -> Tensor:
        if self.guided is None:
            raise self.refused["guided"]
        return self.guided

    def layer_map(self, name: str) -> tuple[Layer, Tensor]:
        if name not in self.maps:
            raise self.refused[name]
        return self.maps[name]


class WholeVolume(Probe):
    """Answers a method's questions with passes over the whole input.

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

    Examples
    --------
    >>> from neuroxai.core.target import Class
    >>> layer = nn.Linear(3, 2, bias=False)
    >>> probe = WholeVolume(nn.Sequential(nn.Flatten(), layer), Class(1))
    >>> x = torch.zeros(1, 3, 1)
    >>> with probe.at(x, Asks(gradient=True)):
    ...     torch.equal(probe.gradient(x).flatten(), layer.weight[1])
    True
    """

    def __init__(
        self,
        network: nn.Module,
        target: Target,
        outputs: Outputs | None = None,
        *,
        air: tuple[float, ...] | None = None,
    ) -> None:
        self.network = network
        self.outputs = outputs or Outputs()
        self.air = air
        self.passes = Passes()
        self._question = target
        self._bound: BoundTarget | None = None
        self._point: Tensor | None = None
        self._asks = Asks()
        self._answers: _Answers | None = None
        self.extended: tuple[str, ...] = ()
        self.copied: set[str] = set()

    @contextmanager
    def at(self, x: Tensor, asks: Asks) -> Iterator[None]:
        """Make ``x`` the explained point, in a frozen network."""
        check_names(self.network, sorted(asks.layers))
        with untouched(self.network):
            self._point, self._asks, self._answers, self._bound = x, asks, None, None
            try:
                yield
            finally:
                self._point, self._asks, self._answers, self._bound = None, Asks(), None, None

    @property
    def explained(self) -> Tensor | None:
        """The explained point."""
        return self._point

    def output(self) -> Tensor:
        """Return the model output at the explained point."""
        return self._known().output

    @property
    def target(self) -> BoundTarget:
        """The target as it is fixed at the explained point."""
        return self.bind(self._known().output)

    @property
    def rectifiers(self) -> tuple[str, ...]:
        """Activations that the guided rule was extended to."""
        return self.extended

    def score(self, x: Tensor) -> Tensor:
        """Return the target's value, without a graph."""
        if x is self._point:
            return self._known().score
        bound = self.target
        with torch.no_grad():
            self.passes.forward += 1
            return bound.score(self.outputs.select(self.network(x.clone())))

    def gradient(self, x: Tensor) -> Tensor:
        """Return ``dS/dx``."""
        if x is not self._point:
            return _given(self._visit(x, Asks(gradient=True)).gradient)
        if self._known().gradient is None:
            self._known().take(self._visit(x, Asks(gradient=True)))
        return _given(self._known().gradient)

    def guided_gradient(self, x: Tensor) -> Tensor:
        """Return ``dS/dx`` under the guided rule."""
        if x is not self._point:
            return self._visit(x, Asks(guided=True)).guided_gradient()
        known = self._known()
        if known.guided is None and "guided" not in known.refused:
            known.take(self._visit(x, Asks(guided=True)))
        return known.guided_gradient()

    def layer_map(self, x: Tensor, name: str) -> tuple[Layer, Tensor]:
        """Return a layer and its class activation map."""
        asks = Asks(layers=frozenset([name]))
        if x is not self._point:
            return self._visit(x, asks).layer_map(name)
        known = self._known()
        if name not in known.maps and name not in known.refused:
            known.take(self._visit(x, asks))
        return known.layer_map(name)

    def reduce_layers(
        self, x: Tensor, names: Sequence[str], reduce: Reducer
    ) -> Mapping[str, tuple[Layer, Tensor]]:
        """Return what ``reduce`` makes of every named layer."""
        check_names(self.network, names)
        answers = self._visit(x, Asks(layers=frozenset(names)), reduce)
        return {name: answers.layer_map(name) for name in names}

    def _known(self) -> _Answers:
        """Return the answers at the explained point; the first question costs the shared pass."""
        if self._point is None:
            raise MethodError("no point is explained: ask inside 'with probe.at(x, asks)'")
        if self._answers is None:
            self._answers = self._visit(self._point, self._asks)
        return self._answers

    def _visit(self, x: Tensor, asks: Asks, reduce: Reducer = cam) -> _Answers:
        """Answer everything asked about ``x`` from one forward pass."""
        if x is not self._point:
            self._known()  # the target is bound there, not at a point of some path
        walk = _Walk(self, x, asks, reduce)
        answers = walk.run()
        if walk.overwritten:
            # An in-place layer wrote over an activation that was to be kept: once more, with a
            # copy of it, now that it is known which one.
            self.copied |= walk.overwritten
            answers = _Walk(self, x, asks, reduce).run()
        return answers

    def bind(self, output: Tensor) -> BoundTarget:
        """Fix the target at the explained point, at its first output."""
        if self._bound is None:
            self._bound = self._question.bind(self.outputs, output)
        return self._bound


class _Walk:
    """One forward pass and the backward passes taken from it."""

    def __init__(self, probe: WholeVolume, x: Tensor, asks: Asks, reduce: Reducer) -> None:
        self._probe = probe
        self._asks = asks
        self._reduce = reduce
        self._rule = GuidedRule()
        self._needs_input = asks.gradient or asks.guided
        self._x = x.detach()
        if self._needs_input:
            self._x.requires_grad_()
        self._convolutions: list[Layer] = []
        self._watch = Watch(probe.copied)
        self._wanted: dict[str, str] = {}
        self.overwritten: set[str] = set()

    def run(self) -> _Answers:
        differentiates = self._needs_input or bool(self._asks.layers)
        with torch.set_grad_enabled(differentiates):
            output = self._forward()
            bound = self._probe.bind(output)
            score = bound.score(output)
            total = score.sum()
        answers = _Answers(output.detach(), score.detach())
        if not differentiates:
            return answers
        self._choose_layers(answers, classifier=output.dim() == 2)
        if self.overwritten:
            return answers
        if not score.requires_grad:
            if self._needs_input:
                raise MethodError(
                    "the target does not depend on the input in any differentiable way: "
                    "the network detaches its input or returns a constant"
                )
            answers.refused.update((name, _beside(name)) for name in self._wanted)
            return answers
        if self._asks.guided and not self._rule.seen:
            answers.refused["guided"] = MethodError(
                "guided backpropagation is void on this network: "
                f"{type(self._probe.network).__name__} has no rectifier (ReLU or the like), so "
                "the map would equal the plain gradient; use vanilla_gradient"
            )
        guided = self._asks.guided and bool(self._rule.seen)
        if self._asks.gradient or self._wanted:
            self._plain_backward(total, answers, retain_graph=guided)
        if guided:
            self._probe.extended = self._rule.extended
            self._guided_backward(total, answers)
        return answers

    def _forward(self) -> Tensor:
        probe = self._probe
        with ExitStack() as stack:
            if self._asks.guided:
                stack.enter_context(self._rule.watching())
            if self._asks.layers:
                names = sorted(self._asks.layers)
                stack.enter_context(LayerHooks(probe.network, names, self._meet))
            probe.passes.forward += 1
            # A copy, because a network may work in place on what it is given.
            return probe.outputs.select(probe.network(self._x.clone()))

    def _meet(self, layer: Layer, output: Tensor) -> Tensor | None:
        """Keep hold of a layer's output; called in the order the data flows."""
        plain = layer.name.partition("#")[0]
        convolution = isinstance(self._probe.network.get_submodule(plain), _ConvNd)
        if convolution:
            self._convolutions.append(layer)
        named = {layer.name, plain} & self._asks.layers
        if layer.name == plain and f"{plain}#1" in self._asks.layers:
            named |= {f"{plain}#1"}
        if not named and not (convolution and AUTO in self._asks.layers):
            return None
        for name in named:
            self._wanted[name] = layer.name  # a module's last call answers to its plain name
        return self._watch.hold(layer, output)

    def _choose_layers(self, answers: _Answers, *, classifier: bool) -> None:
        for name in sorted(self._asks.layers):
            try:
                if name == AUTO:
                    chosen_layer = auto_layer(self._convolutions, classifier=classifier)
                    self._wanted[AUTO] = chosen_layer.name
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

    def _plain_backward(self, total: Tensor, answers: _Answers, *, retain_graph: bool) -> None:
        self._probe.passes.backward += 1
        inputs = [self._x] if self._asks.gradient else []
        gradients, reduced = self._watch.backward(
            total, inputs, self._reduce, retain_graph=retain_graph
        )
        if self._asks.gradient:
            answers.gradient = self._arrived(gradients[0])
        for name, label in self._wanted.items():
            if label in reduced:
                answers.maps[name] = (self._watch.layers[label], reduced[label])
            else:
                answers.refused[name] = _beside(label)

    def _guided_backward(self, total: Tensor, answers: _Answers) -> None:
        self._probe.passes.backward += 1
        with self._rule.in_force():
            (guided,) = torch.autograd.grad(total, [self._x], allow_unused=True)
        answers.guided = self._arrived(guided)

    def _arrived(self, gradient: Tensor | None) -> Tensor:
        """Count an input gradient; a target that ignores the input has a zero one."""
        passes = self._probe.passes
        passes.gradients += self._x.shape[0]
        passes.on_gradient(self._x.shape[0])
        return torch.zeros_like(self._x.detach()) if gradient is None else gradient.detach()


def _beside(label: str) -> LayerError:
    return LayerError(f"the target does not depend on layer {label!r}: name a layer on its way")


def _given(value: Tensor | None) -> Tensor:
    if value is None:
        raise MethodError("the probe was asked for an answer that its pass did not give")
    return value
