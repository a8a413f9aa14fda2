"""Guided IG against its authors' code, a scalar re-implementation, and a skull-stripped image."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks import TASKS, OlderNumpy, explain, image, make, plain_gradient, relative
from neuroxai.core.target.target import Class
from neuroxai.methods import guided_integrated_gradients as room
from neuroxai.methods import make_method

TARGET = 2
NAME = "guided_integrated_gradients"


@pytest.fixture
def authors(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    saliency = pytest.importorskip("saliency.core")
    monkeypatch.setattr("saliency.core.guided_ig.np", OlderNumpy())
    return SimpleNamespace(mask=saliency.GuidedIG(), keys=saliency.INPUT_OUTPUT_GRADIENTS)


def theirs(authors: SimpleNamespace, network: nn.Module, x: Tensor, start: Tensor,
           steps: int, fraction: float, distance: float) -> Tensor:  # fmt: skip
    def call(values: Any, call_model_args: Any, expected_keys: Any) -> dict[str, Any]:
        return {authors.keys: plain_gradient(network, torch.from_numpy(values), TARGET).numpy()}

    maps = [
        authors.mask.GetMask(i.numpy(), call, x_baseline=b.numpy(), x_steps=steps,
                             fraction=fraction, max_dist=distance)
        for i, b in zip(x, start, strict=True)
    ]  # fmt: skip
    return torch.from_numpy(np.stack(maps))


def ours(network: nn.Module, x: Tensor, start: Tensor,
         steps: int, fraction: float, distance: float) -> Tensor:  # fmt: skip
    parameters = {"steps": steps, "fraction": fraction, "max_distance": distance, "baseline": start}
    return explain(make_method(NAME, parameters), network, x, Class(TARGET)).values


SETTINGS = [
    (30, 0.25, 0.02),
    (30, 0.25, 0.2),
    (30, 0.25, 1.0),
    (13, 0.1, 0.2),
    (13, 0.7, 0.02),
    (7, 1.0, 0.2),
    (20, 0.25, 0.0),
    (1, 0.25, 1.0),
]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("zero", [True, False], ids=["from zero", "from an image"])
def test_as_the_authors_code(
    dims: int, task: str, setting: tuple[int, float, float], zero: bool, authors: SimpleNamespace
) -> None:
    network, x = make(task, dims).double().eval(), image(dims, batch=2).double()
    start = torch.zeros_like(x) if zero else image(dims, batch=2, seed=6).double()
    expected = theirs(authors, network, x, start, *setting)
    assert relative(ours(network, x, start, *setting), expected) <= 1e-5


def scalar(
    network: nn.Module, x: Tensor, start: Tensor, steps: int, fraction: float, distance: float
) -> Tensor:
    """One feature after the other, in plain Python; those that never move are in no quantile."""
    way = (x - start).flatten().tolist()
    begin = start.flatten().tolist()
    moving = [i for i, w in enumerate(way) if w != 0]
    done = dict.fromkeys(moving, 0.0)
    gathered = [0.0] * len(way)
    total = sum(abs(way[i]) for i in moving)
    for step in range(steps):
        here = list(begin)
        for i in moving:
            here[i] += done[i] * way[i]
        point = torch.tensor(here, dtype=torch.float64).reshape(1, *x.shape)
        slope = plain_gradient(network, point, TARGET).flatten().tolist()
        alpha = (step + 1) / steps
        low, high = max(alpha - distance, 0), min(alpha + distance, 1)
        before = dict(done)
        for i in moving:
            done[i] = max(done[i], low)
        goal = total * (1 - alpha)
        while True:
            left = sum(abs(way[i]) * (1 - done[i]) for i in moving)
            if left - goal <= 1e-9 * max(left, goal, 1):
                break
            score = sorted(abs(slope[i]) if done[i] < high else math.inf for i in moving)
            threshold = score[math.floor(fraction * (len(moving) - 1))]
            chosen = [i for i in moving if done[i] < high and abs(slope[i]) <= threshold]
            reach = sum(abs(way[i]) * (high - done[i]) for i in chosen)
            share = (left - goal) / reach
            for i in chosen:
                done[i] = high if share >= 1 else done[i] + share * (high - done[i])
            if share < 1:
                break
        for i in moving:
            gathered[i] += (done[i] - before[i]) * way[i] * slope[i]
    return torch.tensor(gathered, dtype=torch.float64).reshape(x.shape)


def stripped(dims: int, batch: int = 2) -> Tensor:
    """An image of which three quarters are exactly zero, as around a brain."""
    x = image(dims, batch=batch).double()
    outside = torch.ones(x.shape[2:], dtype=torch.bool)
    outside[tuple(slice(n // 4, n // 4 + max(2, (2 * n) // 3)) for n in x.shape[2:])] = False
    flat = outside.flatten()
    inside = (~flat).nonzero().flatten()
    flat[inside[flat.numel() // 4 :]] = True
    x[..., outside] = 0
    assert float((x == 0).double().mean()) >= 0.75
    return x


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("setting", [(12, 0.25, 0.02), (12, 0.25, 0.2), (9, 0.5, 1.0)], ids=str)
def test_as_the_scalar_version_on_a_stripped_image(
    dims: int, setting: tuple[int, float, float]
) -> None:
    network, x = make("segmenter", dims).double().eval(), stripped(dims)
    expected = torch.stack([scalar(network, i, torch.zeros_like(i), *setting) for i in x])
    got = ours(network, x, torch.zeros_like(x), *setting)
    assert relative(got, expected) <= 1e-9
    assert (got[x == 0] == 0).all()


def left_rule(network: nn.Module, x: Tensor, steps: int) -> Tensor:
    parameters = {"steps": steps, "rule": "left"}
    return explain(make_method("integrated_gradients", parameters), network, x).values


@pytest.mark.parametrize("dims", [2, 3])
def test_on_a_stripped_image_it_does_not_collapse(dims: int, authors: SimpleNamespace) -> None:
    """The quantile over every feature is used up by the background: the path becomes straight."""
    network, x = make("segmenter", dims).double().eval(), stripped(dims)
    straight, start = left_rule(network, x, 20), torch.zeros_like(x)
    collapsed = theirs(authors, network, x, start, 20, 0.25, 0.2)
    assert relative(collapsed, straight) <= 1e-6, "the premise: all that moves, moves at once"
    assert relative(ours(network, x, start, 20, 0.25, 0.2), straight) > 0.02


@pytest.mark.parametrize("dims", [2, 3])
def test_without_a_corridor_to_leave_it_is_integrated_gradients(dims: int) -> None:
    network, x = make("classifier", dims).double().eval(), image(dims).double()
    got = ours(network, x, torch.zeros_like(x), 20, 0.25, 0.0)
    assert relative(got, left_rule(network, x, 20)) <= 1e-9
    everything = ours(network, x, torch.zeros_like(x), 20, 1.0, 0.2)
    assert relative(everything, left_rule(network, x, 20)) <= 1e-9


def test_the_walk_stays_in_its_corridor_and_keeps_its_pace() -> None:
    x, start = image(batch=1)[0].double(), image(batch=1, seed=5)[0].double()
    path = room._Path(start, x, 0.25, 0.1)
    generator = torch.Generator().manual_seed(0)
    for step in range(10):
        path.advance(torch.randn(x.shape, generator=generator).double(), (step + 1) / 10)
        position = (path.point() - start) / (x - start)
        alpha = (step + 1) / 10
        assert float(position.min()) >= alpha - 0.1 - 1e-9
        assert float(position.max()) <= min(alpha + 0.1, 1) + 1e-9
        left = float((x - path.point()).abs().sum() / (x - start).abs().sum())
        assert left == pytest.approx(1 - alpha, abs=1e-8)
    assert torch.allclose(path.point(), x)


def test_an_image_that_is_its_baseline_has_an_empty_map() -> None:
    x = image()
    x[1] = 0
    got = explain(make_method(NAME, {"steps": 4}), make("segmenter"), x)
    assert not got.values[1].any()
    assert got.values[0].any()
    assert got.diagnostics["completeness_gap"][1] is None
    assert got.diagnostics["moving_features"] == [x[0].numel(), 0, x[2].numel()]


def test_single_precision_walks_the_double_precision_way() -> None:
    network, x = make("segmenter", act=nn.GELU).eval(), image()
    single = explain(make_method(NAME, {"steps": 20}), network, x).values
    double = explain(make_method(NAME, {"steps": 20}), network.double(), x.double()).values
    assert relative(single, double) <= 0.02  # ties are broken by rounding, the maps stay close


class Exploding(nn.Module):
    """The mean of the image plus a smooth kink near zero, whose slope there is ``slope``."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        width = 1 / self.slope
        score = x.mean(dim=(1, 2, 3)) + 1e-6 * torch.tanh(x / width).mean(dim=(1, 2, 3)) / width
        return torch.stack([score, -score], dim=1)


@pytest.mark.parametrize(("slope", "void"), [(1e7, True), (1e-7, False)])
def test_a_map_from_a_start_with_exploding_gradients_is_void(slope: float, *, void: bool) -> None:
    """The first step alone contributes its gradient, known in closed form, times its length."""
    x = torch.rand(1, 1, 5, 4, generator=torch.Generator().manual_seed(1)).double() + 0.5
    method = make_method(NAME, {"steps": 20, "max_distance": 0.0, "baseline": "zero"})
    got = explain(method, Exploding(slope), x, Class(0))
    (excess,), (change,) = got.diagnostics["path_excess"], got.diagnostics["score_change"]
    first = float(x.mean()) * (1 + 1e-6 * slope**2) / 20
    assert excess >= 0.99 * first / abs(change)
    assert any("the map is void" in note for note in got.notes) is void
    assert not any("positions are more reliable" in note for note in got.notes)
