"""The layer of an explanation, given back, gives the same map."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from networks import image, seeded
from neuroxai.core.probe.ensemble import Ensemble
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.sliding_window import SlidingWindow
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.probe.windows import Windows
from neuroxai.core.target.target import Class
from neuroxai.methods import METHODS, make_method

ONE_LAYER = {"cam", "grad_cam_plus_plus"}
"""CAM has a map of one layer, and the weights of Grad-CAM++ are not defined over windows."""

LAYERED = [
    name for name in METHODS if "layer" in make_method(name).parameters() and name not in ONE_LAYER
]


class Siamese(nn.Module):
    """Passes two halves of the modalities through the same convolutions."""

    def __init__(self, *, classifies: bool) -> None:
        super().__init__()
        self.twin = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(6, 5, 1)
        self.classifies = classifies

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.twin(x[:, :2]).square()) - self.head(self.twin(x[:, 2:]))
        return out.mean(dim=(2, 3)) if self.classifies else out


def probes(network: nn.Module, *, windows: bool) -> Probe:
    if not windows:
        return WholeVolume(network, Class(1))
    return SlidingWindow(network, Class(1), windows=Windows((8, 6), torch.ones(8, 6), overlap=0.5))


@pytest.mark.parametrize("name", LAYERED)
@pytest.mark.parametrize("way", ["classifier", "segmenter", "windows", "checkpointed"])
@pytest.mark.parametrize("layer", ["auto", "twin.0", "twin.0#1", "twin.0#2", "head:input#1"])
def test_the_reported_layer_gives_the_same_map(name: str, way: str, layer: str) -> None:
    network = seeded(3, lambda: Siamese(classifies=way == "classifier"))
    x = image(batch=1)

    def explained(layer: str) -> tuple[str | None, Tensor, tuple[str, ...]]:
        probe = probes(network, windows=way == "windows")
        probe.checkpointed = way == "checkpointed"
        found = make_method(name, {"layer": layer}).explain(probe, x)
        return found.layer, found.values, found.notes

    label, values, notes = explained(layer)
    assert label is not None
    assert "#" in label
    again, same, _ = explained(label)
    assert again == label
    assert torch.equal(same, values)
    assert any("runs several times" in note for note in notes) is (layer == "auto")


def test_the_first_and_the_last_call_differ() -> None:
    network, x = seeded(3, lambda: Siamese(classifies=False)), image(batch=1)
    for windows in (False, True):
        first, last, named = (
            make_method("hirescam", {"layer": layer}).explain(probes(network, windows=windows), x)
            for layer in ("twin.0#1", "twin.0#2", "twin.0")
        )
        assert (first.layer, last.layer, named.layer) == ("twin.0#1", "twin.0#2", "twin.0#2")
        assert torch.equal(named.values, last.values)
        assert not torch.equal(first.values, last.values)


def test_the_layer_of_an_ensemble_can_be_given_back() -> None:
    network = seeded(3, lambda: Ensemble([Siamese(classifies=False) for _ in range(2)]))
    x = image(batch=1)
    found = make_method("grad_cam").explain(probes(network, windows=True), x)
    assert found.layer is not None
    assert found.layer.startswith("members.*.")
    again = make_method("grad_cam", {"layer": found.layer})
    assert torch.equal(again.explain(probes(network, windows=True), x).values, found.values)
