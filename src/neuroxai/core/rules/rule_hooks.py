"""Backward rules attached to one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from neuroxai.core.engine.backward_graph import nodes_behind
from neuroxai.core.engine.function_calls import FunctionCalls
from neuroxai.core.rules.backward_rule import PLAIN, BackwardRule, Call, GradientChange, Seen
from neuroxai.core.rules.rectifiers import CLAMP, rectifier
from neuroxai.core.rules.sign_masks import SignMasks, call_name

_KNOWN_FUNCTIONS = ("neuroxai.", "torch.")
"""Packages whose ``torch.autograd.Function`` classes are not activations."""


class RuleHooks(FunctionCalls):
    """Context manager that attaches backward rules to the calls of a forward pass.

    A call whose gradient some rule changes gets one hook at its node of the graph. The hook acts
    only while a rule is :meth:`in_force`, so all rules and the plain gradient share one forward
    pass, and the network is not edited.

    Parameters
    ----------
    rules
        The rules; the plain gradient needs no hooks.

    Attributes
    ----------
    seen
        The activation functions that were called, and calls that may be unreachable ones.

    Examples
    --------
    >>> from neuroxai.core.rules.guided import GUIDED
    >>> x = torch.tensor([-1.0, 2.0, 3.0], requires_grad=True)
    >>> with RuleHooks([GUIDED]) as hooks:
    ...     y = x.relu()
    >>> upstream = torch.tensor([1.0, -1.0, 1.0])
    >>> with hooks.in_force(GUIDED):
    ...     torch.autograd.grad(y, x, upstream)
    (tensor([0., 0., 1.]),)
    """

    def __init__(self, rules: Collection[BackwardRule]) -> None:
        super().__init__()
        self.seen = Seen()
        self._rules = [rule for rule in rules if rule != PLAIN]
        self._active: BackwardRule = PLAIN
        self._masks = SignMasks()
        self._running = False

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        self._masks.clear()
        super().__exit__(kind, value, traceback)  # type: ignore[no-untyped-call]

    @contextmanager
    def in_force(self, rule: BackwardRule) -> Iterator[None]:
        """Apply a rule to backward passes within the context."""
        self._active = rule
        try:
            yield
        finally:
            self._active = PLAIN

    def inspect(self, output: Tensor) -> None:
        """Look for custom autograd functions between the input and ``output``."""
        for node in nodes_behind(output.grad_fn) if output.grad_fn is not None else ():
            if isinstance(node, BackwardCFunction):
                function = getattr(type(node), "_forward_cls", type(node))
                if not function.__module__.startswith(_KNOWN_FUNCTIONS):
                    self.seen.unreachable[
                        f"{function.__qualname__!r}, a torch.autograd.Function,"
                    ] = None

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a call, and attach the rules to its result."""
        # A checkpointed block enters the modes of its first run again, perhaps within themselves.
        if self._running:
            return func(*args, **kwargs)
        self._running = True
        try:
            result = self._run(func, args, kwargs)
            self._masks.follow(func, args, kwargs, result)
            return result
        finally:
            self._running = False

    def _run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not _is_differentiated(args, kwargs):
            return func(*args, **kwargs)
        activation = rectifier(func, args, kwargs)
        if activation is None:
            relu = self._masks.is_relu(func, args, kwargs)
            activation = CLAMP if relu else None
            if relu is False:
                self.seen.unreachable[f"{call_name(func)}, a selection by sign,"] = None
        changes = self._changes(Call(func, args, kwargs, activation))
        if activation is not None:
            self.seen.activations[activation] += 1
        if not changes:
            return func(*args, **kwargs)
        x = args[0] if args else None
        # The gradient of an in-place call on a view passes by the view's own node.
        copy = x.clone() if isinstance(x, Tensor) and x._base is not None else None
        result = func(*(args if copy is None else (copy, *args[1:])), **kwargs)
        after = result
        if after is None:  # of __setitem__
            after = x if copy is None else copy
        if isinstance(after, Tensor) and after.grad_fn is not None:
            after.grad_fn.register_hook(self._hook(changes))
        if copy is not None and after is copy and isinstance(x, Tensor):
            x.copy_(copy)
            return None if result is None else x
        return result

    def _changes(self, call: Call) -> dict[BackwardRule, GradientChange]:
        found = ((rule, rule.watch(call)) for rule in self._rules)
        return {rule: change for rule, change in found if change is not None}

    def _hook(
        self, changes: dict[BackwardRule, GradientChange]
    ) -> Callable[[tuple[Any, ...], tuple[Any, ...]], tuple[Any, ...] | None]:
        def hook(own: tuple[Any, ...], gradients: tuple[Any, ...]) -> tuple[Any, ...] | None:
            change = changes.get(self._active)
            place = next((n for n, each in enumerate(own) if each is not None), None)
            if change is None or place is None or gradients[0] is None:
                return None
            return (*own[:place], change(gradients[0], own[place]), *own[place + 1 :])

        return hook


def _is_differentiated(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    given = (*args, *kwargs.values())
    return torch.is_grad_enabled() and any(
        isinstance(each, Tensor) and each.requires_grad for each in given
    )
