"""Regularized ascent where the maximum is known, and its seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from networks import CLASSES, CONV, TASKS, explain, image, make, plain_gradient, relative, seeded
from neuroxai.core.errors import MethodError
from neuroxai.methods import make_method

DIMS = pytest.mark.parametrize("dims", [2, 3])


@DIMS
def test_a_linear_score_has_its_maximum_in_closed_form(dims: int) -> None:
    """S(I) = g·I is largest, with the penalty λ‖g‖ ‖I‖², at I = g / (2 λ ‖g‖)."""
    network = seeded(1, lambda: CONV[dims](4, CLASSES, 1)).double()
    x = image(dims).double()
    method = make_method("class_model", {"steps": 400, "rate": 0.5, "weight": 0.1})
    got = explain(method, network, x)
    gradient = plain_gradient(network, x, 2)
    norms = gradient.flatten(1).norm(dim=1).reshape(-1, *[1] * (dims + 1))
    assert relative(got.values, gradient / (2 * 0.1 * norms)) <= 1e-9


@DIMS
@pytest.mark.parametrize("task", TASKS)
def test_every_step_by_hand(dims: int, task: str) -> None:
    """The printed update, with autograd alone, from the image that one more step continues."""
    network, x = make(task, dims, act=nn.Softplus).double().eval(), image(dims).double()
    short, longer = (
        explain(make_method("class_model", {"steps": n}), network, x, seed=5).values for n in (1, 2)
    )
    noise = 0.01 * torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(5)).double()
    first = plain_gradient(network, noise.expand_as(x), 2)
    scale = first.flatten(1).norm(dim=1).reshape(-1, *[1] * (dims + 1))
    one = noise + (first - 2 * 0.01 * scale * noise) / scale
    assert relative(short, one) <= 1e-12
    two = one + (plain_gradient(network, one, 2) - 2 * 0.01 * scale * one) / scale
    assert relative(longer, two) <= 1e-12


def test_the_score_rises_and_the_seed_decides() -> None:
    network, x = make("segmenter"), image()
    got = explain("class_model", network, x, seed=1)
    before, after = got.diagnostics["scores"]
    assert all(b > a for a, b in zip(before, after, strict=True))
    assert not torch.equal(got.values, explain("class_model", network, x, seed=2).values)
    assert torch.equal(got.values, explain("class_model", network, x + 1, seed=1).values)


@pytest.mark.parametrize("name", ["steps", "rate", "weight", "start"])
def test_a_bad_parameter_is_refused(name: str) -> None:
    with pytest.raises(MethodError, match=f"class_model: {name} is -1"):
        make_method("class_model", {name: -1})
