"""Targets and restrictions from names, numbers and masks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import neuroxai as nx
from cases import orientations, volumes
from neuroxai.core.errors import TargetError
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.restriction import Image, Mask
from neuroxai.core.target.target import Class, Predicted, Region, Target
from neuroxai.data.case import CLASSES, REGIONS
from neuroxai.data.preparation import Prepared
from neuroxai.data.preprocessing import Preprocessing
from neuroxai.workflows.question import as_target, place_notes, restrict_targets

BRATS = Outputs(CLASSES, REGIONS, "softmax")
OVERLAPPING = Outputs(("TC", "wt", "ET"), activation="sigmoid")


@pytest.mark.parametrize(
    "number", [2, np.int64(2), np.uint8(2), torch.tensor(2), np.argmax([0.1, 0.2, 0.7])]
)
def test_a_number_of_any_library_is_a_class(number: Any) -> None:
    assert as_target(number, BRATS) == Class(2)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU())
    x = torch.rand(1, 1, 6, 7)
    asked = nx.explain(network, x, "vanilla_gradient", number)["vanilla_gradient"]
    named = nx.explain(network, x, "vanilla_gradient", 2)["vanilla_gradient"]
    assert asked.target == named.target
    assert torch.equal(asked.values, named.values)


def test_only_none_is_the_default_target() -> None:
    assert as_target(None, BRATS) == Region("WT")
    assert as_target(None, Outputs()) == Predicted()
    assert as_target(np.array([1, 2]), BRATS) == Class((1, 2))
    for other in (2.0, [1], np.array([[1, 2]]), torch.tensor([1.0, 2.0]), np.float32(1)):
        with pytest.raises(TargetError, match="expected the number or name of a class"):
            as_target(other, BRATS)  # type: ignore[arg-type]


@pytest.fixture(name="prepared")
def _prepared(study: nx.Case) -> Prepared:
    recipe = Preprocessing(
        modalities=("T1", "T1ce", "T2", "FLAIR"),
        voxel_mm=(2.0, 2.0, 3.0),
        resampling="nnunet",
        crop_to_brain=True,
        divisor=4,
    )
    return recipe.prepare(study)


def found_mask(mask: Any, study: nx.Case, prepared: Prepared) -> torch.Tensor:
    (target,) = restrict_targets([Region("WT")], mask, BRATS, study, prepared)
    assert isinstance(target.within, Mask)
    return target.within.values


def test_a_mask_of_any_type_marks_the_same_voxels(study: nx.Case, prepared: Prepared) -> None:
    """Floats are resampled with overshoot; a mask of zeros and ones must be resampled as labels."""
    marked = volumes()[1] > 0
    expected = found_mask(marked, study, prepared)
    assert 0 < int(expected.sum()) < expected.numel() / 4
    for mask in (
        marked.astype(np.uint8), marked.astype(np.float64), marked.astype(">u2"),
        marked.astype(">f4"), torch.from_numpy(marked), torch.from_numpy(marked).float(),
    ):  # fmt: skip
        assert torch.equal(found_mask(mask, study, prepared), expected)


def test_weights_are_resampled_as_numbers(study: nx.Case, prepared: Prepared) -> None:
    """A constant stays constant, and a scan of weights stays one within its range."""
    shape = study.truth.shape if study.truth is not None else ()
    inside = found_mask(np.ones(shape, dtype=np.float32), study, prepared) > 0
    half = found_mask(np.full(shape, 0.5), study, prepared)
    assert torch.allclose(half[inside], torch.tensor(0.5), atol=1e-6)
    steps = np.random.default_rng(0).choice([0.0, 0.25, 1.0], shape)
    weights = found_mask(steps, study, prepared)
    assert weights.is_floating_point()
    assert float(weights.min()) >= 0
    assert float(weights.max()) <= 1
    assert len(weights.unique()) > 10  # not the nearest voxel's


def test_label_files_and_nan_are_not_masks(study: nx.Case, prepared: Prepared) -> None:
    labels = volumes()[1]
    for given in (labels, labels.astype(np.float64), torch.from_numpy(labels.astype(np.int16))):
        with pytest.raises(TargetError, match=r"has the values 0, .* use mask == \d, for all"):
            found_mask(given, study, prepared)
    with pytest.raises(TargetError, match="NaN or infinite values, expected weights"):
        found_mask(np.where(labels > 0, 1.0, np.nan), study, prepared)


@pytest.mark.parametrize("soft", [False, True])
def test_the_file_of_a_mask_is_read_in_any_orientation(
    tmp_path: Path, study: nx.Case, prepared: Prepared, soft: bool
) -> None:
    """The oracle is the array itself, written and turned by nibabel."""
    inside = volumes()[1] > 0
    marked: NDArray[Any] = inside.astype(np.float32 if soft else np.uint8)
    if soft:
        marked[inside] = np.linspace(0.1, 1.0, int(inside.sum()))
    expected = found_mask(marked, study, prepared)
    for number, turn in enumerate(list(orientations())[::11]):
        path = tmp_path / f"mask {number}.nii.gz"
        nib.save(nib.Nifti1Image(marked, study.affine).as_reoriented(turn), path)
        for within in (path, str(path)):
            assert torch.equal(found_mask(within, study, prepared), expected)
    (target,) = restrict_targets([Region("WT")], path, BRATS, study, prepared)
    assert isinstance(target.within, Mask)
    assert target.within.name == path.name
    assert target.within.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_files_that_are_not_masks_of_the_scan(
    tmp_path: Path, study: nx.Case, prepared: Prepared
) -> None:
    labels, affine = volumes()[1], np.array(study.affine)
    shifted = affine + np.pad([[3.0]], ((0, 3), (3, 0)))
    written = {
        "labels": nib.Nifti1Image(labels, affine),
        "shifted": nib.Nifti1Image((labels > 0).astype(np.uint8), shifted),
        "cropped": nib.Nifti1Image((labels > 0).astype(np.uint8)[:-1], affine),
        "negative": nib.Nifti1Image(-0.5 * (labels > 0).astype(np.float32), affine),
    }
    for name, image in written.items():
        nib.save(image, tmp_path / f"{name}.nii.gz")
    for name, message in {
        "labels": r"labels.nii.gz: is a label file with the values 0, 1, 2, 4, .* own file, for "
        r"example mask.nii.gz with labels == 4",
        "shifted": "shifted.nii.gz", "cropped": "cropped.nii.gz",
        "negative": "'negative.nii.gz' has values from -0.5 to -?0, expected weights",
        "missing": "missing.nii.gz: no such file, expected a mask on the grid",
    }.items():  # fmt: skip
        with pytest.raises(nx.NeuroXAIError, match=message):
            found_mask(tmp_path / f"{name}.nii.gz", study, prepared)
    with pytest.raises(TargetError, match=r"is the file of a mask .* but the input is a tensor"):
        restrict_targets([Class(1)], str(tmp_path / "labels.nii.gz"), BRATS)


def test_truth_of_a_network_whose_classes_are_regions(study: nx.Case) -> None:
    prepared = Preprocessing(modalities=("T1",), divisor=1).prepare(study)

    def found(outputs: Outputs, target: Target) -> torch.Tensor:
        within = restrict_targets([target], "truth", outputs, study, prepared)[0].within
        assert isinstance(within, Mask)
        return within.values

    for name, channel in (("TC", 0), ("WT", 1), ("ET", 2)):
        region = found(BRATS, Region(name))
        assert bool(region.any())
        assert torch.equal(found(OVERLAPPING, Class(channel)), region)
    assert torch.equal(found(OVERLAPPING, Region([0, 2])), found(BRATS, Region("TC")))
    binary = Outputs(("background", "tumor"), {"WT": ("tumor",)}, "softmax")
    for target in (Class("tumor"), Region("WT")):
        assert torch.equal(found(binary, target), found(BRATS, Region("WT")))
    core = Outputs(("background", "core", "rest"), {"TC": ("core",), "WT": ("core", "rest")})
    assert torch.equal(found(core, Class("core")), found(BRATS, Region("TC")))
    assert torch.equal(found(core, Region("WT")), found(BRATS, Region("WT")))
    decathlon = Outputs(("background", "edema", "non-enhancing tumor", "enhancing tumour"))
    for channel, name in ((1, "ED"), (2, "NCR"), (3, "ET")):
        assert torch.equal(found(decathlon, Class(channel)), found(BRATS, Class(name)))
    with pytest.raises(TargetError, match=r"label files have .* but not 'lesion'"):
        found(Outputs(("background", "lesion"), activation="softmax"), Class(1))


def test_a_note_says_that_a_target_is_predicted_nowhere() -> None:
    output = torch.zeros(1, len(CLASSES), 5, 6)
    output[:, 0] = 1
    said = place_notes(Region("ET", within=Image()), BRATS, output)
    assert said == (
        "target ET: the network predicts no ET in this image; its maps show evidence for and "
        "against it, not a location",
    )
    output[0, 3, 2, 4] = 2
    (said_of_image,) = place_notes(Region("ET", within=Image()), BRATS, output)
    assert "of which 3.3% is predicted to be ET" in said_of_image
    assert place_notes(Region("ET"), BRATS, output) == ()
    assert place_notes(Class("background", within=Image()), BRATS, output) == ()
    one_channel = torch.full((1, 1, 5, 6), 0.5)  # a logit or a probability: nobody can tell
    assert place_notes(Class(0, within=Image()), Outputs(), one_channel) == ()
