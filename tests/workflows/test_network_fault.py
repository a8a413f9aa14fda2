"""Errors of a failing network, in every workflow: one sentence that names the network."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuroxai.core.errors import ModelError
from neuroxai.data.case import Case
from neuroxai.models.model import Model
from neuroxai.workflows.dissect import dissect
from neuroxai.workflows.explain import explain
from neuroxai.workflows.inspect import inspect
from neuroxai.workflows.predict import predict

ASK: dict[str, Callable[[Model, Case], object]] = {
    "explain": lambda model, case: explain(model, case, "vanilla_gradient", "WT"),
    "predict": predict,
    "inspect": lambda model, case: inspect(model, case, ["WT"]),
    "dissect": lambda model, case: dissect(model, [case], tissues=False),
}


class Failing(nn.Module):
    """A network that calls a function first, which may raise an error."""

    def __init__(self, inner: nn.Module, act: Callable[[], object]) -> None:
        super().__init__()
        self.inner, self.act = inner, act

    def forward(self, x: Tensor) -> Tensor:
        self.act()
        out: Tensor = self.inner(x)
        return out


def _too_large() -> object:
    return torch.empty(2**60, dtype=torch.uint8)


def _no_such_size() -> object:
    raise RuntimeError("sizes of tensors must match\nand more that nobody reads")


def _no_memory() -> object:
    raise MemoryError


@pytest.mark.parametrize("how", list(ASK))
@pytest.mark.parametrize(
    ("act", "message"),
    [
        (_no_such_size, r"fails on an input of \(1, 4, 32, 64, 32\) \(sizes of tensors must match"),
        (_too_large, "memory ran out"),
        (_no_memory, "memory ran out"),
    ],
)
def test_a_failing_network_raises_one_sentence(
    how: str, act: Callable[[], object], message: str, study: Case, segmenter: Model
) -> None:
    model = dataclasses.replace(segmenter, network=Failing(segmenter.network, act))
    with pytest.raises(ModelError, match=message) as caught:
        ASK[how](model, study)
    assert "\n" not in str(caught.value)


def test_an_error_outside_the_network_is_passed_on(
    study: Case, segmenter: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("ours")

    monkeypatch.setattr("neuroxai.workflows.session.information_flow", broken)
    with pytest.raises(ValueError, match="ours"):
        inspect(segmenter, study, ["WT"])


class TwoInputs(nn.Conv2d):
    def forward(self, scan: Tensor, age: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(scan).mean(dim=(2, 3)) + age


class OfMapping(nn.Conv2d):
    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(batch["image"]).mean(dim=(2, 3))


class OfAttribute(nn.Conv2d):
    def forward(self, batch: Any) -> Tensor:
        return super().forward(batch.image).mean(dim=(2, 3))


class OfList(nn.Conv3d):
    def forward(self, scans: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(scans[0]).mean(dim=(2, 3, 4)) + scans[1].mean()


class Unfinished(nn.Module):
    pass


DOUBLE = torch.rand(1, 2, 9, 7, dtype=torch.float64)


@pytest.mark.parametrize(
    ("network", "x", "message"),
    [
        (TwoInputs(2, 3, 3), DOUBLE.float(), "needs 2 inputs (scan, age): give all of them"),
        (OfMapping(2, 3, 3), DOUBLE.float(), "takes a dictionary or a list, give one"),
        (OfAttribute(2, 3, 3), DOUBLE.float(), "takes a dictionary or a list, give one"),
        (OfList(1, 3, 3), torch.rand(1, 2, 5, 6, 7), "takes a dictionary or a list, give one"),
        (nn.Conv2d(4, 3, 3), DOUBLE.float(), "expected input[1, 2, 9, 7] to have 4 channels"),
        (Unfinished(), DOUBLE.float(), "Unfinished: the network fails on an input of"),
        (nn.LazyConv2d(3, 3), DOUBLE.float(), "has lazy layers without weights yet: call it once"),
        (TwoInputs, DOUBLE.float(), "is the class TwoInputs, expected a module: create one"),
        ("net.pt", DOUBLE.float(), "the model is str, expected a torch.nn.Module"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failing_module_raises_one_sentence(network: Any, x: Tensor, message: str) -> None:
    """Modules without a card get the translation of loaded ones."""
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        explain(network, x, "vanilla_gradient", 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "subject", [(DOUBLE,), {"scan": DOUBLE}, [DOUBLE]], ids=["tuple", "dict", "list"]
)
def test_a_missing_input_is_named(subject: Any) -> None:
    with pytest.raises(ModelError, match=r"it needs 2 inputs \(scan, age\): give all of them"):
        explain(TwoInputs(2, 3, 3), subject, "vanilla_gradient", 1)


@pytest.mark.parametrize("dtype", ["<f8", ">f8", ">f4", "<f4"])
def test_numpy_input_gives_the_map_of_the_tensor(dtype: str) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 1))
    values = DOUBLE.float().numpy().astype(dtype)
    values.flags.writeable = False
    found = explain(network, values, "vanilla_gradient", 1, within="image")
    point = DOUBLE.float().requires_grad_()
    network(point)[:, 1].mean().backward()
    assert point.grad is not None
    np.testing.assert_allclose(found["vanilla_gradient"].values, point.grad, atol=1e-7)
    note = "the input was converted from float64 to float32"
    assert (note in found.warnings) == dtype.endswith("8")
