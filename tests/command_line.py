"""The command line, in a process of its own as a user runs it, or in this one, which is quicker."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from neuroxai.cli import main

Run = subprocess.CompletedProcess[str]


def neuroxai(*arguments: object, cwd: Path | None = None, cache: Path | None = None) -> Run:
    """Run the installed command in a process of its own."""
    return subprocess.run(
        [Path(sys.executable).with_name("neuroxai"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **_environment(cache)},
        cwd=cwd,
        timeout=300,
        check=False,
    )


def here(*arguments: object, cwd: Path | None = None, cache: Path | None = None) -> Run:
    """Run a command in this process: the same ``main``, without seconds of imports."""
    said, complained = io.StringIO(), io.StringIO()
    words = ["neuroxai", *map(str, arguments)]
    code: object = 0
    with (
        mock.patch.dict(os.environ, _environment(cache)),
        mock.patch.object(sys, "argv", words),
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(complained),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    return Run(words, int(code or 0), said.getvalue(), complained.getvalue())  # type: ignore[call-overload]


def said(run: Run, code: int = 0) -> str:
    """Return all that a command printed, once it has ended as it should."""
    assert run.returncode == code, run.stderr[-2000:]
    return run.stdout + run.stderr


def _environment(cache: Path | None) -> dict[str, str]:
    changed = {"COLUMNS": "200", "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    return changed | ({"XDG_CACHE_HOME": str(cache)} if cache else {})


def refusal(run: Run, *words: str) -> None:
    """Check that a run failed in one line that says these words."""
    assert run.returncode == 1, run.stdout + run.stderr
    line = run.stderr.strip().splitlines()[-1]
    assert line.startswith("neuroxai: ")
    for word in words:
        assert word in line, line
