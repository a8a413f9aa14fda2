"""What remains at a baseline, and which one ``auto`` chooses, on networks in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks import explain
from neuroxai.core.explanation import Explanation
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.restriction import Mask, Prediction
from neuroxai.core.target.target import Class
from neuroxai.methods import make_method
from neuroxai.methods.paths.baselines import Baseline
from neuroxai.methods.paths.mirror import mirror_image
from neuroxai.methods.paths.path_start import CANDIDATES, Start, path_start, start_passes

SHAPES = {2: (12, 9), 3: (12, 9, 7)}
DIMS = pytest.mark.parametrize("dims", [2, 3])
PATHS = pytest.mark.parametrize("name", ["integrated_gradients", "guided_integrated_gradients"])


class Threshold(nn.Module):
    """Segment voxels brighter than a threshold; the second class's logit is x minus it."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        logit = x[:, :1] - self.threshold
        return torch.cat([torch.zeros_like(logit), logit], dim=1)


class Unlike(nn.Module):
    """Call what differs by 0.4 from normal brain, which is 1, tumor: also a black image."""

    def forward(self, x: Tensor) -> Tensor:
        logit = (x[:, :1] - 1.0).abs() - 0.4
        return torch.cat([torch.zeros_like(logit), logit], dim=1)


def phantom(dims: int = 3, samples: int = 2) -> Tensor:
    """A brain of 1 with a tumor of 4 in its first half, and air of 0."""
    x = torch.zeros(samples, 1, *SHAPES[dims])
    brain = torch.zeros(SHAPES[dims], dtype=torch.bool)
    tumor = brain.clone()
    brain[1:11, 1:-1], tumor[2:4, 2:5] = True, True
    if dims == 3:
        brain[..., [0, -1]], tumor[..., :2], tumor[..., 5:] = False, False, False
    x[:, 0, brain] = 1.0
    x[:, 0, tumor] = 4.0
    return x


def unlike_phantom(dims: int = 3, samples: int = 2) -> Tensor:
    """A brain of 1 with a tumor of 10 in its first half, and air of 1.3."""
    x = phantom(dims, samples)
    return torch.where(x == 4.0, 10.0, torch.where(x == 0.0, 1.3, 1.0))


def start_of(
    network: nn.Module, x: Tensor, baseline: Baseline = "auto", axis: int | None = 0
) -> Start:
    probe = WholeVolume(network, Class(1, within=Prediction()))
    probe.left_right_axis = axis
    with probe.at(x):
        return path_start(baseline, probe, x, torch.Generator().manual_seed(0))


@DIMS
def test_the_share_that_remains_is_counted(dims: int) -> None:
    """Half of the first tumor is kept by the baseline, counted by hand."""
    x = phantom(dims)
    half = x.clone()
    half[:, :, 2] = 0.0
    half[1] = 0.0
    found = start_of(Threshold(2.0), x, half)
    assert found.remaining.prediction == (0.5, 0.0)
    assert found.score.tolist() == pytest.approx([0.5 * 2.0 + 0.5 * -2.0, -2.0])
    assert found.remaining.target == pytest.approx((0.0, -1.0))
    assert found.names == ("given", "given")


@DIMS
@PATHS
def test_every_path_map_states_what_remains(name: str, dims: int) -> None:
    """In the first line if it is much."""
    x = phantom(dims, samples=1)
    third = x.clone()
    third[:, :, 2:4, 2] = 0.0
    for baseline, share in (("zero", 0.0), (third, 2 / 3), (0.5, 0.0)):
        method = make_method(name, {"baseline": baseline, "steps": 3})
        got = restricted(method, Threshold(2.0), x)
        assert got.diagnostics["remaining_prediction"] == pytest.approx([share])
        if share:
            assert got.notes[0].startswith("the map does not explain the prediction: 66.7%")
            assert "from 0.667 to 2" in got.notes[0]
        else:
            assert any("0.0% of the prediction remains" in note for note in got.notes)
            assert not any("does not explain" in note for note in got.notes)


