"""What the networks are trained to make small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class RegionDiceCrossEntropy(nn.Module):
    """Soft Dice over regions and over classes, plus class-weighted cross-entropy.

    For a region or a foreground class R with probabilities p and truth t, summed over the batch
    and all voxels, ``Dice_R = (2 Σ p_R t_R + s) / (Σ p_R + Σ t_R + s)`` with
    ``p_R = Σ_{c ∈ R} p_c``; the loss is ``1 − mean_R Dice_R + CE``. Dice over regions is what is
    measured in the end; Dice over classes keeps the classes inside a region apart, which the
    cross-entropy alone does not: background is nearly all of a brain, and necrosis and edema
    collapse into one.

    Parameters
    ----------
    classes, regions
        Names by output channel, the background first; region name to the names of its classes.
        Without regions there is no Dice term.
    weights
        Weight of each class in the cross-entropy; none means equal ones.
    smooth
        s, in voxels.

    References
    ----------
    Milletari et al. 2016, arXiv:1606.04797 (soft Dice); Myronenko 2018, arXiv:1810.11654 (regions).

    Examples
    --------
    >>> loss = RegionDiceCrossEntropy(["background", "ET"], {"ET": ["ET"]})
    >>> truth = torch.tensor([[[0, 1, 1]]])
    >>> sure = 50.0 * torch.nn.functional.one_hot(truth, 2).movedim(-1, 1)
    >>> bool(loss(sure, truth) < 1e-6), bool(loss(-sure, truth) > 1)
    (True, True)
    """

    membership: Tensor
    weights: Tensor | None

    def __init__(
        self,
        classes: Sequence[str],
        regions: Mapping[str, Sequence[str]],
        *,
        weights: Sequence[float] = (),
        smooth: float = 1.0,
    ) -> None:
        super().__init__()
        groups = [*regions.values(), *([name] for name in classes[1:])] if regions else []
        members_once = dict.fromkeys(tuple(sorted(members)) for members in groups)
        rows = [[float(name in members) for name in classes] for members in members_once]
        self.register_buffer("membership", torch.tensor(rows).reshape(-1, len(classes)))
        self.register_buffer("weights", torch.tensor(list(weights)) if weights else None)
        self.smooth = smooth

    def forward(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the loss of ``logits (B, K, *S)`` against class indices ``truth (B, *S)``."""
        logits = logits.float()
        entropy = functional.cross_entropy(logits, truth, weight=self.weights)
        if not len(self.membership):
            return entropy
        found = torch.einsum("rk,bk...->rb...", self.membership, logits.softmax(dim=1)).flatten(1)
        real = self.membership.t()[truth].movedim(-1, 0).flatten(1)
        dice = (2 * (found * real).sum(1) + self.smooth) / (
            found.sum(1) + real.sum(1) + self.smooth
        )
        return entropy + 1 - dice.mean()
