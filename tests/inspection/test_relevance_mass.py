"""Relevance mass by hand."""

from __future__ import annotations

import pytest
import torch

from neuroxai.core.errors import MethodError
from neuroxai.inspection.relevance_mass import relevance_mass


def test_fractions_by_hand() -> None:
    values = torch.tensor([[4.0, -1.0, 0.0], [2.0, -3.0, 2.0]])
    left = torch.tensor([[True, False, False], [True, False, False]])
    found = relevance_mass(values, {"left": left, "all": torch.ones_like(left)})
    assert found.positive == {"left": 6 / 8, "all": 1.0}
    assert found.negative == {"left": 0.0, "all": 1.0}
    assert found.volume["left"] == pytest.approx(1 / 3)
    assert found.positive_fraction == pytest.approx(8 / 12)
    assert found.all == {"left": 6 / 12, "all": 1.0}
    channels = relevance_mass(torch.stack([values, -2 * values, 0 * values]), {"left": left})
    assert channels.positive == {"left": 6 / (8 + 2 * 4)}
    assert channels.negative == {"left": 2 * 6 / (4 + 2 * 8)}
    assert channels.volume == {"left": pytest.approx(1 / 3)}
    empty = relevance_mass(torch.zeros(2, 3), {"left": left})
    assert empty.positive is None
    assert empty.negative is None
    assert empty.positive_fraction is None
    assert empty.all is None
    with pytest.raises(MethodError, match="contains NaN or infinity"):
        relevance_mass(torch.tensor([[torch.nan] * 3] * 2), {"left": left})
    with pytest.raises(MethodError, match=r"expected \(3, 3\)"):
        relevance_mass(torch.zeros(3, 3), {"left": left})
