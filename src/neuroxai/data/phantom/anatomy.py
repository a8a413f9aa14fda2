"""Random brain anatomy: the MNI152 template, rotated, scaled, mirrored and deformed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neuroxai.data.phantom.field import Array, Axes, Field, lattice, ramp, smooth_noise, stream
from neuroxai.data.template import load_mni152

if TYPE_CHECKING:
    import torch

CENTER_MNI = np.array([0.0, -17.0, 6.0])
"""Template coordinates, in mm, of the center of the field of view."""

WARP_PITCH = 4.0
"""Lattice spacing of the deformation in mm; its correlation length is 12 mm or more."""


@dataclass(frozen=True, eq=False)
class Template:
    """MNI152 template, cropped to the brain.

    ``maps (1, 4, X, Y, Z)`` has the channels T1, gray matter, white matter, and distance to the
    brain surface in mm (positive inside). ``start`` is the position of the first voxel in mm.
    """

    maps: torch.Tensor
    start: NDArray[np.float64]
    ventricles: Field
    """Ventricle mask, smoothed over 8 mm."""


@lru_cache(maxsize=1)
def _load() -> Template:
    """Load the MNI152 template once per process.

    Raises
    ------
    MissingExtraError
        If nilearn, which contains the template, is not installed.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    brain = load_mni152(1, "The synthetic cohort", "phantom")
    affine, t1, gray, white = brain.affine, brain.t1, brain.gray, brain.white
    # Half the resolution suffices for the distance and is eight times faster.
    coarse = gaussian_filter((t1 > 0.05).astype(np.float32)[::2, ::2, ::2], 0.5)
    inside = coarse > 0.5
    surface = (distance_transform_edt(inside) - distance_transform_edt(~inside)) * 2.0
    surface = Field((surface - np.sign(surface)).astype(np.float32), (0.0, 0.0, 0.0), 2.0)
    crop, points = [], []
    for axis, axes in enumerate(((1, 2), (0, 2), (0, 1))):
        kept = np.flatnonzero((surface.data > -7).any(axis=axes))
        crop.append(slice(2 * int(kept[0]), min(2 * int(kept[-1]) + 1, t1.shape[axis])))
        points.append(np.arange(crop[-1].start, crop[-1].stop, dtype=np.float32))
    start = affine[:3, 3] + [part.start for part in crop]
    a, b, c = crop
    distance = surface.on((points[0], points[1], points[2]))
    maps = np.stack([t1[a, b, c], gray[a, b, c], white[a, b, c], distance])
    x, y, z = np.ogrid[tuple(slice(0, n) for n in maps.shape[1:])]
    box = (np.abs(x + start[0]) < 30) & (np.abs(y + start[1] + 12) < 44)
    box = box & (np.abs(z + start[2] - 14) < 18)
    fluid = (box & (maps[1] + maps[2] < 0.4) & (maps[3] > 12)).astype(np.float32)
    return Template(
        _channels_last(maps),
        start,
        Field(
            gaussian_filter(fluid[::4, ::4, ::4], 2.0),
            (float(start[0]), float(start[1]), float(start[2])),
            4.0,
        ),
    )


@lru_cache(maxsize=3)
def _blurred(sigma: float) -> Template:
    """Return the template with its three images smoothed by ``sigma`` mm."""
    from scipy.ndimage import gaussian_filter

    template = _load()
    if not sigma:
        return template
    *images, distance = template.maps[0].numpy()
    smooth = [gaussian_filter(image, sigma, truncate=3) for image in images]
    return replace(template, maps=_channels_last(np.stack([*smooth, distance])))


@lru_cache(maxsize=1)
def _distance_only() -> Template:
    """Return the template with the distance channel only, which is not smoothed."""
    template = _load()
    return replace(template, maps=template.maps[:, 3:].contiguous())


def _channels_last(maps: Array) -> torch.Tensor:
    """Return ``(C, X, Y, Z)`` as a batch of one with channels last in memory.

    Sampling at scattered points is bound by memory latency; with channels last, one access reads
    all channels of a voxel.
    """
    import torch

    return torch.from_numpy(maps)[None].contiguous(memory_format=torch.channels_last_3d)


def template_for(spacing: float) -> Template:
    """Return the template, smoothed against aliasing on a grid of ``spacing`` mm.

    Raises
    ------
    MissingExtraError
        If nilearn, which contains the template, is not installed.

    References
    ----------
    Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033
    """
    return _blurred(round(0.35 * float(np.sqrt(max(spacing**2 - 1.0, 0.0))), 2))


