"""Pictures: orientation, unknown laterality, damaged files, and a recipe end to end."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from command_line import here, said
from neuroxai.core.errors import CaseError, TrainingError
from neuroxai.data.pictures import GRAY, find_pictures, read_picture
from neuroxai.data.placement import Placement
from neuroxai.data.preprocessing import Preprocessing
from neuroxai.models.checkpoint import ARCHITECTURES
from neuroxai.render import figures
from neuroxai.render.cutter import Cut, Cutter
from neuroxai.render.planes import AXIAL
from neuroxai.render.scan import Scan


def save(path: Path, pixels: NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def shown(case_path: Path, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the picture as displayed in figures, rows from the top."""
    case = read_picture(case_path, size)
    upright = Placement.fit(case.shape, case.affine)
    cut: NDArray[np.float32] = AXIAL.cut(upright.reorient(case.volumes[GRAY]), 0)
    return cut


PIXELS = np.arange(1, 21 * 30 + 1, dtype=np.int64).reshape(21, 30) % 251


def test_a_picture_is_displayed_as_stored(tmp_path: Path) -> None:
    path = save(tmp_path / "glioma" / "a.png", PIXELS.astype(np.uint8))
    np.testing.assert_array_equal(shown(path, (30, 21)), PIXELS)
    case = read_picture(path, (30, 21))
    assert (case.name, case.category, case.label) == ("glioma_a", "glioma", "glioma")
    assert not case.laterality_known
    assert "no information on laterality" in case.warnings[0]
    assert case.shape == (30, 21, 1)


