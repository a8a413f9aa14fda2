"""Functions and networks of several inputs, against autograd by hand and captum."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

import neuroxai as nx
from neuroxai.core.errors import MethodError, ModelError
from neuroxai.workflows.network_call import as_arguments, named_inputs

SPACES = pytest.mark.parametrize("space", [(8, 6), (5, 6, 7)], ids=["2D", "3D"])


class TwoInputs(nn.Module):
    """Two classes of an image and three clinical values, which interact."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        convolution = nn.Conv2d if dims == 2 else nn.Conv3d
        self.conv = convolution(1, 4, 3, padding=1)
        self.act = nn.ReLU()
        self.clinical = nn.Linear(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, scan: Tensor, values: Tensor, *, gain: float = 1.0) -> Tensor:
        pooled = self.act(self.conv(scan)).flatten(2).mean(2)
        out: Tensor = gain * self.head(pooled * self.clinical(values).tanh())
        return out


class TakesDict(nn.Module):
    """As :class:`TwoInputs`, from one batch."""

    def __init__(self, inner: TwoInputs) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"logits": self.inner(batch["image"], batch["clinical"][0])}


class TwoImages(nn.Module):
    """A score of two images of different sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 3, 3), nn.Conv2d(2, 3, 3)

    def forward(self, images: list[Tensor]) -> Tensor:
        first, second = (c(x).relu() for c, x in zip((self.a, self.b), images, strict=True))
        out: Tensor = first.mean((2, 3)) * second.mean((2, 3))
        return out


def study(space: tuple[int, ...], batch: int = 2) -> tuple[TwoInputs, Tensor, Tensor]:
    network = TwoInputs(len(space)).double().eval()
    return network, torch.randn(batch, 1, *space).double(), torch.randn(batch, 3).double()


def gradients(score: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    return torch.autograd.grad(score(*leaves).sum(), leaves)


@SPACES
def test_every_way_to_give_two_inputs_is_the_gradient_by_hand(space: tuple[int, ...]) -> None:
    network, scan, values = study(space)
    batch = {"image": scan, "clinical": [values]}
    ways: list[tuple[nn.Module, Any, Any]] = [
        (network, (scan, values), None),
        (network, {"scan": scan, "values": values}, None),
        (network, scan, {"values": values}),
        (network, scan, values),
        (network, scan, (values,)),
        (network, scan.numpy(), values.numpy()),
        (TakesDict(network), batch, None),
    ]
    expected, _ = gradients(lambda s, v: network(s, v)[:, 1], scan, values)
    for model, subject, inputs in ways:
        found = nx.explain(model, subject, "vanilla_gradient", 1, inputs=inputs)
        assert torch.allclose(found["vanilla_gradient"].values, expected, atol=1e-12)
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


@SPACES
def test_values_without_space_have_gradients(space: tuple[int, ...]) -> None:
    network, scan, values = study(space)
    _, expected = gradients(lambda s, v: network(s, v)[:, 0], scan, values)
    found = nx.explain(network, (scan, values), "vanilla_gradient", 0, explain_input="values")
    assert torch.allclose(found["vanilla_gradient"].values, expected, atol=1e-12)
    provenance = found["vanilla_gradient"].provenance
    assert provenance["input"] == "values"
    assert list(provenance["fixed_inputs_sha256"]) == ["scan"]


@pytest.mark.parametrize("batch", [1, 2])
def test_paths_repeat_the_fixed_inputs_with_the_samples(batch: int) -> None:
    network, scan, values = study((8, 6), batch)
    method = {"integrated_gradients": {"steps": 20, "rule": "left", "baseline": "zero"}}
    found = nx.explain(network, (scan, values), method, 1)["integrated_gradients"]
    expected = IntegratedGradients(network).attribute(
        scan, 0.0, 1, additional_forward_args=(values,), n_steps=20, method="riemann_left"
    )
    assert torch.allclose(found.values, expected, atol=1e-10)
    other = nx.explain(network, (scan, values), method, 1, explain_input="values")
    expected = IntegratedGradients(lambda v, s: network(s, v)).attribute(
        values, 0.0, 1, additional_forward_args=(scan,), n_steps=20, method="riemann_left"
    )
    assert torch.allclose(other["integrated_gradients"].values, expected, atol=1e-10)


def test_each_image_of_a_list_has_its_own_map() -> None:
    network = TwoImages().double().eval()
    images = [torch.randn(2, 1, 8, 6).double(), torch.randn(2, 2, 9, 7).double()]
    expected = gradients(lambda a, b: network([a, b])[:, 2], *images)
    maps = nx.explain_inputs(network, images, "vanilla_gradient", 2)
    assert list(maps) == ["images.0", "images.1"]
    for found, gradient in zip(maps.values(), expected, strict=True):
        assert torch.allclose(found["vanilla_gradient"].values, gradient, atol=1e-12)


def test_class_activation_maps_name_layers_as_the_network_does() -> None:
    network, scan, values = study((8, 6))
    maps = nx.explain(network, scan, "grad_cam", 1, layer="conv", inputs=values)
    found, layers = maps["grad_cam"], {}
    for label in ("network.conv", "network.conv@8x6"):
        layers[label] = nx.explain(network, scan, "grad_cam", 1, layer=label, inputs=values)
    activation = network.conv(scan).detach().requires_grad_()
    pooled = activation.relu().mean((2, 3))
    score = network.head(pooled * network.clinical(values).tanh())[:, 1].sum()
    (gradient,) = torch.autograd.grad(score, activation)
    weights = gradient.mean((2, 3), keepdim=True)
    expected = (weights * activation).sum(1, keepdim=True).relu()
    assert found.layer == "network.conv"
    for label, other in layers.items():
        assert torch.equal(other["grad_cam"].values, found.values), label
    assert torch.allclose(found.values, expected, atol=1e-10)


GLOBAL = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def through_global(x: Tensor) -> Tensor:
    out: Tensor = GLOBAL(x)
    return out


def with_network(x: Tensor, network: nn.Module) -> Tensor:
    out: Tensor = network(x)
    return out


class Holder:
    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def score(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x)
        return out

    __call__ = score


def functions() -> dict[str, Callable[[Tensor], Tensor]]:
    closed = GLOBAL
    return {
        "closure": lambda x: closed(x),
        "global": through_global,
        "partial": functools.partial(with_network, network=GLOBAL),
        "method": Holder(GLOBAL).score,
        "object": Holder(GLOBAL),
        "calls another": lambda x: through_global(x),
        "method of a module": GLOBAL.forward,
    }


@pytest.mark.parametrize("kind", sorted(functions()))
def test_functions_are_explained_as_their_network(kind: str) -> None:
    x = torch.randn(1, 2, 8, 6)
    methods = ["vanilla_gradient", "guided_backprop", "grad_cam"]
    expected = nx.explain(GLOBAL, x, methods, 1)
    found = nx.explain(functions()[kind], x, methods, 1)
    for method in methods:
        assert torch.allclose(found[method].values, expected[method].values, atol=1e-6), method
    assert all(p.requires_grad and p.grad is None for p in GLOBAL.parameters())


def test_a_function_without_a_network_has_gradients_and_no_layers() -> None:
    x = torch.randn(1, 2, 8, 6)
    found = nx.explain(lambda x: x.square().mean((2, 3)), x, "vanilla_gradient", 1)
    expected = torch.zeros_like(x)
    expected[:, 1] = 2 * x[:, 1] / 48
    assert torch.allclose(found["vanilla_gradient"].values, expected, atol=1e-7)
    assert any("no network was found" in note for note in found.warnings)


@pytest.mark.parametrize("batch", [1, 3])
def test_one_number_per_image_is_one_output(batch: int) -> None:
    x = torch.rand(batch, 2, 8, 6).double()
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 1)).double()

    def age(x: Tensor) -> Tensor:
        out: Tensor = network(x)[:, 0].squeeze()  # () for a batch of one
        return out

    (expected,) = gradients(age, x)
    found = nx.explain(age, x, "vanilla_gradient", 0)["vanilla_gradient"]
    assert torch.allclose(found.values, expected, atol=1e-12)
    assert len(found.score) == batch


def test_rows_of_another_number_are_still_refused() -> None:
    with pytest.raises(nx.NeuroXAIError, match=r"shape \(4,\)"):
        nx.explain(lambda x: x.mean((0, 2, 3))[:4], torch.rand(2, 5, 8, 6), "vanilla_gradient", 0)


@pytest.mark.parametrize(("own", "given"), [("float32", "float64"), ("float64", "float32")])
def test_the_other_precision_is_converted_and_noted(own: str, given: str) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.to(getattr(torch, own))
    x = torch.rand(1, 2, 8, 6, dtype=getattr(torch, given))
    for value in (x, x.numpy()):
        found = nx.explain(network, value, "vanilla_gradient", 1)
        assert found["vanilla_gradient"].provenance["dtype"] == own
        assert f"the input was converted from {given} to {own}" in found.warnings


def test_what_cannot_be_explained_is_refused() -> None:
    network, scan, values = study((8, 6))
    with pytest.raises(ModelError, match=r"needs 2 inputs \(scan, values\)"):
        nx.explain(network, scan, "vanilla_gradient", 1)
    with pytest.raises(ModelError, match="no floating-point input 'age'"):
        nx.explain(network, (scan, values), "vanilla_gradient", 1, explain_input="age")
    with pytest.raises(ModelError, match="no input is a floating-point tensor"):
        nx.explain(network, (scan.long(), "a"), "vanilla_gradient", 1)
    with pytest.raises(MethodError, match="grad_cam needs an image"):
        nx.explain(network, (scan, values), "grad_cam", 1, explain_input="values")
    with pytest.raises(MethodError, match="NaN"):
        nx.explain(network, (scan * torch.nan, values), "vanilla_gradient", 1)
    with pytest.raises(ModelError, match=r"a torch\.nn\.Module or a function"):
        nx.explain("resnet", scan, "vanilla_gradient", 1)  # type: ignore[call-overload]


def test_names_of_inputs() -> None:
    def forward(scan: Tensor, batch: dict[str, Any], flag: bool = True) -> None: ...

    clinical = {"age": torch.ones(2), "id": "x", "images": [torch.ones(1, 1, 4, 4)]}
    arguments = as_arguments(forward, (torch.ones(1, 1, 4, 4), clinical), {"flag": False})
    assert arguments.kwargs == {"flag": False}
    found = named_inputs(forward, arguments)
    assert list(found) == ["scan", "batch.images.0", "batch.age"]
    assert np.all([isinstance(path, tuple) for path in found.values()])
