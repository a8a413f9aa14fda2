"""Methods where the answer is known: linear networks, and float64 central differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks import CLASSES, CONV, SHAPES, TASKS, explain, image, make, relative, seeded
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.restriction import Box, Mask, Prediction, Restriction, voxel
from neuroxai.core.target.target import Class, Predicted, Region, Target
from neuroxai.methods import make_method
from neuroxai.methods.base import Method
from neuroxai.methods.guided_integrated_gradients import GuidedIntegratedGradients
from neuroxai.methods.integrated_gradients import RULES, IntegratedGradients

ONE = (slice(0, 1),)
SOFTMAX = Outputs(activation="softmax")
DIMS = pytest.mark.parametrize("dims", [2, 3])


def linear(dims: int) -> tuple[nn.Module, Tensor]:
    """A linear classifier, and the weights of class 2 laid out as an image."""
    size = 4 * int(np.prod(SHAPES[dims]))
    head = seeded(0, lambda: nn.Sequential(nn.Flatten(), nn.Linear(size, CLASSES))).double()
    weights = head[1].weight[2].detach().reshape(1, 4, *SHAPES[dims])  # type: ignore[index]
    return head, weights


@DIMS
@pytest.mark.parametrize("rule", RULES)
def test_linear_network_path_methods(dims: int, rule: str) -> None:
    network, weights = linear(dims)
    x, start = image(dims).double(), image(dims, seed=9).double()
    expected = weights * (x - start)
    integrated = make_method("integrated_gradients", {"steps": 3, "rule": rule, "baseline": start})
    guided = make_method("guided_integrated_gradients", {"steps": 7, "baseline": start})
    for method in (integrated, guided):
        got = explain(method, network, x)
        assert relative(got.values, expected) <= 1e-12
        assert max(got.diagnostics["completeness_gap"]) <= 1e-12
        change = expected.flatten(1).sum(dim=1)
        assert got.diagnostics["score_change"] == pytest.approx(change.tolist())
        assert got.diagnostics["attribution_sum"] == pytest.approx(change.tolist())


@DIMS
def test_linear_network_gradients(dims: int) -> None:
    network, weights = linear(dims)
    x = image(dims).double()
    expected = weights.expand_as(x)
    assert torch.equal(explain("vanilla_gradient", network, x).values, expected)
    smooth = make_method("smoothgrad", {"samples": 5, "noise": 0.5})
    assert relative(explain(smooth, network, x).values, expected) <= 1e-14
    squared = make_method("smoothgrad", {"samples": 5, "aggregation": "squared"})
    assert relative(explain(squared, network, x).values, expected**2) <= 1e-14
    variance = make_method("smoothgrad", {"samples": 5, "aggregation": "variance"})
    assert explain(variance, network, x).values.abs().max() <= 1e-30


@DIMS
def test_grad_cam_of_a_network_solved_by_hand(dims: int) -> None:
    """Two maps that copy two modalities, class 1 = 3 · mean of the first − 1 · mean of the second.

    The weights are 3/N and −1/N, so the map is ReLU(3 a − b) / N.
    """
    conv, out = CONV[dims](2, 2, 1, bias=False), CONV[dims](2, CLASSES, 1, bias=False)
    with torch.no_grad():
        eye, rows = torch.eye(2), torch.zeros(CLASSES, 2)
        rows[1] = torch.tensor([3.0, -1.0])
        for layer, weight in ((conv, eye), (out, rows)):
            layer.weight.copy_(weight.reshape(*weight.shape, *[1] * dims))  # type: ignore[operator]
    x = image(dims, modalities=2)
    got = explain("grad_cam", nn.Sequential(conv, out), x, Class(1))
    voxels = float(np.prod(SHAPES[dims]))
    expected = (3 * x[:, :1] - x[:, 1:]).clamp(min=0) / voxels
    assert relative(got.values, expected) <= 1e-6
    assert got.layer == "1:input"


@DIMS
def test_guided_backprop_of_a_network_solved_by_hand(dims: int) -> None:
    """Units relu(x), relu(−x), class = first − second: the second's gradient is negative, cut."""
    network = nn.Sequential(CONV[dims](1, 2, 1, bias=False), nn.ReLU(), CONV[dims](2, 1, 1))
    with torch.no_grad():
        for layer, row in ((network[0], [1.0, -1.0]), (network[2], [1.0, -1.0])):
            layer.weight.copy_(torch.tensor(row).reshape(layer.weight.shape))  # type: ignore[operator,arg-type]
    x = image(dims, modalities=1)
    voxels = float(np.prod(SHAPES[dims]))
    got = explain("guided_backprop", network, x, Class(0)).values
    assert relative(got, (x > 0) / voxels) <= 1e-6
    plain = explain("vanilla_gradient", network, x, Class(0)).values
    assert relative(plain, torch.ones_like(x) / voxels) <= 1e-6


