"""Filters: activation maps, importance, ranking, figures and files."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from nibabel.affines import apply_affine
from torch import nn

import cases
import networks
import neuroxai as nx
from neuroxai.core.errors import LayerError, TargetError
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.restriction import Mask
from neuroxai.core.target.target import Class
from neuroxai.files.folder import Results
from neuroxai.inspection import filters
from neuroxai.models.loading import load_model
from neuroxai.render.contact_sheet import FilterPicture, draw_filters
from neuroxai.reports.inspect import InspectionReport
from neuroxai.workflows.inspect import inspect


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("task", networks.TASKS)
def test_maps_and_importance_equal_their_definition(task: str, dims: int) -> None:
    network = networks.make(task, dims).eval()
    x = torch.rand(networks.BATCH, 4, *networks.SHAPES[dims])
    name = "second_act" if task == "classifier" else "join_act"
    (found,) = filters(network, x, [Class(2), Class(0)], [name])
    kept: list[torch.Tensor] = []
    handle = network.get_submodule(name).register_forward_hook(lambda m, i, o: kept.append(o))
    output = networks.Pooled(network)(x)
    handle.remove()
    torch.testing.assert_close(found.activations, kept[0].detach())
    for channel in (2, 0):
        (gradient,) = torch.autograd.grad(output[:, channel].sum(), kept[0], retain_graph=True)
        expected = (gradient * kept[0]).flatten(2).sum(2).detach()
        torch.testing.assert_close(found.importance[str(channel)], expected)
        size = expected[1].abs()
        order = found.ranked(str(channel), sample=1)
        assert all(size[a] >= size[b] for a, b in itertools.pairwise(order))
        assert sorted(order) == list(range(len(size)))


def test_importance_before_linear_layers_is_the_exact_contribution() -> None:
    """Activation × gradient is exact if the rest of the network is linear."""
    network = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 3, 3, bias=False)
    )
    x = torch.rand(2, 2, 7, 9)
    (found,) = filters(network, x, [Class(1)], ["1"])
    whole = network(x)[:, 1].mean(dim=(1, 2))
    torch.testing.assert_close(found.importance["1"].sum(1), whole.detach())
    for k in range(5):
        without = found.activations.clone()
        without[:, k] = 0
        rest = network[2](without)[:, 1].mean(dim=(1, 2))
        torch.testing.assert_close(found.importance["1"][:, k], (whole - rest).detach())


def test_targets_with_equal_names_have_different_labels() -> None:
    network = networks.make("segmenter").eval()
    x = torch.rand(2, 4, *networks.SHAPES[2])
    outputs = Outputs(activation="softmax")
    half = torch.zeros(networks.SHAPES[2], dtype=torch.bool)
    half[:5] = True
    asked = [
        Class(1), Class(1, scale="probability"), Class(1, within=Mask(half, "half")),
        Class(2), Class(2),
    ]  # fmt: skip
    (found,) = filters(network, x, asked, ["join"], outputs)
    assert list(found.importance) == [
        "1 (logit, image)", "1 (probability, image)", "1 (logit, half)", "2",
    ]  # fmt: skip
    for target, word in zip(asked, found.importance, strict=False):
        (alone,) = filters(network, x, [target], ["join"], outputs)
        torch.testing.assert_close(alone.importance[target.name], found.importance[word])
    twice = [Class(1, within=Mask(mask, "half")) for mask in (half, ~half)]
    with pytest.raises(TargetError, match=r"have the label '1'; request them separately"):
        filters(network, x, twice, ["join"], outputs)


def test_layers_by_number_name_and_call() -> None:
    network = networks.make("segmenter", 3).eval()
    x = torch.rand(2, 4, *networks.SHAPES[3])
    found = filters(network, x, [Class(1)], ["L3", "down_act", "enter"])
    assert [each.layer.name for each in found] == ["join", "down_act", "enter"]
    shared = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    twice = nn.Sequential(shared, nn.ReLU(inplace=True), shared, nn.Conv2d(1, 2, 1))
    both_signs = torch.cat([torch.eye(5, 7), -torch.eye(5, 7)])[None, None]
    second = filters(twice, both_signs, [Class(1)], ["0#2", "0"])
    assert [each.layer.name for each in second] == ["0#2", "0"]
    assert not torch.equal(second[0].activations, second[1].activations)
    assert float(second[1].activations.min()) < 0  # before the in-place rectifier


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("L9", "L1 to L4"),
        ("inner.jion", "did you mean 'inner.join'"),
        ("head", "does not exist"),
        ("unused", "did not run"),
        ("flat", "has no map"),
    ],
)
def test_invalid_layers_raise_errors(layer: str, words: str) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = networks.make("segmenter")
            self.unused = nn.Conv2d(1, 1, 1)
            self.flat = nn.Flatten()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.inner(x)
            zero: torch.Tensor = self.flat(out).sum() * 0.0
            return out + zero

    with pytest.raises(LayerError, match=words):
        filters(Odd(), torch.rand(1, 4, 10, 14), [Class(1)], [layer])


def test_contact_sheets_are_paged_and_reproducible(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shown = [FilterPicture(k, rng.normal(size=(7, 9)), 1 / (k + 1)) for k in range(100)]
    shown[3] = FilterPicture(3, np.zeros((7, 9)), 0.0)
    shown[4] = FilterPicture(4, np.full((7, 9), np.nan), 0.0)
    pages = draw_filters(shown, tmp_path / "sheet", title="case", pixel=(2.0, 3.0))
    assert [page.name for page in pages] == [f"sheet_page-{n}.png" for n in (1, 2, 3)]
    again = draw_filters(shown, tmp_path / "again", title="case", pixel=(2.0, 3.0))
    assert [page.read_bytes() for page in pages] == [page.read_bytes() for page in again]


def test_the_left_of_the_patient_is_drawn_on_the_right(tmp_path: Path) -> None:
    picture = np.zeros((12, 12))
    picture[1:3, 2:4] = 1.0  # left and back
    (page,) = draw_filters(
        [FilterPicture(0, picture, 1.0)], tmp_path / "one", title="case", pixel=(1.0, 1.0)
    )
    pixels = imread(page)[..., :3]
    panel = pixels[80 : 80 + 150, 30:205]
    bright = (np.abs(panel - np.array([0xFF, 0xC0, 0x40]) / 255) < 0.02).all(axis=-1)
    rows, columns = np.nonzero(bright)
    assert len(rows) > 100
    assert columns.mean() > panel.shape[1] / 2
    assert rows.mean() > panel.shape[0] / 2


def test_the_contribution_of_a_filter_is_red_or_blue(tmp_path: Path) -> None:
    """Activations are yellow and violet; only the numbers are evidence for or against."""
    color = {0.5: (255, 59, 48), -0.5: (46, 134, 255)}
    for importance, ink in color.items():
        shown = [FilterPicture(0, np.linspace(-1, 1, 30).reshape(5, 6), importance)]
        stem = tmp_path / f"sheet{importance}"
        (page,) = draw_filters(shown, stem, title="case", pixel=(1.0, 1.0))
        pixels = np.round(imread(page)[..., :3] * 255)
        for other in color.values():
            found = (np.abs(pixels - other) < 20).all(axis=-1).sum()
            assert (found > 5) == (other == ink)


def test_filter_files_have_the_affine_of_their_layer(tmp_path: Path) -> None:
    """Cell centers of a pooled layer are the mean position of their voxels."""
    study = nx.read_case(cases.write_study(tmp_path))
    model = load_model(cases.segmenter(tmp_path, filters=8))
    seen = inspect(model, study, ["ET"], filters_of=["encoder.0.pool", "L1"])
    report = InspectionReport(seen, Results(tmp_path / "out"))
    for found in seen.filters:
        report.write_filters(found, nifti=True)
    report.finish(seconds=1.0)
    stem = tmp_path / "out" / "sub-BraTS2021+00007"
    pooled = nib.load(f"{stem}_desc-filtersEncoder0Pool_statmap.nii.gz")
    first = nib.load(f"{stem}_desc-filtersEncoder0Conv1_statmap.nii.gz")
    assert pooled.shape[3] == first.shape[3] == 8
    assert all(2 * a == b for a, b in zip(pooled.shape[:3], first.shape[:3], strict=True))
    sidecar = json.loads(
        Path(f"{stem}_desc-filtersEncoder0Pool_statmap.json").read_text(encoding="utf-8")
    )
    assert len(sidecar["importance"]["ET"]) == 8
    # The first layer has one cell per voxel, the pooled one a cell per eight voxels.
    point = np.array([3.0, 4.0, 5.0])
    eight = np.array([[6.0 + a, 8 + b, 10 + c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    np.testing.assert_allclose(
        apply_affine(pooled.affine, point), apply_affine(first.affine, eight).mean(0), atol=1e-4
    )
    placement = seen.prepared.placement
    np.testing.assert_allclose(first.affine, placement.network_affine, atol=1e-5)
    for layer, pages in report.sheets.items():
        assert all(page.is_file() for page in pages), layer
