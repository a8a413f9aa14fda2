"""Modality Shapley values: closed forms, captum, and a case."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import neuroxai as nx
from networks import TASKS, Pooled, image, make, snapshot
from neuroxai.core.air import foreground
from neuroxai.core.errors import CancelledError, MethodError
from neuroxai.models import load_model
from neuroxai.reports.shapley import rows


class Additive(nn.Module):
    """A segmenter whose class k is a weighted sum of the modalities, voxel by voxel."""

    def __init__(self) -> None:
        super().__init__()
        weights = torch.tensor([[1.0, -2.0, 0.0], [0.5, 3.0, 1.0]])
        self.weights = nn.Parameter(weights.double())

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("kc,bc...->bk...", self.weights, x)


@pytest.mark.parametrize("dims", [2, 3])
def test_an_additive_network(dims: int) -> None:
    """Each modality is worth its weight times its mean change where the target is averaged."""
    x, other = image(dims, 3).double(), image(dims, 3, seed=5).double()
    network = Additive()
    found = nx.modality_shapley(network, x, [0, 1], remover=other)
    assert list(found) == ["0", "1"]
    winner = network(x).argmax(dim=1)
    for k, each in enumerate(found.values()):
        inside = (winner == k).unsqueeze(1)
        axes = tuple(range(2, x.dim()))
        mean = ((x - other) * inside).sum(dim=axes) / inside.sum(dim=axes)
        assert torch.allclose(each.values, network.weights[k].detach() * mean, atol=1e-12)
        assert torch.allclose(each.values.sum(dim=1), each.full - each.none, atol=1e-12)
        assert each.target["within"] == "prediction"
        assert torch.allclose(each.shares.sum(dim=1), torch.ones(3).double())


@pytest.mark.parametrize(("task", "dims"), list(itertools.product(TASKS, (2, 3))))
def test_captums_shapley_values(task: str, dims: int) -> None:
    captum = pytest.importorskip("captum.attr")
    network, x = make(task, dims).eval().double(), image(dims).double()
    other = 0.3 * image(dims, seed=8).double()
    channels = torch.arange(4).reshape(1, -1, *[1] * dims).expand_as(x[:1]).contiguous()
    theirs = captum.ShapleyValues(Pooled(network)).attribute(
        x, baselines=other, target=2, feature_mask=channels
    )
    before, place = snapshot(network), None if task == "classifier" else "image"
    found = nx.modality_shapley(network, x, 2, remover=other, within=place)["2"]
    expected = theirs.flatten(2)[:, :, 0].double()
    assert torch.allclose(found.values, expected, atol=1e-9)
    assert snapshot(network) == before


def test_all_targets_share_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = make("segmenter", 3), image(3)
    calls = []
    network.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    found = nx.modality_shapley(network, x, [0, 1, 2, 3])
    # One pass at the input, one with a companion to see whether samples are independent.
    assert sum(calls) <= len(x) * (2**4 + 2)
    monkeypatch.setattr("neuroxai.core.probe.probe.BATCH_VOXELS", 1)
    alone = nx.modality_shapley(network, x, [2])
    assert torch.allclose(alone["2"].values, found["2"].values, atol=1e-6)


def test_removers_and_values_by_name() -> None:
    outputs = nx.Outputs(tuple("abcde"), {"T": ("c", "d")}, "softmax")
    network, x = make("segmenter", 2), image(2)
    by_name = {
        name: nx.modality_shapley(network, x, "T", remover=name, outputs=outputs)["T"]
        for name in ("healthy", "zero", "blur", "neighbors")
    }
    assert by_name["zero"].remover == "zero"
    given = nx.modality_shapley(network, x, "T", remover=torch.zeros_like(x), outputs=outputs)
    assert torch.equal(given["T"].values, by_name["zero"].values)
    values = [tuple(each.values.flatten().tolist()) for each in by_name.values()]
    assert len(set(values)) == 4
    volume = nx.modality_shapley(network, x, "T", value="volume", outputs=outputs)["T"]
    inside = network.eval()(x).softmax(dim=1)[:, 2:4].sum(dim=(1, 2, 3)).double()
    assert torch.allclose(volume.full, inside, rtol=1e-5)
    with pytest.raises(MethodError, match="did you mean 'healthy'"):
        nx.modality_shapley(network, x, "T", remover="healty", outputs=outputs)
    with pytest.raises(MethodError, match="'volume' is of a region of a segmenter"):
        nx.modality_shapley(make("classifier"), x, 2, value="volume")


def test_too_many_modalities_and_cancellation() -> None:
    network = nn.Conv2d(9, 2, 1)
    with pytest.raises(MethodError, match=r"9 modalities take 2\^9 passes"):
        nx.modality_shapley(network, torch.rand(1, 9, 4, 5), 0)
    with pytest.raises(CancelledError):
        nx.open(make("classifier"), image(), cancel=lambda: True).modality_shapley(2)


def test_a_case_by_the_names_of_its_modalities(tmp_path: Path) -> None:
    model, case = load_model("deepseg-phantom"), nx.make_phantom(7, spacing=3.0).case
    with nx.open(model, case) as session:
        found = session.modality_shapley(["ET", "WT"])
        x, outputs, prediction = session.x, session.outputs, session.prediction
    each = found["ET"]
    assert each.modalities == ("T1", "T1ce", "T2", "FLAIR")
    assert each.remover == "healthy"
    assert torch.allclose(each.values.sum(dim=1), each.full - each.none, atol=1e-9)
    # By hand: without FLAIR and T1, with the mean of the brain outside of the predicted tumor.
    assert prediction.labels is not None
    with torch.no_grad():
        model.network.eval()
        own = model.network(x).argmax(dim=1)
        tumor = torch.isin(own, torch.tensor([1, 2, 3]))
        brain = foreground(x)[0, 0]
        perturbed = x.clone()
        for channel in (0, 3):
            perturbed[0, channel][brain] = x[0, channel][brain & ~tumor[0]].mean()
        logits = model.network(perturbed)
        channel = outputs.names.index("ET")
        expected = float(logits[0, channel][own[0] == channel].mean())
    assert float(each.coalitions[0, 0b0110]) == pytest.approx(expected, rel=1e-4)
    assert json.loads(json.dumps(each.describe()))["values"] == each.values.tolist()
    table = list(rows(each))
    assert [row["modality"] for row in table] == list(each.modalities)
    total = sum(row["shapley_value"] for row in table)
    assert np.isclose(total, table[0]["all"] - table[0]["none"])
