"""Options: names with special characters, duplicate targets, contradicting options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import cases
from cases import STUDY, tiny
from command_line import Run, here, refusal, said
from neuroxai.core.errors import MethodError, TargetError
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Class, Predicted, Region
from neuroxai.files.names import bids_stem
from neuroxai.methods import make_method, make_methods

ODD = "a/b [x] <i>"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study, and small networks with plain and with unusual class names."""
    folder = tmp_path_factory.mktemp("words")
    cases.write_study(folder)
    regions = {"WT": ("NCR", "ED", "ET"), "core": ("ET",)}
    tiny(folder / "tiny", ("background", "NCR", "ED", "ET"), regions)
    tiny(folder / "odd", ("background", "<3cm", ">3cm", ODD), {})
    return folder


def explained(room: Path, out: Path, *more: object, model: str = "tiny") -> Run:
    quick = () if "--method" in more else ("--method", "vanilla_gradient")
    return here("explain", room / STUDY, "--model", room / model, *quick, *more, "-o", out)


def test_two_classes_with_one_file_name_are_refused_at_the_start(
    room: Path, tmp_path: Path
) -> None:
    both = ("--target", "<3cm", "--target", ">3cm")
    for command in ("explain", "inspect"):
        run = here(command, room / STUDY, "--model", room / "odd", *both, "-o", tmp_path / "out")
        refusal(run, "'<3cm'", "'>3cm'", "3cm", "--out")
    # All classes are requested by default.
    refusal(here("inspect", room / STUDY, "--model", room / "odd", "-o", tmp_path / "out"), "3cm")
    assert not (tmp_path / "out").exists()


def test_a_target_requested_by_two_names_is_explained_once(room: Path, tmp_path: Path) -> None:
    words = [part for word in ("ET", "3", "et", "core") for part in ("--target", word)]
    assert "Warning: target core is the same as ET" in said(
        explained(room, tmp_path / "out", *words)
    )
    maps = sorted(path.name for path in (tmp_path / "out").glob("*_statmap.nii.gz"))
    assert maps == [f"{bids_stem(STUDY, 'statmap', label='ET', desc='vanillaGradient')}.nii.gz"]
    assert list(json.loads((tmp_path / "out" / "summary.json").read_text())["targets"]) == ["ET"]


def test_targets_are_duplicates_if_they_cover_the_same_channels() -> None:
    from neuroxai.cli.case import distinct_targets

    outputs = Outputs(("background", "ED", "ET"), {"WT": ("ED", "ET"), "core": ("ET",)})
    asked = [Class("ET"), Region("WT"), Class(2), Region("core"), Class(1), Predicted()]
    kept, notes = distinct_targets(asked, outputs)
    assert kept == [Class("ET"), Region("WT"), Class(1), Predicted()]
    assert [note.split(",")[0] for note in notes] == [
        "target 2 is the same as ET",
        "target core is the same as ET",
    ]
    with pytest.raises(TargetError, match=r"'a b' and 'a/b'.*aB"):
        distinct_targets([Class("a b"), Class("a/b")], Outputs(("a b", "a/b")))


@pytest.mark.slow
def test_the_predicted_class_requested_by_name_too_is_explained_once(tmp_path: Path) -> None:
    cases.write_study(tmp_path)
    model = cases.classifier(tmp_path)
    found = here("predict", tmp_path / STUDY, "--model", model, "-o", tmp_path / "p")
    name = json.loads((tmp_path / "p" / "prediction.json").read_text())["label"]
    assert found.returncode == 0
    run = here(
        "explain", tmp_path / STUDY, "--model", model, "--method", "vanilla_gradient",
        "--target", "predicted", "--target", name, "-o", tmp_path / "out",
    )  # fmt: skip
    said(run)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert list(summary["targets"]) == [name]
    assert len(list((tmp_path / "out").glob("*_statmap.nii.gz"))) == 1


def test_names_are_printed_verbatim(room: Path, tmp_path: Path) -> None:
    folder = tmp_path / "o5[old]:smile:o6[" / "b]"
    shown = said(explained(room, folder, "--target", ODD, model="odd"))
    assert f"files in {folder}" in shown
    assert ODD in shown


def test_inspect_and_check_print_names_verbatim(room: Path, tmp_path: Path) -> None:
    out = tmp_path / "[red]"
    run = here(
        "inspect", room / STUDY, "--model", room / "odd", "--target", ODD, "-o", out,
    )  # fmt: skip
    shown = said(run)
    assert f"{ODD}: share of the evidence for it" in shown
    assert f"files in {out}" in shown
    assert ODD in said(here("models", "check", room / "odd"))
    assert "tiny [bold]" in said(here("models", "check", room / "odd"))
    assert f"Written: {out}" in said(
        here("predict", room / STUDY, "--model", room / "odd", "-o", out)
    )
    named = said(here("methods"))
    assert named.splitlines()[0].startswith("vanilla_gradient  ")


def test_the_progress_bar_shows_names_verbatim() -> None:
    from rich.console import Console

    from neuroxai.cli.progress import bars

    with bars() as shown:
        shown.add_task(f"{ODD} [/b]", total=1)
        console = Console(width=200)
        with console.capture() as caught:
            console.print(shown.get_renderable())
    assert f"{ODD} [/b]" in caught.get()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "vanilla_gradient", "--layer", "nonsense"], ["nonsense", "vanilla_gradient"]),
        (["--layer", "A", "--set", "grad_cam.layer=B", "--method", "grad_cam"], ["'A'", "'B'"]),
        (
            ["--method", "integrated_gradients", "--set", "integrated_gradients.steps=3",
             "--set", "integrated_gradients.steps=4"],
            ["steps", "before", "3"],
        ),
    ],
)  # fmt: skip
def test_contradicting_options_are_refused(
    tmp_path: Path, options: list[str], words: list[str]
) -> None:
    run = here("explain", "case", "--model", "nowhere", *options, "-o", tmp_path / "out")
    refusal(run, *words)
    assert "nowhere" not in run.stderr


