"""The demo with small networks and few steps: its page, its files, and its second run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import cases
from neuroxai import demo
from neuroxai.models import checkpoint, loading
from neuroxai.models.model import Model


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["small", pytest.param("shipped", marks=pytest.mark.soak)])
def test_both_showcases_make_a_page_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    trained: list[str] = []

    def quick_training(config: str, out: Path, **settings: Any) -> Path:
        trained.append(config)
        settings["progress"]("Training", 1, 1)
        return cases.classifier(out)

    few = {
        "integrated_gradients": {"steps": 1},
        "guided_integrated_gradients": {"steps": 2},
        "smoothgrad": {"samples": 1},
    }
    if network == "small":
        regions = {"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)}
        segmenter = cases.tiny(tmp_path / "small", ("background", "NCR", "ED", "ET"), regions)
        monkeypatch.setattr(demo, "DEFAULT_MODEL", str(segmenter))
    loaded: list[str] = []
    read = checkpoint.read_checkpoint

    def counted(folder: Path) -> Model:
        loaded.append(folder.name)
        return read(folder)

    monkeypatch.setattr(loading, "read_checkpoint", counted)
    monkeypatch.setattr(demo, "train", quick_training)
    monkeypatch.setattr(demo, "SPACING_MM", 3.0)
    monkeypatch.setattr(demo, "GRADING_SEEDS", (400_001,))
    monkeypatch.setattr(demo, "STEPS", {"grading": few, "segmentation": few})
    reported: list[tuple[str, float, float]] = []
    out = tmp_path / "demo"
    made = demo.run(out, progress=lambda *stage: reported.append(stage))
    assert made.fresh
    assert trained == ["phantom-grading"]
    assert loaded == ["classifier", "small" if network == "small" else "deepseg-phantom"], (
        "each network is loaded once"
    )
    assert {stage.split(":")[0] for stage, _, _ in reported} >= {
        "Growing phantoms to explain", "Grading network", "Explaining the segmentation",
        "Information flow", "Dissecting", "Ablating filters",
    }  # fmt: skip
    assert all(0 <= done <= total for _, done, total in reported)
    page = _Links()
    page.feed(made.page.read_text(encoding="utf-8"))
    assert len(page.pictures) == 1 + 2 * 2 + 2
    for picture in page.pictures:
        assert (out / picture).is_file()
    text = " ".join(page.text)
    assert "not for clinical use" in text
    assert "Completeness gap" in text
    assert "In the tumor (%)" in text
    assert "Dice" in text
    asked = ("What did the networks say?", "Why here?", "Which modality?",
             "How far to trust it?", "Inside the network", "Explain your own scan")  # fmt: skip
    headings = [part for part in page.text if part in asked]
    assert headings == [*asked, *asked], "contents, then the sections in the same order"
    modality = text.index("Which modality carries each map")
    row = re.search(r"Vanilla gradient\s+(\d+) \(([+-]?\d+)\)", text[modality:])
    assert row is not None
    assert abs(int(row[2])) <= int(row[1]) <= 100
    for concept in ("WT", "TC", "ET", "GM", "WM", "CSF", "boundary"):
        assert concept in page.text
    again = demo.run(out)
    assert not again.fresh
    assert again.facts == made.facts
    assert trained == ["phantom-grading"]
