"""NumPy arrays of users as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def tensor_of(values: NDArray[Any]) -> Tensor:
    """Return a copy of an array as a tensor.

    The array may be read-only, memory-mapped, strided, or in the byte order of a file.

    Examples
    --------
    >>> tensor_of(np.array([0.5, 3.0], dtype=">f4"))
    tensor([0.5000, 3.0000])
    """
    return torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("="), order="C"))
