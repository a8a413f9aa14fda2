"""Errors of a failing network, in every workflow: one sentence that names the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

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
