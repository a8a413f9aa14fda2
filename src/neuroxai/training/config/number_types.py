"""Number types of a training configuration, with their ranges."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def _parse(value: Any) -> Any:
    """Read text such as ``1e-3``, which YAML 1.1 does not read as a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    return value


FROM_TEXT = BeforeValidator(_parse)
"""Makes a number accept text; stated after its range, which is then part of the JSON Schema."""
Positive = Annotated[float, Field(gt=0), FROM_TEXT]
NonNegative = Annotated[float, Field(ge=0), FROM_TEXT]
Fraction = Annotated[float, Field(ge=0, le=1), FROM_TEXT]
ProperFraction = Annotated[float, Field(ge=0, lt=1), FROM_TEXT]
Count = Annotated[int, Field(gt=0)]
Index = Annotated[int, Field(ge=0)]
