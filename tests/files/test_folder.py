"""A folder of results holds all of a run's files or none of them, and leaves others alone."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path

import pytest

from neuroxai.core.errors import OutputError
from neuroxai.files.folder import Results, describe_dataset, refuse_other_case, write_json


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


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    describe_dataset(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_failed_run_leaves_what_an_earlier_one_wrote_under_the_same_names(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        describe_dataset(results.folder)
        results.add(write_json(results.folder / "one.json", {"run": 1}))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_second_run_writes_over_the_first_and_says_what_is_older(tmp_path: Path) -> None:
    for run, names in enumerate((("one.json", "two.json"), ("two.json", "in/three.json"))):
        with Results(tmp_path / "out") as results:
            describe_dataset(results.folder)
            for name in names:
                results.add(write_json(results.folder / name, {"run": run}))
    assert str(results) == f"2 files in {tmp_path / 'out'}, beside 1 of earlier runs"
    assert results.written == [tmp_path / "out" / name for name in ("two.json", "in/three.json")]
    runs = {path.name: json.loads(path.read_text())["run"] for path in results.written}
    assert runs == {"two.json": 1, "three.json": 1}
    assert (tmp_path / "out" / "one.json").is_file()
    assert not list(tmp_path.rglob(".neuroxai-*"))


def test_a_relative_folder_counts_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain = tempfile.mkdtemp
    # From Python 3.12 on it is absolute whatever it is asked in.
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **asked: str(Path(plain(**asked)).absolute()))
    for _ in range(2):
        with Results(Path("out")) as results:
            results.add(write_json(results.folder / "one.json", {}))
        assert str(results) == "1 file in out"
    assert results.written == [Path("out/one.json")]


def test_a_folder_that_cannot_be_one_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for wrong in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(OutputError, match="file"), Results(wrong):
            pytest.fail("it was entered")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_that_ends_keeps_its_files_and_counts_them(tmp_path: Path) -> None:
    with Results(tmp_path / "out") as results:
        assert results.add(write_json(results.folder / "one.json", {"a": 1})).is_file()
    assert str(results) == f"1 file in {tmp_path / 'out'}"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one.json"]


def test_a_file_that_is_added_twice_is_refused(tmp_path: Path) -> None:
    """Two things that one file name stands for: the second would be all that is left."""

    def write_twice() -> None:
        with Results(tmp_path / "out") as results:
            for content in ({"a": 1}, {"a": 2}):
                results.add(write_json(results.folder / "one.json", content))

    with pytest.raises(OutputError, match=r"out/one\.json: is written twice"):
        write_twice()
    assert not (tmp_path / "out").exists()
    with pytest.raises(OutputError, match="twice"):
        Results(tmp_path).add(tmp_path / "a", tmp_path / "a")


def test_a_full_disk_is_told_of_the_file_that_was_to_be(
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


def test_the_numbers_of_another_case_are_not_written_over(tmp_path: Path) -> None:
    refuse_other_case(tmp_path / "none", "summary.json", "one")
    write_json(tmp_path / "summary.json", {"case": "one"})
    refuse_other_case(tmp_path, "summary.json", "one")
    with pytest.raises(OutputError, match=r"summary\.json: .*one.*two.*--out"):
        refuse_other_case(tmp_path, "summary.json", "two")
    for other in ("{", "[1]", "{}"):  # not ours: nothing is known of it
        (tmp_path / "summary.json").write_text(other)
        refuse_other_case(tmp_path, "summary.json", "two")
