"""The same maps from captum 0.9, on networks whose rectifiers are ``nn.ReLU`` modules."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from networks import TASKS, Pooled, explain, image, make, relative
from neuroxai.core.target.target import Class
from neuroxai.methods import make_method

captum = pytest.importorskip("captum.attr")

TARGET = 2
LAYERS = {"classifier": ["first", "second", "third"], "segmenter": ["enter", "down", "join"]}
INTERPOLATION = {2: "bilinear", 3: "trilinear"}

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting forward, backward hooks"),
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU"),
    pytest.mark.filterwarnings("ignore:.*did not already require gradients"),
]

everywhere = pytest.mark.parametrize(
    ("dims", "task", "modalities"), list(itertools.product((2, 3), TASKS, (1, 4)))
)


def case(dims: int, task: str, modalities: int) -> tuple[nn.Module, Pooled, Tensor]:
    network = make(task, dims, modalities).eval()
    return network, Pooled(network), image(dims, modalities)


@everywhere
def test_vanilla_gradient(dims: int, task: str, modalities: int) -> None:
    network, pooled, x = case(dims, task, modalities)
    theirs = captum.Saliency(pooled).attribute(x.clone(), target=TARGET, abs=False)
    assert relative(explain("vanilla_gradient", network, x, Class(TARGET)).values, theirs) <= 1e-5


@everywhere
def test_input_x_gradient(dims: int, task: str, modalities: int) -> None:
    network, pooled, x = case(dims, task, modalities)
    theirs = captum.InputXGradient(pooled).attribute(x.clone(), target=TARGET).detach()
    assert relative(explain("input_x_gradient", network, x, Class(TARGET)).values, theirs) <= 1e-5


@everywhere
def test_guided_backprop(dims: int, task: str, modalities: int) -> None:
    network, pooled, x = case(dims, task, modalities)
    theirs = captum.GuidedBackprop(pooled).attribute(x.clone(), target=TARGET).detach()
    assert relative(explain("guided_backprop", network, x, Class(TARGET)).values, theirs) <= 1e-5


@everywhere
def test_deconvolution(dims: int, task: str, modalities: int) -> None:
    network, pooled, x = case(dims, task, modalities)
    theirs = captum.Deconvolution(pooled).attribute(x.clone(), target=TARGET).detach()
    assert relative(explain("deconvolution", network, x, Class(TARGET)).values, theirs) <= 1e-5


@everywhere
@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ("midpoint", "riemann_middle"),
        ("gauss_legendre", "gausslegendre"),
        ("left", "riemann_left"),
        ("right", "riemann_right"),
        ("trapezoid", "riemann_trapezoid"),
    ],
)
def test_integrated_gradients(dims: int, task: str, modalities: int, rule: str, named: str) -> None:
    network, pooled, x = case(dims, task, modalities)
    nodes, start = 6, 0.3 * image(dims, modalities, seed=8)
    theirs = captum.IntegratedGradients(pooled).attribute(
        x.clone(), baselines=start, target=TARGET, n_steps=nodes, method=named
    )
    if rule == "trapezoid":
        # captum's weights 1/(2n), 1/n, ..., 1/(2n) add up to (n - 1)/n, a quadrature's to one.
        theirs = theirs * nodes / (nodes - 1)
    method = make_method("integrated_gradients", {"steps": nodes, "rule": rule, "baseline": start})
    assert relative(explain(method, network, x, Class(TARGET)).values, theirs) <= 1e-5


@everywhere
def test_grad_cam_of_every_layer(dims: int, task: str, modalities: int) -> None:
    network, pooled, x = case(dims, task, modalities)
    for layer in LAYERS[task]:
        theirs = captum.LayerGradCam(pooled, network.get_submodule(layer)).attribute(
            x.clone(), target=TARGET, relu_attributions=True
        )
        theirs = captum.LayerAttribution.interpolate(
            theirs, x.shape[2:], interpolate_mode=INTERPOLATION[dims]
        ).detach()
        ours = explain(make_method("grad_cam", {"layer": layer}), network, x, Class(TARGET))
        assert relative(ours.values, theirs) <= 1e-5
        assert ours.layer == layer


@everywhere
def test_guided_grad_cam(dims: int, task: str, modalities: int) -> None:
    network, pooled, x = case(dims, task, modalities)
    layer = LAYERS[task][1]
    theirs = captum.GuidedGradCam(pooled, network.get_submodule(layer)).attribute(
        x.clone(), target=TARGET, interpolate_mode=INTERPOLATION[dims]
    ).detach()  # fmt: skip
    ours = explain(make_method("guided_grad_cam", {"layer": layer}), network, x, Class(TARGET))
    assert relative(ours.values, theirs) <= 1e-5


def test_smoothgrad_as_captums_noise_tunnel_without_noise() -> None:
    network, pooled, x = case(2, "classifier", 4)
    theirs = captum.NoiseTunnel(captum.Saliency(pooled)).attribute(
        x.clone(), nt_type="smoothgrad_sq", nt_samples=3, stdevs=0.0, target=TARGET, abs=False
    )
    method = make_method("smoothgrad", {"samples": 3, "noise": 0.0, "aggregation": "squared"})
    assert relative(explain(method, network, x, Class(TARGET)).values, theirs) <= 1e-5
    assert torch.equal(
        explain(make_method("smoothgrad", {"samples": 1, "noise": 0.0}), network, x).values,
        explain("vanilla_gradient", network, x).values,
    )
