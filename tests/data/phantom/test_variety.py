"""Wide phantoms: all variety occurs, labels keep their meaning, typical phantoms are unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt, label

from neuroxai.core.errors import CaseError
from neuroxai.data.case import CLASSES, MODALITIES
from neuroxai.data.phantom import Phantom, contrast, make_phantom, tumor, write_cohort
from neuroxai.data.phantom import make as making
from neuroxai.data.phantom.anatomy import draw_warp, sample_tissues
from neuroxai.data.phantom.artifacts import (
    Scanner,
    acquire,
    blur_image,
    degrade_scanners,
    draw_scanners,
)
from neuroxai.data.phantom.contrast import Scene
from neuroxai.data.phantom.field import lattice, stream
from neuroxai.data.phantom.make import grid
from neuroxai.data.phantom.tumor import SMALLEST_ENHANCEMENT
from neuroxai.data.phantom.variety import TYPICAL, Location, Variety, draw_variety
from session_cache import phantom, shared_object

LOCATIONS: tuple[Location, ...] = ("anywhere", "surface", "ventricles")
NCR, ED, ET = (CLASSES.index(name) for name in ("NCR", "ED", "ET"))


def wide(seed: int) -> Phantom:
    return phantom(seed, wide=True)


def forced(
    monkeypatch: pytest.MonkeyPatch, variety: Variety, seed: int, spacing: float = 3.0
) -> Phantom:
    """Make a high-grade phantom with the given variety and the scanner of a typical one."""
    monkeypatch.setattr(making, "draw_variety", lambda _seed: variety)
    monkeypatch.setattr(making, "degrade_scanners", lambda _seed, scanners: scanners)
    return shared_object(
        f"{variety} {seed} {spacing}",
        lambda: make_phantom(seed, spacing=spacing, grade="HGG", wide=True),
    )


def without_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the images, on which the labels do not depend."""

    def empty(seed: int, scene: Scene, *_: object) -> tuple[dict[str, Any], NDArray[np.bool_]]:
        shape = scene.brain.shape
        return {name: np.zeros(shape, np.float32) for name in MODALITIES}, np.zeros(shape, bool)

    monkeypatch.setattr(making, "_image", empty)


def test_every_kind_of_variety_occurs_but_not_always() -> None:
    drawn = [draw_variety(seed) for seed in range(300)]
    assert draw_variety(7) == draw_variety(7)
    for name in vars(TYPICAL):
        usual = [getattr(variety, name) == getattr(TYPICAL, name) for variety in drawn]
        assert 0.03 < 1 - np.mean(usual) < 0.85, name
    assert {variety.location for variety in drawn} == {"anywhere", "surface", "ventricles"}
    assert {variety.core for variety in drawn} == {"typical", "cyst", "blood"}
    assert {name for variety in drawn for name in variety.swapped_contrast} == set(MODALITIES)


def test_a_wide_phantom_depends_on_its_seed_and_differs_from_the_typical_one() -> None:
    again = make_phantom(5, spacing=3.0, wide=True)
    typical = phantom(5)
    for name, volume in wide(5).case.volumes.items():
        np.testing.assert_array_equal(volume, again.case.volumes[name])
        assert (volume != typical.case.volumes[name]).mean() > 0.05
    assert not typical.cavity.any()
    assert "variety" not in typical.recipe["drawn"]


def test_truth_is_in_the_brain_and_images_are_integers() -> None:
    for seed in range(8):
        made = wide(seed)
        truth = made.case.truth
        assert truth is not None
        assert set(np.unique(truth)) <= {0, NCR, ED, ET}
        for volume in made.case.volumes.values():
            np.testing.assert_array_equal(volume, np.rint(volume))
            assert np.isfinite(volume).all()
            assert (volume[truth > 0] != 0).all()
        assert not made.cavity[truth > 0].any()


def test_edema_and_enhancement_stay_visible() -> None:
    for seed in range(200):
        signals = contrast.draw_signals(seed, replace(draw_variety(seed), core="typical"))
        assert signals["FLAIR"]["ED"] > 1.1 * signals["FLAIR"]["WM"]
        assert signals["T1ce"]["ET"] > 1.15 * signals["T1ce"]["WM"]


def test_contrast_of_gray_and_white_matter_is_inverted_where_drawn() -> None:
    for modality in MODALITIES:
        for seed in range(20):
            plain = contrast.draw_signals(seed)[modality]
            swapped = contrast.draw_signals(seed, Variety(swapped_contrast=(modality,)))[modality]
            if modality == "T1":
                assert plain["GM"] < plain["WM"] < swapped["GM"]
            elif modality == "T2":
                assert plain["GM"] > plain["WM"] > swapped["GM"]


