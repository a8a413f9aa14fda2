"""What must hold for any input: flips, orders of modalities and samples, scales (Hypothesis)."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from networks import BATCH, CONV, TASKS, explain, image, make, quick, relative, seeded
from neuroxai.core.target.target import Class
from neuroxai.methods import METHODS, make_method
from neuroxai.methods.base import Method

TARGET = 2
few = settings(max_examples=12, deadline=None, derandomize=True)
seeds, dimensions = st.integers(0, 10_000), st.sampled_from([2, 3])
tasks = st.sampled_from(sorted(TASKS))
PATHS = ["integrated_gradients", "guided_integrated_gradients"]
WITHOUT_NOISE = [name for name in METHODS if name not in ("smoothgrad", "class_model")]
"""Noise does not flip with the image; without noise SmoothGrad is the plain gradient. The class
model starts from noise too, and its image has a scale of its own."""
LINEAR = [name for name in METHODS if name not in ("class_model", "lrp")]
"""LRP shares out the score itself, with its biases, and divides by sums that may be near zero."""

HOMOGENEOUS = [name for name in LINEAR if name != "grad_cam_plus_plus"]
"""The weights of Grad-CAM++ depend on the magnitude of the score."""


REMOVING = [
    name
    for name, found in METHODS.items()
    if "remover" in {f.name for f in dataclasses.fields(found)}
]


def method(name: str) -> Method:
    """Guided IG walks from an image: in a constant one whole areas have the same gradient.

    Their order on the way is then decided by rounding, and a property holds up to that order only.
    """
    if name == "guided_integrated_gradients":
        return make_method(name, {"steps": 5, "max_distance": 0.2, "baseline": "blur"})
    # A scaled class may win elsewhere, where auto differs.
    if name in {"integrated_gradients", "deeplift"}:
        return dataclasses.replace(quick(name), baseline="zero")  # type: ignore[call-arg]
    if name in REMOVING:  # healthy tissue is where nothing is predicted, and changes with a scale
        return dataclasses.replace(quick(name), remover="zero")  # type: ignore[call-arg]
    return quick(name)


def close(got: Tensor, expected: Tensor) -> bool:
    """Equal, or both zero, as a class activation map may be."""
    return (not expected.any() and not got.any()) or relative(got, expected) <= 1e-9


class Same(nn.Module):
    """Stride one, a skip, no bound to a corner, so that a flip of the kernels flips the map."""

    def __init__(self, dims: int, bias: bool = True) -> None:
        super().__init__()
        conv = CONV[dims]
        self.one = conv(4, 6, 3, padding=1, bias=bias)
        self.two = conv(6, 6, 3, padding=1, bias=bias)
        self.out = conv(6, 5, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        first = self.one(x).relu()
        out: Tensor = self.out(first + self.two(first).relu())
        return out


def same(dims: int, seed: int, bias: bool = True) -> nn.Module:
    network = seeded(seed, lambda: Same(dims, bias)).double()
    with torch.no_grad():
        network.get_submodule("out").weight[TARGET, 1:].abs_()  # type: ignore[index]
    return network


@pytest.mark.parametrize("name", [n for n in WITHOUT_NOISE if n not in REMOVING])  # boxes do not
@given(seed=seeds, dims=dimensions, data=st.data())
@few
def test_a_flipped_image_has_the_flipped_map(name: str, seed: int, dims: int,
                                             data: st.DataObject) -> None:  # fmt: skip
    axes = data.draw(st.sets(st.sampled_from(range(2, 2 + dims)), min_size=1))
    network, x = same(dims, seed), image(dims, seed=seed + 1).double()
    values = explain(method(name), network, x, Class(TARGET)).values
    with torch.no_grad():
        for layer in ("one", "two"):
            weight = network.get_submodule(layer).weight
            weight.copy_(weight.flip(*axes).clone())  # type: ignore[operator]
    flipped = explain(method(name), network, x.flip(*axes), Class(TARGET)).values
    assert close(flipped, values.flip(*axes))


@pytest.mark.parametrize("name", WITHOUT_NOISE)
@given(seed=seeds, dims=dimensions, task=tasks, order=st.permutations(range(4)))
@few
def test_modalities_in_another_order(
    name: str, seed: int, dims: int, task: str, order: list[int]
) -> None:
    network, x = make(task, dims, seed=seed).double(), image(dims, seed=seed + 1).double()
    values = explain(method(name), network, x, Class(TARGET)).values
    first = network.get_submodule("first" if task == "classifier" else "enter")
    with torch.no_grad():
        first.weight.copy_(first.weight[:, order].clone())  # type: ignore[index,operator]
    permuted = explain(method(name), network, x[:, order], Class(TARGET)).values
    assert close(permuted, values if values.shape[1] == 1 else values[:, order])


@pytest.mark.parametrize("name", WITHOUT_NOISE)
@given(seed=seeds, dims=dimensions, task=tasks, order=st.permutations(range(BATCH)))
@few
def test_samples_in_another_order(
    name: str, seed: int, dims: int, task: str, order: list[int]
) -> None:
    network, x = make(task, dims, seed=seed).double(), image(dims, seed=seed + 1).double()
    values = explain(method(name), network, x, Class(TARGET)).values
    assert close(explain(method(name), network, x[order], Class(TARGET)).values, values[order])


@pytest.mark.parametrize("name", HOMOGENEOUS)
@given(seed=seeds, dims=dimensions, scale=st.floats(0.05, 20))
@few
def test_intensities_of_another_scale(name: str, seed: int, dims: int, scale: float) -> None:
    """A ReLU network without biases is positively homogeneous: S(c x) = c S(x), dS/dx stays.

    Maps that are a gradient stay; those that add up to the score, or weigh activations, scale.
    """
    network, x = same(dims, seed, bias=False), image(dims, seed=seed + 1).double()
    values = explain(method(name), network, x, Class(TARGET)).values
    scaled = explain(method(name), network, scale * x, Class(TARGET)).values
    stays = name in {"vanilla_gradient", "guided_backprop", "smoothgrad", "deconvolution"}
    assert relative(scaled, values if stays else scale * values) <= 1e-6


@pytest.mark.parametrize("name", HOMOGENEOUS)
@given(seed=seeds, factor=st.floats(0.1, 10))
@few
def test_a_scaled_target_scales_the_map(name: str, seed: int, factor: float) -> None:
    network, x = same(2, seed), image(seed=seed + 1).double()
    values = explain(method(name), network, x, Class(TARGET)).values
    with torch.no_grad():
        network.get_submodule("out").weight.mul_(factor)  # type: ignore[operator]
    power = 2 if name == "guided_grad_cam" else 1  # a product of two maps
    scaled = explain(method(name), network, x, Class(TARGET)).values
    assert relative(scaled, factor**power * values) <= 1e-6


@pytest.mark.parametrize("name", LINEAR)
@given(seed=seeds, shift=st.floats(-50, 50))
@few
def test_a_constant_added_to_the_score_changes_nothing(name: str, seed: int, shift: float) -> None:
    network, x = same(2, seed), image(seed=seed + 1).double()
    values = explain(method(name), network, x, Class(TARGET)).values
    with torch.no_grad():
        network.get_submodule("out").bias.add_(shift)  # type: ignore[operator]
    assert close(explain(method(name), network, x, Class(TARGET)).values, values)


@pytest.mark.parametrize("name", PATHS)
@given(seed=seeds, dims=dimensions)
@few
def test_a_modality_that_is_not_read_gets_nothing(name: str, seed: int, dims: int) -> None:
    network, x = same(dims, seed), image(dims, seed=seed + 1).double()
    with torch.no_grad():
        network.get_submodule("one").weight[:, 3] = 0  # type: ignore[operator]
    assert not explain(method(name), network, x, Class(TARGET)).values[:, 3].any()


def test_smoothgrad_without_noise_is_the_gradient() -> None:
    network, x = same(2, 0), image().double()
    quiet = explain(make_method("smoothgrad", {"noise": 0.0}), network, x, Class(TARGET)).values
    assert relative(quiet, explain("vanilla_gradient", network, x, Class(TARGET)).values) <= 1e-12
