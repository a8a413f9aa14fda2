"""Gradients of norms in every memory layout, against their closed form and finite differences."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from networks import CONV, NORM, relative, seeded
from neuroxai.core.engine.norm_gradients import NormGradients
from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.probe.requests import InputGradient
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class

CHANNELS, EPS = 6, 0.01
SHAPES = [
    (1, CHANNELS, 3, 4),
    (2, CHANNELS, 3, 4),
    (1, CHANNELS, 1, 4),
    (1, CHANNELS, 3, 1),
    (1, CHANNELS, 7),
    (1, CHANNELS, 3, 4, 5),
    (2, CHANNELS, 3, 4, 5),
    (1, CHANNELS, 1, 4, 5),
    (1, 1, 3, 4),
]


def drawn(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def layouts(x: Tensor) -> Iterator[Tensor]:
    """The same values in every memory order of the axes, and as transposed tokens."""
    for order in itertools.permutations(range(x.dim())):
        back = [order.index(axis) for axis in range(x.dim())]
        yield x.permute(order).contiguous().permute(back)
    tokens = x.flatten(2).transpose(1, 2).contiguous()
    yield tokens.transpose(1, 2).reshape(x.shape)


def numbers(channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, variance, weight and bias."""
    return (
        drawn(channels),
        drawn(channels + 1)[1:].abs() + 0.5,
        drawn(channels + 2)[2:],
        drawn(channels + 3)[3:],
    )


Norm = Callable[[Tensor], Tensor]


def torch_norms(channels: int, dtype: torch.dtype) -> dict[str, Norm]:
    mean, variance, weight, bias = (each.to(dtype) for each in numbers(channels))
    native = torch.ops.aten._native_batch_norm_legit_no_training.default
    cudnn = torch.backends.cudnn.enabled
    return {
        "fixed": lambda x: functional.batch_norm(x, mean, variance, weight, bias, eps=EPS),
        "fixed by keyword": lambda x: functional.batch_norm(
            input=x, running_mean=mean, running_var=variance, weight=weight, bias=bias, eps=EPS
        ),
        "fixed by torch": lambda x: torch.batch_norm(
            x, weight, bias, mean, variance, False, 0.1, EPS, cudnn
        ),
        "fixed by aten": lambda x: native(x, weight, bias, mean, variance, 0.1, EPS)[0],
        "batch": lambda x: functional.batch_norm(x, None, None, weight, bias, True, eps=EPS),
        "instance": lambda x: functional.instance_norm(x, weight=weight, bias=bias, eps=EPS),
        "instance by torch": lambda x: torch.instance_norm(
            x, weight, bias, None, None, True, 0.1, EPS, cudnn
        ),
        "group": lambda x: functional.group_norm(x, 1, weight, bias, EPS),
    }


def closed_form(name: str, channels: int) -> Norm:
    """The norm as its definition has it, of basic operations alone."""
    mean, variance, weight, bias = numbers(channels)
    kind = name.split()[0]

    def norm(x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.dim() - 2))
        if kind == "fixed":
            center, spread = mean.view(shape), variance.view(shape)
        else:
            axes = {"batch": (0,), "instance": (), "group": (1,)}[kind] + tuple(range(2, x.dim()))
            center = x.mean(axes, keepdim=True)
            spread = (x - center).square().mean(axes, keepdim=True)
        return (x - center) / (spread + EPS).sqrt() * weight.view(shape) + bias.view(shape)

    return norm


