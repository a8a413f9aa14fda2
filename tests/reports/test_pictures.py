"""Maps made ready to be drawn: their meaning, unit, share, voxel size and side."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import neuroxai as nx
from neuroxai.core.explanation import Explanation
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.restriction import Prediction
from neuroxai.data.placement import Placement
from neuroxai.data.resampling import Resampling
from neuroxai.methods import make_method
from neuroxai.methods.class_activation import WHERE_ONLY
from neuroxai.patient.patient_map import PatientMap
from neuroxai.render.figures import notes_of
from neuroxai.render.scan import HeatMap, Scan
from neuroxai.reports.pictures import kind_of, network_spacing_ras, picture_of, unit_of

GRADIENT = "logit per unit of the network's input"


def explained(
    method: str, parameters: dict[str, object] | None = None, scale: str = "logit"
) -> Explanation:
    network = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 1))
    target = nx.Class(1)
    probe = WholeVolume(network, target, outputs=nx.Outputs(("a", "b", "c", "d")))
    found = make_method(method, parameters).explain(probe, torch.rand(1, 2, 6, 5))
    return dataclasses.replace(found, target={**found.target, "scale": scale})


@pytest.mark.parametrize(
    ("method", "parameters", "kind", "unit"),
    [
        ("vanilla_gradient", {}, "signed", GRADIENT),
        ("integrated_gradients", {"steps": 2}, "signed", "logit per voxel"),
        ("smoothgrad", {"samples": 2}, "signed", GRADIENT),
        ("smoothgrad", {"samples": 2, "aggregation": "variance"}, "magnitude",
         f"square of {GRADIENT}"),
        ("smoothgrad", {"samples": 2, "of": make_method("grad_cam")}, "evidence",
         "arbitrary unit"),
        ("grad_cam", {}, "evidence", "arbitrary unit"),
        ("layercam", {}, "evidence", "arbitrary unit"),
        ("hirescam", {}, "signed", "logit per cell of the layer"),
        ("guided_grad_cam", {}, "signed", "arbitrary unit"),
    ],
)  # fmt: skip
def test_meaning_and_unit_of_every_kind_of_map(
    method: str, parameters: dict[str, object], kind: str, unit: str
) -> None:
    found = explained(method, parameters)
    assert (kind_of(found), unit_of(found)) == (kind, unit)
    if kind != "signed":
        assert bool((found.values >= 0).all())


def test_the_unit_has_the_scale_of_the_target() -> None:
    assert (
        unit_of(explained("hirescam", scale="probability")) == "probability per cell of the layer"
    )


def test_voxel_size_of_the_networks_grid() -> None:
    affine = np.array([[0, 0, 3.0, 0], [-1, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]])
    # Stored axes: posterior 1 mm, superior 2 mm, right 3 mm. The network halves the resolution.
    placement = Placement.fit((8, 6, 4), affine, order=(2, 1, 0))
    half = dataclasses.replace(
        placement, resampling=Resampling(placement.size, (2, 1, 3), (3, 4, 2), (4, 2, 6))
    )
    assert placement.size == (6, 8, 4)
    assert network_spacing_ras(half) == pytest.approx((6.0, 2.0, 4.0))
    thin = Placement.fit((8, 6, 4), affine, slice_index=3)
    assert network_spacing_ras(thin) == pytest.approx((3.0, 1.0, 2.0))


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, -1)], ids=str)
def test_a_planted_voxel_is_drawn_where_it_is_in_the_patient(
    study: nx.Case, flips: tuple[int, int, int]
) -> None:
    """Whatever the axes of the file, the drawn voxel has the world position of the planted one."""
    affine = study.affine @ np.diag([*(float(flip) for flip in flips), 1.0])
    case = dataclasses.replace(study, affine=affine)
    placement = Placement.fit(case.shape, affine)
    channels = tuple(case.volumes)
    values = torch.zeros(1, len(channels), *placement.grid)
    voxel = (3, placement.grid[1] - 2, 5)
    values[0, channels.index("T1ce"), *voxel] = 1.0
    planted = placement.network_affine @ [*voxel, 1]
    found = dataclasses.replace(explained("vanilla_gradient"), values=values, within=None)
    maps = [PatientMap(found, case, placement, channels, {"name": "net"})]
    scan, (heat,) = picture_of(case, placement, maps, None)
    assert heat.shares == {name: float(name == "T1ce") for name in channels}
    at = np.argwhere(heat.volume("T1ce"))
    assert len(at) == 1
    assert not heat.volume("T1").any()
    # Drawn volumes are RAS+: x runs to the right, y to the front, z to the head.
    world = placement.upright.reoriented_affine @ [*at[0], 1]
    np.testing.assert_allclose(world, planted, atol=1e-4)
    assert (np.diag(placement.upright.reoriented_affine)[:3] > 0).all()
    assert scan.network_spacing == pytest.approx(scan.spacing)


def test_a_map_without_a_unit_is_drawn_as_a_fraction_of_its_largest_value(study: nx.Case) -> None:
    placement = Placement.fit(study.shape, study.affine)
    values = torch.zeros(1, 1, *placement.grid)
    values[0, 0, 2:5, 3:5, 4] = torch.tensor([[2e-6, 8e-6]])
    found = dataclasses.replace(explained("grad_cam"), values=values, within=None)
    _, (heat,) = picture_of(
        study, placement, [PatientMap(found, study, placement, ("all",), {})], None
    )
    assert np.unique(heat.values) == pytest.approx([0.0, 0.25, 1.0])
    assert heat.unit == "fraction of the map's largest value"
    assert not heat.where_only


def test_a_map_of_a_place_alone_says_so_below_the_figure() -> None:
    torch.manual_seed(0)
    last = nn.Conv2d(3, 4, 1)
    network = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), last)
    x = torch.rand(1, 2, 6, 5)
    with torch.no_grad():
        highest = network(x).argmax(dim=1)
    wins = int(highest.flatten().mode().values)
    assert not bool((highest == wins).all())
    probe = WholeVolume(
        network, nx.Class(wins, within=Prediction()), outputs=nx.Outputs(("a", "b", "c", "d"))
    )
    found = {name: make_method(name).explain(probe, x) for name in ("hirescam", "vanilla_gradient")}
    assert [each for each in found if any(WHERE_ONLY in note for note in found[each].notes)] == [
        "hirescam"
    ]
    scan = Scan("case", {"T1": np.ones((5, 6, 4))}, target_mask_name="prediction")
    heat = HeatMap("hirescam", "HiResCAM", np.ones((1, 5, 6, 4)), "signed", where_only=True)
    said = "HiResCAM: zero outside the prediction by construction"
    assert said in " ".join(notes_of(scan, [heat], "b", ""))
    assert said not in " ".join(
        notes_of(scan, [dataclasses.replace(heat, where_only=False)], "b", "")
    )
