"""Supervoxels: parts of an image with similar values."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuroxai.core.air import foreground

_EDGES = (0.01, 0.99)
"""Quantiles of each channel that become 0 and 1, so that outliers do not set the scale."""

_VOXELS = 2**20
"""Voxels from which quantiles are taken."""

_LEAST = 8
"""Voxels of air from which it is left out of the supervoxels: an image without air has none."""


def supervoxels(x: Tensor, segments: int) -> Tensor:
    """Return labels ``(B, 1, *S)`` of about ``segments`` compact parts of each image, from 1.

    Air has the label 0. The parts are those of SLIC with an adaptive compactness (Achanta et al.
    2012, doi:10.1109/TPAMI.2012.120), over all channels.

    Parameters
    ----------
    x
        Images ``(B, C, *S)``.
    segments
        Approximate number of parts per image.
    """
    return torch.stack([_slic(sample, inside, segments) for sample, inside in
                        zip(x, foreground(x)[:, 0], strict=True)]).unsqueeze(1)  # fmt: skip


def _slic(sample: Tensor, inside: Tensor, segments: int) -> Tensor:
    from skimage.segmentation import slic

    if int((~inside).sum()) < _LEAST or not bool(inside.any()):
        inside = torch.ones_like(inside)
    flat = sample[:, inside].float()
    some = flat[:, :: -(-flat.shape[1] // _VOXELS)]
    low, high = (torch.quantile(some, q, dim=1) for q in _EDGES)
    shape = (-1, *[1] * inside.dim())
    scaled = (sample.float() - low.reshape(shape)) / (high - low).clamp(min=1e-12).reshape(shape)
    found = slic(
        scaled.clamp(0, 1).movedim(0, -1).cpu().double().numpy(),
        n_segments=segments,
        slic_zero=True,
        mask=None if bool(inside.all()) else inside.cpu().numpy(),
        start_label=1,
        channel_axis=-1,
        convert2lab=False,
    )
    return torch.from_numpy(np.asarray(found, dtype=np.int64)).to(sample.device)
