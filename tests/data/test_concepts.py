"""Concept masks against their definitions, and tissues of a cohort on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from neuroxai.core.errors import CaseError
from neuroxai.data.brats import read_case
from neuroxai.data.case import CLASSES, Case
from neuroxai.data.concepts import boundary, concept_masks
from neuroxai.data.layouts import LAYOUTS
from neuroxai.data.phantom import write_cohort
from neuroxai.data.tissues import phantom_tissues
from session_cache import phantom

SPACING = (1.0, 2.0, 3.0)


def case(truth: np.ndarray | None = None) -> Case:
    rng = np.random.default_rng(0)
    image = rng.uniform(1, 9, (12, 10, 8)).astype(np.float32)
    image[:2] = 0
    return Case("a", {"T1": image}, np.diag([-1.0, -2, 3, 1]), LAYOUTS["brats2021"], truth)


def test_masks_by_definition() -> None:
    truth = np.zeros((12, 10, 8), np.uint8)
    truth[4:8, 3:6, 2:5] = 2
    truth[5:7, 4, 3] = 3
    truth[5, 5, 3] = 1
    tissues = np.random.default_rng(1).integers(0, 4, truth.shape)
    masks = concept_masks(
        case(truth), tissues=tissues, user_masks={"left": np.eye(12, 10)[..., None] * np.ones(8)}
    )
    assert list(masks) == [
        "brain", "CSF", "GM", "WM", "WT", "TC", "ET", "NCR", "ED", "boundary", "left",
    ]  # fmt: skip
    np.testing.assert_array_equal(masks["WT"], truth > 0)
    np.testing.assert_array_equal(masks["TC"], (truth == 1) | (truth == 3))
    np.testing.assert_array_equal(masks["ED"], truth == 2)
    assert not masks["brain"][:2].any()
    assert masks["brain"][2:].all()
    for number, name in enumerate(("CSF", "GM", "WM"), start=1):
        expected = (tissues == number) & (truth == 0)
        expected[:2] = False
        np.testing.assert_array_equal(masks[name], expected)
    assert masks["left"].sum() == 10 * 8


def test_without_truth_there_is_no_tumor() -> None:
    assert list(concept_masks(case())) == ["brain"]


def test_a_cavity_is_a_concept_if_it_occurs() -> None:
    truth = np.zeros((12, 10, 8), np.uint8)
    truth[4:8, 3:6, 2:5] = CLASSES.index("RC")
    assert "RC" in concept_masks(case(truth))


def test_a_cavity_is_a_concept_of_all_cases_of_its_layout() -> None:
    truth = np.zeros((12, 10, 8), np.uint8)
    truth[4:8, 3:6, 2:5] = CLASSES.index("ET")
    without = concept_masks(replace(case(truth), layout=LAYOUTS["brats2024"]))
    assert not without["RC"].any()
    truth[4, 3, 2] = CLASSES.index("RC")
    having = concept_masks(replace(case(truth), layout=LAYOUTS["brats2024"]))
    assert list(having) == list(without)
    assert "RC" not in concept_masks(replace(case(truth * 0), layout=LAYOUTS["brats2023"]))


def test_a_cavity_is_not_part_of_a_tissue_in_any_layout(tmp_path: Path) -> None:
    """The cavity is filled with fluid; white matter there would look like CSF."""
    made = phantom(1, wide=True)
    assert made.cavity.sum() > 500
    seen: list[dict[str, np.ndarray]] = []
    for layout in ("brats2021", "brats2024"):
        (folder,) = write_cohort(tmp_path / layout, [1], spacing=3.0, layout=layout, wide=True)
        study = read_case(folder)
        seen.append(concept_masks(study, tissues=phantom_tissues(study)))
    for name in ("CSF", "GM", "WM"):
        assert not (seen[0][name] & made.cavity).any()
        np.testing.assert_array_equal(seen[0][name], seen[1][name])


def test_the_boundary_of_a_tumor_excludes_its_cavity() -> None:
    truth = np.zeros((12, 10, 8), np.uint8)
    truth[4:8, 3:6, 2:5] = CLASSES.index("RC")
    masks = concept_masks(case(truth))
    assert not masks["WT"].any()
    assert not masks["boundary"].any()


@pytest.mark.parametrize("spacing", [SPACING, (1.0, 1.0, 3.0), (4.5, 0.9, 0.9)])
def test_the_boundary_is_a_shell_in_millimeters(spacing: tuple[float, float, float]) -> None:
    """Against the distance from every voxel to every voxel on the other side, in a slow loop."""
    mask = np.zeros((14, 12, 10), bool)
    mask[4:10, 3:9, 3:7] = True
    mask[5, 4, 4] = False
    found = boundary(mask, spacing, reach=2.0)
    points = np.argwhere(np.ones(mask.shape, bool)) * spacing
    boxes = {side: np.argwhere(mask == side) * spacing for side in (True, False)}
    for point, inside, near in zip(points, mask.ravel(), found.ravel(), strict=True):
        ways = np.abs(boxes[not inside] - point) - np.array(spacing) / 2
        assert near == (np.linalg.norm(ways.clip(min=0), axis=1).min() <= 2.0 + 1e-9)
    assert found.any()
    assert not found.all()
    assert not boundary(np.zeros_like(mask), SPACING).any()
    assert not boundary(np.ones_like(mask), SPACING).any()


def test_invalid_masks_are_refused() -> None:
    with pytest.raises(CaseError, match=r"a: the tissue map has the shape \(3, 3, 3\)"):
        concept_masks(case(), tissues=np.zeros((3, 3, 3)))
    with pytest.raises(CaseError, match="'brain' already exists"):
        concept_masks(case(), user_masks={"brain": np.ones((12, 10, 8))})
    with pytest.raises(CaseError, match="the mask 'x' has the shape"):
        concept_masks(case(), user_masks={"x": np.ones(3)})


@pytest.mark.parametrize("layout", ["brats2021", "brats2019"])
def test_the_tissues_of_a_cohort_are_read(tmp_path: Path, layout: str) -> None:
    (folder,) = write_cohort(tmp_path / "cohort", [5], spacing=3.0, layout=layout)
    study = read_case(folder)
    tissues = phantom_tissues(study)
    assert tissues is not None
    np.testing.assert_array_equal(tissues, phantom(5).tissues)
    path = next((tmp_path / "cohort" / ".phantom").rglob("tissues.nii.gz"))
    upright = nib.load(path)
    turned = upright.as_reoriented(nib.orientations.axcodes2ornt(("S", "R", "A")))
    nib.save(turned, path)
    np.testing.assert_array_equal(phantom_tissues(study), tissues)
    masks = concept_masks(study, tissues=tissues)
    assert masks["GM"].sum() > masks["CSF"].sum() > 0
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4)), path)
    with pytest.raises(CaseError, match=r"tissues\.nii\.gz: grid of \(4, 5, 6\) voxels"):
        phantom_tissues(study)
    path.unlink()
    assert phantom_tissues(study) is None
    assert phantom_tissues(case()) is None
