"""The contralateral mirror, in patient space."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuroxai.core.errors import MethodError
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class
from neuroxai.data.placement import Placement
from neuroxai.methods.paths.baselines import baseline_image
from neuroxai.methods.paths.mirror import mirror_image

SHAPES = {2: (21, 14), 3: (21, 14, 12)}
DIMS = pytest.mark.parametrize("dims", [2, 3])


def brain(dims: int, left: int, width: int, air: float = 0.0) -> Tensor:
    """A box of random tissue off the middle of the first axis, in two channels of one sample."""
    x = torch.full((1, 2, *SHAPES[dims]), air)
    drawn = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) + 1.0 + air
    inside = torch.zeros(SHAPES[dims], dtype=torch.bool)
    inside[left : left + width, 2:-3] = True
    if dims == 3:
        inside[..., :2], inside[..., -3:] = False, False
    return torch.where(inside, drawn, x)


@DIMS
@pytest.mark.parametrize(("left", "width"), [(2, 10), (9, 9)])
def test_the_plane_is_that_of_the_brain_not_of_the_array(dims: int, left: int, width: int) -> None:
    """Voxel by voxel: the partner of left + k is left + width - 1 - k; the rest is air."""
    x = brain(dims, left, width, air=-0.5)
    got = mirror_image(x, 0)
    expected = torch.full_like(x, -0.5)
    for k in range(width):
        expected[:, :, left + k] = x[:, :, left + width - 1 - k]
    assert torch.equal(got, expected)
    assert torch.equal(mirror_image(got, 0), x)
    assert not torch.equal(got, x.flip(2))


@DIMS
def test_each_sample_has_its_own_plane_on_any_axis(dims: int) -> None:
    x = torch.cat([brain(dims, 2, 10), brain(dims, 9, 9), brain(dims, 5, 12)])
    for axis in range(dims):
        turned = x.movedim(2, 2 + axis)
        got = mirror_image(turned, axis).movedim(2 + axis, 2)
        for b in range(3):
            assert torch.equal(got[b : b + 1], mirror_image(x[b : b + 1], 0))


def test_leftovers_outside_the_brain_do_not_move_the_plane() -> None:
    """A voxel at the edge would move the middle of a bounding box."""
    x = brain(3, 4, 10)
    clean = mirror_image(x, 0)
    x[0, :, 20, 7, 7] = 1.5
    assert torch.equal(mirror_image(x, 0)[0, :, 4:14], clean[0, :, 4:14])


def test_without_air_the_plane_is_the_middle_of_the_image() -> None:
    x = torch.rand(2, 3, *SHAPES[3], generator=torch.Generator().manual_seed(1)) + 5.0
    assert torch.equal(mirror_image(x, 1), x.flip(3))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR", "PIL", "ASR"])
@pytest.mark.parametrize("orientation", ["RAS", "LPS", None])
@pytest.mark.parametrize("plane", [False, True])
def test_the_axis_follows_the_affine(codes: str, orientation: str | None, plane: bool) -> None:
    """The axis that nibabel's codes of the network's own affine call left or right."""
    ornt = nib.orientations.axcodes2ornt(tuple(codes))
    shape = (6, 5, 4)
    affine = nib.orientations.inv_ornt_aff(ornt, shape) @ np.diag([1.5, 1.0, 2.0, 1.0])
    placement = Placement.fit(
        shape, affine, slice_index=2 if plane else None, orientation=orientation
    )
    codes_there = nib.orientations.aff2axcodes(placement.network_affine)
    expected = next(k for k, code in enumerate(codes_there) if code in "LR")
    assert placement.left_right_axis == (None if plane and expected == 2 else expected)


def test_a_tensor_has_no_mirror_unless_its_axis_is_named() -> None:
    x, generator = brain(2, 2, 10), torch.Generator()
    probe = WholeVolume(nn.Identity(), Class(0))
    with pytest.raises(MethodError, match="mirror:0 to mirror:1"):
        baseline_image("mirror", probe, x, generator)
    with pytest.raises(MethodError, match="mirror:0 to mirror:1"):
        baseline_image("mirror:2", probe, x, generator)
    assert torch.equal(baseline_image("mirror:0", probe, x, generator), mirror_image(x, 0))
    probe.left_right_axis = 1
    assert torch.equal(baseline_image("mirror", probe, x, generator), mirror_image(x, 1))
