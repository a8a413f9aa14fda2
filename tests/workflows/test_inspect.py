"""Inspection of a case: numbers, figures and files, read with nibabel."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from unittest import mock

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from nibabel.affines import apply_affine

import cases
import neuroxai as nx
from neuroxai.cli.tables import print_flow
from neuroxai.core.errors import OutputError, TargetError
from neuroxai.files.folder import Results
from neuroxai.files.names import bids_stem
from neuroxai.render.flow import FlowPanel, draw_flow, panel_positions, resolution_levels
from neuroxai.render.scan import Scan
from neuroxai.reports.inspect import InspectionReport
from neuroxai.workflows.inspect import inspect
from neuroxai.workflows.question import every_target

STEM = "sub-BraTS2021+00007"


def test_every_region_and_class_is_a_target_by_default(study: nx.Case, segmenter: nx.Model) -> None:
    seen = inspect(segmenter, study)
    names = [target.name for target in seen.flow.targets]
    assert names == ["WT", "TC", "ET", "background", "NCR", "ED"]
    assert seen.flow.forward == 1
    assert seen.flow.backward == 6
    assert len(seen.flow.layers) == 26
    assert seen.number(seen.flow.layers[21]) == 22
    assert seen.regions.source == "truth"


def test_files_have_the_numbers_of_the_figure(
    study: nx.Case, segmenter: nx.Model, tmp_path: Path
) -> None:
    seen = inspect(segmenter, study, ["ET"])
    report = InspectionReport(seen, Results(tmp_path / "out"))
    figure = report.write_flow(seen.flow.targets[0], nifti=True)
    numbers = json.loads(report.finish(seconds=1.0).read_text())
    assert imread(figure).shape[1] >= 1500
    assert numbers["use"].startswith("Research use only")
    assert [layer["number"] for layer in numbers["layers"]] == list(range(1, 27))
    rows = {row["layer"]: row for row in numbers["targets"]["ET"]["layers"]}
    truth = np.asarray(nib.load(tmp_files(study)["truth"]).dataobj)
    brain = np.zeros(truth.shape, bool)
    for name, file in tmp_files(study).items():
        if name != "truth":
            brain |= np.asarray(nib.load(file).dataobj) != 0
    for layer in ("encoder.0.conv1", "decoder.1.conv2", "output"):
        number = [entry["name"] for entry in numbers["layers"]].index(layer) + 1
        stem = bids_stem(study.name, label="ET", desc=f"information_flow-L{number:02d} {layer}")
        image = nib.load(tmp_path / "out" / f"{stem}_statmap.nii.gz")
        np.testing.assert_allclose(image.affine, cases.LPS, atol=1e-6)
        values = np.asarray(image.dataobj, dtype=np.float64)
        assert values.shape == cases.SHAPE
        sidecar = json.loads((tmp_path / "out" / f"{stem}_statmap.json").read_text())
        assert sidecar["layer"] == layer
        row = rows[layer]["positive"]
        if row is None:
            assert values.max() <= 0
            continue
        # The file holds the patient's grid, all of which lies inside the network's here; what the
        # network sees beyond is air that has evidence of its own.
        inside = np.clip(values, 0, None)
        in_tumor, in_brain = inside[truth > 0].sum(), inside[brain].sum()
        if row["brain"]:
            assert in_tumor / in_brain == pytest.approx(row["WT"] / row["brain"], rel=1e-3)
    assert set(rows["output"]["positive"] or rows["output"]["negative"]) == {
        "WT", "TC", "ET", "brain", "outside",
    }  # fmt: skip


def tmp_files(study: nx.Case) -> dict[str, str]:
    return {name: source.path for name, source in study.sources.items()}


def test_the_flow_does_not_depend_on_the_orientation_of_the_files(
    segmenter: nx.Model, tmp_path: Path
) -> None:
    """Six orientations of one head; one has all axes permuted and flipped."""
    turns = list(cases.orientations())
    maps = []
    points = np.array([[2.0, 12, 5], [9, 3, -2], [4, 20, 9], [10, 14, 8]])
    for number in (0, 7, 13, 22, 34, 47):
        case = nx.read_case(cases.write_study(tmp_path / str(number), turn=turns[number]))
        seen = inspect(segmenter, case, ["TC"])
        target = seen.flow.targets[0]
        layer = next(layer for layer in seen.flow.layers if layer.name == "decoder.1.conv2")
        volume = seen.patient_map(target, layer).volume()[0]
        voxels = np.rint(apply_affine(np.linalg.inv(case.affine), points)).astype(int)
        maps.append([volume[tuple(voxel)] for voxel in voxels])
    assert np.ptp(maps[0]) > 0
    for found in maps[1:]:
        np.testing.assert_allclose(found, maps[0], rtol=1e-3, atol=1e-7)


@pytest.mark.slow
def test_a_classifier_can_be_inspected(
    study: nx.Case, classifier: nx.Model, tmp_path: Path
) -> None:
    seen = inspect(classifier, study, slice_index=15)
    assert [target.name for target in seen.flow.targets] == ["LGG", "HGG"]
    assert len(seen.flow.layers) == 53
    with Results(tmp_path / "out") as results:
        report = InspectionReport(seen, results)
        for target in seen.flow.targets:
            report.write_flow(target, nifti=False)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{STEM}_label-LGG_flow.png", f"{STEM}_label-HGG_flow.png",
    }  # fmt: skip
    assert sorted(results.written) == sorted((tmp_path / "out").iterdir())


def test_an_unknown_target_raises_an_error(study: nx.Case, segmenter: nx.Model) -> None:
    with pytest.raises(TargetError, match="did you mean"):
        inspect(segmenter, study, ["WTT"])


def test_regions_come_first_and_once() -> None:
    from neuroxai.core.target.outputs import Outputs

    outputs = Outputs(("background", "NCR", "ED"), {"NCR": ("NCR",), "WT": ("NCR", "ED")})
    assert [target.name for target in every_target(outputs)] == ["NCR", "WT", "background", "ED"]


def test_the_encoder_is_drawn_left_and_the_decoder_right() -> None:
    unet = [
        (8, 16, 16, 8),
        (8, 16, 16, 8),
        (16, 8, 8, 4),
        (32, 4, 4, 2),
        (16, 8, 8, 4),
        (4, 16, 16, 8),
    ]
    assert resolution_levels(unet) == [0, 0, 1, 2, 1, 0]
    assert panel_positions(unet) == ([(0, 0), (0, 1), (1, 0), (2, 0), (1, 2), (0, 2)], 2)
    classifier = [(4, 32, 32)] * 11 + [(8, 16, 16)]
    found, left = panel_positions(classifier)
    assert left == 9
    assert found[9:] == [(1, 0), (1, 1), (2, 0)]


def brain_scan() -> Scan:
    volume = np.zeros((20, 24, 6), np.float32)
    volume[4:16, 4:20, 1:5] = 100
    volume[4:10, 4:20, 1:5] = 60  # the patient's left is darker
    return Scan("case", {"FLAIR": volume}, (2.0, 1.5, 3.0))


def test_a_map_on_the_patients_left_is_drawn_on_the_images_right(tmp_path: Path) -> None:
    picture = np.zeros((20, 24), np.float32)
    picture[5:8, 10:14] = 2.0
    panel = FlowPanel(3, "block.conv", (7, 20, 24, 6), picture, ("WT 12%", "brain 99%"))
    path = draw_flow(brain_scan(), [panel], "WT", tmp_path / "flow.png", modality="FLAIR")
    pixels = np.round(imread(path)[..., :3] * 255).astype(int)
    high = pixels.shape[0]
    # The layer's panel is the lower one; what is clearly red in it is the map.
    red = (pixels[..., 0] > pixels[..., 2] + 30) & (pixels[..., 1] < 60)
    rows, columns = np.nonzero(red[int(0.45 * high) : int(0.8 * high), :270])
    assert len(rows) > 50
    dark = 24 + 236 / 2
    assert columns.mean() > dark


def test_flow_panels_are_red_and_blue_with_the_outline_of_the_prediction(tmp_path: Path) -> None:
    predicted = np.zeros((20, 24, 6), np.uint8)
    predicted[6:10, 8:14, 1:5] = 3
    picture = np.zeros((20, 24), np.float32)
    picture[12:15, 8:12], picture[12:15, 13:17] = 2.0, -2.0  # back, front
    scan = dataclasses.replace(brain_scan(), prediction=predicted)
    panel = FlowPanel(3, "conv", (7, 20, 24, 6), picture)
    path = draw_flow(scan, [panel], "ET", tmp_path / "flow.png")
    pixels = np.round(imread(path)[..., :3] * 255).astype(int)
    lower = pixels[int(0.45 * pixels.shape[0]) :, :270]
    red, blue, yellow = (
        np.argwhere((np.abs(lower - color) < 40).all(axis=-1))
        for color in ((255, 59, 48), (46, 134, 255), (255, 230, 0))
    )
    assert min(map(len, (red, blue, yellow))) > 40
    assert red[:, 0].min() > blue[:, 0].max(), "the front is up"
    assert yellow[:, 1].min() > red[:, 1].max(), "the patient's left is on the right"


def test_flow_panels_name_the_reason_for_a_missing_map(tmp_path: Path) -> None:
    shape = (7, 20, 24, 6)
    panels = [
        FlowPanel(1, "a", shape, None),
        FlowPanel(2, "b", shape, np.zeros((20, 24))),
        FlowPanel(3, "c" * 60, shape, np.full((20, 24), np.nan)),
    ]
    path = draw_flow(brain_scan(), panels, "WT", tmp_path / "flow.png", modality="FLAIR")
    again = draw_flow(brain_scan(), panels, "WT", tmp_path / "again.png", modality="FLAIR")
    assert path.read_bytes() == again.read_bytes()
    reasons = [dataclasses.replace(panels[0], missing=why) for why in ("beside", "cancelled")]
    drawn = [
        draw_flow(brain_scan(), [why], "WT", tmp_path / f"{why.missing}.png", modality="FLAIR")
        for why in reasons
    ]
    assert drawn[0].read_bytes() != drawn[1].read_bytes()
    with pytest.raises(OutputError, match="no layer has a map"):
        draw_flow(brain_scan(), [], "WT", tmp_path / "no.png", modality="FLAIR")
    with pytest.raises(OutputError, match="unknown modality 'T9'"):
        draw_flow(brain_scan(), panels, "WT", tmp_path / "no.png", modality="T9")
    assert not (tmp_path / "no.png").exists()


def looked_into(study: nx.Case, model: nx.Model, out: Path) -> tuple[InspectionReport, list[str]]:
    """Report a target whose first layer has almost no evidence for it; return the panels' text."""
    seen = inspect(model, study, ["ET"])
    target = seen.flow.targets[0]
    shape = next(iter(target.maps.values())).shape
    odd = -torch.ones(shape)
    odd[..., 0, 0] = 1.4e-4 * odd.numel() / odd[..., 0, 0].numel()
    even = torch.ones(shape)
    even[..., 0, 0] = -0.25
    names = [layer.name for layer in seen.flow.layers][:2]
    maps = {**target.maps, names[0]: odd, names[1]: even}
    flow = dataclasses.replace(
        seen.flow, targets=(dataclasses.replace(target, maps=maps), *seen.flow.targets[1:])
    )
    report = InspectionReport(dataclasses.replace(seen, flow=flow), Results(out))
    with mock.patch("neuroxai.reports.inspect.draw_flow") as drawn:
        report.write_flow(report.inspection.flow.targets[0])
    return report, [" | ".join(panel.lines) for panel in drawn.call_args.args[1]]


