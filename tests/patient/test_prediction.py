"""Predictions for a case: regions, Dice, volumes, lesions, file names."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_dice
from numpy.typing import NDArray

from neuroxai.accuracy.segmentation import dice
from neuroxai.core.errors import ModelError, TargetError
from neuroxai.core.target.lesion import Lesion
from neuroxai.core.target.outputs import Outputs
from neuroxai.data.case import Case, region
from neuroxai.data.layouts import LAYOUTS
from neuroxai.data.placement import Placement
from neuroxai.files.names import slug
from neuroxai.models.channel_names import regions_of
from neuroxai.patient.lesions import label_components
from neuroxai.patient.prediction import read_output

NAMES = ("background", "NCR", "ED", "ET")


def _case(layout: str, truth: NDArray[np.uint8] | None = None) -> Case:
    shape = (4, 6, 5) if truth is None else truth.shape
    return Case("a", {"T1": np.ones(shape, np.float32)}, np.diag([-2.0, -1, 3, 1]),
                LAYOUTS[layout], truth)  # fmt: skip


@given(seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_dice_equals_monais(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.random((5, 4, 6)) < 0.4 for _ in range(2))
    theirs = compute_dice(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None])
    assert dice(a, b) == pytest.approx(float(theirs), abs=1e-6)


def test_dice_of_two_empty_masks_is_one() -> None:
    nothing = np.zeros((2, 3), bool)
    assert dice(nothing, nothing) == 1
    assert dice(nothing, ~nothing) == 0


def test_regions_nest() -> None:
    labels = np.arange(5, dtype=np.uint8)
    assert region(labels, "WT").tolist() == [False, True, True, True, False]
    assert region(labels, "ET").tolist() == [False, False, False, True, False]


def test_a_segmenters_output_has_the_right_place_and_volume() -> None:
    truth = np.zeros((4, 6, 5), np.uint8)
    truth[0, 1:3, 2] = 3
    case = _case("brats2021", truth)
    placement = Placement.fit(case.shape, case.affine)
    output = torch.zeros(1, 4, 4, 6, 5)
    output[:, 0] = 1
    # Voxel (0, 1, 2) of the file lies at RAS index (3, 4, 2): X and Y are flipped.
    output[0, 3, 3, 4, 2] = 5
    found = read_output(output, Outputs(NAMES, {}, "softmax"), case, placement)
    assert found.labels is not None
    assert np.argwhere(found.labels).tolist() == [[0, 1, 2]]
    assert found.labels[0, 1, 2] == 3
    assert found.volumes_ml() == pytest.approx({"WT": 0.006, "TC": 0.006, "ET": 0.006})
    assert found.dice()["ET"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("cavity", ["RC", None])
def test_overlapping_regions_are_combined_from_the_outside_in(cavity: str | None) -> None:
    """The largest logit would be that of the outer region, and the inner ones would be lost."""
    case = _case("brats2024", np.zeros((4, 6, 5), np.uint8))
    placement = Placement.fit(case.shape, np.diag([1.0, 1, 1, 1]))
    names = ("WT", "TC", "ET", *([cavity] if cavity else []))
    output = torch.full((1, len(names), 4, 6, 5), -5.0)
    for channel, (most, strength) in enumerate(((6, 5.0), (4, 4.5), (2, 4.0))):
        output[0, channel, 1, :most, 2] = strength
    if cavity:
        output[0, 3, 1, 0, 2] = 3.0
    found = read_output(output, Outputs(names, {}, "sigmoid"), case, placement)
    assert found.labels is not None
    expected = [3, 3, 1, 1, 2, 2]
    expected[0] = 4 if cavity else 3
    assert found.labels[1, :, 2].tolist() == expected
    assert found.warnings == ()


def test_other_overlapping_classes_cause_a_warning(tmp_path: Path) -> None:
    case = _case("plain")
    placement = Placement.fit(case.shape, case.affine)
    output = torch.ones(1, 2, 4, 6, 5)
    outputs = Outputs(("lesion", "core"), {}, "sigmoid")
    assert "classes overlap" in read_output(output, outputs, case, placement).warnings[0]


def test_the_channel_order_is_the_networks_own() -> None:
    case = _case("brats2023")
    placement = Placement.fit(case.shape, case.affine)
    output = torch.zeros(1, 3, 4, 6, 5)
    output[:, 0] = 1
    found = read_output(output, Outputs(("ET", "background", "ED"), {}, "softmax"), case, placement)
    assert found.labels is not None
    assert set(found.labels.ravel().tolist()) == {3}
    own = read_output(output, Outputs(("liver", "background", "ED"), {}), case, placement)
    assert own.classes == ("background", "liver", "ED")
    assert own.labels is not None
    assert set(own.labels.ravel().tolist()) == {1}


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("background", "edema", "non-enhancing tumor", "enhancing tumour"), (0, 2, 1, 3)),
        (("Background", "Necrosis", "Peritumoral Oedema", "GD-enhancing tumor"), (0, 1, 2, 3)),
        (("background", "necrosis", "non-enhancing tumour core", "SNFH", "ET"), (0, 1, 1, 2, 3)),
    ],
)
def test_class_names_of_other_projects_are_those_of_brats(
    names: tuple[str, ...], labels: tuple[int, ...]
) -> None:
    """Each channel wins in one layer of voxels; the labels and the Dice are written by hand."""
    truth = np.zeros((len(names), 6, 4), np.uint8)
    truth[:] = np.array(labels)[:, None, None]
    case = _case("brats2021", truth)
    placement = Placement.fit(case.shape, case.affine)
    winner = np.arange(len(names), dtype=np.uint8).repeat(24).reshape(truth.shape)
    channel = placement.to_network(winner)
    output = torch.nn.functional.one_hot(torch.from_numpy(channel).long(), len(names))
    outputs = Outputs(names, regions_of(names, "softmax"), "softmax")
    found = read_output(output.movedim(-1, 0)[None].float(), outputs, case, placement)
    assert found.of_tumors
    np.testing.assert_array_equal(found.labels, truth)
    assert found.dice() == {"WT": 1.0, "TC": 1.0, "ET": 1.0}
    tumor = {names[i] for i, label in enumerate(labels) if label in (1, 3)}
    assert {*outputs.regions["TC"]} == tumor


def test_overlapping_regions_by_their_full_names() -> None:
    """Whole tumor everywhere, its core nowhere: edema everywhere."""
    case = _case("brats2023")
    placement = Placement.fit(case.shape, case.affine)
    output = torch.full((1, 3, 4, 6, 5), -1.0)
    output[:, 2] = 1
    names = ("enhancing tumour", "Tumor Core", "whole tumor")
    found = read_output(output, Outputs(names, activation="sigmoid"), case, placement)
    assert found.of_tumors
    assert found.labels is not None
    assert set(found.labels.ravel().tolist()) == {2}
    assert list(found.regions) == ["WT", "TC", "ET"]


def _flood(mask: NDArray[np.bool_]) -> list[set[tuple[int, ...]]]:
    """Return the components by a flood fill with 26 neighbors."""
    left = {tuple(int(i) for i in index) for index in np.argwhere(mask)}
    found = []
    while left:
        front = [left.pop()]
        component = set(front)
        while front:
            voxel = front.pop()
            near = {n for n in left if max(abs(a - b) for a, b in zip(n, voxel, strict=True)) <= 1}
            left -= near
            component |= near
            front += near
        found.append(component)
    return sorted(found, key=len, reverse=True)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_lesions_equal_a_flood_fill(seed: int) -> None:
    mask = np.random.default_rng(seed).random((5, 4, 6)) < 0.12
    components = _flood(mask)
    predicted = torch.from_numpy(mask)[None]
    for rank, component in enumerate(components, start=1):
        found = Lesion(label_components, rank).mask(predicted, mask.shape)[0]
        assert int(found.sum()) == len(component)
    with pytest.raises(TargetError, match="does not exist"):
        Lesion(label_components, len(components) + 1).mask(predicted, mask.shape)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a b", "x\x00y", "..", "", "Größe-3"])
def test_slugs_stay_in_their_folder(name: str) -> None:
    made = slug(name)
    assert made
    assert not set(made) & set("/\\\x00 .")


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_other_classes_keep_their_names_and_numbers(activation: str, tmp_path: Path) -> None:
    truth = np.zeros((4, 6, 5), np.uint8)
    truth[0] = 3
    case = _case("brats2018", truth)
    placement = Placement.fit(case.shape, case.affine)
    names = ("background", "lesion", "vessel") if activation == "softmax" else ("lesion", "vessel")
    output = torch.full((1, len(names), 4, 6, 5), -1.0)
    output[0, names.index("vessel"), 3, 4, 2] = 2
    output[0, names.index("lesion"), 0, 0, 0] = 1
    if activation == "softmax":
        output[:, 0] = 0
    else:
        output[0, names.index("lesion"), 3, 4, 2] = 1  # both; the stronger one counts
    outputs = Outputs(names, {}, activation)  # type: ignore[arg-type]
    prediction = read_output(output, outputs, case, placement)
    assert prediction.classes == ("background", "lesion", "vessel")
    assert prediction.volumes_ml() == pytest.approx({"lesion": 0.006, "vessel": 0.006})
    assert prediction.dice() == {}
    assert prediction.describe()["labels"] == {"background": 0, "lesion": 1, "vessel": 2}
    written = prediction.save(tmp_path)
    assert written is not None
    image = nib.load(written)
    kept = np.asarray(image.dataobj)
    assert kept[0, 1, 2] == 2
    assert kept[3, 5, 0] == 1
    assert np.count_nonzero(kept) == 2
    assert b"the network's own" in image.header["descrip"].item()


def test_too_many_classes_for_a_label_file_raise_an_error() -> None:
    case = _case("brats2018")
    names = ("background", *(f"part {i}" for i in range(300)))
    output = torch.zeros(1, len(names), *case.shape)
    with pytest.raises(ModelError, match="301 classes"):
        read_output(
            output, Outputs(names, {}, "softmax"), case, Placement.fit(case.shape, case.affine)
        )


@pytest.mark.parametrize(
    ("names", "regions", "activation", "members"),
    [
        (("background", "tumor"), {"WT": ("tumor",)}, "softmax", {"WT": (1,)}),
        (("lesion", "Background"), {"whole tumor": ("lesion",)}, "softmax", {"WT": (0,)}),
        (("tumor",), {"WT": ("tumor",)}, "sigmoid", {"WT": (0,)}),
        (("background", "core", "rest"), {"WT": ("core", "rest"), "TC": ("core",)}, "softmax",
         {"WT": (1, 2), "TC": (1,)}),
        (("lesion", "core", "bright"), {"WT": ("lesion", "core"), "ET": ("bright",)}, "sigmoid",
         {"WT": (0, 1), "ET": (2,)}),
        (("lesion", "whole tumour", "enhancing_tumour"), {}, "sigmoid", {"WT": (1,), "ET": (2,)}),
        (("background", "whole tumor"), None, "softmax", {"WT": (1,)}),
        (("background", "ED", "ET"), {"WT": ("ED", "ET")}, "softmax", {"WT": (1, 2), "ET": (2,)}),
        (("background", "edema", "non-enhancing tumor", "enhancing tumour"), None, "softmax",
         {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}),
    ],
)  # fmt: skip
def test_declared_regions_are_measured(
    names: tuple[str, ...], regions: dict[str, tuple[str, ...]] | None, activation: str,
    members: dict[str, tuple[int, ...]],
) -> None:  # fmt: skip
    """The oracle takes channels of the output, and knows no names."""
    generator = torch.Generator().manual_seed(len(names))
    output = torch.randn(1, len(names), 4, 6, 5, generator=generator)
    truth = torch.randint(0, 4, (4, 6, 5), generator=generator).numpy().astype(np.uint8)
    case = _case("brats2023", truth)
    placement = Placement.fit(case.shape, case.affine)
    declared = regions_of(names, activation) if regions is None else regions
    outputs = Outputs(names, declared, activation)  # type: ignore[arg-type]
    found = read_output(output, outputs, case, placement)
    labels = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
    assert list(found.regions) == list(members)
    flipped = output[0].flip(1, 2)  # the file is stored as LAS with Y from front to back
    for name, channels in members.items():
        if activation == "softmax":
            mask = torch.isin(flipped.argmax(0), torch.tensor(channels))
        else:
            mask = (flipped[list(channels)] > 0).any(0)
        true = torch.from_numpy(np.isin(truth, labels[name]))
        expected = float(compute_dice(mask[None, None], true[None, None]))
        assert found.dice()[name] == pytest.approx(expected, abs=1e-6)
        assert found.volumes_ml()[name] == pytest.approx(float(mask.sum()) * 0.006)
        assert np.array_equal(found.mask(name), mask.numpy())
    with pytest.raises(TargetError, match="does not predict 'RC'"):
        found.mask("RC")
