"""Value functions against their formulas."""

from __future__ import annotations

import pytest
import torch

from networks import image, make
from neuroxai.core.errors import MethodError
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Class, Region
from neuroxai.methods.occlusion import Occlusion
from neuroxai.methods.perturbation.values import value_function

SOFTMAX = Outputs(("a", "b", "c", "d", "e"), {"T": ("c", "d")}, "softmax")


@pytest.mark.parametrize("dims", [2, 3])
def test_volume_and_dice_of_a_region(dims: int) -> None:
    network, x = make("segmenter", dims).eval(), image(dims)
    other = image(dims, seed=4)
    probe = WholeVolume(network, Region("T"), SOFTMAX)
    with probe.at(x), torch.no_grad():
        here, there = network(x), network(other)
        own = torch.isin(here.argmax(dim=1), torch.tensor([2, 3])).flatten(1).double()
        p = there.double().softmax(dim=1)[:, 2:4].sum(dim=1).flatten(1)
        assert own.any()
        dice = 2 * (p * own).sum(dim=1) / (p.sum(dim=1) + own.sum(dim=1))
        twice = torch.cat([there, here])
        got = value_function("dice", probe.target, here)(twice)
        assert torch.allclose(got[:3].double(), dice, atol=1e-6)
        assert torch.allclose(
            value_function("volume", probe.target, here)(there).double(), p.sum(dim=1)
        )


def test_the_map_is_of_the_value_and_names_it() -> None:
    network, x = make("segmenter").eval(), image()
    method = Occlusion(box="10x14", value="volume", remover="zero")
    found = method.explain(WholeVolume(network, Region("T"), SOFTMAX), x)
    with torch.no_grad():
        volume = [network(each).softmax(dim=1)[:, 2:4].flatten(1).sum(dim=1)
                  for each in (x, torch.zeros_like(x))]  # fmt: skip
    change = volume[0] - volume[1]
    assert torch.allclose(found.values[:, 0, 0, 0], change, atol=1e-3)
    assert found.units == "change of the volume in voxels"


def test_a_classifier_has_no_volume() -> None:
    with pytest.raises(MethodError, match="'volume' is of a region of a segmenter"):
        Occlusion(value="volume").explain(WholeVolume(make("classifier"), Class(2)), image())
