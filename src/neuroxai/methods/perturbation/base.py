"""The base class of perturbation methods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.errors import MethodError
from neuroxai.core.explanation import Quantity
from neuroxai.core.probe.probe import Probe
from neuroxai.methods.base import Method
from neuroxai.methods.perturbation.value_names import UNITS, check_value
from neuroxai.methods.perturbation.values import ValueFunction, value_function
from neuroxai.methods.remover_names import check_remover
from neuroxai.methods.removers import Remover, RemoverLike


@dataclass(frozen=True, eq=False)
class Perturbed:
    """The values of an image with parts of it removed.

    Attributes
    ----------
    probe
        The network and target, at the explained point.
    x
        The image ``(B, C, *S)``.
    remover
        What takes the place of removed voxels.
    value
        The number that is measured.
    """

    probe: Probe
    x: Tensor
    remover: Remover
    value: ValueFunction

    def unchanged(self) -> Tensor:
        """Return the value ``(B,)`` of the image itself."""
        if self.x is self.probe.explained:
            return self.value(self.probe.output())
        return self.value(self.probe.output_at(self.x))

    def values(self, masks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the value ``(B,)`` of each mask, computed in batches that fit into memory.

        Parameters
        ----------
        masks
            What is kept, each ``(1, 1, *S)``, or with axes of the samples and channels.
        """
        together: list[Tensor] = []
        size = self.probe.batch_size(self.x)
        for mask in masks:
            together.append(mask.expand(len(self.x), *mask.shape[1:]))
            if len(together) == size:
                yield from self._values(together)
                together = []
        if together:
            yield from self._values(together)

    def _values(self, masks: list[Tensor]) -> Iterator[Tensor]:
        perturbed = self.remover(1 - torch.cat(masks))
        found = self.value(self.probe.output_at(perturbed))
        if not bool(torch.isfinite(found).all()):
            raise MethodError(
                "the network returns NaN or infinite values for images with parts removed: check "
                "its weights and the scale of the input, or use another remover"
            )
        yield from found.reshape(len(masks), len(self.x))


@dataclass(frozen=True)
class PerturbationMethod(Method):
    """A method that removes parts of the image and runs the network again, without gradients.

    Parameters
    ----------
    remover
        What takes the place of removed voxels, see :class:`~neuroxai.methods.removers.Remover`.
    value
        What is measured: ``target``; ``dice`` or ``volume`` of a segmenter, see
        :func:`~neuroxai.methods.perturbation.values.value_function`.
    """

    on_request: ClassVar[bool] = True

    remover: RemoverLike = "auto"
    value: str = "target"

    def __post_init__(self) -> None:
        """Check the names of the remover and of the value."""
        super().__post_init__()
        if isinstance(self.remover, str):
            check_remover(self.name, self.remover)
        check_value(self.name, self.value)

    @property
    def quantity(self) -> Quantity:
        """A change of the value by default, which does not add up over voxels."""
        return "change"

    @property
    def map_units(self) -> str:
        """The unit of a change of the value."""
        return self.units.replace(UNITS["target"], UNITS[self.value])

    def perturbed(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Perturbed:
        """Return the values of an image with parts of it removed."""
        remover = Remover(self.remover, probe, x, generator.initial_seed())
        return Perturbed(
            probe, x, remover, value_function(self.value, probe.target, probe.output())
        )

    def zero_notes(self, probe: Probe, x: Tensor, values: Tensor) -> Iterator[str]:
        """Yield a note for each sample whose map is exactly zero."""
        for sample, each in enumerate(values):
            if not bool(each.any()):
                which = f" (sample {sample})" if len(values) > 1 else ""
                yield (
                    "the map is exactly zero because no removal changed the value, for example "
                    f"because the removed parts equal what replaces them{which}"
                )
