"""Networks of every kind: each map equals its oracle or is refused, and the docs say which."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from monai_matrix import CASES, COLUMNS, HEAD, NETWORKS, Case, cells, line
from networks import relative
from neuroxai.core.errors import TargetError
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Class
from neuroxai.methods import make_method

TABLE = Path(__file__).parents[2] / "docs" / "networks.md"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dims"), CASES)
def test_a_right_map_or_a_clear_no(name: str, dims: int) -> None:
    found = cells(name, dims)
    (row,) = (each for each in TABLE.read_text().splitlines() if each.startswith(f"| {name} |"))
    entries = [entry.strip() for entry in row.strip("|").split("|")][2:]
    reasons = {
        number: reason
        for number, _, reason in (each.partition(". ") for each in TABLE.read_text().splitlines())
        if number.isdigit()
    }
    for method, entry in zip(COLUMNS, entries, strict=True):
        said = entry.split(" / ")[dims - 2 if " / " in entry else 0]
        if said == "yes":
            assert found[method] == "yes"
        else:
            assert found[method] == f"no: {reasons[said.removeprefix('no (').removesuffix(')')]}"


def test_the_table_names_every_network_and_method() -> None:
    text = TABLE.read_text()
    head = HEAD.format(methods=" | ".join(COLUMNS), rule=" | ".join("---" for _ in COLUMNS))
    assert text.startswith(head)
    assert len(NETWORKS) >= 12
    assert [
        each.split("|")[1].strip() for each in text[len(head) :].splitlines() if "|" in each
    ] == [*NETWORKS]


def test_a_line_names_its_reasons_once() -> None:
    yes = dict.fromkeys(COLUMNS, "yes")
    no = {**yes, "grad_cam": "no: it has none", "guided_backprop": "no: it is void"}
    reasons = ["it is void"]
    first = line("UNet", {2: yes, 3: no}, reasons)
    assert "yes / no (1)" in first
    assert "yes / no (2)" in first
    assert reasons == ["it is void", "it has none"]


def test_the_oracles_can_fail() -> None:
    case = Case("SegResNet", 2)
    plain, guided = case.gradient(case.x), case.guided()
    assert relative(plain, guided) > 0.05
    found = case.explain(make_method("grad_cam"))
    assert found.layer is not None
    assert relative(found.values, case.cam("grad_cam", found.layer).flip(-1)) > 0.05


def test_several_outputs_need_a_choice() -> None:
    from monai.networks.nets import BasicUNetPlusPlus

    case, method = Case("BasicUNetPlusPlus", 2), make_method("vanilla_gradient")
    several = BasicUNetPlusPlus(2, 2, 3, (4, 4, 8, 8, 16, 4), deep_supervision=True)
    several.double().eval()
    assert len(several(case.x)) == 4
    for key, words in ((None, "a list of"), (7, "got 7")):
        with pytest.raises(TargetError, match=words):
            method.explain(WholeVolume(several, Class(1), Outputs(key=key)), case.x)
    # A list of one can mean but one thing; of one that is not there it cannot.
    alone, first = (
        method.explain(WholeVolume(case.network, Class(1), Outputs(key=key)), case.x).values
        for key in (None, 0)
    )
    assert torch.equal(alone, first)
    with pytest.raises(TargetError, match="got 7"):
        method.explain(WholeVolume(case.network, Class(1), Outputs(key=7)), case.x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_weights_are_widened_when_loaded(dtype: torch.dtype, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    import bundles
    from neuroxai.models import load_model

    folder = bundles.write_bundle(tmp_path / "b")
    path = folder / "models" / "model.safetensors"
    halved = {name: value.to(dtype) for name, value in load_file(path).items()}
    save_file(halved, path)
    network = load_model(folder).network
    for name, value in network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, halved[name].float())
