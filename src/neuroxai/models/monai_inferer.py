"""Translation of a MONAI inferer into sliding windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from neuroxai.core.errors import ModelError
from neuroxai.core.probe.windows import Windows
from neuroxai.models.config_data import ConfigData

_WHOLE_IMAGE = {"SimpleInferer"}
_SLIDING = {"SlidingWindowInferer", "SlidingWindowInfererAdapt"}
_IGNORED = {
    "_target_", "_desc_", "sw_batch_size", "sw_device", "device", "progress",
    "cache_roi_weight_map",
    "cpu_thresh", "buffer_steps", "buffer_dim", "with_coord",
}  # fmt: skip
"""Options that affect device and speed, but not the output."""

_SMALLEST_WEIGHT = 1e-3
"""Minimum of MONAI's importance maps, as in ``monai.data.utils``."""


def read_inferer(config: ConfigData) -> Windows | None:
    """Return the sliding windows of a bundle's inferer, None if it uses the whole image.

    Raises
    ------
    ModelError
        If the inferer, or an option that changes the output, is not supported.
    """
    raw = config.raw("inferer")
    if raw is None:
        return None
    where = f"{config.source}: inferer"
    table = config.get("inferer", without=_IGNORED - {"_target_"})
    target = str(table.get("_target_")) if isinstance(table, Mapping) else repr(raw)
    name = target.rsplit(".", 1)[-1]
    if name in _WHOLE_IMAGE:
        return None
    if name not in _SLIDING or not isinstance(table, Mapping):
        known = ", ".join(sorted(_WHOLE_IMAGE | _SLIDING))
        raise ModelError(f"{where} is {target}, which is not supported; supported: {known}")
    options = {key: value for key, value in table.items() if key not in _IGNORED}
    size = _lengths(options.pop("roi_size", None), where)
    overlap = options.pop("overlap", 0.25)
    if isinstance(overlap, bool) or not isinstance(overlap, int | float) or not 0 <= overlap < 1:
        raise ModelError(f"{where}: overlap is {overlap!r}, expected a number from 0 to below 1")
    weights = _weights(size, options.pop("mode", "constant"), options.pop("sigma_scale", 0.125))
    if weights is None:
        raise ModelError(f"{where}: mode and sigma_scale are not valid for MONAI's importance maps")
    for key, allowed in (("padding_mode", "constant"), ("cval", 0)):
        got = options.pop(key, allowed)
        if got != allowed:
            raise ModelError(f"{where}: {key} is {got!r}, expected {allowed!r}")
    if options:
        raise ModelError(f"{where}: the option {next(iter(options))!r} is not supported")
    return Windows(size, weights, float(overlap))


def _lengths(size: Any, where: str) -> tuple[int, ...]:
    if (
        not isinstance(size, list)
        or len(size) not in (2, 3)
        or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in size)
    ):
        raise ModelError(f"{where}: roi_size is {size!r}, expected two or three lengths in voxels")
    return tuple(size)


def _weights(size: tuple[int, ...], mode: Any, sigma_scale: Any) -> torch.Tensor | None:
    from monai.data.utils import compute_importance_map

    try:
        found = compute_importance_map(size, mode=mode, sigma_scale=sigma_scale)
    except (TypeError, ValueError):
        return None
    weights = torch.as_tensor(found, dtype=torch.float32)
    return weights.clamp(min=max(float(weights.min()), _SMALLEST_WEIGHT))
