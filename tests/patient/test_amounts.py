"""Sums of saved maps, read with nibabel and compared with the sidecar and the network's grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.eulerangles import euler2mat
from numpy.typing import NDArray
from torch import nn

import cases
import neuroxai as nx
from neuroxai.core.explanation import Explanation, Quantity
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class
from neuroxai.data.case import Case
from neuroxai.data.placement import Placement
from neuroxai.data.resampling import Resampling
from neuroxai.files.names import sidecar
from neuroxai.methods.base import Method
from neuroxai.methods.guided_integrated_gradients import GuidedIntegratedGradients
from neuroxai.methods.integrated_gradients import IntegratedGradients
from neuroxai.methods.smoothgrad import SmoothGrad
from neuroxai.methods.vanilla_gradient import VanillaGradient
from neuroxai.patient.patient_map import PatientMap

# Start and size of the crop, size on the network's grid, axial slice: the scan is (24, 20, 18).
PLACES: dict[str, tuple[Any, Any, Any, int | None]] = {
    "1 mm to 2 mm": ((0, 0, 0), (24, 20, 18), (12, 10, 9), None),
    "odd sizes": ((1, 2, 1), (21, 17, 15), (10, 9, 8), None),
    "anisotropic": ((0, 0, 0), (24, 20, 18), (24, 10, 3), None),
    "finer than the scan": ((4, 2, 3), (9, 8, 7), (21, 13, 16), None),
    "cropped and padded": ((3, -2, -3), (15, 24, 24), (8, 12, 12), None),
    "slice": ((2, -1), (19, 22), (10, 11), 7),
    "not resampled": ((-2, 1, 0), (28, 17, 18), None, None),
}


def place(case: Case, name: str, tilt: float) -> Placement:
    start, size, grid, index = PLACES[name]
    affine = case.affine.copy()
    affine[:3, :3] = euler2mat(tilt, tilt / 2, 0) @ affine[:3, :3]
    fitted = Placement.fit((24, 20, 18), affine, start, size, index)
    if grid is None:
        return fitted
    mm = tuple(old / new for old, new in zip(size, grid, strict=True))
    resampling = Resampling(size, (1.0,) * len(size), grid, mm)
    return Placement(
        fitted.shape, fitted.affine, fitted.axes, fitted.flips, fitted.start, fitted.size, index,
        resampling,
    )  # fmt: skip


def inside_shares(placement: Placement) -> NDArray[np.float64]:
    """Return the share of each network voxel inside the scan, by subsamples that fit both grids."""
    shares: NDArray[np.float64] = np.ones(())
    whole = placement.reoriented_shape
    for n, first, size, grid in zip(
        whole, placement.start, placement.size, placement.grid, strict=False
    ):
        at = np.arange(grid * size) // grid + first
        shares = shares[..., None] * ((at >= 0) & (at < n)).reshape(grid, size).mean(axis=1)
    return shares


def save(values: torch.Tensor, case: Case, placement: Placement, kind: Quantity, out: Path) -> Path:
    explanation = Explanation(
        values=values[None], method="drawn", title="Drawn", signed=True, units="none",
        parameters={}, target={"name": "WT", "scale": "logit"}, score=(0.0,), layer=None,
        diagnostics={}, notes=(), provenance={}, seconds=0.0, quantity=kind,
    )  # fmt: skip
    return PatientMap(explanation, case, placement, cases.MODALITIES, {}).save(out)


@pytest.mark.parametrize("tilt", [0.0, 0.3])
@pytest.mark.parametrize("name", PLACES)
def test_amounts_keep_their_sum_per_channel(tmp_path: Path, name: str, tilt: float) -> None:
    case = nx.read_case(cases.write_study(tmp_path / "study"))
    placement = place(case, name, tilt)
    drawn = torch.randn(4, *placement.grid, generator=torch.manual_seed(0)) + 0.2
    path = save(drawn, case, placement, "amount", tmp_path / "out")
    written = json.loads(sidecar(path).read_text())
    told, values = written["quantity"], np.asarray(nib.load(path).dataobj, np.float64)
    stored = values.sum(axis=(0, 1, 2))
    rounding = written["precision"]["step"] / 2
    on_network = drawn.double().flatten(1).sum(dim=1).numpy()
    assert told["kind"] == "amount"
    np.testing.assert_allclose(told["sum_in_file"], stored, atol=1e-4)
    np.testing.assert_allclose(told["sum_on_network_grid"], on_network, atol=1e-9)
    lost = np.array(told["sum_in_padding"])
    np.testing.assert_allclose(stored + lost, on_network, atol=1e-3 + rounding)
    outside = drawn.double().numpy() * (1 - inside_shares(placement))
    beyond = outside.reshape(4, -1).sum(axis=1)
    np.testing.assert_allclose(lost, beyond, atol=1e-3)
    assert lost.any() == placement.padded


def test_gradients_keep_their_value(tmp_path: Path) -> None:
    case = nx.read_case(cases.write_study(tmp_path / "study"))
    placement = place(case, "1 mm to 2 mm", 0.0)
    path = save(torch.full((4, 12, 10, 9), 3.0), case, placement, "gradient", tmp_path / "out")
    stored = np.asarray(nib.load(path).dataobj)
    np.testing.assert_allclose(stored, 3.0, atol=1e-6)
    told = json.loads(sidecar(path).read_text())["quantity"]
    assert told["kind"] == "gradient"
    np.testing.assert_allclose(np.array(told["sum_in_file"]) / told["sum_on_network_grid"], 8)


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (VanillaGradient(), "gradient"),
        (IntegratedGradients(), "amount"),
        (GuidedIntegratedGradients(), "amount"),
        (SmoothGrad(samples=2), "gradient"),
        (SmoothGrad(samples=2, of=IntegratedGradients()), "amount"),
        (SmoothGrad(samples=2, of=IntegratedGradients(), aggregation="squared"), "gradient"),
        (nx.methods.METHODS["grad_cam"](layer="0"), "activation"),  # type: ignore[call-arg]
    ],
)
def test_methods_declare_their_quantity(method: Method, kind: str) -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 1)).eval()
    x = torch.rand(1, 1, 6, 5, generator=torch.manual_seed(1))
    assert method.explain(WholeVolume(network, Class(0)), x).quantity == kind
