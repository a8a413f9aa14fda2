"""Case folders of every layout, and invalid ones."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.eulerangles import euler2mat
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError, OutputError
from neuroxai.data.brats import read_case, write_case, write_name_mapping
from neuroxai.data.case import CLASSES, MODALITIES, Case, Grade, region
from neuroxai.data.case_files import find_cases
from neuroxai.data.label_values import decode_labels, encode_labels
from neuroxai.data.layouts import LAYOUTS, numbered_name

SHAPE = (5, 6, 7)
AFFINE = np.array([[-1.0, 0, 0, 3.5], [0, -1.5, 0, 100], [0, 0, 2, -20], [0, 0, 0, 1]])
SCAN = np.arange(210, dtype=np.int16).reshape(SHAPE)

# Copied by hand from the pages of the challenges, independent of the table under test.
NAMES = {
    "brats2018": ("Brats18_2013_2_1", "_t1 _t1ce _t2 _flair _seg", (1, 2, 4)),
    "brats2019": ("BraTS19_CBICA_AAB_1", "_t1 _t1ce _t2 _flair _seg", (1, 2, 4)),
    "brats2020": ("BraTS20_Training_001", "_t1 _t1ce _t2 _flair _seg", (1, 2, 4)),
    "brats2021": ("BraTS2021_01092", "_t1 _t1ce _t2 _flair _seg", (1, 2, 4)),
    "brats2023": ("BraTS-GLI-00001-000", "-t1n -t1c -t2w -t2f -seg", (1, 2, 3)),
    "brats2024": ("BraTS-GLI-00005-100", "-t1n -t1c -t2w -t2f -seg", (1, 2, 3)),
}


def put(path: Path, data: NDArray[Any] = SCAN, affine: NDArray[Any] = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


def year_folder(root: Path, layout: str, ending: str = ".nii.gz", truth: bool = True) -> Path:
    name, suffixes, numbers = NAMES[layout]
    *scans, seg = suffixes.split()
    for factor, suffix in enumerate(scans, start=1):
        put(root / name / f"{name}{suffix}{ending}", SCAN * factor)
    if truth:
        labels = np.zeros(SHAPE, np.uint8)
        labels[1, 1, 1:4] = numbers
        put(root / name / f"{name}{seg}{ending}", labels)
    return root / name


def error(path: Path | None, *words: str, **arguments: Any) -> str:
    with pytest.raises(CaseError) as caught:
        read_case(path, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


# --- reading ---


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("layout", NAMES)
def test_every_layout_is_detected_and_read(tmp_path: Path, layout: str, ending: str) -> None:
    case = read_case(year_folder(tmp_path, layout, ending))
    assert case.layout is LAYOUTS[layout]
    assert case.name == NAMES[layout][0]
    assert tuple(case.volumes) == MODALITIES
    for factor, modality in enumerate(MODALITIES, start=1):
        np.testing.assert_array_equal(case.volumes[modality], (SCAN * factor).astype(np.float32))
    assert case.truth is not None
    assert [CLASSES[index] for index in case.truth[1, 1, 1:4]] == ["NCR", "ED", "ET"]
    assert set(case.sources) == {*MODALITIES, "truth"}
    assert case.shape == SHAPE
    assert case.spacing == (1.0, 1.5, 2.0)
    np.testing.assert_array_equal(case.affine, AFFINE)
    assert case.warnings == ()


def test_label_four_is_a_cavity_only_in_2024(tmp_path: Path) -> None:
    folder = year_folder(tmp_path, "brats2024")
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 2, 2] = 4
    put(folder / "BraTS-GLI-00005-100-seg.nii.gz", labels)
    truth = read_case(folder).truth
    assert truth is not None
    assert CLASSES[truth[2, 2, 2]] == "RC"
    message = error(folder, "label values 4", "brats2023", "--layout", layout="brats2023")
    assert "BraTS-GLI-00005-100-seg.nii.gz" in message
    assert "brats2024" in message
    other = read_case(folder, layout="brats2021").truth
    assert other is not None
    assert CLASSES[other[2, 2, 2]] == "ET"


@pytest.mark.parametrize("modalities", list(itertools.product(
    ["t1.nii.gz", "T1n.nii", "T1w.nii.gz", "sub-01_T1w.nii.gz"],
    ["T1ce.nii", "t1c.nii.gz", "t1gd.nii", "sub-01_ce-gadolinium_T1w.nii.gz"],
    ["t2.nii", "T2w.nii.gz"],
    ["FLAIR.nii.gz", "t2f.nii", "T2_FLAIR.nii.gz"],
)))  # fmt: skip
def test_common_spellings(tmp_path: Path, modalities: tuple[str, ...]) -> None:
    for factor, name in enumerate(modalities, start=1):
        put(tmp_path / "patient" / name, SCAN * factor)
    case = read_case(tmp_path / "patient")
    for factor, modality in enumerate(MODALITIES, start=1):
        assert case.volumes[modality][0, 0, 1] == factor


def test_a_plain_folder_uses_the_labels_of_2021_and_its_own_name(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.int16)
    labels[0, 0, 0] = 4
    put(tmp_path / "anna" / "t1.nii.gz")
    put(tmp_path / "anna" / "seg.nii.gz", labels)
    case = read_case(tmp_path / "anna", modalities=["T1"])
    assert (case.name, case.layout.name) == ("anna", "plain")
    assert case.truth is not None
    assert CLASSES[case.truth[0, 0, 0]] == "ET"


def test_only_requested_modalities_are_read(tmp_path: Path) -> None:
    folder = year_folder(tmp_path, "brats2021")
    (folder / "BraTS2021_01092_t2.nii.gz").write_bytes(b"broken")
    assert list(read_case(folder, modalities=["FLAIR", "FLAIR"]).volumes) == ["FLAIR"]
    error(folder, "_t2.nii.gz")
    error(folder, "no modality", modalities=[])


def test_files_by_name(tmp_path: Path) -> None:
    one, two = put(tmp_path / "x" / "first.nii"), put(tmp_path / "x" / "second.nii", SCAN * 2)
    case = read_case(files={"t1n": one, "FLAIR": two}, modalities=["FLAIR", "T1"])
    assert case.name == "x"
    assert case.volumes["FLAIR"][0, 0, 1] == 2
    error(None, "T1ce, T2", files={"T1": one, "FLAIR": two})
    error(None, "'FLAIRE'", "did you mean 'FLAIR'", files={"FLAIRE": one})
    error(None, "given twice", files={"T1": one, "t1w": two})
    with pytest.raises(CaseError, match="no file was given"):
        read_case()
    folder = year_folder(tmp_path, "brats2021")
    assert read_case(folder, files={"T2": two}).volumes["T2"][0, 0, 1] == 2
    assert read_case(files={"ADC": one}, modalities=["ADC"]).volumes["ADC"].shape == SHAPE


def test_pediatric_labels_need_a_named_layout(tmp_path: Path) -> None:
    """Label 1 is enhancing tumor in 2024 and necrosis in 2023, with the same file names."""
    folder = year_folder(tmp_path, "brats2023", ".nii.gz")
    name = "BraTS-PED-00001-000"
    moved = tmp_path / name
    moved.mkdir()
    for path in folder.iterdir():
        path.rename(moved / f"{name}-{path.name.split('-')[-1]}")
    error(moved, "BraTS-PED", "depend on the year", "brats2023")
    told = read_case(moved, layout="brats2023")
    assert told.truth is not None
    for path in moved.glob("*seg*"):
        path.unlink()
    assert read_case(moved).truth is None


PEDIATRIC = {"ET": [1], "TC": [1, 2, 3], "WT": [1, 2, 3, 4]}
"""Regions of the pediatric track of 2024 as unions of labels, from the page of the challenge."""


def test_pediatric_labels_of_2024_are_read_with_their_layout(tmp_path: Path) -> None:
    """Labels: 1 enhancing, 2 non-enhancing, 3 cystic, 4 edema."""
    name = "BraTS-PED-00002-000"
    for suffix in ("t1n", "t1c", "t2w", "t2f"):
        put(tmp_path / name / f"{name}-{suffix}.nii.gz")
    labels = (SCAN % 5).astype(np.uint8)
    put(tmp_path / name / f"{name}-seg.nii.gz", labels)
    error(tmp_path / name, "depend on the year", "brats2023", "brats2024-ped")
    case = read_case(tmp_path / name, layout="brats2024-ped")
    assert case.layout.name == "brats2024-ped"
    assert case.truth is not None
    for which, numbers in PEDIATRIC.items():
        np.testing.assert_array_equal(region(case.truth, which), np.isin(labels, numbers))
    written = write_case(case, tmp_path / "again")
    again = np.asarray(nib.load(written / f"{name}-seg.nii.gz").dataobj)
    for numbers in PEDIATRIC.values():
        np.testing.assert_array_equal(np.isin(again, numbers), np.isin(labels, numbers))
    assert numbered_name("brats2024-ped", 7) == "BraTS-PED-00007-000"
    labels[0, 0, 0] = 5
    put(tmp_path / name / f"{name}-seg.nii.gz", labels)
    error(tmp_path / name, "label values 5", "3 (NCR)", "4 (ED)", layout="brats2024-ped")
    error(tmp_path / name, "unknown layout 'brats2024-pe'", "brats2024-ped", layout="brats2024-pe")


def test_identical_files_for_two_modalities_warn(tmp_path: Path) -> None:
    folder = year_folder(tmp_path, "brats2021", ".nii.gz")
    files = {path.name.split("_")[-1].split(".")[0]: path for path in folder.iterdir()}
    given = {"T1": files["t1"], "T1ce": files["t1"], "T2": files["t2"], "FLAIR": files["t1"]}
    (warning,) = read_case(None, files=given).warnings
    assert "T1 and T1ce and FLAIR were read from identical files" in warning
    assert str(files["t1"]) in warning


def test_links_are_followed_and_the_grade_is_that_of_the_links_parent(tmp_path: Path) -> None:
    folder = year_folder(tmp_path / "store", "brats2018")
    (tmp_path / "HGG").mkdir()
    (tmp_path / "HGG" / folder.name).symlink_to(folder)
    assert read_case(tmp_path / "HGG" / folder.name).grade == "HGG"


# --- one grid ---


def turned(data: NDArray[Any], affine: NDArray[Any], codes: str) -> tuple[NDArray[Any], Any]:
    """Reorient with nibabel, the oracle."""
    orientation = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes)
    )
    image = nib.Nifti1Image(data, affine).as_reoriented(orientation)
    return np.asarray(image.dataobj), image.affine


def all_codes() -> list[str]:
    return [
        "".join(pair[sign] for pair, sign in zip(order, signs, strict=True))
        for order in itertools.permutations(("LR", "PA", "IS"))
        for signs in itertools.product((0, 1), repeat=3)
    ]


def test_modalities_in_any_orientation_are_reoriented_to_the_first(tmp_path: Path) -> None:
    oblique = np.eye(4)
    oblique[:3, :3] = euler2mat(0.3, -0.2, 0.4) @ np.diag([1.0, 1.5, 2.0])
    oblique[:3, 3] = (-60, 20, 11)
    labels = (SCAN % 3).astype(np.uint8)
    for affine in (AFFINE, oblique):
        put(tmp_path / "t1.nii", SCAN, affine)
        for codes in all_codes():
            put(tmp_path / "t2.nii", *turned(SCAN, affine, codes))
            put(tmp_path / "seg.nii", *turned(labels, affine, codes))
            case = read_case(tmp_path, modalities=["T1", "T2"])
            np.testing.assert_array_equal(case.volumes["T2"], case.volumes["T1"])
            np.testing.assert_array_equal(case.truth, labels)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("codes", ["LPS", "SRA"])
def test_grids_are_one_within_5_percent_of_a_voxel(tmp_path: Path, axis: int, codes: str) -> None:
    """Along the axes of the scan, in voxels of its own size, whatever the orientation."""
    put(tmp_path / "t1.nii")
    for share in (0.04, 0.06):
        moved = AFFINE.copy()
        moved[axis, 3] += share * abs(AFFINE[axis, axis])
        put(tmp_path / "t2.nii", *turned(SCAN, moved, codes))
        if share < 0.05:
            assert len(read_case(tmp_path, modalities=["T1", "T2"]).volumes) == 2
        else:
            gap = f"{0.06 * abs(AFFINE[axis, axis]):.4g} mm"
            error(tmp_path, gap, "0.06 of a voxel", "0.05", modalities=["T1", "T2"])


@pytest.mark.parametrize("degrees", [0, 0.005, 0.02, 0.04, 0.055, 0.1, 3])
def test_a_grid_survives_the_rounding_of_a_qform(tmp_path: Path, degrees: float) -> None:
    """nibabel writes and reads the qform: near LPS its rotation is lost below 0.06 degrees."""
    shape, angle = (240, 4, 5), np.radians(degrees)
    affine = np.eye(4)
    affine[:3, :3] = euler2mat(angle, angle / 2, 0) @ np.diag([-0.9, -0.9, 5.0])
    affine[:3, 3] = (112.3, 121.7, -60.1)
    scan = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    put(tmp_path / "t1.nii", scan, affine)
    label = nib.Nifti1Image((scan % 3).astype(np.uint8), affine)
    label.set_qform(affine, 1)
    label.set_sform(None, 0)
    nib.save(label, tmp_path / "seg.nii")
    truth = read_case(tmp_path, modalities=["T1"]).truth
    np.testing.assert_array_equal(truth, scan % 3)
    moved = affine.copy()
    moved[0, 3] += 0.3
    put(tmp_path / "t1.nii", scan, moved)
    error(tmp_path, "of a voxel", modalities=["T1"])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda a: a + np.outer([0.06, 0, 0, 0], [0, 0, 0, 1]), "0.06 mm"),
        (lambda a: a + np.outer([0, 30.0, 0, 0], [0, 0, 0, 1]), "30 mm"),
        (lambda a: np.diag([-1.0, 1, 1, 1]) @ a, "mm"),  # mirrored about another plane
        (lambda a: a @ np.diag([1.1, 1, 1, 1]), "mm"),
        (lambda a: np.block([[euler2mat(0.1) @ a[:3]], [a[3:]]]), "mm"),
    ],
)
@pytest.mark.parametrize("sibling", ["t2.nii", "seg.nii"])
def test_other_grids_are_refused_and_never_stacked(
    tmp_path: Path, change: Any, word: str, sibling: str
) -> None:
    put(tmp_path / "t1.nii")
    put(tmp_path / "t2.nii")
    put(tmp_path / sibling, (SCAN % 3).astype(np.int16), change(AFFINE))
    error(tmp_path, "t1.nii", sibling, word, modalities=["T1", "T2"])


def test_other_shapes_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "t1.nii")
    put(tmp_path / "t2.nii", SCAN[:-1])
    error(tmp_path, "(4, 6, 7)", "(5, 6, 7)", "t1.nii", "t2.nii", modalities=["T1", "T2"])


# --- invalid folders ---


def test_a_missing_modality_is_named_with_the_file_that_was_expected(tmp_path: Path) -> None:
    folder = year_folder(tmp_path, "brats2023")
    (folder / "BraTS-GLI-00001-000-t1c.nii.gz").unlink()
    error(
        folder, str(folder), "T1ce not found", "BraTS-GLI-00001-000-t1c.nii.gz",
        "BraTS-GLI-00001-000-t1n.nii.gz",
    )  # fmt: skip


def test_two_files_for_one_modality_are_refused(tmp_path: Path) -> None:
    folder = year_folder(tmp_path, "brats2020")
    put(folder / "BraTS20_Training_001_t2.nii")
    error(folder, "several files for T2", "_t2.nii and ", "_t2.nii.gz")
    (folder / "BraTS20_Training_001_t2.nii").unlink()
    put(folder / "BraTS20_Training_001_seg.nii")
    error(folder, "several files for truth")


def test_files_of_two_cases_are_refused(tmp_path: Path) -> None:
    folder = year_folder(tmp_path, "brats2018")
    (folder / "Brats18_2013_2_1_t2.nii.gz").rename(folder / "Brats18_2013_3_1_t2.nii.gz")
    error(folder, "different cases", "Brats18_2013_2_1", "Brats18_2013_3_1")
    put(tmp_path / "p" / "anna_t1.nii")
    put(tmp_path / "p" / "bert_t2.nii")
    assert "anna, bert" in read_case(tmp_path / "p", modalities=["T1", "T2"]).warnings[0]


def test_wrong_folders(tmp_path: Path) -> None:
    year_folder(tmp_path / "cohort" / "HGG", "brats2018")
    year_folder(tmp_path / "cohort" / "LGG", "brats2019")
    error(tmp_path / "cohort", "contains 2 case folders", "HGG/Brats18_2013_2_1", "choose one")
    (tmp_path / "empty").mkdir()
    error(tmp_path / "empty", "empty")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    error(tmp_path / "other", "notes.txt", "t1.nii.gz")
    error(tmp_path / "none", "does not exist")
    error(tmp_path / "other" / "notes.txt", "is a file")
    error(Path("a\0b"), "")
    os.mkfifo(tmp_path / "fifo")
    error(tmp_path / "fifo", "is a file")


def test_a_fifo_instead_of_a_scan(tmp_path: Path) -> None:
    folder = year_folder(tmp_path, "brats2021")
    (folder / "BraTS2021_01092_t1.nii.gz").unlink()
    os.mkfifo(folder / "BraTS2021_01092_t1.nii.gz")
    error(folder, "_t1.nii.gz", "not a regular file")


def test_labels_of_another_year_are_refused_by_name(tmp_path: Path) -> None:
    folder = year_folder(tmp_path, "brats2021")
    labels = np.zeros(SHAPE, np.uint8)
    labels[1, 2, 3] = 3
    seg = put(folder / "BraTS2021_01092_seg.nii.gz", labels)
    error(folder, str(seg), "label values 3", "brats2021", "--layout brats2023")
    labels[1, 2, 3] = 77
    put(seg, labels)
    error(folder, "label values 77", "--layout")
    put(seg, labels.astype(np.float32) / 2)
    error(folder, str(seg), "38.5")
    put(seg, labels.astype(np.int16) - 1)
    error(folder, "-1")


def test_an_unknown_layout(tmp_path: Path) -> None:
    error(year_folder(tmp_path, "brats2021"), "did you mean 'brats2021'", layout="brats-2021")


# --- grades ---


@pytest.mark.parametrize("grade", ["HGG", "LGG"])
def test_the_grade_is_that_of_the_parent_folder_or_the_table(tmp_path: Path, grade: str) -> None:
    assert read_case(year_folder(tmp_path / grade, "brats2019", truth=False)).grade == grade
    folder = year_folder(tmp_path / "cohort", "brats2020", truth=False)
    assert read_case(folder).grade is None
    (folder.parent / "name_mapping.csv").write_text(
        "Grade,BraTS_2017_subject_ID,BraTS_2020_subject_ID\n"
        f"{grade},Brats17_x,BraTS20_Training_001\nHGG,,BraTS20_Training_002\n"
        "LGG,NA,BraTS20_Training_003\n"
    )
    assert read_case(folder).grade == grade


def test_conflicting_or_unreadable_grades_warn(tmp_path: Path) -> None:
    folder = year_folder(tmp_path / "HGG", "brats2018", truth=False)
    mapping = tmp_path / "name_mapping.csv"
    mapping.write_text("Grade,BraTS_2018_subject_ID\nLGG,Brats18_2013_2_1\n")
    case = read_case(folder)
    assert case.grade == "HGG"
    assert "conflicting grades: HGG and LGG" in case.warnings[0]
    mapping.write_bytes(b"\xff\xfe\x00broken")
    case = read_case(folder)
    assert case.grade == "HGG"
    assert "name_mapping.csv" in case.warnings[0]


def test_a_written_grade_table_is_read_again(tmp_path: Path) -> None:
    folder = year_folder(tmp_path, "brats2020", truth=False)
    write_name_mapping(tmp_path, [read_case(folder)])
    assert read_case(folder).grade is None
    grades: dict[str, Grade | None] = {"BraTS20_Training_001": "LGG", "BraTS20_Training_002": None}
    assert "002" not in write_name_mapping(tmp_path, grades).read_text()
    assert read_case(folder).grade == "LGG"


# --- cohorts and writing ---


def test_find_cases(tmp_path: Path) -> None:
    folders = [
        year_folder(tmp_path / "LGG", "brats2019"),
        year_folder(tmp_path / "HGG", "brats2018"),
        year_folder(tmp_path, "brats2021"),
    ]
    year_folder(tmp_path / ".hidden", "brats2020")
    put(tmp_path / "results" / "BraTS2021_01092_dseg.nii.gz")
    assert find_cases(tmp_path) == sorted(folders)
    assert find_cases(folders[0]) == [folders[0]]
    (tmp_path / "none").mkdir()
    assert find_cases(tmp_path / "none") == []
    with pytest.raises(CaseError, match="does not exist"):
        find_cases(tmp_path / "nowhere")


def made(name: str, layout: str, classes: int = 4) -> Case:
    rng = np.random.default_rng(7)
    return Case(
        name=name,
        volumes={m: rng.normal(500, 100, SHAPE).astype(np.float32) for m in MODALITIES},
        affine=AFFINE,
        layout=LAYOUTS[layout],
        truth=(SCAN % classes).astype(np.uint8),
        grade="LGG",
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_written_cases_are_read_again(tmp_path: Path, layout: str) -> None:
    case = made(numbered_name(layout, 12), layout, classes=5 if layout == "brats2024" else 4)
    folder = write_case(case, tmp_path)
    again = read_case(folder)
    assert (again.name, again.layout) == (case.name, case.layout)
    assert again.grade == ("LGG" if layout in ("brats2018", "brats2019") else None)
    np.testing.assert_array_equal(again.truth, case.truth)
    for modality in MODALITIES:
        np.testing.assert_array_equal(again.volumes[modality], case.volumes[modality])
    seg = next(folder.glob("*seg.nii.gz"))
    assert nib.load(seg).get_data_dtype() == np.uint8
    if layout in NAMES:
        expected = {f"{case.name}{suffix}.nii.gz" for suffix in NAMES[layout][1].split()}
        assert {file.name for file in folder.iterdir()} == expected


def test_volumes_are_rounded_to_integers(tmp_path: Path) -> None:
    case = made("BraTS2021_00001", "brats2021")
    folder = write_case(case, tmp_path, integer=True)
    image = nib.load(folder / "BraTS2021_00001_t1.nii.gz")
    assert image.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.rint(case.volumes["T1"]))
    loud = Case("a", {"T1": np.full(SHAPE, 4e4, np.float32)}, AFFINE, LAYOUTS["plain"])
    with pytest.raises(OutputError, match="int16"):
        write_case(loud, tmp_path, integer=True)


@pytest.mark.parametrize("layout", NAMES)
def test_labels_are_encoded_and_decoded(layout: str) -> None:
    numbers = NAMES[layout][2]
    indices = np.array([[0, 1], [2, 3]], dtype=np.uint8)
    encoded = encode_labels(indices, layout)
    assert encoded.dtype == np.uint8
    assert encoded.tolist() == [[0, numbers[0]], [numbers[1], numbers[2]]]
    np.testing.assert_array_equal(decode_labels(encoded, layout), indices)
    if layout != "brats2024":
        with pytest.raises(CaseError, match=f"{layout} has no label value for the class RC"):
            encode_labels(np.array([4]), layout)
    with pytest.raises(CaseError, match="not a class index"):
        encode_labels(np.array([9]), layout)


# --- real scans ---


def real(name: str) -> Path:
    root = Path(os.environ.get("NEUROXAI_SHARED") or Path(__file__).parents[3] / "shared" / "data")
    if not (root / name).exists():
        pytest.skip(f"no real scans at {root / name}")
    return root / name


@pytest.mark.real
@pytest.mark.parametrize(("name", "layout"), [("brats2018", "brats2018"), ("brats2023",) * 2])
def test_real_cases(name: str, layout: str) -> None:
    (folder,) = find_cases(real(name))
    case = read_case(folder)
    assert case.layout.name == layout
    assert case.shape == (240, 240, 155)
    assert case.warnings == ()
    for modality, source in case.sources.items():
        oracle = nib.load(source.path)
        if modality != "truth":
            np.testing.assert_array_equal(case.volumes[modality], oracle.get_fdata())
        else:
            labels = np.asarray(oracle.dataobj)
            assert case.truth is not None
            for index, number in enumerate((0, 1, 2, 4)):
                np.testing.assert_array_equal(case.truth == index, labels == number)


@pytest.mark.real
def test_awkward_files_are_read_or_refused() -> None:
    outcome = {}
    for file in sorted(real("awkward").rglob("*")):
        if file.is_dir():
            continue
        try:
            case = read_case(files={"T1": file}, modalities=["T1"])
        except CaseError as refusal:
            outcome[file.name] = str(refusal)
        else:
            oracle = nib.load(file)
            np.testing.assert_array_equal(case.volumes["T1"], oracle.get_fdata(dtype=np.float32))
            np.testing.assert_allclose(case.affine, oracle.affine, atol=1e-6)
            outcome[file.name] = "read"
    assert all(what == "read" or name in what for name, what in outcome.items())
    assert {name for name, what in outcome.items() if what == "read"} == {
        "anatomical.nii", "reoriented_anat_moved.nii", "someones_anatomy.nii.gz", "standard.nii.gz",
    }  # fmt: skip
