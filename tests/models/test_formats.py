"""Networks are located by their files, before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from neuroxai.core.errors import ModelError
from neuroxai.models.formats import Format, locate_model, shipped_models


def test_the_format_follows_from_the_files(tmp_path: Path) -> None:
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    (tmp_path / "bundle" / "configs" / "metadata.json").touch()
    (tmp_path / "nnunet").mkdir()
    for name in ("plans.json", "dataset.json"):
        (tmp_path / "nnunet" / name).touch()
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "card.json").touch()
    for folder, form in (
        ("bundle", Format.BUNDLE), ("nnunet", Format.NNUNET), ("checkpoint", Format.CHECKPOINT),
    ):  # fmt: skip
        found = locate_model(tmp_path / folder)
        assert (found.format, found.path) == (form, tmp_path / folder)
    assert locate_model(tmp_path / "checkpoint" / "card.json").path == tmp_path / "checkpoint"
    assert locate_model("a/b.pt2").format is Format.EXPORTED
    assert locate_model("pkg.mod:Net", weights="w.safetensors").path == Path("w.safetensors")
    for name in shipped_models():
        assert locate_model(name).format is Format.CHECKPOINT


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("deepsegphantom", None, "did you mean 'deepseg-phantom'"),
        ("model.pth", None, "neuroxai convert torch model.pth --trust"),
        ("model.h5", None, "neuroxai convert keras model.h5"),
        ("model.ts", None, r"a TorchScript archive.*torch\.export\.save.*'model\.pt2'"),
        ("pkg.mod:Net", None, "add --weights"),
        ("deepseg-phantom", "w.safetensors", "has its own weights and card"),
    ],
)
def test_what_is_not_a_network_is_refused(name: str, weights: str | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        locate_model(name, weights=weights)


def test_networks_are_located_without_torch() -> None:
    code = (
        "import sys; from neuroxai.models.formats import locate_model; "
        "locate_model('deepseg-phantom'); print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
