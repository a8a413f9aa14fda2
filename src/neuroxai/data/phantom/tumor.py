"""Tumor growth by reaction-diffusion, with edema, enhancing rim, necrosis and mass effect."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.box import bounding_box
from neuroxai.data.case import Grade
from neuroxai.data.phantom.anatomy import (
    WARP_PITCH,
    Tissues,
    Warp,
    sample_tissues,
    surface_depth,
)
from neuroxai.data.phantom.diffusion import Diffusion
from neuroxai.data.phantom.field import Array, Axes, Field, lattice, ramp, smooth_noise, stream
from neuroxai.data.phantom.variety import TYPICAL, Location, Variety

GROWTH_PITCH = 2.5
"""Lattice spacing of the growth simulation in mm."""

CORE_LEVEL = 0.55
"""Cell density, relative to the carrying capacity, above which tissue is tumor core."""

SMALLEST_ENHANCEMENT = 100.0
"""Smallest volume in mm³ of an enhancing component, about 6 mm across; smaller ones are removed.

Raters cannot see smaller components in a noisy scan, and BraTS 2023 does not score lesions of
fewer than 50 voxels (arXiv:2305.17033).
"""

_MAX_STEPS = 8000
"""Limit on the growth steps; slow tumors take about 1,600 (seed 642: 1,638)."""


@dataclass(frozen=True)
class Plan:
    """Parameters of a tumor, drawn from the seed and the grade of its appearance."""

    appearance: Grade
    foci: int
    volume: float
    """Core volume in mm³, before displacement of the tissue."""
    diffusion: float
    """Diffusion coefficient in white matter, mm² per time unit."""
    proliferation: float
    """Growth rate per time unit."""
    edema_steps: int
    edema_level: float
    rim_thickness: float
    """Thickness of the enhancing rim in mm."""
    border_roughness: float
    """Roughness of the border between rim and necrosis in mm."""
    non_enhancing: float
    """Fraction of the rim that does not enhance."""
    displacement: float
    """Displacement of the surrounding tissue, as a fraction of the tumor radius."""
    location: Location = "anywhere"
    resection_margin: float | None = None
    """Thickness in mm of the residual tumor around a resection cavity; None before surgery."""
    margin_signal: float = 1.0
    """Share of the signal of edema that remains at its margin."""


@dataclass(frozen=True, eq=False)
class Growth:
    """Grown tumor on its own lattices, before sampling on the image grid."""

    plan: Plan
    density: Field
    edema: Field
    depth: Field
    """Distance in mm to the border of the core, inside the core."""
    centers: NDArray[np.float64]
    volume: float


@dataclass(frozen=True, eq=False)
class Tumor:
    """Volume fractions ``(X, Y, Z)`` of the tumor parts on one grid; they sum to at most 1."""

    necrosis: Array
    solid: Array
    """Non-enhancing core, part of the class NCR."""
    rim: Array
    edema: Array
    cavity: Array
    """Resection cavity, filled with fluid; background in layouts without the class RC."""
    shade: Array | float = 1.0
    """Share of the signal of edema, below 1 near a faint margin."""


def draw_plan(seed: int, appearance: Grade, variety: Variety = TYPICAL) -> Plan:
    """Draw tumor parameters; high-grade tumors enhance, low-grade tumors mostly do not."""
    generator = stream(seed, "tumor plan")
    high = appearance == "HGG"
    foci = int(generator.choice([1, 2, 3], p=[0.86, 0.1, 0.04]))
    low_cc, high_cc = (4.0, 75.0) if high else (6.0, 85.0)
    volume = 1000.0 * float(np.exp(generator.uniform(np.log(low_cc), np.log(high_cc))))
    rim = float(np.clip(generator.normal(4.2, 1.7), 1.8, 9.0))
    nearly_solid = generator.random() < 0.2
    if nearly_solid:
        rim = max(rim, 0.5 * (0.75 * volume / foci / np.pi) ** (1 / 3))
    drained = float(np.exp(generator.uniform(np.log(50), np.log(600))))
    return Plan(
        appearance=appearance,
        foci=foci,
        volume=volume,
        diffusion=float(generator.uniform(0.5, 1.4)),
        proliferation=float(generator.uniform(0.10, 0.22)),
        edema_steps=int(drained if high else drained / 15),
        edema_level=float(generator.uniform(0.04, 0.16) if high else generator.uniform(0.15, 0.45)),
        rim_thickness=rim if high else 0.0,
        border_roughness=float(generator.uniform(0.3, 2.8)),
        non_enhancing=_draw_non_enhancing(generator, high) if variety.enhances else 1.3,
        displacement=float(generator.uniform(0, 0.28) if high else generator.uniform(0, 0.16)),
        location=variety.location,
        resection_margin=variety.resection_margin,
    )


def _draw_non_enhancing(generator: np.random.Generator, high: bool) -> float:
    return float(generator.uniform(0, 0.25) if high else generator.uniform(0.93, 1.3))


def grow(seed: int, plan: Plan, warp: Warp) -> Growth:
    r"""Simulate tumor growth in a warped brain.

    Solves the Fisher–Kolmogorov equation
    :math:`\partial_t u = \nabla \cdot (D \nabla u) + \rho u (1 - u)` until the core has the
    planned volume. Edema then spreads from it along white matter.

    References
    ----------
    Swanson, Alvord, Murray 2000, doi:10.1046/j.1365-2184.2000.00177.x
    """
    generator = stream(seed, "tumor growth")
    axes, _ = lattice(GROWTH_PITCH)
    tissues = sample_tissues(warp, axes, GROWTH_PITCH)
    seeds = _draw_seeds(generator, plan, tissues, axes)
    reach = 22.0 + 1.7 * (0.75 * plan.volume / np.pi) ** (1 / 3)
    crop, box = _crop(axes, seeds, reach)
    start = (float(box[0][0]), float(box[1][0]), float(box[2][0]))

    roughness = np.exp(0.7 * smooth_noise(generator, 7.0).on(box))
    vigor = np.exp(0.45 * smooth_noise(generator, 9.0).on(box))
    brain = ramp(tissues.depth[crop] - 2, 1.5) * (1 - tissues.csf[crop]) ** 2
    white, gray = tissues.white[crop] * brain, tissues.gray[crop] * brain
    speed = plan.diffusion * (white + 0.2 * gray) * roughness
    rate = plan.proliferation * vigor * brain

    density = np.zeros_like(speed)
    for point in seeds:
        squared = sum(
            ((a - p) ** 2).reshape([-1 if i == n else 1 for i in range(3)])
            for n, (a, p) in enumerate(zip(box, point, strict=True))
        )
        density = np.maximum(density, np.exp(-squared / 20).astype(np.float32))
    density *= brain > 0.1
    voxel = GROWTH_PITCH**3
    step = min(1.0, 0.9 * GROWTH_PITCH**2 / (6 * float(speed.max())))
    diffuse = Diffusion(speed * np.float32(step / GROWTH_PITCH**2))
    rate = rate * np.float32(step)
    planned = plan.volume / voxel
    for _ in range(_MAX_STEPS):
        density += diffuse.flow(density) + rate * density * (1 - density)
        if np.count_nonzero(density > CORE_LEVEL) >= planned:
            break
    volume = float(np.count_nonzero(density > CORE_LEVEL)) * voxel

    leak = (white**1.5 + np.float32(0.03) * gray) * roughness
    seep = Diffusion((leak * (0.15 / leak.max())).astype(np.float32))
    edema = density.copy()
    for _ in range(plan.edema_steps):
        edema += seep.flow(edema)
        np.maximum(edema, density, out=edema)

    fine, depth = _core_depth(density)
    return Growth(
        plan,
        Field(fine, start, GROWTH_PITCH / 2),
        Field(edema, start, GROWTH_PITCH),
        Field(depth, start, GROWTH_PITCH / 2),
        seeds,
        volume,
    )


def apply_mass_effect(warp: Warp, growth: Growth) -> Warp:
    """Return the warp with the surrounding tissue displaced radially by the tumor."""
    from scipy.ndimage import map_coordinates

    axes, start = lattice(WARP_PITCH)
    points = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float64)
    radius = (0.75 * growth.volume / len(growth.centers) / np.pi) ** (1 / 3)
    amount = min(growth.plan.displacement * radius, 7.5)
    # No displacement at the skull.
    firm = np.clip(surface_depth(warp).data / 14, 0, 1)
    before = points.copy()
    for center in growth.centers:
        away = points - center[:, None, None, None]
        distance = np.linalg.norm(away, axis=0) + 1e-6
        size = np.where(distance < radius, distance / radius, np.exp((radius - distance) / 20))
        before -= amount * firm * size * away / distance
    places = (before - np.array(start)[:, None, None, None]) / WARP_PITCH

    def pulled(field: Field) -> Field:
        moved = map_coordinates(field.data, places, order=1, mode="nearest")
        return replace(field, data=moved)

    a, b, c = warp.template
    x, y, z = (Field(p.astype(np.float32), start, WARP_PITCH) for p in before)
    return Warp((pulled(a), pulled(b), pulled(c)), (x, y, z))


def rasterize_tumor(
    seed: int, growth: Growth, warp: Warp, tissues: Tissues, axes: Axes
) -> tuple[Tumor, tuple[slice, slice, slice]]:
    """Sample a grown tumor on a grid; return its parts on their bounding box, and the box."""
    plan = growth.plan
    generator = stream(seed, "tumor parts")
    noises = {name: smooth_noise(generator, s) for name, s in _PART_NOISE.items()}
    margin = min(plan.displacement * 30, 7.5) + 2
    box = []
    for axis in range(3):
        field = growth.density
        low = field.start[axis] - margin
        high = field.start[axis] + field.pitch * field.data.shape[axis] + margin
        kept = np.flatnonzero((axes[axis] >= low) & (axes[axis] <= high))
        box.append(slice(int(kept[0]), int(kept[-1]) + 1))
    crop = (box[0], box[1], box[2])
    near = (axes[0][crop[0]], axes[1][crop[1]], axes[2][crop[2]])
    density, wet, depth = _at_grown(warp, near, (growth.density, growth.edema, growth.depth))
    brain = ramp(tissues.depth[crop] - 0.5, 0.5)
    white, csf = tissues.white[crop], tissues.csf[crop]

    density = density + np.float32(0.10) * noises["border"].on(near) * (density > 0.02)
    core = ramp(density - CORE_LEVEL, 0.13) * brain
    wet = wet * (np.float32(0.12) + np.float32(0.88) * np.sqrt(white)) * (1 - csf) ** 2
    wet = wet * np.exp(np.float32(0.25) * noises["fingers"].on(near))
    level = plan.edema_level
    edema = ramp(wet - level, 0.35 * level) * brain * (1 - core)

    silent = ramp(noises["silent"].on(near) - _quantile(1 - plan.non_enhancing), 0.15)
    if plan.rim_thickness > 0:
        thickness = plan.rim_thickness * np.exp(np.float32(0.3) * noises["thickness"].on(near))
        dead = ramp(depth - thickness + plan.border_roughness * noises["mottling"].on(near), 0.8)
    else:
        dead = np.zeros_like(core)
    if plan.resection_margin is None:
        cavity = np.zeros_like(core)
    else:
        cavity = core * ramp(depth - plan.resection_margin - noises["thickness"].on(near), 0.8)
    core = core - cavity
    living = core * (1 - dead)
    bright = _without_specks(living * (1 - silent), core, axes)
    shade: Array | float = 1.0
    if plan.margin_signal < 1:
        # The margin is at the level; the full signal is reached at four times of it.
        deep = ramp(wet - 2.5 * level, 1.5 * level)
        shade = np.float32(plan.margin_signal) + np.float32(1 - plan.margin_signal) * deep
    return Tumor(core * dead, living - bright, bright, edema, cavity, shade), crop


def _without_specks(bright: Array, core: Array, axes: Axes) -> Array:
    """Remove enhancing components below :data:`SMALLEST_ENHANCEMENT`."""
    from scipy.ndimage import label

    x, y, z = (float(axis[1] - axis[0]) for axis in axes)
    islands, count = label((core > 0.5) & (bright > 0.5 * core), np.ones((3, 3, 3)))
    voxels = np.bincount(islands.ravel(), minlength=count + 1)
    kept = voxels * abs(x * y * z) >= SMALLEST_ENHANCEMENT
    kept[0] = True
    result: Array = bright * kept[islands]
    return result


_PART_NOISE: dict[Literal["border", "fingers", "silent", "thickness", "mottling"], float] = {
    "border": 4.0,
    "fingers": 4.0,
    "silent": 9.0,
    "thickness": 9.0,
    "mottling": 3.0,
}
"""Correlation lengths in mm of the random irregularities of the tumor parts."""


def _quantile(probability: float) -> float:
    """Return a quantile of the standard normal distribution, clipped to ±9."""
    from scipy.special import ndtri

    return float(np.clip(ndtri(np.clip(probability, 0.0, 1.0)), -9.0, 9.0))


def _draw_seeds(
    generator: np.random.Generator, plan: Plan, tissues: Tissues, axes: Axes
) -> NDArray[np.float64]:
    """Draw tumor origins in white matter, rarely infratentorial, with foci 22 to 55 mm apart."""
    weight = _starting_places(plan.location, tissues).astype(np.float64)
    weight *= np.where(axes[2] > -28, 1.0, 0.12)[None, None, :]
    cumulative = (weight / weight.sum()).ravel().cumsum()
    points: list[NDArray[np.float64]] = []
    for _ in range(200):
        index = np.searchsorted(cumulative, generator.random())
        place = np.unravel_index(min(int(index), weight.size - 1), weight.shape)
        point = np.array([axis[i] for axis, i in zip(axes, place, strict=True)], dtype=np.float64)
        if not points or 22 < np.linalg.norm(point - points[0]) < 55:
            points.append(point)
        if len(points) == plan.foci:
            break
    return np.array(points)


def _starting_places(place: Location, tissues: Tissues) -> NDArray[np.bool_]:
    """Return the mask of possible tumor origins."""
    from scipy.ndimage import binary_dilation

    deep: NDArray[np.bool_] = (tissues.white > 0.4) & (tissues.depth > 6)
    if place == "surface":
        near = (tissues.csf < 0.3) & (tissues.depth > 3) & (tissues.depth < 9)
    elif place == "ventricles":
        near = deep & binary_dilation((tissues.csf > 0.6) & (tissues.depth > 20), iterations=3)
    else:
        return deep
    return near if near.any() else deep


def _crop(
    axes: Axes, seeds: NDArray[np.float64], reach: float
) -> tuple[tuple[slice, slice, slice], Axes]:
    """Return the part of the lattice within ``reach`` mm of the bounding box of the seeds."""
    slices = []
    for n, axis in enumerate(axes):
        low, high = seeds[:, n].min() - reach, seeds[:, n].max() + reach
        kept = np.flatnonzero((axis >= low) & (axis <= high))
        slices.append(slice(int(kept[0]), int(kept[-1]) + 1))
    a, b, c = slices
    return (a, b, c), (axes[0][a], axes[1][b], axes[2][c])


def _core_depth(density: Array) -> tuple[Array, Array]:
    """Return the density, and the depth in the core in mm, at twice the lattice resolution."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    half = GROWTH_PITCH / 2
    x, y, z = (np.arange(2 * n - 1, dtype=np.float32) * np.float32(0.5) for n in density.shape)
    fine = gaussian_filter(Field(density, (0.0, 0.0, 0.0), 1.0).on((x, y, z)), 0.7)
    core = fine > CORE_LEVEL
    depth = np.zeros(fine.shape, dtype=np.float32)
    # The nearest border of any point in the core is at most one step outside its bounding box.
    box = bounding_box(core, margin=1)
    depth[box] = distance_transform_edt(core[box]) * half
    return fine, gaussian_filter(depth, 0.7)


def _at_grown(warp: Warp, axes: Axes, fields: tuple[Field, ...]) -> list[Array]:
    """Sample fields at the positions of the grid points before displacement by the tumor."""
    from scipy.ndimage import map_coordinates

    if warp.grown is None:
        return [field.on(axes) for field in fields]
    before = np.stack([field.on(axes) for field in warp.grown])
    sampled = []
    for field in fields:
        places = (before - np.array(field.start, dtype=np.float32)[:, None, None, None]) / (
            np.float32(field.pitch)
        )
        values: Array = map_coordinates(field.data, places, order=1, mode="constant", cval=0.0)
        sampled.append(values)
    return sampled
