"""Backward rules attached to one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from neuroxai.core.engine.backward_graph import nodes_behind
from neuroxai.core.engine.function_calls import FunctionCalls
from neuroxai.core.rules.backward_rule import (
    PLAIN,
    BackwardRule,
    Call,
    GradientChange,
    InputChanges,
    Refused,
    Seen,
)
from neuroxai.core.rules.rectifiers import CLAMP, rectifier
from neuroxai.core.rules.sign_masks import SignMasks, call_name

_CHANGES = "neuroxai.changes"
"""Key of a node's changes in its metadata, which live as long as the graph."""

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
    refused
        Why a rule is void, by the call it has no answer for.

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
        self.refused: dict[BackwardRule, dict[str, None]] = {}
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

    def refusal(self, rule: BackwardRule) -> str | None:
        """Return why a rule is void for a call that it has no answer for; None if it is not."""
        reasons = self.refused.get(rule)
        return f"{rule.title} is void on this network: {next(iter(reasons))}" if reasons else None

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
        found = self._watch(func, args, kwargs, activation)
        changes = {r: each for r, each in found.items() if not isinstance(each, Refused)}
        if activation is not None:
            self.seen.activations[activation] += 1
        if not found:
            return func(*args, **kwargs)
        x = args[0] if args else None
        # The gradient of an in-place call on a view passes by the view's own node.
        copy = x.clone() if isinstance(x, Tensor) and x._base is not None else None
        result = func(*(args if copy is None else (copy, *args[1:])), **kwargs)
        after = result
        if after is None:  # of __setitem__
            after = x if copy is None else copy
        if _has_graph(after):
            for rule, each in found.items():
                if isinstance(each, Refused):
                    self.refused.setdefault(rule, {})[each.reason] = None
        if changes and isinstance(after, Tensor) and after.grad_fn is not None:
            after.grad_fn.register_hook(self._hook(changes))
            _metadata(after.grad_fn)[_CHANGES] = changes
        if copy is not None and after is copy and isinstance(x, Tensor):
            x.copy_(copy)
            return None if result is None else x
        return result

    def _watch(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        activation: str | None,
    ) -> dict[BackwardRule, GradientChange | Refused]:
        node = args[0].grad_fn if args and isinstance(args[0], Tensor) else None
        before = _changes_of(node)
        found = {}
        for rule in self._rules:
            is_first = partial(_is_unchanged_before, node, rule)
            change = rule.watch(Call(func, args, kwargs, activation, before.get(rule), is_first))
            if change is not None:
                found[rule] = change
        return found

    def _hook(
        self, changes: dict[BackwardRule, GradientChange]
    ) -> Callable[[tuple[Any, ...], tuple[Any, ...]], tuple[Any, ...] | None]:
        def hook(own: tuple[Any, ...], gradients: tuple[Any, ...]) -> tuple[Any, ...] | None:
            change = changes.get(self._active)
            if change is None or gradients[0] is None:
                return None
            each = change.changes if isinstance(change, InputChanges) else (change,)
            places = [n for n, gradient in enumerate(own) if gradient is not None]
            found = list(own)
            for place, of_input in zip(places, each, strict=False):
                found[place] = of_input(gradients[0], own[place])
            return tuple(found)

        return hook


def _changes_of(node: Node | None) -> dict[BackwardRule, GradientChange]:
    """Return the changes at a node of the graph."""
    return {} if node is None else _metadata(node).get(_CHANGES, {})


def _metadata(node: Any) -> dict[str, Any]:
    """Return a node's own metadata, a dictionary that torch declares as a method."""
    found: dict[str, Any] = node.metadata
    return found


def _is_unchanged_before(node: Node | None, rule: BackwardRule) -> bool:
    """Return whether a rule changes no call from the input to a node."""
    return node is None or not any(rule in _changes_of(each) for each in nodes_behind(node))


def _has_graph(result: object) -> bool:
    """Return whether a call's result, or a part of it, is differentiated."""
    parts = result if isinstance(result, (tuple, list)) else (result,)
    return any(isinstance(each, Tensor) and each.grad_fn is not None for each in parts)


def _is_differentiated(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    given = (*args, *kwargs.values())
    return torch.is_grad_enabled() and any(
        isinstance(each, Tensor) and each.requires_grad for each in given
    )
