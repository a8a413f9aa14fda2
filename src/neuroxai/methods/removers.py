"""Removers: what takes the place of voxels that are removed from an image.

One table for perturbation methods, metrics and baselines of paths. What is left in the hole decides
what a removal shows, and rankings of methods change with it (arXiv:2504.06800), so a remover is
named wherever it is used.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from neuroxai.core.errors import MethodError
from neuroxai.core.probe.probe import Probe
from neuroxai.core.spatial import spatial_shape
from neuroxai.methods.imputation import impute
from neuroxai.methods.paths.baselines import Baseline, baseline_image, name_of
from neuroxai.methods.remover_names import AUTO, NEIGHBORS, check_remover

RemoverLike = Baseline
"""A name, a number, a number per channel, or an image."""


class Remover:
    r"""Removes voxels of one input.

    Removed voxels take the values of another image, :math:`(1 - r) x + r b`, or are imputed from
    their neighbors.

    Parameters
    ----------
    remover
        A name of a baseline, see :func:`~neuroxai.methods.paths.baselines.baseline_image`;
        ``neighbors``, noisy linear imputation, see :func:`~neuroxai.methods.imputation.impute`; or
        ``auto``, which is ``healthy`` for images and ``zero`` for inputs without space, such as
        clinical values. Or a number, a number per channel, or an image.
    probe
        The network, which knows the value of air and the left-right axis; for ``healthy``, at the
        explained point.
    x
        The input, ``(B, C, *S)``.
    seed
        Seed of what is drawn.

    Raises
    ------
    MethodError
        If the name is unknown, or the image does not allow it.

    Examples
    --------
    >>> from torch import nn
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> from neuroxai.core.target.target import Class
    >>> x = torch.tensor([[[1.0, 2.0, 3.0]]])
    >>> remover = Remover("zero", WholeVolume(nn.Identity(), Class(0)), x)
    >>> remover(torch.tensor([[False, True, False]]))
    tensor([[[1., 0., 3.]]])
    """

    def __init__(self, remover: RemoverLike, probe: Probe, x: Tensor, seed: int = 0) -> None:
        if isinstance(remover, str):
            check_remover("removal", remover)
            if remover == AUTO:
                remover = "healthy" if has_space(x) else "zero"
        self.name, self.x = name_of(remover), x
        self._seed = seed
        generator = torch.Generator().manual_seed(seed)
        imputed = self.name == NEIGHBORS
        self._image = None if imputed else baseline_image(remover, probe, x, generator)

    def __call__(self, removed: Tensor) -> Tensor:
        """Return copies of the input without the removed voxels.

        Parameters
        ----------
        removed
            ``(N, *S)`` or ``(N, 1, *S)`` for all modalities, or ``(N, C, *S)``, with N a multiple
            of the batch: copy after copy of all samples. Bool, or shares in [0, 1] for voxels that
            are replaced in part.
        """
        copies = len(removed) // len(self.x)
        x = self.x.repeat(copies, *[1] * (self.x.dim() - 1))
        removed = removed.to(x.device)
        everywhere = removed if removed.dim() == x.dim() else removed.unsqueeze(1)
        if self._image is not None:
            image = self._image.repeat(copies, *[1] * (x.dim() - 1))
            if everywhere.dtype == torch.bool:
                return torch.where(everywhere, image, x)
            return torch.lerp(x, image, everywhere.to(x))
        hole = _without_shades(everywhere)
        generator = torch.Generator().manual_seed(self._seed)
        if hole.shape[1] == 1:
            return impute(x, hole.squeeze(1), generator)
        parts = [impute(x[:, c : c + 1], hole[:, c], generator) for c in range(x.shape[1])]
        return torch.cat(parts, dim=1)


def has_space(x: Tensor) -> bool:
    """Return whether inputs ``(B, C, *S)`` have more than one voxel.

    Examples
    --------
    >>> has_space(torch.zeros(2, 5, 1, 1))
    False
    """
    return prod(spatial_shape(x)) > 1


def _without_shades(removed: Tensor) -> Tensor:
    """Return a mask as bool.

    Raises
    ------
    MethodError
        If voxels are removed in part.
    """
    if bool(((removed != 0) & (removed != 1)).any()):
        raise MethodError(
            f"the remover {NEIGHBORS!r} imputes voxels that are removed entirely, but these masks "
            "fade them: use another remover, for example 'blur'"
        )
    return removed != 0