@DIMS
def test_deconvolution_of_a_network_solved_by_hand(dims: int) -> None:
    """Units relu(x), relu(−x), class = first + 2 · second: both gradients pass, whatever x is."""
    network = nn.Sequential(CONV[dims](1, 2, 1, bias=False), nn.ReLU(), CONV[dims](2, 2, 1))
    with torch.no_grad():
        rows = ((network[0], [1.0, -1.0]), (network[2], [1.0, 2.0, 1.0, -2.0]))
        for layer, row in rows:
            layer.weight.copy_(torch.tensor(row).reshape(layer.weight.shape))  # type: ignore[operator,arg-type]
    x = image(dims, modalities=1)
    one = torch.ones_like(x) / float(np.prod(SHAPES[dims]))
    assert relative(explain("deconvolution", network, x, Class(0)).values, (1 - 2) * one) <= 1e-6
    # Of class 1 the second unit's gradient is negative, and stopped.
    assert relative(explain("deconvolution", network, x, Class(1)).values, one) <= 1e-6
    guided = explain("guided_backprop", network, x, Class(0)).values
    assert relative(guided, torch.where(x > 0, one, -2 * one)) <= 1e-6


def linear_behind(dims: int) -> nn.Sequential:
    """A layer, behind which the output is linear."""
    conv = CONV[dims]
    layers = [conv(4, 6, 3, padding=1), nn.Softplus(), conv(6, 7, 3, padding=1), conv(7, 5, 1)]
    network = seeded(5, lambda: nn.Sequential(*layers)).double().eval()
    assert isinstance(network, nn.Sequential)
    return network


@DIMS
@pytest.mark.parametrize("within", [False, True], ids=["image", "box"])
def test_hirescam_adds_up_to_the_target(dims: int, within: bool) -> None:
    """Where S is linear in the layer, S = Σ dS/dA · A + S at A = 0."""
    network, x = linear_behind(dims), image(dims).double()
    box = Box((1,) * dims, tuple(n - 1 for n in SHAPES[dims])) if within else None
    got = explain(make_method("hirescam", {"layer": "1"}), network, x, Class(2, within=box))
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    bias = [each.bias for each in (network[2], network[3])]
    inner = torch.einsum("k,k...->...", bias[0], network[3].weight[2]).sum() + bias[1][2]  # type: ignore[index]
    expected = torch.tensor(got.score, dtype=torch.double) - float(inner)
    assert relative(got.values.flatten(1).sum(dim=1), expected) <= 1e-12
    assert bool((got.values < 0).any()), "the sum needs the sign"


@DIMS
def test_class_activation_maps_that_keep_the_place_solved_by_hand(dims: int) -> None:
    """Two maps that copy two modalities, class 1 = 3 · first − second, within a box of n voxels.

    The gradients are 3/n and −1/n in the box and zero outside.
    """
    conv, out = CONV[dims](2, 2, 1, bias=False), CONV[dims](2, CLASSES, 1, bias=False)
    with torch.no_grad():
        rows = torch.zeros(CLASSES, 2)
        rows[1] = torch.tensor([3.0, -1.0])
        for layer, weight in ((conv, torch.eye(2)), (out, rows)):
            layer.weight.copy_(weight.reshape(*weight.shape, *[1] * dims))  # type: ignore[operator]
    network, x = nn.Sequential(conv, out), image(dims, modalities=2)
    box = torch.zeros(SHAPES[dims])
    box[(slice(1, 3),) * dims] = 1 / 2**dims
    target = Class(1, within=Mask(box > 0))
    first, second = x[:, :1], x[:, 1:]
    got = explain("hirescam", network, x, target)
    assert relative(got.values, (3 * first - second) * box) <= 1e-6
    assert any("is zero outside mask by construction" in note for note in got.notes)
    layered = explain("layercam", network, x, target)
    assert relative(layered.values, (3 * first).clamp(min=0) * box) <= 1e-6
    assert layered.notes == got.notes


