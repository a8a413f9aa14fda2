"""The mark of maps that are not above chance, wherever a map is reported."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cases
import neuroxai as nx
from neuroxai.cli.tables import print_report
from neuroxai.files.folder import Results
from neuroxai.inspection.chance import NOT_ABOVE_CHANCE
from neuroxai.patient.patient_map import PatientMap
from neuroxai.reports import explain as case_report
from neuroxai.reports.explain import CaseReport
from neuroxai.reports.findings import findings
from neuroxai.reports.pictures import picture_of


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, study: nx.Case) -> nx.Session:
    folder = cases.segmenter(tmp_path_factory.mktemp("model"), (32, 64, 32), filters=2)
    return nx.open(nx.load_model(str(folder)), study)


def with_values(found: PatientMap, values: Tensor) -> PatientMap:
    explanation = dataclasses.replace(found.explanation, values=values)
    return dataclasses.replace(found, explanation=explanation)


def test_a_map_that_is_not_above_chance_is_marked_everywhere(
    opened: nx.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    found = opened.explain(["vanilla_gradient", "smoothgrad", "grad_cam"], "WT", within="truth")
    first = found["vanilla_gradient"]
    within = first.explanation.within
    assert within is not None
    bright = opened.x - torch.tensor(opened.background_value)[:, None, None, None]
    maps = {
        "vanilla_gradient": with_values(first, bright),
        "smoothgrad": with_values(found["smoothgrad"], bright * (0.01 + within)),
        "grad_cam": with_values(found["grad_cam"], torch.zeros_like(within[None]).float()),
    }
    planted = dataclasses.replace(found, maps=maps)
    facts: list[str] = []

    def drawn(*given: object, **more: dict[str, str]) -> object:
        facts.append(more["facts"]["share of each map there"])
        return given[3]

    for name in ("draw_modalities", "draw_planes"):
        monkeypatch.setattr(case_report, name, drawn)
    report = CaseReport(Results(tmp_path / "out"))
    report.add(planted)
    marks = [
        each.mark for each in picture_of(first.case, first.placement, [*maps.values()], None)[1]
    ]
    assert marks == [NOT_ABOVE_CHANCE, "", ""]
    assert "Vanilla gradient" in facts[0]
    assert facts[0].count(NOT_ABOVE_CHANCE) == 1
    lines = findings(report, opened.model.card)
    (dull,) = (line for line in lines if line.startswith("WT, vanilla_gradient: "))
    assert dull.startswith(f"WT, vanilla_gradient: {NOT_ABOVE_CHANCE}: ")
    assert sum(NOT_ABOVE_CHANCE in line for line in lines) == 1
    methods = json.loads(report.finish(seconds=1.0).read_text(encoding="utf-8"))["targets"]["WT"]
    above = {name: each["chance"] and each["chance"]["above"]
             for name, each in methods["methods"].items()}  # fmt: skip
    assert above == {"vanilla_gradient": False, "smoothgrad": True, "grad_cam": None}
    for path in report.results.folder.glob("*_statmap.json"):
        sidecar = json.loads(path.read_text(encoding="utf-8"))
        assert (sidecar["chance"] and sidecar["chance"]["above"]) is above[sidecar["method"]]
        marked = sidecar["notes"] and sidecar["notes"][0].startswith(NOT_ABOVE_CHANCE)
        assert bool(marked) is (sidecar["method"] == "vanilla_gradient")
    print_report(report)
    rows = capsys.readouterr().out.splitlines()
    (at,) = (n for n, row in enumerate(rows) if row.split()[:2] == ["WT", "vanilla_gradient"]
             and "not" not in row and "+" not in row)  # fmt: skip
    assert [row.strip() for row in rows[at + 1 : at + 3]] == ["not above", "chance"]


def test_a_target_over_the_whole_image_has_no_chance_level(opened: nx.Session) -> None:
    found = opened.explain("vanilla_gradient", "WT", within="image")["vanilla_gradient"]
    assert found.chance is None
