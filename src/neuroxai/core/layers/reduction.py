"""Reductions of a layer's activation and gradient to one map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroxai.core.spatial import spatial_mean


class LayerReduction(ABC):
    """What is kept of a layer's activation and gradient.

    A reduction is a value: a frozen dataclass, so that equal requests share one computation. It
    subclasses :class:`PositionwiseReduction` or :class:`ChannelWeightedReduction`, which say how
    the maps of several windows are combined. A direct subclass is defined on the whole image
    alone, and a sliding window refuses it.
    """

    @abstractmethod
    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Return the map ``(B, 1, *S)`` of an activation and its gradient, ``(B, C, *S)`` each.

        The gradient may be released afterwards; keep no reference to it.
        """


class PositionwiseReduction(LayerReduction):
    """A reduction whose map at a cell depends on that cell's activation and gradient alone.

    Over windows the maps are added: a window's gradients already carry its share of the blended
    output, so a cell covered by several windows receives each contribution once.
    """


class ChannelWeightedReduction(LayerReduction):
    """A weighted sum of the channels, with one weight per channel for the whole image.

    Over windows the weights are averaged over the cells of all windows, and the windows' maps
    with these weights are blended like the windows' outputs.
    """

    @abstractmethod
    def weights(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Return the weights ``(B, C)``: a mean over the layer's cells, linear in the gradient.

        Where they cancel, as in front of an instance norm, the map is refused.
        """

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Return the weighted sum of the channels."""
        return self.combine(activation, self.weights(activation, gradient))

    def combine(self, activation: Tensor, weights: Tensor) -> Tensor:
        """Return ``(B, 1, *S)`` for known weights; the value at a cell depends on it alone."""
        return weighted_sum(activation, weights)


@dataclass(frozen=True)
class MeanGradientWeights(ChannelWeightedReduction):
    r"""The signed class activation map of Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391).

    .. math:: \sum_k \Big(\frac{1}{N} \sum_v \frac{\partial S}{\partial A^k_v}\Big) A^k

    Examples
    --------
    >>> activation = torch.ones(1, 2, 3, 4)
    >>> MeanGradientWeights().reduce(activation, 2 * activation)[0, 0, 0]
    tensor([4., 4., 4., 4.])
    """

    def weights(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient's mean over the layer's cells."""
        return spatial_mean(gradient)


MEAN_GRADIENT_WEIGHTS = MeanGradientWeights()


def weighted_sum(activation: Tensor, weights: Tensor) -> Tensor:
    """Sum the channels of ``(B, C, *S)`` with weights ``(B, C)`` to ``(B, 1, *S)``."""
    return torch.einsum("bc,bc...->b...", weights, activation).unsqueeze(1)