@dataclass(frozen=True, eq=False)
class Warp:
    """Mapping from points of the phantom to the template.

    ``template`` has the template coordinates in mm as three fields; ``grown`` has the position in
    mm before displacement by the tumor as three fields, or None without a tumor.
    """

    template: tuple[Field, Field, Field]
    grown: tuple[Field, Field, Field] | None = None


@dataclass(frozen=True, eq=False)
class Tissues:
    """Tissue fractions ``(X, Y, Z)`` in 0...1 on one grid, with depth and texture."""

    csf: Array
    gray: Array
    white: Array
    depth: Array
    """Distance to the brain surface in mm, positive inside."""
    texture: Array
    """Residual of the template's T1 after its three tissues."""


def draw_warp(seed: int, atrophy: float = 0.0) -> tuple[Warp, dict[str, float]]:
    """Draw the deformation of a head: rotation up to 5°, scale, reflection, warp, ventricle size.

    ``atrophy`` is the additional enlargement of the ventricles in mm.
    """
    from scipy.ndimage import map_coordinates
    from scipy.spatial.transform import Rotation

    generator = stream(seed, "anatomy")
    angles = generator.uniform(-5, 5, 3) * np.array([1.0, 0.7, 0.7])
    scale = generator.uniform([0.92, 0.93, 0.84], [1.04, 1.02, 0.98])
    shift = generator.uniform(-2.5, 2.5, 3)
    mirrored = bool(generator.random() < 0.5)
    wide, narrow = generator.uniform(1.5, 4.5), generator.uniform(0.4, 1.4)
    ventricles = float(generator.choice([generator.uniform(-2, 1.5), generator.uniform(0, 7)]))
    ventricles += atrophy

    axes, start = lattice(WARP_PITCH)
    points = np.stack(np.meshgrid(*axes, indexing="ij"))
    matrix = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() / scale[None, :]
    placed = np.einsum("ab,bxyz->axyz", matrix, points - shift[:, None, None, None])
    for axis in range(3):
        for sigma, amplitude in ((28.0, wide), (12.0, narrow)):
            placed[axis] += amplitude * smooth_noise(generator, sigma).on(axes)
    if mirrored:
        placed[0] *= -1
    placed += CENTER_MNI[:, None, None, None]

    # Sampling closer to the ventricles enlarges them.
    field = template_for(1.0).ventricles
    slope: NDArray[np.float64] = np.asarray(np.gradient(field.data, field.pitch))
    slope /= np.linalg.norm(slope, axis=0).max()
    places = (placed - np.array(field.start)[:, None, None, None]) / field.pitch
    for axis in range(3):
        placed[axis] += ventricles * map_coordinates(slope[axis], places, order=1)

    x, y, z = (Field(p.astype(np.float32), start, WARP_PITCH) for p in placed)
    drawn = {"ventricles_mm": ventricles, "mirrored": float(mirrored)}
    drawn |= {f"scale_{name}": float(s) for name, s in zip("xyz", scale, strict=True)}
    return Warp((x, y, z)), drawn


def surface_depth(warp: Warp) -> Field:
    """Return the distance to the brain surface in mm on the lattice of the warp."""
    axes, start = lattice(WARP_PITCH)
    return Field(_sample(_distance_only(), warp, axes)[0], start, WARP_PITCH)


def sample_tissues(warp: Warp, axes: Axes, spacing: float, sharpness: float = 1.0) -> Tissues:
    """Sample the warped template on a grid; ``sharpness`` above 1 counteracts its averaging."""
    t1, gray, white, depth = _sample(template_for(spacing), warp, axes)
    csf = np.clip(1 - gray - white, 0, 1)
    texture = np.clip(t1 - (0.28 * csf + 0.65 * gray + 0.86 * white), -0.15, 0.15)
    texture *= ramp(depth - 2, 2)
    if sharpness != 1.0:
        csf, gray, white = (np.power(p, np.float32(sharpness)) for p in (csf, gray, white))
    total = csf + gray + white + np.float32(1e-6)
    return Tissues(csf / total, gray / total, white / total, depth, texture)


def _sample(template: Template, warp: Warp, axes: Axes) -> Array:
    """Sample the channels of the template at the warped positions, ``(4, X, Y, Z)``."""
    import torch

    shape = tuple(axis.size for axis in axes)
    grid = np.empty((*shape, 3), dtype=np.float32)
    counts = template.maps.shape[2:]
    for axis, field in enumerate(warp.template):
        # grid_sample takes axes in reverse order and positions from -1 to 1.
        place = field.on(axes)
        place -= np.float32(template.start[axis])
        place *= np.float32(2 / (counts[axis] - 1))
        place -= 1
        grid[..., 2 - axis] = place
    sampled = torch.nn.functional.grid_sample(
        template.maps,
        torch.from_numpy(grid)[None],
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    values: Array = sampled[0].numpy()
    return values
