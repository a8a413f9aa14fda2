"""Cohorts of phantoms on disk: read as cases, completed, resumed."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroxai.core.errors import CaseError
from neuroxai.data.brats import read_case
from neuroxai.data.case_files import find_cases
from neuroxai.data.phantom import cohort, write_cohort
from session_cache import phantom

pytest.importorskip("nilearn", reason="the phantoms' anatomy lies in nilearn")


@pytest.fixture(autouse=True)
def reuse_phantoms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort, "make_phantom", phantom)


def rows(root: Path) -> list[dict[str, str]]:
    with (root / "phantoms.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def never(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a phantom was made again")


@pytest.mark.parametrize(
    "layout", ["brats2018", "brats2020", "brats2021", "brats2023", "brats2024"]
)
def test_a_cohort_is_read_as_the_phantoms_it_was_made_of(tmp_path: Path, layout: str) -> None:
    import nibabel

    root = tmp_path / "cohort"
    places = write_cohort(root, [11, 3], spacing=3.0, layout=layout, variant="edema_flair")
    assert sorted(places) == find_cases(root)
    for seed, place in zip([11, 3], places, strict=True):
        made = phantom(seed, spacing=3.0, variant="edema_flair")
        case = read_case(place)
        assert case.name == place.name
        assert case.layout.name == layout
        assert case.grade == made.case.grade
        assert case.warnings == ()
        np.testing.assert_allclose(case.affine, made.case.affine, atol=1e-5)
        for name, volume in made.case.volumes.items():
            np.testing.assert_array_equal(case.volumes[name], volume)
        assert case.truth is not None
        assert made.case.truth is not None
        np.testing.assert_array_equal(case.truth, made.case.truth)
        known = root / ".phantom" / place.name
        tissues: Any = nibabel.load(known / "tissues.nii.gz")
        np.testing.assert_array_equal(np.asarray(tissues.dataobj), made.tissues)
        cause: Any = nibabel.load(known / "cause.nii.gz")
        assert made.cause is not None
        np.testing.assert_array_equal(np.asarray(cause.dataobj) == 1, made.cause.mask)
        assert json.loads((known / "recipe.json").read_text())["cause"]["modalities"] == ["FLAIR"]
    if layout == "brats2018":
        assert {place.parent.name for place in places} <= {"HGG", "LGG"}
    assert sorted(int(row["seed"]) for row in rows(root)) == [3, 11]
    assert {row["variant"] for row in rows(root)} == {"edema_flair"}


def test_existing_cases_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_cohort(tmp_path, [1], spacing=3.0)
    calls: list[tuple[int, int]] = []
    both = write_cohort(
        tmp_path, [1, 2, 1], spacing=3.0, progress=lambda *counts: calls.append(counts)
    )
    assert both[:1] == first
    assert len(both) == 2
    assert calls == [(1, 2), (2, 2)]
    assert len(rows(tmp_path)) == 2
    monkeypatch.setattr(cohort, "make_phantom", never)
    assert write_cohort(tmp_path, [2, 1], spacing=3.0) == both[::-1]
    with pytest.raises(RuntimeError, match="made again"):
        write_cohort(tmp_path, [1], spacing=2.9)


@pytest.mark.parametrize("lost", ["recipe.json", "image", "note"])
def test_an_incomplete_case_is_made_again(tmp_path: Path, lost: str) -> None:
    (place,) = write_cohort(tmp_path, [4], spacing=3.0)
    image = place / f"{place.name}_t2.nii.gz"
    before = read_case(place).volumes["T2"]
    note = tmp_path / ".phantom" / place.name / "recipe.json"
    if lost == "recipe.json":
        note.unlink()
    elif lost == "image":
        image.unlink()
    else:
        note.write_text("{")
    assert write_cohort(tmp_path, [4], spacing=3.0) == [place]
    np.testing.assert_array_equal(read_case(place).volumes["T2"], before)


def test_another_recipe_replaces_the_case_and_its_files(tmp_path: Path) -> None:
    seed = next(
        s for s in range(20)
        if phantom(s, spacing=3.0).case.grade
        != phantom(s, spacing=3.0, variant="corner_marker").case.grade
    )  # fmt: skip
    write_cohort(tmp_path, [seed], spacing=3.0, layout="brats2018", variant="corner_marker")
    (place,) = write_cohort(tmp_path, [seed], spacing=3.0, layout="brats2018")
    assert find_cases(tmp_path) == [place]
    assert not (tmp_path / ".phantom" / place.name / "cause.nii.gz").exists()
    assert [row["variant"] for row in rows(tmp_path)] == [""]


def test_a_note_cannot_refer_outside_of_the_cohort(tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere" / "elsewhere_t1.nii.gz"
    outside.parent.mkdir()
    outside.write_text("precious")
    root = tmp_path / "cohort"
    (place,) = write_cohort(root, [1], spacing=3.0)
    note = root / ".phantom" / place.name / "recipe.json"
    content = json.loads(note.read_text())
    note.write_text(json.dumps(content | {"case": "../elsewhere"}))
    write_cohort(root, [1], spacing=2.9)
    assert outside.read_text() == "precious"


@pytest.mark.slow
def test_workers_write_what_one_process_writes(tmp_path: Path) -> None:
    alone = write_cohort(tmp_path / "alone", range(2), spacing=3.0)
    calls: list[tuple[int, int]] = []
    together = write_cohort(
        tmp_path / "together", range(2), spacing=3.0, workers=2,
        progress=lambda *counts: calls.append(counts),
    )  # fmt: skip
    assert calls == [(0, 2), (1, 2), (2, 2)]
    for a, b in zip(alone, together, strict=True):
        first, second = read_case(a), read_case(b)
        for name, volume in first.volumes.items():
            np.testing.assert_array_equal(volume, second.volumes[name])
        np.testing.assert_array_equal(np.asarray(first.truth), np.asarray(second.truth))
    assert rows(tmp_path / "alone") == rows(tmp_path / "together")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"workers": 0}, "number of workers 0"),
        ({"layout": "brats2022"}, "did you mean"),
        ({"variant": "corner"}, "variant"),
        ({"spacing": 9.0}, "0.8 to 3 mm"),
        ({"seeds": [1, -4]}, "phantom seed -4"),
    ],
)
def test_invalid_requests_write_nothing(
    tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(CaseError, match=words):
        write_cohort(tmp_path / "cohort", **{"seeds": [1], "spacing": 3.0, **arguments})
    assert not (tmp_path / "cohort").exists()
