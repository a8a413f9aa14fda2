"""Atomic writing: a file is complete, or it is not there."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from neuroxai.core.errors import OutputError
from neuroxai.files.atomic import atomic_path, write_json, write_table


def test_a_file_is_replaced_completely_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "map.nii.gz"
    path.write_text("old")

    def fail_halfway() -> None:
        with atomic_path(path) as temporary:
            assert temporary.name.endswith(".nii.gz")
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()
    assert [p.name for p in tmp_path.iterdir()] == ["map.nii.gz"]
    assert path.read_text() == "old"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with atomic_path(tmp_path / "deeper" / "still" / "b.txt") as temporary:
        temporary.write_text("b")
    assert (tmp_path / "deeper/still/b.txt").read_text() == "b"


def test_a_path_through_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    writing = atomic_path(tmp_path / "file" / "a.txt")
    with pytest.raises(OutputError, match=r"a\.txt: cannot be written"), writing:
        pass


def test_json_and_tables_are_read_back(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"größe": [1, 2.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"größe": [1, 2.5, None]}
    with pytest.raises(ValueError, match="nan"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"größe": [1, 2.5, None]}
    table = write_table(tmp_path / "a.csv", ("name", "value"), [("a,b", 1), ("c", None)])
    with table.open(encoding="utf-8", newline="") as stream:
        assert list(csv.reader(stream)) == [["name", "value"], ["a,b", "1"], ["c", ""]]
    assert {each.name for each in tmp_path.iterdir()} == {"a.json", "a.csv"}
