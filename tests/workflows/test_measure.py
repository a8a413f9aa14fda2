"""Measuring maps in a session: the question, masks, maps of other tools, trivial maps."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

import cases
import neuroxai as nx
from networks import image, make
from neuroxai.core.errors import CancelledError, CaseError, MethodError, MetricError, TargetError
from neuroxai.data.map_files import read_map
from neuroxai.metrics import Judged, make_metric
from neuroxai.workflows.measure import make_metrics

LOCAL = ["relevance_mass_accuracy", "auroc", "pointing_game"]


@pytest.fixture(scope="module")
def small(room: object, tmp_path_factory: pytest.TempPathFactory) -> nx.Model:
    folder = tmp_path_factory.mktemp("small")
    return nx.load_model(str(cases.segmenter(folder, (32, 64, 32), filters=2)))


def test_values_equal_the_metrics_of_the_explained_maps(study: nx.Case, small: nx.Model) -> None:
    """On the map that explain gives, with the truth and the brain on the network's grid."""
    session = nx.open(small, study)
    found = session.measure("vanilla_gradient", LOCAL, "ET", within="truth")
    map_ = session.explain("vanilla_gradient", "ET", within="truth")["vanilla_gradient"]
    placement = session.prepared.placement
    assert study.truth is not None
    truth = placement.to_network((study.truth == 3).astype(np.uint8)) > 0
    brain = placement.to_network(study.brain().astype(np.uint8)) > 0
    judged = Judged(
        map_.values, session.x, mask=torch.from_numpy(truth.copy())[None],
        brain=torch.from_numpy(brain.copy())[None], evidence="absolute",
    )  # fmt: skip
    for name in LOCAL:
        assert found["vanilla_gradient"][name].values == make_metric(name)(judged).values
        assert found["vanilla_gradient"][name].chance == make_metric(name)(judged).chance
    assert found.target["name"] == "ET"
    assert "\n" not in repr(found)


def test_trivial_maps_stand_beside_every_map(study: nx.Case, small: nx.Model) -> None:
    session = nx.open(small, study)
    found = session.measure("grad_cam", [*LOCAL, "emprt"], "WT", within="image")
    assert found.trivial == (
        "brightness of T1", "brightness of T1ce", "brightness of T2", "brightness of FLAIR",
        "input", "edges", "center", "noise", "answer",
    )  # fmt: skip
    assert all({*found[name]} == {*LOCAL} for name in found.trivial)
    assert {*found["grad_cam"]} == {*LOCAL, "emprt"}
    rows = found.rows()
    assert len(rows) == 9 * 3 + 4
    best = max(found.trivial, key=lambda name: found[name]["auroc"].values[0] or 0)
    # FLAIR and T2 are bright in the whole tumor of this study, so brightness finds it.
    assert best in ("brightness of FLAIR", "brightness of T2", "input")
    assert best in found.beaten_by("center", type(make_metric("auroc")))
    alone = session.measure("grad_cam", LOCAL, "WT", within="image", trivial=False)
    assert list(alone) == ["grad_cam"]


def test_a_map_of_another_tool_is_read_in_any_orientation(
    study: nx.Case, small: nx.Model, tmp_path: Path
) -> None:
    """A map on the truth, saved by nibabel in every orientation, points at the truth."""
    assert study.truth is not None
    values = (study.truth == 3).astype(np.float32) * 2
    session = nx.open(small, study)
    array = session.measure(maps={"mine": values}, metrics=LOCAL, target="ET", trivial=False)
    assert array["mine"]["relevance_mass_accuracy"].values == (1.0,)
    mirrored = session.measure(
        maps={"mine": values[::-1].copy()}, metrics=LOCAL, target="ET", trivial=False
    )
    assert mirrored["mine"]["relevance_mass_accuracy"].values == (0.0,)
    image_ = nib.Nifti1Image(values, study.affine)
    for number, turn in enumerate(list(cases.orientations())[::9]):
        path = tmp_path / f"{number}.nii.gz"
        nib.save(image_.as_reoriented(turn), path)
        file = session.measure(maps={"mine": path}, metrics=LOCAL, target="ET", trivial=False)
        assert file["mine"] == array["mine"]


