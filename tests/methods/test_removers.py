"""Removers: shares of voxels, the choice of ``auto``, and healthy tissue."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from networks import image, make
from neuroxai.core.errors import MethodError
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Class
from neuroxai.methods.paths.baselines import baseline_image
from neuroxai.methods.removers import Remover, RemoverLike


def remover(name: RemoverLike, x: Tensor) -> Remover:
    probe = WholeVolume(make("classifier", x.dim() - 2), Class(2))
    with probe.at(x):
        return Remover(name, probe, x, seed=5)


@pytest.mark.parametrize("dims", [2, 3])
def test_shares_of_voxels_are_blended(dims: int) -> None:
    x = image(dims)
    shares = torch.rand(6, 1, *x.shape[2:], generator=torch.Generator().manual_seed(0))
    got = remover(0.5, x)(shares)
    assert torch.allclose(got, (1 - shares) * torch.cat([x, x]) + shares * 0.5, atol=1e-6)
    hard = (shares > 0.4).float()
    assert torch.equal(remover("blur", x)(hard), remover("blur", x)(hard.bool()))
    assert torch.equal(remover("neighbors", x)(hard), remover("neighbors", x)(hard.bool()[:, 0]))
    with pytest.raises(MethodError, match="fade them: use another remover"):
        remover("neighbors", x)(shares)


def test_a_mirror_takes_the_named_axis() -> None:
    x = image(3)
    assert torch.equal(remover("mirror:1", x)(torch.ones(3, 1, *x.shape[2:])), x.flip(3))


def test_auto_is_healthy_for_images_and_zero_for_inputs_without_space() -> None:
    assert remover("auto", image(2)).name == "healthy"
    probe = WholeVolume(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), Class(2))
    x = torch.rand(2, 4, 1, 1)
    with probe.at(x):
        assert Remover("auto", probe, x).name == "zero"


class Bright(nn.Module):
    """Predicts a tumor where the first channel is above 2."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([2 - x[:, 0], x[:, 0] - 2], dim=1)


def test_healthy_tissue_leaves_the_predicted_tumor_out() -> None:
    x = torch.zeros(2, 2, 12, 10)
    x[:, 0, 3:9, 2:8], x[:, 1, 3:9, 2:8] = 1.0, -1.0
    x[0, 0, 4:6, 3:5], x[0, 1, 4:6, 3:5] = 9.0, 5.0
    x[1, 0, 3:9, 2:8] = 4.0  # all of the foreground is tumor: nothing healthy is left
    probe = WholeVolume(Bright(), Class(0), Outputs(("background", "tumor"), {"T": ("tumor",)}))
    with probe.at(x):
        got = baseline_image("healthy", probe, x, torch.Generator())
    expected = torch.zeros_like(x)
    expected[:, 0, 3:9, 2:8], expected[:, 1, 3:9, 2:8] = 1.0, -1.0
    expected[1, 0, 3:9, 2:8] = 4.0
    assert torch.allclose(got, expected)
