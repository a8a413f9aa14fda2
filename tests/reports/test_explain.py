"""The report of an explained case: facts, files and summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cases
import neuroxai as nx
from neuroxai.core.errors import OutputError
from neuroxai.core.explanation import network_hash, tensor_hash
from neuroxai.data.placement import Placement
from neuroxai.files.folder import Results
from neuroxai.patient.prediction import Prediction
from neuroxai.reports import explain as case_report
from neuroxai.reports.explain import CaseReport


def prediction(labels: Any) -> Prediction:
    place = Placement.fit((3, 4, 5), np.eye(4))
    return Prediction(None, place, {}, labels)  # type: ignore[arg-type]


def test_only_a_segmenters_score_is_called_a_mean() -> None:
    logit, chance = {"scale": "logit"}, {"scale": "probability"}
    segmented, graded = prediction(np.zeros((3, 4, 5), np.uint8)), prediction(None)
    format_score = case_report.format_score
    assert format_score(logit, segmented) == "target's mean logit"
    assert format_score(logit, graded) == "target's logit"
    assert format_score(chance, graded) == "target's probability"


def test_the_same_target_by_another_name_is_written_once(
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


def test_the_summary_has_memory_and_provenance_of_each_target(
    study: nx.Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = nx.load_model(str(cases.segmenter(tmp_path, (32, 64, 32), filters=2)))
    for name in ("draw_modalities", "draw_planes"):
        monkeypatch.setattr(case_report, name, lambda *given, **_: given[3])
    session = nx.open(segmenter, study, memory="64GB")
    report = CaseReport(Results(tmp_path / "out"))
    for found in session.explain_each(["vanilla_gradient", "grad_cam"], ["WT", "ET"], seed=7):
        report.add(found)
    summary = json.loads(report.finish(seconds=1.5).read_text(encoding="utf-8"))
    assert summary["case"] == study.name
    assert summary["prediction"]["volumes_ml"] == session.prediction.volumes_ml()
    assert summary["model"]["state_sha256"] == network_hash(segmenter.network)
    assert summary["shared_seconds"] > 0
    assert set(summary["targets"]) == {"WT", "ET"}
    for target in summary["targets"].values():
        assert target["memory"] == {"strategy": "whole", "expected_mb": None, "budget_mb": 64_000}
        assert target["provenance"]["seed"] == 7
        assert target["provenance"]["input_sha256"] == tensor_hash(session.prepared.x)
        assert "citation" not in target["provenance"], "it differs from method to method"
    assert "memory" not in summary
    assert "provenance" not in summary


def test_a_report_without_targets_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no target was explained"):
        CaseReport(Results(tmp_path)).finish(seconds=0.0)


def test_peak_memory_is_unknown_where_python_has_no_resource(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python on Windows has no module ``resource``."""
    peak = case_report.peak_memory_mb()
    assert peak is None or 10 < peak < 10**6
    monkeypatch.setattr(case_report, "find_spec", lambda name: None)
    assert case_report.peak_memory_mb() is None