def gradient(norm: Norm, x: Tensor, incoming: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_()  # keeps the strides
    return torch.autograd.grad(norm(leaf), leaf, incoming)[0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", torch_norms(CHANNELS, torch.float64))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_layout_of_input_and_gradient(
    shape: tuple[int, ...], name: str, dtype: torch.dtype
) -> None:
    x, incoming = drawn(*shape), drawn(*shape[::-1]).reshape(shape)
    expected = gradient(closed_form(name, shape[1]), x, incoming)
    norm = torch_norms(shape[1], dtype)[name]
    tolerance = 1e-4 if dtype is torch.float32 else 1e-10
    x, incoming = x.to(dtype), incoming.to(dtype)
    with NormGradients():
        for each in layouts(incoming):
            assert relative(gradient(norm, x, each).double(), expected) <= tolerance
        for each in layouts(x):
            assert torch.equal(each, x)
            assert relative(gradient(norm, each, incoming).double(), expected) <= tolerance
        assert relative(norm(x).double(), closed_form(name, shape[1])(x.double())) <= tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_torch_still_misreads_these_layouts(dtype: torch.dtype) -> None:
    """If this fails, torch has fixed it: the workaround may go once no older release is used."""
    x, incoming = drawn(1, CHANNELS, 3, 4), drawn(4, 3, CHANNELS, 1).reshape(1, CHANNELS, 3, 4)
    tokens = [*layouts(incoming.to(dtype))][-1]
    for name, misread in (("fixed", True), ("batch", True), ("instance", True), ("group", False)):
        expected = gradient(closed_form(name, CHANNELS), x, incoming)
        found = gradient(torch_norms(CHANNELS, dtype)[name], x.to(dtype), tokens)
        assert (relative(found.double(), expected) > 0.1) is misread


class Tokens(nn.Module):
    """A convolution, a norm, tokens, two linear layers: the stem of a hybrid network."""

    def __init__(self, dims: int, norm: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem = CONV[dims](2, CHANNELS, 3, padding=1)
        self.norm = norm()
        self.mix = nn.Linear(CHANNELS, 10)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.stem(x)).flatten(2).transpose(1, 2)
        out: Tensor = self.head(torch.tanh(self.mix(tokens)).mean(1))
        return out


class Neck(nn.Module):
    """Tokens back to an image, and a norm there: the neck of a transformer."""

    def __init__(self, dims: int, norm: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Linear(2, CHANNELS)
        self.norm = norm()
        self.exit = CONV[dims](CHANNELS, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.flatten(2).transpose(1, 2))
        image = tokens.transpose(1, 2).reshape(x.shape[0], CHANNELS, *x.shape[2:])
        out: Tensor = self.exit(torch.tanh(self.norm(image))).flatten(2).mean(2)
        return out


class FunctionalNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        mean, variance, self.weight, self.bias = (each.float() for each in numbers(CHANNELS))
        self.register_buffer("mean", mean)
        self.register_buffer("variance", variance)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return functional.batch_norm(
            x, self.get_buffer("mean"), self.get_buffer("variance"), weight, bias
        )


INSTANCE = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": lambda dims: NORM[dims](CHANNELS),
    "own statistics": lambda dims: NORM[dims](CHANNELS, track_running_stats=False),
    "instance": lambda dims: INSTANCE[dims](CHANNELS, affine=True),
    "group": lambda dims: nn.GroupNorm(3, CHANNELS),
    "function": lambda dims: FunctionalNorm(),
}


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "stock"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("build", [Tokens, Neck])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dims", [2, 3])
def test_networks_of_tokens_against_finite_differences(
    dims: int,
    batch: int,
    build: Callable[[int, Callable[[], nn.Module]], nn.Module],
    norm: str,
    dtype: torch.dtype,
    fast: bool,
) -> None:
    network = seeded(2, lambda: build(dims, lambda: NORMS[norm](dims))).to(dtype).eval()
    x = drawn(batch, 2, *(5, 6, 4)[:dims])
    probe = WholeVolume(network, Class(1), settings=PassSettings(fast_path=fast))
    point = x.to(dtype)
    with probe.at(point, [InputGradient()]):
        found = probe.gradient(point).double()
    network.double()
    for seed in range(3):
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).double()
        with torch.no_grad():
            after, before = (network(x + h * direction)[:, 1].sum() for h in (1e-5, -1e-5))
        slope = float((after - before) / 2e-5)
        along = float((found * direction).sum())
        size = float(found.norm() * direction.norm())
        assert abs(along - slope) <= (1e-5 if dtype is torch.float32 else 1e-8) * size
