"""Preparation of cases: cropping, cache, split by patient, parallel processes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroxai.core.errors import CaseError, TrainingError
from neuroxai.data.brats import write_case
from neuroxai.data.case import Case
from neuroxai.data.layouts import LAYOUTS
from neuroxai.data.placement import Placement
from neuroxai.data.preparation import truth_on_network_grid
from neuroxai.training.config.config import Config
from neuroxai.training.data import cases as cases_module
from neuroxai.training.data import jobs
from neuroxai.training.data.cases import prepare_cases

SHAPE = (22, 28, 18)


def study(seed: int, **changes: Any) -> Case:
    """Case with LPS axes: a box of brain with a lesion on the patient's left."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(SHAPE, np.uint8)
    brain = np.zeros(SHAPE, bool)
    brain[3:19, 4:25, 2:16] = True
    truth[5:9, 10:16, 5 + seed % 3 : 11] = 2
    truth[6:8, 12:14, 7:9] = 3
    volumes = {
        name: np.where(brain, rng.uniform(50, 100, SHAPE) + 30 * truth, 0).astype(np.float32)
        for name in ("T1", "T1ce", "T2", "FLAIR")
    }
    case = Case(
        name=f"BraTS2021_{seed:05}",
        volumes=volumes,
        affine=np.array([[-1.0, 0, 0, 0], [0, -1, 0, 27], [0, 0, 1, 0], [0, 0, 0, 1]]),
        layout=LAYOUTS["brats2021"],
        truth=truth,
        grade="HGG" if seed % 2 else "LGG",
    )
    return dataclasses.replace(case, **changes)


