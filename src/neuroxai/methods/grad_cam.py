"""Grad-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.explanation import Attribution
from neuroxai.core.layers.layers import AUTO
from neuroxai.core.probe.answers import Asks
from neuroxai.core.probe.probe import Probe
from neuroxai.core.spatial import resample_to, spatial_shape
from neuroxai.methods.base import Method

_COARSE = 8.0
"""Voxels from which on a cell's edge deserves a word."""


@dataclass(frozen=True)
class GradCAM(Method):
    r"""A layer's activations weighted by their mean gradient, rectified (arXiv:1610.02391).

    .. math:: \mathrm{ReLU}\Big(\sum_k \alpha_k A^k\Big), \quad
              \alpha_k = \frac{1}{N} \sum_v \frac{\partial S}{\partial A^k_v}

    (Selvaraju et al. 2017; eqs. 9-10 of the paper), brought to the input's grid by linear
    interpolation, of shape ``(B, 1, *S)``, never negative.

    A layer's cells share the input evenly among them, as in other implementations. What a cell
    sees may be centered up to half a cell before that: behind strided convolutions with odd
    kernels it is, in the last layer of a ResNet-50 by 15.5 pixels. A note tells coarse cells.

    Parameters
    ----------
    layer
        A layer by name, or ``auto``: a classifier's last convolution with spatial extent, a
        segmenter's last convolution before its output convolution.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.Conv2d(3, 2, 1))
    >>> explanation = GradCAM().explain(WholeVolume(network, Class(0)), torch.rand(1, 1, 6, 8))
    >>> explanation.layer, tuple(explanation.values.shape)
    ('0', (1, 1, 6, 8))
    """

    name: ClassVar[str] = "grad_cam"
    title: ClassVar[str] = "Grad-CAM"
    signed: ClassVar[bool] = False
    shared: ClassVar[bool] = True
    units: ClassVar[str] = "activation times gradient, arbitrary"
    citation: ClassVar[str] = "arXiv:1610.02391"

    layer: str = AUTO

    @property
    def asks(self) -> Asks:
        """The layer's map."""
        return Asks(layers=frozenset([self.layer]))

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Return the rectified, up-sampled map."""
        layer, signed = probe.layer_map(x, self.layer)
        low = signed.clamp(min=0)
        values = resample_to(low, probe.layer_grid(x), spatial_shape(x)).contiguous()
        empty = ~low.flatten(1).any(dim=1)
        notes = tuple(
            f"the map of layer {layer.name} is negative everywhere and was rectified to zero"
            + (f" (sample {sample})" if x.shape[0] > 1 else "")
            for sample in empty.nonzero().flatten().tolist()
        )
        cells = [n / c for n, c in zip(probe.layer_grid(x), layer.shape[1:], strict=True)]
        if max(cells) >= _COARSE:
            edges = " x ".join(f"{edge:.3g}" for edge in cells)
            notes = (
                *notes,
                f"a cell of layer {layer.name} is {edges} voxels of the network's grid: where "
                "something lies is not told more finely, and may be off by half a cell",
            )
        within = probe.target.description["within"]
        if within is not None:
            # Which filters matter within is told, and they are shown wherever they fire.
            notes = (
                *notes,
                f"asked within {within}, but a class activation map lights whatever looks alike "
                "to its filters, wherever that is",
            )
        diagnostics = {
            "layer_shape": list(layer.shape),
            "cell_voxels": cells,
            "negative_fraction": (signed < 0).flatten(1).double().mean(dim=1).tolist(),
        }
        return Attribution(values, diagnostics, notes, layer.name)
