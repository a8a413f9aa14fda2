"""The guided rule sees every spelling of a rectifier, and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from networks import CONV, explain, image, make, plain_gradient, relative, seeded, snapshot
from neuroxai.core.errors import MethodError
from neuroxai.core.probe.requests import InputGradient
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.rules.backward_rule import PLAIN
from neuroxai.core.rules.guided import GUIDED
from neuroxai.core.rules.rule_hooks import RuleHooks
from neuroxai.core.target.target import Class
from neuroxai.methods import make_method

TARGET = 2
Act = Callable[[Tensor], Tensor]


class Guided(torch.autograd.Function):
    """The rule spelled as a function of its own: eqs. 2 and 3 and no hook."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        out: Tensor = torch.where(x > 0, x, 0.0)
        return out

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        gradient: Tensor = grads[0]
        kept: Tensor = gradient * (x > 0) * (gradient > 0)
        return kept


def by_function(x: Tensor) -> Tensor:
    out: Tensor = Guided.apply(x)  # type: ignore[no-untyped-call]
    return out


class Through(torch.autograd.Function):
    """Any activation, whose backward pass lets every positive gradient through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, act: Act) -> Tensor:
        return act(x.clone())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * (grads[0] > 0), None


def through(x: Tensor, act: Act = torch.relu) -> Tensor:
    out: Tensor = Through.apply(x, act)  # type: ignore[no-untyped-call]
    return out


class Net(nn.Module):
    """Two levels with skips around each rectifier; the rectifiers are given."""

    def __init__(self, acts: tuple[Act, Act, Act], dims: int = 2) -> None:
        super().__init__()
        conv = CONV[dims]
        self.one = conv(4, 6, 3, padding=1)
        self.two = conv(6, 6, 3, padding=1)
        self.three = conv(6, 6, 1)
        self.out = conv(6, 5, 1)
        self.given = nn.ModuleList(a for a in dict.fromkeys(acts) if isinstance(a, nn.Module))
        self.acts = acts

    def forward(self, x: Tensor) -> Tensor:
        first = self.acts[0](self.one(x))
        second = self.acts[1](self.two(first)) + first
        third = self.acts[2](self.three(second)) + second
        out: Tensor = self.out(third)
        return out


def net(*acts: Act, dims: int = 2) -> nn.Module:
    three = (acts * 3)[:3]
    network = seeded(1, lambda: Net((three[0], three[1], three[2]), dims))
    with torch.no_grad():
        network.out.weight[TARGET, 1:].abs_()  # type: ignore[index,union-attr]
    return network.eval()


def items_set(x: Tensor) -> Tensor:
    x[x < 0] = 0
    return x


def whole_view(x: Tensor) -> Tensor:
    whole = x.clone()
    whole[:].relu_()
    return whole


def halves(act: Act) -> Act:
    """Rectify the halves of a tensor in place, each by a view of it."""

    def both(x: Tensor) -> Tensor:
        whole = x.clone()
        act(whole[:, :3])
        act(whole.narrow(1, 3, 3))
        return whole

    return both


SPELLINGS: dict[str, Callable[[], tuple[Act, ...]]] = {
    "modules": lambda: (nn.ReLU(), nn.ReLU(), nn.ReLU()),
    "one module reused": lambda: (nn.ReLU(),),
    "modules in place": lambda: (nn.ReLU(inplace=True), nn.ReLU(inplace=True), nn.ReLU(True)),
    "one in-place module reused": lambda: (nn.ReLU(inplace=True),),
    "functional": lambda: (functional.relu,),
    "functional in place": lambda: (lambda x: functional.relu(x, inplace=True),),
    "functional relu_": lambda: (functional.relu_,),
    "torch.relu": lambda: (torch.relu,),
    "torch.relu_": lambda: (torch.relu_,),
    "Tensor.relu": lambda: (lambda x: x.relu(),),
    "Tensor.relu_": lambda: (lambda x: x.relu_(),),
    "clamp": lambda: (lambda x: x.clamp(min=0),),
    "clamp positional": lambda: (lambda x: torch.clamp(x, 0.0),),
    "clamp in place": lambda: (lambda x: x.clone().clamp_(min=0),),
    "clamp_min": lambda: (lambda x: x.clamp_min(0),),
    "clamp by a tensor": lambda: (lambda x: x.clamp(min=torch.zeros(())),),
    "maximum": lambda: (lambda x: torch.maximum(x, torch.zeros(())),),
    "maximum, zero first": lambda: (lambda x: torch.maximum(torch.zeros_like(x), x),),
    "torch.max of two": lambda: (lambda x: torch.max(x, x.new_zeros(1)),),
    "Tensor.max of two": lambda: (lambda x: x.max(other=torch.zeros(())),),
    "functional threshold_": lambda: (lambda x: torch.threshold_(x.clone(), 0, 0),),
    "torch.clamp_min": lambda: (lambda x: torch.clamp_min(x, min=0),),
    "clip": lambda: (lambda x: torch.clip(x, min=0),),
    "relu6 far from six": lambda: (nn.ReLU6(),),
    "functional relu6": lambda: (functional.relu6,),
    "hardtanh from zero": lambda: (nn.Hardtanh(0, 1e6),),
    "threshold": lambda: (nn.Threshold(0, 0),),
    "functional threshold": lambda: (lambda x: functional.threshold(x, 0.0, 0.0),),
    "threshold in place": lambda: (nn.Threshold(0, 0, inplace=True),),
    "one of each": lambda: (nn.ReLU(inplace=True), functional.relu, lambda x: x.relu_()),
    "where": lambda: (lambda x: torch.where(x > 0, x, 0.0),),
    "where, the other way round": lambda: (lambda x: torch.where(x <= 0, torch.zeros(()), x),),
    "Tensor.where": lambda: (lambda x: x.where(x >= 0, 0),),
    "times what is positive": lambda: (lambda x: x * (x > 0),),
    "what is positive, times": lambda: (lambda x: (x > 0).float() * x,),
    "times, in place": lambda: (lambda x: x.mul_(x > 0),),
    "masked_fill": lambda: (lambda x: x.masked_fill(x < 0, 0),),
    "masked_fill in place": lambda: (lambda x: x.masked_fill_(x < 0, 0),),
    "items set": lambda: (items_set,),
    "a view, in place": lambda: (whole_view,),
    "a view, clamped in place": lambda: (halves(lambda x: x.clamp_(min=0)),),
    "a view, masked in place": lambda: (halves(lambda x: x.masked_fill_(x < 0, 0)),),
    "a view's items set": lambda: (halves(items_set),),
    "a view, not in place": lambda: (lambda x: functional.relu(x[:]),),
    "times the detached sign": lambda: (lambda x: x * (x.detach() > 0),),
    "times what is not negative": lambda: (lambda x: x * ~(x < 0),),
    "zero first": lambda: (lambda x: x * (x > 0).to(x.dtype),),
    "torch.gt": lambda: (lambda x: torch.mul(torch.gt(x, 0).type_as(x), x),),
    "checkpointed": lambda: (lambda x: checkpoint(functional.relu, x, use_reentrant=False),),
}


RULES: dict[str, Act] = {"guided_backprop": by_function, "deconvolution": through}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", RULES)
def test_every_spelling_of_a_rectifier(name: str, dims: int, spelling: str) -> None:
    network, x = net(*SPELLINGS[spelling](), dims=dims), image(dims)
    expected = plain_gradient(net(RULES[name], dims=dims), x, TARGET)
    before = snapshot(network)
    got = explain(name, network, x, Class(TARGET))
    assert relative(got.values, expected) <= 1e-6
    assert not got.notes
    assert snapshot(network) == before
    plain = explain("vanilla_gradient", network, x, Class(TARGET)).values
    assert relative(plain, plain_gradient(net(nn.ReLU(), dims=dims), x, TARGET)) <= 1e-6
    assert relative(expected, plain) > 0.01, "the rule must change something"


def test_the_plain_gradient_from_the_same_pass_is_plain() -> None:
    """Guided and plain gradients share a forward pass; the rule sleeps during the plain one."""
    network, x = net(nn.ReLU()), image()
    probe = WholeVolume(network, Class(TARGET))
    with probe.at(x, [InputGradient(), InputGradient(GUIDED)]):
        plain, guided = probe.gradient(x), probe.gradient(x, GUIDED)
    assert relative(plain, plain_gradient(network, x, TARGET)) <= 1e-6
    assert relative(guided, plain_gradient(net(by_function), x, TARGET)) <= 1e-6


def test_relu6_keeps_its_own_derivative_where_it_is_clipped() -> None:
    network, x = net(nn.ReLU6()), 12 * image()
    got = explain("guided_backprop", network, x, Class(TARGET)).values

    def clipped(x: Tensor) -> Tensor:
        return by_function(x.clamp(max=6))

    assert relative(got, plain_gradient(net(clipped), x, TARGET)) <= 1e-6
    assert relative(got, plain_gradient(net(by_function), x, TARGET)) > 0.01


EXTENDED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "LeakyReLU": (lambda: nn.LeakyReLU(0.2), "leaky_relu"),
    "LeakyReLU in place": (lambda: nn.LeakyReLU(0.2, inplace=True), "leaky_relu"),
    "LeakyReLU with a negative slope": (lambda: nn.LeakyReLU(-0.3), "leaky_relu"),
    "PReLU": (lambda: nn.PReLU(), "prelu"),
    "PReLU with negative slopes": (lambda: negative_prelu(), "prelu"),
    "RReLU": (lambda: nn.RReLU(), "rrelu"),
    "ELU": (lambda: nn.ELU(), "elu"),
    "ELU in place": (lambda: nn.ELU(inplace=True), "elu"),
    "CELU": (lambda: nn.CELU(), "celu"),
    "SELU": (lambda: nn.SELU(), "selu"),
    "GELU": (lambda: nn.GELU(), "gelu"),
    "SiLU": (lambda: nn.SiLU(), "silu"),
    "Mish": (lambda: nn.Mish(), "mish"),
    "Softplus": (lambda: nn.Softplus(), "softplus"),
    "Hardswish": (lambda: nn.Hardswish(), "hardswish"),
}


def negative_prelu() -> nn.Module:
    act = nn.PReLU(6)
    with torch.no_grad():
        act.weight.copy_(torch.tensor([-0.5, -0.2, 0.3, -1.5, 0.0, -0.1]))
    return act


class _Extended(torch.autograd.Function):
    """The natural extension at an activation given as a function: f'(x) (x > 0) (g > 0) g."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, act: Act) -> Tensor:
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.y = act(ctx.x.clone())
        out: Tensor = ctx.y.detach().clone()
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (own,) = torch.autograd.grad(ctx.y, ctx.x, grads[0])
        return own * (ctx.x > 0) * (grads[0] > 0), None


