"""Generation of a single phantom from a seed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.case import CLASSES, MODALITIES, Case, Grade
from neuroxai.data.layouts import LAYOUTS
from neuroxai.data.phantom import contrast
from neuroxai.data.phantom.anatomy import Tissues, draw_warp, sample_tissues, surface_depth
from neuroxai.data.phantom.artifacts import acquire, blur_image, degrade_scanners, draw_scanners
from neuroxai.data.phantom.faint import Faint, draw_faint
from neuroxai.data.phantom.field import Array, Axes, stream
from neuroxai.data.phantom.planted import VARIANTS, Cause, bias_tilt, check_variant, corner_mask
from neuroxai.data.phantom.tumor import Tumor, apply_mass_effect, draw_plan, grow, rasterize_tumor
from neuroxai.data.phantom.variety import TYPICAL, Variety, draw_variety

T = TypeVar("T", bound=np.generic)

RECIPE = 3
"""Version of the generator, incremented when images or truth of a seed change."""

MIDDLE = np.array([-119.5, 119.5, 77.0])
"""World coordinates, in mm, of the center of the field of view."""

TISSUES = ("background", "CSF", "GM", "WM")
"""Names of the values in :attr:`Phantom.tissues`."""


@dataclass(frozen=True, eq=False)
class Phantom:
    """Synthetic case with its ground truth.

    Attributes
    ----------
    case
        Images, segmentation and grade, as if read from disk.
    tissues
        ``(I, J, K)`` uint8: 0 background and cavity, 1 CSF, 2 gray matter, 3 white matter; in the
        tumor, the tissue before its growth.
    cavity
        ``(I, J, K)``, mask of the resection cavity. It is background in ``case.truth``, because
        most layouts do not have the class RC; :func:`write_cohort` labels it in those that do.
    cause
        Planted cause of the grade, for a variant.
    recipe
        Arguments and drawn parameters, ready for JSON.
    """

    case: Case
    tissues: NDArray[np.uint8]
    cavity: NDArray[np.bool_]
    cause: Cause | None
    recipe: dict[str, Any]


def make_phantom(
    seed: int,
    *,
    spacing: float = 1.0,
    grade: Grade | None = None,
    variant: str | None = None,
    tumor: bool | None = None,
    wide: bool = False,
    faint: bool = False,
) -> Phantom:
    """Make a synthetic brain tumor case with four modalities, segmentation and grade.

    The result depends on the arguments only; global random state is neither used nor changed. At
    another spacing, the same seed gives the same head at another resolution.

    Parameters
    ----------
    seed
        Seed of the case, 0 or more.
    spacing
        Voxel size in mm, 0.8 to 3. The grid is ``(240, 240, 155)`` at 1 mm, as in BraTS, and
        ``(96, 96, 80)`` at 2 mm, in LPS orientation.
    grade
        ``HGG`` or ``LGG``; drawn if None.
    variant
        Planted cause, one of :data:`VARIANTS`: the grade depends on this feature only.
    tumor
        False for a healthy brain without grade; if None, 4 % of the brains are healthy.
    wide
        Draw far beyond the typical case, to train networks that generalize to other scanners;
        see :class:`~neuroxai.data.phantom.variety.Variety`.
    faint
        Make the tumor as inconspicuous as many real ones, with the labels of its parts; see
        :class:`~neuroxai.data.phantom.faint.Faint`.

    Raises
    ------
    CaseError
        If arguments are out of range or contradict each other.
    MissingExtraError
        If nilearn, which contains the template, is not installed.

    Examples
    --------
    >>> phantom = make_phantom(7, spacing=3.0, grade="HGG")
    >>> phantom.case.shape, phantom.case.grade
    ((64, 64, 54), 'HGG')
    """
    check_request(seed, spacing, grade, variant, tumor, wide, faint=faint)
    variety = draw_variety(seed) if wide else TYPICAL
    seed, spacing = int(seed), float(spacing)
    generator = stream(seed, "case")
    healthy, high, other = generator.random(3)
    if tumor is None:
        tumor = variant is not None or grade is not None or bool(healthy >= 0.04)
    if not tumor:
        grade = None
    elif grade is None:
        grade = "HGG" if high < (0.5 if variant else 0.6) else "LGG"
    # With a planted cause, the appearance of the tumor must not depend on the grade.
    appearance: Grade = grade or "HGG"
    if variant in ("rim_t1ce", "edema_flair"):
        appearance = "HGG"
    elif variant is not None:
        appearance = "HGG" if other < 0.5 else "LGG"

    shape, affine, axes = grid(spacing)
    warp, head = draw_warp(seed, variety.atrophy)
    drawn: dict[str, Any] = dict(head)
    if wide:
        drawn["variety"] = asdict(variety)
    pale = draw_faint(seed) if faint else None
    if pale is not None:
        drawn["faint"] = asdict(pale)
    growth = None
    if tumor:
        plan = draw_plan(seed, appearance, variety)
        plan = pale.plan(plan) if pale else plan
        growth = grow(seed, plan, warp)
        warp = apply_mass_effect(warp, growth)
        drawn["tumor"] = asdict(plan)
    box = _brain_box(surface_depth(warp).on(axes))
    near = (axes[0][box[0]], axes[1][box[1]], axes[2][box[2]])
    sharpness = float(stream(seed, "sharpness").uniform(1.0, 2.5))
    tissues = sample_tissues(warp, near, spacing, sharpness)
    tissues = contrast.draw_sulci(seed, tissues, near)
    parts, parts_box = None, None
    if growth is not None:
        parts, parts_box = rasterize_tumor(seed, growth, warp, tissues, near)
    scene = contrast.draw_scene(seed, tissues, parts, parts_box, near, variety)

    images, planted = _image(seed, scene, near, spacing, grade, variant, variety, pale)
    volumes = {name: _whole(image, box, shape) for name, image in images.items()}
    truth = np.zeros(shape, dtype=np.uint8)
    cavity = np.zeros(shape, dtype=bool)
    if parts is not None and parts_box is not None:
        labels = np.zeros(scene.brain.shape, dtype=np.uint8)
        labels[parts_box] = classes(parts, rim=variant != "rim_t1ce" or grade == "HGG")
        truth[box] = labels * scene.brain
        taken = np.zeros_like(scene.brain)
        taken[parts_box] = parts.cavity > 0.5
        cavity[box] = taken & scene.brain
    tissue_map = np.zeros(shape, dtype=np.uint8)
    tissue_map[box] = _most_likely(tissues) * (scene.brain & (tissues.depth > 0))
    tissue_map[cavity] = 0  # fluid, in every layout

    cause = None
    if variant is not None:
        mask = _whole(planted, box, shape)
        if variant == "corner_marker":
            mask = corner_mask(axes)
            if grade == "HGG":
                for volume in volumes.values():
                    volume[mask] = np.rint(np.percentile(volume[truth == 0], 99.9) + 1)
        cause = Cause(VARIANTS[variant], mask)
    recipe = {
        "recipe": RECIPE, "seed": seed, "spacing": spacing, "variant": variant,
        "grade": grade, "wide": wide, "drawn": drawn,
    }  # fmt: skip
    case = Case(f"BraTS2021_{seed:05d}", volumes, affine, LAYOUTS["brats2021"], truth, grade)
    return Phantom(case, tissue_map, cavity, cause, recipe)


def check_request(
    seed: int,
    spacing: float,
    grade: str | None,
    variant: str | None,
    tumor: bool | None,
    wide: bool,
    *,
    faint: bool = False,
) -> None:
    """Check that arguments are in range and consistent.

    Raises
    ------
    CaseError
        Naming the argument.
    """
    check_variant(variant)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise CaseError(f"invalid phantom seed {seed!r}; expected an integer of at least 0")
    if not 0.8 <= spacing <= 3.0:
        raise CaseError(f"invalid phantom spacing {spacing}; expected 0.8 to 3 mm")
    if grade not in (None, "HGG", "LGG"):
        raise CaseError(f"invalid phantom grade {grade!r}; expected HGG, LGG or None")
    if wide and variant is not None:
        raise CaseError(
            f"the phantom variant {variant!r} cannot be combined with wide phantoms; omit wide"
        )
    if faint and variant is not None:
        raise CaseError(
            f"the phantom variant {variant!r} cannot be combined with faint phantoms; omit faint"
        )
    if tumor is False and (grade is not None or variant is not None):
        raise CaseError(
            "a phantom without a tumor has neither a grade nor a planted cause; omit grade and "
            "variant, or tumor=False"
        )


def grid(spacing: float) -> tuple[tuple[int, int, int], NDArray[np.float64], Axes]:
    """Return shape, LPS affine and coordinates (mm from the center) of the grid of a phantom.

    Examples
    --------
    >>> shape, affine, axes = grid(1.0)
    >>> shape, affine[:, 3].tolist()
    ((240, 240, 155), [0.0, 239.0, 0.0, 1.0])
    """
    extent = np.array([240.0, 240.0, 155.0]) if spacing == 1.0 else np.array([192.0, 192.0, 160.0])
    a, b, c = (int(n) for n in np.ceil(np.round(extent / spacing, 6)))
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    half = (np.array([a, b, c]) - 1) / 2
    affine[:3, 3] = MIDDLE - affine[:3, :3] @ half
    x, y, z = (
        (sign * spacing * (np.arange(n) - (n - 1) / 2)).astype(np.float32)
        for n, sign in zip((a, b, c), (-1, -1, 1), strict=True)
    )
    return (a, b, c), affine, (x, y, z)


def classes(parts: Tumor, *, rim: bool) -> NDArray[np.uint8]:
    """Return the class of each voxel, an index into ``CLASSES``; no ET without ``rim``."""
    core = parts.necrosis + parts.solid + parts.rim
    labels = np.where(parts.edema > 0.5, CLASSES.index("ED"), 0)
    labels = np.where(core > 0.5, CLASSES.index("NCR"), labels)
    if rim:
        enhances = (core > 0.5) & (parts.rim > parts.necrosis + parts.solid)
        labels = np.where(enhances, CLASSES.index("ET"), labels)
    return labels.astype(np.uint8)


def _image(
    seed: int,
    scene: contrast.Scene,
    axes: Axes,
    spacing: float,
    grade: Grade | None,
    variant: str | None,
    variety: Variety,
    pale: Faint | None,
) -> tuple[dict[str, Array], NDArray[np.bool_]]:
    """Return the images, and the mask of voxels that a planted cause in the brain can change.

    All effects that mix voxels are applied before the cause is planted, and all later ones act on
    single voxels. The images therefore carry no information on the grade outside the mask.
    """
    signals = contrast.draw_signals(seed, variety)
    signals = pale.signals(signals) if pale else signals
    part: Array | None = None
    modality, amount = "", 0.0
    if scene.tumor is not None and variant == "rim_t1ce":
        part, modality = scene.tumor.rim, "T1ce"
        amount = signals["T1ce"]["ET"] - signals["T1ce"]["NET"]
        signals["T1ce"]["ET"] = signals["T1ce"]["NET"]
    elif scene.tumor is not None and variant == "edema_flair":
        part, modality = scene.tumor.edema, "FLAIR"
        amount = signals["FLAIR"]["ED"] - signals["FLAIR"]["WM"]
        signals["FLAIR"]["ED"] = signals["FLAIR"]["WM"]
    planted = scene.brain.copy() if variant == "scanner_bias" else np.zeros_like(scene.brain)
    if part is not None and scene.box is not None:
        planted[scene.box] = (part > 0) & scene.brain[scene.box]

    images = contrast.synthesize_images(seed, scene, signals)
    contrast.add_texture(seed, images, scene, axes)
    scanners = draw_scanners(seed, flat_bias=variant == "scanner_bias")
    if variety is not TYPICAL:
        scanners = degrade_scanners(seed, scanners)
    tilt = bias_tilt(axes) if variant == "scanner_bias" and grade == "HGG" else 1.0

    def scan(name: str) -> Array:
        image = blur_image(images[name], scanners[name], spacing)
        if name == modality and grade == "HGG" and part is not None and scene.box is not None:
            image[scene.box] += part * np.float32(amount)
        return acquire(seed, name, image, scanners[name], scene.brain, axes, tilt)

    import torch

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return dict(zip(MODALITIES, pool.map(scan, MODALITIES), strict=True)), planted


def _most_likely(tissues: Tissues) -> NDArray[np.uint8]:
    """Return the index into :data:`TISSUES` of the largest fraction; the first in case of ties."""
    names = np.where(tissues.gray > tissues.csf, np.uint8(2), np.uint8(1))
    names[tissues.white > np.maximum(tissues.csf, tissues.gray)] = 3
    return names


def _brain_box(depth: Array) -> tuple[slice, slice, slice]:
    """Return the bounding box of the brain and of remnants around it."""
    kept = [np.flatnonzero((depth > -4.5).any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    a, b, c = (slice(int(i[0]), int(i[-1]) + 1) for i in kept)
    return a, b, c


def _whole(
    values: NDArray[T], box: tuple[slice, slice, slice], shape: tuple[int, int, int]
) -> NDArray[T]:
    """Return values of a box on the whole grid, with zeros around them."""
    whole = np.zeros(shape, dtype=values.dtype)
    whole[box] = values
    return whole
