"""Activation maps of the filters of a layer, and their importance for a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuroxai.core.engine.untouched import untouched
from neuroxai.core.errors import LayerError, TargetError, suggestion
from neuroxai.core.layers.activation_recorder import no_gradient_error
from neuroxai.core.layers.layers import Layer
from neuroxai.core.layers.reduction import LayerReduction
from neuroxai.core.target.bound_target import BoundTarget, same_target
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Target
from neuroxai.inspection.recorded_pass import RecordedPass, bind_targets, record_pass


@dataclass(frozen=True, eq=False)
class LayerFilters:
    """Filters of one layer for one input.

    Attributes
    ----------
    layer
        The layer.
    activations
        Output of the layer, ``(B, C, *S_layer)``.
    importance
        Target label to ``(B, C)``, the first-order contribution of each filter. The label is the
        name of the target; targets with equal names are distinguished as in ``1 (probability)``.
    """

    layer: Layer
    activations: Tensor
    importance: Mapping[str, Tensor]

    def ranked(self, target: str, sample: int = 0) -> list[int]:
        """Rank filter indices by absolute importance, largest first; ties by index."""
        size = self.importance[target][sample].abs()
        order: list[int] = torch.argsort(size, descending=True, stable=True).tolist()
        return order


def filters(
    network: nn.Module,
    x: Tensor,
    targets: Sequence[Target],
    layers: Sequence[str],
    outputs: Outputs | None = None,
) -> list[LayerFilters]:
    r"""Compute activation maps and importance of all filters of some layers.

    .. math:: c_k = \sum_v A^k_v \, \frac{\partial S}{\partial A^k_v}

    is the signed first-order contribution of filter k to the target S: activation × gradient, that
    is input × gradient (Kindermans et al. 2016, arXiv:1611.07270) at a layer. It requires one
    forward pass and one backward pass per target.

    Parameters
    ----------
    network
        Any module; it is not changed.
    x
        ``(B, C, *S)``.
    targets
        Targets of the importance, at least one.
    layers
        Names of modules with a spatial output; ``L3`` is the third layer of the information flow.
    outputs
        Meaning of the output channels.

    Raises
    ------
    LayerError
        If a layer does not exist, does not run, has no spatial output, or runs without gradients.
    TargetError
        If two different targets have the same label.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    >>> found = filters(network, torch.rand(1, 1, 6, 5), [Class(1)], ["L1", "1"])
    >>> [(each.layer.name, tuple(each.activations.shape)) for each in found]
    [('0', (1, 3, 4, 3)), ('1', (1, 3, 4, 3))]
    """
    outputs = outputs or Outputs()
    modules = {name for name, _ in network.named_modules() if name}
    without_call = {name.partition("#")[0] for name in layers}
    with untouched(network), torch.enable_grad():
        recorded = record_pass(network, x, outputs, also=without_call & modules)
        recorder = recorded.recorder
        names = [_resolve(name, recorded, modules) for name in layers]
        for name in names:
            if name in recorder.without_gradients:
                raise no_gradient_error(name)
        recorder.keep_only(set(names))
        bound = bind_targets(targets, outputs, recorded)
        importance: dict[str, dict[str, Tensor]] = {name: {} for name in names}
        first_order = dict.fromkeys(names, (_FirstOrder(),))
        labels = _labels(bound)
        for number, (target, label) in enumerate(zip(bound, labels, strict=True), start=1):
            score = target.score(recorded.output)
            reduced: dict[str, dict[LayerReduction, Tensor]] = {}
            if score.requires_grad:
                _, reduced = recorder.backward(
                    score.sum(), [], first_order, retain_graph=number < len(bound)
                )
            for name in names:
                zero = torch.zeros(recorder.activation(name).shape[:2])
                importance[name][label] = reduced.get(name, {}).get(_FirstOrder(), zero).cpu()
        return [
            LayerFilters(recorder.layers[name], recorder.activation(name).cpu(), importance[name])
            for name in names
        ]


def _labels(bound: Sequence[BoundTarget]) -> list[str]:
    """Label of each target: its name, and its differences to other targets of that name."""
    seen: dict[str, BoundTarget] = {}
    labels: list[str] = []
    for target in bound:
        own = target.description
        same = [other.description for other in bound if other.description["name"] == own["name"]]
        differs = {key for key in own if any(other[key] != own[key] for other in same)}
        details = [own["kind"]] if "channels" in differs else []
        details += [str(own[key]) for key in ("scale", "within") if key in differs]
        label = f"{own['name']} ({', '.join(details)})" if details else str(own["name"])
        if not _equal(seen.setdefault(label, target), target):
            raise TargetError(
                f"two different targets have the label {label!r}; request them separately, or give "
                "their masks different names"
            )
        labels.append(label)
    return labels


def _equal(first: BoundTarget, second: BoundTarget) -> bool:
    if not same_target(first.description, second.description):
        return False
    if first.mask is None or second.mask is None:
        return first.mask is second.mask
    return torch.equal(first.mask, second.mask)


@dataclass(frozen=True)
class _FirstOrder(LayerReduction):
    """Activation times gradient, summed over positions: ``(B, C)``."""

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return (activation * gradient).flatten(2).sum(dim=2)


def _resolve(name: str, recorded: RecordedPass, modules: set[str]) -> str:
    """Label of a layer given by its name, its name and call, or its number in the flow."""
    ran = recorded.recorder.layers
    if name in ran:
        return name
    flow = [label for label in ran if label in recorded.calls.flow]
    number = name[1:] if name[:1] in "Ll" else ""
    if number.isdigit() and name not in modules:
        if 1 <= int(number) <= len(flow):
            return flow[int(number) - 1]
        raise LayerError(f"layer {name} does not exist; expected L1 to L{len(flow)}")
    if name in recorded.calls.without_map:
        raise LayerError(f"layer {name!r} has no map: {recorded.calls.without_map[name]}")
    if name.partition("#")[0] in modules:
        raise LayerError(f"layer {name!r} did not run in the forward pass; name a layer that does")
    raise LayerError(f"layer {name!r} does not exist; {suggestion(name, ran)}")