@pytest.mark.parametrize("name", EXTENDED)
def test_other_activations_get_the_natural_extension_and_a_note(name: str) -> None:
    build, word = EXTENDED[name]
    network, x = net(build()), image()
    by_hand = build().eval()
    expected_net = net(lambda x: _Extended.apply(x, by_hand))  # type: ignore[no-untyped-call]
    got = explain("guided_backprop", network, x, Class(TARGET))
    assert relative(got.values, plain_gradient(expected_net, x, TARGET)) <= 1e-6
    assert got.notes == (
        f"guided backpropagation was not published for {word}: a positive gradient passes where "
        "the activation's input is positive, times the activation's derivative",
    )
    both = explain("guided_grad_cam", network, x, Class(TARGET))
    assert got.notes[0] in both.notes
    expected_net = net(lambda x: through(x, by_hand))
    got = explain("deconvolution", network, x, Class(TARGET))
    assert relative(got.values, plain_gradient(expected_net, x, TARGET)) <= 1e-6
    assert got.notes == (
        f"deconvolution was not published for {word}: a positive gradient passes unchanged, "
        "whatever the activation's input and derivative",
    )


def test_mixed_rectifiers_name_those_outside_the_paper() -> None:
    got = explain("guided_backprop", net(nn.GELU(), nn.ReLU(), nn.ELU()), image())
    assert "elu, gelu:" in got.notes[0]


