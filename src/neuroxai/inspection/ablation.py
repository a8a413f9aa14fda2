"""Switching filters off, to tell what a network needs from what only goes along."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from neuroxai.core.errors import LayerError, suggestion
from neuroxai.core.layers.units import Units, units_met


@contextmanager
def switched_off(
    network: nn.Module, units: Sequence[Units], filters: Mapping[str, Sequence[int]]
) -> Iterator[None]:
    """Switch filters off for the passes inside, for every one of them.

    A filter behind a rectifier answers zero, which is off; any other answers its own mean over the
    image, which keeps its level and takes away what it tells about places (Bau et al. 2020,
    doi:10.1073/pnas.1907375117, remove units to see what they cause).

    Parameters
    ----------
    network
        The network; its weights are not touched, and the hooks are gone on leaving.
    units
        What :func:`~neuroxai.core.layers.units.find_units` found.
    filters
        Layer to the channels to switch off.

    Raises
    ------
    LayerError
        If there is no such layer or filter.

    Examples
    --------
    >>> from neuroxai.core.layers.units import find_units
    >>> network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1, bias=False))
    >>> x = torch.rand(1, 1, 4, 3)
    >>> with switched_off(network, find_units(network, x), {"0": [0, 1]}):
    ...     bool((network(x) == 0).all())
    True
    """
    known = {unit.layer: unit for unit in units}
    for layer, channels in filters.items():
        if layer not in known:
            raise LayerError(f"layer {layer!r} has no units: {suggestion(layer, known)}")
        for channel in channels:
            if not 0 <= channel < known[layer].count:
                raise LayerError(
                    f"filter {channel} of layer {layer!r} does not exist: it has "
                    f"{known[layer].count}, from 0"
                )

    def visit(unit: Units, output: Tensor) -> Tensor:
        changed = output.clone()
        index = torch.as_tensor(list(filters[unit.layer]), device=output.device)
        if unit.rectified:
            changed[:, index] = 0
        else:
            axes = tuple(range(2, output.dim()))
            changed[:, index] = output[:, index].mean(dim=axes, keepdim=True)
        return changed

    chosen = [known[layer] for layer, channels in filters.items() if len(channels)]
    with units_met(network, chosen, visit):
        yield
