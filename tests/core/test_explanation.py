"""Hashes, versions, suggestions in errors, resampling and the allocator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from neuroxai.core.errors import MissingExtraError, NeuroXAIError, suggestion
from neuroxai.core.explanation import network_hash, tensor_hash, versions
from neuroxai.core.spatial import (
    channel_range,
    masked_mean,
    per_sample,
    upsample,
    upsample_within,
)


def test_tensor_hash_depends_on_type_shape_and_every_bit() -> None:
    x = torch.arange(6.0)
    assert tensor_hash(x) == tensor_hash(x.clone().requires_grad_())
    assert tensor_hash(x.reshape(2, 3)) == tensor_hash(
        x.reshape(3, 2).T.contiguous().T.reshape(2, 3)
    )
    others = [x.double(), x.reshape(2, 3), x.reshape(3, 2), x.bfloat16(), x + 1e-6, x[:0], -x]
    assert len({tensor_hash(t) for t in [x, *others]}) == len(others) + 1


def test_network_hash_depends_on_names_weights_and_buffers() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    first = network_hash(network)
    assert network_hash(network.train()) == network_hash(network.eval()) == first
    with torch.no_grad():
        network[1].running_mean[1] += 1e-6  # type: ignore[index,operator]
    assert network_hash(network) != first
    assert network_hash(nn.ModuleDict({"0": network[0], "b": network[1]})) != network_hash(network)


def test_versions() -> None:
    assert set(versions()) == {"neuroxai", "torch", "numpy", "python"}
    assert versions()["torch"] == torch.__version__


def test_suggestions() -> None:
    assert suggestion("Grad-Cam", ["grad_cam"]) == "did you mean 'grad_cam'?"
    assert suggestion("zzz", ["b", "a"]) == "known: a, b"
    assert issubclass(MissingExtraError, NeuroXAIError)
    assert "pip install 'neuroxai[phantom]'" in str(MissingExtraError("x", "phantom", "nilearn"))


def test_spatial_operations() -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert channel_range(x)[1, 2] == x[1, 2].max() - x[1, 2].min()
    mask = x[:, 0] > 0
    expected = torch.stack([x[b, 1][mask[b]].mean() for b in range(2)])
    assert torch.allclose(masked_mean(x[:, 1], mask), expected)
    scale = torch.rand(2, 3)
    assert torch.equal((x * per_sample(scale, x))[1, 2], x[1, 2] * scale[1, 2])
    assert upsample(x, (4, 5)) is x


@pytest.mark.parametrize(
    ("shape", "grid", "box"),
    [
        ((4, 3, 5), (16, 12, 20), ((3, 14), (0, 12), (7, 8))),
        ((4, 3, 5), (4, 9, 5), ((1, 3), (2, 9), (0, 5))),
        ((7, 2), (10, 2), ((0, 10), (1, 2))),
        ((6, 8), (3, 4), ((0, 2), (1, 4))),
    ],
)
def test_upsampling_within_a_box(
    shape: tuple[int, ...], grid: tuple[int, ...], box: tuple[tuple[int, int], ...]
) -> None:
    """Against torch's own interpolation of the whole grid, in float64."""
    values = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1)).double()
    cut = tuple(slice(*ends) for ends in box)
    found = upsample_within(values, grid, cut)
    whole = upsample(values, grid)[(slice(None), slice(None), *cut)]
    assert found.shape == whole.shape
    assert torch.allclose(found, whole, rtol=0, atol=1e-12)


def test_allocator_settings_take_effect_or_return_false() -> None:
    """In a separate process, because the settings are permanent."""
    code = "from neuroxai.core.engine.allocator import tune_allocator as t; print(t())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() in {"True", "False"}
    if sys.platform.startswith("linux") and Path("/lib64/ld-linux-x86-64.so.2").exists():
        assert found.stdout.strip() == "True"
