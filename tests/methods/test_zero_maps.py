"""Maps that are exactly zero carry the true reason; other maps carry none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from networks import explain, image, make, quick, seeded
from neuroxai.core.probe.sliding_window import SlidingWindow
from neuroxai.core.probe.windows import Windows
from neuroxai.core.target.target import Class
from neuroxai.methods import METHODS, make_method


class Cut(nn.Module):
    """A network with a step between its convolutions."""

    def __init__(self, step: Callable[[Tensor], Tensor], dims: int, *, classifies: bool) -> None:
        super().__init__()
        convolution = nn.Conv2d if dims == 2 else nn.Conv3d
        self.enter, self.head = convolution(4, 6, 3, padding=1), convolution(6, 5, 1)
        self.step, self.classifies = step, classifies

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.step(self.enter(x)))
        return out.flatten(2).mean(dim=2) if self.classifies else out


def zero_notes(notes: tuple[str, ...]) -> list[str]:
    return [note for note in notes if "exactly zero" in note or "rectified to zero" in note]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("classifies", [False, True])
@pytest.mark.parametrize(
    ("step", "operation"),
    [(lambda y: (5 * y).round(), "Round"), (torch.sign, "Sign"), (torch.floor, "Floor")],
    ids=["round", "sign", "floor"],
)
def test_a_cut_graph_is_named(
    step: Callable[[Tensor], Tensor], operation: str, dims: int, classifies: bool
) -> None:
    network = seeded(0, lambda: Cut(step, dims, classifies=classifies))
    for name in ("vanilla_gradient", "integrated_gradients", "smoothgrad"):
        got = explain(quick(name), network, image(dims))
        assert not got.values.any()
        notes = zero_notes(got.notes)
        assert len(notes) == len(got.values)
        assert all("cuts the gradient" in note and operation in note for note in notes)
        assert not any("ReLU" in note or "rectified" in note for note in notes)


@pytest.mark.parametrize("method", ["grad_cam", "layercam", "hirescam"])
def test_a_layer_in_front_of_a_cut(method: str) -> None:
    network = seeded(0, lambda: Cut(torch.sign, 2, classifies=True))
    got = explain(make_method(method, {"layer": "enter"}), network, image())
    assert not got.values.any()
    notes = zero_notes(got.notes)
    assert len(notes) == len(got.values)
    assert all("Sign" in note and "cuts the gradient" in note for note in notes)


def test_inactive_units_are_not_called_a_cut() -> None:
    network = seeded(0, lambda: Cut(lambda y: (y - 1000).relu(), 2, classifies=True))
    note = zero_notes(explain("vanilla_gradient", network, image(batch=1)).notes)[0]
    assert "Relu" in note
    assert "small changes of the input do not change" in note
    dead = nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 5, 1))
    with torch.no_grad():
        dead[0].bias.fill_(-1000)  # type: ignore[operator]
    got = explain(make_method("grad_cam", {"layer": "1"}), dead, image(batch=1))
    assert zero_notes(got.notes) == [
        "the map of layer 1 is exactly zero because every unit of the layer is zero on this image"
    ]


def test_a_layer_that_the_target_does_not_read() -> None:
    """As the patch tokens of the last block of a transformer that reads its class token."""

    class Unread(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.head = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.block(x)
            out: Tensor = self.head(x).mean(dim=(2, 3)) + tokens[:, :5, 1:, 1:].mul(0).sum((2, 3))
            return out

    got = explain(make_method("grad_cam", {"layer": "block"}), seeded(0, Unread), image(batch=1))
    (note,) = zero_notes(got.notes)
    assert "no gradient reaches layer block" in note
    assert "name an earlier layer" in note


def test_a_path_without_length_and_a_constant_gradient() -> None:
    network, x = make("segmenter"), image(batch=1)
    path = make_method("integrated_gradients", {"steps": 2, "baseline": x})
    assert "equals its baseline" in zero_notes(explain(path, network, x).notes)[0]
    linear = seeded(0, lambda: nn.Conv2d(4, 5, 1))
    method = make_method("smoothgrad", {"samples": 2, "aggregation": "variance"})
    got = explain(method, linear, x)
    assert not got.values.any()
    assert "copies are the same" in zero_notes(got.notes)[0]


def test_one_modality_is_noted_only_if_its_gradient_is_cut() -> None:
    def detached(y: Tensor) -> Tensor:
        return torch.cat([y[:, :1].detach(), y[:, 1:]], dim=1)

    def ignored(y: Tensor) -> Tensor:
        return y[:, 1:]

    for prepare, expected in ((detached, 1), (ignored, 0)):
        head = seeded(0, lambda: nn.Conv2d(4, 5, 3))
        if not expected:
            head = seeded(0, lambda: nn.Conv2d(3, 5, 3))
        network = _Prepared(prepare, head)
        got = explain("vanilla_gradient", network, image(batch=1))
        assert not got.values[:, 0].any()
        assert got.values[:, 1].any()
        notes = zero_notes(got.notes)
        assert len(notes) == expected
        assert all("input channel 0" in note for note in notes)


class _Prepared(nn.Module):
    def __init__(self, prepare: Callable[[Tensor], Tensor], head: nn.Module) -> None:
        super().__init__()
        self.prepare, self.head = prepare, head

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.prepare(x))
        return out


def test_windows_report_a_cut() -> None:
    network = seeded(0, lambda: Cut(torch.sign, 2, classifies=False))
    windows = Windows((8, 6), torch.ones(8, 6), overlap=0.5)
    probe = SlidingWindow(network, Class(1), windows=windows)
    got = make_method("vanilla_gradient").explain(probe, image(batch=1))
    assert "cuts the gradient" in zero_notes(got.notes)[0]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("task", ["segmenter", "classifier"])
def test_maps_of_ordinary_networks_have_no_such_note(name: str, task: str) -> None:
    got = explain(quick(name), make(task), image())
    for values, sample in zip(got.values, range(len(got.values)), strict=True):
        noted = [note for note in zero_notes(got.notes) if f"sample {sample}" in note]
        assert bool(noted) is not bool(values.any())
