"""Shares of the modalities in a map, against sums in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuroxai.inspection.modality_shares import modality_shares


@pytest.mark.parametrize("size", [(7, 5), (7, 5, 4)])
def test_shares_are_the_sums_of_each_channel(size: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    values = rng.standard_normal((3, *size)) * np.array([1.0, 5.0, 2.0]).reshape(
        3, *[1] * len(size)
    )
    found = modality_shares(torch.from_numpy(values), ["T1", "T2", "FLAIR"])
    assert list(found) == ["T2", "FLAIR", "T1"], "the largest first"
    total = np.abs(values).sum()
    for name, channel in zip(["T1", "T2", "FLAIR"], values, strict=True):
        assert found[name].absolute == pytest.approx(np.abs(channel).sum() / total)
        assert found[name].signed == pytest.approx(channel.sum() / total)
    assert sum(share.absolute for share in found.values()) == pytest.approx(1)


def test_channels_of_one_modality_are_added() -> None:
    values = torch.tensor([[[1.0, -3.0]], [[0.0, 2.0]], [[4.0, 0.0]]])
    found = modality_shares(values, ["FLAIR", "T1", "FLAIR"])
    assert found["FLAIR"].describe() == {"absolute": 0.8, "signed": pytest.approx(0.2)}
    assert found["T1"].describe() == {"absolute": 0.2, "signed": 0.2}


@pytest.mark.parametrize(
    "values", [torch.ones(1, 3, 2), torch.zeros(2, 3, 2), torch.full((2, 3, 2), torch.nan)]
)
def test_one_channel_zero_or_nan_has_no_shares(values: torch.Tensor) -> None:
    assert modality_shares(values, ["T1", "T2"][: len(values)]) == {}
