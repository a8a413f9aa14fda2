"""Rules and reductions that are defined outside of the package, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from networks import CONV, explain, image, make, plain_gradient, relative, seeded
from neuroxai.core.layers.reduction import LayerReduction, PositionwiseReduction
from neuroxai.core.probe.requests import InputGradient, LayerMap, Request
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.rules.backward_rule import PLAIN, BackwardRule, Call, GradientChange
from neuroxai.core.rules.guided import GUIDED, Guided
from neuroxai.core.rules.rectifier_rule import RectifierRule
from neuroxai.core.target.target import Class
from neuroxai.methods.class_activation import ClassActivationMethod
from neuroxai.methods.deconvolution import Deconvnet
from neuroxai.methods.input_gradient import InputGradientMethod

TARGET = 2


@dataclass(frozen=True)
class Scaled(BackwardRule):
    """Every convolution's gradient times a factor: not a rule for activations."""

    title: ClassVar[str] = "scaled gradient"
    factor: float = 1.0

    def watch(self, call: Call) -> GradientChange | None:
        if call.function not in (functional.conv2d, functional.conv3d):
            return None
        return lambda gradient, own: self.factor * own


@dataclass(frozen=True)
class Damped(RectifierRule):
    """Negative gradients count less, by the activation's input."""

    title: ClassVar[str] = "damped backpropagation"
    extension: ClassVar[str] = "it is the same"

    def at_activation(self, call: Call) -> GradientChange:
        size = call.input.abs()
        return lambda gradient, own: torch.where(gradient > 0, own, own / (1 + size))


class DampedReLU(torch.autograd.Function):
    """The same rule as a function of its own."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        own = grads[0] * (x > 0)
        out: Tensor = torch.where(grads[0] > 0, own, own / (1 + x.abs()))
        return out


class AsModule(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = DampedReLU.apply(x)  # type: ignore[no-untyped-call]
        return out


@dataclass(frozen=True)
class ScaledGradient(InputGradientMethod):
    name: ClassVar[str] = "scaled_gradient"
    title: ClassVar[str] = "Scaled gradient"
    citation: ClassVar[str] = "arXiv:0000.00000"
    rule: ClassVar[BackwardRule] = Scaled(3.0)


@dataclass(frozen=True)
class Damping(InputGradientMethod):
    name: ClassVar[str] = "damping"
    title: ClassVar[str] = "Damping"
    citation: ClassVar[str] = "arXiv:0000.00000"
    rule: ClassVar[BackwardRule] = Damped()


@pytest.mark.parametrize("dims", [2, 3])
def test_a_rule_for_other_calls_than_activations(dims: int) -> None:
    """Each of three convolutions in a row multiplies the gradient once."""
    layers = [CONV[dims](4, 6, 3), nn.ReLU(), CONV[dims](6, 6, 1), nn.GELU(), CONV[dims](6, 5, 1)]
    network, x = seeded(3, lambda: nn.Sequential(*layers)).eval(), image(dims)
    got = explain(ScaledGradient(), network, x, Class(TARGET))
    assert relative(got.values, 3.0**3 * plain_gradient(network, x, TARGET)) <= 1e-5
    assert got.notes == ()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_rule_of_another_package_at_every_rectifier(dims: int, checkpointed: bool) -> None:
    network, x = make("segmenter", dims).eval(), image(dims)
    probe = WholeVolume(network, Class(TARGET))
    probe.checkpointed = checkpointed
    got = Damping().explain(probe, x)
    expected = make("segmenter", dims, act=AsModule).eval()
    assert relative(got.values, plain_gradient(expected, x, TARGET)) <= 1e-5
    assert relative(got.values, plain_gradient(network, x, TARGET)) > 0.01


@dataclass(frozen=True)
class Power(PositionwiseReduction):
    """A reduction with a parameter: two of them are two requests."""

    exponent: int

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return (activation.abs() ** self.exponent * gradient).sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class PowerMap(ClassActivationMethod):
    name: ClassVar[str] = "power_map"
    title: ClassVar[str] = "Power map"
    citation: ClassVar[str] = "arXiv:0000.00000"
    reduction: ClassVar[LayerReduction] = Power(2)


def test_a_reduction_of_another_package() -> None:
    network, x = make("segmenter").eval(), image()
    seen: list[Tensor] = []
    handle = network.get_submodule("join").register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    score = network(x)[:, TARGET].flatten(1).mean(dim=1).sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, seen)
    got = explain(PowerMap("join"), network, x, Class(TARGET)).values
    assert relative(got, (seen[0].detach() ** 2 * gradient).sum(dim=1, keepdim=True)) <= 1e-5


def test_equal_requests_are_one_and_each_rule_costs_one_backward_pass() -> None:
    assert len({InputGradient(), InputGradient(PLAIN), InputGradient(GUIDED)}) == 2
    assert InputGradient(Guided()) == InputGradient(GUIDED)
    assert LayerMap("a", Power(1)) != LayerMap("a", Power(2))
    network, x = make("segmenter"), image()
    rules = [PLAIN, GUIDED, Deconvnet(), Scaled(2.0), Scaled(3.0), Damped()]
    requests: list[Request] = [
        *(InputGradient(rule) for rule in (*rules, Guided())),
        *(LayerMap(layer, Power(n)) for layer in ("join", "down") for n in (1, 2)),
        LayerMap("join"),
    ]
    probe = WholeVolume(network, Class(TARGET))
    with probe.at(x, requests):
        together = [probe.gradient(x, rule) for rule in rules]
        maps = [probe.layer_map(x, "join", Power(n))[1] for n in (1, 2)]
    assert (probe.passes.forward, probe.passes.backward) == (1, len(rules))
    for rule, values in zip(rules, together, strict=True):
        alone = WholeVolume(network, Class(TARGET))
        with alone.at(x):
            assert relative(values, alone.gradient(x, rule)) <= 1e-6
    assert relative(maps[0], maps[1]) > 0.1