def restricted(method: Any, network: nn.Module, x: Tensor) -> Explanation:
    probe = WholeVolume(network, Class(1, within=Prediction()))
    found: Explanation = method.explain(probe, x)
    return found


def test_only_voxels_within_the_targets_mask_count() -> None:
    x = phantom(samples=1)
    x[..., 8:10, 2:5, 2:5] = 4.0  # a second tumor, which the baseline keeps
    kept = x.clone()
    kept[..., 2:4, 2:5, 2:5] = 1.0
    mask = torch.zeros(1, *SHAPES[3])
    mask[:, :6] = 0.5
    for within, share in ((Mask(mask), 0.0), (Mask((mask == 0).float()), 1.0), (None, 0.5)):
        probe = WholeVolume(Threshold(2.0), Class(1, within=within))
        with probe.at(x):
            found = path_start(kept, probe, x, torch.Generator())
        assert found.remaining.prediction == (share,)


def test_a_class_that_a_classifier_still_predicts_remains() -> None:
    class Bright(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            bright = x.mean(dim=(1, 2, 3))
            return torch.stack([torch.ones_like(bright), 3 * bright], dim=1)

    x = torch.ones(2, 1, 6, 5)
    for baseline, share in ((0.5, 1.0), (0.2, 0.0)):
        probe = WholeVolume(Bright(), Class(1))
        with probe.at(x):
            found = path_start(baseline, probe, x, torch.Generator())
        assert found.remaining.prediction == (share, share)
        assert found.remaining.target == pytest.approx((baseline, baseline))
    # The other class is not predicted, so nothing of it can remain.
    probe = WholeVolume(Bright(), Class(0))
    with probe.at(x):
        assert path_start(0.5, probe, x, torch.Generator()).remaining.prediction == (None, None)


def test_zero_is_kept_where_nothing_remains_and_nothing_else_is_examined() -> None:
    x = phantom()
    passes: list[float] = []
    probe = WholeVolume(Threshold(2.0), Class(1, within=Prediction()))
    probe.on_output = passes.append
    with probe.at(x):
        found = path_start("auto", probe, x, torch.Generator())
    assert found.names == ("zero", "zero")
    assert found.remaining.prediction == (0.0, 0.0)
    assert not found.moved
    assert passes == [2, 2]


@DIMS
def test_auto_takes_the_baseline_where_least_remains(dims: int) -> None:
    """Against the shares counted at every candidate by hand; only the mirror lacks the tumor."""
    x = unlike_phantom(dims)
    network = Unlike()
    shares = {}
    with torch.no_grad():
        here = network(x).argmax(1).bool()
        for name in CANDIDATES:
            there = network(start_of(network, x, name).image).argmax(1).bool()
            shares[name] = float((here & there).sum() / here.sum())
    assert shares == {"zero": 1.0, "brain": pytest.approx(1.0), "blur": 1.0, "mirror": 0.0}
    outputs: list[float] = []
    probe = WholeVolume(network, Class(1, within=Prediction()))
    probe.left_right_axis, probe.on_output = 0, outputs.append
    with probe.at(x):
        found = path_start("auto", probe, x, torch.Generator())
    assert found.names == ("mirror", "mirror")
    assert torch.equal(found.image, mirror_image(x, 0))
    assert len(outputs) == start_passes("auto")
    for name in CANDIDATES:
        assert found.tried[name]["remaining_prediction"] == pytest.approx([shares[name]] * 2)
    # Without a left-right axis there is no mirror, and the first line says that none is good.
    assert "mirror" not in start_of(network, x, axis=None).names
    got = restricted(make_method("integrated_gradients", {"steps": 4}), network, x)
    assert got.notes[0].startswith("the map does not explain the prediction")
    assert "no other baseline is better" in got.notes[0]


def test_a_mirror_that_moves_the_tumor_does_not_explain_its_mean_over_the_image() -> None:
    """The mean logit over the image is the same there, so the path explains nothing."""
    x = unlike_phantom()
    probe = WholeVolume(Unlike(), Class(1))
    probe.left_right_axis = 0
    with probe.at(x):
        found = path_start("auto", probe, x, torch.Generator())
    assert found.tried["mirror"]["remaining_prediction"] == [0.0, 0.0]
    assert "mirror" not in found.names


def test_a_path_of_large_steps_that_cancel_is_void() -> None:
    """A wave along the path: its slopes are known, and their sum of absolute values too."""

    class Wave(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a = x.mean(dim=(1, 2, 3))
            value = 50 * torch.sin(60 * a) + a
            return torch.stack([torch.zeros_like(a), value], dim=1)

    x = torch.full((1, 1, 6, 5), np.pi / 10, dtype=torch.float64)  # three whole periods
    network = Wave().double()
    nodes = (np.arange(60) + 0.5) / 60 * np.pi / 10
    slopes = (3000 * np.cos(60 * nodes) + 1) * np.pi / 10
    change = np.pi / 10
    for rule in ("midpoint", "adaptive"):
        method = make_method("integrated_gradients", {"steps": 60, "rule": rule, "baseline": 0.0})
        got = explain(method, network, x, target=Class(1))
        assert got.diagnostics["completeness_gap"][0] < 0.5
        excess = got.diagnostics["path_excess"][0]
        if rule == "midpoint":
            assert excess == pytest.approx(np.abs(slopes).mean() / change, rel=1e-6)
        assert excess > 500
        assert "the map is void" in got.notes[0]


@pytest.mark.parametrize("rule", ["midpoint", "left", "right", "trapezoid", "gauss_legendre"])
def test_the_excess_of_a_monotone_path_is_one(rule: str) -> None:
    """Also after refinement, whose new steps are added to the old ones."""

    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x**2).flatten(1).sum(dim=1, keepdim=True)

    x = torch.rand(3, 1, 4, 5, generator=torch.Generator().manual_seed(0)).double() + 0.1
    parameters = {"steps": 5, "rule": rule, "baseline": "zero", "tolerance": 0.005}
    got = explain(make_method("integrated_gradients", parameters), Square(), x, target=Class(0))
    assert got.diagnostics["path_excess"] == pytest.approx([1.0] * 3, rel=0.006)


def test_noisy_copies_of_a_path_are_summed_up_in_one_note() -> None:
    x = phantom(2, samples=1)
    keep = x.clone()
    keep[..., 2, :] = 0.0
    inner = make_method("integrated_gradients", {"steps": 2, "baseline": keep})
    smooth = make_method("smoothgrad", {"samples": 5, "noise": 0.02, "of": inner})
    got = restricted(smooth, Threshold(2.0), x)
    assert got.diagnostics["remaining_prediction"] == [0.5]
    assert got.notes[0].startswith("the map does not explain the prediction: 50.0%")
    assert sum("remains" in note for note in got.notes) == 1
    assert smooth.forwards == 5 * (inner.forwards + 1)


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.25), np.array(2.0), np.array([1, 2]),
                                   torch.tensor([3.0, -1.0])])  # fmt: skip
def test_numbers_and_arrays_are_baselines(value: Any) -> None:
    x = torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(0)) + 4
    flat = np.broadcast_to(np.asarray(value, dtype=np.float32).reshape(-1, 1, 1), (2, 4, 5))
    got = start_of(Threshold(2.0), x, value).image
    assert np.array_equal(got.numpy(), np.broadcast_to(flat, (3, 2, 4, 5)))
    method = make_method("integrated_gradients", {"baseline": value, "steps": 2})
    assert "baseline" in restricted(method, Threshold(2.0), x).describe()["parameters"]


@pytest.mark.parametrize(
    "value", [np.ones(5), np.array([1.0, np.nan]), np.array(["a", "b"]), np.ones((2, 3, 4, 5))]
)
def test_images_that_do_not_fit_are_refused(value: Any) -> None:
    from neuroxai.core.errors import MethodError

    x = torch.ones(3, 2, 4, 5)
    with pytest.raises(MethodError, match="baseline has"):
        start_of(Threshold(0.5), x, value)
