"""Running means of maps, and their standard error."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor


class RunningMean:
    """The mean and spread of maps, by Welford's recurrence, in the memory of two maps.

    Examples
    --------
    >>> running = RunningMean()
    >>> for value in (1.0, 3.0):
    ...     running.add(torch.tensor([value]))
    >>> running.mean, running.relative_standard_error
    (tensor([2.]), 0.5)
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.spread = torch.zeros(())

    def add(self, values: Tensor) -> None:
        """Add a map."""
        self.count += 1
        if self.count == 1:
            self.mean, self.spread = values.clone(), torch.zeros_like(values)
            return
        step = values - self.mean
        self.mean = self.mean + step / self.count
        self.spread = self.spread + step * (values - self.mean)

    @property
    def relative_standard_error(self) -> float:
        """The root mean square standard error over the root mean square of the mean."""
        if self.count < 2:
            return float("inf")
        size = float(self.mean.double().square().mean())
        if size == 0:
            return 0.0
        return sqrt(float(self.spread.double().mean()) / (self.count - 1) / self.count / size)
