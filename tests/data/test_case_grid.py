"""Files on other grids, resampled to that of one modality."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.eulerangles import euler2mat
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from cases import LPS, SHAPE, STUDY, tiny, volumes, write_study
from command_line import here
from neuroxai.core.errors import CaseError, MissingExtraError
from neuroxai.data.brats import read_case

Array = NDArray[Any]

TURNED = np.eye(4)
TURNED[:3, :3] = euler2mat(0.1, -0.2, 0.15) @ np.diag([-1.1, -0.9, 1.7])
TURNED[:3, 3] = 14.0, 31.0, -12.0
SHEAR = np.eye(4)
SHEAR[0, 1] = 0.2
SHIFTED = LPS.copy()
SHIFTED[:3, 3] += 0.3
OTHER_AXES = np.array([[0, 0, 1.3, -14.0], [1.2, 0, 0, -15], [0, -0.8, 0, 18], [0, 0, 0, 1]])
GRIDS = {
    "turned": (TURNED, (24, 50, 21)),
    "sheared": (TURNED @ SHEAR, (24, 50, 21)),
    "other axes": (OTHER_AXES, (40, 33, 22)),
    "shifted by 0.3 voxels": (SHIFTED, SHAPE),
}
MARKER = np.array([-4.0, 9.0, 6.0])
"""Position in mm, RAS+: left, front, top."""


def centers(affine: Array, shape: tuple[int, ...]) -> Array:
    """Return the positions of all voxels in mm, ``(3, I, J, K)``."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    return np.asarray(
        np.einsum("ij,j...->i...", affine[:3, :3], index) + affine[:3, 3, None, None, None]
    )


def blob(affine: Array, shape: tuple[int, ...], mm: float = 4.0) -> Array:
    """Return a Gaussian around the marker, computed at the position of every voxel."""
    distance = ((centers(affine, shape) - MARKER[:, None, None, None]) ** 2).sum(0)
    return np.asarray(1000 * np.exp(-distance / (2 * mm**2)), np.float32)


