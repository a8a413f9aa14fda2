"""Programs as networks: answers equal those from inside, kept, and failures are named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import neuroxai as nx
from neuroxai.core.errors import NeuroXAIError
from neuroxai.methods.feature_ablation import FeatureAblation
from neuroxai.methods.kernel_shap import KernelSHAP
from neuroxai.methods.occlusion import Occlusion
from neuroxai.methods.rise import RISE
from neuroxai.models.command import CommandNetwork, cache_folder

PROGRAM = """
import sys, pathlib, numpy as np, nibabel as nib
case, out, calls = map(pathlib.Path, sys.argv[1:4])
with calls.open("a") as file:
    file.write("x")
t1, flair = (nib.load(case / f"{name}.nii.gz") for name in ("T1", "FLAIR"))
assert sorted(p.name for p in case.iterdir()) == ["FLAIR.nii.gz", "T1.nii.gz"]
total = np.asarray(t1.dataobj) + 2 * np.asarray(flair.dataobj)
labels = (total > 1.0).astype(np.uint8) + (total > 2.0).astype(np.uint8)
nib.save(nib.Nifti1Image(labels, t1.affine), out / "segmentation.nii.gz")
"""

FAULTS = {
    "import sys; sys.exit('no GPU was found')": "exit status 1: no GPU was found",
    "import time; time.sleep(60)": "did not finish within 1 s",
    "pass": "wrote neither segmentation.nii.gz nor probabilities.nii.gz",
    "import sys; open(sys.argv[2] + '/segmentation.nii.gz', 'w').write('no')": "cannot be read",
    "import sys, numpy as np, nibabel as nib; i = nib.load(sys.argv[1] + '/T1.nii.gz');"
    "nib.save(nib.Nifti1Image(np.full(i.shape, 7, np.uint8), i.affine),"
    " sys.argv[2] + '/segmentation.nii.gz')": "has the label 7, expected 0 to 2",
    "import sys, numpy as np, nibabel as nib; i = nib.load(sys.argv[1] + '/T1.nii.gz');"
    "nib.save(nib.Nifti1Image(np.zeros(i.shape, np.uint8), np.diag([2, 2, 2, 1])),"
    " sys.argv[2] + '/segmentation.nii.gz')": "another affine",
}  # fmt: skip


class Inside(nn.Module):
    """The same as the program, as a network of labels."""

    def forward(self, x: Tensor) -> Tensor:
        total = x[:, 0] + 2 * x[:, 1]
        labels = (total > 1).long() + (total > 2).long()
        return torch.stack([labels == k for k in range(3)], dim=1).float()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandNetwork:
    monkeypatch.setenv("NEUROXAI_COMMAND_CACHE", str(tmp_path / "kept"))
    (tmp_path / "segment.py").write_text(PROGRAM)
    command = f"{sys.executable} {tmp_path / 'segment.py'} {{case}} {{out}} {tmp_path / 'calls'}"
    return CommandNetwork(command, ("T1", "FLAIR"), 3)


def image(batch: int = 1) -> Tensor:
    return torch.rand(batch, 2, 4, 6, 5, generator=torch.Generator().manual_seed(0))


def calls(folder: Path) -> int:
    return len((folder / "calls").read_text())


@pytest.mark.parametrize(
    "method",
    [
        Occlusion(box="2x3x5", remover="zero"),
        RISE(samples=4, remover="zero"),
        KernelSHAP(features="modalities", remover="zero"),
        FeatureAblation(features=torch.arange(120).reshape(4, 6, 5) % 3 + 1, remover="zero"),
    ],
    ids=lambda method: method.name,
)
def test_a_program_is_explained_as_from_inside(program: CommandNetwork, method: Any) -> None:
    x = image()
    got = nx.explain(program, x, method, 1)
    expected = nx.explain(Inside(), x, method, 1)
    values = expected[method.name].values
    assert bool(values.any())
    assert torch.equal(got[method.name].values, values)
    assert got[method.name].target["scale"] == "probability"


def test_modality_shapley_and_answers_that_are_kept(
    program: CommandNetwork, tmp_path: Path
) -> None:
    x = image()
    got = nx.modality_shapley(program, x, [1, 2], remover="zero")
    expected = nx.modality_shapley(Inside(), x, [1, 2], remover="zero")
    for name in ("1", "2"):
        assert torch.equal(got[name].coalitions, expected[name].coalitions)
    first = calls(tmp_path)
    assert first <= 2**2 + 1  # and the companion of the input
    nx.modality_shapley(program, x, [1, 2], remover="zero")
    assert calls(tmp_path) == first
    again = CommandNetwork(program.command, program.modalities, 3)
    again.affine = np.diag([2.0, 2.0, 2.0, 1.0])  # another grid is another question
    again(x)
    assert calls(tmp_path) == first + 1


def test_an_interrupted_run_continues(program: CommandNetwork, tmp_path: Path) -> None:
    x = image()
    left = iter([False] * 4 + [True] * 99)
    session = nx.open(program, x, cancel=lambda: next(left))
    method = Occlusion(box="2x3x5", remover="zero")
    with pytest.raises(nx.CancelledError):
        session.explain(method, 1)
    before = calls(tmp_path)
    nx.explain(program, x, method, 1)
    whole = calls(tmp_path)
    nx.explain(program, x, method, 1)
    assert calls(tmp_path) == whole
    kept = list(cache_folder().glob("*.npz"))
    assert len(kept) == whole
    assert before >= 1
    kept[0].write_bytes(b"damaged")
    nx.explain(program, x, method, 1)
    assert calls(tmp_path) == whole + 1


@pytest.mark.parametrize(("source", "says"), FAULTS.items(), ids=range(len(FAULTS)))
def test_failures_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, says: str
) -> None:
    monkeypatch.setenv("NEUROXAI_COMMAND_CACHE", str(tmp_path / "kept"))
    (tmp_path / "fault.py").write_text(source)
    command = f"{sys.executable} {tmp_path / 'fault.py'} {{case}} {{out}}"
    with pytest.raises(NeuroXAIError, match=f"fault.py.*{says}"):
        CommandNetwork(command, ("T1", "FLAIR"), 3, 1.0 if "sleep" in source else 60.0)(image())
    assert not list(cache_folder().glob("*"))


def test_gradients_are_refused(program: CommandNetwork) -> None:
    with pytest.raises(NeuroXAIError, match=r"does not depend on the input|gradient"):
        nx.explain(program, image(), "vanilla_gradient", 1)


def test_a_function_of_arrays_is_explained_as_well() -> None:
    """Any Python callable, here of NumPy arrays, is a network without gradients."""

    def function(x: Tensor) -> Tensor:
        values = x.numpy()
        total = values[:, 0] + 2 * values[:, 1]
        labels = (total > 1).astype(int) + (total > 2).astype(int)
        return torch.from_numpy(np.stack([labels == k for k in range(3)], axis=1)).float()

    method = Occlusion(box=2, remover="zero")
    got = nx.explain(function, image(), method, 1)["occlusion"].values
    assert torch.equal(got, nx.explain(Inside(), image(), method, 1)["occlusion"].values)


@pytest.mark.parametrize(
    ("name", "card", "trust", "says"),
    [
        ("command:run {case} {out}", None, True, "its card is missing"),
        ("command:run {case} {out}", {}, False, "allow it with --trust"),
        ("command:run {case}", {}, True, "{out} for the folder it writes"),
        ("command:run {case} {out}", {"arguments": {"seconds": 0}}, True, "above 0"),
        ("command:run {case} {out}", {"task": "classification", "classes": ["a", "b"]}, True,
         "expected segmentation"),
    ],
)  # fmt: skip
def test_a_program_needs_a_card_and_trust(
    tmp_path: Path, name: str, card: dict[str, Any] | None, trust: bool, says: str
) -> None:
    path = None if card is None else tmp_path / "card.json"
    if path is not None:
        path.write_text(json.dumps({**CARD, **(card or {})}))
    with pytest.raises(NeuroXAIError, match=says.replace("{", r"\{")):
        nx.load_model(name, card=path, trust=trust)


CARD = {
    "task": "segmentation",
    "modalities": ["T1", "FLAIR"],
    "classes": ["background", "edema", "ET"],
    "activation": "softmax",
    "preprocessing": {"intensity": "none", "divisor": 1, "size": None, "crop_to_brain": False},
}

SHIPPED = """
import sys, pathlib, numpy as np, nibabel as nib, torch, neuroxai as nx
case, out = map(pathlib.Path, sys.argv[1:])
model = nx.load_model("deepseg-phantom")
images = [nib.load(case / f"{name}.nii.gz") for name in model.card.modalities]
x = torch.from_numpy(np.stack([np.asarray(i.dataobj, np.float32) for i in images]))[None]
with torch.no_grad():
    found = model.network(x)[0].softmax(dim=0).movedim(0, -1).numpy()
