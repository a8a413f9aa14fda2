"""How something long tells how far it has come."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str, float, float], None]
"""Told what is being done, how much of it is done, and how much there is."""
