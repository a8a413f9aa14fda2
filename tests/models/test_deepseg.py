"""DeepSeg against its description: parameters, arithmetic, and a slow reimplementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuroxai.core.errors import ModelError
from neuroxai.models import DeepSeg


def _conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve tap by tap; pad kernel 3 on both sides, kernel 2 at the end, kernel 1 not at all."""
    before, after = {1: (0, 0), 2: (0, 1), 3: (1, 1)}[weight.shape[-1]]
    sizes = x.shape[2:]
    padded = functional.pad(x, [before, after] * len(sizes))
    out = torch.zeros(x.shape[0], weight.shape[0], *sizes, dtype=x.dtype)
    for tap in np.ndindex(*weight.shape[2:]):
        part = padded
        for axis, (shift, size) in enumerate(zip(tap, sizes, strict=True), start=2):
            part = part.narrow(axis, shift, size)
        out += torch.einsum("oc,bc...->bo...", weight[(slice(None), slice(None), *tap)], part)
    return out + bias.reshape(-1, *[1] * len(sizes))


def _block(x: Tensor, state: dict[str, Tensor], conv: str, norm: str) -> Tensor:
    x = _conv(x, state[f"{conv}.weight"], state[f"{conv}.bias"])
    spread = [-1, *[1] * (x.ndim - 2)]
    mean, var, gain, shift = (
        state[f"{norm}.{part}"].reshape(spread)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return ((x - mean) / (var + 1e-5).sqrt() * gain + shift).clamp(min=0)


def _halve(x: Tensor) -> Tensor:
    for axis in range(2, x.ndim):
        even = torch.arange(0, x.shape[axis], 2)
        x = torch.maximum(x.index_select(axis, even), x.index_select(axis, even + 1))
    return x


def _double(x: Tensor) -> Tensor:
    for axis in range(2, x.ndim):
        x = x.repeat_interleave(2, dim=axis)
    return x


def _slow(x: Tensor, state: dict[str, Tensor], depth: int) -> Tensor:
    """Run the network as its description reads."""
    skips = []
    for level in range(depth):
        skips.append(x)
        x = _block(x, state, f"encoder.{level}.conv1", f"encoder.{level}.norm1")
        x = _block(x, state, f"encoder.{level}.conv2", f"encoder.{level}.norm2")
        x = _halve(x)
    for level in reversed(range(depth)):
        x = _double(_block(x, state, f"decoder.{level}.up", f"decoder.{level}.up_norm"))
        x = torch.cat([x, skips[level]], dim=1)
        x = _block(x, state, f"decoder.{level}.conv1", f"decoder.{level}.norm1")
        x = _block(x, state, f"decoder.{level}.conv2", f"decoder.{level}.norm2")
    return _conv(x, state["output.weight"], state["output.bias"])


def _lively(network: nn.Module) -> nn.Module:
    """Set statistics and scales of the norms to values other than 0 and 1."""
    torch.manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, 0, 0.2)
    return network.double().eval()


@pytest.mark.parametrize(
    ("dims", "channels", "shape"), [(3, 4, (8, 16, 24)), (3, 1, (16, 8, 8)), (2, 3, (16, 40))]
)
def test_output_equals_a_slow_reimplementation(
    dims: int, channels: int, shape: tuple[int, ...]
) -> None:
    network = _lively(DeepSeg(channels, 5, filters=3, depth=3, spatial_dims=dims))
    x = torch.randn(2, channels, *shape, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            network(x), _slow(x, network.state_dict(), 3), rtol=1e-10, atol=1e-10
        )


def test_26_convolutions_and_2_58_million_parameters() -> None:
    network = DeepSeg()
    assert sum(isinstance(module, nn.Conv3d) for module in network.modules()) == 26
    assert sum(p.numel() for p in network.parameters()) == 2_578_860


def test_57_3_gflop_for_a_patch_of_128() -> None:
    """Count multiplications in hooks, on the meta device."""
    with torch.device("meta"):
        network = DeepSeg().eval()
    products = []

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(module, nn.Conv3d)
        products.append(module.weight.numel() * output[0, 0].numel())

    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(count)
    assert network(torch.zeros(1, 4, 128, 128, 128, device="meta")).shape == (1, 4, *[128] * 3)
    assert sum(products) / 1e9 == pytest.approx(28.66, abs=0.005)
    assert 2 * sum(products) / 1e9 == pytest.approx(57.3, abs=0.05)


