"""The equations again, slower and less complicated: loops over channels, voxels, nodes, copies."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks import CONV, SHAPES, TASKS, explain, image, make, plain_gradient, relative
from neuroxai.core.target.target import Class
from neuroxai.methods import make_method
from neuroxai.methods.integrated_gradients import RULES

TARGET = 2
Array = np.ndarray

DIMS = pytest.mark.parametrize("dims", [2, 3])
everywhere = pytest.mark.parametrize(("dims", "task"), list(itertools.product((2, 3), TASKS)))


def convolve(x: Array, weight: Array, bias: Array) -> Array:
    """Same-size convolution of ``(C, *S)`` with ``(K, C, *kernel)``, kernel sides odd."""
    pads = [(n // 2, n // 2) for n in weight.shape[2:]]
    padded = np.pad(x, [(0, 0), *pads])
    out = np.zeros((weight.shape[0], *x.shape[1:]))
    for k, c in np.ndindex(*weight.shape[:2]):
        for offset in np.ndindex(*weight.shape[2:]):
            window = tuple(slice(o, o + n) for o, n in zip(offset, x.shape[1:], strict=True))
            out[k] += weight[(k, c, *offset)] * padded[(c, *window)]
    out += bias.reshape(-1, *[1] * (x.ndim - 1))
    return out


def convolve_back(gradient: Array, weight: Array) -> Array:
    """The transpose of :func:`convolve`: every output voxel hands its gradient to its window."""
    pads = [n // 2 for n in weight.shape[2:]]
    space = gradient.shape[1:]
    padded = np.zeros((weight.shape[1], *[n + 2 * p for n, p in zip(space, pads, strict=True)]))
    for k, c in np.ndindex(*weight.shape[:2]):
        for offset in np.ndindex(*weight.shape[2:]):
            window = tuple(slice(o, o + n) for o, n in zip(offset, space, strict=True))
            padded[(c, *window)] += weight[(k, c, *offset)] * gradient[k]
    inner = tuple(slice(p, p + n) for p, n in zip(pads, space, strict=True))
    return padded[(slice(None), *inner)]


def upsample(low: Array, shape: tuple[int, ...]) -> Array:
    """Linear interpolation, one output voxel at a time; voxels are areas, edges are repeated."""
    out = np.zeros(shape)
    for voxel in np.ndindex(*shape):
        corners: list[list[tuple[int, float]]] = []
        for v, n, m in zip(voxel, shape, low.shape, strict=True):
            at = min(max((v + 0.5) * m / n - 0.5, 0.0), m - 1.0)
            below = int(at)
            corners.append([(below, 1 - (at - below)), (min(below + 1, m - 1), at - below)])
        for corner in itertools.product(*corners):
            share = math.prod(s for _, s in corner)
            out[voxel] += share * low[tuple(i for i, _ in corner)]
    return out


class Skipping(nn.Module):
    """Convolution, ReLU, convolution, ReLU, added to the first one's result, 1×1 convolution."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        conv = CONV[dims]
        self.one = conv(2, 5, 3, padding=1)
        self.two = conv(5, 5, 3, padding=1)
        self.out = conv(5, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.one(x).relu()
        out: Tensor = self.out(first + self.two(first).relu())
        return out


def loop(
    network: Skipping, x: Array, channel: int, rule: str = "vanilla_gradient"
) -> dict[str, Array]:
    """Forward and backward by hand; every gradient, plain or under a rule of its method."""
    w = {n: p.detach().double().numpy() for n, p in network.named_parameters()}
    a1 = convolve(x, w["one.weight"], w["one.bias"])
    r1 = np.maximum(a1, 0)
    a2 = convolve(r1, w["two.weight"], w["two.bias"])
    r2 = np.maximum(a2, 0)

    def back(gradient: Array, activation: Array) -> Array:
        active, positive = activation > 0, gradient > 0
        passes = {
            "vanilla_gradient": active,
            "guided_backprop": active & positive,  # eqs. 2 and 3 of the paper
            "deconvolution": positive,
        }
        return gradient * passes[rule]

    space = x.shape[1:]
    g_out = np.zeros((4, *space))
    g_out[channel] = 1 / math.prod(space)
    g_sum = convolve_back(g_out, w["out.weight"])
    g_a2 = back(g_sum, r2)
    g_r1 = g_sum + convolve_back(g_a2, w["two.weight"])
    g_a1 = back(g_r1, r1)
    return {"x": convolve_back(g_a1, w["one.weight"]), "a1": a1, "g_a1": g_a1, "a2": a2,
            "g_a2": g_a2}  # fmt: skip


def grad_cam(activation: Array, gradient: Array) -> Array:
    """Equations 9 and 10 of the paper."""
    total = np.zeros(activation.shape[1:])
    for k in range(activation.shape[0]):
        alpha = sum(gradient[k].ravel().tolist()) / gradient[k].size
        total += alpha * activation[k]
    return np.maximum(total, 0)


def hirescam(activation: Array, gradient: Array) -> Array:
    """Draelos & Carin 2020, without a rectification."""
    total = np.zeros(activation.shape[1:])
    for index in np.ndindex(*activation.shape):
        total[index[1:]] += gradient[index] * activation[index]
    return total


def layercam(activation: Array, gradient: Array) -> Array:
    """Jiang et al. 2021."""
    total = np.zeros(activation.shape[1:])
    for index in np.ndindex(*activation.shape):
        total[index[1:]] += max(gradient[index], 0) * activation[index]
    return np.maximum(total, 0)


CAMS = {"grad_cam": grad_cam, "hirescam": hirescam, "layercam": layercam}


def skipping(dims: int) -> tuple[Skipping, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        network = Skipping(dims).double()
        with torch.no_grad():
            network.out.weight[TARGET, 1:].abs_()  # type: ignore[index]  # evidence of both signs, mostly positive
    return network, image(dims, modalities=2).double()


@DIMS
@pytest.mark.parametrize("name", ["vanilla_gradient", "guided_backprop", "deconvolution"])
def test_gradients_layer_by_layer(dims: int, name: str) -> None:
    network, x = skipping(dims)
    got = explain(name, network, x, Class(TARGET)).values
    expected = np.stack([loop(network, s.numpy(), TARGET, name)["x"] for s in x])
    assert relative(got, torch.from_numpy(expected)) <= 1e-12


@DIMS
@pytest.mark.parametrize(("layer", "number"), [("one", "a1"), ("two", "a2")])
@pytest.mark.parametrize("name", CAMS)
def test_class_activation_maps_cell_by_cell(dims: int, layer: str, number: str, name: str) -> None:
    network, x = skipping(dims)
    expected = []
    for sample in x:
        seen = loop(network, sample.numpy(), TARGET)
        expected.append(CAMS[name](seen[number], seen[f"g_{number}"])[np.newaxis])
    got = explain(make_method(name, {"layer": layer}), network, x, Class(TARGET))
    assert relative(got.values, torch.from_numpy(np.stack(expected))) <= 1e-12


@everywhere
@pytest.mark.parametrize("name", CAMS)
def test_a_map_of_a_coarse_layer_is_interpolated_after_its_rectification(
    dims: int, task: str, name: str
) -> None:
    network, x = make(task, dims).double().eval(), image(dims).double()
    layer = "third" if task == "classifier" else "down"
    seen: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    output = network(x)
    handle.remove()
    score = output[:, TARGET].reshape(len(x), -1).mean(dim=1).sum()
    (gradient,) = torch.autograd.grad(score, seen[0])
    expected = []
    for a, g in zip(seen[0].detach().numpy(), gradient.numpy(), strict=True):
        expected.append(upsample(CAMS[name](a, g), SHAPES[dims])[np.newaxis])
    values = torch.from_numpy(np.stack(expected))
    cam = explain(make_method(name, {"layer": layer}), network, x)
    assert relative(cam.values, values) <= 1e-12
    if name != "grad_cam":
        return
    both = explain(make_method("guided_grad_cam", {"layer": layer}), network, x)
    fine = explain("guided_backprop", network, x)
    assert relative(both.values, values * fine.values) <= 1e-12


@everywhere
@pytest.mark.parametrize("aggregation", ["mean", "squared", "variance"])
def test_smoothgrad_by_equation_8(dims: int, task: str, aggregation: str) -> None:
    network, x = make(task, dims).eval(), image(dims)
    copies, noise, seed = 5, 0.2, 11
    generator = torch.Generator().manual_seed(seed)
    maps = []
    for _ in range(copies):
        drawn = torch.randn(x.shape, generator=generator)
        noisy = x.clone()
        for b, c in np.ndindex(*x.shape[:2]):
            sigma = noise * float(x[b, c].max() - x[b, c].min())
            noisy[b, c] += sigma * drawn[b, c]
        maps.append(plain_gradient(network, noisy, TARGET).double().numpy())
    if aggregation == "variance":
        expected = np.var(maps, axis=0, ddof=1)
    else:
        expected = sum(m if aggregation == "mean" else m**2 for m in maps) / copies
    method = make_method(
        "smoothgrad", {"samples": copies, "noise": noise, "aggregation": aggregation}
    )
    got = explain(method, network, x, Class(TARGET), seed=seed)
    assert relative(got.values, torch.from_numpy(np.asarray(expected))) <= 2e-5
    kept = np.asarray(maps) ** 2 if aggregation == "squared" else np.asarray(maps)
    error = kept.std(axis=0, ddof=1) / math.sqrt(copies)
    wanted = math.sqrt((error**2).mean() / (kept.mean(axis=0) ** 2).mean())
    assert got.diagnostics["relative_standard_error"] == pytest.approx(wanted, rel=1e-4)


def rule_by_hand(rule: str, n: int) -> list[tuple[float, float]]:
    """Nodes and weights; Gauss–Legendre's by Newton's method on the polynomial's recurrence."""
    if rule == "midpoint":
        return [((k + 0.5) / n, 1 / n) for k in range(n)]
    if rule == "left":
        return [(k / n, 1 / n) for k in range(n)]
    if rule == "right":
        return [((k + 1) / n, 1 / n) for k in range(n)]
    if rule == "trapezoid":
        ends = {0, n - 1}
        return [(k / (n - 1), (0.5 if k in ends else 1) / (n - 1)) for k in range(n)]
    found = []
    for k in range(n):
        z = math.cos(math.pi * (k + 0.75) / (n + 0.5))
        for _ in range(50):
            p, before = 1.0, 0.0
            for j in range(n):
                p, before = ((2 * j + 1) * z * p - j * before) / (j + 1), p
            slope = n * (z * p - before) / (z * z - 1)
            z -= p / slope
        found.append(((1 - z) / 2, 1 / ((1 - z * z) * slope**2)))
    return found


@everywhere
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "adaptive"])
def test_integrated_gradients_one_node_at_a_time(dims: int, task: str, rule: str) -> None:
    network, x = make(task, dims).double().eval(), image(dims).double()
    start = 0.5 * image(dims, seed=6).double()
    expected = torch.zeros_like(x)
    for alpha, weight in rule_by_hand(rule, 5):
        point = start + alpha * (x - start)
        expected += weight * (x - start) * plain_gradient(network, point, TARGET)
    method = make_method("integrated_gradients", {"steps": 5, "rule": rule, "baseline": start})
    assert relative(explain(method, network, x, Class(TARGET)).values, expected) <= 1e-12


def test_integrated_gradients_is_not_gradient_times_input() -> None:
    """The gradients are taken along the path, not at its end."""
    network, x = make("segmenter").double().eval(), image().double()
    at_the_end = x * plain_gradient(network, x, TARGET)
    got = explain(make_method("integrated_gradients"), network, x, Class(TARGET)).values
    assert relative(got, at_the_end) > 0.05


def test_integrated_gradients_does_not_depend_on_how_nodes_are_batched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, x = make("segmenter").double(), image().double()
    method = make_method("integrated_gradients", {"steps": 7})
    whole = explain(method, network, x).values
    for voxels in (1, 2 * x[:, 0].numel(), 3 * x[:, 0].numel()):
        monkeypatch.setattr("neuroxai.core.probe.probe.BATCH_VOXELS", voxels)
        assert relative(explain(method, network, x).values, whole) <= 1e-12
