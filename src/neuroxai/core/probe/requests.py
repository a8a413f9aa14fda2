"""What a method requests of a network at one point, as values that can be shared."""

from __future__ import annotations

from dataclasses import dataclass

from neuroxai.core.layers.reduction import MEAN_GRADIENT_WEIGHTS, LayerReduction
from neuroxai.core.rules.backward_rule import PLAIN, BackwardRule


@dataclass(frozen=True)
class InputGradient:
    """The gradient of the target with respect to the input.

    Attributes
    ----------
    rule
        How it passes back through the network; the ordinary gradient by default.
    """

    rule: BackwardRule = PLAIN


@dataclass(frozen=True)
class LayerMap:
    """A layer's activation and gradient, reduced to one map.

    Attributes
    ----------
    layer
        The layer's name, or ``auto``.
    reduction
        How activation and gradient become the map; as in Grad-CAM by default.
    """

    layer: str
    reduction: LayerReduction = MEAN_GRADIENT_WEIGHTS


Request = InputGradient | LayerMap
"""All requests at a point share one forward pass, and one backward pass per backward rule."""
