"""Progress of long computations."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str, float, float], None]
"""Called with a description of the step, the amount done and the total amount."""
