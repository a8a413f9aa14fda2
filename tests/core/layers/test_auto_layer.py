"""The layer Grad-CAM looks at: on the way to the output that counts, and read as it lies."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import neuroxai as nx
from networks import CONV, explain, image, make, relative, seeded
from neuroxai.core.errors import LayerError
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.requests import LayerMap
from neuroxai.core.probe.sliding_window import SlidingWindow
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.probe.windows import Windows
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Class
from neuroxai.inspection.information_flow import information_flow
from neuroxai.methods import make_method

nets = pytest.importorskip("monai.networks.nets")

TARGET = 2
DIMS = pytest.mark.parametrize("dims", [2, 3])


class Headed(nn.Module):
    """An encoder, a decoder, and heads that are asked in every order."""

    def __init__(self, dims: int, heads: str) -> None:
        super().__init__()
        conv = CONV[dims]
        self.enter = conv(4, 6, 3, padding=1)
        self.decode = conv(6, 7, 3, padding=1)
        self.head, self.beside = conv(7, 3, 1), conv(6, 3, 1)
        self.act = nn.ReLU(inplace=True)
        self.heads = heads

    def forward(self, x: Tensor) -> Any:
        low = self.act(self.enter(x))
        high = self.act(self.decode(low))
        head, beside = self.head(high), self.beside(low)
        found: dict[str, Any] = {
            "added": head + beside,
            "first": head,
            "list": [head, beside],
            "dict": {"coarse": beside, "fine": head},
        }
        return found[self.heads]


EXPECTED = {
    "added": (None, "head:input"),  # both heads are output convolutions; this one is deeper
    "first": (None, "head:input"),
    "list": (0, "head:input"),
    "dict": ("coarse", "beside:input"),  # the output that counts never saw the decoder
}


@DIMS
@pytest.mark.parametrize("heads", EXPECTED)
@pytest.mark.parametrize("way", ["whole", "checkpointed", "windows"])
def test_a_segmenters_layer_is_the_input_of_the_output_that_counts(
    way: str, heads: str, dims: int
) -> None:
    key, expected = EXPECTED[heads]
    network, x = seeded(2, lambda: Headed(dims, heads)).eval(), image(dims)
    outputs = Outputs(key=key)
    probe: Probe = WholeVolume(network, Class(1), outputs)
    if way == "windows":
        size = tuple(x.shape[2:])
        probe = SlidingWindow(
            network, Class(1), outputs, windows=Windows(size, torch.ones(size), overlap=0.5)
        )
    probe.checkpointed = way == "checkpointed"
    with probe.at(x, [LayerMap("auto")]):
        layer, found = probe.layer_map(x, "auto")
    assert layer.name == expected
    with probe.at(x, [LayerMap(expected)]):
        _, named = probe.layer_map(x, expected)
    assert relative(found, named) <= 1e-6


def test_a_classifiers_layer_is_one_that_it_depends_on() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.Conv2d(4, 6, 3)
            self.decode = nn.Conv2d(6, 7, 3)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            low = self.enter(x).relu()
            return {"class": self.head(low.mean(dim=(2, 3))), "map": self.decode(low)}

    outputs = Outputs(key="class")
    found = nx.explain(seeded(1, Both), image(), "grad_cam", 1, outputs=outputs)["grad_cam"]
    assert found.layer == "enter"


def test_nested_unets() -> None:
    """Four heads are run, and only the deepest one's answer is returned."""
    network = nets.BasicUNetPlusPlus(
        spatial_dims=2, in_channels=1, out_channels=2, features=(4, 4, 4, 4, 4, 4)
    )
    x = torch.rand(1, 1, 32, 48)
    found = nx.explain(network, x, "grad_cam", 1, outputs=Outputs(key=0))["grad_cam"]
    assert found.layer == "final_conv_0_4:input"


class WithConvolutionForAHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nets.resnet10(spatial_dims=2, n_input_channels=4, feed_forward=False)
        self.head = nn.Conv2d(512, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.inner(x)[..., None, None]).flatten(1)
        return out


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        # Three blocks add to one another, and the first has a convolution on its shortcut.
        (lambda: nets.resnet50(spatial_dims=2, n_input_channels=4, num_classes=3), "layer4"),
        (lambda: WithConvolutionForAHead(), "inner.layer4"),
        (lambda: nets.DenseNet(2, 4, 3, block_config=(2, 2), init_features=8), "features"),
        (lambda: nets.VNet(2, 4, 3), "out_tr.conv2:input"),
        (
            lambda: nets.UNETR(
                4, 3, (32, 64), feature_size=8, hidden_size=24, mlp_dim=32, num_heads=4,
                spatial_dims=2,
            ),
            "out.conv.conv:input",
        ),
    ],
    ids=["residual classifier", "a convolution for a head", "dense classifier", "segmenter",
         "residual segmenter"],
)  # fmt: skip
def test_where_convolutions_run_side_by_side_it_is_where_their_ways_meet(
    build: Callable[[], nn.Module], expected: str
) -> None:
    """One of them alone is a part of what the network looks at, and may speak against the rest."""
    network, x = seeded(4, build).eval(), torch.rand(1, 4, 32, 64)
    found = nx.explain(network, x, "grad_cam", 1)["grad_cam"]
    assert found.layer == expected
    named = nx.explain(network, x, "grad_cam", 1, layer=expected)["grad_cam"]
    assert torch.equal(found.values, named.values)


def by_hand(network: nn.Module, x: Tensor, name: str) -> Tensor:
    """Return Grad-CAM of a layer whose output is ``(B, *S, C)``."""
    held: list[Tensor] = []

    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        held.append(output)

    handle = network.get_submodule(name).register_forward_hook(hook)
    network(x.clone().requires_grad_())[:, 1].mean().backward()
    handle.remove()
    values, gradient = held[-1].detach(), held[-1].grad
    assert gradient is not None
    weights = gradient.mean(dim=tuple(range(1, gradient.dim() - 1)), keepdim=True)
    cam = (values * weights).sum(dim=-1).clamp(min=0)[:, None]
    mode = "bilinear" if x.dim() == 4 else "trilinear"
    return functional.interpolate(cam, size=x.shape[2:], mode=mode)


@pytest.mark.parametrize(
    ("inner", "dims"), [("", 2), (".mlp", 2), (".norm2", 2), (".mlp.linear1", 2), ("", 3)]
)
def test_layers_with_the_channels_last_are_read_as_they_lie(inner: str, dims: int) -> None:
    network = seeded(3, lambda: nets.SwinUNETR(
        in_channels=1, out_channels=2, feature_size=12, spatial_dims=dims, depths=(1, 1, 1, 1),
        num_heads=(1, 1, 2, 2),
    )).eval().double()  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(1, 1, *(32, 64, 32)[:dims], generator=generator, dtype=torch.float64)
    name = f"swinViT.layers1.0.blocks.0{inner}"
    found = nx.explain(network, x, "grad_cam", 1, layer=name, within="image")["grad_cam"]
    assert relative(found.values, by_hand(network, x, name)) <= 1e-10
    assert found.diagnostics["layer_shape"][1:] == [n // 2 for n in x.shape[2:]]


@pytest.mark.parametrize("dims", [2, 3])
def test_auto_layer(dims: int) -> None:
    assert explain("grad_cam", make("classifier", dims), image(dims)).layer == "third"
    assert explain("grad_cam", make("segmenter", dims), image(dims)).layer == "exit:input"


def normed(norm: nn.Module) -> nn.Sequential:
    """A segmenter whose last convolution before the output one feeds a norm."""
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv3d(4, 6, 3, padding=1), nn.ReLU(), nn.Conv3d(6, 8, 3, padding=1), norm,
        nn.LeakyReLU(), nn.Conv3d(8, 5, 1),
    )  # fmt: skip


