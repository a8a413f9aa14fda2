"""Class-model visualization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.explanation import Attribution
from neuroxai.core.probe.probe import Probe
from neuroxai.methods.base import Method, require


@dataclass(frozen=True)
class ClassModel(Method):
    r"""An image that the network scores highly for the target (arXiv:1312.6034).

    .. math:: \arg\max_I \; S(I) - \lambda \lVert I \rVert_2^2

    (Simonyan et al. 2014; eq. 1 of the paper as printed), of shape ``(B, C, *S)``, by gradient
    ascent :math:`I \leftarrow I + \eta \, (\nabla S(I) - 2 \lambda I)` from seeded noise. It is no
    map of the patient's image: only its shape, and the place of a restricted target, are used. An
    image that fulfills the target need not look like a brain.

    Parameters
    ----------
    steps
        Number of gradient steps.
    rate
        The step length η, in units of the network's input over the norm of the first gradient.
    weight
        λ relative to the norm of the first gradient, so that it does not depend on the scale of S.
    start
        Standard deviation of the noise to start from.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network, x = torch.nn.Conv2d(1, 2, 1), torch.rand(1, 1, 4, 5)
    >>> explanation = ClassModel(steps=3).explain(WholeVolume(network, Class(0)), x)
    >>> len(explanation.diagnostics["scores"])
    2
    """

    name: ClassVar[str] = "class_model"
    title: ClassVar[str] = "Class model"
    on_request: ClassVar[bool] = True
    units: ClassVar[str] = "network's input; an image, not evidence"
    citation: ClassVar[str] = "arXiv:1312.6034"

    steps: int = 64
    rate: float = 1.0
    weight: float = 0.01
    start: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.steps >= 1, self.name, f"steps is {self.steps}, expected at least 1")
        require(self.rate > 0, self.name, f"rate is {self.rate}, expected more than 0")
        require(self.weight >= 0, self.name, f"weight is {self.weight}, expected at least 0")
        require(self.start > 0, self.name, f"start is {self.start}, expected more than 0")

    @property
    def gradients(self) -> int:
        """One per step."""
        return self.steps

    @property
    def forwards(self) -> int:
        """The scores of the first and the last image."""
        return 2

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Climb from the same noise for every sample."""
        noise = torch.randn(x.shape[1:], generator=generator).to(x)
        image = (self.start * noise).expand_as(x).clone()
        scores = [probe.score(image).tolist()]
        scale: Tensor | None = None
        for _ in range(self.steps):
            gradient = probe.gradient(image)
            if scale is None:
                scale = _norm(gradient)
            penalty = 2 * self.weight * scale * image
            image = image + self.rate / scale * (gradient - penalty)
        scores.append(probe.score(image).tolist())
        note = (
            "this is an image that the network scores highly for the target, not a map of the "
            "patient's image: nothing in it is evidence about this patient"
        )
        return Attribution(image, {"scores": scores}, (note,))


def _norm(gradient: Tensor) -> Tensor:
    """Return the Euclidean norm of each sample, ready to broadcast; 1 where it is zero."""
    norm = gradient.flatten(1).norm(dim=1)
    norm = torch.where(norm > 0, norm, 1)
    return norm.reshape(-1, *[1] * (gradient.dim() - 1))
