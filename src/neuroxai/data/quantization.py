"""Maps as 16-bit integers with a step, which take a third of the space of float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST = np.iinfo(np.int16).max


@dataclass(frozen=True, eq=False)
class Quantized:
    """Values of a map as they are stored.

    Attributes
    ----------
    data
        ``(C, *S)``, int16 multiples of ``step``, or float32 values.
    step
        The value of one unit; None if the values are stored as float32.
    amounts
        Whether the values were rounded so that their sum is kept.
    """

    data: NDArray[np.int16] | NDArray[np.float32]
    step: float | None
    amounts: bool = False

    def sums(self) -> NDArray[np.float64]:
        """Return the sum of the stored values of each channel."""
        sums: NDArray[np.float64] = self.data.reshape(len(self.data), -1).sum(
            axis=1, dtype=np.float64
        )
        return sums if self.step is None else sums * self.step

    def describe(self) -> dict[str, Any]:
        """Return the type and the largest error of a value, ready for JSON."""
        if self.step is None:
            return {"type": "float32"}
        return {
            "type": "int16",
            "step": self.step,
            "largest_error": self.step if self.amounts else self.step / 2,
            "meaning": "values are rounded to multiples of step, 1/32767 of the largest absolute "
            "value in the file, so smaller values may be 0"
            + ("; the sum of each channel is kept to half a step" if self.amounts else ""),
        }


def quantize(values: NDArray[np.float32], *, amounts: bool = False) -> Quantized:
    r"""Round values to 16-bit integers, with zero preserved.

    .. math:: q_v = \operatorname{round}(m_v / s), \quad s = \max_v |m_v| / 32767

    The error of a value is at most :math:`s / 2`, and no sign is reversed. A map without values,
    with NaN or infinite values, or too small for a step in single precision remains float32.

    With ``amounts``, the values with the largest remainders are rounded the other way, as many as
    it takes to keep the sum of each channel to :math:`s / 2`. The error of a value is then at most
    :math:`s`.

    Parameters
    ----------
    values
        ``(C, *S)``.
    amounts
        Whether the sum of each channel is kept.

    Examples
    --------
    >>> found = quantize(np.array([[-1.0, 0.0, 0.5]], np.float32))
    >>> found.data.tolist(), found.data.dtype.name
    ([[-32767, 0, 16383]], 'int16')
    """
    peak = float(np.abs(values).max(initial=0.0))
    # The header has the step in single precision; rounded up, the peak fits into 16 bits.
    step = np.nextafter(np.float32(peak / _LARGEST), np.float32(np.inf))
    if not np.isfinite(peak) or step < np.finfo(np.float32).tiny * 2:
        return Quantized(values, None)
    data: NDArray[np.int16] = np.empty(values.shape, np.int16)
    for channel, stored in zip(values, data, strict=True):  # a float64 copy of one channel only
        units = channel / np.float64(step)
        np.rint(units, out=stored, casting="unsafe")
        if amounts:
            _keep_sum(units, stored)
    return Quantized(data, float(step), amounts)


def _keep_sum(units: NDArray[np.float64], stored: NDArray[np.int16]) -> None:
    """Change rounded values by one unit, those with the largest remainders, to keep the sum."""
    remainders = (units - stored).ravel()
    missing = round(float(remainders.sum()))
    if missing == 0:
        return
    towards = 1 if missing > 0 else -1
    # The remainders add up to the missing units and are at most 1/2, so there are enough of them.
    chosen = np.argpartition(-towards * remainders, abs(missing) - 1)[: abs(missing)]
    changed = stored.ravel()
    changed[chosen] += towards
    stored[...] = changed.reshape(stored.shape)