@pytest.mark.parametrize(
    "norm", [nn.InstanceNorm3d(8, affine=True), nn.GroupNorm(4, 8), nn.BatchNorm3d(8)]
)
def test_a_segmenters_layer_is_behind_norm_and_activation(norm: nn.Module) -> None:
    network, x = normed(norm).double().eval(), image(3).double()
    explanation = explain("grad_cam", network, x)
    assert explanation.layer == "5:input"
    with torch.no_grad():
        kept = network[:5](x)
    slope = torch.autograd.functional.jacobian(
        lambda a: network[5:](a)[:, TARGET].flatten(1).mean(1).sum(), kept
    )
    weights = slope.flatten(2).mean(2)[..., None, None, None]
    expected = (weights * kept).sum(1, keepdim=True).clamp(min=0)
    assert torch.allclose(explanation.values, expected, rtol=1e-9)
    assert explanation.values.max() > 1e-6


class Joined(nn.Module):
    """Three branches, concatenated in front of the output convolution, which runs twice."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(CONV[dims](4, n, 3, padding=1) for n in (2, 3, 6))
        self.head = CONV[dims](11, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.head(self.joined(0.5 * x))
        out: Tensor = self.head(self.joined(x))
        return out

    def joined(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x).relu() for branch in self.branches], dim=1)


@DIMS
@pytest.mark.parametrize("method", ["grad_cam", "hirescam"])
def test_branches_that_are_joined_before_the_output_count_together(method: str, dims: int) -> None:
    network, x = seeded(3, lambda: Joined(dims)).double().eval(), image(dims).double()
    assert isinstance(network, Joined)
    found = nx.explain(network, x, method, 1, within="image")[method]
    assert found.layer == "head:input#2"
    joined = network.joined(x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network.head(joined)[:, 1].flatten(1).mean(1).sum(), joined)
    if method == "grad_cam":
        gradient = gradient.flatten(2).mean(2)[(..., *[None] * dims)].expand_as(gradient)
    cam = (gradient * joined.detach()).sum(1, keepdim=True)
    expected = cam.clamp(min=0) if method == "grad_cam" else cam
    assert relative(found.values, expected) <= 1e-10
    again = nx.explain(network, x, method, 1, layer=found.layer, within="image")[method]
    assert torch.equal(again.values, found.values)  # the sidecar's layer reproduces the map
    with pytest.raises(LayerError, match="does not depend on layer 'head:input'"):
        nx.explain(network, x, method, 1, layer="head:input#1")


def test_only_convolutions_have_a_named_input() -> None:
    with pytest.raises(LayerError, match="is the input of a LeakyReLU, expected that of a conv"):
        nx.explain(normed(nn.BatchNorm3d(8)), image(3), "grad_cam", 1, layer="4:input")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, but people have such files
        program = torch.jit.script(normed(nn.BatchNorm3d(8)).eval())
    with pytest.raises(LayerError, match="TorchScript program does not run hooks"):
        nx.explain(program, image(3), "grad_cam", 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_layer_whose_gradients_cancel_is_refused(dtype: torch.dtype) -> None:
    network, x = normed(nn.InstanceNorm3d(8)).to(dtype), image(3).to(dtype)
    with pytest.raises(LayerError, match="'2' cancel out over the image"):
        explain(make_method("grad_cam", {"layer": "2"}), network, x)
    flow = information_flow(network, x, [Class(TARGET)])
    assert flow.targets[0].cancelled == ("2",)
    assert list(flow.targets[0].maps) == ["0", "3", "5"]
    assert "1 layer(s) have no map" in flow.targets[0].notes[-1]


def test_auto_layer_of_a_classifier_skips_convolutions_on_one_voxel() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 5, 1), nn.Flatten()
    )
    assert explain("grad_cam", network, image()).layer == "0"


def test_auto_layer_where_there_is_none() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(560, 5))
    with pytest.raises(LayerError, match="no convolution with spatial extent"):
        explain("grad_cam", flat, image())
    with pytest.raises(LayerError, match="expected an output convolution and one before it"):
        explain("grad_cam", nn.Conv2d(4, 5, 1), image())
