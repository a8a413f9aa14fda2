"""What a report says of a target, beside its maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cases
import neuroxai as nx
from neuroxai.data.placement import Placement
from neuroxai.files.folder import Results
from neuroxai.patient.prediction import Prediction
from neuroxai.reports import explain as case_report
from neuroxai.reports.explain import CaseReport


def prediction(labels: Any) -> Prediction:
    place = Placement.fit((3, 4, 5), np.eye(4))
    return Prediction(None, place, {}, labels)  # type: ignore[arg-type]


def test_only_a_segmenters_target_is_a_mean() -> None:
    logit, chance = {"scale": "logit"}, {"scale": "probability"}
    segmented, graded = prediction(np.zeros((3, 4, 5), np.uint8)), prediction(None)
    said = case_report.format_score
    assert said(logit, segmented) == "target's mean logit"
    assert said(logit, graded) == "target's logit"
    assert said(chance, graded) == "target's probability"


def test_the_same_target_by_another_word_is_written_once(
    study: nx.Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = nx.load_model(str(cases.segmenter(tmp_path, (32, 64, 32), filters=2)))
    for name in ("draw_modalities", "draw_planes"):
        monkeypatch.setattr(case_report, name, lambda *given, **_: given[3])
    report = CaseReport(Results(tmp_path / "out"))
    for target in (nx.Region("TC"), nx.Region("TC"), nx.Class("ET"), nx.Region("ET")):
        report.add(nx.explain(segmenter, study, "vanilla_gradient", target))
    assert list(report.targets) == ["TC", "ET"]
    maps = [path.name for path in report.results.written if path.name.endswith("statmap.nii.gz")]
    assert [name.split("_desc")[0][-2:] for name in maps] == ["TC", "ET"]
