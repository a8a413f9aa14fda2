"""``neuroxai methods``: the explanation methods."""

from __future__ import annotations

from importlib.metadata import entry_points

from neuroxai.cli.console import plain


def methods() -> None:
    """List the explanation methods, their parameters and references."""
    from rich.text import Text

    from neuroxai.methods.table import ENTRY_POINTS, TABLE

    table = dict(TABLE)
    if entry_points(group=ENTRY_POINTS):
        from neuroxai.methods.make import all_methods, describe_method

        table |= {
            name: describe_method(method)
            for name, method in all_methods().items()
            if name not in TABLE
        }
    console = plain()
    for name, entry in table.items():
        sign = "signed" if entry.signed else "never negative"
        console.print(Text.assemble((name, "bold"), f"  {entry.title}, {sign}, {entry.citation}"))
        if entry.parameters:
            console.print("    " + entry.parameters.replace(" ", "  "))
    console.print("Set a parameter:  --set METHOD.NAME=VALUE")