@pytest.mark.parametrize(
    "act",
    [
        nn.Identity(),
        nn.Tanh(),
        nn.Sigmoid(),
        nn.Hardtanh(),
        nn.Threshold(0.5, 0),
        lambda x: x.clamp(min=-1),
        lambda x: x.clamp(max=1),
        lambda x: x.clamp_min(0.5),
        lambda x: torch.maximum(x, -x),
        lambda x: torch.maximum(x, torch.ones(())),
        lambda x: x - x.max(),
        lambda x: torch.where(x.roll(1, 2) > 0, x, 0),
        lambda x: x * (x > 0).float().mean(),
        lambda x: x.max(2, keepdim=True).values,
        lambda x: torch.where(x > 0.5, x, 0),
        lambda x: x.abs() * (x != 0),
    ],
    ids=lambda act: type(act).__name__,
)
def test_a_network_without_rectifiers_is_refused_and_the_gradient_is_not(act: Act) -> None:
    network, x = net(act), image()
    for name in ("guided_backprop", "guided_grad_cam", "deconvolution"):
        with pytest.raises(MethodError, match="void on this network: Net has no rectifier"):
            explain(name, network, x)
    got = explain("vanilla_gradient", network, x, Class(TARGET)).values
    assert relative(got, plain_gradient(network, x, TARGET)) <= 1e-6


