"""Information flow against Captum layer by layer, and on networks of many architectures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

import monai_matrix
import networks
from neuroxai.core.errors import LayerError, MethodError
from neuroxai.core.layers.reduction import LayerReduction
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Class, Region, Target
from neuroxai.inspection import InformationFlow, information_flow
from neuroxai.models.deepseg import DeepSeg
from neuroxai.models.resnet import ResNet50


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp(min=1e-12))


def captum_map(network: nn.Module, layer: nn.Module, x: Tensor, channel: int) -> Tensor:
    from captum.attr import LayerGradCam

    pooled = networks.Pooled(network)
    found: Tensor = LayerGradCam(pooled, layer).attribute(x, target=channel)
    return found.detach()


def convolutions(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, _ConvNd)]


OURS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "deepseg": (lambda: DeepSeg(in_channels=2, out_channels=4, filters=2), (3, 2, 64, 32, 32)),
    "resnet50": (lambda: ResNet50(in_channels=3, out_channels=3), (2, 3, 64, 32)),
}


everywhere_or_every_fifth = pytest.mark.parametrize(
    "step", [5, pytest.param(1, marks=pytest.mark.soak)]
)


def thinned(layers: list[str], step: int) -> list[str]:
    """Return every ``step``-th layer of a large network, all layers of a small one."""
    return layers if len(layers) <= 20 else [*layers[::step], layers[-1]]


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
@everywhere_or_every_fifth
def test_every_layer_equals_captum(name: str, step: int) -> None:
    build, shape = OURS[name]
    network = networks.seeded(3, build).eval()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    flow = information_flow(network, x, [Class(2), Class(1)])
    layers = convolutions(network)
    assert len(flow.layers) == len(layers) == {"deepseg": 26, "resnet50": 53}[name]
    assert flow.forward == 1
    assert flow.backward == 2
    for target, channel in zip(flow.targets, (2, 1), strict=True):
        assert list(target.maps) == layers
        for layer in thinned(layers, step):
            expected = captum_map(network, network.get_submodule(layer), x, channel)
            assert target.maps[layer].shape == expected.shape
            assert relative(target.maps[layer], expected) <= 1e-5, layer


def test_layers_are_in_order_of_execution() -> None:
    flow = information_flow(
        DeepSeg(1, 2, filters=1, depth=2), torch.rand(1, 1, 8, 4, 12), [Class(1)]
    )
    names = [layer.name for layer in flow.layers]
    assert names == [
        "encoder.0.conv1", "encoder.0.conv2", "encoder.1.conv1", "encoder.1.conv2",
        "decoder.1.up", "decoder.1.conv1", "decoder.1.conv2",
        "decoder.0.up", "decoder.0.conv1", "decoder.0.conv2", "output",
    ]  # fmt: skip
    assert flow.layers[4].shape == (2, 2, 1, 3)
    assert list(flow.targets[0].maps) == names


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("task", networks.TASKS)
def test_small_networks_equal_captum(task: str, dims: int) -> None:
    network = networks.make(task, dims).eval()
    x = torch.rand(networks.BATCH, 4, *networks.SHAPES[dims])
    flow = information_flow(network, x, [Class(2)])
    for layer in flow.layers:
        expected = captum_map(network, network.get_submodule(layer.name), x, 2)
        assert relative(flow.targets[0].maps[layer.name], expected) <= 1e-5


def test_a_region_of_one_class_has_the_maps_of_the_class() -> None:
    network = networks.make("segmenter", 3).eval()
    x = torch.rand(2, 4, *networks.SHAPES[3])
    outputs = Outputs(("a", "b", "c", "d", "e"), {"C": ("c",), "CD": ("c", "d")}, "softmax")
    flow = information_flow(network, x, [Class("c"), Region("C"), Region("CD")], outputs)
    alone, region, both = flow.targets
    assert (alone.name, region.name, both.name) == ("c", "C", "CD")
    for layer in flow.layers:
        torch.testing.assert_close(alone.maps[layer.name], region.maps[layer.name])
    assert not torch.equal(alone.maps["enter"], both.maps["enter"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dims"), monai_matrix.CASES)
@everywhere_or_every_fifth
@pytest.mark.filterwarnings("ignore")
def test_networks_of_monai(name: str, dims: int, step: int) -> None:
    case = monai_matrix.Case(name, dims)
    network = case.network
    before = {key: value.clone() for key, value in network.state_dict().items()}
    flow = information_flow(network, case.x, [Class(monai_matrix.TARGET)], case.outputs)
    target = flow.targets[0]
    ran = {layer.name for layer in flow.layers} | set(flow.not_shown) | set(flow.never_ran)
    assert set(convolutions(network)) <= ran
    checked = []
    for layer in flow.layers:
        if layer.name not in target.maps:
            assert layer.name in {*target.independent_layers, *target.cancelled}
            continue
        assert target.maps[layer.name].shape == (len(case.x), 1, *layer.shape[1:])
        if layer.kind.startswith("Conv") and "#" not in layer.name:
            checked.append(layer.name)
    for name in thinned(checked, step):
        assert relative(target.maps[name], case.layer_cam("grad_cam", name)) <= 1e-4, name
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "dims", "count", "patch"),
    [
        ("UNETR", 3, 12, 16),
        ("SwinUNETR", 2, 4, 2),  # starts at half the resolution
        pytest.param("SwinUNETR", 3, 4, 2, marks=pytest.mark.soak),
    ],
)
def test_transformer_blocks_have_maps_and_attention_is_reported(
    name: str, dims: int, count: int, patch: int
) -> None:
    case = monai_matrix.Case(name, dims)
    flow = information_flow(case.network, case.x, [Class(1)])
    blocks = [layer for layer in flow.layers if layer.kind.endswith("TransformerBlock")]
    assert len(blocks) == count
    assert blocks[0].shape[1:] == tuple(n // patch for n in case.x.shape[2:])
    attention = [k for k, v in flow.not_shown.items() if "attention" in v]
    assert len(attention) == count


def test_tokens_are_mapped_to_the_positions_of_their_patches() -> None:
    """An identity block has the map of the convolution before it."""

    class PassingLayer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.mlp = nn.LayerNorm(5), nn.Linear(5, 5)
            nn.init.zeros_(self.mlp.weight)
            nn.init.zeros_(self.mlp.bias)

        def forward(self, tokens: Tensor) -> Tensor:
            out: Tensor = tokens + self.mlp(self.norm(tokens))
            return out

    class Tokens(nn.Module):
        def __init__(self, class_token: bool) -> None:
            super().__init__()
            self.embed = nn.Conv3d(2, 5, 2, 2)
            self.block = PassingLayer()
            self.head = nn.Linear(5, 4)
            self.class_token = class_token

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.embed(x).flatten(2).transpose(1, 2)
            if self.class_token:
                tokens = torch.cat([torch.zeros_like(tokens[:, :1]), tokens], dim=1)
            out: Tensor = self.head(self.block(tokens).relu().mean(1))
            return out

    for class_token in (False, True):
        network = networks.seeded(2, lambda c=class_token: Tokens(c))  # type: ignore[misc]
        flow = information_flow(network, torch.rand(3, 2, 4, 6, 10), [Class(3)])
        maps = flow.targets[0].maps
        assert maps["block"].shape == (3, 1, 2, 3, 5)
        torch.testing.assert_close(maps["block"], maps["embed"])


class Awkward(nn.Module):
    """In-place activations, reused, nested, functional and unused layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.kernel = nn.Parameter(torch.randn(4, 4, 3, 3))
        self.unused = nn.Conv2d(4, 4, 1)
        self.unused_output = nn.Conv2d(4, 1, 1)
        self.last = nn.Conv2d(4, 3, 1)
        self.side: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = functional.leaky_relu_(self.shared(x))
        x = self.shared(x).relu_()
        x = functional.conv2d(x, self.kernel, padding=1).relu()
        self.side = self.unused_output(x)
        out: Tensor = self.last(x)
        return out


