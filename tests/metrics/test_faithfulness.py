"""Drawn removals: captum's infidelity, loops, and networks whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from additive import additive
from networks import Pooled, image, make
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class
from neuroxai.methods import make_method
from neuroxai.methods.removers import Remover
from neuroxai.metrics import Judged, make_metric
from neuroxai.metrics.faithfulness import _Boxes

captum_metrics = pytest.importorskip("captum.metrics")


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("task", ["classifier", "segmenter"])
def test_infidelity_equals_captum(dims: int, task: str) -> None:
    network, x = make(task, dims).eval(), image(dims, batch=2)
    probe = WholeVolume(network, Class(2))
    values = make_method("vanilla_gradient").explain(probe, x).values
    brain = torch.ones((2, *x.shape[2:]), dtype=torch.bool)
    judged = Judged(values, x, probe, brain=brain, evidence="absolute", seed=4)
    found = make_metric("infidelity", {"draws": 5, "size": 3, "fraction": 0.3})(judged)
    remover = Remover("blur", probe, x)
    images = [remover(mask) for mask in _Boxes(judged, 3).draws(5, 0.3)]
    waiting = iter(images)

    def perturb(given: Tensor) -> tuple[Tensor, Tensor]:
        changed = next(waiting)
        return given - changed, changed

    theirs = captum_metrics.infidelity(
        Pooled(network), perturb, x, values, target=2, n_perturb_samples=5,
        max_examples_per_batch=2,
    )  # fmt: skip
    np.testing.assert_allclose(found.details["raw"], theirs.numpy(), rtol=1e-3)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_gradient_of_an_additive_network_predicts_every_removal(dims: int) -> None:
    judged, _ = additive(dims)
    weight = judged.asked().network.get_parameter("weight")
    gradient = Judged(weight.expand_as(judged.x).detach(), judged.x, judged.probe,
                      brain=judged.brain)  # fmt: skip
    options = {"size": 2, "remover": "zero"}
    found = make_metric("infidelity", options)(gradient)
    assert found.values == pytest.approx((0, 0, 0), abs=1e-6)
    assert found.details["beta"] == pytest.approx([1, 1, 1], abs=1e-4)
    noise = Judged(torch.randn(judged.x.shape), judged.x, judged.probe, brain=judged.brain)
    assert all(v is not None and v > 0.3 for v in make_metric("infidelity", options)(noise).values)
    # The shares are what the removal of a box takes away, so they correlate perfectly.
    for name in ("faithfulness_correlation", "sensitivity_n"):
        assert make_metric(name, options)(judged).values == pytest.approx((1, 1, 1), abs=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
def test_correlations_equal_loops(dims: int) -> None:
    network, x = make("classifier", dims).eval(), image(dims, batch=2)
    probe = WholeVolume(network, Class(2))
    values = torch.randn(x.shape, generator=torch.Generator().manual_seed(6))
    brain = torch.ones((2, *x.shape[2:]), dtype=torch.bool)
    judged = Judged(values, x, probe, brain=brain, evidence="positive")
    remover = Remover("blur", probe, x)

    def fall(mask: Tensor, b: int) -> float:
        with torch.no_grad():
            return float(network(x)[b, 2] - network(remover(mask))[b, 2])

    masks = _Boxes(judged, 3).draws(12, 0.2)
    found = make_metric("faithfulness_correlation", {"draws": 12, "size": 3, "fraction": 0.2})
    monotone = make_metric("monotonicity", {"size": 3, "most": 12})(judged)
    singles = _Boxes(judged, 3).singles(12)
    for b in range(2):
        sums = [float(values[b].sum(dim=0)[mask[b]].sum()) for mask in masks]
        falls = [fall(mask, b) for mask in masks]
        assert found(judged).values[b] == pytest.approx(pearsonr(sums, falls)[0], abs=1e-3)
        sizes = [float(values[b].abs().sum(dim=0)[mask[b]].sum()) for mask in singles]
        change = [abs(fall(mask, b)) for mask in singles]
        assert monotone.values[b] == pytest.approx(spearmanr(sizes, change)[0], abs=1e-6)


def test_boxes_are_of_the_brain_and_drawn_anew() -> None:
    judged, _ = additive(3)
    masks = _Boxes(judged, 2).draws(4, 0.25)
    for mask in masks:
        assert not bool((mask & ~judged.domain).any())
        assert bool(mask.flatten(1).any(dim=1).all())
    assert not torch.equal(masks[0], masks[1])
    singles = _Boxes(judged, 2).singles(100)
    assert sum(int(mask[0].sum()) for mask in singles) <= int(judged.domain[0].sum())
    assert not bool(torch.stack([mask[0] for mask in singles]).sum(dim=0).gt(1).any())
