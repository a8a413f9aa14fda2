"""Exported programs: maps equal those of the original network, and pickles are not read."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

from networks import image, make, quick, relative
from neuroxai.core.errors import ModelError
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class
from neuroxai.data.case import Case as NamedCase
from neuroxai.data.layouts import LAYOUTS
from neuroxai.methods import METHODS, make_method
from neuroxai.models import load_model
from neuroxai.models.model import Model
from neuroxai.workflows.explain import explain
from neuroxai.workflows.predict import predict

CARD: dict[str, Any] = {
    "task": "segmentation",
    "modalities": ["T1", "T1ce", "T2", "FLAIR"],
    "classes": ["background", "NCR", "ED", "ET", "RC"],
    "activation": "softmax",
    "preprocessing": {"modalities": ["T1", "T1ce", "T2", "FLAIR"], "divisor": 2, "size": None},
}

Pair = tuple[int, nn.Module, Model]
"""Dimensions, a network, and its exported program as loaded."""

pytestmark = pytest.mark.filterwarnings("ignore")


def export(folder: Path, network: nn.Module, dims: int = 3) -> Path:
    sides: dict[int, Any] = {0: Dim("b")}
    sides |= {axis: 2 * Dim(f"n{axis}", min=1, max=100) for axis in range(2, dims + 2)}
    example = torch.rand(2, 4, *(8, 12, 6)[:dims])
    with torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=(sides,))
    folder.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, folder / "net.pt2")
    (folder / "card.json").write_text(json.dumps(CARD))
    return folder / "net.pt2"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("exported"), make("segmenter", 3).eval())


@pytest.fixture(scope="module", params=[2, 3])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    network = make("segmenter", request.param).eval()
    path = export(tmp_path_factory.mktemp("pair"), network, request.param)
    return request.param, network, load_model(path, trust=True)


@pytest.mark.parametrize("method", sorted({*METHODS} - {"cam"}))
def test_maps_equal_those_of_the_network(pair: Pair, method: str) -> None:
    dims, network, loaded = pair
    x = image(dims)
    named = {"layer": "join"} if "cam" in method else None
    made = make_method(method, named) if named else quick(method)
    found = made.explain(WholeVolume(loaded.network, Class(2)), x, seed=1)
    expected = made.explain(WholeVolume(network, Class(2)), x, seed=1)
    assert relative(found.values, expected.values) <= 1e-6
    assert found.layer == expected.layer
    assert loaded.kind == "an exported program"


def test_layer_methods_need_a_name(program: Path) -> None:
    loaded = load_model(program, trust=True)
    maps = explain(loaded.network, image(3), target=1)
    assert set(maps.refused) == {"grad_cam", "guided_grad_cam", "hirescam", "layercam"}
    assert "name a layer with layer=" in maps.refused["grad_cam"]


@pytest.mark.parametrize(
    "act",
    [
        nn.LeakyReLU,
        nn.PReLU,
        nn.GELU,
        nn.SiLU,
        nn.ReLU6,
        nn.ELU,
        nn.SELU,
        lambda: nn.ReLU(inplace=True),
    ],
)
def test_the_guided_rule_finds_rectifiers_in_a_graph(tmp_path: Path, act: Any) -> None:
    network, x = make("segmenter", 2, act=act).eval(), image(2)
    loaded = load_model(export(tmp_path, network, 2), trust=True)
    method = make_method("guided_backprop")
    found = method.explain(WholeVolume(loaded.network, Class(2)), x)
    expected = method.explain(WholeVolume(network, Class(2)), x)
    assert relative(found.values, expected.values) <= 1e-6


def test_programs_in_training_mode_are_rejected(tmp_path: Path) -> None:
    network = make("segmenter", 2).train()
    with pytest.raises(ModelError, match=r"export network\.eval\(\) instead"):
        load_model(export(tmp_path, network, 2), trust=True)


def test_programs_need_trust_and_a_card(program: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="load it with --trust"):
        load_model(program)
    alone = tmp_path / "net.pt2"
    alone.write_bytes(program.read_bytes())
    with pytest.raises(ModelError, match=r"card\.json: no such file"):
        load_model(alone, trust=True)
    assert load_model(alone, card=program.with_name("card.json"), trust=True).card.classes


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def spoiled(program: Path, out: Path, changed: dict[str, bytes], root: str = "net") -> Path:
    with zipfile.ZipFile(program) as archive, zipfile.ZipFile(out, "w") as made:
        for entry in archive.infolist():
            held = changed.pop(entry.filename.partition("/")[2], None)
            made.writestr(entry.filename, archive.read(entry) if held is None else held)
        for name, held in changed.items():
            made.writestr(f"{root}/{name}" if not name.startswith(("/", "..")) else name, held)
    (out.parent / "card.json").write_text(json.dumps(CARD))
    return out


def test_pickled_example_inputs_are_not_read(program: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    bad = spoiled(
        program, tmp_path / "net.pt2",
        {"data/sample_inputs/model.pt": pickle.dumps(Evil(mark))},
    )  # fmt: skip
    x = image(3)
    found, expected = (load_model(each, trust=True).network(x) for each in (bad, program))
    assert torch.equal(found, expected)
    assert not mark.exists()


def test_pickled_weights_are_rejected(program: Path, tmp_path: Path) -> None:
    mark, name = tmp_path / "ran", "data/weights/model_weights_config.json"
    with zipfile.ZipFile(program) as archive:
        (inside,) = (n for n in archive.namelist() if n.endswith(name))
        config = json.loads(archive.read(inside))
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    changed = {
        name: json.dumps(config).encode(),
        f"data/weights/{first['path_name']}": pickle.dumps(Evil(mark)),
    }
    with pytest.raises(ModelError, match="is pickled"):
        load_model(spoiled(program, tmp_path / "net.pt2", changed), trust=True)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../../evil.txt", "outside of the archive"),
        ("/etc/evil.txt", "outside of the archive"),
        ("data/aotinductor/model/model.so", "compiled or pickled code"),
        ("code/run.py", "compiled or pickled code"),
    ],
)
def test_archives_with_other_files_are_rejected(
    program: Path, tmp_path: Path, name: str, words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        load_model(spoiled(program, tmp_path / "net.pt2", {name: b"x"}), trust=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["card.json", "net.pt2"]


def test_damaged_archives(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    (tmp_path / "card.json").write_text(json.dumps(CARD))
    for payload in (b"", b"no zip", program.read_bytes()[:4000]):
        path.write_bytes(payload)
        with pytest.raises(ModelError, match=r"net\.pt2: not an archive of torch\.export"):
            load_model(path, trust=True)
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("net/models/model.json", "{}")
    with pytest.raises(ModelError, match="cannot be read as an exported program"):
        load_model(path, trust=True)


def test_archives_with_a_large_content_are_rejected(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "net.pt2"
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("net/data/weights/weight_0", bytes(3_000_000))
    (tmp_path / "card.json").write_text(json.dumps(CARD))
    monkeypatch.setattr("neuroxai.models.exported.LARGEST", 1_000_000)
    with pytest.raises(ModelError, match="unpacks to more"):
        load_model(out, trust=True)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    network = make("segmenter", 2).eval()
    with torch.no_grad():
        network.get_parameter("join.weight")[0, 0] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        load_model(export(tmp_path, network, 2), trust=True)


def test_unsupported_sizes_are_reported_as_the_networks_error(
    program: Path, tmp_path: Path
) -> None:
    volume = np.random.default_rng(0).random((10, 8, 404)).astype(np.float32)
    scans = dict.fromkeys(CARD["modalities"], volume)
    case = NamedCase("long", scans, np.eye(4), LAYOUTS["plain"])
    loaded = load_model(program, trust=True)
    words = r"net\.pt2: the network fails on an input of \(1, 4, 10, 8, 404\) \(.*404"
    with pytest.raises(ModelError, match=words):
        explain(loaded, case, "vanilla_gradient", "ET")
    with pytest.raises(ModelError, match=words):
        predict(loaded, case)


def test_archives_with_broken_compression(tmp_path: Path) -> None:
    path, name = tmp_path / "net.pt2", "net/models/model.json"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(name, bytes(range(256)) * 40)
    payload = bytearray(path.read_bytes())
    begin = payload.index(name.encode()) + len(name)
    payload[begin : begin + 40] = b"\xff" * 40
    path.write_bytes(payload)
    (tmp_path / "card.json").write_text(json.dumps(CARD))
    with pytest.raises(ModelError, match="not an archive of torch"):
        load_model(path, trust=True)