@pytest.mark.parametrize("core", ["cyst", "blood"])
def test_a_core_has_the_drawn_content(core: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = forced(monkeypatch, Variety(core=core), seed=2)  # type: ignore[arg-type]
    truth = made.case.truth
    assert truth is not None
    white = (made.tissues == 3) & (truth == 0)
    dead = truth == NCR
    t1 = made.case.volumes["T1"]
    ratio = np.median(t1[dead]) / np.median(t1[white])
    assert ratio > 1.02 if core == "blood" else ratio < 0.7


def test_a_tumor_without_enhancement_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made = forced(monkeypatch, Variety(enhances=False), seed=2)
    truth = made.case.truth
    assert truth is not None
    assert not (truth == ET).any()
    assert (truth == NCR).sum() > 50


def test_a_cavity_is_fluid_within_the_residual_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = forced(monkeypatch, Variety(resection_margin=3.0), seed=2, spacing=2.0)
    before = forced(monkeypatch, Variety(), seed=2, spacing=2.0)
    truth, cavity = made.case.truth, made.cavity
    assert truth is not None
    assert before.case.truth is not None
    core = np.isin(before.case.truth, (NCR, ET))
    assert cavity.sum() > 20
    assert core[cavity].mean() > 0.95
    assert np.isin(truth, (NCR, ET)).any()
    fluid = (made.tissues == 1) & (truth == 0) & ~cavity
    inner = cavity & ~binary_dilation(~cavity)
    ratio = np.median(made.case.volumes["T2"][inner]) / np.median(made.case.volumes["T2"][fluid])
    assert 0.7 < ratio < 1.5


def check_locations(
    outer: Mapping[Location, list[float]], inner: Mapping[Location, list[float]]
) -> None:
    """Check depths below the brain's surface and distances to the ventricles, in mm."""
    assert np.median(outer["surface"]) < np.median(outer["anywhere"]) - 3
    assert np.median(inner["ventricles"]) < np.median(inner["anywhere"]) - 3


def test_tumors_start_at_the_surface_and_at_the_ventricles() -> None:
    outer: dict[Location, list[float]] = {name: [] for name in LOCATIONS}
    inner: dict[Location, list[float]] = {name: [] for name in LOCATIONS}
    axes, _ = lattice(tumor.GROWTH_PITCH)
    for seed in range(8):
        tissues = sample_tissues(draw_warp(seed)[0], axes, tumor.GROWTH_PITCH)
        fluid = (tissues.csf > 0.5) & (tissues.depth > 20)
        away = distance_transform_edt(~fluid) * tumor.GROWTH_PITCH
        for location in LOCATIONS:
            plan = tumor.draw_plan(seed, "HGG", Variety(location=location))
            points = tumor._draw_seeds(stream(seed, "tumor growth"), plan, tissues, axes)
            nearest = tuple(
                int(np.abs(a - p).argmin()) for a, p in zip(axes, points[0], strict=True)
            )
            outer[location].append(float(tissues.depth[nearest]))
            inner[location].append(float(away[nearest]))
    check_locations(outer, inner)


def test_tumors_grow_at_the_surface_and_at_the_ventricles(monkeypatch: pytest.MonkeyPatch) -> None:
    outer: dict[Location, list[float]] = {name: [] for name in LOCATIONS}
    inner: dict[Location, list[float]] = {name: [] for name in LOCATIONS}
    for location in LOCATIONS:
        for seed in range(3):
            made = forced(monkeypatch, Variety(location=location), seed)
            truth = made.case.truth
            assert truth is not None
            middle = np.rint(np.argwhere(np.isin(truth, (NCR, ET))).mean(axis=0)).astype(int)
            depth = distance_transform_edt(made.tissues > 0) * 3.0
            fluid = (made.tissues == 1) & (depth > 20) & (truth == 0)
            outer[location].append(float(depth[tuple(middle)]))
            inner[location].append(float((distance_transform_edt(~fluid) * 3.0)[tuple(middle)]))
    check_locations(outer, inner)


def test_atrophy_enlarges_the_ventricles(monkeypatch: pytest.MonkeyPatch) -> None:
    def fluid(variety: Variety) -> int:
        made = forced(monkeypatch, variety, seed=3)
        depth = distance_transform_edt(made.tissues > 0) * 3.0
        return int(((made.tissues == 1) & (depth > 25)).sum())

    assert fluid(Variety(atrophy=8.0)) > 1.3 * fluid(Variety())


def test_skull_remnants_and_overstripping_change_the_border(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = forced(monkeypatch, Variety(), seed=3).case.brain()
    left = forced(monkeypatch, Variety(skull_remnants=True), seed=3).case.brain()
    lost = forced(monkeypatch, Variety(overstripping=4.0), seed=3).case.brain()
    assert (left & ~plain).sum() > 100
    assert (plain & ~lost).sum() > 100
    assert not (plain & ~left).any()
    assert not (lost & ~plain).any()


def test_spots_are_the_brightest_of_their_modality(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = forced(monkeypatch, Variety(), seed=4, spacing=2.0)
    spotted = forced(monkeypatch, Variety(bright_spots=6), seed=4, spacing=2.0)
    changed = {
        name: spotted.case.volumes[name] - plain.case.volumes[name]
        for name in MODALITIES
        if (spotted.case.volumes[name] != plain.case.volumes[name]).any()
    }
    assert changed
    for difference in changed.values():
        assert 0 < (difference != 0).mean() < 0.01


def _islands(truth: NDArray[np.uint8], spacing: float) -> NDArray[Any]:
    """Return the volume of every enhancing component in mm³."""
    islands, count = label(truth == ET, np.ones((3, 3, 3)))
    voxels: NDArray[Any] = np.bincount(islands.ravel(), minlength=count + 1)[1:] * spacing**3
    return voxels


@pytest.mark.parametrize("seed", [100001, 100005, 100013])
def test_no_small_component_enhances(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds of low-grade tumors, which had components from 8 mm³ in recipe 2."""
    without_images(monkeypatch)
    for spacing in (1.0, 2.0):
        truth = make_phantom(seed, spacing=spacing, grade="LGG").case.truth
        assert truth is not None
        # A component may lose voxels outside of the brain mask.
        assert (_islands(truth, spacing) >= 0.5 * SMALLEST_ENHANCEMENT).all()


def test_a_ghost_is_the_image_shifted_along_one_axis() -> None:
    image = np.zeros((6, 12, 5), np.float32)
    image[2, 1, 3] = 1.0
    scanner = Scanner(0.0, 0.0, 2, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, ghost=0.25, ghosts=3)
    ghosted = blur_image(image, scanner, 3.0)
    assert np.argwhere(ghosted).tolist() == [[2, 1, 3], [2, 5, 3], [2, 9, 3]]
    assert ghosted[2, 5, 3] == ghosted[2, 9, 3] == 0.25


def test_overshoot_is_negative_only_next_to_an_edge() -> None:
    shape, _, axes = grid(3.0)
    brain = np.zeros(shape, bool)
    brain[20:40, 20:40, 20:40] = True
    plain = Scanner(0.0, 0.0, 2, 0.0, 1.0, 0.0, 0.0, 0.001, 1000.0)
    image = np.where(brain, 1.0, 0.0).astype(np.float32)
    flat = acquire(0, "T1", image, plain, brain, axes)
    halo = acquire(0, "T1", image, replace(plain, overshoot=0.5), brain, axes)
    assert flat.min() == 0
    assert halo.min() < -100
    assert halo[20, 30, 30] > flat[20, 30, 30]
    far = distance_transform_edt(~brain) > 3
    assert not halo[far].any()
    deep = distance_transform_edt(brain) > 3
    np.testing.assert_allclose(halo[deep], flat[deep], rtol=0.02)
    assert (halo[brain] != 0).all()


def test_degraded_scanners_exceed_the_typical_range() -> None:
    typical = [s for seed in range(60) for s in draw_scanners(seed).values()]
    poor = [s for seed in range(60) for s in degrade_scanners(seed, draw_scanners(seed)).values()]
    for name in ("blur", "slice_mm", "bias", "noise", "offset", "ghost", "overshoot", "gamma"):
        assert max(getattr(s, name) for s in poor) > 1.1 * max(getattr(s, name) for s in typical)
    assert 0 < np.mean([s.ghost > 0 for s in poor]) < 0.4
    assert 0 < np.mean([s.overshoot > 0 for s in poor]) < 0.4


def test_wide_and_a_planted_cause_are_incompatible() -> None:
    with pytest.raises(CaseError, match="omit wide"):
        make_phantom(1, spacing=3.0, variant="rim_t1ce", wide=True)


@pytest.mark.parametrize(("layout", "known"), [("brats2021", False), ("brats2024", True)])
def test_a_cohort_labels_cavities_if_the_layout_has_them(
    layout: str, known: bool, tmp_path: Path
) -> None:
    seed = next(
        s
        for s in range(100)
        if draw_variety(s).resection_margin is not None and wide(s).cavity.any()
    )
    (place,) = write_cohort(tmp_path, [seed], spacing=3.0, layout=layout, wide=True)
    truth = np.asarray(nibabel.load(next(place.glob("*seg.nii.gz"))).dataobj)
    cavity = wide(seed).cavity
    assert set(np.unique(truth[cavity])) == ({4} if known else {0})
    # A typical cohort in the same folder replaces the wide one.
    write_cohort(tmp_path, [seed], spacing=3.0, layout=layout)
    truth = np.asarray(nibabel.load(next(place.glob("*seg.nii.gz"))).dataobj)
    assert (truth[cavity] == 0).mean() < 1 or not known
