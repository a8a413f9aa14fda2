"""Strategies to run a network: the whole image at once, checkpointed blocks, or windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from neuroxai.core.engine.memory import format_size
from neuroxai.core.probe.windows import Windows

StrategyName = Literal["whole", "checkpointed", "windows"]


@dataclass(frozen=True, eq=False)
class Strategy:
    """One way to run a network on an image.

    Attributes
    ----------
    name
        ``whole``, ``checkpointed`` or ``windows``.
    bytes_needed
        Expected memory of a pass; None if unknown.
    windows
        The windows of the strategy ``windows``; else None.
    check
        Tests on a small image whether output and gradient are those of the network; None if they
        are by construction.
    """

    name: StrategyName
    bytes_needed: int | None = None
    windows: Windows | None = None
    check: Callable[[], bool] | None = None

    def is_sound(self) -> bool:
        """Whether output and gradient are those of the network."""
        return self.check is None or self.check()

    def describe(self) -> str:
        """Return the strategy in words."""
        expected = "" if self.bytes_needed is None else f", about {format_size(self.bytes_needed)}"
        if self.windows is not None:
            return f"windows of {'×'.join(map(str, self.windows.size))} voxels{expected}"
        if self.name == "checkpointed":
            return f"checkpointed blocks of the network{expected}"
        return f"the whole image at once{expected}"


@dataclass(frozen=True)
class MemoryUse:
    """The strategy of a pass and its expected memory.

    Attributes
    ----------
    strategy
        ``whole``, ``checkpointed`` or ``windows``.
    expected_bytes
        Expected memory of a pass; None if it was not measured.
    budget_bytes
        Allowed memory; None if unknown.
    """

    strategy: StrategyName
    expected_bytes: int | None = None
    budget_bytes: int | None = None

    def describe(self) -> dict[str, Any]:
        """Return strategy and sizes in MB, ready for JSON."""
        return {
            "strategy": self.strategy,
            "expected_mb": _megabytes(self.expected_bytes),
            "budget_mb": _megabytes(self.budget_bytes),
        }


def _megabytes(size: int | None) -> int | None:
    return None if size is None else round(size / 1e6)
