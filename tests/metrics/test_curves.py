"""Removal in the order of a map: closed forms on additive networks, and slow loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from additive import SHAPES, additive
from networks import image, make
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Class
from neuroxai.methods.paths.baselines import baseline_image
from neuroxai.metrics import Judged, make_metric


def removed_sums(
    judged: Judged, shares: Tensor, fraction: float, least: bool = False
) -> list[float]:
    """The sum of the shares of the voxels that go first, by sorting in NumPy."""
    found = []
    for b in range(len(shares)):
        inside = judged.domain[b].numpy()
        importance = np.maximum(shares[b].numpy(), 0).sum(axis=0)[inside]
        total = shares[b].sum(dim=0).numpy()[inside]
        order = np.argsort(-importance, kind="stable")
        found.append(total[order[: round(fraction * len(order))]].sum())
    return found


@pytest.mark.parametrize("dims", [2, 3])
def test_deletion_and_insertion_of_an_additive_network_are_sums_of_shares(dims: int) -> None:
    judged, shares = additive(dims)
    # Beyond these, the map has no positive value, and the order is drawn.
    fractions = [0.4 * (step + 1) / 4 for step in range(4)]
    expected = np.mean([removed_sums(judged, shares, f) for f in fractions], axis=0)
    for name in ("deletion", "insertion"):
        metric = make_metric(name, {"steps": 4, "most": 0.4, "remover": "zero"})
        found = metric(judged)
        assert found.values == pytest.approx(expected.tolist(), rel=1e-4)
        assert found.forwards >= 5


@pytest.mark.parametrize("dims", [2, 3])
def test_road_takes_the_least_important_minus_the_most_important(dims: int) -> None:
    judged, shares = additive(dims)
    found = make_metric("road", {"steps": 2, "most": 0.6, "remover": "zero"})(judged)
    for b in range(3):
        falls = [removed_sums(judged, shares, f)[b] for f in (0.3, 0.6)]
        curve = np.array(found.details["morf"][b])
        whole = float(shares[b].sum())
        np.testing.assert_allclose(curve, whole - np.array(falls), rtol=1e-4)
        gap = np.array(found.details["lerf"][b]) - curve
        assert found.values[b] == pytest.approx(gap.mean() / 2, rel=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_pixel_flipping_ranks_every_value(dims: int) -> None:
    judged, shares = additive(dims)
    found = make_metric("pixel_flipping", {"steps": 2, "most": 0.3, "remover": "zero"})(judged)
    for b in range(3):
        inside = judged.domain[b].expand(2, *SHAPES[dims]).numpy()
        values = shares[b].numpy()[inside]
        order = np.argsort(-np.maximum(values, 0), kind="stable")
        falls = [values[order[: round(f * len(order))]].sum() for f in (0.15, 0.3)]
        assert found.values[b] == pytest.approx(np.mean(falls), rel=1e-4)


@pytest.mark.parametrize("name", ["deletion", "insertion", "road"])
def test_the_true_shares_beat_rolled_copies_which_beat_the_reverse(name: str) -> None:
    judged, _ = additive(3)
    options = {"steps": 4, "remover": "zero"}
    reverse = Judged(-judged.values, judged.x, judged.probe, brain=judged.brain,
                     evidence="positive")  # fmt: skip
    right = make_metric(name, options)(judged).values
    wrong = make_metric(name, options)(reverse).values
    rolled = (
        make_metric(name, options | {"copies": 9})(judged).chance if name != "road" else (0, 0, 0)
    )
    assert rolled is not None
    for best, middle, worst in zip(right, rolled, wrong, strict=True):
        assert best is not None
        assert middle is not None
        assert worst is not None
        assert best > middle > worst


@pytest.mark.parametrize("dims", [2, 3])
def test_deletion_of_a_segmenters_soft_dice_equals_a_loop(dims: int) -> None:
    network, x = make("segmenter", dims).eval(), image(dims, batch=2)
    outputs = Outputs(tuple("abcde"), activation="softmax")
    with torch.no_grad():
        network.get_parameter("exit.bias").sub_(network(x).flatten(2).mean(dim=(0, 2)))
    probe = WholeVolume(network, Class(2), outputs)
    values = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    brain = torch.ones((2, *x.shape[2:]), dtype=torch.bool)
    judged = Judged(values, x, probe, brain=brain)
    metric = make_metric(
        "deletion", {"steps": 2, "most": 0.4, "remover": "blur", "value": "soft_dice"}
    )
    found = metric(judged)
    blurred = baseline_image("blur", probe, x, torch.Generator())

    def dice(image: Tensor, own: Tensor, b: int) -> float:
        with torch.no_grad():
            p = network(image).softmax(dim=1)[b, 2].double()
        return float(2 * (own * p).sum() / (own.sum() + p.sum()))

    for b in range(2):
        with torch.no_grad():
            own = (network(x).argmax(dim=1)[b] == 2).double()
        order = values[b].double().sum(dim=0).flatten().argsort(descending=True)
        falls = []
        for fraction in (0.2, 0.4):
            changed = x.clone()
            top = order[: round(fraction * len(order))]
            changed[b].flatten(1)[:, top] = blurred[b].flatten(1)[:, top]
            falls.append(dice(x, own, b) - dice(changed, own, b))
        assert found.values[b] == pytest.approx(np.mean(falls), abs=1e-5)


class Two(nn.Module):
    """Class 1 reads the first modality, class 2 the second, voxel by voxel."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(x[:, :1]), 8 * x - 4], dim=1)


def test_leakage_is_what_changes_beside_the_target() -> None:
    x = torch.zeros(1, 2, 6, 7, 5)
    x[0, 0, 1:3, 2:4, 1:4] = 1.0  # class 1, 12 voxels
    x[0, 1, 4:6, 2:4, 1:4] = 1.0  # class 2, 12 voxels
    outputs = Outputs(("background", "a", "b"), activation="softmax")
    brain = torch.ones((1, 6, 7, 5), dtype=torch.bool)
    probe = WholeVolume(Two(), Class(1), outputs)
    fraction = 6 / (6 * 7 * 5)
    metric = make_metric("off_target_leakage", {"fraction": fraction, "remover": "zero"})
    own, other, half = x[:, :1].clone(), x[:, 1:].clone(), x.sum(dim=1, keepdim=True)
    assert metric(Judged(own, x, probe, brain=brain)).values == pytest.approx((0.0,), abs=0.01)
    others = metric(Judged(own, x, probe, brain=brain)).details["others"]
    assert {*others[0]} == {2}, "the background takes over what the target loses"
    leaks = metric(Judged(other, x, probe, brain=brain)).values[0]
    assert leaks is not None
    assert leaks > 0.95
    both = metric(Judged(half, x, probe, brain=brain)).values[0]
    assert both is not None
    assert 0 < both < leaks
