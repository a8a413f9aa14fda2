"""``neuroxai methods``: the explanation methods."""

from __future__ import annotations

from neuroxai.cli.console import plain


def methods() -> None:
    """List the explanation methods, their parameters and references."""
    from rich.text import Text

    from neuroxai.methods.table import all_entries

    console = plain()
    for name, entry in all_entries().items():
        sign = "signed" if entry.signed else "never negative"
        console.print(
            Text.assemble((name, "bold"), f"  {entry.title}, {sign}, {entry.citation}"),
            soft_wrap=True,
        )
        if entry.parameters:
            console.print("    " + entry.parameters.replace(" ", "  "), soft_wrap=True)
    console.print("Set a parameter:  --set METHOD.NAME=VALUE")
