"""Modality shares: how much of a map each input modality carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from torch import Tensor


@dataclass(frozen=True)
class ModalityShare:
    """Share of a map in one modality.

    Attributes
    ----------
    absolute
        Sum of the modality's absolute values over that of the map, from 0 to 1.
    signed
        Sum of the modality's values over the sum of the map's absolute values, from -1 to 1. It is
        positive if the modality speaks for the target, negative if against it.
    """

    absolute: float
    signed: float

    def describe(self) -> dict[str, float]:
        """Return both shares, ready for JSON."""
        return asdict(self)


def modality_shares(values: Tensor, names: Sequence[str]) -> Mapping[str, ModalityShare]:
    r"""Return the share of each modality in a map, the largest first.

    .. math:: a_c = \sum_v |m_{c,v}| \Big/ \sum_{k,v} |m_{k,v}| \qquad
              s_c = \sum_v m_{c,v} \Big/ \sum_{k,v} |m_{k,v}|

    Parameters
    ----------
    values
        The map, ``(C, *S)``.
    names
        The modality of each channel. Channels of the same modality are added.

    Returns
    -------
    Mapping of str to ModalityShare
        Empty if the map has a single channel, is zero, or has NaN or infinite values.

    Examples
    --------
    >>> import torch
    >>> found = modality_shares(torch.tensor([[1.0, 0.0], [-4.0, 3.0]]), ["T1", "FLAIR"])
    >>> {name: (share.absolute, share.signed) for name, share in found.items()}
    {'FLAIR': (0.875, -0.125), 'T1': (0.125, 0.125)}
    """
    total = float(values.double().abs().sum()) if len(values) > 1 else 0.0
    if not 0 < total < float("inf"):
        return {}
    absolute, signed = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for name, channel in zip(names, values.double(), strict=True):
        absolute[name] += float(channel.abs().sum()) / total
        signed[name] += float(channel.sum()) / total
    order = sorted(absolute, key=absolute.__getitem__, reverse=True)
    return {name: ModalityShare(absolute[name], signed[name]) for name in order}