@pytest.mark.parametrize("name", ["guided_backprop", "grad_cam", "guided_grad_cam"])
@pytest.mark.parametrize("whole", [True, False])
def test_what_was_compiled_is_run_as_it_was_written(name: str, whole: bool) -> None:
    network, x = make("segmenter").eval(), image()
    expected = explain(name, network, x).values
    if whole:
        compiled: nn.Module = torch.compile(network, backend="aot_eager")  # type: ignore[assignment]
    else:
        network.get_submodule("down").compile(backend="aot_eager")
        compiled = network
    compiled(x)
    assert torch.equal(explain(name, compiled, x).values, expected)


@pytest.mark.parametrize("make_script", ["trace", "script"])
def test_rectifiers_out_of_sight_are_told_and_not_passed_by(make_script: str) -> None:
    hidden, x = nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 5, 1)), image()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would like it exported
        made = torch.jit.trace(hidden, x) if make_script == "trace" else torch.jit.script(hidden)
    network = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Sequential(made)).eval()
    with pytest.raises(MethodError, match=r"inside '2\.0', a TorchScript module"):
        explain("guided_backprop", network, x)
    got = explain("vanilla_gradient", network, x, Class(TARGET)).values
    assert relative(got, plain_gradient(network, x, TARGET)) <= 1e-6


@pytest.mark.parametrize("shift", [5.0, -5.0])
def test_a_result_overwritten_later_is_judged_by_what_it_was(shift: float) -> None:
    """clamp keeps its input for the way back, so its result may be overwritten."""
    x = image()
    spoiled = net(lambda x: x.clamp(min=0).add_(shift))
    apart = net(lambda x: by_function(x) + shift)
    got = explain("guided_backprop", spoiled, x, Class(TARGET)).values
    assert relative(got, plain_gradient(apart, x, TARGET)) <= 1e-6


def test_checkpointed_segments() -> None:
    """A segment that is run again on the way back gives the map of one that is not."""

    class Segmented(nn.Module):
        def __init__(self, inner: nn.Module, reentrant: bool) -> None:
            super().__init__()
            self.inner, self.reentrant = inner, reentrant

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = checkpoint(self.inner, x, use_reentrant=self.reentrant)
            return out

    network, x = make("segmenter"), image()
    names = ("guided_backprop", "vanilla_gradient", "integrated_gradients", "deconvolution")
    for name in (*names, "smoothgrad"):
        got = explain(name, Segmented(network, reentrant=False), x, Class(TARGET)).values
        assert relative(got, explain(name, network, x, Class(TARGET)).values) <= 1e-6
    # Reentrant checkpoints cannot give a gradient to chosen tensors; PyTorch says so itself.
    with pytest.raises((RuntimeError, MethodError), match="use_reentrant"):
        explain("vanilla_gradient", Segmented(network, reentrant=True), x, Class(TARGET))


