"""Tissues told from the T1, against phantoms whose tissues are known."""

from __future__ import annotations

import builtins
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from neuroxai.core.errors import MissingExtraError
from neuroxai.data.case import Case
from neuroxai.data.layouts import LAYOUTS
from neuroxai.data.phantom import make_phantom
from neuroxai.data.tissues import KNOWN, SEGMENTED, segment_tissues, tissues_of

SHARES = (0.15, 0.45, 0.40)


def painted(values: tuple[float, float, float], noise: float = 0.02) -> tuple[Case, Any]:
    """Return a head of three gray values in random places, and which one lies where."""
    rng = np.random.default_rng(3)
    tissues = rng.choice([1, 2, 3], p=SHARES, size=(20, 26, 18)).astype(np.uint8)
    image = np.array([0.0, *values])[tissues] + rng.normal(0, noise, tissues.shape)
    tissues[:3] = 0
    image[:3] = 0
    case = Case(
        "a", {"T1": image.astype(np.float32)}, np.diag([-1.0, 1, 1, 1]), LAYOUTS["brats2021"]
    )
    return case, tissues


@pytest.mark.parametrize("scale", [1.0, 900.0, 1e-4])
def test_three_gray_values_are_told_apart_in_any_unit(scale: float) -> None:
    case, tissues = painted((0.3, 0.75, 1.0))
    volume = case.volumes["T1"] * np.float32(scale)
    np.testing.assert_array_equal(segment_tissues(replace(case, volumes={"T1": volume})), tissues)


def test_the_tumor_is_no_tissue() -> None:
    case, tissues = painted((0.3, 0.75, 1.0))
    truth = np.zeros(case.shape, np.uint8)
    truth[8:12, 5:12, 4:9] = 2
    volume = case.volumes["T1"].copy()
    volume[truth > 0] = 40.0
    found = segment_tissues(replace(case, volumes={"T1": volume}, truth=truth))
    np.testing.assert_array_equal(found, np.where(truth > 0, 0, tissues))


def test_they_follow_the_scan_when_it_is_turned() -> None:
    case, _ = painted((0.3, 0.75, 1.0), noise=0.08)
    plain = segment_tissues(case)
    assert plain is not None
    turned = replace(case, volumes={"T1": case.volumes["T1"].transpose(2, 0, 1)[::-1]})
    np.testing.assert_array_equal(segment_tissues(turned), plain.transpose(2, 0, 1)[::-1])


def test_without_contrast_or_t1_there_are_none() -> None:
    case, _ = painted((0.5, 0.5, 0.5), noise=0.0)
    assert tissues_of(case) == (None, None)
    assert tissues_of(replace(case, volumes={"FLAIR": case.volumes["T1"]})) == (None, None)


@pytest.mark.slow
def test_on_phantoms_most_voxels_are_right() -> None:
    scores = []
    for seed in (600_001, 600_003, 600_007, 600_011):
        phantom = make_phantom(seed, spacing=2.0)
        found, source = tissues_of(phantom.case)
        assert source == SEGMENTED
        assert found is not None
        truth = np.where((phantom.case.truth == 0) & phantom.case.brain(), phantom.tissues, 0)
        assert not found[truth == 0][~phantom.case.brain()[truth == 0]].any()
        scores.append([
            2 * ((found == k) & (truth == k)).sum() / ((found == k).sum() + (truth == k).sum())
            for k in (1, 2, 3)
        ])  # fmt: skip
    assert (np.mean(scores, axis=0) > 0.7).all()
    assert KNOWN != SEGMENTED


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    case, _ = painted((0.3, 0.75, 1.0))
    plain = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"neuroxai\[tissues\]"):
        segment_tissues(case)
