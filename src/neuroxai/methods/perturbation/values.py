"""Value functions: the number that a perturbation changes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from neuroxai.core.errors import MethodError
from neuroxai.core.target.bound_target import BoundTarget
from neuroxai.core.target.predicted_mask import predicted_mask

ValueFunction = Callable[[Tensor], Tensor]
"""Returns the value ``(N,)`` of outputs of ``N = n * B`` samples."""


def value_function(name: str, bound: BoundTarget, output: Tensor) -> ValueFunction:
    r"""Return a value function, fixed at the explained point.

    Parameters
    ----------
    name
        ``target``, the target itself, by default the mean logit of the predicted region;
        ``dice``, the soft Dice of the target's probabilities p and the region q that the network
        predicts at the explained point, :math:`2 \sum p q / (\sum p + \sum q)`;
        ``volume``, the expected number of voxels :math:`\sum p`. The last two are of a segmenter,
        over the whole output.
    bound, output
        The target and the network's output at the explained point.

    Raises
    ------
    MethodError
        If the target has no probabilities on a grid.
    """
    if name == "target":
        return bound.score
    if output.dim() == 2 or bound.function is not None or bound.against is not None:
        raise MethodError(
            f"the value {name!r} is of a region of a segmenter, but the target is "
            f"{bound.description['name']!r} of an output of {tuple(output.shape)}: use 'target'"
        )
    if name == "volume":
        return lambda output: bound.probability(output).flatten(1).sum(dim=1)
    own = predicted_mask(bound.outputs, bound.channels.to(output.device), output)
    return lambda output: soft_dice(bound.probability(output), own)


def soft_dice(probability: Tensor, mask: Tensor) -> Tensor:
    """Return the soft Dice ``(N,)`` of probabilities ``(N, *S)`` and masks ``(B, *S)``.

    It is one if both are empty.

    Examples
    --------
    >>> import torch
    >>> soft_dice(torch.tensor([[0.5, 1.0]]), torch.tensor([[False, True]]))
    tensor([0.8000])
    """
    copies = len(probability) // len(mask)
    own = mask.to(probability).repeat(copies, *[1] * (mask.dim() - 1)).flatten(1)
    flat = probability.flatten(1)
    both, total = (flat * own).sum(dim=1), flat.sum(dim=1) + own.sum(dim=1)
    return (2 * both / total.clamp(min=1e-30)).where(total > 0, 1.0)
