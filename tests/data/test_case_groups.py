"""Files are matched to a network's modalities by name, number and entity, in every layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.brats import read_case
from neuroxai.data.case import CLASSES
from neuroxai.data.case_files import case_name, find_cases, locate_case

SHAPE = (4, 5, 6)
AFFINE = np.diag([-1.0, -1.5, 2.0, 1.0])
SCAN = np.arange(120, dtype=np.int16).reshape(SHAPE)
FOUR = ("T1", "T1ce", "T2", "FLAIR")
CHANNELS = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
"""Channels of Task01_BrainTumour, from its dataset.json."""
LABELS = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}


def put(path: Path, factor: float = 1, data: NDArray[Any] = SCAN) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data * np.int16(factor), AFFINE), path)
    return path


def scattered(most: int) -> NDArray[np.int16]:
    """Return label values up to ``most``, none of which encloses another."""
    return np.random.default_rng(0).permutation(SCAN.ravel() % (most + 1)).reshape(SHAPE)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def found(path: Path, modalities: Sequence[str] = FOUR, **arguments: Any) -> dict[str, str]:
    files = locate_case(path, modalities=modalities, **arguments).files
    return {what: file.name for what, file in files.items()}


def refused(path: Path, *words: str, modalities: Sequence[str] = FOUR, **arguments: Any) -> None:
    with pytest.raises(CaseError) as caught:
        locate_case(path, modalities=modalities, **arguments)
    for word in words:
        assert word in str(caught.value)


# --- by the network's own names ---


@pytest.mark.parametrize(
    ("channel", "file"),
    [
        ("ADC", "adc.nii.gz"), ("ADC", "P1_ADC.nii"), ("DWI", "P1-dwi.NII.GZ"),
        ("T2*", "P1_T2star.nii.gz"), ("T2*", "sub-1_T2starw.nii"), ("T2*", "t2*.nii.gz"),
        ("b1000", "P1_B1000.nii.gz"), ("T1 map", "P1_t1-map.nii"), ("CT", "ct.nii"),
        ("t1gd", "P1_t1ce.nii.gz"), ("T1ce", "P1_T1-Gd.nii.gz"), ("T1ce", "Müller T1 post.nii"),
        ("MR T1", "MR_T1.nii.gz"), ("flair", "P1_T2_FLAIR.nii"), ("T1c", "x T1C.nii.gz"),
    ],
)  # fmt: skip
def test_any_modality_of_a_card_is_found_under_its_own_name(
    tmp_path: Path, channel: str, file: str
) -> None:
    touch(tmp_path / "P1", file, "._" + file, ".hidden.nii.gz", "notes.txt")
    assert found(tmp_path / "P1", [channel]) == {channel: file}
    assert find_cases(tmp_path, [channel]) == [tmp_path / "P1"]


def test_a_case_keeps_the_networks_own_names(tmp_path: Path) -> None:
    put(tmp_path / "P1" / "P1_t1ce.nii.gz", 2)
    put(tmp_path / "P1" / "P1_T2star.nii", 3)
    case = read_case(tmp_path / "P1", modalities=["t1gd", "T2*"])
    assert list(case.volumes) == ["t1gd", "T2*"]
    assert case.volumes["t1gd"][0, 0, 1] == 2
    assert case.volumes["T2*"][0, 0, 1] == 3


def test_a_missing_modality_is_named_with_what_else_can_be_done(tmp_path: Path) -> None:
    touch(tmp_path / "P1", "P1_t1.nii.gz", "P1_t2.nii.gz")
    refused(tmp_path / "P1", "FLAIR not found", "P1_t1.nii.gz", modalities=["FLAIR"])
    refused(
        tmp_path / "P1", "T1ce, FLAIR not found", "P1_t1.nii.gz, P1_t2.nii.gz",
        "a network that needs only T1, T2",
    )  # fmt: skip


def test_what_is_not_used_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, "P1_t1.nii.gz", "P1_t2.nii.gz", "P1_brain_mask.nii.gz", "P1_T1_bias.nii")
    (warning,) = locate_case(tmp_path, modalities=["T1"]).warnings
    assert "not used: P1_T1_bias.nii, P1_brain_mask.nii.gz, P1_t2.nii.gz" in warning


def test_one_file_is_a_case_for_a_network_of_one_modality(tmp_path: Path) -> None:
    path = put(tmp_path / "scan 7.nii.gz", 3)
    put(tmp_path / "other.nii.gz")
    case = read_case(path, modalities=["FLAIR"])
    assert (case.name, case.volumes["FLAIR"][0, 0, 1]) == ("scan 7", 3)
    refused(path, "not found")
    refused(touch(tmp_path, "x_seg.nii.gz") / "x_seg.nii.gz", "FLAIR", modalities=["FLAIR"])


# --- by number ---


def numbered(folder: Path, *cases: str, ending: str = ".nii.gz") -> Path:
    for case in cases:
        for number in range(4):
            put(folder / f"{case}_{number:04d}{ending}", number + 1)
    return folder


def test_numbered_files_are_channels_of_the_network(tmp_path: Path) -> None:
    numbered(tmp_path / "BRATS_001", "BRATS_001")
    for path in (tmp_path / "BRATS_001", tmp_path / "BRATS_001" / "BRATS_001_0002.nii.gz"):
        case = read_case(path, modalities=FOUR, channels=("T2", "T1ce", "T1", "FLAIR"))
        assert case.name == "BRATS_001"
        values = {name: int(volume[0, 0, 1]) for name, volume in case.volumes.items()}
        assert values == {"T1": 3, "T1ce": 2, "T2": 1, "FLAIR": 4}
        assert "0000 T2, 0001 T1ce, 0002 T1, 0003 FLAIR" in case.warnings[0]
    refused(tmp_path / "BRATS_001", "T1 not found", "BRATS_001_0003.nii.gz", modalities=["T1"])


@pytest.mark.parametrize("names", ["channel_names", "modality"])
def test_a_dataset_json_names_channels_and_labels(tmp_path: Path, names: str) -> None:
    """With the names of the Decathlon and nnU-Net v1, and those of nnU-Net v2."""
    labels: dict[str, Any] = {name: int(number) for number, name in LABELS.items()}
    described = {names: CHANNELS, "labels": LABELS if names == "modality" else labels}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    numbered(tmp_path / "imagesTr", "BraTS_001", "Müller")
    (tmp_path / "imagesTr" / "._BraTS_001_0000.nii.gz").touch()
    truth = scattered(3)
    put(tmp_path / "labelsTr" / "BraTS_001.nii.gz", data=truth)
    paths = find_cases(tmp_path, FOUR)
    assert [case_name(path) for path in paths] == ["BraTS_001", "Müller"]
    case = read_case(paths[0])
    values = [int(volume[0, 0, 1]) for volume in case.volumes.values()]
    assert (case.name, values, case.warnings) == ("BraTS_001", [2, 3, 4, 1], ())
    assert (case.layout.name, read_case(paths[1]).truth) == ("decathlon", None)
    for number, name in enumerate(("background", "ED", "NCR", "ET")):
        np.testing.assert_array_equal(case.truth == CLASSES.index(name), truth == number)
    refused(tmp_path / "imagesTr", "2 cases", "BraTS_001", "Müller")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}, "decathlon"),
        ({"whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing": [3]}, "decathlon"),
        ({"NCR": 1, "ED": 2, "ET": 3}, "brats2023"),
        ({"ET": 1, "edema": 2, "necrosis": 3}, "dataset.json"),
        ({"lesion": 1}, "plain"),
    ],
)
def test_labels_of_a_dataset_json(tmp_path: Path, labels: dict[str, Any], expected: str) -> None:
    described = {"channel_names": CHANNELS, "labels": {"background": 0, **labels}}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    numbered(tmp_path / "imagesTs", "patient")
    layout = locate_case(find_cases(tmp_path)[0]).layout
    assert layout.name == expected
    if expected == "dataset.json":
        assert layout.labels == {"ET": 1, "ED": 2, "NCR": 3}


# --- four modalities in one file ---


def decathlon(path: Path) -> NDArray[np.int16]:
    image = np.stack([SCAN * np.int16(factor) for factor in (1, 2, 3, 4)], axis=-1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(image, AFFINE), path)
    return image


@pytest.mark.parametrize("name", ["BRATS_001.nii.gz", "brats_484.nii", "Patient é 3.nii.gz"])
def test_the_decathlon_keeps_four_modalities_in_one_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "imagesTr" / name
    decathlon(path)
    if "Patient" in name:
        refused(path, "not found")
        (tmp_path / "dataset.json").write_text(json.dumps({"modality": CHANNELS}))
    put(tmp_path / "labelsTr" / name, data=scattered(3))
    assert find_cases(tmp_path) == [tmp_path / "imagesTr"]
    for place in (path, path.parent):
        case = read_case(place)
        values = [int(volume[0, 0, 1]) for volume in case.volumes.values()]
        assert (case.name, values) == (name.partition(".")[0], [2, 3, 4, 1])
        assert case.layout.name == "decathlon"
        assert case.truth is not None
        assert case.sources["T1ce"].path.endswith("[2]")
    assert case.warnings == ()


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_volume_of_a_file_is_named_by_its_index(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    image = decathlon(path)
    files = {"T1": f"{path}[1]", "FLAIR": f"{path}[3]"}
    case = read_case(files=files, modalities=["T1", "FLAIR"])
    assert case.name == "x"
    np.testing.assert_array_equal(case.volumes["T1"], image[..., 1])
    np.testing.assert_array_equal(case.volumes["FLAIR"], image[..., 3])
    assert case.warnings == ()
    for text, word in ((f"{path}[4]", "the file has 4"), (path, "[0]")):
        with pytest.raises(CaseError, match=word.replace("[", r"\[")):
            read_case(files={"T1": text}, modalities=["T1"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CaseError, match=r"truncated|damaged|at most"):
        read_case(files={"T1": f"{path}[0]"}, modalities=["T1"])


# --- BIDS ---


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_ce-gadolinium_T1w", "sub-01_ce-gd_T1w", "sub-01_ce-Gadovist_T1w",
        "sub-01_ce-gadolinium_run-1_T1w", "sub-01_ce-gadolinium_desc-preproc_T1w",
        "sub-01_acq-postcontrast_T1w", "sub-01_acq-mpragePostGd_T1w", "sub-01_acq-gd_T1w",
        "sub-01_run-02_ce-DOTAREM_t1W", "sub-01_ce-T1w",
    ],
)  # fmt: skip
def test_a_contrast_agent_is_an_entity(tmp_path: Path, name: str) -> None:
    """``ce-`` has any value and any entities after it (BIDS 1.11)."""
    touch(tmp_path, f"{name}.nii.gz", "sub-01_FLAIR.nii.gz")
    refused(tmp_path, "T1 not found", modalities=["T1", "FLAIR"])
    touch(tmp_path, "sub-01_T1w.nii.gz", "sub-01_T2w.nii.gz")
    files = found(tmp_path)
    assert (files["T1"], files["T1ce"]) == ("sub-01_T1w.nii.gz", f"{name}.nii.gz")
    assert locate_case(tmp_path).name == "sub-01"


@pytest.mark.parametrize(
    "name", ["sub-01_acq-mprage_T1w", "sub-01_ce-none_T1w", "sub-01_acq-precontrast_run-1_T1w"]
)
def test_an_acquisition_without_contrast_is_t1(tmp_path: Path, name: str) -> None:
    touch(tmp_path, f"{name}.nii")
    assert found(tmp_path, ["T1"]) == {"T1": f"{name}.nii"}
    refused(tmp_path, "T1ce not found", modalities=["T1ce"])


def test_a_flair_after_contrast_is_not_the_one_before(tmp_path: Path) -> None:
    touch(tmp_path, "sub-01_ce-gd_FLAIR.nii.gz")
    refused(tmp_path, "FLAIR not found", modalities=["FLAIR"])
    touch(tmp_path, "sub-01_FLAIR.nii.gz")
    assert found(tmp_path, ["FLAIR"]) == {"FLAIR": "sub-01_FLAIR.nii.gz"}


def test_runs_sessions_and_descriptions(tmp_path: Path) -> None:
    raw = ("sub-01_ses-2_T1w.nii.gz", "sub-01_ses-2_FLAIR.nii.gz")
    touch(tmp_path, *raw, "sub-01_ses-2_desc-preproc_T1w.nii.gz")
    assert found(tmp_path, ["T1", "FLAIR"])["T1"] == raw[0]
    touch(tmp_path, "sub-01_ses-2_desc-preproc_FLAIR.nii.gz")
    assert found(tmp_path, ["T1", "FLAIR"])["FLAIR"] == raw[1]
    for name in raw:
        (tmp_path / name).unlink()
    touch(tmp_path, "sub-01_ses-2_run-1_T1w.nii.gz")
    assert "desc-preproc" in found(tmp_path, ["T1", "FLAIR"])["T1"]
    touch(tmp_path, "sub-01_ses-2_run-2_T1w.nii.gz")
    refused(tmp_path, "several files for T1", "pass the file", modalities=["T1"])


def test_sessions_are_cases_and_derivatives_are_not(tmp_path: Path) -> None:
    for session in ("ses-1", "ses-2"):
        names = [f"sub-01_{session}_{suffix}.nii.gz" for suffix in ("T1w", "FLAIR")]
        touch(tmp_path / "sub-01" / session / "anat", *names)
        touch(tmp_path / "derivatives" / "fmriprep" / "sub-01" / session / "anat", *names)
        touch(tmp_path / "sub-01" / session / "dwi", f"sub-01_{session}_adc.nii.gz")
        dseg = f"sub-01_{session}_desc-tumor_dseg.nii.gz"
        touch(tmp_path / "sub-01" / session / "anat", dseg)
    paths = find_cases(tmp_path)
    assert [case_name(path) for path in paths] == ["sub-01_ses-1", "sub-01_ses-2"]
    files = found(paths[1], ["ADC", "FLAIR"])
    assert files == {
        "ADC": "sub-01_ses-2_adc.nii.gz", "FLAIR": "sub-01_ses-2_FLAIR.nii.gz", "truth": dseg,
    }  # fmt: skip
    assert found(paths[1] / "anat", ["ADC", "FLAIR"]) == files
    refused(tmp_path / "sub-01", "contains 2 case", modalities=["FLAIR"])


# --- labels of tumors, and of anything else ---


@pytest.mark.parametrize(
    "name",
    [
        "P1_brain_segmentation", "P1_brain_parenchyma_segmentation", "P1_brain_mask", "P1_mask",
        "P1_tissue_seg", "P1_aseg", "P1_T1_seg", "P1_brain_seg", "P1_wm_labels", "P1_csf_seg",
        "P1_automated_approx_segm", "atlas_labels", "P1_synthseg_seg", "P10_seg", "P1_dseg",
        "sub-P1_dseg", "sub-P1_desc-brain_mask", "sub-P1_label-GM_seg", "P1_pred_seg",
    ],
)  # fmt: skip
def test_labels_of_brain_and_tissue_are_never_the_truth(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "P1_flair.nii.gz", f"{name}.nii.gz")
    assert found(tmp_path, ["FLAIR"]) == {"FLAIR": "P1_flair.nii.gz"}
    (warning,) = locate_case(tmp_path, modalities=["FLAIR"]).warnings
    assert f"{name}.nii.gz" in warning


@pytest.mark.parametrize(
    "name",
    ["P1_seg", "P1-SEG", "P1_tumor_segmentation", "P1_segm", "P1 tumour seg", "truth",
     "P1_manual_seg", "P1_label", "P1_gt", "P1_brain_tumor_seg", "P1_lesion_seg"],
)  # fmt: skip
def test_labels_of_the_tumor_are_the_truth(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "P1_flair.nii.gz", f"{name}.nii.gz", "P1_brain_seg.nii.gz")
    assert found(tmp_path, ["FLAIR"])["truth"] == f"{name}.nii.gz"


# --- collections, with the names of their pages ---

UCSF = (
    "ADC", "ASL", "DTI_eddy_FA", "DTI_eddy_L1", "DTI_eddy_MD", "DTI_eddy_noreg", "DWI", "DWI_bias",
    "FLAIR", "FLAIR_bias", "SWI", "SWI_bias", "T1", "T1_bias", "T1c", "T1c_bias", "T2", "T2_bias",
    "brain_parenchyma_segmentation", "brain_segmentation", "tumor_segmentation",
)  # fmt: skip


def test_ucsf_pdgm(tmp_path: Path) -> None:
    case = "UCSF-PDGM-0004"
    folder = touch(tmp_path / f"{case}_nifti", *(f"{case}_{suffix}.nii.gz" for suffix in UCSF))
    expected = {"T1": "T1", "T1ce": "T1c", "T2": "T2", "FLAIR": "FLAIR"}
    expected |= {"truth": "tumor_segmentation"}
    files = {what: f"{case}_{suffix}.nii.gz" for what, suffix in expected.items()}
    assert found(folder) == files
    located = locate_case(folder)
    assert (located.name, located.layout.labels["ET"]) == (case, 4)
    assert found(folder, ["ADC", "SWI"])["SWI"] == f"{case}_SWI.nii.gz"
    assert find_cases(tmp_path) == [folder]


def test_upenn_gbm(tmp_path: Path) -> None:
    case = "UPENN-GBM-00001_11"
    folder = tmp_path / "images_structural" / case
    touch(folder, *(f"{case}_{suffix}.nii.gz" for suffix in ("FLAIR", "T1", "T1GD", "T2")))
    touch(tmp_path / "images_segm", f"{case}_segm.nii.gz")
    touch(tmp_path / "automated_segm", f"{case}_automated_approx_segm.nii.gz")
    files = found(folder)
    assert (files["T1ce"], files["truth"]) == (f"{case}_T1GD.nii.gz", f"{case}_segm.nii.gz")
    located = locate_case(folder)
    assert (located.name, located.layout.labels["ET"]) == (case, 4)
    assert find_cases(tmp_path) == [folder]


@pytest.mark.parametrize(
    ("case", "separator", "truth", "numbers"),
    [
        ("BraTS-GLI-00005-100", "-", "seg", {1: "NCR", 2: "ED", 3: "ET", 4: "RC"}),
        ("BraTS-MET-00001-000", "-", "seg", {1: "NCR", 2: "ED", 3: "ET", 4: "RC"}),
        ("BraTS-SSA-00002-000", "-", "seg", {1: "NCR", 2: "ED", 3: "ET"}),
        ("BraTS-MEN-00004-000", "-", "seg", {1: "NCR", 2: "ED", 3: "ET"}),
        ("BraTS-GoAT-00000", "-", "seg", {1: "NCR", 2: "ED", 3: "ET"}),
        ("BraTS-MEN-RT-0000-1", "_", "gtv", {1: "ET"}),
    ],
)
def test_brats_2024_and_2025(
    tmp_path: Path, case: str, separator: str, truth: str, numbers: dict[int, str]
) -> None:
    folder = tmp_path / case
    modalities = ["T1ce"] if truth == "gtv" else list(FOUR)
    suffixes = ["t1c"] if truth == "gtv" else ["t1n", "t1c", "t2w", "t2f"]
    for factor, suffix in enumerate(suffixes, start=1):
        put(folder / f"{case}{separator}{suffix}.nii.gz", factor)
    labels = scattered(max(numbers))
    put(folder / f"{case}{separator}{truth}.nii.gz", data=labels)
    read = read_case(folder, modalities=modalities)
    assert (read.name, read.warnings) == (case, ())
    for number, name in numbers.items():
        np.testing.assert_array_equal(read.truth == CLASSES.index(name), labels == number)


# --- cohorts ---


def test_a_flat_folder_of_several_cases(tmp_path: Path) -> None:
    for case in ("BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "anna b"):
        for factor, suffix in enumerate(("T1N", "t1c", "t2w", "t2f"), start=1):
            put(tmp_path / f"{case}-{suffix}.nii.gz", factor)
    paths = find_cases(tmp_path)
    names = ["BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "anna b"]
    assert sorted(map(case_name, paths)) == names
    assert sorted(read_case(path).name for path in paths) == names
    assert all(read_case(path).warnings == () for path in paths)
    refused(tmp_path, "3 cases", "name one file")


def test_a_leftover_file_does_not_make_another_case(tmp_path: Path) -> None:
    touch(tmp_path / "P", *(f"P_{name}.nii.gz" for name in FOUR), "orig_T1.nii.gz")
    assert find_cases(tmp_path) == [tmp_path / "P"]
    assert found(tmp_path / "P")["T1"] == "P_T1.nii.gz"
    assert "orig_T1.nii.gz" in locate_case(tmp_path / "P").warnings[0]
