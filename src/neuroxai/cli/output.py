"""What a command prints at the end: tables for a reader, paths alone, or JSON for a program."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroxai.cli.console import plain
from neuroxai.files.folder import Results

SCHEMA = 1
"""Version of the JSON that ``--json`` prints: it rises if a key is renamed or removed."""


@dataclass(frozen=True)
class Output:
    """How a command reports, as chosen with ``--quiet`` and ``--json``.

    Attributes
    ----------
    quiet
        Print no progress and no tables, only warnings and paths.
    as_json
        Print one JSON object on the standard output, and nothing else there.
    """

    quiet: bool = False
    as_json: bool = False

    def finish(
        self,
        command: str,
        results: Results,
        *,
        summary: Path,
        show: Callable[[], None],
        warnings: Sequence[str] = (),
        findings: Sequence[str] = (),
    ) -> None:
        """Print the results of a command that wrote files.

        Parameters
        ----------
        command
            The command's name.
        results
            The published files.
        summary
            The JSON file with all results of the command.
        show
            Prints findings, tables and notes for a reader.
        warnings
            Warnings, one sentence each.
        findings
            The findings in words.
        """
        if self.as_json:
            self.print_json(
                command,
                json.loads((results.folder / summary.name).read_text(encoding="utf-8")),
                findings=list(findings),
                warnings=list(warnings),
                folder=str(results.folder.resolve()),
                files=[str(path.resolve()) for path in results.written],
            )
            return
        if not self.quiet:
            show()
            return
        console = plain()
        for warning in warnings:
            console.print(f"Warning: {warning}", soft_wrap=True)
        for path in results.written:
            console.print(str(path), soft_wrap=True)

    def print_json(self, command: str, result: Mapping[str, Any], **more: Any) -> None:
        """Print one JSON object: command, version of the schema, result, and ``more``."""
        import typer

        content = {"command": command, "schema": SCHEMA, **more, "result": result}
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))
