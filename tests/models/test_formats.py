"""Networks are located by their files, before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from command_line import here, refusal
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


@pytest.fixture
def nnunet(tmp_path: Path) -> Path:
    """Results of nnU-Net with two configurations; files are empty, their names tell."""
    for name in ("trainer__plans__2d", "trainer__plans__3d"):
        for fold in ("fold_0", "fold_1", "fold_all"):
            (tmp_path / "Dataset001" / name / fold).mkdir(parents=True)
            (tmp_path / "Dataset001" / name / fold / "checkpoint_final.pth").touch()
        for file in ("plans.json", "dataset.json"):
            (tmp_path / "Dataset001" / name / file).touch()
    return tmp_path / "Dataset001" / "trainer__plans__3d"


@pytest.mark.parametrize(
    "place",
    ["fold_0", "fold_all", "fold_1/checkpoint_final.pth", "..", "../.."],
)
def test_a_part_or_a_parent_of_an_nnunet_says_which_folder_to_name(
    nnunet: Path, place: str
) -> None:
    with pytest.raises(ModelError) as caught:
        locate_model((nnunet / place).resolve())
    assert str(nnunet) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "convert" not in str(caught.value)
    run = here("models", "check", (nnunet / place).resolve())
    refusal(run, "name", str(nnunet))


def test_files_that_describe_an_nnunet_stand_for_its_folder(nnunet: Path) -> None:
    assert locate_model(nnunet / "plans.json").path == nnunet
    assert locate_model(nnunet / "dataset.json").format is Format.NNUNET


def test_a_fold_without_its_plans_names_the_missing_files(nnunet: Path) -> None:
    (nnunet / "plans.json").unlink()
    for place in ("fold_0", "fold_0/checkpoint_final.pth"):
        with pytest.raises(ModelError, match=r"without plans\.json and dataset\.json"):
            locate_model(nnunet / place)


def test_parts_and_parents_of_other_networks(tmp_path: Path) -> None:
    bundle = tmp_path / "zoo" / "brats"
    for folder in ("configs", "models"):
        (bundle / folder).mkdir(parents=True)
    (bundle / "configs" / "metadata.json").touch()
    (bundle / "models" / "model.pt").touch()
    for place in ("zoo", "zoo/brats/models", "zoo/brats/models/model.pt", "zoo/brats/configs"):
        with pytest.raises(ModelError, match="name its folder") as caught:
            locate_model(tmp_path / place)
        assert str(bundle) in str(caught.value)
    checkpoint = tmp_path / "runs" / "first"
    checkpoint.mkdir(parents=True)
    for name in ("card.json", "model.safetensors"):
        (checkpoint / name).touch()
    with pytest.raises(ModelError, match=r"name its folder: .*first"):
        locate_model(tmp_path / "runs")
    pickled = tmp_path / "runs" / "first" / "other.pth"
    pickled.touch()
    with pytest.raises(ModelError, match="neuroxai convert torch"):
        locate_model(pickled)
