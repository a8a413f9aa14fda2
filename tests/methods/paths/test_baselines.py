"""Baselines: each one's meaning, and the gap where the score does not change."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import DynUNet
from torch import Tensor, nn
from torch.nn import functional

from networks import SHAPES, explain, image, make, relative
from neuroxai.core.air import air_value
from neuroxai.core.errors import MethodError
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class
from neuroxai.methods import make_method
from neuroxai.methods.guided_integrated_gradients import GuidedIntegratedGradients
from neuroxai.methods.integrated_gradients import IntegratedGradients
from neuroxai.methods.paths.baseline_names import BASELINES
from neuroxai.methods.paths.baselines import (
    BLUR_FRACTION,
    baseline_image,
    even_brain,
    gaussian_blur,
)
from neuroxai.methods.paths.completeness import completeness
from neuroxai.methods.paths.path_start import path_start
from neuroxai.models.deepseg import DeepSeg
from neuroxai.workflows.explain import explain as explain_all

DIMS = pytest.mark.parametrize("dims", [2, 3])


def build(
    name: str | torch.Tensor,
    x: torch.Tensor,
    background_value: tuple[float, ...] | None = None,
    seed: int = 0,
) -> torch.Tensor:
    probe = WholeVolume(nn.Identity(), Class(0), background_value=background_value)
    return baseline_image(name, probe, x, torch.Generator().manual_seed(seed))


@DIMS
def test_each_baseline(dims: int) -> None:
    x = image(dims)
    before = x.clone()
    assert not build("zero", x).any()
    mean, black = build("mean", x), build("black", x)
    for b in range(3):
        for c in range(4):
            assert torch.allclose(mean[b, c], x[b, c].mean().expand(x.shape[2:]))
            assert torch.equal(black[b, c], air_value(x)[b, c].expand(x.shape[2:]))
    background_value = (-1.0, -2.0, -3.0, -4.0)
    aired = build("black", x, background_value)
    assert aired.shape == x.shape
    assert all(bool((aired[:, c] == background_value[c]).all()) for c in range(4))
    noise = build("noise", x)
    low, high = x.flatten(2).amin(2), x.flatten(2).amax(2)
    assert bool((noise.flatten(2) >= low.unsqueeze(2)).all())
    assert bool((noise.flatten(2) <= high.unsqueeze(2)).all())
    assert torch.equal(noise, build("noise", x))
    assert not torch.equal(noise, build("noise", x, seed=1))
    assert torch.equal(x, before)


def scan(dims: int) -> tuple[Tensor, Tensor]:
    """Three scans of four channels, air of another value in each, and where the brain is."""
    x = 2.0 + image(dims).double().abs()
    inside = torch.zeros(3, 1, *SHAPES[dims], dtype=torch.bool)
    for b in range(3):
        inside[b, 0, 1 : 4 + b, 2:-1] = True
    background_value = torch.linspace(-0.5, 0.5, 12, dtype=x.dtype).reshape(3, 4, *[1] * dims)
    ripples = 0.005 * torch.sin(torch.arange(x.numel(), dtype=x.dtype)).reshape(x.shape)
    return torch.where(inside, x, background_value + ripples), inside


@DIMS
def test_an_even_brain_has_its_own_mean_and_its_own_air(dims: int) -> None:
    x, inside = scan(dims)
    built = build("brain", x)
    for b in range(3):
        there = inside[b, 0].numpy()
        for c in range(4):
            was, now = x[b, c].numpy(), built[b, c].numpy()
            assert (now[~there] == was[~there]).all()
            assert now[there] == pytest.approx(was[there].mean(), rel=1e-12)
    # One modality that is as dark as air in part of the brain does not make air of it.
    x[:, 1, 2, 3:6] = x[:, 1, 0, 0:1]
    assert torch.equal(build("brain", x)[:, 0], built[:, 0])


@DIMS
@pytest.mark.parametrize("name", ["integrated_gradients", "guided_integrated_gradients"])
def test_from_an_even_brain_nothing_lies_in_air(name: str, dims: int) -> None:
    x, inside = scan(dims)
    network = make("classifier", dims).double()
    black = explain(make_method(name, {"steps": 4, "baseline": "zero"}), network, x)
    even = explain(make_method(name, {"steps": 4, "baseline": "brain"}), network, x)
    background_value = ~inside.expand_as(x)
    assert bool(black.values[background_value].any())
    assert not even.values[background_value].any()
    assert even.values.any()


@DIMS
def test_without_air_an_even_brain_is_the_mean(dims: int) -> None:
    x = image(dims).double()
    x[:, 0, 0, 0] = 50.0  # the corners on this side look like nothing else
    x[:, 0, -1, -1] = -50.0
    built, mean = build("brain", x), build("mean", x)
    changed = built != x
    assert float(changed.double().mean()) > 0.9
    assert relative(built[changed], mean[changed]) < 0.2


@DIMS
def test_blur_against_scipy(dims: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    x = image(dims).double()
    blurred = build("blur", x)
    sigma = [BLUR_FRACTION * n for n in SHAPES[dims]]
    for b in range(3):
        for c in range(4):
            values = x[b, c].numpy()
            for axis, s in enumerate(sigma):
                radius = min(int(3 * s + 0.5), values.shape[axis] - 1)
                values = ndimage.gaussian_filter1d(
                    values, s, axis=axis, mode="nearest", radius=radius
                )
            assert relative(blurred[b, c], torch.from_numpy(values)) <= 1e-12
    flat = torch.full((1, 1, *SHAPES[dims]), 3.0)
    assert torch.allclose(gaussian_blur(flat, 0.1), flat)


@DIMS
def test_a_baseline_given_as_a_tensor_may_broadcast(dims: int) -> None:
    x = image(dims)
    ones = torch.ones(1, 4, *[1] * dims, dtype=torch.float64)
    built = build(ones * 2, x)
    assert built.shape == x.shape
    assert built.dtype == x.dtype
    assert bool((built == 2).all())
    with pytest.raises(MethodError, match="an image that broadcasts to"):
        build(torch.ones(1, 3, *SHAPES[dims]), x)
    with pytest.raises(MethodError, match="did you mean 'black'"):
        build("blac", x)


@pytest.mark.parametrize("baseline", [*sorted(set(BASELINES) - {"mirror"}), "mirror:1", 0.5])
@pytest.mark.parametrize("name", ["integrated_gradients", "guided_integrated_gradients"])
def test_path_methods_take_every_baseline(name: str, baseline: str | float) -> None:
    network, x = make("segmenter", act=nn.GELU), image()
    method = make_method(name, {"steps": 60, "baseline": baseline})
    got = explain(method, network, x, seed=3)
    assert torch.equal(got.values, explain(method, network, x, seed=3).values)
    evidence = got.values.abs().flatten(1).sum(dim=1)
    for total, change, size in zip(
        got.diagnostics["attribution_sum"], got.diagnostics["score_change"], evidence, strict=True
    ):
        assert abs(total - change) <= 0.01 * float(size)
    assert got.parameters["baseline"] == baseline


def test_a_tensor_baseline_is_named_by_its_hash() -> None:
    start = image(seed=4)
    method = make_method("integrated_gradients", {"steps": 2, "baseline": start})
    assert (
        explain(method, make("segmenter"), image())
        .parameters["baseline"]
        .startswith("tensor sha256:")
    )


@pytest.mark.parametrize("name", ["integrated_gradients", "guided_integrated_gradients"])
def test_no_gap_where_the_score_does_not_change(name: str) -> None:
    x = image()
    method = make_method(name, {"steps": 3, "baseline": x.clone()})
    got = explain(method, make("segmenter"), x)
    assert not got.values.any()
    assert got.diagnostics["completeness_gap"] == [None] * 3


def test_the_gap_is_the_definitions() -> None:
    network, x, start = make("segmenter"), image(), image(seed=9)
    probe = WholeVolume(network, Class(2))
    values = torch.rand(x.shape, generator=torch.Generator().manual_seed(2))
    with probe.at(x, make_method("vanilla_gradient").requests):
        found = completeness(values, probe.score(x), probe.score(start))
    with torch.no_grad():
        ends = [network.eval()(p)[:, 2].flatten(1).double().mean(dim=1) for p in (x, start)]
    for b in range(3):
        change = float(ends[0][b] - ends[1][b])
        gap = abs(float(values[b].double().sum()) - change) / abs(change)
        assert found["completeness_gap"][b] == pytest.approx(gap, rel=1e-4)


@pytest.mark.parametrize(
    ("rule", "nodes"), [("midpoint", 600), ("adaptive", 1024)], ids=["midpoint", "adaptive"]
)
def test_a_tolerance_out_of_reach_is_told(rule: str, nodes: int) -> None:
    """Three times as many equal ones would be over the limit."""
    method = make_method("integrated_gradients", {"steps": 600, "rule": rule, "tolerance": 1e-9})
    got = explain(method, make("segmenter"), image())
    assert got.diagnostics["nodes"] == nodes
    assert any("above the tolerance" in note for note in got.notes)


def contrast_network() -> nn.Module:
    """A small U-Net with instance norms, as nnU-Net's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DynUNet(3, 2, 3, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 16]).train(  # type: ignore[no-any-return]
            mode=False
        )