def test_a_file_of_every_modality_keeps_their_order(
    study: nx.Case, small: nx.Model, tmp_path: Path
) -> None:
    several = np.stack([np.full(study.shape, k, np.float32) for k in range(1, 5)], axis=-1)
    path = tmp_path / "four.nii.gz"
    nib.save(nib.Nifti1Image(several, study.affine), path)
    assert read_map(path, study, 4)[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    phi = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    found = nx.open(small, study).measure(
        maps={"mine": path}, metrics="modality_correlation", target="ET", importances=phi,
        trivial=False,
    )  # fmt: skip
    assert found["mine"]["modality_correlation"].values == pytest.approx((1.0,))
    nib.save(nib.Nifti1Image(several[..., :3], study.affine), path)
    with pytest.raises(CaseError, match="3 volumes, expected 1, or 4"):
        read_map(path, study, 4)
    nib.save(nib.Nifti1Image(several[1:, ..., 0], study.affine), path)
    with pytest.raises(CaseError, match=r"four\.nii\.gz"):
        read_map(path, study, 4)


def test_what_is_missing_is_named_and_the_rest_is_measured(study: nx.Case, small: nx.Model) -> None:
    session = nx.open(small, study)
    found = session.measure("grad_cam", ["msfi", "sparseness"], "ET", within="image", trivial=False)
    assert "importances=" in found.missing["msfi"]
    assert {*found["grad_cam"]} == {"sparseness"}
    foreign = session.measure(
        maps={"mine": np.ones(study.shape)}, metrics=["emprt", "sparseness"], target="ET",
        trivial=False,
    )  # fmt: skip
    assert "a map of another tool" in foreign.missing["emprt"]
    with pytest.raises(MetricError, match="did you mean 'auroc'"):
        session.measure("grad_cam", "auroq")
    with pytest.raises(MethodError, match="no map to measure"):
        session.measure(metrics="auroc")
    with pytest.raises(TargetError, match="the network's own answer"):
        session.measure("grad_cam", "auroc", "ET", mask="prediction")
    with pytest.raises(MetricError, match="expected the grid of the scan"):
        session.measure(maps={"mine": np.ones((3, 4, 5))}, metrics="auroc")
    with pytest.raises(KeyError, match="no map 'gradcam'"):
        found["gradcam"]
    with pytest.raises(CancelledError):
        nx.open(small, study, cancel=lambda: True).measure("grad_cam", "auroc")


def test_a_network_on_a_tensor() -> None:
    network, x = make("classifier", 3).eval(), image(3, batch=2)
    mask = torch.zeros(x.shape[2:], dtype=torch.bool)
    mask[1:3, 2:4, 3:6] = True
    session = nx.open(network, x)
    found = session.measure(
        ["vanilla_gradient", "grad_cam"], ["auroc", "random_class", "network_agreement"], 2,
        maps={"mask": mask.float().expand(2, 1, *mask.shape)}, mask=mask, networks=[network],
    )  # fmt: skip
    assert found["mask"]["auroc"].values == (1.0, 1.0)
    assert found["vanilla_gradient"]["network_agreement"].values == pytest.approx((1.0, 1.0))
    assert len(found["grad_cam"]["random_class"].values) == 2
    without = session.measure("grad_cam", "auroc", 2, trivial=False)
    assert "give mask=" in without.missing["auroc"]
    with pytest.raises(MetricError, match="the input is a tensor"):
        session.measure(maps={"m": "m.nii.gz"}, metrics="auroc")


def test_metrics_may_be_given_in_every_form() -> None:
    assert [each.name for each in make_metrics("auroc")] == ["auroc"]
    assert len(make_metrics("all")) == len(nx.metrics.METRICS)
    (made,) = make_metrics({"deletion": {"steps": 3}})
    assert make_metrics([made, "auroc"])[0] is made
    with pytest.raises(MetricError, match="no metric is requested"):
        make_metrics([])


def test_a_network_is_left_as_it_was(study: nx.Case, small: nx.Model) -> None:
    before = {name: value.clone() for name, value in small.network.state_dict().items()}
    session = nx.open(small, study)
    session.measure("vanilla_gradient", ["emprt", "mprt", "implementation_invariance"], "ET",
                    within="image", trivial=False)  # fmt: skip
    assert all(torch.equal(before[n], v) for n, v in small.network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in small.network.modules())
    assert isinstance(small.network, nn.Module)
