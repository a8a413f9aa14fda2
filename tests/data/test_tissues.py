"""Tissue segmentation of T1, against phantoms with known tissues."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import affine_transform

from neuroxai.core.errors import CaseError, MissingExtraError
from neuroxai.data import tissues
from neuroxai.data.atlas import tissue_priors
from neuroxai.data.bias_field import correct_bias_field
from neuroxai.data.case import Case
from neuroxai.data.phantom import Phantom
from neuroxai.data.template import load_mni152
from neuroxai.data.tissues import SEGMENTED, _fit_gaussians, case_tissues, segment_tissues
from session_cache import phantom, shared_object


def head() -> Phantom:
    return phantom(600_001, grade="HGG")


def segmented() -> Any:
    found = shared_object("tissues of the head", lambda: segment_tissues(head().case))
    assert found is not None
    return found


def with_t1(case: Case, t1: Any) -> Case:
    return replace(case, volumes={**case.volumes, "T1": np.asarray(t1, np.float32)})


def dice(found: Any, phantom: Phantom) -> list[float]:
    """Return the Dice of each tissue with the ground truth of the phantom."""
    counted = phantom.case.brain() & (phantom.case.truth == 0)
    truth = np.where(counted, phantom.tissues, 0)
    return [
        2 * ((found == k) & (truth == k)).sum() / ((found == k).sum() + (truth == k).sum())
        for k in (1, 2, 3)
    ]


def test_tissues_cover_the_brain_without_the_tumor() -> None:
    case = head().case
    assert case.truth is not None
    assert case.truth.any()
    np.testing.assert_array_equal(segmented() > 0, case.brain() & (case.truth == 0))


def turned_case(case: Case, codes: str) -> tuple[Case, Callable[[Any], Any]]:
    """Store a case in another orientation; return it and the turn of an array."""
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(case.affine),
        nib.orientations.axcodes2ornt(tuple(codes)),
    )

    def turned(data: Any) -> Any:
        return nib.orientations.apply_orientation(data, turn)

    other = replace(
        case,
        volumes={name: turned(volume) for name, volume in case.volumes.items()},
        truth=turned(case.truth),
        affine=case.affine @ nib.orientations.inv_ornt_aff(turn, case.shape),
    )
    return other, turned


def test_tissues_do_not_depend_on_the_orientation_of_the_file() -> None:
    """The very same voxels, whichever way the file lies."""
    other, turned = turned_case(head().case, "SLP")
    np.testing.assert_array_equal(segment_tissues(other), turned(segmented()))


@pytest.mark.parametrize("codes", ["RAS", "IAR", "PIL"])
def test_every_orientation_is_segmented_from_the_same_input(
    codes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, ...]] = []

    def segment(*arguments: Any) -> Any:
        seen.append(arguments)
        return np.rint(arguments[0]).astype(np.uint8)

    monkeypatch.setattr("neuroxai.data.tissues._segment", segment)
    case = head().case
    other, turned = turned_case(case, codes)
    np.testing.assert_array_equal(segment_tissues(other), turned(segment_tissues(case)))
    for one, same in zip(*seen, strict=True):
        np.testing.assert_array_equal(one, same)


def test_tissues_do_not_depend_on_scale_or_bias_field() -> None:
    case = head().case
    rows = np.linspace(-1, 1, case.shape[1])[None, :, None]
    shaded = segment_tissues(with_t1(case, 900.0 * case.volumes["T1"] * (1 + 0.25 * rows)))
    inside = segmented() > 0
    assert (shaded == segmented())[inside].mean() > 0.95


def test_no_tissues_without_contrast_or_t1() -> None:
    case = head().case
    assert case_tissues(with_t1(case, case.brain())) == (None, None)
    assert case_tissues(replace(case, volumes={"FLAIR": case.volumes["T1"]})) == (None, None)


def keep_bias_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out N4, which takes longer than all other steps, where it is not the subject."""
    monkeypatch.setattr(tissues, "correct_bias_field", lambda image, *_: image)


