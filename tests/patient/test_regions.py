"""Relevance mass in regions, compared with sums over the files read with nibabel."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import cases
import neuroxai as nx
from neuroxai.core.explanation import Explanation
from neuroxai.data.case import Case
from neuroxai.files.folder import Results
from neuroxai.files.names import sidecar
from neuroxai.patient.patient_map import PatientMap
from neuroxai.patient.regions import Regions, format_share
from neuroxai.reports.explain import CaseReport
from neuroxai.reports.pictures import picture_of
from neuroxai.workflows.explain import explain
from neuroxai.workflows.preparation import prepare


def map_of(case: Case, values: Tensor, model: nx.Model) -> PatientMap:
    """Return given values as a map."""
    placement = prepare(model, case, None).placement
    explanation = Explanation(
        values=values[None], method="drawn", title="Drawn", signed=True, units="none",
        parameters={}, target={"name": "WT", "scale": "logit"}, score=(0.0,), layer=None,
        diagnostics={}, notes=("drawn",), provenance={}, seconds=0.0,
    )  # fmt: skip
    channels = cases.MODALITIES if len(values) > 1 else ("all",)
    return PatientMap(explanation, case, placement, channels, {}, regions=Regions(case, placement))


def inside_scan(case: Case, model: nx.Model) -> Tensor:
    """Return the mask of the scan on the network's grid, without its padding."""
    there = prepare(model, case, None).placement.to_network(np.ones(case.shape, np.uint8))
    return torch.from_numpy(np.ascontiguousarray(there)) > 0


def shares(volume: NDArray[Any], masks: dict[str, NDArray[np.bool_]]) -> dict[str, float]:
    return {name: float(volume[mask].sum() / volume.sum()) for name, mask in masks.items()}


@pytest.mark.parametrize("channels", [1, 4])
def test_shares_equal_those_of_the_files_in_every_orientation(
    tmp_path: Path, segmenter: nx.Model, channels: int
) -> None:
    for number, turn in enumerate(list(cases.orientations())[channels::5]):
        folder = cases.write_study(tmp_path / f"{channels}-{number}", turn=turn)
        case = nx.read_case(folder)
        seen = inside_scan(case, segmenter)
        drawn = torch.randn(channels, *seen.shape, generator=torch.manual_seed(number))
        made = map_of(case, (drawn + 0.3) * seen, segmenter)
        path = made.save(tmp_path / f"out-{channels}-{number}")
        stored = np.asarray(nib.load(path).dataobj).reshape(*case.shape, channels)
        files = {file.name.rsplit("_", 1)[1][:-7]: file for file in folder.iterdir()}
        read = {name: np.asarray(nib.load(file).dataobj) for name, file in files.items()}
        labels = read.pop("seg")
        brain = np.any([scan != 0 for scan in read.values()], axis=0)
        masks = {
            "WT": labels > 0, "TC": (labels == 1) | (labels == 4), "ET": labels == 4,
            "brain": brain, "outside": ~brain,
        }  # fmt: skip
        evidence = made.evidence
        assert evidence is not None
        assert made.regions is not None
        assert made.regions.source == "truth"
        signs = {"all": abs(stored), "positive": stored.clip(0), "negative": (-stored).clip(0)}
        for key, mass in signs.items():
            expected = shares(mass.sum(axis=-1, dtype=np.float64), masks)
            assert getattr(evidence, key) == pytest.approx(expected, rel=1e-4), (key, turn)
        assert evidence.volume["WT"] == masks["WT"].sum() / seen.numel()
        written = json.loads(sidecar(path).read_text())
        assert written["evidence"]["all"] == pytest.approx(evidence.all)
        assert written["evidence"]["regions_from"] == "truth"


def test_a_map_on_the_left_is_not_on_the_right(segmenter: nx.Model, study: Case) -> None:
    """The tumor is on one side; a mirrored map has no mass in it."""
    regions = Regions(study, prepare(segmenter, study, None).placement)
    core = regions.masks["TC"].float()
    there, mirrored = regions.evidence(core[None]), regions.evidence(core[None].flip(1))
    assert there is not None
    assert mirrored is not None
    assert there.all is not None
    assert mirrored.all is not None
    assert {there.all[name] for name in ("WT", "TC", "brain")} == {1}
    assert there.all["outside"] == 0
    assert mirrored.all["TC"] == 0


