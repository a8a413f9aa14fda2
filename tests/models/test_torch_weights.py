"""Pickled weights: converted only with trust, and no code is executed."""

from __future__ import annotations

import io
import os
import pickle
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from command_line import here
from neuroxai.core.errors import ModelError
from neuroxai.models import torch_weights_child
from neuroxai.models.torch_weights import convert_torch, left_aside

STATE = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2)).state_dict()


class Harm:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert without a process of its own, which takes two seconds to start, and its limits."""
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        try:
            torch_weights_child.main(*command[3:])
        except SystemExit as end:
            return subprocess.CompletedProcess(command, 1, "", str(end.code))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("subprocess.run", run)


@pytest.mark.parametrize("wrapped", ["plain", "nested", "parallel"])
def test_tensors_are_converted(
    tmp_path: Path, wrapped: str, request: pytest.FixtureRequest
) -> None:
    if wrapped != "plain":
        request.getfixturevalue("in_this_process")
    content: dict[str, object] = dict(STATE)
    if wrapped == "nested":
        content = {"epoch": 3, "model": {"state_dict": dict(STATE)}}
    elif wrapped == "parallel":
        content = {f"module.{name}": value for name, value in STATE.items()}
    torch.save(content, tmp_path / "a.pt")
    out = convert_torch(tmp_path / "a.pt", tmp_path / "a.safetensors", trust=True)
    found = load_file(out)
    assert set(found) == set(STATE)
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt", "a.safetensors"]


def test_conversion_needs_trust(tmp_path: Path) -> None:
    torch.save(dict(STATE), tmp_path / "a.pt")
    with pytest.raises(ModelError, match=r"can contain code.*--trust"):
        convert_torch(tmp_path / "a.pt", tmp_path / "a.safetensors")


def test_code_is_not_executed_even_with_trust(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    with (tmp_path / "a.pt").open("wb") as stream:
        pickle.dump({"w": Harm(mark)}, stream)
    with pytest.raises(ModelError, match="cannot be converted"):
        convert_torch(tmp_path / "a.pt", tmp_path / "a.safetensors", trust=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt"]


@pytest.mark.usefixtures("in_this_process")
def test_pickled_networks_are_rejected_with_a_remedy(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Conv2d(1, 2, 3)), tmp_path / "a.pt")
    with pytest.raises(
        ModelError, match=r"objects of the class torch\.nn.*Sequential, not only tensors"
    ) as no:
        convert_torch(tmp_path / "a.pt", tmp_path / "a.safetensors", trust=True)
    assert "torch.save(network.state_dict(), 'weights.pt')" in str(no.value)


@pytest.mark.usefixtures("in_this_process")
def test_several_state_dicts_need_an_entry(tmp_path: Path) -> None:
    torch.save({"net": dict(STATE), "other": dict(STATE)}, tmp_path / "a.pt")
    known = re.escape("2 state dicts; choose one with --entry: net (0.*, 1.*), other (0.*, 1.*)")
    with pytest.raises(ModelError, match=known):
        convert_torch(tmp_path / "a.pt", tmp_path / "a.safetensors", trust=True)
    with pytest.raises(ModelError, match=r"no state dict at 'nte'"):
        convert_torch(tmp_path / "a.pt", tmp_path / "a.safetensors", trust=True, entry="nte")
    out = convert_torch(tmp_path / "a.pt", tmp_path / "a.safetensors", trust=True, entry="other")
    assert left_aside(out) == "net"


@pytest.mark.usefixtures("in_this_process")
def test_averages_and_optimizers_are_left_aside(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(2, 1, 4, 4, 4)).sum().backward()
    optimizer.step()
    averaged = torch.optim.swa_utils.AveragedModel(network)
    content = {
        "epoch": torch.tensor(3),
        "model": network.state_dict(),
        "ema_state_dict": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
    }
    torch.save(content, tmp_path / "a.pt")
    out = convert_torch(tmp_path / "a.pt", tmp_path / "a.safetensors", trust=True)
    found = load_file(out)
    assert found.keys() == network.state_dict().keys()
    assert torch.equal(found["0.weight"], network.state_dict()["0.weight"])
    assert left_aside(out) == "ema_state_dict, optimizer"
    out = convert_torch(
        tmp_path / "a.pt", tmp_path / "b.safetensors", trust=True, entry="ema_state_dict.module"
    )
    assert load_file(out).keys() == network.state_dict().keys()
    assert left_aside(out) == "model, optimizer, n_averaged.*"


@pytest.mark.usefixtures("in_this_process")
def test_an_entry_can_end_in_a_prefix_of_the_names(tmp_path: Path) -> None:
    names = {f"{part}.{k}": v for part in ("student", "teacher") for k, v in STATE.items()}
    torch.save({"state_dict": names, "epoch": 1}, tmp_path / "a.pt")
    for entry in ("state_dict.student", "student"):
        out = convert_torch(tmp_path / "a.pt", tmp_path / "a.safetensors", trust=True, entry=entry)
        assert load_file(out).keys() == STATE.keys()
        assert left_aside(out) == "teacher.*"
    with pytest.raises(ModelError, match=r"available: state_dict \(student\.\*, teacher\.\*\)"):
        convert_torch(tmp_path / "a.pt", tmp_path / "a.safetensors", trust=True, entry="net")


def test_torchscript_is_refused_with_the_way(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for name in ("a/data.pkl", "a/code/__torch__/net.py", "a/constants.pkl", "a/version"):
            archive.writestr(name, "")
    with pytest.raises(ModelError, match=r"a TorchScript archive.*torch\.export\.export.*'a\.pt2'"):
        convert_torch(tmp_path / "a.pt", tmp_path / "a.safetensors", trust=True)


@pytest.mark.usefixtures("in_this_process")
def test_files_that_are_not_weights(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"no pickle")
    for source, words in (("a.pt", "cannot be converted"), ("b.pt", "no such file")):
        with pytest.raises(ModelError, match=words):
            convert_torch(tmp_path / source, tmp_path / "a.safetensors", trust=True)
    with pytest.raises(ModelError, match=r"ends in \.safetensors"):
        convert_torch(tmp_path / "a.pt", tmp_path / "a.bin", trust=True)


def test_the_command_line_prints_one_line(tmp_path: Path) -> None:
    torch.save(dict(STATE), tmp_path / "a.pt")
    command = ("convert", "torch", "a.pt")
    refused = here(*command, cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "--trust" in refused.stderr
    done = here(*command, "--trust", cwd=tmp_path)
    assert done.returncode == 0
    assert "a.safetensors" in done.stdout


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_with_paths_outside_write_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "in" / "weights.pth"
    path.parent.mkdir()
    if kind == "zip":
        torch.save({"w": torch.ones(2)}, path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("../evil.txt", "x")
    else:
        with tarfile.open(path, "w") as tar:
            for name in ("../evil.txt", "storages", "tensors", "pickle"):
                member = tarfile.TarInfo(name)
                member.size = 1
                tar.addfile(member, io.BytesIO(b"x"))
    out = tmp_path / "in" / "weights.safetensors"
    with pytest.raises(ModelError, match="cannot be converted"):
        convert_torch(path, out, trust=True)
    assert not out.exists()
    assert not (tmp_path / "evil.txt").exists()
    assert [each.name for each in tmp_path.iterdir()] == ["in"]
