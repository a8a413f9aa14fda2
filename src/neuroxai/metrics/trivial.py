"""Trivial maps, which any method has to beat: brightness, edges, a blob, noise, the answer itself.

They know nothing of why the network answers as it does. A metric that a trivial map wins does not
show that a method works (arXiv:2602.09238), so tables of metrics carry them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuroxai.core.probe.probe import Probe
from neuroxai.core.spatial import spatial_shape
from neuroxai.methods.paths.baselines import gaussian_blur

BLOB = 0.15
"""Standard deviation of the blob and the noise as a fraction of each axis: a large tumor."""


def trivial_maps(
    x: Tensor, brain: Tensor, modalities: Sequence[str] = (), seed: int = 0,
    probe: Probe | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Return the trivial maps of an input, none negative, zero outside the brain.

    Parameters
    ----------
    x
        The input, ``(B, C, *S)``.
    brain
        ``(B, *S)`` bool.
    modalities
        Names of the channels; numbers by default.
    seed
        Seed of the noise.
    probe
        At the explained point, a segmenter's probe adds the ``answer``: the probability of the
        target's classes.

    Returns
    -------
    dict
        Name to ``(B, C, *S)`` or ``(B, 1, *S)``: ``brightness`` of each modality above the darkest
        brain voxel, ``input`` (its deviation from the mean brain), ``edges`` (size of the
        gradient), ``center`` (a blob in the middle of the brain) and ``noise`` (smooth).

    Examples
    --------
    >>> x = torch.rand(1, 2, 6, 5, 4)
    >>> list(trivial_maps(x, torch.ones(1, 6, 5, 4, dtype=torch.bool), ["T1", "FLAIR"]))
    ['brightness of T1', 'brightness of FLAIR', 'input', 'edges', 'center', 'noise']
    """
    names = list(modalities) or [str(c) for c in range(x.shape[1])]
    inside = brain.unsqueeze(1).to(x.device)
    count = inside.flatten(2).sum(dim=2).clamp(min=1)
    mean = (x * inside).flatten(2).sum(dim=2) / count
    mean = mean.reshape(*mean.shape, *[1] * (x.dim() - 2))
    darkest = torch.where(inside, x, torch.inf).flatten(2).amin(dim=2)
    darkest = torch.where(darkest.isfinite(), darkest, 0).reshape(mean.shape)
    bright = (x - darkest) * inside
    found = {
        f"brightness of {name}": bright[:, c : c + 1] for c, name in enumerate(names)
    }  # fmt: skip
    found["input"] = (x - mean).abs() * inside
    found["edges"] = _gradient_size(x) * inside
    found["center"] = _blob(brain).to(x).unsqueeze(1) * inside
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(x.shape[0], 1, *spatial_shape(x), generator=generator)
    smooth = gaussian_blur(drawn, BLOB / 3)
    found["noise"] = (smooth - smooth.flatten(1).amin(dim=1).reshape(-1, *[1] * (x.dim() - 1))).to(
        x
    ) * inside
    if probe is not None:
        answer = _answer(probe, x)
        found |= {} if answer is None else {"answer": answer}
    return found


def _gradient_size(x: Tensor) -> Tensor:
    """Return the size of the image's gradient by central differences, ``(B, C, *S)``."""
    square = torch.zeros_like(x)
    for axis in range(2, x.dim()):
        if x.shape[axis] > 1:
            (step,) = torch.gradient(x, dim=axis)
            square += step**2
    return square.sqrt()


def _blob(brain: Tensor) -> Tensor:
    """Return a Gaussian at the centroid of each brain, ``(B, *S)``."""
    blobs = []
    for inside in brain.cpu():
        at = inside.nonzero().double()
        center = at.mean(dim=0) if len(at) else torch.tensor(inside.shape).double() / 2
        square = torch.zeros(inside.shape, dtype=torch.float64)
        for axis, n in enumerate(inside.shape):
            line = ((torch.arange(n, dtype=torch.float64) - center[axis]) / (BLOB * n)) ** 2
            square += line.reshape([-1 if a == axis else 1 for a in range(inside.dim())])
        blobs.append((-0.5 * square).exp())
    return torch.stack(blobs)


def _answer(probe: Probe, x: Tensor) -> Tensor | None:
    """Return the probability of the target's classes, ``(B, 1, *S)``; None where it has none."""
    output, bound = probe.output(), probe.target
    if spatial_shape(output) != spatial_shape(x) or not bound.channels.numel():
        return None
    if bound.outputs.activation is None and not bound.outputs.activated:
        return None
    probabilities = bound.outputs.probabilities(output)
    rows = [p[row].sum(dim=0) for p, row in zip(probabilities, bound.channels, strict=True)]
    return torch.stack(rows).clamp(max=1).unsqueeze(1)
