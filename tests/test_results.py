"""A folder of results holds all of a run's files or none of them, and leaves others alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuroxai.results import Results, describe_dataset, write_json


def fail(folder: Path) -> None:
    with Results(folder) as results:
        describe_dataset(folder)
        results.add(write_json(folder / "one.json", {}), write_json(folder / "two.json", {}))
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


def test_a_run_that_ends_keeps_its_files_and_counts_them(tmp_path: Path) -> None:
    with Results(tmp_path / "out") as results:
        assert results.add(write_json(tmp_path / "out" / "one.json", {"a": 1})).is_file()
    assert str(results) == f"1 file in {tmp_path / 'out'}"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one.json"]
