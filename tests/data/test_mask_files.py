"""Mask files of a user, one per case, in any orientation."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

import cases
from neuroxai.core.errors import CaseError
from neuroxai.data.brats import read_case
from neuroxai.data.mask_files import MaskFiles

WHERE = np.array([[4.0, 12, 5], [9, 3, -2], [-3, 20, 9]])
"""World coordinates in mm that the mask marks."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return cases.write_study(tmp_path)


def test_a_mask_in_any_orientation_marks_the_same_positions(tmp_path: Path, folder: Path) -> None:
    case = read_case(folder)
    marked = np.zeros(case.shape, np.uint8)
    voxels = np.rint(apply_affine(np.linalg.inv(case.affine), WHERE)).astype(int)
    marked[tuple(voxels.T)] = 1
    assert marked.sum() == len(WHERE)
    plain = nib.nifti1.Nifti1Image(marked, case.affine)
    files = MaskFiles({"mine": str(tmp_path / "{case}_mine.nii.gz")})
    for ornt in cases.orientations():
        turned = plain.as_reoriented(ornt)
        nib.save(turned, files.path("mine", case.name))
        np.testing.assert_array_equal(files(case)["mine"], marked > 0)


def test_errors_name_the_file(tmp_path: Path, folder: Path) -> None:
    case = read_case(folder)
    files = MaskFiles({"mine": str(tmp_path / "mine.nii.gz")})
    with pytest.raises(CaseError, match=r"mine\.nii\.gz: no such file.*\{case\}"):
        files(case)
    shifted = case.affine.copy()
    shifted[0, 3] += 3.0
    mask = np.ones(case.shape, np.uint8)
    nib.save(nib.nifti1.Nifti1Image(mask, shifted), tmp_path / "mine.nii.gz")
    with pytest.raises(CaseError, match=r"differ from .* by up to 3 mm"):
        files(case)
    soft = np.full(case.shape, 0.5, np.float32)
    nib.save(nib.nifti1.Nifti1Image(soft, case.affine), tmp_path / "mine.nii.gz")
    with pytest.raises(CaseError, match="integers"):
        files(case)
