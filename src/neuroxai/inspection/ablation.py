"""Ablation of filters, to separate the filters a network relies on from merely correlated ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from neuroxai.core.errors import LayerError, suggestion
from neuroxai.core.layers.units import Units, units_visited


@contextmanager
def ablate_filters(
    network: nn.Module, units: Sequence[Units], filters: Mapping[str, Sequence[int]]
) -> Iterator[None]:
    """Context manager that ablates filters in every forward pass.

    The output of a filter followed by a rectifier is set to zero. Any other filter is set to its
    mean over the image, which removes its spatial information (Bau et al. 2020,
    doi:10.1073/pnas.1907375117, ablate units to measure their causal effect).

    Parameters
    ----------
    network
        The network. Its weights are not changed; the hooks are removed on exit.
    units
        Result of :func:`~neuroxai.core.layers.units.find_units`.
    filters
        Layer name to the channels to ablate.

    Raises
    ------
    LayerError
        If a layer or filter does not exist.

    Examples
    --------
    >>> from neuroxai.core.layers.units import find_units
    >>> network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1, bias=False))
    >>> x = torch.rand(1, 1, 4, 3)
    >>> with ablate_filters(network, find_units(network, x), {"0": [0, 1]}):
    ...     bool((network(x) == 0).all())
    True
    """
    known = {unit.layer: unit for unit in units}
    for layer, channels in filters.items():
        if layer not in known:
            raise LayerError(f"layer {layer!r} has no units; {suggestion(layer, known)}")
        for channel in channels:
            if not 0 <= channel < known[layer].count:
                raise LayerError(
                    f"filter {channel} of layer {layer!r} does not exist; expected 0 to "
                    f"{known[layer].count - 1}"
                )

    def ablate(unit: Units, output: Tensor) -> Tensor:
        changed = output.clone()
        index = torch.as_tensor(list(filters[unit.layer]), device=output.device)
        if unit.rectified:
            changed[:, index] = 0
        else:
            axes = tuple(range(2, output.dim()))
            changed[:, index] = output[:, index].mean(dim=axes, keepdim=True)
        return changed

    chosen = [known[layer] for layer, channels in filters.items() if len(channels)]
    with units_visited(network, chosen, ablate):
        yield
