"""A result folder gets all files of a run or none, and other files in it are unchanged."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path

import pytest

from neuroxai.core.errors import OutputError
from neuroxai.files.atomic import write_json
from neuroxai.files.folder import Results, describe_dataset, refuse_other_case


def fail(folder: Path) -> None:
    with Results(folder) as results:
        describe_dataset(results.folder)
        for name in ("one.json", "two.json"):
            results.add(write_json(results.folder / name, {}))
        raise KeyboardInterrupt


def test_a_failed_run_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "out"
    with pytest.raises(KeyboardInterrupt):
        fail(folder)
    assert not folder.exists()


def test_a_failed_run_keeps_existing_files(tmp_path: Path) -> None:
    describe_dataset(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_failed_run_keeps_files_of_an_earlier_run_with_the_same_names(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        describe_dataset(results.folder)
        results.add(write_json(results.folder / "one.json", {"run": 1}))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_second_run_replaces_files_and_counts_older_ones(tmp_path: Path) -> None:
    for run, names in enumerate((("one.json", "two.json"), ("two.json", "in/three.json"))):
        with Results(tmp_path / "out") as results:
            describe_dataset(results.folder)
            for name in names:
                results.add(write_json(results.folder / name, {"run": run}))
    assert str(results) == f"2 files in {tmp_path / 'out'}, and 1 from earlier runs"
    assert results.written == [tmp_path / "out" / name for name in ("two.json", "in/three.json")]
    runs = {path.name: json.loads(path.read_text())["run"] for path in results.written}
    assert runs == {"two.json": 1, "three.json": 1}
    assert (tmp_path / "out" / "one.json").is_file()
    assert not list(tmp_path.rglob(".neuroxai-*"))


def test_files_in_a_relative_folder_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = tempfile.mkdtemp
    # From Python 3.12 on, mkdtemp returns an absolute path.
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **given: str(Path(plain(**given)).absolute()))
    for _ in range(2):
        with Results(Path("out")) as results:
            results.add(write_json(results.folder / "one.json", {}))
        assert str(results) == "1 file in out"
    assert results.written == [Path("out/one.json")]


def test_a_file_in_place_of_the_folder_is_an_error_on_entry(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for wrong in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(OutputError, match="file"), Results(wrong):
            pytest.fail("it was entered")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_completed_run_keeps_and_counts_its_files(tmp_path: Path) -> None:
    with Results(tmp_path / "out") as results:
        assert results.add(write_json(results.folder / "one.json", {"a": 1})).is_file()
    assert str(results) == f"1 file in {tmp_path / 'out'}"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one.json"]


def test_a_file_added_twice_is_an_error(tmp_path: Path) -> None:
    """Two results with one file name: the second would replace the first."""

    def write_twice() -> None:
        with Results(tmp_path / "out") as results:
            for content in ({"a": 1}, {"a": 2}):
                results.add(write_json(results.folder / "one.json", content))

    with pytest.raises(OutputError, match=r"out/one\.json: written twice"):
        write_twice()
    assert not (tmp_path / "out").exists()
    with pytest.raises(OutputError, match="twice"):
        Results(tmp_path).add(tmp_path / "a", tmp_path / "a")


def test_a_full_disk_is_reported_with_the_final_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError) as caught, Results(tmp_path / "out") as results:
        write_json(results.folder / "in" / "one.json", {})
    assert str(caught.value) == (
        f"{tmp_path / 'out' / 'in' / 'one.json'}: cannot be written (No space left on device)"
    )
    assert not list(tmp_path.iterdir())


def test_results_of_another_case_are_not_overwritten(tmp_path: Path) -> None:
    refuse_other_case(tmp_path / "none", "summary.json", "one")
    write_json(tmp_path / "summary.json", {"case": "one"})
    refuse_other_case(tmp_path, "summary.json", "one")
    with pytest.raises(OutputError, match=r"summary\.json: .*one.*two.*--out"):
        refuse_other_case(tmp_path, "summary.json", "two")
    for other in ("{", "[1]", "{}"):  # from another program
        (tmp_path / "summary.json").write_text(other)
        refuse_other_case(tmp_path, "summary.json", "two")