def test_reused_in_place_and_functional_layers() -> None:
    network = networks.seeded(4, Awkward)
    x = torch.rand(3, 2, 7, 9)
    flow = information_flow(network, x, [Class(1)])
    assert [layer.name for layer in flow.layers] == [
        "first.0", "shared", "shared#2", "conv2d", "unused_output", "last",
    ]  # fmt: skip
    assert flow.never_ran == ("unused",)
    target = flow.targets[0]
    assert target.independent_layers == ("unused_output",)
    assert list(target.maps) == ["first.0", "shared", "shared#2", "conv2d", "last"]

    # The same with functional convolutions.
    w = dict(network.named_parameters())
    a = functional.conv2d(x, w["first.0.weight"], w["first.0.bias"], padding=1)
    b = functional.conv2d(a.relu(), w["shared.weight"], w["shared.bias"], padding=1)
    c = functional.conv2d(functional.leaky_relu(b), w["shared.weight"], w["shared.bias"], padding=1)
    d = functional.conv2d(c.relu(), w["kernel"], padding=1)
    e = functional.conv2d(d.relu(), w["last.weight"], w["last.bias"])
    score = e[:, 1].mean(dim=(1, 2)).sum()
    for name, values in zip(target.maps, (a, b, c, d, e), strict=True):
        (gradient,) = torch.autograd.grad(score, values, retain_graph=True)
        expected = (gradient.mean(dim=(2, 3), keepdim=True) * values).sum(1, keepdim=True)
        torch.testing.assert_close(target.maps[name], expected.detach(), rtol=1e-4, atol=1e-6)


