"""Faint phantoms: less conspicuous tumors with the same labels; typical phantoms are unchanged."""

from __future__ import annotations

import hashlib
from dataclasses import asdict

import numpy as np
import pytest

from neuroxai.core.errors import CaseError
from neuroxai.data.case import CLASSES, MODALITIES
from neuroxai.data.phantom import Phantom, make_phantom
from neuroxai.data.phantom.contrast import draw_signals
from neuroxai.data.phantom.faint import draw_faint
from neuroxai.data.phantom.tumor import draw_plan

ED = CLASSES.index("ED")
SEEDS = range(60)


def digest(phantom: Phantom) -> str:
    found = hashlib.sha256(np.ascontiguousarray(phantom.case.truth).tobytes())
    for name in MODALITIES:
        found.update(np.ascontiguousarray(phantom.case.volumes[name]).tobytes())
    return found.hexdigest()


def test_a_faint_phantom_depends_on_its_seed_and_changes_no_typical_one() -> None:
    before = make_phantom(11, spacing=3.0)
    faint, again = (make_phantom(11, spacing=3.0, faint=True) for _ in range(2))
    assert digest(faint) == digest(again) != digest(before)
    assert digest(make_phantom(11, spacing=3.0)) == digest(before)
    assert "faint" in faint.recipe["drawn"]
    assert "faint" not in before.recipe["drawn"]


def test_the_head_is_the_same_and_edema_is_wider_and_paler() -> None:
    """The shade of edema at its margin: FLAIR against white matter, over its middle."""
    margins: dict[bool, list[float]] = {False: [], True: []}
    for seed in (3, 4, 9):
        typical, faint = (
            make_phantom(seed, spacing=3.0, grade="HGG", faint=faint) for faint in (False, True)
        )
        for made in (typical, faint):
            truth, flair = made.case.truth, made.case.volumes["FLAIR"]
            assert truth is not None
            white = np.median(flair[(made.tissues == 3) & (truth == 0)])
            margins[made is faint].append(float(np.median(flair[truth == ED]) / white))
        assert faint.case.truth is not None
        assert typical.case.truth is not None
        both = (faint.case.truth == 0) & (typical.case.truth == 0)
        np.testing.assert_array_equal(faint.tissues[both], typical.tissues[both])
        assert (faint.case.truth == ED).sum() >= (typical.case.truth == ED).sum()
    assert np.mean(margins[True]) < np.mean(margins[False]) - 0.05


def test_contrast_is_scaled_from_seven_tenths_to_twelve_tenths() -> None:
    factors = np.array([list(draw_faint(seed).contrast.values()) for seed in SEEDS])
    assert factors.min() < 0.75
    assert factors.max() > 1.15
    assert ((factors >= 0.7) & (factors <= 1.2)).all()
    for seed in SEEDS:
        faint, before = draw_faint(seed), draw_signals(seed)
        after = faint.signals(before)
        flair, white = faint.contrast["FLAIR"], before["FLAIR"]["WM"]
        for tissue in ("NCR", "NET", "ED", "ET"):
            expected = white + flair * (before["FLAIR"][tissue] - white)
            assert after["FLAIR"][tissue] == pytest.approx(expected)
        assert after["FLAIR"]["GM"] == before["FLAIR"]["GM"]


def test_labels_keep_their_meaning() -> None:
    """Enhancing is brighter on T1ce than white matter and than on T1, edema brighter on FLAIR."""
    for seed in SEEDS:
        signals = draw_faint(seed).signals(draw_signals(seed))
        relative = {m: {t: v / signals[m]["WM"] for t, v in signals[m].items()} for m in signals}
        assert relative["T1ce"]["ET"] > max(1.1, relative["T1"]["ET"])
        assert relative["FLAIR"]["ED"] > 1.05
        assert relative["T1"]["NCR"] < relative["T1"]["ED"]


def test_some_edema_is_as_dark_on_t1_and_as_bright_on_t2_as_necrosis() -> None:
    dark = [seed for seed in SEEDS if draw_faint(seed).dark_edema is not None]
    assert 0.2 < len(dark) / len(SEEDS) < 0.6
    for seed in dark:
        signals = draw_faint(seed).signals(draw_signals(seed))
        assert signals["T1"]["ED"] < 0.8 * signals["T1"]["WM"]
        assert signals["T2"]["ED"] > 1.5 * signals["T2"]["WM"]


def test_tails_of_t1ce_and_t2_are_heavier() -> None:
    for seed in SEEDS:
        before = draw_signals(seed)
        after = draw_faint(seed).signals(before)
        assert after["T1ce"]["vessel"] >= before["T1ce"]["vessel"]
        assert after["T2"]["CSF"] >= before["T2"]["CSF"]
        assert after["T1"]["vessel"] == before["T1"]["vessel"]


def test_enhancement_is_patchy_in_some_high_grade_tumors_only() -> None:
    patchy = 0
    for seed in SEEDS:
        high, low = draw_plan(seed, "HGG"), draw_plan(seed, "LGG")
        faint = draw_faint(seed)
        assert faint.plan(low).non_enhancing == low.non_enhancing
        assert faint.plan(high).edema_level <= high.edema_level
        patchy += faint.plan(high).non_enhancing != high.non_enhancing
    assert 0.3 < patchy / len(SEEDS) < 0.7
    assert asdict(draw_plan(5, "HGG"))["margin_signal"] == 1.0


def test_faint_and_a_planted_cause_are_refused() -> None:
    with pytest.raises(CaseError, match="cannot be combined with faint phantoms; omit faint"):
        make_phantom(1, spacing=3.0, variant="edema_flair", faint=True)
