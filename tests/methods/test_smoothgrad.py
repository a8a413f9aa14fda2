"""SmoothGrad of any method, early stopping, and seeds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from networks import explain, image, make, quick, relative
from neuroxai.methods import METHODS, make_method
from neuroxai.methods.smoothgrad import SmoothGrad

INNER = [name for name, method in METHODS.items() if name != "smoothgrad" and not method.on_request]


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("seed", [0, 5])
def test_the_mean_of_any_method(inner: str, seed: int) -> None:
    network, x = make("segmenter"), image()
    got = explain(SmoothGrad(samples=3, of=quick(inner)), network, x, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    sigma = 0.15 * (x.flatten(2).amax(2) - x.flatten(2).amin(2)).reshape(3, 4, 1, 1)
    maps = [
        explain(inner, network, x + sigma * torch.randn(x.shape, generator=generator)).values
        for _ in range(3)
    ]
    assert relative(got.values, torch.stack(maps).mean(dim=0)) <= 1e-5
    assert got.parameters["of"] == {"method": inner, **quick(inner).parameters()}


def test_the_seed_decides_and_the_batching_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = make("segmenter"), image()
    first = explain("smoothgrad", network, x, seed=1).values
    assert not torch.equal(first, explain("smoothgrad", network, x, seed=2).values)
    monkeypatch.setattr("neuroxai.core.probe.probe.BATCH_VOXELS", 1)
    assert relative(explain("smoothgrad", network, x, seed=1).values, first) <= 1e-6


def test_noise_is_a_fraction_of_every_modalitys_own_range() -> None:
    x = image()
    x[:, 1] *= 1000
    x[:, 2] = 7.0
    got = explain(SmoothGrad(samples=2, noise=0.1), make("segmenter"), x)
    expected = [[0.1 * float(x[b, c].max() - x[b, c].min()) for c in range(4)] for b in range(3)]
    for row, wanted in zip(got.diagnostics["sigma"], expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-5)
        assert row[2] == 0


def test_early_stopping() -> None:
    network, x = make("segmenter", act=nn.Softplus), image()
    stopped = explain(SmoothGrad(samples=64, tolerance=0.5), network, x, seed=2)
    assert 4 <= stopped.diagnostics["samples"] <= 64
    assert stopped.diagnostics["relative_standard_error"] <= 0.5
    assert not stopped.notes
    never = explain(SmoothGrad(samples=5, tolerance=1e-6), network, x)
    assert never.diagnostics["samples"] == 5
    assert "after 5 samples, above the tolerance" in never.notes[0]
    assert explain(SmoothGrad(samples=1), network, x).diagnostics["relative_standard_error"] is None


def test_early_stopping_counts_its_samples_one_batch_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, x = make("segmenter", act=nn.Softplus), image()
    monkeypatch.setattr("neuroxai.core.probe.probe.BATCH_VOXELS", 1)
    got = explain(SmoothGrad(samples=40, tolerance=0.9), network, x)
    samples = got.diagnostics["samples"]
    assert 4 <= samples < 40
    exact = explain(SmoothGrad(samples=samples), network, x)
    assert relative(got.values, exact.values) <= 1e-6


def test_an_inner_path_from_a_tensor() -> None:
    network, x, start = make("segmenter"), image(), image(seed=4)
    inner = make_method("integrated_gradients", {"steps": 2, "baseline": start})
    got = explain(SmoothGrad(samples=3, noise=0.0, of=inner), network, x)
    assert relative(got.values, explain(inner, network, x).values) <= 1e-5


def test_an_inner_layers_notes_speak_of_samples_not_of_copies() -> None:
    network = nn.Sequential(nn.Conv2d(4, 6, 1), nn.Conv2d(6, 5, 1))
    with torch.no_grad():
        network[0].bias.fill_(100.0)  # type: ignore[operator]
        network[1].weight.fill_(-1.0)  # type: ignore[operator]
    got = explain(SmoothGrad(samples=3, of=quick("grad_cam")), network, image(batch=1))
    assert got.notes == (
        "the map of layer 1:input has no positive value and was rectified to zero",
    )
    assert got.layer == "1:input"
    inner = make_method("guided_backprop")
    noted = explain(SmoothGrad(samples=3, of=inner), make("segmenter", act=nn.GELU), image())
    assert "gelu" in noted.notes[0]