def config(tmp_path: Path, **changes: Any) -> Config:
    table = {
        "name": "n",
        "task": "segmentation",
        "architecture": "deepseg",
        "modalities": ["FLAIR", "T1ce"],
        "preprocessing": {"size": [20, 24, 16], "divisor": 4},
        "data": {"phantom": {"train": [0, 3], "test": [7, 9], "spacings": [1.0, 2.0]}},
        "max_steps": 1,
        "workers": 1,
        "cache": str(tmp_path / "cache"),
    }
    return Config.from_dict(table | changes)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replace phantoms by small cases; returns the jobs that were run."""
    jobs: list[Any] = []

    def make(job: Any) -> Case:
        jobs.append(job)
        return study(job.phantom["seed"])

    monkeypatch.setattr(cases_module, "_case", make)
    return jobs


def test_a_prepared_volume_is_the_input_of_the_network(tmp_path: Path, made: list[Any]) -> None:
    settings = config(tmp_path)
    first = prepare_cases(settings).train[0]
    case = study(0)
    prepared = settings.preprocessing.prepare(case)
    image, truth = first.uncropped()
    np.testing.assert_allclose(image, prepared.x[0].numpy(), atol=1e-3)
    np.testing.assert_array_equal(truth, truth_on_network_grid(case, prepared.placement))
    assert first.images.shape[1:] == (16, 21, 14), "cropped to the brain"
    assert case.truth is not None
    assert list(first.counts) == np.bincount(case.truth.ravel(), minlength=5).tolist()


def test_training_phantoms_alternate_spacings_and_test_phantoms_have_all(
    tmp_path: Path, made: list[Any]
) -> None:
    found = prepare_cases(config(tmp_path))
    assert [(job.phantom["seed"], job.phantom["spacing"]) for job in made[:3]] == [
        (0, 1.0),
        (1, 2.0),
        (2, 1.0),
    ]
    assert [(job.phantom["seed"], job.phantom["spacing"]) for job in made[3:]] == [
        (7, 1.0),
        (8, 1.0),
        (7, 2.0),
        (8, 2.0),
    ]
    assert (len(found.train), len(found.test), found.validation, found.split) == (3, 4, [], [])


def test_a_repeated_spacing_is_trained_more_often_and_tested_once(
    tmp_path: Path, made: list[Any]
) -> None:
    source = {"phantom": {"train": [0, 6], "test": [7, 9], "spacings": [1.0, 2.0, 2.0]}}
    found = prepare_cases(config(tmp_path, data=source))
    assert [job.phantom["spacing"] for job in made[:6]] == [1.0, 2.0, 2.0] * 2
    assert [case.group for case in found.test] == ["seed-7", "seed-8"] * 2
    assert len(found.train) == 6


def test_cached_cases_are_reused_until_the_recipe_changes(tmp_path: Path, made: list[Any]) -> None:
    reported: list[tuple[str, float, float]] = []
    prepare_cases(config(tmp_path), report=lambda *what: reported.append(what))
    assert [reported[0], reported[-1]] == [("Preparing cases", 0, 7), ("Preparing cases", 7, 7)]
    made.clear()
    prepare_cases(config(tmp_path))
    prepare_cases(config(tmp_path, preprocessing={"size": [16, 24, 16], "divisor": 4}))
    assert [job.phantom["seed"] for job in made] == [0, 1, 2, 7, 8, 7, 8], (
        "those of the second recipe"
    )


def test_a_damaged_cache_file_is_prepared_again(tmp_path: Path, made: list[Any]) -> None:
    prepare_cases(config(tmp_path))
    made.clear()
    damaged = sorted((tmp_path / "cache").glob("*.npy"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-5])
    prepare_cases(config(tmp_path))
    assert len(made) == 1


def test_slices_intersect_the_tumor_largest_area_first(tmp_path: Path, made: list[Any]) -> None:
    settings = config(
        tmp_path,
        task="classification",
        architecture="resnet50",
        classes=["LGG", "HGG"],
        preprocessing={"size": [24, 32], "plane": "axial"},
        slices_per_case=3,
    )
    train = prepare_cases(settings).train
    assert [case.grade for case in train] == [0, 1, 0]
    case = study(1)
    assert case.truth is not None
    areas = Placement.fit(case.shape, case.affine).reorient(case.truth > 0).sum((0, 1))
    expected = settings.preprocessing.prepare(case, slice_index=int(areas.argmax()))
    np.testing.assert_allclose(train[1].images[0], expected.x[0].numpy(), atol=1e-3)
    assert train[1].images.shape == (3, 2, 24, 32)
    assert train[1].truth.shape == (3, 24, 32)
    marked = truth_on_network_grid(case, expected.placement)
    np.testing.assert_array_equal(train[1].truth[0], marked)
    assert len({image.tobytes() for image in train[1].images}) == 3


def test_classifiers_leave_out_cases_without_grade_or_tumor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd: dict[int, dict[str, Any]] = {0: {"grade": None}, 1: {"truth": np.zeros(SHAPE, np.uint8)}}
    monkeypatch.setattr(
        cases_module,
        "_case",
        lambda job: study(job.phantom["seed"], **odd.get(job.phantom["seed"], {})),
    )
    settings = config(
        tmp_path,
        task="classification",
        classes=["LGG", "HGG"],
        preprocessing={"size": [24, 32], "plane": "axial"},
    )
    for _ in range(2):
        found = prepare_cases(settings)
        assert [case.name for case in found.train] == ["BraTS2021_00002"]
        assert len(found.test) == 4


def test_a_case_without_truth_raises_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases_module, "_case", lambda job: study(job.phantom["seed"], truth=None))
    with pytest.raises(CaseError, match="BraTS2021_00000: has no truth"):
        prepare_cases(config(tmp_path))


@pytest.mark.parametrize("layout", ["brats2021", "brats2023"])
def test_a_cohort_is_split_by_patient(tmp_path: Path, layout: str) -> None:
    folder = tmp_path / "cohort"
    for patient in range(5):
        for visit in range(2 if layout == "brats2023" else 1):
            name = (
                f"BraTS-GLI-{patient:05}-{visit:03}"
                if layout == "brats2023"
                else f"BraTS2021_{patient:05}"
            )
            write_case(study(patient, name=name, layout=LAYOUTS[layout]), folder, layout)
    settings = config(tmp_path, data={"cohort": {"folder": str(folder), "test_fraction": 0.4}})
    found = prepare_cases(settings)
    train, test = found.train, found.test
    assert {member.part for member in found.split} == {"train", "test"}
    assert not {case.group for case in train} & {case.group for case in test}
    assert len({case.group for case in test}) == 2
    assert len({case.group for case in train}) == 3
    again = prepare_cases(settings).test
    assert [case.name for case in again] == [case.name for case in test]

    named = test[0].group
    explicit = {"cohort": {"folder": str(folder), "test": [named]}}
    test = prepare_cases(config(tmp_path, data=explicit)).test
    assert {case.group for case in test} == {named}
    with pytest.raises(TrainingError, match="no patient 'X'"):
        prepare_cases(config(tmp_path, data={"cohort": {"folder": str(folder), "test": ["X"]}}))


@pytest.mark.parametrize("kind", ["cohort", pytest.param("phantom", marks=pytest.mark.soak)])
def test_parallel_processes_prepare_the_same_cases(tmp_path: Path, kind: str) -> None:
    """The tests of phantom cohorts compare phantoms from parallel processes."""
    source: dict[str, Any] = {"cohort": {"folder": str(tmp_path / "cohort")}}
    if kind == "cohort":
        for patient in range(4):
            write_case(study(patient), tmp_path / "cohort", "brats2021")
    else:
        source = {"phantom": {"train": [0, 2], "test": [7, 7], "spacings": [3.0]}}
    size = {"preprocessing": {"size": [64, 80, 64], "divisor": 16}, "data": source}
    many = prepare_cases(config(tmp_path, workers=2, cache=str(tmp_path / "many"), **size)).train
    one = prepare_cases(config(tmp_path, cache=str(tmp_path / "one"), **size)).train
    assert [case.name for case in many] == [case.name for case in one]
    for parallel, serial in zip(many, one, strict=True):
        np.testing.assert_array_equal(parallel.images, serial.images)
        np.testing.assert_array_equal(parallel.truth, serial.truth)


def test_the_cache_contains_one_entry_per_case(tmp_path: Path, made: list[Any]) -> None:
    prepare_cases(config(tmp_path))
    metas = [json.loads(path.read_text()) for path in (tmp_path / "cache").glob("*.json")]
    assert {meta["name"] for meta in metas} == {f"BraTS2021_{n:05}" for n in (0, 1, 2, 7, 8)}
    assert not list((tmp_path / "cache").glob(".*"))


def test_the_cache_depends_on_code_that_exists() -> None:
    """A renamed module would no longer invalidate prepared cases."""
    for pattern in jobs._PREPARATION:
        assert list(jobs._DATA.glob(pattern)), pattern