def smooth_image(samples: int = 1) -> Tensor:
    drawn = torch.rand(samples, 2, 16, 24, 20, generator=torch.Generator().manual_seed(3))
    return functional.avg_pool3d(drawn, 3, 1, 1)


def test_a_path_from_zero_says_nothing_of_a_network_with_instance_norms() -> None:
    network, x = contrast_network(), smooth_image()
    maps = {
        name: explain_all(network, x, IntegratedGradients(baseline=name, steps=2), 1)
        for name in ("zero", "auto", "blur")
    }
    found = {name: m["integrated_gradients"] for name, m in maps.items()}
    assert found["zero"].diagnostics["completeness_gap"][0] > 0.8
    assert found["auto"].diagnostics["completeness_gap"][0] <= 0.05
    assert found["auto"].diagnostics["baselines"] == ["brain"]
    assert found["auto"].diagnostics["nodes"] > 2
    assert any("contrast rather than brightness" in note for note in found["auto"].notes)
    assert found["blur"].diagnostics["nodes"] == 2
    guided = explain_all(network, x, GuidedIntegratedGradients(steps=4), 1)
    note = guided["guided_integrated_gradients"].notes
    assert any("contrast rather than brightness" in each for each in note)


def test_other_networks_start_at_zero_as_in_the_paper() -> None:
    network, x = DeepSeg(2, 3, filters=2, depth=2).eval(), smooth_image(2)
    auto, zero = (
        explain_all(network, x, IntegratedGradients(baseline=name, steps=3), 1)[
            "integrated_gradients"
        ]
        for name in ("auto", "zero")
    )
    assert torch.equal(auto.values, zero.values)
    assert auto.diagnostics["baselines"] == ["zero", "zero"]