SELECTIONS: dict[str, tuple[Act, str]] = {
    "a leak": (lambda x: torch.where(x > 0, x, 0.1 * x), "torch.where"),
    "negative values kept": (lambda x: x * (x < 0), "torch.Tensor.mul"),
    "a sign": (lambda x: x * torch.sign(x), "torch.Tensor.mul"),
    "a mask made of a mask": (lambda x: x * (1 - (x < 0).float()), "torch.Tensor.mul"),
    "another fill": (lambda x: x.masked_fill(x < 0, -1), "torch.Tensor.masked_fill"),
}


@pytest.mark.parametrize("name", ["guided_backprop", "guided_grad_cam", "deconvolution"])
@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_selection_by_sign_other_than_relu_is_refused_by_its_call(
    name: str, selection: str
) -> None:
    act, call = SELECTIONS[selection]
    network, x = net(nn.ReLU(), act), image()
    with pytest.raises(MethodError, match=f"this network: {call}, a selection by sign, may be"):
        explain(name, network, x)
    got = explain("vanilla_gradient", network, x, Class(TARGET)).values
    assert relative(got, plain_gradient(network, x, TARGET)) <= 1e-6


@pytest.mark.parametrize("values", ["all positive", "all negative"])
def test_a_spelling_is_told_by_its_calls_and_not_by_its_values(values: str) -> None:
    """Where no value is negative ReLU changes nothing, and is ReLU all the same."""
    shift = 100.0 if values == "all positive" else -100.0
    held = net(lambda x: (y := x + shift, torch.where(y > 0, y, 0.0))[1], nn.ReLU())
    by_module = net(lambda x: functional.relu(x + shift), nn.ReLU())
    got = explain("guided_backprop", held, image(), Class(TARGET)).values
    expected = explain("guided_backprop", by_module, image(), Class(TARGET)).values
    assert torch.allclose(got, expected, rtol=1e-5, atol=1e-9)
    assert bool(expected.any()) is (values == "all positive")


class OwnReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        active = x > 0
        ctx.save_for_backward(active)
        return x * active

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        out: Tensor = grads[0] * ctx.saved_tensors[0]
        return out


@pytest.mark.parametrize("name", ["guided_backprop", "guided_grad_cam", "deconvolution"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_an_activation_in_a_function_of_its_own_is_refused_by_name(
    name: str, checkpointed: bool
) -> None:
    class Act(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = OwnReLU.apply(x)  # type: ignore[no-untyped-call]
            return out

    network = seeded(2, lambda: nn.Sequential(
        nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), Act(), nn.Conv2d(6, 6, 1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 1)),
    )).eval()  # fmt: skip
    probe = WholeVolume(network, Class(TARGET))
    probe.checkpointed = checkpointed
    with pytest.raises(MethodError, match=r"'OwnReLU', a torch\.autograd\.Function, may be"):
        make_method(name).explain(probe, image())
    values = make_method("vanilla_gradient").explain(probe, image()).values
    assert relative(values, plain_gradient(network, image(), TARGET)) <= 1e-6


def test_hooks_name_the_activations_and_act_only_while_a_rule_is_in_force() -> None:
    x = torch.tensor([1.0, -1.0, 2.0], requires_grad=True)
    with RuleHooks([GUIDED, PLAIN]) as hooks:
        y = nn.ReLU()(functional.leaky_relu(x))
    assert hooks.seen.activations == {"relu": 1, "leaky_relu": 1}
    (note,) = GUIDED.notes(hooks.seen.activations)
    assert note.startswith("guided backpropagation was not published for leaky_relu:")
    upstream = torch.tensor([-1.0, 1.0, 1.0])
    (plain,) = torch.autograd.grad(y, x, upstream, retain_graph=True)
    assert plain.tolist() == [-1, 0, 1]
    with hooks.in_force(GUIDED):
        (guided,) = torch.autograd.grad(y, x, upstream, retain_graph=True)
    assert guided.tolist() == [0, 0, 1]
    with pytest.raises(KeyError), hooks.in_force(GUIDED):
        raise KeyError
    (after,) = torch.autograd.grad(y, x, upstream)
    assert after.tolist() == [-1, 0, 1]
