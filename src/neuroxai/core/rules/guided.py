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

from neuroxai.core.engine.function_calls import FunctionCalls
from neuroxai.core.rules.rectifiers import CLAMPED, RELU, rectified, rectifier, selected


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
        return tuple(sorted(set(self.seen) - {RELU, "relu6", CLAMPED}))

    def hang_on(self, result: Tensor, kind: str) -> None:
        """Bend the gradient that arrives at a rectifier's result."""
        if not result.requires_grad:
            return
        # ReLU's own derivative stops what comes to its dead units, so nothing is kept for it; that
        # of another one may not, and its result may be overwritten later.
        positive = None if kind == RELU else result.detach() > 0

        def bend(gradient: Tensor | None) -> Tensor | None:
            if not self.active or gradient is None:  # a layer without gradients gives none
                return None
            if positive is None:
                return gradient.clamp_min(0)
            return torch.where(positive & (gradient > 0), gradient, torch.zeros_like(gradient))

        result.register_hook(bend)


class _RectifierMode(FunctionCalls):
    def __init__(self, rule: GuidedRule, *, count: bool = True) -> None:
        super().__init__()
        self._rule = rule
        self._count = count

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kind = rectifier(func, args, kwargs)
        before = None if kind else selected(func, args, kwargs)
        if kind is None and before is None:
            return func(*args, **kwargs)
        x = args[0] if args else None
        # In place on a view, gradients go by the whole tensor and pass by what is hung on the view.
        copy = x.clone() if isinstance(x, Tensor) and x._base is not None else None
        result = func(*(args if copy is None else (copy, *args[1:])), **kwargs)
        after = result
        if after is None:  # an item was set
            after = x if copy is None else copy
        if kind is None and before is not None and rectified(before, after):
            kind = CLAMPED
        if kind is not None:
            self._meet(after, kind)
        if copy is not None and after is copy and isinstance(x, Tensor):
            x.copy_(copy)
            return None if result is None else x
        return result

    def _meet(self, result: Tensor, kind: str) -> None:
        if self._count:
            self._rule.seen[kind] += 1
        self._rule.hang_on(result, kind)
