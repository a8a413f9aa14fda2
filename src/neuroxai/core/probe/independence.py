"""Whether the samples of a batch affect each other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from neuroxai.core.engine.network_state import restored
from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.errors import NETWORK_ERRORS, TargetError
from neuroxai.core.spatial import companion

TOLERANCE, TOLERANCE_16_BITS = 1e-3, 0.02
"""Change of the output with the rest of the batch, relative to its largest value, that rounding
explains in single precision and in 16 bits."""


def is_unchanged_in_batch(
    network: nn.Module,
    run: Callable[[Tensor], Tensor],
    point: Tensor,
    alone: Tensor,
    settings: PassSettings,
) -> bool:
    """Return whether a second image in the batch leaves the output of the first unchanged.

    Parameters
    ----------
    network
        The network, which is restored afterwards.
    run
        Returns its output.
    point, alone
        The image ``(B, C, *S)``, and its output without the second one.
    settings
        How passes are computed, which decides what rounding explains.
    """
    try:
        with restored(network), torch.no_grad():
            both = run(torch.cat([point, companion(point)]))
    except (TargetError, *NETWORK_ERRORS):
        return False  # the network does not accept a larger batch, or returns other rows
    first = both[: len(point)]
    if first.shape != alone.shape:
        return False
    single = settings.precision == "fp32" and point.dtype in (torch.float32, torch.float64)
    change, largest = (first - alone).abs().max(), alone.abs().max()
    return bool(change <= (TOLERANCE if single else TOLERANCE_16_BITS) * largest)