@pytest.mark.parametrize(
    ("tag", "turned"),
    [
        (1, lambda rows: rows),
        (2, lambda rows: rows[:, ::-1]),
        (3, lambda rows: rows[::-1, ::-1]),
        (4, lambda rows: rows[::-1]),
        (6, lambda rows: np.rot90(rows, -1)),
        (8, lambda rows: np.rot90(rows)),
    ],
)
def test_a_picture_is_rotated_by_its_exif_orientation(
    tmp_path: Path, tag: int, turned: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> None:
    """Left and right would be swapped if the orientation tag of a camera were ignored."""
    rows = np.arange(24 * 24, dtype=np.uint8).reshape(24, 24)
    rows[:12] //= 3
    for name, turn in (("tagged", False), ("turned", True)):
        exif = Image.Exif()
        exif[0x0112] = 1 if turn else tag
        picture = Image.fromarray(np.ascontiguousarray(turned(rows) if turn else rows))
        picture.save(tmp_path / f"{name}.png", exif=exif)
    tagged, expected = (
        read_picture(tmp_path / f"{name}.png", (24, 24)).volumes[GRAY]
        for name in ("tagged", "turned")
    )
    np.testing.assert_array_equal(tagged, expected)
    assert expected.any()


def test_a_picture_is_fitted_with_its_aspect_ratio(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(40), 2 * np.arange(60)).astype(np.uint8)
    path = save(tmp_path / "x" / "a.png", smooth)
    fitted = shown(path, (30, 30))
    assert fitted.shape == (30, 30)
    assert not fitted[:5].any()
    assert not fitted[25:].any()
    expected = np.asarray(Image.fromarray(smooth).resize((30, 20), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(fitted[5:25], expected, atol=1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "I;16", "1"])
def test_pictures_of_all_modes_are_converted_to_gray(tmp_path: Path, mode: str) -> None:
    bright = np.zeros((12, 16), np.uint8)
    bright[3:6, 9:14] = 255
    picture = Image.fromarray(bright)
    if mode == "I;16":
        picture = Image.fromarray(bright.astype(np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    path = tmp_path / "x" / "a.png"
    path.parent.mkdir()
    picture.save(path)
    np.testing.assert_array_equal(shown(path, (16, 12)) > 100, bright > 100)


def test_a_network_sees_every_pixel(tmp_path: Path) -> None:
    path = save(tmp_path / "x" / "a.png", PIXELS.astype(np.uint8))
    recipe = Preprocessing(modalities=(GRAY,), intensity="minmax", plane="axial", size=(30, 21))
    prepared = recipe.prepare(read_picture(path, (30, 21)))
    assert prepared.x.shape == (1, 1, 30, 21)
    low, high = PIXELS.min(), PIXELS.max()
    np.testing.assert_allclose(
        np.sort(prepared.x.numpy().ravel()), np.sort((PIXELS.ravel() - low) / (high - low)),
        atol=1e-6,
    )  # fmt: skip
    back = prepared.placement.to_patient(prepared.x[0, 0].numpy())
    assert back.shape == (30, 21, 1)


def test_directions_are_not_labeled(tmp_path: Path) -> None:
    gray = np.random.default_rng(0).random((8, 6, 1))
    for laterality_known in (True, False):
        scan = Scan("c", {GRAY: gray}, slice_only=0, laterality_known=laterality_known)
        block = Cutter(scan, "t").block([Cut(GRAY, GRAY, AXIAL, 0)], [])
        assert block.rows[0].letters == (
            ("R", "L", "A", "P") if laterality_known else ("", "", "", "")
        )
        said = " ".join(figures.notes_of(scan, [], "t", ""))
        assert ("Left and right of the patient are unknown" in said) != laterality_known


def test_files_that_are_not_pictures_are_refused(tmp_path: Path) -> None:
    good = save(tmp_path / "x" / "good.png", PIXELS.astype(np.uint8))
    cut = tmp_path / "x" / "cut.png"
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    text = tmp_path / "x" / "text.jpg"
    text.write_text("no picture")
    hidden = save(tmp_path / "x" / "hidden.bmp", PIXELS.astype(np.uint8))
    hidden = hidden.rename(hidden.with_suffix(".png"))
    for path in (cut, text, hidden):
        with pytest.raises(CaseError, match=rf"{path.name}: cannot be read as PNG or JPEG"):
            read_picture(path, (8, 8))
    with pytest.raises(CaseError, match=r"gone\.png: no such file"):
        read_picture(tmp_path / "gone.png", (8, 8))


def test_a_decompression_bomb_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "x" / "bomb.png"
    path.parent.mkdir()
    Image.new("1", (9000, 9000)).save(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(CaseError, match="9000 × 9000 pixels"):
        read_picture(path, (8, 8))


def test_pictures_are_found_by_class(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.JPG", "a/0.jpeg", "a/notes.txt", ".hidden/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in find_pictures(tmp_path)]
    assert found == ["a/0.jpeg", "a/1.JPG", "b/2.png"]
    (tmp_path / "a" / "0.png").touch()
    with pytest.raises(CaseError, match="two pictures are named a/0"):
        find_pictures(tmp_path)
    with pytest.raises(CaseError, match="no pictures found"):
        find_pictures(tmp_path / "b")


def collection(folder: Path, count: int = 24) -> None:
    """Write noise pictures of two classes: a bright disk on the left or a bar at the bottom."""
    rng = np.random.default_rng(5)
    x, y = np.meshgrid(np.arange(48), np.arange(40))
    for number in range(count):
        for kind in ("disk", "bar"):
            pixels = rng.uniform(0, 60, (40, 48))
            where = (
                (x - 12) ** 2 + (y - rng.integers(12, 28)) ** 2 < 40
                if kind == "disk"
                else (y > 30) & (abs(x - rng.integers(16, 32)) < 14)
            )
            pixels[where] += 150
            save(folder / kind / f"{number:02}.png", pixels.astype(np.uint8))


class Small(nn.Sequential):
    """A classifier in place of the ResNet-50, quick to train; a large one shows nothing more."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__(
            nn.Conv2d(in_channels, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Dropout(dropout),
            nn.Linear(144, out_channels),
        )  # fmt: skip


def test_training_evaluation_and_explanation_of_pictures_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lightning")
    monkeypatch.setitem(ARCHITECTURES, "resnet50", Small)
    cache, folder, run = (tmp_path / name for name in ("cache", "pictures", "run"))
    collection(folder)
    sizes = (
        "classes=[bar,disk]", "arguments.out_channels=2", "preprocessing.size=[32,32]", "batch=8",
        "epochs=null", "max_steps=40", "validate_every=null", "patience=null", "average=0.8",
        "workers=1", "learning_rate=0.002", "augmentation.flip=[false,false]",
    )  # fmt: skip
    settings = [word for setting in sizes for word in ("--set", setting)]
    trained = here(
        "train", "--config", "tumor-types", "--data", folder, "-o", run, *settings, cache=cache
    )
    said(trained)
    split = list(csv.DictReader((run / "split.csv").read_text().splitlines()))
    assert {row["grade"] for row in split} == {"bar", "disk"}
    measured = here(
        "evaluate", folder, "--model", run / "checkpoint", "--split", run / "split.csv", "-o",
        tmp_path / "out", cache=cache,
    )  # fmt: skip
    printed = said(measured)
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert summary["cases"] == sum(row["part"] == "test" for row in split)
    assert summary["per"]["case"]["area_under_roc"]["disk"]["value"] >= 0.95, printed
    page = (tmp_path / "out" / "evaluation.md").read_text()
    assert "pictures without patient names" in page
    assert "98.62" not in page, "grades of gliomas are another task"
    picture = folder / "disk" / "03.png"
    explained = here(
        "explain", picture, "--model", run / "checkpoint", "--method", "vanilla_gradient",
        "--target", "disk", "-o", tmp_path / "maps", cache=cache,
    )  # fmt: skip
    said(explained)
    (written,) = (tmp_path / "maps").glob("*statmap.nii.gz")
    values = np.abs(np.asarray(nibabel.load(written).dataobj)).squeeze()
    assert values.shape[:2] == (32, 32)
    summary = json.loads((tmp_path / "maps" / "summary.json").read_text())
    assert any("laterality" in warning for warning in summary["warnings"])
    refused = said(here("explain", picture, "-o", tmp_path / "no", cache=cache), code=1)
    assert "is a picture, but deepseg-phantom expects a scan with T1, T1ce, T2, FLAIR" in refused
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_two_processes_train_from_the_command_line(tmp_path: Path) -> None:
    """The second process neither evaluates nor writes, and prints nothing."""
    pytest.importorskip("lightning")
    collection(tmp_path / "pictures", count=8)
    sizes = (
        "classes=[bar,disk]", "arguments.out_channels=2", "preprocessing.size=[32,32]", "batch=4",
        "epochs=null", "max_steps=2", "validate_every=1", "workers=1", "device=cpu", "devices=2",
        "data.pictures.validation_fraction=0.2",
    )  # fmt: skip
    settings = [word for setting in sizes for word in ("--set", setting)]
    # As the installed command, which Lightning starts anew for the second process as well; but a
    # ResNet-50 would be built, written and read six times over to show nothing of two processes.
    command = tmp_path / "command.py"
    command.write_text(
        "from torch import nn\n"
        "from neuroxai.cli import main\n"
        "from neuroxai.models.checkpoint import ARCHITECTURES\n"
        "class Small(nn.Sequential):\n"
        "    def __init__(self, in_channels, out_channels, dropout):\n"
        "        super().__init__(\n"
        "            nn.Conv2d(in_channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),\n"
        "            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout),\n"
        "            nn.Linear(4, out_channels))\n"
        "ARCHITECTURES['resnet50'] = Small\n"
        "main()\n"
    )
    settings += ["-o", str(tmp_path / "run"), "--data", str(tmp_path / "pictures")]
    trained = subprocess.run(
        [sys.executable, str(command), "train", "--config", "tumor-types", *settings],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")},
        timeout=300,
        check=False,
    )
    printed = said(trained)
    assert printed.count('"count": 3') == 3
    assert printed.count("resnet50-tumor-types:") == 1
    card = json.loads((tmp_path / "run" / "checkpoint" / "card.json").read_text())
    assert card["training"]["steps"] == 2
    looks = (tmp_path / "run" / "validation.csv").read_text().splitlines()
    assert len(looks) >= 2


def test_folders_that_do_not_match_the_classes_are_named(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    from neuroxai.training import train

    collection(tmp_path / "pictures", count=2)
    with pytest.raises(TrainingError, match=r"set classes=\[bar,disk\] and arguments\.out_ch"):
        train("tumor-types", tmp_path / "run", data=tmp_path / "pictures")
    assert not (tmp_path / "run").exists()


@pytest.mark.real
def test_the_public_pictures_are_read() -> None:
    folder = Path(__file__).parents[3] / "shared" / "data" / "tumour-types-2d"
    if not folder.is_dir():
        pytest.skip("no collection of pictures beside the project: it was not read")
    found = find_pictures(folder)
    assert len(found) == 1200
    for path in found[::100]:
        assert read_picture(path, (224, 224)).volumes[GRAY].max() > 100
