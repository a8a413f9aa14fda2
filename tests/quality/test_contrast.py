"""Swapped sequences and missing contrast agent, on made figures and on a phantom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from neuroxai.data.case import Case
from neuroxai.data.layouts import get_layout
from neuroxai.data.phantom import make_phantom
from neuroxai.quality import check_case
from neuroxai.quality.coarse import CoarseCase
from neuroxai.quality.contrast import csf_brightness, unexplained

NAMES = ("T1", "T1ce", "T2", "FLAIR")


@pytest.fixture(scope="module")
def phantom() -> Case:
    return make_phantom(7, spacing=3.0, grade="HGG").case


def swapped(case: Case, one: str, other: str) -> Case:
    volumes = dict(case.volumes)
    volumes[one], volumes[other] = volumes[other], volumes[one]
    return replace(case, volumes=volumes)


def test_csf_is_bright_on_the_sequence_that_is_bright_where_the_others_are_dark() -> None:
    """The brightest 2.5 % of a normal distribution have the mean phi(z) / 0.025."""
    count = 40_000
    fluid = np.arange(count) < count // 40
    generator = np.random.default_rng(0)

    def ranks(values: NDArray[np.float64]) -> NDArray[np.float32]:
        order = values.argsort().argsort()
        found: NDArray[np.float32] = stats.norm.ppf((order + 0.5) / count).astype(np.float32)
        return found

    found = csf_brightness({
        name: ranks(generator.standard_normal(count) + (20 if name == "T2" else -20) * fluid)
        for name in NAMES
    })  # fmt: skip
    tail = float(stats.norm.pdf(stats.norm.ppf(0.975)) / 0.025)
    assert found["T2"] == pytest.approx(tail, abs=0.01)
    assert max(found["T1"], found["T1ce"], found["FLAIR"]) < 0


def test_what_the_other_sequences_do_not_explain_has_the_planted_tails() -> None:
    """Of normal residuals with 0.3 % outliers, the 99.9th percentile is that of the outliers."""
    shape, generator = (44, 48, 40), np.random.default_rng(5)
    others = {name: 1 + 0.1 * generator.standard_normal(shape) for name in ("T1", "T2", "FLAIR")}
    smooth = others["T2"] - 0.4 * others["FLAIR"]
    noise = 0.02 * generator.standard_normal(shape)
    outliers = generator.random(shape) < 0.003
    images = others | {"T1ce": 1 + smooth + noise + 0.4 * outliers}
    inside = np.zeros(shape, bool)
    inside[2:-2, 2:-2, 2:-2] = True
    volumes = {name: np.where(inside, 1000 * images[name], 0).astype(np.float32) for name in NAMES}
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    scan = CoarseCase.of(Case("made", volumes, affine, get_layout("plain")))
    asymmetry, tail = unexplained(scan, "T1ce")
    high, low = 0.4 + 0.02 * stats.norm.ppf(2 / 3), 0.02 * stats.norm.ppf(0.999)
    assert asymmetry == pytest.approx(np.log(high / low), abs=0.1)
    assert tail == pytest.approx(high / 0.02, rel=0.1)
    symmetric, _ = unexplained(scan, "T1")
    assert abs(symmetric) < 0.3


def test_a_right_phantom_has_no_alarm(phantom: Case) -> None:
    found = check_case(phantom)
    assert not found.alarms
    assert not found.not_checked


@pytest.mark.parametrize(
    ("one", "other", "check"),
    [("T2", "FLAIR", "contrast"), ("T1", "T2", "contrast"), ("T1", "T1ce", "enhancement")],
)
def test_swapped_files_are_named(phantom: Case, one: str, other: str, check: str) -> None:
    (alarm,) = check_case(swapped(phantom, one, other)).alarms
    assert alarm.check == check
    assert set(alarm.sequences) == {one, other}


def test_a_t1ce_that_is_a_second_t1_is_a_notice(phantom: Case) -> None:
    generator = np.random.default_rng(1)
    t1 = phantom.volumes["T1"]
    again = np.where(t1 > 0, t1 + 0.1 * t1[t1 > 0].mean() * generator.standard_normal(t1.shape), 0)
    volumes = {**phantom.volumes, "T1ce": again.clip(0).astype(np.float32)}
    found = check_case(replace(phantom, volumes=volumes))
    assert [each.check for each in found.notices] == ["enhancement"]
    assert found.notices[0].sequences == ("T1ce",)


def test_other_checks_cannot_tell_where_a_sequence_is_displaced(phantom: Case) -> None:
    moved = {**phantom.volumes, "FLAIR": np.roll(phantom.volumes["FLAIR"], 4, 0)}
    found = check_case(replace(phantom, volumes=moved))
    assert "alignment" in {each.check for each in found.alarms}
    reasons = {each.check: each.reason for each in found.not_checked}
    assert reasons["contrast"] == "needs a scan without an alarm of: alignment"