def differences(network: nn.Module, score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Central differences at some voxels of every sample; the others stay NaN."""
    step = 1e-5
    found = torch.full_like(x, torch.nan)
    picks = np.random.default_rng(0).choice(x[0].numel(), size=24, replace=False)
    with torch.no_grad():
        for pick in picks:
            moved = [x.clone(), x.clone()]
            moved[0].flatten(1)[:, pick] += step
            moved[1].flatten(1)[:, pick] -= step
            ahead, behind = (score(network(m)) for m in moved)
            found.flatten(1)[:, pick] = (ahead - behind) / (2 * step)
    return found


def check_against_differences(
    network: nn.Module,
    x: Tensor,
    target: Target,
    score: Callable[[Tensor], Tensor],
    outputs: Outputs | None = None,
) -> None:
    network = network.double().eval()
    x = x.double()
    got = explain("vanilla_gradient", network, x, target, outputs)
    found = differences(network, score, x)
    known = ~found.isnan()
    assert float((got.values[known] - found[known]).abs().max()) <= 1e-6 * float(
        got.values.abs().max()
    )
    with torch.no_grad():
        assert got.score == pytest.approx(score(network(x)).tolist(), rel=1e-12)


@DIMS
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("act", [nn.Softplus, nn.GELU, nn.ReLU], ids=lambda act: act.__name__)
def test_gradient_against_central_differences(dims: int, task: str, act: type[nn.Module]) -> None:
    def score(output: Tensor) -> Tensor:
        return output[:, 2].reshape(output.shape[0], -1).mean(dim=1)

    check_against_differences(make(task, dims, act=act), image(dims), Class(2), score)


def pooled(output: Tensor) -> Tensor:
    return output.reshape(output.shape[0], -1).mean(dim=1)


@DIMS
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("scale", ["logit", "probability"])
def test_region_against_central_differences(dims: int, task: str, scale: str) -> None:
    def score(output: Tensor) -> Tensor:
        if scale == "probability":
            return pooled(output.softmax(dim=1)[:, [1, 4]].sum(dim=1))
        return pooled(torch.log(output[:, 1].exp() + output[:, 4].exp()))

    target = Region([1, 4], scale=scale)  # type: ignore[arg-type]
    check_against_differences(make(task, dims, act=nn.GELU), image(dims), target, score, SOFTMAX)


@DIMS
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probability_against_central_differences(dims: int, activation: str) -> None:
    def score(output: Tensor) -> Tensor:
        return pooled(output.softmax(dim=1)[:, 2] if activation == "softmax" else
                      1 / (1 + torch.exp(-output[:, 2])))  # fmt: skip

    network, outputs = make("segmenter", dims, act=nn.GELU), Outputs(activation=activation)  # type: ignore[arg-type]
    target = Class(2, scale="probability")
    check_against_differences(network, image(dims), target, score, outputs)
    assert any("saturates" in n for n in explain(
        "vanilla_gradient", network, image(dims).double(), target, outputs).notes)  # fmt: skip


@DIMS
def test_predicted_class_against_central_differences(dims: int) -> None:
    network, x = make("classifier", dims, act=nn.GELU).double().eval(), image(dims, seed=5)
    with torch.no_grad():
        chosen = network(x.double()).argmax(dim=1)

    def score(output: Tensor) -> Tensor:
        return torch.stack([row[c] for row, c in zip(output, chosen, strict=True)])

    check_against_differences(network, x, Predicted(), score)


def lifted(dims: int) -> nn.Module:
    """A segmenter that predicts class 2 somewhere, not everywhere."""
    network = make("segmenter", dims, act=nn.GELU).double().eval()
    with torch.no_grad():
        output = network(image(dims).double())
        others = output[:, [0, 1, 3, 4]].amax(dim=1)
        network.get_submodule("exit").bias[2] += (others - output[:, 2]).median()  # type: ignore[index,operator]
        here = network(image(dims).double()).argmax(dim=1) == 2
    assert all(0.05 < float(h.double().mean()) < 0.95 for h in here)
    return network


def restrictions(dims: int) -> dict[str, Restriction]:
    shape = SHAPES[dims]
    generator = torch.Generator().manual_seed(4)
    return {
        "prediction": Prediction(),
        "one mask": Mask(torch.rand(shape, generator=generator) > 0.7),
        "masks": Mask(torch.rand(3, *shape, generator=generator) > 0.7),
        "box": Box((1,) * dims, tuple(n - 1 for n in shape)),
        "voxel": voxel(tuple(n // 2 for n in shape)),
    }


@DIMS
@pytest.mark.parametrize("kind", ["prediction", "one mask", "masks", "box", "voxel"])
def test_restricted_target_against_central_differences(dims: int, kind: str) -> None:
    network, x = lifted(dims), image(dims)
    within = restrictions(dims)[kind]
    with torch.no_grad():
        at_x = network(x.double())
    shape = SHAPES[dims]
    match kind:
        case "prediction":
            mask = (at_x.argmax(dim=1) == 2).numpy()
        case "one mask":
            mask = np.stack([within.values.numpy()] * 3)  # type: ignore[attr-defined]
        case "masks":
            mask = within.values.numpy()  # type: ignore[attr-defined]
        case "box":
            mask = np.zeros((3, *shape), bool)
            mask[(slice(None), *[slice(1, n - 1) for n in shape])] = True
        case _:
            mask = np.zeros((3, *shape), bool)
            mask[(slice(None), *[slice(n // 2, n // 2 + 1) for n in shape])] = True

    def score(output: Tensor) -> Tensor:
        rows = [output[b, 2][torch.from_numpy(mask[b])] for b in range(output.shape[0])]
        return torch.stack([row.sum() / row.numel() for row in rows])

    check_against_differences(network, x, Class(2, within=within), score)


def test_the_prediction_stays_where_it_was_along_a_path() -> None:
    """Completeness holds only if the mask is fixed at the explained point."""
    network, x = lifted(2), image().double()
    method = make_method("integrated_gradients", {"steps": 400})
    got = explain(method, network, x, Class(2, within=Prediction()))
    assert max(got.diagnostics["completeness_gap"]) <= 2e-3


@DIMS
@pytest.mark.parametrize("task", TASKS)
def test_completeness(dims: int, task: str) -> None:
    """At 50 steps on a smooth network; on a ReLU network, rough along the path, by tolerance."""
    x = image(dims)
    fifty = make_method("integrated_gradients", {"steps": 50})
    smooth = explain(fifty, make(task, dims, act=nn.GELU), x)
    # A sample whose positive and negative evidence cancel has no change to be measured against.
    evidence = smooth.values.abs().flatten(1).sum(dim=1).tolist()
    found = zip(*(smooth.diagnostics[k] for k in ("completeness_gap", "score_change")), strict=True)
    gaps = [gap for (gap, c), e in zip(found, evidence, strict=True) if abs(c) > 0.01 * e]
    assert gaps
    assert max(gaps) <= 0.01
    refined = make_method("integrated_gradients", {"steps": 2, "tolerance": 0.01})
    rough = explain(refined, make(task, dims), x)
    assert max(rough.diagnostics["completeness_gap"]) <= 0.01
    assert 2 < rough.diagnostics["nodes"] <= 1024
    assert not any("gap" in note for note in rough.notes)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (IntegratedGradients(steps=2, rule="midpoint"), True),
        (IntegratedGradients(steps=200, rule="midpoint"), False),
        (GuidedIntegratedGradients(steps=2), True),
        (GuidedIntegratedGradients(steps=200), False),
    ],
    ids=str,
)
def test_a_large_completeness_gap_is_said_in_words(method: Method, said: bool) -> None:
    """A steep sigmoid: two gradients miss its step, two hundred do not."""
    x = torch.rand(1, 2, 4, 3, generator=torch.Generator().manual_seed(3)).double() + 0.5
    layer = nn.Conv2d(2, 2, 1, bias=False).double()
    nn.init.constant_(layer.weight, 8.0)
    steep = nn.Sequential(layer, nn.Sigmoid()).requires_grad_(requires_grad=False)
    explanation = method.explain(WholeVolume(steep, Class(1)), x)
    (gap,) = explanation.diagnostics["completeness_gap"]
    assert (gap > 0.1) is said
    assert any(f"the completeness gap is {gap:.1%}" in note for note in explanation.notes) is said