def test_a_layer_that_no_method_uses_is_refused() -> None:
    for methods in ("vanilla_gradient", ["vanilla_gradient", "smoothgrad"]):
        with pytest.raises(MethodError, match="layer 'enter'"):
            make_methods(methods, layer="enter")
    # A method made before keeps its own layer.
    with pytest.raises(MethodError, match=r"grad_cam.*'enter'.*'leave'"):
        make_methods(make_method("grad_cam", {"layer": "leave"}), layer="enter")
    with pytest.raises(MethodError, match=r"grad_cam.*'enter'"):
        make_methods(["guided_grad_cam", make_method("grad_cam")], layer="enter")
    same = make_method("grad_cam", {"layer": "enter"})
    assert make_methods([same, "vanilla_gradient"], layer="enter")[0] is same


@pytest.mark.parametrize(
    ("command", "options", "word"),
    [
        *[
            (command, ["--device", "gpu"], "'gpu'")
            for command in ("explain", "inspect", "predict", "shapley", "evaluate", "dissect")
        ],
        ("explain", ["--within", "nonsense"], "nonsense"),
        ("explain", ["--within", "lesion:x"], "lesion:1"),
        ("explain", ["--memory", "lots"], "'lots'"),
        ("predict", ["--memory", "lots"], "'lots'"),
        ("explain", ["--precision", "fp8"], "'fp8'"),
        ("shapley", ["--remover", "healty"], "did you mean 'healthy'"),
        ("shapley", ["--value", "dize"], "did you mean 'dice'"),
        ("inspect", ["--layout", "brats1999"], "brats1999"),
        ("predict", ["--file", "T1"], "NAME=PATH"),
        ("evaluate", ["--split", "none.csv", "--part", "tset"], "tset"),
        ("dissect", ["--mask", "lesion"], "NAME=PATH"),
    ],
)
def test_invalid_options_are_refused_before_a_network_is_loaded(
    tmp_path: Path, command: str, options: list[str], word: str
) -> None:
    """The network does not exist, but the message is about the option."""
    run = here(command, "case", "--model", "nowhere", *options, cwd=tmp_path)
    refusal(run, word)
    assert "nowhere" not in run.stderr


def test_a_missing_case_is_refused_before_a_network_is_loaded(tmp_path: Path) -> None:
    refusal(here("predict", "--model", "nowhere", cwd=tmp_path), "no case given")


def test_a_missing_modality_names_the_option_for_its_file(room: Path, tmp_path: Path) -> None:
    study = cases.write_study(tmp_path)
    moved = (study / f"{STUDY}_t1ce.nii.gz").rename(tmp_path / "contrast.nii.gz")
    ask = ("predict", study, "--model", room / "tiny", "-o", tmp_path / "out")
    refusal(here(*ask), "T1ce not found", "--file MODALITY=PATH")
    said(here(*ask, "--file", f"T1ce={moved}"))


def test_a_layer_grid_is_recorded(room: Path, tmp_path: Path) -> None:
    words = ("--method", "grad_cam", "--layer", "encoder.1.conv2", "--target", "ET")
    refusal(explained(room, tmp_path / "no", *words, "--layer-grid", "3x5x7"), "3x5x7")
    said(explained(room, tmp_path / "plain", *words))
    shape = sidecar(tmp_path / "plain")["diagnostics"]["layer_shape"][1:]
    said(explained(room, tmp_path / "out", *words, "--layer-grid", "x".join(map(str, shape))))
    label = "encoder.1.conv2@" + "x".join(map(str, shape))
    assert sidecar(tmp_path / "out")["layer"] == label
    assert sidecar(tmp_path / "out")["parameters"]["layer"] == label


def sidecar(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*gradCam_statmap.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_one_baseline_for_all_path_methods(room: Path, tmp_path: Path) -> None:
    """By name or number; the table, the summary and the sidecar state what remains there."""
    words = ("--method", "integrated_gradients", "--set", "integrated_gradients.steps=2")
    for baseline in ("mirror", "mirror:1", "-0.5"):
        out = tmp_path / baseline
        printed = said(explained(room, out, *words, f"--baseline={baseline}", "--target", "ET"))
        assert f"at the baseline {baseline}" in printed
        entry = json.loads((out / "summary.json").read_text())["targets"]["ET"]["methods"]
        (sidecar,) = out.glob("*integratedGradients_statmap.json")
        found = json.loads(sidecar.read_text())
        assert found["parameters"]["baseline"] == (-0.5 if baseline == "-0.5" else baseline)
        assert found["diagnostics"]["baselines"] == [baseline]
        (share,) = found["diagnostics"]["remaining_prediction"]
        assert entry["integrated_gradients"]["remaining_prediction"] == share
        assert any(f"baseline {baseline}" in note for note in found["notes"])
    both = ("--set", "integrated_gradients.baseline=zero", "--baseline", "blur")
    refusal(explained(room, tmp_path / "no", *words, *both), "contradict")