def pair(folder: Path, affine: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Write T1ce on one grid, FLAIR and labels on another; return image and labels of the other."""
    rng = np.random.default_rng(3)
    folder.mkdir(exist_ok=True)
    t1ce = blob(LPS, SHAPE) + 1
    flair = np.asarray(blob(affine, shape) + rng.uniform(1, 50, shape), np.float32)
    labels = np.asarray((blob(affine, shape) > 300) * rng.choice([1, 2, 4], shape), np.uint8)
    nib.save(nib.Nifti1Image(t1ce, LPS), folder / "P1_t1ce.nii.gz")
    nib.save(nib.Nifti1Image(flair, affine), folder / "P1_flair.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), folder / "P1_seg.nii.gz")
    return flair, labels


def by_scipy(data: Array, affine: Array, order: int) -> tuple[Array, Array]:
    """Return a volume at the voxel centers of T1ce, and where these are well inside the volume."""
    world = centers(LPS, SHAPE).reshape(3, -1)
    index = np.linalg.solve(affine[:3, :3], world - affine[:3, 3, None])
    values = map_coordinates(data.astype(float), index, order=order, mode="nearest")
    last = np.array(data.shape)[:, None] - 1
    inside = ((index > 0.01) & (index < last - 0.01)).all(0)
    if order == 0:  # halfway between two voxels, rounding decides
        inside &= (np.abs(index - np.floor(index) - 0.5) > 0.01).all(0)
    return values.reshape(SHAPE), inside.reshape(SHAPE)


@pytest.mark.parametrize("grid", list(GRIDS))
def test_images_and_labels_are_where_scipy_puts_them(tmp_path: Path, grid: str) -> None:
    affine, shape = GRIDS[grid]
    flair, labels = pair(tmp_path, affine, shape)
    case = read_case(tmp_path, modalities=["FLAIR", "T1ce"], layout="brats2021", resample_to="T1ce")
    assert case.shape == SHAPE
    np.testing.assert_array_equal(case.affine, LPS)
    np.testing.assert_array_equal(case.volumes["T1ce"], blob(LPS, SHAPE) + 1)
    assert list(case.volumes) == ["FLAIR", "T1ce"]

    expected, inside = by_scipy(flair, affine, 1)
    assert inside.mean() > 0.4
    np.testing.assert_allclose(case.volumes["FLAIR"][inside], expected[inside], atol=0.01)
    expected, inside = by_scipy(labels, affine, 0)
    assert case.truth is not None
    classes = np.array([0, 1, 2, 0, 3])[expected.astype(int)]  # NCR, ED, ET of 2021
    np.testing.assert_array_equal(case.truth[inside], classes[inside])
    assert {1, 2, 3} <= {*case.truth[inside].tolist()}


@pytest.mark.parametrize("grid", list(GRIDS))
def test_the_marker_stays_at_its_position_in_mm(tmp_path: Path, grid: str) -> None:
    affine, shape = GRIDS[grid]
    pair(tmp_path, affine, shape)
    case = read_case(tmp_path, modalities=["FLAIR", "T1ce"], resample_to="T1ce")
    weights = np.clip(case.volumes["FLAIR"] - 300, 0, None)
    where = (centers(case.affine, case.shape) * weights).sum((1, 2, 3)) / weights.sum()
    assert np.abs(where - MARKER).max() < 0.15
    assert np.abs(where * [-1, 1, 1] - MARKER).max() > 5  # a mirrored result fails


def test_what_was_resampled_is_said(tmp_path: Path) -> None:
    pair(tmp_path, *GRIDS["turned"])
    case = read_case(tmp_path, modalities=["FLAIR", "T1ce"], resample_to="t1c")
    said = {what: source.resampled for what, source in case.sources.items()}
    assert said["T1ce"] is None
    assert "grid of T1ce (SimpleITK, linear); " in str(said["FLAIR"])
    assert "grid of T1ce (SimpleITK, nearest neighbor); " in str(said["truth"])
    assert {said["FLAIR"], said["truth"]} <= {*case.warnings}
    _, inside = by_scipy(np.zeros(GRIDS["turned"][1]), TURNED, 1)
    percent = float(str(said["FLAIR"]).split("; ")[1].split("%")[0])
    assert percent == pytest.approx(100 * (1 - inside.mean()), abs=8)  # half a voxel at each edge
    assert (case.volumes["FLAIR"] == 0).mean() == pytest.approx(percent / 100, abs=0.001)


def test_files_on_the_grid_are_not_interpolated(tmp_path: Path) -> None:
    turned = write_study(tmp_path, turn=np.array([[1, 1], [0, -1], [2, 1.0]]))
    plain = read_case(turned, modalities=["T1", "T1ce"])
    asked = read_case(turned, modalities=["T1", "T1ce"], resample_to="T1ce")
    for name in plain.volumes:
        np.testing.assert_array_equal(asked.volumes[name], plain.volumes[name])
    assert all(source.resampled is None for source in asked.sources.values())


def test_other_grids_are_refused_unless_asked(tmp_path: Path) -> None:
    pair(tmp_path, *GRIDS["turned"])
    with pytest.raises(CaseError, match=r"P1_flair|P1_t1ce"):
        read_case(tmp_path, modalities=["FLAIR", "T1ce"])
    with pytest.raises(CaseError, match="'T2', which is not read; known: FLAIR, T1ce"):
        read_case(tmp_path, modalities=["FLAIR", "T1ce"], resample_to="T2")


def test_scans_that_do_not_overlap_are_refused(tmp_path: Path) -> None:
    far = LPS.copy()
    far[0, 3] += 500
    pair(tmp_path, far, SHAPE)
    with pytest.raises(CaseError, match=r"P1_flair.nii.gz: does not overlap .*P1_t1ce.nii.gz"):
        read_case(tmp_path, modalities=["FLAIR", "T1ce"], resample_to="T1ce")


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pair(tmp_path, *GRIDS["turned"])
    plain = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "SimpleITK":
            raise ImportError(name)
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"neuroxai\[itk\]"):
        read_case(tmp_path, modalities=["FLAIR", "T1ce"], resample_to="T1ce")


COMMANDS = {
    "check": [],
    "explain": ["--method", "vanilla_gradient", "--target", "WT"],
    "predict": [],
    "inspect": ["--target", "WT"],
    "shapley": ["--target", "WT"],
    "measure": ["--method", "vanilla_gradient", "--metric", "sparseness"],
    "evaluate": [],
    "dissect": ["--no-tissues", "--causal", "0"],
}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a small network and a study whose T1ce has thicker slices."""
    folder = tmp_path_factory.mktemp("room")
    place = write_study(folder / "cohort")
    image = volumes()[0]["T1ce"][:, :, ::2]
    thick = LPS @ np.diag([1, 1, 2.0, 1])
    nib.save(nib.Nifti1Image(image, thick), place / f"{STUDY}_t1ce.nii.gz")
    regions: dict[str, tuple[str, ...]] = {"WT": ("NCR", "ED", "ET")}
    tiny(folder / "tiny", ("background", "NCR", "ED", "ET"), regions)
    return folder


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_that_reads_a_case(room: Path, tmp_path: Path, command: str) -> None:
    cohort = command in ("evaluate", "dissect")
    asked = [command, room / "cohort" / ("" if cohort else STUDY), *COMMANDS[command], "--json"]
    if command != "check":
        asked += ["--model", room / "tiny", "-o", tmp_path / "out"]
    refused = here(*asked)
    assert refused.returncode == 1
    assert "resample both to one grid" in refused.stderr
    run = here(*asked, "--resample-to", "T1ce")
    assert run.returncode == 0 or (command == "check" and run.returncode == 3), run.stderr
    if not cohort:
        assert (
            sum("grid of T1ce (SimpleITK" in each for each in json.loads(run.stdout)["warnings"])
            >= 3
        )


def test_maps_are_on_that_grid_and_their_sidecar_says_so(room: Path, tmp_path: Path) -> None:
    run = here(
        "explain", room / "cohort" / STUDY, "--model", room / "tiny", *COMMANDS["explain"],
        "-o", tmp_path, "--resample-to", "T1ce",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    (file,) = tmp_path.glob("*_statmap.nii.gz")
    assert nib.load(file).shape[:3] == (26, 45, 15)
    sidecar = json.loads(Path(str(file).removesuffix(".nii.gz") + ".json").read_text("utf-8"))
    assert "SimpleITK, linear" in sidecar["inputs"]["T1"]["resampled"]
    assert "resampled" not in sidecar["inputs"]["T1ce"]


def test_a_training_reads_its_cases_so_too(room: Path) -> None:
    from neuroxai.training.data import cases, jobs

    recipe = json.dumps({"modalities": ["T1", "T1ce"]})
    path = str(room / "cohort" / STUDY)
    job = jobs.Job("", "", path, {}, "segmentation", recipe, (), 0, None, "T1ce")
    assert cases._case(job).shape == (26, 45, 15)