def test_each_sample_starts_where_it_must() -> None:
    """Two samples; for the second one, which a constant channel marks, the score jumps at zero."""

    class Mixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            bright, detail = x[:, 0].mean(dim=(1, 2)), x[:, 0].flatten(1).var(dim=1)
            marked = (x[:, 1].amax(dim=(1, 2)) > 0).to(x)
            return torch.stack([bright, marked * (1 + detail) + (1 - marked) * bright], dim=1)

    x = torch.rand(2, 2, 8, 6, generator=torch.Generator().manual_seed(1)) + 0.5
    x[0, 1], x[1, 1] = 0.0, 10.0
    network = Mixed()
    probe = WholeVolume(network, Class(1))
    with probe.at(x):
        start = path_start("auto", probe, x, torch.Generator().manual_seed(0))
    assert start.names == ("zero", "brain")
    assert start.moved
    assert not start.image[0].any()
    assert torch.equal(start.image[1:], even_brain(x[1:]))
    assert start.tried["zero"]["jump"][1] > 0.25


@pytest.mark.parametrize(("rule", "factor"), [("midpoint", 3), ("left", 2), ("right", 2)])
def test_refinement_asks_only_for_new_nodes(
    rule: str, factor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tolerance out of reach: the same map as with all nodes at once, no gradient taken twice."""
    network, x = make("segmenter", 3).double(), image(3).double()
    most, steps = 100, 7
    monkeypatch.setattr("neuroxai.methods.integrated_gradients.MAX_NODES", most)
    while steps * factor <= most:
        steps *= factor
    probe = WholeVolume(network, Class(2))
    tight = make_method("integrated_gradients", {"steps": 7, "rule": rule, "tolerance": 1e-12})
    refined = tight.explain(probe, x)
    assert refined.diagnostics["nodes"] == steps
    assert probe.passes.gradients == steps * x.shape[0]
    at_once = explain(
        make_method("integrated_gradients", {"steps": steps, "rule": rule}), network, x
    )
    assert relative(refined.values, at_once.values) <= 1e-9