def test_a_volume_without_t1_contrast_is_refused_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fluid is bright here, as on a T2 that was named T1."""
    keep_bias_field(monkeypatch)
    case = head().case
    t1 = case.volumes["T1"]
    with pytest.raises(CaseError, match=r"BraTS2021_600001: tissue seg.* increase .*--no-tissues"):
        segment_tissues(with_t1(case, (t1.max() + 1 - t1) * case.brain()))


def test_gaussians_with_certain_priors_are_those_of_the_groups() -> None:
    rng = np.random.default_rng(2)
    group = rng.choice(3, size=600)
    values = rng.normal(group, 0.3)
    shares, means = _fit_gaussians(values, np.eye(3)[group].T)
    np.testing.assert_array_equal(shares.argmax(axis=0), group)
    np.testing.assert_allclose(means, [values[group == k].mean() for k in range(3)])


def test_gaussians_with_vague_priors_equal_those_of_a_slow_loop() -> None:
    rng = np.random.default_rng(4)
    group = rng.choice(3, size=400, p=[0.2, 0.5, 0.3])
    values = rng.normal(1.5 * group, np.array([0.5, 0.3, 0.2])[group])
    priors = 0.15 + 0.55 * np.eye(3)[group].T
    shares, means = _fit_gaussians(values, priors)
    slow = priors.copy()
    for _ in range(100):
        parameters = []
        for k in range(3):
            total = sum(slow[k])
            mean = sum(slow[k] * values) / total
            parameters.append((mean, sum(slow[k] * (values - mean) ** 2) / total + 1e-3))
        for n, value in enumerate(values):
            each = [
                priors[k, n] * np.exp(-((value - m) ** 2) / (2 * v)) / np.sqrt(v)
                for k, (m, v) in enumerate(parameters)
            ]
            slow[:, n] = np.array(each) / sum(each)
    np.testing.assert_allclose(means, [mean for mean, _ in parameters], atol=5e-3)
    np.testing.assert_allclose(shares, slow, atol=0.02)


def test_registration_recovers_a_known_transform_of_the_template() -> None:
    brain = load_mni152(4, "A test", "tissues")
    angle, scale = np.radians(9.0), np.array([0.94, 1.05, 0.97])
    turn = np.array([
        [np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1],
    ])  # fmt: skip
    matrix = turn * scale
    middle = (np.array(brain.t1.shape) - 1) / 2
    offset = middle - matrix @ middle + np.array([1.5, -2.0, 1.0])
    moved = [affine_transform(i, matrix, offset, order=1) for i in (brain.t1, brain.gray)]
    # It lies elsewhere in the body, too.
    affine = brain.affine.copy()
    affine[:3, 3] += [60, -40, 110]
    priors = tissue_priors(moved[0], moved[0] > 0.05, affine)
    inside = moved[0] > 0.05
    assert priors.shape == (3, *moved[0].shape)
    assert np.corrcoef(priors[1][inside], moved[1][inside])[0, 1] > 0.75
    unmoved = np.corrcoef(brain.gray[inside], moved[1][inside])[0, 1]
    assert unmoved < 0.5


def test_a_simulated_bias_field_is_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the four resolutions resolve a linear field, in a quarter of the time."""
    monkeypatch.setattr("neuroxai.data.bias_field._ITERATIONS", (50, 50))
    case = head().case
    t1, brain = case.volumes["T1"], case.brain()
    x = np.linspace(-1, 1, case.shape[0])[:, None, None]
    field = np.exp(0.3 * x) * np.ones(case.shape)
    even = correct_bias_field(t1, brain, case.affine)
    again = correct_bias_field((t1 * field).astype(np.float32), brain, case.affine)
    ratio = np.log(again[brain & (even > 0)] / even[brain & (even > 0)])
    assert ratio.std() < 0.25 * np.log(field[brain]).std()
    assert not again[~brain].any()


@pytest.mark.parametrize(
    "seed",
    [600_000, *(pytest.param(seed, marks=pytest.mark.soak) for seed in (600_005, 600_008))],
)
def test_tissue_segmentation_of_phantoms_is_accurate(seed: int) -> None:
    made = phantom(seed, spacing=2.5)
    found, source = case_tissues(made.case)
    assert source == SEGMENTED
    assert (np.array(dice(found, made)) > [0.6, 0.8, 0.8]).all()


@pytest.mark.parametrize("package", ["SimpleITK", "nilearn"])
def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    from neuroxai.data import template

    case = head().case
    template._load.cache_clear()
    plain = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith(package):
            raise ImportError(name)
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=rf"package {package},.*neuroxai\[tissues\]"):
        segment_tissues(case)
