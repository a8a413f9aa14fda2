"""Contrasts, functions of the output, and a class per sample, against autograd by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import neuroxai as nx
from neuroxai.core.errors import TargetError
from neuroxai.core.target.bound_target import same_target
from neuroxai.core.target.contrast import Contrast, parse_question
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.score import Score
from neuroxai.core.target.target import Class, Region

OUTPUTS = Outputs(
    ("background", "NCR", "ED", "ET"), {"TC": ("NCR", "ET"), "ET": ("ET",)}, "softmax"
)


def segmenter(dims: int) -> nn.Module:
    conv = nn.Conv2d if dims == 2 else nn.Conv3d
    # Odd, so that every class is predicted somewhere.
    first, last = conv(2, 5, 3, padding=1, bias=False), conv(5, 4, 1, bias=False)
    network = nn.Sequential(first, nn.Tanh(), last)
    return network.double().eval()


def image(dims: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 2, *(8, 6, 5)[:dims]).double()


def by_hand(network: nn.Module, x: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(network(point)).sum(), point)
    return gradient


def mean_where(values: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([v[m].mean() for v, m in zip(values, mask, strict=True)])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("within", [None, "image"])
def test_region_against_region_is_averaged_where_the_first_is_predicted(
    dims: int, within: str | None
) -> None:
    network, x = segmenter(dims), image(dims)
    with torch.no_grad():
        place = torch.isin(network(x).argmax(1), torch.tensor([1, 3]))
    assert bool(place.flatten(1).any(1).all())
    if within == "image":
        place = torch.ones_like(place)

    def score(output: Tensor) -> Tensor:
        core = torch.logsumexp(output[:, [1, 3]], dim=1)
        return mean_where(core - output[:, 2], place)

    expected = by_hand(network, x, score)
    for target in (Contrast("TC", "ED"), Contrast(Region("TC"), Class(2)), "TC vs ED"):
        found = nx.explain(network, x, "vanilla_gradient", target, outputs=OUTPUTS, within=within)[
            "vanilla_gradient"
        ]
        assert torch.allclose(found.values, expected, atol=1e-12)
        assert torch.allclose(torch.tensor(found.score).double(), score(network(x)), atol=1e-12)
        assert found.target["name"] == "TC vs " + found.target["against"]["name"]
        assert found.target["kind"] == "contrast"


@pytest.mark.parametrize("scale", ["logit", "probability"])
def test_classes_of_a_classifier_on_both_scales(scale: Any) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(96, 4)).double()
    x = image(2)
    target = Contrast("ET", "NCR", scale=scale)
    found = nx.explain(network, x, "integrated_gradients", target, outputs=OUTPUTS)

    def score(output: Tensor) -> Tensor:
        values = output.softmax(1) if scale == "probability" else output
        return values[:, 3] - values[:, 1]

    values = found["integrated_gradients"].values
    if scale == "logit":  # linear: the map is the gradient times the image
        assert torch.allclose(values, by_hand(network, x, score) * x, atol=1e-12)
    change = score(network(x)) - score(network(torch.zeros_like(x)))
    assert torch.allclose(values.flatten(1).sum(1), change, rtol=0.02)


def test_a_contrast_is_linear_if_both_parts_are() -> None:
    output = torch.randn(1, 4, 5, 4)
    assert Contrast("ET", "NCR").bind(OUTPUTS, output).linear
    assert not Contrast("ET", "TC").bind(OUTPUTS, output).linear


def test_a_contrast_is_a_target_of_its_own() -> None:
    output = torch.randn(1, 4, 5, 4)
    bound = [
        each.bind(OUTPUTS, output).description
        for each in (Contrast("ET", "NCR"), Class("ET"), Contrast("ET", "ED"), Contrast(3, 1))
    ]
    assert not same_target(bound[0], bound[1])
    assert not same_target(bound[0], bound[2])
    assert same_target(bound[0], bound[3])


def test_names_with_versus_are_parsed() -> None:
    outputs = Outputs(("benign vs malignant", "other"))
    assert isinstance(parse_question("benign vs malignant", outputs), Class)
    with pytest.raises(TargetError, match="unknown target 'NC'"):
        parse_question("ET vs NC", OUTPUTS)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_function_of_the_output(dims: int) -> None:
    network, x = segmenter(dims), image(dims)

    def volume(output: Tensor) -> Tensor:
        return output.softmax(1)[:, 1:].sum(1).flatten(1).sum(1)

    expected = by_hand(network, x, volume)
    found = nx.explain(network, x, "vanilla_gradient", volume)["vanilla_gradient"]
    assert torch.allclose(found.values, expected, atol=1e-12)
    assert found.target["name"] == "volume"
    on_probabilities = Score(lambda p: p[:, 1:].flatten(1).sum(1), "ml", scale="probability")
    other = nx.explain(network, x, "vanilla_gradient", on_probabilities, outputs=OUTPUTS)
    assert torch.allclose(other["vanilla_gradient"].values, expected, atol=1e-12)
    assert other.target == "ml"


METHODS: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 12, "rule": "midpoint", "baseline": "zero"},
    "smoothgrad": {"samples": 6},
    "grad_cam": {},
}


@pytest.mark.parametrize("method", list(METHODS))
def test_a_function_of_one_class_is_the_class(method: str) -> None:
    network, x, chosen = segmenter(2), image(2), {method: METHODS[method]}
    by_class = nx.explain(network, x, chosen, 2, within="image")[method]
    found = nx.explain(network, x, chosen, lambda output: output[:, 2].mean((1, 2)))[method]
    assert torch.allclose(found.values, by_class.values, atol=1e-10)


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor], ids=["list", "tuple", "tensor"])
def test_each_sample_has_its_class(kind: Any) -> None:
    network = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(120, 4)).double()
    x, classes = image(2, 3), [0, 3, 1]
    expected = by_hand(network, x, lambda output: output[torch.arange(3), classes])
    found = nx.explain(network, x, "vanilla_gradient", kind(classes))["vanilla_gradient"]
    assert torch.allclose(found.values, expected, atol=1e-12)
    # Copies of the batch pass through the network at once.
    path = {"integrated_gradients": {"steps": 12, "rule": "midpoint", "baseline": "zero"}}
    together = nx.explain(network, x, path, kind(classes))["integrated_gradients"].values
    for i, which in enumerate(classes):
        alone = nx.explain(network, x[i : i + 1], path, which)["integrated_gradients"].values
        assert torch.allclose(together[i : i + 1], alone, atol=1e-10)


def test_what_is_not_a_target_is_refused() -> None:
    network, x = segmenter(2), image(2)
    refused: list[tuple[Any, str]] = [
        ([0, 1, 2], "3 classes for 2 sample"),
        (lambda output: output.mean(), r"returns \(\) for an output of .* one number per sample"),
        (lambda output: "a", "returns str for an output"),
        ("ET vs ET", "both are the same"),
    ]
    for target, message in refused:
        with pytest.raises(TargetError, match=message):
            nx.explain(network, x, "vanilla_gradient", target, outputs=OUTPUTS)
    with pytest.raises(TargetError, match="cannot be restricted to the prediction"):
        nx.explain(network, x, "vanilla_gradient", Score(torch.mean), within="prediction")
    with pytest.raises(TargetError, match="has a place of its own"):
        Contrast(Class(1, within=nx.Mask(torch.ones(1, 8, 6, dtype=torch.bool))), 2)
    with pytest.raises(TargetError, match=r"a contrast of 1\.5"):
        Contrast(1.5, 2)  # type: ignore[arg-type]
