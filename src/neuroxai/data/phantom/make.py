"""One phantom from one seed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.case import CLASSES, MODALITIES, Case, Grade
from neuroxai.data.layouts import LAYOUTS
from neuroxai.data.phantom import contrast
from neuroxai.data.phantom.anatomy import Tissues, draw_warp, sample_tissues, surface_depth
from neuroxai.data.phantom.artifacts import acquire, blur_image, degrade_scanners, draw_scanners
from neuroxai.data.phantom.field import Array, Axes, stream
from neuroxai.data.phantom.planted import VARIANTS, Cause, bias_tilt, check_variant, corner_mask
from neuroxai.data.phantom.tumor import Tumor, apply_mass_effect, draw_plan, grow, rasterize_tumor
from neuroxai.data.phantom.variety import TYPICAL, Variety, draw_variety

T = TypeVar("T", bound=np.generic)

RECIPE = 3
"""Raised whenever the same seed gives other images or truth."""

MIDDLE = np.array([-119.5, 119.5, 77.0])
"""World coordinates, in mm, of the middle of every phantom's field of view."""

TISSUES = ("background", "CSF", "GM", "WM")
"""Names of the values in :attr:`Phantom.tissues`."""


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic case and everything that is known about it.

    Attributes
    ----------
    case
        Images, truth and grade, as if read from disk.
    tissues
        ``(I, J, K)`` uint8: 0 outside and in a cavity, 1 CSF, 2 gray, 3 white matter; under the
        tumor, the tissue it grew in.
    cavity
        ``(I, J, K)``, what surgery has taken: in no class of the truth, as most layouts know none;
        a cohort in a layout that knows cavities has them in its label files.
    cause
        What the grade depends on, for a planted variant.
    recipe
        What was drawn, ready for JSON.
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
) -> Phantom:
    """Make one synthetic brain-tumor case: four modalities, truth, grade.

    A pure function of its arguments: the same seed gives the same voxels, and no global random
    state is read or changed. The same seed at another spacing is the same head in the same
    world, more coarsely sampled.

    Parameters
    ----------
    seed
        Names the case; 0 or more.
    spacing
        Voxel size in mm, 0.8 to 3. At 1 mm the grid is BraTS's ``(240, 240, 155)``, at 2 mm
        ``(96, 96, 80)``; always LPS.
    grade
        ``HGG`` or ``LGG``; drawn when None.
    variant
        One of :data:`VARIANTS`: a phantom whose grade depends on that one thing alone.
    tumor
        False for a healthy brain (no grade); when None about one brain in 25 is healthy.
    wide
        Draw far beyond the typical case, for a network that is to read scans of any make: see
        :class:`~neuroxai.data.phantom.variety.Variety`.

    Raises
    ------
    CaseError
        If the arguments contradict each other or are out of range.
    MissingExtraError
        If the package with the anatomical template is not installed.

    Examples
    --------
    >>> phantom = make_phantom(7, spacing=3.0, grade="HGG")
    >>> phantom.case.shape, phantom.case.grade
    ((64, 64, 54), 'HGG')
    """
    check_request(seed, spacing, grade, variant, tumor, wide)
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
    # With a planted cause the tumor itself must not tell the grade.
    kind: Grade = grade or "HGG"
    if variant in ("rim_t1ce", "edema_flair"):
        kind = "HGG"
    elif variant is not None:
        kind = "HGG" if other < 0.5 else "LGG"

    shape, affine, axes = grid(spacing)
    warp, head = draw_warp(seed, variety.atrophy)
    drawn: dict[str, Any] = dict(head)
    if wide:
        drawn["variety"] = asdict(variety)
    growth = None
    if tumor:
        plan = draw_plan(seed, kind, variety)
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

    images, planted = _image(seed, scene, near, spacing, grade, variant, variety)
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
    names = np.zeros(shape, dtype=np.uint8)
    names[box] = _likeliest(tissues) * (scene.brain & (tissues.depth > 0))
    names[cavity] = 0  # fluid, and no tissue, in whatever layout the case is written

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
    return Phantom(case, names, cavity, cause, recipe)