def test_a_map_mostly_outside_the_brain_has_a_note(
    tmp_path: Path, segmenter: nx.Model, study: Case
) -> None:
    outside = Regions(study, prepare(segmenter, study, None).placement).masks["outside"]
    for share, expected in ((0.75, True), (0.25, False)):
        values = torch.where(outside, share / outside.sum(), (1 - share) / (~outside).sum())
        made = map_of(study, values[None], segmenter)
        assert made.mostly_outside == expected
        assert made.outside == pytest.approx(share, rel=1e-4)
        notes = [note for note in made.notes if "outside the brain" in note]
        assert len(notes) == expected
        assert made.notes[0] == "drawn"
        path = made.save(tmp_path / str(share))
        assert json.loads(sidecar(path).read_text())["notes"] == list(made.notes)
        if expected:
            volume = float(outside.float().mean())
            assert notes[0].startswith(
                f"75% of this map is outside the brain, which is {volume:.0%} of"
            )


def test_maps_of_zeros_and_of_nan_have_no_shares(segmenter: nx.Model, study: Case) -> None:
    shape = inside_scan(study, segmenter).shape
    empty = map_of(study, torch.zeros(1, *shape), segmenter)
    assert empty.evidence is not None
    assert empty.evidence.all is None
    assert empty.outside is None
    assert empty.notes == ("drawn",)
    assert format_share(empty.evidence, "WT") == ""
    broken = map_of(study, torch.full((1, *shape), torch.nan), segmenter)
    assert broken.evidence is None
    assert not broken.mostly_outside
    nowhere = dataclasses.replace(empty, regions=None)
    assert nowhere.evidence is None
    assert format_share(nowhere.evidence, "brain") == ""


def test_without_truth_regions_come_from_the_prediction(
    tmp_path: Path, segmenter: nx.Model, classifier: nx.Model
) -> None:
    case = nx.read_case(cases.write_study(tmp_path, truth=False))
    maps = explain(segmenter, case, ["vanilla_gradient", "grad_cam"], "WT")
    regions, evidence = maps["vanilla_gradient"].regions, maps["vanilla_gradient"].evidence
    assert regions is not None
    assert regions.source == "prediction"
    assert maps.prediction is not None
    labels = maps.prediction.labels
    assert labels is not None
    placement = maps["vanilla_gradient"].placement
    tumor = torch.from_numpy(np.ascontiguousarray(placement.to_network(labels) > 0))
    values = maps["vanilla_gradient"].explanation.values[0].abs().double()
    expected = float(values[:, tumor].sum() / values.sum())
    assert evidence is not None
    assert evidence.all is not None
    assert evidence.all["WT"] == pytest.approx(expected, rel=1e-5)
    with Results(tmp_path / "out") as results:
        report = CaseReport(results)
        report.add(maps)
    row = report.targets["WT"].methods["grad_cam"]
    assert row.evidence == maps["grad_cam"].evidence
    graded = explain(classifier, case, "vanilla_gradient", "HGG", slice_index=14)
    regions, evidence = graded["vanilla_gradient"].regions, graded["vanilla_gradient"].evidence
    assert regions is not None
    assert regions.source is None
    assert evidence is not None
    assert set(evidence.all or ()) == {"brain", "outside"}


def test_the_mask_of_a_restricted_target_is_a_region(
    tmp_path: Path,
) -> None:
    segmenter = nx.load_model(str(cases.segmenter(tmp_path, (32, 64, 32), filters=2)))
    for number, turn in enumerate(list(cases.orientations())[3::17]):
        case = nx.read_case(cases.write_study(tmp_path / str(number), turn=turn))
        assert case.truth is not None
        asked = np.zeros(case.shape, bool)
        asked[tuple(slice(n // 3, n // 2) for n in case.shape)] = True  # not in the middle
        maps = nx.explain(segmenter, case, ["vanilla_gradient", "grad_cam"], "WT", within=asked)
        for each in maps.values():
            found = each.within_mask()
            assert found is not None
            np.testing.assert_array_equal(found, asked)
            mass = np.abs(each.volume().astype(np.float64)).sum(axis=0)
            # What lies in the padding of the network's grid is not on the patient's.
            share = mass[asked].sum() / float(each.explanation.values.double().abs().sum())
            assert each.evidence is not None
            assert each.evidence.all is not None
            assert each.evidence.all["within"] == pytest.approx(share, rel=1e-4)
        note_start = "the target is restricted to given mask, the map is not"
        assert any(note.startswith(note_start) for note in maps["grad_cam"].notes)
        assert not maps["vanilla_gradient"].notes
        scan, _ = picture_of(case, maps["grad_cam"].placement, list(maps.values()), None)
        assert scan.target_mask is not None
        assert int(scan.target_mask.sum()) == int(asked.sum())
        assert scan.target_mask_name == "given mask"
    whole = nx.explain(segmenter, case, "grad_cam", "WT", within="image")["grad_cam"]
    assert whole.within_mask() is None
    assert whole.evidence is not None
    assert "within" not in (whole.evidence.all or ())
    assert not any("restricted to" in note for note in whole.notes)