class Breaks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.conv(x)
        raise KeyError("in the middle")


def hooks(network: nn.Module) -> int:
    return sum(
        len(table)
        for module in network.modules()
        for table in (
            module._forward_hooks, module._forward_pre_hooks, module._backward_hooks,
            module._forward_hooks_always_called,
        )
    )  # fmt: skip


def test_hooks_are_removed_after_an_exception() -> None:
    network = Breaks().train()
    with pytest.raises(KeyError, match="in the middle"):
        information_flow(network, torch.rand(1, 1, 5, 6), [Class(0)])
    assert hooks(network) == 0
    assert network.training
    assert network.conv.weight.requires_grad

    segmenter = networks.make("segmenter")

    class Fails(LayerReduction):
        def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
            raise OSError("in the backward pass")

    with pytest.raises(OSError, match="in the backward pass"):
        information_flow(segmenter, torch.rand(1, 4, 10, 14), [Class(0)], reduction=Fails())
    assert hooks(segmenter) == 0
    flow = information_flow(segmenter, torch.rand(1, 4, 10, 14), [Class(0)])
    assert hooks(segmenter) == 0
    assert len(flow.layers) == 4


def test_a_network_may_catch_exceptions() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wrong = nn.Conv2d(7, 2, 3)
            self.right = nn.Conv2d(1, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.wrong(x)  # type: ignore[no-any-return]
            except RuntimeError:
                return self.right(x)  # type: ignore[no-any-return]

    flow = information_flow(Careful(), torch.rand(1, 1, 5, 6), [Class(0)])
    assert [layer.name for layer in flow.layers] == ["right"]


@pytest.mark.parametrize(
    ("network", "x", "targets", "error", "words"),
    [
        (nn.Conv2d(1, 2, 3), torch.rand(1, 1, 5, 6), [], MethodError, "at least one class"),
        (nn.Conv2d(1, 2, 3), torch.rand(1, 5, 6), [Class(0)], MethodError, "expected \\(B, C"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(30, 2)), torch.rand(1, 1, 5, 6), [Class(0)],
            LayerError, "runs no convolution",
        ),
    ],
)  # fmt: skip
def test_invalid_arguments_raise_errors(
    network: nn.Module, x: Tensor, targets: list[Target], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        information_flow(network, x, targets)


_MEASURE = """
import resource, sys, torch
from neuroxai.core.target.target import Class
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.probe.requests import LayerMap
from neuroxai.inspection import information_flow
from neuroxai.models.deepseg import DeepSeg
torch.set_num_threads(1)
network, x = DeepSeg(4, 4), torch.rand(1, 4, 64, 96, 64)
base = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() // 1024
if sys.argv[1] == "all":
    assert len(information_flow(network, x, [Class(c) for c in range(4)]).layers) == 26
else:
    probe = WholeVolume(network, Class(1))
    with probe.at(x, [LayerMap("encoder.0.conv1")]):
        probe.layer_map(x, "encoder.0.conv1")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_layers() -> None:
    """All 26 layers and 4 targets against one layer and one target of the same graph."""

    def peak(what: str) -> int:
        ran = subprocess.run(
            [sys.executable, "-c", _MEASURE, what], capture_output=True, text=True, check=True
        )
        return int(ran.stdout)

    every, one = peak("all"), peak("one")
    assert every <= 1.3 * one, f"{every} kB for 26 layers, {one} kB for one"


def test_the_oracle_can_fail() -> None:
    """Maps with absolute weights differ from Captum's."""
    network = networks.make("segmenter").eval()
    x = torch.rand(2, 4, 10, 14)

    class Wrong(LayerReduction):
        def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
            weights = gradient.flatten(2).mean(2).abs()
            return torch.einsum("bc,bc...->b...", weights, activation).unsqueeze(1)

    flow: InformationFlow = information_flow(network, x, [Class(2)], reduction=Wrong())
    expected = captum_map(network, network.get_submodule("down"), x, 2)
    assert relative(flow.targets[0].maps["down"], expected) > 0.1