def check_request(
    seed: int,
    spacing: float,
    grade: str | None,
    variant: str | None,
    tumor: bool | None,
    wide: bool,
) -> None:
    """Refuse arguments that are out of range or contradict each other, before any work."""
    check_variant(variant)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise CaseError(f"a phantom's seed is a whole number from 0 on, got {seed!r}")
    if not 0.8 <= spacing <= 3.0:
        raise CaseError(f"a phantom's spacing lies between 0.8 and 3 mm, got {spacing}")
    if grade not in (None, "HGG", "LGG"):
        raise CaseError(f"a phantom's grade is HGG, LGG or None, got {grade!r}")
    if wide and variant is not None:
        raise CaseError(
            f"the phantom variant {variant!r} plants one cause among typical brains: leave out wide"
        )
    if tumor is False and (grade is not None or variant is not None):
        raise CaseError(
            "a phantom without a tumor has neither grade nor planted cause: leave out "
            "grade and variant, or tumor=False"
        )


def grid(spacing: float) -> tuple[tuple[int, int, int], NDArray[np.float64], Axes]:
    """Return shape, LPS affine and coordinates, in mm from the middle, of a phantom's grid.

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
    """Return each voxel's class, an index into ``CLASSES``; without ``rim`` nothing enhances."""
    dead, solid, living, edema = parts.necrosis, parts.solid, parts.rim, parts.edema
    core = dead + solid + living
    labels = np.where(edema > 0.5, CLASSES.index("ED"), 0)
    labels = np.where(core > 0.5, CLASSES.index("NCR"), labels)
    if rim:
        enhances = (core > 0.5) & (living > dead + solid)
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
) -> tuple[dict[str, Array], NDArray[np.bool_]]:
    """Return the images and the voxels that a planted cause inside the brain can change.

    Whatever mixes voxels comes before the planting, whatever comes after acts on each voxel
    alone: so in the images the grade leaves no trace outside the planted voxels.
    """
    signals = contrast.draw_signals(seed, variety)
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

    images = contrast.paint(seed, scene, signals)
    contrast.add_texture(seed, images, scene, axes)
    scanners = draw_scanners(seed, even=variant == "scanner_bias")
    if variety is not TYPICAL:
        scanners = degrade_scanners(seed, scanners)
    tilt = bias_tilt(axes) if variant == "scanner_bias" and grade == "HGG" else 1.0

    def scanned(name: str) -> Array:
        image = blur_image(images[name], scanners[name], spacing)
        if name == modality and grade == "HGG" and part is not None and scene.box is not None:
            image[scene.box] += part * np.float32(amount)
        return acquire(seed, name, image, scanners[name], scene.brain, axes, tilt)

    with ThreadPoolExecutor(torch.get_num_threads()) as side_by_side:
        return dict(zip(MODALITIES, side_by_side.map(scanned, MODALITIES), strict=True)), planted


def _likeliest(tissues: Tissues) -> NDArray[np.uint8]:
    """Return the index into :data:`TISSUES` of the largest share; the first of equal ones."""
    names = np.where(tissues.gray > tissues.csf, np.uint8(2), np.uint8(1))
    names[tissues.white > np.maximum(tissues.csf, tissues.gray)] = 3
    return names


def _brain_box(depth: Array) -> tuple[slice, slice, slice]:
    """Return the smallest box that holds the brain and the scraps around it."""
    kept = [np.flatnonzero((depth > -4.5).any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    a, b, c = (slice(int(i[0]), int(i[-1]) + 1) for i in kept)
    return a, b, c


def _whole(
    values: NDArray[T], box: tuple[slice, slice, slice], shape: tuple[int, int, int]
) -> NDArray[T]:
    """Return the box's values on the whole grid, zero around them."""
    whole = np.zeros(shape, dtype=values.dtype)
    whole[box] = values
    return whole
