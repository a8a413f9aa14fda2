"""Help in panels: options by what they are about, commands by what they are for."""

from __future__ import annotations

from functools import partial
from typing import Any

import typer
from typer.core import TyperCommand

from neuroxai.cli.termination import InterruptibleGroup

ARGUMENTS, OTHER = "Arguments", "Other"
ORDER = (
    ARGUMENTS, "Case", "Cohort", "Network", "Question", "Methods", "Run", "Results", OTHER,
)  # fmt: skip
"""Panels from top to bottom."""

case_option = partial(typer.Option, rich_help_panel="Case")
cohort_option = partial(typer.Option, rich_help_panel="Cohort")
network_option = partial(typer.Option, rich_help_panel="Network")
question_option = partial(typer.Option, rich_help_panel="Question")
method_option = partial(typer.Option, rich_help_panel="Methods")
run_option = partial(typer.Option, rich_help_panel="Run")
result_option = partial(typer.Option, rich_help_panel="Results")


def example(*lines: str) -> str:
    """Return the end of a command's help: examples, one line each.

    Examples
    --------
    >>> print(example("neuroxai check CASE").replace(chr(8), "-"))
    -
    Example:
      neuroxai check CASE
    """
    heading = "Examples:" if len(lines) > 1 else "Example:"
    return "\n".join(("\b", heading, *(f"  {line}" for line in lines)))  # \b: do not wrap


class Command(TyperCommand):
    """A command with its options in panels."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one section of options per panel."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                by_default = ARGUMENTS if parameter.param_type_name == "argument" else OTHER
                name = getattr(parameter, "rich_help_panel", None) or by_default
                panels.setdefault(name, []).append(record)
        for name in sorted(panels, key=ORDER.index):
            with formatter.section(name):
                formatter.write_dl(panels[name])


class Commands(InterruptibleGroup):
    """A group with its commands in panels."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section of commands per panel, in the order of the commands."""
        panels: dict[str, list[tuple[str, str]]] = {}
        shown = {name: self.commands[name] for name in self.list_commands(ctx)}
        room = formatter.width - 6 - max(map(len, shown))
        for name, command in shown.items():
            panel = getattr(command, "rich_help_panel", None) or "Commands"
            panels.setdefault(panel, []).append((name, command.get_short_help_str(room)))
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)