nib.save(nib.Nifti1Image(found, images[0].affine), out / "probabilities.nii.gz")
"""


@pytest.mark.slow
def test_the_shipped_network_behind_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROXAI_COMMAND_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("PYTHONPATH", str(Path(nx.__file__).parents[1]))
    model, case = nx.load_model("deepseg-phantom"), nx.make_phantom(7, spacing=3.0).case
    (tmp_path / "segment.py").write_text(SHIPPED)
    card = json.loads(model.card.to_json())
    kept = ("task", "modalities", "classes", "activation", "regions", "preprocessing")
    (tmp_path / "card.json").write_text(json.dumps({name: card[name] for name in kept}))
    outside = nx.load_model(
        f"command:{sys.executable} {tmp_path / 'segment.py'} {{case}} {{out}}",
        card=tmp_path / "card.json", trust=True,
    )  # fmt: skip
    method = FeatureAblation(features="modalities", remover="healthy")
    got = nx.explain(outside, case, method, "WT")  # of several classes
    expected = nx.explain(model, case, method, "WT", scale="probability")
    assert got["feature_ablation"].explanation.target["scale"] == "probability"
    ours, theirs = (each["feature_ablation"].explanation for each in (got, expected))
    assert ours.score[0] == pytest.approx(theirs.score[0], abs=1e-5)
    for a, b in zip(
        ours.diagnostics["feature_values"][0], theirs.diagnostics["feature_values"][0], strict=True
    ):
        assert a == pytest.approx(b, abs=1e-4)
    assert got.prediction is not None
    assert expected.prediction is not None
    # Probabilities are resampled to the scan instead of logits.
    for name, volume in expected.prediction.volumes_ml().items():
        assert got.prediction.volumes_ml()[name] == pytest.approx(volume, rel=0.02)
