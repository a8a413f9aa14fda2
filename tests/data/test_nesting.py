"""Label values of another layout are recognized by their nesting in the picture."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.brats import read_case
from neuroxai.data.case import CLASSES
from neuroxai.data.nesting import exposures

SCAN = np.arange(12 * 13 * 14, dtype=np.int16).reshape(12, 13, 14)


def tumor(edema: int, core: int, enhancing: int) -> NDArray[np.uint8]:
    """Return a core in a rim of enhancement in edema."""
    labels = np.zeros(SCAN.shape, np.uint8)
    labels[1:10, 2:10, 2:11] = edema
    labels[3:8, 4:8, 4:9] = enhancing
    labels[4:7, 5:7, 5:8] = core
    return labels


def case(folder: Path, labels: NDArray[np.uint8], name: str = "P1") -> Path:
    for suffix, data in (("t1ce", SCAN), ("seg", labels)):
        nib.save(nib.Nifti1Image(data, np.eye(4)), folder / f"{name}_{suffix}.nii.gz")
    return folder


def test_exposures_are_counted_face_by_face() -> None:
    labels = tumor(1, 2, 3)
    padded = np.pad(labels, 1)
    faces = {value: [0, 0] for value in (1, 2, 3)}
    for index in itertools.product(*(range(1, n - 1) for n in padded.shape)):
        for axis, step in itertools.product(range(3), (-1, 1)):
            beside = list(index)
            beside[axis] += step
            value, other = padded[index], padded[tuple(beside)]
            if value and value != other:
                faces[value][0] += int(other == 0)
                faces[value][1] += 1
    assert exposures(labels) == {value: a / b for value, (a, b) in faces.items()}
    assert exposures(np.zeros_like(labels)) == {}


def test_the_hint_follows_the_nesting(tmp_path: Path) -> None:
    """1 edema, 2 necrosis, 3 enhancing, of nnU-Net and the Decathlon, against 1, 2, 3 of 2023."""
    for numbers, proposed, never in (
        ((1, 2, 3), "decathlon (1 ED, 2 NCR, 3 ET)", "brats2023"),
        ((2, 1, 3), "brats2023 (1 NCR, 2 ED, 3 ET)", "decathlon"),
        ((3, 1, 2), "none known", "brats2023 ("),
    ):
        labels = tumor(*numbers)
        with pytest.raises(CaseError, match="unknown label values 3") as caught:
            read_case(case(tmp_path, labels), modalities=["T1ce"])
        assert proposed in str(caught.value)
        assert never not in str(caught.value)
    found = read_case(case(tmp_path, tumor(1, 2, 3)), modalities=["T1ce"], layout="decathlon")
    assert found.warnings == ()
    for name, number in (("ED", 1), ("NCR", 2), ("ET", 3)):
        np.testing.assert_array_equal(found.truth == CLASSES.index(name), tumor(1, 2, 3) == number)


def test_two_readings_are_both_named(tmp_path: Path) -> None:
    labels = tumor(1, 3, 3)
    with pytest.raises(CaseError, match="cannot tell") as caught:
        read_case(case(tmp_path, labels), modalities=["T1ce"])
    assert "decathlon (1 ED, 3 ET) or brats2023 (1 NCR, 3 ET)" in str(caught.value)


@pytest.mark.parametrize(
    ("numbers", "layout", "word"),
    [
        ((2, 1, 3), "brats2023", None), ((1, 2, 3), "brats2023", "decathlon (1 ED, 2 NCR, 3 ET)"),
        ((2, 1, 4), None, None), ((1, 2, 4), None, "2 (ED) is enclosed by 1 (NCR)"),
        ((4, 2, 1), None, "4 (ET)"), ((4, 2, 1), "brats2024-ped", None),
        ((1, 1, 1), None, "whole tumor"), ((2, 2, 2), None, None), ((0, 0, 0), None, None),
    ],
)  # fmt: skip
def test_known_values_in_another_nesting_warn(
    tmp_path: Path, numbers: tuple[int, int, int], layout: str | None, word: str | None
) -> None:
    path = case(tmp_path, tumor(*numbers))
    warnings = read_case(path, modalities=["T1ce"], layout=layout).warnings
    assert len(warnings) == (word is not None)
    assert word is None or word in warnings[0]
