"""Training losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuroxai.core.errors import TrainingError, suggestion
from neuroxai.data.case import CLASSES


class RegionDiceCrossEntropy(nn.Module):
    r"""Soft Dice over regions and classes, plus class-weighted cross-entropy.

    .. math:: 1 - \frac{1}{|R|} \sum_R
              \frac{2 \sum_v p_R t_R + s}{\sum_v p_R + \sum_v t_R + s} + \mathrm{CE},
              \quad p_R = \sum_{c \in R} p_c

    averaged over images. R runs over the regions and the foreground classes. The sums extend over
    the voxels of one image; over a batch, a large tumor would outweigh a small one. If R does not
    occur in the image, s is ``absent``: with a small s the gradient would vanish, and the network
    would not learn that a region can be missing. Dice over regions is the evaluation metric. Dice
    over classes keeps the classes of a region apart, which cross-entropy alone does not achieve
    because most voxels are background.

    Parameters
    ----------
    classes, regions
        Names of the output channels, background first; region name to the names of its classes.
        Without regions there is no Dice term.
    weights
        Weight of each class in the cross-entropy; if empty, all are equal.
    smooth, absent
        s in voxels, for regions that occur in the image and for those that do not. ``absent`` is
        of the order of a small lesion.

    References
    ----------
    Milletari et al. 2016, arXiv:1606.04797 (soft Dice); Myronenko 2018, arXiv:1810.11654 (regions).

    Examples
    --------
    >>> loss = RegionDiceCrossEntropy(["background", "ET"], {"ET": ["ET"]})
    >>> truth = torch.tensor([[[0, 1, 1]]])
    >>> logits = 50.0 * torch.nn.functional.one_hot(truth, 2).movedim(-1, 1)
    >>> bool(loss(logits, truth) < 1e-6), bool(loss(-logits, truth) > 1)
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
        absent: float = 500.0,
    ) -> None:
        super().__init__()
        groups = [*regions.values(), *([name] for name in classes[1:])] if regions else []
        distinct = dict.fromkeys(tuple(sorted(members)) for members in groups)
        rows = [[float(name in members) for name in classes] for members in distinct]
        self.register_buffer("membership", torch.tensor(rows).reshape(-1, len(classes)))
        self.register_buffer("weights", torch.tensor(list(weights)) if weights else None)
        self.smooth = smooth
        self.absent = absent

    def forward(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Compute the loss of ``logits (B, K, *S)`` for class indices ``truth (B, *S)``."""
        logits = logits.float()
        entropy = functional.cross_entropy(logits, truth, weight=self.weights)
        if not len(self.membership):
            return entropy
        probabilities = logits.softmax(dim=1)
        predicted = torch.einsum("rk,bk...->rb...", self.membership, probabilities).flatten(2)
        real = self.membership.t()[truth].movedim(-1, 0).flatten(2)
        size = real.sum(2)
        smooth = torch.where(size > 0, self.smooth, self.absent)
        dice = (2 * (predicted * real).sum(2) + smooth) / (predicted.sum(2) + size + smooth)
        return entropy + 1 - dice.mean()


class GradingLoss(nn.Module):
    """Cross-entropy of a classifier, with an auxiliary loss on its feature maps.

    During training, a 1×1 convolution on each of ``layers`` predicts the fraction of every tissue
    at every position of the feature map. The cross-entropy of these predictions, weighted by
    tissue, is added with the factor ``weight``. Every slice then provides hundreds of training
    signals instead of one, so that a network trained from scratch finds the tumor within minutes.
    The convolutions are discarded after the training.

    Parameters
    ----------
    network
        The classifier. Forward hooks record its feature maps until :meth:`close`.
    layers
        Names of layers with feature maps ``(B, C, X, Y)``.
    weight
        Weight of the auxiliary loss; 0 disables it.
    channels
        Number of input channels of the network.

    Raises
    ------
    TrainingError
        If a layer does not exist or has no feature maps.

    References
    ----------
    Lee et al. 2015, arXiv:1409.5185 (deep supervision).
    """

    tissue_weights: Tensor

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str] = (),
        *,
        weight: float = 0.0,
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.weight = weight
        # One weight per entry of CLASSES, set by hand: background fills most of a slice, necrosis
        # and enhancing rims little of it.
        self.register_buffer("tissue_weights", torch.tensor([0.3, 2.0, 1.0, 3.0, 1.0]))
        self._maps: dict[str, Tensor] = {}
        self._handles = []
        self.heads = nn.ModuleDict()
        named = dict(network.named_modules())
        for name in layers if weight else ():
            if name not in named:
                raise TrainingError(
                    f"auxiliary_loss_layers: no layer {name!r}; {suggestion(name, named)}"
                )
            self._handles.append(named[name].register_forward_hook(self._recorder(name)))
        if self._handles:
            with torch.no_grad():
                network.eval()(torch.zeros(1, channels, 64, 64))
            network.train()
        for name, maps in self._maps.items():
            if maps.ndim != 4:
                raise TrainingError(
                    f"auxiliary_loss_layers: the output of {name} has shape {tuple(maps.shape)}, "
                    "expected feature maps (B, C, X, Y); name a layer before the dense ones"
                )
            head = nn.Conv2d(maps.shape[1], len(CLASSES), kernel_size=1)
            self.heads[name.replace(".", "_")] = head
        self._maps.clear()

    def forward(self, logits: Tensor, truth: tuple[Tensor, Tensor]) -> Tensor:
        """Compute the loss of ``logits (B, K)``.

        ``truth`` consists of class indices ``(B,)`` and one-hot tissues ``(B, T, X, Y)``.
        """
        grades, tissue = truth
        loss = functional.cross_entropy(logits.float(), grades)
        weights = self.tissue_weights[:, None, None]
        for name, maps in self._maps.items():
            predicted = self.heads[name.replace(".", "_")](maps).float().log_softmax(dim=1)
            fractions = functional.adaptive_avg_pool2d(tissue, predicted.shape[2:])
            # Weighted before normalization, because thin rims cover little of a cell's area.
            fractions = fractions * weights
            fractions = fractions / fractions.sum(dim=1, keepdim=True).clamp(min=1e-6)
            loss = loss - self.weight * (weights * fractions * predicted).sum(dim=1).mean()
        self._maps.clear()
        return loss

    def close(self) -> None:
        """Remove the hooks from the network."""
        for handle in self._handles:
            handle.remove()
        self._maps.clear()

    def _recorder(self, name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def record(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            self._maps[name] = output

        return record
