"""Files of a case are found by name, and their headers checked, before any voxel is read."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import cases
from cases import STUDY
from neuroxai.core.errors import CaseError
from neuroxai.data.brats import read_case
from neuroxai.data.case_files import locate_case
from neuroxai.data.case_headers import check_headers
from neuroxai.data.nifti import read_nifti, read_nifti_header


def test_the_files_found_are_the_files_read(tmp_path: Path) -> None:
    study = cases.write_study(tmp_path)
    found = locate_case(study, modalities=("FLAIR", "T1"))
    case = read_case(study, modalities=("FLAIR", "T1"))
    assert list(found.files) == ["FLAIR", "T1", "truth"]
    assert {what: str(file) for what, file in found.files.items()} == {
        what: source.path for what, source in case.sources.items()
    }
    assert (found.name, found.layout, found.folder) == (case.name, case.layout, study)
    check_headers(found)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_header_is_that_of_the_volume(tmp_path: Path, ending: str) -> None:
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -3], [0, 0, 3, 1], [0, 0, 0, 1]])
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), affine)
    path = tmp_path / f"scan{ending}"
    nib.save(image, path)
    header, volume = read_nifti_header(path), read_nifti(path)
    assert header.shape == volume.data.shape
    np.testing.assert_array_equal(header.affine, volume.affine)
    assert header.dtype == np.int16
    assert header.warnings == volume.warnings


def test_headers_are_checked_in_files_cut_after_them(tmp_path: Path) -> None:
    """The header alone decides: the voxels are missing, and are not read."""
    study = cases.write_study(tmp_path)
    whole = gzip.decompress((study / f"{STUDY}_t1.nii.gz").read_bytes())
    (study / f"{STUDY}_t1.nii.gz").write_bytes(gzip.compress(whole[:352] + bytes(200)))
    check_headers(locate_case(study))
    with pytest.raises(CaseError, match="truncated"):
        read_case(study)


def test_other_grids_are_found_in_the_headers(tmp_path: Path) -> None:
    study = cases.write_study(tmp_path)
    path = study / f"{STUDY}_flair.nii.gz"
    image = nib.load(path)
    turned = image.as_reoriented(np.array([[1, -1], [0, 1], [2, 1]], dtype=float))
    nib.save(turned, path)
    check_headers(locate_case(study))
    moved = image.affine.copy()
    moved[0, 3] += 3
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), moved), path)
    with pytest.raises(CaseError, match=r"flair\.nii\.gz.*3 mm"):
        check_headers(locate_case(study))