def test_shares_of_evidence_within_rounding_error_are_not_shown(
    study: nx.Case,
    segmenter: nx.Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a map that is negative but for one voxel, all positive evidence is rounding error."""
    monkeypatch.setenv("COLUMNS", "200")
    report, lines = looked_into(study, segmenter, tmp_path / "out")
    first, second = report.rows["ET"][:2]
    fractions = [row.mass.positive_fraction or 0 for row in (first, second)]
    assert 0 < fractions[0] < 0.001
    assert fractions[1] > 0.9
    assert lines[0] == "nothing for the target"
    assert lines[1].startswith(f"for the target {fractions[1]:.0%} | WT ")
    print_flow(report)
    shown = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    printed = {words[0]: words[1:] for words in shown}
    heading = next(words for words in shown if words[0] == "Layer")
    assert heading == ["Layer", "Filters", "Grid", "For", "WT", "TC", "ET", "brain"]
    assert printed["L1"][3:] == ["<0.1", *"––––"]
    assert printed["L2"][3] == f"{100 * fractions[1]:.1f}"
    assert second.mass.positive is not None
    assert float(printed["L2"][7]) == pytest.approx(100 * second.mass.positive["brain"], abs=0.051)


def test_only_a_segmenters_score_is_called_a_mean(
    study: nx.Case, segmenter: nx.Model, classifier: nx.Model
) -> None:
    for model, target, printed in ((segmenter, "ET", "target's mean logit"),
                                (classifier, "HGG", "target's logit")):  # fmt: skip
        seen = inspect(model, study, [target], slice_index=15 if model is classifier else None)
        with mock.patch("neuroxai.reports.inspect.draw_flow") as drawn:
            InspectionReport(seen, Results(Path("nowhere"))).write_flow(seen.flow.targets[0])
        facts = drawn.call_args.kwargs["facts"]
        assert [name for name in facts if name.startswith("target's")] == [printed]
        assert float(facts[printed]) == pytest.approx(seen.flow.targets[0].score[0], rel=1e-3)


def test_notes_of_the_loader_are_warnings_of_an_inspection(
    study: nx.Case, segmenter: nx.Model
) -> None:
    noted = dataclasses.replace(segmenter, notes=("mirroring is left out",))
    seen = inspect(noted, study, ["ET"])
    assert seen.warnings.count("mirroring is left out") == 1