def test_the_bottleneck_is_dropout_of_128_maps() -> None:
    network = DeepSeg(1, 2).eval()
    seen: list[Tensor] = []
    network.bottom.register_forward_hook(lambda _module, _args, output: seen.append(output))
    network(torch.zeros(1, 1, 32, 64, 96))
    assert seen[0].shape == (1, 128, 1, 2, 3)
    assert isinstance(network.bottom, nn.Dropout3d)
    assert network.bottom.p == 0.5


def test_modules_are_listed_in_execution_order() -> None:
    network = DeepSeg(1, 2, filters=2, depth=3).eval()
    ran: list[str] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    network(torch.zeros(1, 1, 8, 8, 16))
    listed = [name for name, module in network.named_modules() if isinstance(module, nn.Conv3d)]
    assert ran == listed
    assert ran[-2:] == ["decoder.0.conv2", "output"]


@pytest.mark.parametrize(("dims", "shape"), [(3, (5, 9, 12)), (2, (13, 7))])
def test_any_size_is_padded_and_cropped(dims: int, shape: tuple[int, ...]) -> None:
    network = _lively(DeepSeg(2, 3, filters=2, depth=2, spatial_dims=dims))
    x = torch.randn(1, 2, *shape, dtype=torch.float64)
    whole = torch.zeros(1, 2, *(-(-size // 4) * 4 for size in shape), dtype=torch.float64)
    place: tuple[slice, ...] = (slice(None), slice(None), *(slice(size) for size in shape))
    whole[place] = x
    assert network(x).shape == (1, 3, *shape)
    torch.testing.assert_close(network(x), network(whole)[place], rtol=0, atol=0)


def test_dropout_drops_whole_maps() -> None:
    network = DeepSeg(1, 2, filters=4, depth=2, dropout=0.5).train()
    maps = network.bottom(torch.ones(1, 400, 2, 3, 4)).flatten(2)
    assert bool((maps.amin(2) == maps.amax(2)).all())
    assert 100 < int((maps[..., 0] == 0).sum()) < 300


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"in_channels": 0}, "in_channels"),
        ({"depth": 2.5}, "depth"),
        ({"filters": True}, "filters"),
        ({"spatial_dims": 1}, "spatial_dims"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, int], word: str) -> None:
    with pytest.raises(ModelError, match=word):
        DeepSeg(**arguments)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8, 8), (1, 4, 8, 8), (4, 8, 8, 8)])
def test_inputs_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"expected \(B, 4, X, Y, Z\)"):
        DeepSeg(4, 2, filters=2, depth=1)(torch.zeros(shape))
    with pytest.raises(ModelError, match=r"expected \(B, 4, X, Y\)"):
        DeepSeg(4, 2, filters=2, depth=1, spatial_dims=2)(torch.zeros(1, 1, 8, 8))


def test_layer_maps_of_a_padded_image_are_cropped() -> None:
    """The map of a padded image must be cropped to the image, not resized."""
    from neuroxai import explain

    network = DeepSeg(in_channels=1, out_channels=2, filters=1, depth=2).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            # Every layer is the identity: the center of each kernel is one.
            parameter.zero_()
            if name.endswith("weight") and parameter.dim() == 1:
                parameter.fill_(1)
            elif parameter.dim() > 1:
                a, b, c = ((size - 1) // 2 for size in parameter.shape[2:])
                parameter[:, :, a, b, c] = 1
    x = torch.zeros(1, 1, 9, 4, 13)
    x[0, 0, 7, 1, 10] = 1.0
    values = explain(network, x, "grad_cam", 1, layer="encoder.0.conv2")["grad_cam"].values
    assert values.shape == (1, 1, 9, 4, 13)
    where = torch.unravel_index(values[0, 0].argmax(), (9, 4, 13))
    assert [int(i) for i in where] == [7, 1, 10]
