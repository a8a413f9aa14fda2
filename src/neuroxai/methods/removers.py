"""Removers: what takes the place of voxels that are removed from an image.

One table for perturbation methods, metrics and baselines of paths. What is left in the hole decides
what a removal shows, and rankings of methods change with it (arXiv:2504.06800), so a remover is
named wherever it is used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuroxai.core.errors import MethodError, suggestion
from neuroxai.core.probe.probe import Probe
from neuroxai.methods.imputation import impute
from neuroxai.methods.paths.baseline_names import BASELINES, named_axis
from neuroxai.methods.paths.baselines import baseline_image

NEIGHBORS = "neighbors"

REMOVERS = (NEIGHBORS, *(name for name in BASELINES if name != "auto"))
"""``neighbors``, noisy linear imputation, see :func:`~neuroxai.methods.imputation.impute`; and the
baselines of paths, whose voxels take the place, see
:func:`~neuroxai.methods.paths.baselines.baseline_image`."""


class Remover:
    """Removes voxels of one input.

    Parameters
    ----------
    name
        One of :data:`REMOVERS`.
    probe
        The network, which knows the value of air and the left-right axis.
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

    def __init__(self, name: str, probe: Probe, x: Tensor, seed: int = 0) -> None:
        check_remover(name)
        self.name, self.x = name, x
        self._seed = seed
        generator = torch.Generator().manual_seed(seed)
        self._image = None if name == NEIGHBORS else baseline_image(name, probe, x, generator)

    def __call__(self, removed: Tensor) -> Tensor:
        """Return copies of the input without the removed voxels.

        Parameters
        ----------
        removed
            Bool, ``(N, *S)`` for all modalities or ``(N, C, *S)``, with N a multiple of the batch:
            copy after copy of all samples.
        """
        copies = len(removed) // len(self.x)
        x = self.x.repeat(copies, *[1] * (self.x.dim() - 1))
        removed = removed.to(x.device)
        everywhere = removed if removed.dim() == x.dim() else removed.unsqueeze(1)
        if self._image is not None:
            image = self._image.repeat(copies, *[1] * (x.dim() - 1))
            return torch.where(everywhere, image, x)
        generator = torch.Generator().manual_seed(self._seed)
        if removed.dim() < x.dim():
            return impute(x, removed, generator)
        parts = [impute(x[:, c : c + 1], removed[:, c], generator) for c in range(x.shape[1])]
        return torch.cat(parts, dim=1)


def check_remover(name: str) -> None:
    """Raise if a remover is unknown."""
    if name not in REMOVERS and named_axis(name) is None:
        raise MethodError(f"unknown remover {name!r}: {suggestion(name, REMOVERS)}")
