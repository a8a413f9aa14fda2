"""What the networks are trained to make small."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuroxai.core.errors import TrainingError, suggestion
from neuroxai.data.case import CLASSES


class RegionDiceCrossEntropy(nn.Module):
    """Soft Dice over regions and over classes, plus class-weighted cross-entropy.

    For a region or a foreground class R with probabilities p and truth t, summed over the voxels
    of one image, ``Dice_R = (2 Σ p_R t_R + s) / (Σ p_R + Σ t_R + s)`` with ``p_R = Σ_{c ∈ R} p_c``;
    the loss is ``1 − mean Dice + CE``, the mean over regions and images. Summed over the batch
    instead, a large tumor would hide what is wrong in a small one beside it. Where R does not
    occur in the image, s is ``absent``: with a small one the term would be flat, and nothing would
    teach the network that a tumor need not enhance. Dice over regions is what is measured in the
    end; Dice over classes keeps the classes inside a region apart, which the cross-entropy alone
    does not: background is nearly all of a brain, and necrosis and edema collapse into one.

    Parameters
    ----------
    classes, regions
        Names by output channel, the background first; region name to the names of its classes.
        Without regions there is no Dice term.
    weights
        Weight of each class in the cross-entropy; none means equal ones.
    smooth, absent
        s, in voxels, for a region that occurs in the image and for one that does not.

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
        absent: float = 500.0,
    ) -> None:
        super().__init__()
        groups = [*regions.values(), *([name] for name in classes[1:])] if regions else []
        members_once = dict.fromkeys(tuple(sorted(members)) for members in groups)
        rows = [[float(name in members) for name in classes] for members in members_once]
        self.register_buffer("membership", torch.tensor(rows).reshape(-1, len(classes)))
        self.register_buffer("weights", torch.tensor(list(weights)) if weights else None)
        self.smooth = smooth
        self.absent = absent

    def forward(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the loss of ``logits (B, K, *S)`` against class indices ``truth (B, *S)``."""
        logits = logits.float()
        entropy = functional.cross_entropy(logits, truth, weight=self.weights)
        if not len(self.membership):
            return entropy
        found = torch.einsum("rk,bk...->rb...", self.membership, logits.softmax(dim=1)).flatten(2)
        real = self.membership.t()[truth].movedim(-1, 0).flatten(2)
        size = real.sum(2)
        smooth = torch.where(size > 0, self.smooth, self.absent)
        dice = (2 * (found * real).sum(2) + smooth) / (found.sum(2) + size + smooth)
        return entropy + 1 - dice.mean()


class HintedCrossEntropy(nn.Module):
    """Cross-entropy of a classifier, with hints about the tissues in its inner maps.

    While the network learns, a 1×1 convolution on each of ``layers`` must tell the share of every
    tissue in every cell of that layer's map; ``weight`` times that cross-entropy, the tumor's
    tissues counted more, is added. One slice then teaches hundreds of things instead of one, so
    that a network from nothing learns within minutes where to look. The convolutions are discarded
    in the end: the network itself is as it would be without.

    Parameters
    ----------
    network
        The classifier; its layers are listened to until :meth:`close`.
    layers
        Names of layers with maps ``(B, C, X, Y)``.
    weight
        Of the hints; 0 leaves the plain cross-entropy.
    channels
        Of the network's input.

    Raises
    ------
    TrainingError
        If the network has no such layer, or it has no maps.

    References
    ----------
    Lee et al. 2015, arXiv:1409.5185 (deep supervision).
    """

    emphasis: Tensor

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
        self.register_buffer("emphasis", torch.tensor([0.3, 2.0, 1.0, 3.0, 1.0]))
        self._maps: dict[str, Tensor] = {}
        self._handles = []
        self.readers = nn.ModuleDict()
        named = dict(network.named_modules())
        for name in layers if weight else ():
            if name not in named:
                raise TrainingError(
                    f"auxiliary_loss_layers: no layer {name!r}; {suggestion(name, named)}"
                )
            self._handles.append(named[name].register_forward_hook(self._listener(name)))
        if self._handles:
            with torch.no_grad():
                network.eval()(torch.zeros(1, channels, 64, 64))
            network.train()
        for name, maps in self._maps.items():
            if maps.ndim != 4:
                raise TrainingError(
                    f"auxiliary_loss_layers: {name} has no maps (B, C, X, Y) but the shape "
                    f"{tuple(maps.shape)}; name a layer in front of the dense ones"
                )
            reader = nn.Conv2d(maps.shape[1], len(CLASSES), kernel_size=1)
            self.readers[name.replace(".", "_")] = reader
        self._maps.clear()

    def forward(self, logits: Tensor, truth: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss of ``logits (B, K)`` against classes ``(B,)`` and tissue shares."""
        grades, tissue = truth
        loss = functional.cross_entropy(logits.float(), grades)
        for name, maps in self._maps.items():
            found = self.readers[name.replace(".", "_")](maps).float().log_softmax(dim=1)
            shares = functional.adaptive_avg_pool2d(tissue, found.shape[2:])
            spread = self.emphasis[:, None, None]
            # Thin rims fill little of a cell; counted by area alone nobody would look for them.
            shares = shares * spread
            shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-6)
            loss = loss - self.weight * (spread * shares * found).sum(dim=1).mean()
        self._maps.clear()
        return loss

    def close(self) -> None:
        """Stop listening to the network."""
        for handle in self._handles:
            handle.remove()
        self._maps.clear()

    def _listener(self, name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def listen(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            self._maps[name] = output

        return listen
