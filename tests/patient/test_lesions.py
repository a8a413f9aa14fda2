"""Listed lesions are those that ``within="lesion:N"`` explains, on every grid."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

import neuroxai as nx
from cases import LPS
from neuroxai.core.target.outputs import Outputs
from neuroxai.models.card import Card
from neuroxai.patient.lesions import MOST_LISTED, Lesions
from neuroxai.workflows.question import lesion_targets

SHAPE = (40, 44, 36)
BRAIN, BRIGHT = 100, 1000
# On the scan's grid the cube is larger than the plate. At 2 mm the plate is, because its one layer
# of bright voxels still makes voxels brighter than the threshold. The dots have one size.
PLANTED = {
    "plate": (slice(8, 20), slice(8, 20), slice(7, 8)),
    "cube": (slice(26, 32), slice(10, 16), slice(20, 26)),
    "first dot": (slice(8, 10), slice(30, 32), slice(20, 22)),
    "second dot": (slice(28, 30), slice(30, 32), slice(20, 22)),
    "third dot": (slice(28, 30), slice(30, 32), slice(10, 12)),
}


def scan() -> NDArray[np.int16]:
    image = np.zeros(SHAPE, np.int16)
    image[2:-2, 4:-4, 2:-2] = BRAIN
    for box in PLANTED.values():
        image[box] = BRIGHT
    return image


def write_case(folder: Path, turn: NDArray[np.float64] | None = None) -> Path:
    place = folder / "P1"
    place.mkdir(parents=True)
    image = nib.Nifti1Image(scan(), LPS)
    nib.save(image if turn is None else image.as_reoriented(turn), place / "P1_t1.nii.gz")
    return place


def model(voxel_mm: float | None) -> nx.Model:
    """A network that calls a voxel a tumor where it is brighter than half of a lesion."""
    network = nn.Conv3d(1, 2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1, 1))
        network.bias.copy_(torch.tensor([0.0, -BRIGHT / 2]))  # type: ignore[union-attr]
    recipe = {"modalities": ["T1"], "intensity": "none", "divisor": 1}
    if voxel_mm is not None:
        recipe |= {"voxel_mm": [voxel_mm] * 3, "resampling": "nnunet", "crop_to_brain": True}
    card = Card(
        name="bright", architecture="", arguments={}, task="segmentation", modalities=("T1",),
        classes=("background", "tumor"), regions={"WT": ("tumor",)}, activation="softmax",
        preprocessing=recipe,
    )  # fmt: skip
    return nx.Model(network.eval(), card, Path(), "0" * 64)


def volumes_on_scan(mask: NDArray[np.bool_], turn: NDArray[np.float64] | None) -> dict[str, float]:
    """Return the volume in ml of the component of a mask that is at each planted lesion."""
    if turn is not None:
        back = np.empty((3, 2))
        back[turn[:, 0].astype(int)] = np.stack([np.arange(3), turn[:, 1]], axis=1)
        mask = nib.orientations.apply_orientation(mask, back)
    components, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    counts = np.bincount(components.ravel())
    counts[0] = 0
    return {name: counts[components[box]].max() / 1000 for name, box in PLANTED.items()}


@pytest.mark.parametrize("voxel_mm", [None, 2.0], ids=["scan's grid", "2 mm"])
@pytest.mark.parametrize("turned", [False, True])
def test_each_number_is_that_of_the_restriction(
    tmp_path: Path, voxel_mm: float | None, turned: bool
) -> None:
    turn = np.array([[2, 1], [0, -1], [1, -1]], float) if turned else None
    case = nx.read_case(write_case(tmp_path, turn), modalities=["T1"])
    session = nx.open(model(voxel_mm), case)
    lesions = session.prediction.lesions
    assert lesions is not None
    assert lesions.counts == {"WT": len(PLANTED)}
    assert sum(each.ml for each in lesions.found) == pytest.approx(
        session.prediction.volumes_ml()["WT"]
    )
    volumes = volumes_on_scan(session.prediction.mask("WT"), turn)
    brain = np.argwhere(scan() > 0) @ LPS[:3, :3].T + LPS[:3, 3]
    names = []
    for listed in lesions.found:
        explained = session.explain("vanilla_gradient", "WT", within=f"lesion:{listed.number}")
        mask = explained["vanilla_gradient"].explanation.within
        assert mask is not None
        assert listed.location is not None
        center = np.array(listed.location.center_mm) + brain.mean(axis=0)
        index = np.linalg.solve(LPS[:3, :3], center - LPS[:3, 3])
        (name,) = (
            name for name, box in PLANTED.items()
            if all(b.start - 1.5 < i < b.stop + 0.5 for b, i in zip(box, index, strict=True))
        )  # fmt: skip
        names.append(name)
        # The lesions are far apart, so on the scan's grid each is a component of its own.
        assert listed.ml == pytest.approx(volumes[name])
        assert listed.place.startswith(f"{'right' if index[0] < SHAPE[0] / 2 else 'left'}: ")
    assert sorted(names) == sorted(PLANTED)
    assert names[:2] == (["plate", "cube"] if voxel_mm else ["cube", "plate"])


def test_a_list_is_cut_but_the_count_is_not(tmp_path: Path) -> None:
    case = nx.read_case(write_case(tmp_path), modalities=["T1"])
    session = nx.open(model(None), case)
    regions = session.explain("vanilla_gradient", "WT")["vanilla_gradient"].regions
    assert regions is not None
    output = torch.zeros(1, 2, *session.x.shape[2:])
    output[:, 1, ::4, ::4, ::4] = 1
    outputs = Outputs(("background", "vessel"), activation="softmax")
    lesions = Lesions.read(output, outputs, lesion_targets(outputs), regions)
    assert lesions.counts == {"vessel": output[0, 1].sum()}
    assert len(lesions.found) == MOST_LISTED < lesions.counts["vessel"]
    assert lesions.found[0].place == "outside the brain"
    described = json.loads(json.dumps(lesions.describe()))
    assert [each["number"] for each in described["largest"]] == [*range(1, MOST_LISTED + 1)]


def test_nothing_predicted_has_no_lesions(tmp_path: Path) -> None:
    case = nx.read_case(write_case(tmp_path), modalities=["T1"])
    dark = model(None)
    with torch.no_grad():
        dark.network.bias.fill_(0.0)  # type: ignore[operator]
        dark.network.weight.fill_(0.0)  # type: ignore[operator]
    lesions = nx.open(dark, case).prediction.lesions
    assert lesions is not None
    assert lesions.counts == {"WT": 0}
    assert lesions.found == ()
