r"""The guided rule: at every rectifier only positive gradients of active units flow back.

.. math:: B_i^l = (F_i^l > 0) \cdot (B_i^{l+1} > 0) \cdot B_i^{l+1}

(Springenberg et al. 2015, arXiv:1412.6806, eqs. 2-3 of the paper.) A function mode around the
forward pass sees every spelling of ReLU (module, functional, tensor method, in place) and hangs a
gradient hook on its result; the user's network is never edited. The hook acts only while
:attr:`GuidedRule.active`, so the plain gradient can be taken from the very same forward pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

RELU = "relu"
_CLAMPED = "clamp"

# ReLU6 is a rectifier whose own derivative, zero where it is clipped at six, stays in force.
_EXACT: dict[Callable[..., Any], str] = {
    functional.relu: RELU,
    functional.relu_: RELU,
    functional.relu6: "relu6",
    torch.relu: RELU,
    torch.relu_: RELU,
    torch.Tensor.relu: RELU,
    torch.Tensor.relu_: RELU,
}
_EXTENDED: dict[Callable[..., Any], str] = {
    functional.leaky_relu: "leaky_relu",
    functional.leaky_relu_: "leaky_relu",
    functional.prelu: "prelu",
    torch.prelu: "prelu",
    torch.Tensor.prelu: "prelu",
    functional.rrelu: "rrelu",
    functional.rrelu_: "rrelu",
    torch.rrelu: "rrelu",
    torch.rrelu_: "rrelu",
    functional.elu: "elu",
    functional.elu_: "elu",
    functional.celu: "celu",
    torch.celu: "celu",
    torch.celu_: "celu",
    functional.selu: "selu",
    torch.selu: "selu",
    torch.selu_: "selu",
    functional.gelu: "gelu",
    functional.silu: "silu",
    functional.mish: "mish",
    functional.softplus: "softplus",
    functional.hardswish: "hardswish",
}
_HARDTANH = {functional.hardtanh, functional.hardtanh_}
_THRESHOLD = {functional.threshold, torch.threshold, torch.threshold_}
_CLAMP = {torch.clamp, torch.clamp_, torch.Tensor.clamp, torch.Tensor.clamp_, torch.clip,
          torch.Tensor.clip, torch.Tensor.clip_}  # fmt: skip
_CLAMP_MIN = {torch.clamp_min, torch.clamp_min_, torch.Tensor.clamp_min, torch.Tensor.clamp_min_}
_LARGER = {torch.maximum, torch.Tensor.maximum, torch.max, torch.Tensor.max}


class GuidedRule:
    """Watches one forward pass and, while active, bends the backward pass.

    Attributes
    ----------
    active
        True while a backward pass shall obey the guided rule.
    seen
        How often each kind of rectifier was passed in the last forward pass.
    """

    def __init__(self) -> None:
        self.active = False
        self.seen: Counter[str] = Counter()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hang the rule on every rectifier that runs inside."""
        self.seen.clear()
        with _RectifierMode(self):
            yield

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Bend backward passes inside."""
        self.active = True
        try:
            # A checkpointed segment runs its forward again during the backward pass.
            with _RectifierMode(self, count=False):
                yield
        finally:
            self.active = False

    @property
    def extended(self) -> tuple[str, ...]:
        """Activations outside the paper that the natural extension was applied to."""
        return tuple(sorted(set(self.seen) - {RELU, "relu6", _CLAMPED}))

    def hang_on(self, result: Tensor, kind: str) -> None:
        """Bend the gradient that arrives at a rectifier's result."""
        if not result.requires_grad:
            return
        # ReLU's own derivative stops what comes to its dead units, so nothing is kept for it; that
        # of another one may not, and its result may be overwritten later.
        positive = None if kind == RELU else result.detach() > 0

        def bend(gradient: Tensor) -> Tensor | None:
            if not self.active:
                return None
            if positive is None:
                return gradient.clamp_min(0)
            return torch.where(positive & (gradient > 0), gradient, torch.zeros_like(gradient))

        result.register_hook(bend)


class _RectifierMode(TorchFunctionMode):
    def __init__(self, rule: GuidedRule, *, count: bool = True) -> None:
        super().__init__()
        self._rule = rule
        self._count = count

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        kind = _kind(func, args, kwargs)
        if kind is not None:
            if self._count:
                self._rule.seen[kind] += 1
            self._rule.hang_on(result, kind)
        return result


def _kind(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Return which rectifier a call is, or None."""
    if func in _EXACT:
        return _EXACT[func]
    if func in _EXTENDED:
        return _EXTENDED[func]
    if func in _HARDTANH:
        lower = args[1] if len(args) > 1 else kwargs.get("min_val", -1.0)
        upper = args[2] if len(args) > 2 else kwargs.get("max_val", 1.0)
        return "relu6" if lower == 0 and upper > 0 else None
    if func in _THRESHOLD:
        cut = [*args[1:3], *(kwargs[k] for k in ("threshold", "value") if k in kwargs)]
        return _CLAMPED if all(_is_zero(bound) for bound in cut) else None
    if func in _CLAMP:
        lower = args[1] if len(args) > 1 else kwargs.get("min")
        upper = args[2] if len(args) > 2 else kwargs.get("max")
        if not _is_zero(lower):
            return None
        return _CLAMPED
    if func in _CLAMP_MIN:
        lower = args[1] if len(args) > 1 else kwargs.get("min")
        return _CLAMPED if _is_zero(lower) else None
    if func in _LARGER:
        pair = [*args, *(kwargs[k] for k in ("input", "other") if k in kwargs)]
        both = len(pair) == 2 and all(isinstance(each, Tensor) for each in pair)
        return _CLAMPED if both and any(_is_zero(each) for each in pair) else None
    return None


def _is_zero(bound: object) -> bool:
    if isinstance(bound, Tensor):
        return not bound.requires_grad and not bool(bound.any())
    return isinstance(bound, (int, float)) and bound == 0
