"""Sums over the windows of an image."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.errors import NeuroXAIError
from neuroxai.core.layers.layers import Layer
from neuroxai.core.layers.reduction import ChannelWeightedReduction
from neuroxai.core.probe.answers import Answers
from neuroxai.core.probe.requests import InputGradient, LayerMap, Request
from neuroxai.core.probe.windows import PlacedWindows


@dataclass(frozen=True)
class SummedWeights(ChannelWeightedReduction):
    """The channel weights of a reduction, summed over one window's cells instead of averaged."""

    reduction: ChannelWeightedReduction

    def weights(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Return the weights ``(B, C)`` of the window alone."""
        return self.reduction.weights(activation, gradient)

    def combine(self, activation: Tensor, weights: Tensor) -> Tensor:
        """Return the weights times the number of cells, ``(B, C)``."""
        return weights * prod(activation.shape[2:])


class WindowSums:
    """The windows' gradients, maps and outputs, summed on the padded grid of the image.

    Parameters
    ----------
    windows
        The windows over the image.
    x
        The image ``(B, C, *S)``.
    gradients
        The requested input gradients.
    blends
        Whether the windows' outputs are blended as well.
    place
        Interpolates the map of a layer to its window.

    Attributes
    ----------
    output
        The blended output, padded.
    maps
        Layer and sum: of the maps on the padded grid, or of channel weights ``(B, C)``.
    refused
        Requests that some window refused, and why.
    """

    def __init__(
        self,
        windows: PlacedWindows,
        x: Tensor,
        gradients: Collection[InputGradient],
        *,
        blends: bool,
        place: Callable[[Tensor, Layer], Tensor],
    ) -> None:
        self._windows, self._blends, self._place = windows, blends, place
        shape = (*x.shape[:2], *windows.padded)
        self._gradients = {request: x.new_zeros(shape) for request in gradients}
        self._activations: frozenset[str] = frozenset()
        self.output = torch.zeros(0)
        self.maps: dict[LayerMap, tuple[Layer, Tensor]] = {}
        self.refused: dict[Request, NeuroXAIError] = {}

    def add(self, cut: Any, share: Tensor, found: Answers) -> None:
        """Add the answers of one window.

        Parameters
        ----------
        cut
            The window, as an index into the padded grid.
        share
            The window's share of the weights, ``(*S)``.
        found
            Its answers.
        """
        if self._blends:
            self.blend(cut, share, found.output)
        for gradient, values in found.gradients.items():
            self._gradients[gradient][cut] += values
        for request, (layer, values) in found.maps.items():
            self._add_map(request, layer, values, cut)
        self.refused |= found.refused
        self._activations |= found.activations

    def blend(self, cut: Any, share: Tensor, output: Tensor) -> None:
        """Add the output of one window, which may be run without its gradients."""
        if self.output.numel() == 0:
            shape = (*output.shape[:2], *self._windows.padded)
            self.output = output.new_zeros(shape)
        self.output[cut].addcmul_(share, output)

    def _add_map(self, request: LayerMap, layer: Layer, values: Tensor, cut: Any) -> None:
        _, before = self.maps.get(request, (layer, None))
        if isinstance(request.reduction, SummedWeights):
            self.maps[request] = (layer, values if before is None else before + values)
            return
        if before is None:
            before = values.new_zeros((*values.shape[:2], *self._windows.padded))
            self.maps[request] = (layer, before)
        before[cut] += self._place(values, layer)

    def mean_weights(self, request: LayerMap) -> tuple[str, Tensor]:
        """Return a layer's label and its channel weights ``(B, C)``, averaged over all windows.

        The sum over the windows' cells is divided by the number of cells that the layer would
        have on the padded image, so overlapping windows count as often as they cover it.
        """
        layer, total = self.maps[request]
        cells = prod(layer.shape[1:]) * prod(self._windows.padded) / prod(self._windows.size)
        return layer.name, total / cells

    def crop(self, values: Tensor) -> Tensor:
        """Return values on the image's own grid."""
        return self._windows.crop(values).contiguous()

    def answers(self, output: Tensor, score: Tensor) -> Answers:
        """Return the input gradients on the image's own grid."""
        return Answers(
            output,
            score,
            {
                request: self.crop(values)
                for request, values in self._gradients.items()
                if request not in self.refused
            },
            refused=dict(self.refused),
            activations=self._activations,
        )
